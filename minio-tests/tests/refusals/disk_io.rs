//! `--disk-io`: which of the two ways to its disk cache a node takes, and that its log says which, and why.

use std::path::Path;

use minio_tests::announce;
use minio_tests::bucket::Bucket;
use minio_tests::shoal::Shoal;

use crate::{assert_says, cache};

/// When this is `1`, tests that want io_uring fail without it.
const REQUIRE_VARIABLE: &str = "SHOAL_REQUIRE_IO_URING";

const IO_URING: &str = "io_uring with registered buffers";
/// What a node says that may lock no memory, which the kernel wants of whoever has a ring.
const DENIED: &str = "plain reads and writes, because io_uring does not work here: \
    Cannot allocate memory (os error 12); it locks 4 MiB and a little more (ulimit -l)";

/// Half of it is for pages.
const CACHE_SIZE: &str = "64MiB";
const PAGES_BYTES: u64 = 32 << 20;

fn node(bucket: &Bucket, cache: &Path, io: &[&str]) -> Shoal {
    Shoal::on(bucket, cache).with(&["--cache-size", CACHE_SIZE]).with(io)
}

/// The same where no memory may be locked.
fn denied(shoal: Shoal) -> Shoal {
    let without_lock = ["sh", "-c", "ulimit -l 0 && exec \"$0\" \"$@\""];
    if !rustix::process::geteuid().is_root() {
        return shoal.by(&without_lock);
    }
    // Limits do not bind who may ignore them, as root may.
    let without_right = ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"];
    shoal.by(&[&without_right[..], &without_lock].concat())
}

/// Starts it and has it answer. What the line about its disk cache says of the way to it.
fn way_of(shoal: Shoal, cache: &Path) -> String {
    let node = shoal.start();
    node.create_database("app");
    let database = node.database("app");
    database.execute("CREATE TABLE t (x)", &[]).expect("it serves");
    node.addresses().release("app").expect("released");
    assert_eq!(database.execute("SELECT count(*) FROM t", &[]).expect("it reads"), [[0.into()]]);
    let log = node.terminate();
    let lines: Vec<&String> = log.iter().filter(|line| line.contains("disk cache: ")).collect();
    let [line] = lines[..] else { panic!("it is said once: {lines:?}") };
    assert!(line.contains(" INFO "), "{line}");
    let where_it_is = format!(" path={} bytes_max={PAGES_BYTES}", cache.join("pages").display());
    let said = line.split_once("disk cache: ").and_then(|(_, said)| said.strip_suffix(&where_it_is));
    said.unwrap_or_else(|| panic!("`{where_it_is}` is not the end of: {line}")).to_owned()
}

/// The way that `auto` leads to where nothing is denied.
fn way_of_auto() -> String {
    let (_directory, cache) = cache();
    let auto = way_of(node(&Bucket::directory(), &cache, &[]), &cache);
    if auto != IO_URING {
        let is_required = std::env::var_os(REQUIRE_VARIABLE).is_some_and(|value| value == "1");
        assert!(!is_required, "{REQUIRE_VARIABLE}=1, but the node says: {auto}");
        announce(&format!("NODES ARE NOT TESTED WITH IO_URING: {auto}"));
        assert!(auto.starts_with("plain reads and writes, because io_uring does not work here: "), "{auto}");
    }
    auto
}

#[test]
fn auto_is_io_uring_where_it_works_and_else_says_why_it_is_not() {
    let auto = way_of_auto();
    let (_directory, cache) = cache();
    let without = way_of(denied(node(&Bucket::directory(), &cache, &["--disk-io", "auto"])), &cache);
    // Where it is forbidden anyway, that comes first.
    assert_eq!(without, if auto == IO_URING { DENIED.to_owned() } else { auto });
}

#[test]
fn plain_is_plain_because_somebody_said_so() {
    let (_directory, cache) = cache();
    let plain = way_of(node(&Bucket::directory(), &cache, &["--disk-io", "plain"]), &cache);
    assert_eq!(plain, "plain reads and writes, as --disk-io says");
}

#[test]
fn io_uring_by_name_is_had_or_the_start_is_refused() {
    let (_directory, cache) = cache();
    let ended = denied(node(&Bucket::directory(), &cache, &["--disk-io", "io-uring"])).start_and_end();
    assert_says(&ended, &["--disk-io is io-uring, which does not work here", "write --disk-io auto or plain"]);
}
