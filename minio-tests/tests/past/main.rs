//! `kill -9` amid forks, restores, deletions and looks at the past: what was answered is there, and what was not is there
//! whole or not at all.
//!
//! In each round four clients work on one process, each on a family of databases of its own, until the process is killed,
//! half of the times together with its cache directory. Then a new process is asked for every database of every family,
//! and for moments of their past.
//!
//! Each commit inserts one row and nothing else. So the commits of a database are its rows, whatever it was forked from,
//! and the state after LSN `n` has the first `n - 1` of them: LSN 1 is the table.
//!
//! `SHOAL_KILLS` is the number of rounds on each store (default 5), `SHOAL_SEED` repeats a run's choices.

mod family;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use minio_tests::bucket::Bucket;
use minio_tests::dice::Dice;
use minio_tests::limits::RECOVERY;
use minio_tests::settings::{number_from, seed};
use minio_tests::shoal::{Shoal, ShoalProcess};
use minio_tests::{announce, clock};

use family::{Counts, Family};

const KILLS_DEFAULT: u64 = 5;
const FAMILIES: u64 = 4;
/// Requests of all clients before a kill.
const REQUESTS_MIN: u64 = 20;
const REQUESTS_MAX: u64 = 200;
/// For the kill to strike anywhere in a request.
const DELAY_MICROS_MAX: u64 = 20_000;

#[test]
fn forks_and_restores_survive_kills_on_the_directory_store() {
    run("directory", &Bucket::directory());
}

#[test]
fn forks_and_restores_survive_kills_on_minio() {
    run("MinIO", &Bucket::minio());
}

fn run(name: &str, bucket: &Bucket) {
    let (kills, dice) = (number_from("SHOAL_KILLS").unwrap_or(KILLS_DEFAULT), Dice::new(seed(name)));
    let caches = tempfile::tempdir().expect("a temporary directory");
    let cache = caches.path().join("cache");
    let start = || Shoal::on(bucket, &cache).with(&["--lease", "1s"]).start();
    let mut process = start();
    let mut families: Vec<Family> =
        (0..FAMILIES).map(|number| Family::begin(&process, number, dice.split(number))).collect();
    for round in 0..kills {
        let mut dice = dice.split(1000 + round);
        kill_amid(process, &mut families, &mut dice);
        if dice.one_in(2) {
            std::fs::remove_dir_all(&cache).expect("the cache directory can be deleted");
        }
        process = start();
        families.iter_mut().for_each(|family| family.check(process.addresses()));
    }
    // An orderly end, and then all of it once more, from the bucket alone.
    process.terminate();
    std::fs::remove_dir_all(&cache).expect("the cache directory can be deleted");
    let process = start();
    families.iter_mut().for_each(|family| family.check(process.addresses()));
    let counts = families.iter().fold(Counts::default(), |all, family| all.and(family.counts));
    announce(&format!("{name}: {kills} kills; {counts:?}"));
    assert!(counts.forks > 0 && counts.restores > 0 && counts.commits > 0, "nothing was done");
}

/// Has the clients work until the process is killed under them.
fn kill_amid(process: ShoalProcess, families: &mut [Family], dice: &mut Dice) {
    let requests = dice.between(REQUESTS_MIN..REQUESTS_MAX) as usize;
    let delay = Duration::from_micros(dice.between(0..DELAY_MICROS_MAX));
    let (sent, is_killed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let server = process.addresses().clone();
    thread::scope(|scope| {
        for family in families {
            let (server, sent, is_killed) = (&server, &sent, &is_killed);
            scope.spawn(move || {
                let failure = family.work_until_it_fails(server, || {
                    sent.fetch_add(1, Ordering::Relaxed);
                });
                assert!(is_killed.load(Ordering::SeqCst), "refused by a process that is well: {failure}");
            });
        }
        // Whether a client has given up already is told by its thread.
        let enough = || (sent.load(Ordering::Relaxed) >= requests).then_some(());
        clock::poll(RECOVERY, enough).expect("the clients go on");
        clock::sleep(delay);
        is_killed.store(true, Ordering::SeqCst);
        process.kill9();
    });
}
