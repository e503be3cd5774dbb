//! What a cold database costs to read: points read nothing that they do not need, scans read everything once and in
//! few requests, and many who want the same thing share it.

use std::thread;

use emulator::{Counters, Operation};

use crate::client::Client;
use crate::rig::{Rig, one_at_a_time};

const ROWS: u64 = 24_000;
const ROWS_PER_TRANSACTION: u64 = 4_000;
const BODY_BYTES: u64 = 1_000;
const SEGMENT_BYTES: u64 = 128 << 10;

const POINT_GETS_MAX: u64 = 5;
const POINT_BYTES_MAX: u64 = 512 << 10;

/// Rows that do not compress, a table that is filled in the order of its keys, and one that is not.
fn load(client: &Client) {
    client.run("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB NOT NULL)");
    client.run("CREATE TABLE scattered (id INTEGER PRIMARY KEY, body BLOB NOT NULL)");
    for first in (1..=ROWS).step_by(ROWS_PER_TRANSACTION as usize) {
        let last = first + ROWS_PER_TRANSACTION - 1;
        client.run(&format!(
            "WITH RECURSIVE ids(id) AS (SELECT {first} UNION ALL SELECT id + 1 FROM ids WHERE id < {last})
             INSERT INTO t SELECT id, randomblob({BODY_BYTES}) FROM ids"
        ));
    }
    // 7,919 has no factor in common with 8,000, so each key comes once.
    client.run(
        "WITH RECURSIVE ids(id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM ids WHERE id < 7999)
         INSERT INTO scattered SELECT id * 7919 % 8000, randomblob(1000) FROM ids",
    );
}

fn gets(spent: &Counters) -> (u64, u64) {
    let counters = ["pack", "map"].map(|class| spent.get(Operation::Get, class));
    (counters.iter().map(|it| it.requests).sum(), counters.iter().map(|it| it.bytes).sum())
}

#[test]
fn a_cold_database_is_read_in_few_requests_and_each_segment_once() {
    let _turn = one_at_a_time();
    let mut rig = Rig::start(&[]);
    load(&rig.create("app"));
    rig.wait_until_quiet();

    rig.restart_with_empty_cache();
    let point = "SELECT length(body) FROM t WHERE id = 17777";
    let spent = rig.count(|| assert_eq!(rig.client("app").run(point), ["1000"]));
    let (requests, bytes) = gets(&spent);
    assert!((1..=POINT_GETS_MAX).contains(&requests) && bytes <= POINT_BYTES_MAX, "a point query:\n{spent}");

    rig.restart_with_empty_cache();
    // It is open then, and nothing else.
    rig.client("app").run("SELECT 1");
    let spent = rig.count(|| {
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| assert_eq!(rig.client("app").run(point), ["1000"]));
            }
        });
    });
    assert!(gets(&spent).0 <= requests, "sixteen who want the same row cost what one does:\n{spent}");

    // In the order of the file neighbours go in one request; else each segment has its own, once.
    for (table, rows, requests_for_ten) in [("t", ROWS, 7), ("scattered", 8_000, 11)] {
        rig.restart_with_empty_cache();
        let scan = format!("SELECT count(*) || ':' || sum(length(body)) FROM {table}");
        let spent = rig.count(|| assert_eq!(rig.client("app").run(&scan), [format!("{rows}:{}", rows * BODY_BYTES)]));
        let (requests, bytes) = gets(&spent);
        // A page has three rows and some room. What was read ahead goes on for a moment after the last row.
        let pages = rows * BODY_BYTES * 11 / 10;
        println!("a scan of {rows} rows: {requests} requests for {} segments", pages / SEGMENT_BYTES);
        assert!(bytes < pages * 5 / 4 + (4 << 20), "{bytes} bytes for {pages}:\n{spent}");
        assert!(requests < pages / SEGMENT_BYTES * requests_for_ten / 10, "{spent}");
    }
}
