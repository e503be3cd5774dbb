//! `kill -9` of the owner under load, and nobody there but a page server, which has no SQL: it drains the dead node's
//! log, sweeps the bucket, and ends. Every acknowledged row is there then, and nothing is left over.

use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;

use minio_tests::bucket::Bucket;
use minio_tests::clock;
use minio_tests::hrana::Database;
use minio_tests::limits::RECOVERY;
use minio_tests::shoal::{Shoal, ShoalProcess};
use minio_tests::verify::verify;
use walstore::store::Key;

/// Of which rows come until the kill.
const BUSY: [&str; 3] = ["busy-0", "busy-1", "busy-2"];
/// Of which a part is in a pack, most likely.
const LARGE: &str = "large";
/// Rows of each busy database that are acknowledged before the kill, at least.
const ROWS_MIN: i64 = 20;
/// In the database `large`.
const LARGE_ROWS: i64 = 30;

#[test]
fn a_page_server_drains_and_sweeps_what_a_killed_node_has_left() {
    let bucket = Bucket::directory();
    let caches = tempfile::tempdir().expect("a temporary directory");
    let owner = Shoal::on(&bucket, &caches.path().join("owner")).with(&["--lease", "900ms"]).start();
    for name in BUSY.iter().chain([&LARGE]) {
        owner.create_database(name);
        owner.database(name).execute("CREATE TABLE t (x INTEGER PRIMARY KEY, y)", &[]).expect("a table");
    }
    for row in 1..=LARGE_ROWS {
        owner.database(LARGE).execute_when_available("INSERT INTO t VALUES (?, randomblob(5000))", &[row.into()]);
    }
    let acknowledged = kill9_under_load(owner);
    let never_linked = plant_what_was_never_linked(&bucket);

    let intervals = ["--drain-interval", "1s", "--sweep-interval", "1s"];
    let page_server = Shoal::page_server(&bucket).with(&intervals).start();
    let has_drained = |line: &str| line.contains("swept the logs of incarnations") && line.contains("drained: 1,");
    assert!(page_server.log.wait_for(0, RECOVERY, has_drained).is_some(), "it does not drain");
    let is_swept = || (!bucket.keys().contains(&never_linked) && has_no_orphans(&bucket)).then_some(());
    clock::poll(RECOVERY, is_swept).unwrap_or_else(|| panic!("it does not sweep: {:?}", verify(&bucket, &[])));
    let log = page_server.terminate();
    assert!(log.iter().any(|line| line.contains("swept the bucket")), "{log:?}");
    assert!(log.iter().any(|line| line.ends_with("stopping")), "{log:?}");
    assert!(!log.iter().any(|line| line.contains(" ERROR ")), "{log:?}");

    assert_is_sound_and_folded(&bucket);
    let node = Shoal::on(&bucket, &caches.path().join("node")).start();
    for (name, acknowledged) in BUSY.iter().zip(acknowledged) {
        let (count, last) = rows_of(&node.database(name));
        assert_eq!(count, last, "{name}: rows are missing between the others");
        // Of the one that the kill cut off nobody knows.
        assert!((acknowledged..=acknowledged + 1).contains(&last), "{name}: {acknowledged} acknowledged, {last} there");
    }
    assert_eq!(rows_of(&node.database(LARGE)), (LARGE_ROWS, LARGE_ROWS));
    node.terminate();
}

/// Rows that were acknowledged, by database.
fn kill9_under_load(owner: ShoalProcess) -> Vec<i64> {
    let acknowledged = BUSY.map(|_| AtomicI64::new(0));
    thread::scope(|scope| {
        for (name, acknowledged) in BUSY.iter().zip(&acknowledged) {
            let database = owner.database(name);
            scope.spawn(move || write_until_it_is_gone(&database, acknowledged));
        }
        let are_enough = || acknowledged.iter().all(|rows| rows.load(Ordering::Relaxed) >= ROWS_MIN).then_some(());
        clock::poll(RECOVERY, are_enough).expect("rows are acknowledged");
        owner.kill9();
    });
    acknowledged.into_iter().map(AtomicI64::into_inner).collect()
}

fn write_until_it_is_gone(database: &Database, acknowledged: &AtomicI64) {
    let mut row = 1;
    loop {
        match database.execute("INSERT INTO t VALUES (?, 'a row')", &[row.into()]) {
            Ok(_) => {
                acknowledged.store(row, Ordering::Relaxed);
                row += 1;
            }
            // With a short lease a busy machine is enough.
            Err(failure) if failure.is_unavailable() => {}
            Err(failure) if failure.is_silence() => return,
            Err(failure) => panic!("{failure}"),
        }
    }
}

/// What a fold of the dead owner might have uploaded, under its first epoch. Its key.
fn plant_what_was_never_linked(bucket: &Bucket) -> String {
    let head = bucket.keys().into_iter().find(|key| key.ends_with("/head")).expect("a head");
    let key = head.replace("/head", &format!("/p/{:016x}-{:08x}-{:016x}", 1, 99, 1));
    bucket.plant(&Key::new(key.clone()), b"what it holds does not matter");
    key
}

fn has_no_orphans(bucket: &Bucket) -> bool {
    let found = verify(bucket, &["--output", "json", "--no-integrity-check"]).json();
    found["orphans"]["list"].as_array().is_some_and(Vec::is_empty)
}

fn assert_is_sound_and_folded(bucket: &Bucket) {
    let verified = verify(bucket, &["--output", "json"]);
    let found = verified.json();
    assert_eq!((verified.code, &found["databases"]), (Some(0), &(BUSY.len() + 1).into()), "{found}");
    let nothing = ["damages", "notes"].map(|list| found[list].as_array().is_some_and(Vec::is_empty));
    assert_eq!((nothing, &found["unsettled"]), ([true; 2], &0.into()), "{found}");
    assert!(has_no_orphans(bucket), "{found}");
    // All is in packs and heads: of the log its end is left, for which nobody has to look any more.
    let left = |prefix: &str| bucket.keys().iter().filter(|key| key.starts_with(prefix)).count();
    assert_eq!(["w/", "b/", "x/", "live/"].map(left), [1, 0, 0, 0], "{:?}", bucket.keys());
}

fn rows_of(database: &Database) -> (i64, i64) {
    let rows = database.execute_when_available("SELECT count(*), max(x) FROM t", &[]);
    (rows[0][0].integer(), rows[0][1].integer())
}
