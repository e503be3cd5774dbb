//! What cannot work, or is not as it should be, and the process that says so.
//!
//! Here: starts that cannot work. The process ends with an error that says why and what to do, and leaves nothing
//! behind.
//!
//! | file | what |
//! |---|---|
//! | `verify` | `shoal verify`: damage is named, and is told from a check that could not be made |
//! | `disk_io` | a kernel that does not let a node have io_uring |

mod disk_io;
mod verify;

use std::path::PathBuf;

use minio_tests::bucket::Bucket;
use minio_tests::shoal::{Ended, Shoal};
use tempfile::TempDir;

/// A directory for a cache that nothing else uses.
fn cache() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("cache");
    (directory, path)
}

/// The last line is the error; it holds all of `words`, and no panic came before it.
fn assert_says(ended: &Ended, words: &[&str]) {
    let Ended { status, stderr } = ended;
    assert_eq!(status.code(), Some(1), "{status}: {stderr}");
    let last = stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("shoal: "), "{stderr}");
    for word in words {
        assert!(last.contains(word), "`{word}` is missing in: {last}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

fn with_credentials(store_url: &str, access: &str, secret: &str) -> Ended {
    let (_directory, cache) = cache();
    let shoal = Shoal::at(store_url, &cache);
    shoal.environment("AWS_ACCESS_KEY_ID", access).environment("AWS_SECRET_ACCESS_KEY", secret).start_and_end()
}

fn a_missing_bucket_and_wrong_credentials_are_named(bucket: &Bucket) {
    let (access, secret) = bucket.credentials().expect("a store with credentials");
    let missing = with_credentials(&bucket.url_of("no-such-bucket"), &access, &secret);
    assert_says(&missing, &["no-such-bucket", "make the bucket"]);
    let url = bucket.store_url();
    for (access, secret) in [(access.as_str(), "guessed-secret"), ("nobody-known", secret.as_str())] {
        assert_says(&with_credentials(&url, access, secret), &["`shoal`", "AWS_SECRET_ACCESS_KEY"]);
    }
}

#[test]
fn minio_without_the_bucket_or_with_wrong_credentials() {
    a_missing_bucket_and_wrong_credentials_are_named(&Bucket::minio());
}

#[test]
fn the_emulator_without_the_bucket_or_with_wrong_credentials() {
    let bucket = Bucket::emulator();
    a_missing_bucket_and_wrong_credentials_are_named(&bucket);
    assert_eq!(bucket.as_emulator().object_count(), 0, "nothing was written on the way");
}

#[test]
fn no_credentials_at_all() {
    let (home, cache) = cache();
    let shoal = Shoal::at(&Bucket::emulator().store_url(), &cache);
    // Neither the profile of whoever runs this test may help.
    let home = home.path().to_str().expect("a plain path");
    assert_says(&shoal.environment("HOME", home).start_and_end(), &["no credentials", "AWS_ACCESS_KEY_ID"]);
}

#[test]
fn a_store_that_ignores_conditions() {
    let bucket = Bucket::emulator();
    bucket.as_emulator().faults().ignore_conditions(true);
    let (_directory, cache) = cache();
    let ended = Shoal::on(&bucket, &cache).start_and_end();
    assert_says(&ended, &["cannot be used", "If-None-Match", "acknowledged commits would be lost"]);
    assert_eq!(bucket.as_emulator().object_count(), 0, "nothing is left of the probe");
}

#[test]
fn a_directory_that_does_not_exist_is_not_made() {
    let bucket = Bucket::directory();
    let missing = bucket.as_directory().join("missing");
    let (_directory, cache) = cache();
    let ended = Shoal::at(&format!("file://{}", missing.display()), &cache).start_and_end();
    assert_says(&ended, &[missing.to_str().expect("a plain path")]);
    assert!(!missing.exists(), "nothing is created by accident");
}

#[test]
fn a_second_process_on_the_same_cache_directory() {
    let bucket = Bucket::directory();
    let (_directory, cache) = cache();
    let first = Shoal::on(&bucket, &cache).start();
    first.create_database("app");
    let ended = Shoal::on(&bucket, &cache).start_and_end();
    assert_says(&ended, &[cache.to_str().expect("a plain path"), "in use by another process", "--cache-dir"]);
    let rows = first.database("app").execute("SELECT 1", &[]).expect("the first goes on");
    assert_eq!(rows, [[1.into()]]);
    first.terminate();
}
