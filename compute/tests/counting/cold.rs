//! A database of 100 MB after a restart on an empty cache: little is read, and little is written back.

use emulator::{Counters, Operation};

use crate::client::Client;
use crate::rig::{Rig, one_at_a_time};

const ROWS: u64 = 100_000;
const ROWS_PER_TRANSACTION: u64 = 4_000;
const BODY_BYTES: u64 = 1_000;

const POINT_QUERY_BYTES_MAX: u64 = 1 << 20;
const SMALL_FOLD_BYTES_MAX: u64 = 256 << 10;

/// Rows that do not compress, in transactions of about 4 MB.
fn load(client: &Client) {
    client.run("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL, body BLOB NOT NULL)");
    for first in (1..=ROWS).step_by(ROWS_PER_TRANSACTION as usize) {
        let last = first + ROWS_PER_TRANSACTION - 1;
        client.run(&format!(
            "WITH RECURSIVE ids(id) AS (SELECT {first} UNION ALL SELECT id + 1 FROM ids WHERE id < {last})
             INSERT INTO t SELECT id, 0, randomblob({BODY_BYTES}) FROM ids"
        ));
    }
}

fn page_bytes_read(spent: &Counters) -> u64 {
    ["pack", "map"].iter().map(|class| spent.get(Operation::Get, *class).bytes).sum()
}

fn fold_bytes_written(spent: &Counters) -> u64 {
    ["pack", "map", "head"].iter().map(|class| spent.get(Operation::Put, *class).bytes).sum()
}

#[test]
fn a_cold_point_query_fetches_little_and_a_one_row_update_folds_small() {
    let _turn = one_at_a_time();
    let mut rig = Rig::start(&[]);
    load(&rig.create("app"));
    rig.wait_until_quiet();

    rig.restart_with_empty_cache();
    let spent = rig.count(|| {
        let row = rig.client("app").run("SELECT id || ':' || length(body) FROM t WHERE id = 54321");
        assert_eq!(row, ["54321:1000"]);
    });
    println!("the first point query after a restart:\n{spent}");
    let read = page_bytes_read(&spent);
    assert!(read > 0, "the row was in the bucket only");
    assert!(read < POINT_QUERY_BYTES_MAX, "{read} bytes of packs and page maps");

    // A third incarnation in the tail makes a fold due: this one takes what loading has left.
    rig.restart_with_empty_cache();
    let open = || drop(rig.client("app").run("SELECT n FROM t WHERE id = 1"));
    open();
    rig.wait_until_quiet();
    rig.client("app").run("UPDATE t SET n = 1 WHERE id = 12345");

    // And after two more there is the one row to fold.
    for is_third in [false, true] {
        rig.restart_with_empty_cache();
        let spent = rig.count(|| {
            assert_eq!(rig.client("app").run("SELECT n FROM t WHERE id = 12345"), ["1"]);
            rig.wait_until_quiet();
        });
        let packs = spent.get(Operation::Put, "pack").requests;
        assert_eq!(packs, u64::from(is_third), "a fold writes one pack:\n{spent}");
        if is_third {
            println!("opening, a point query, and the fold of one row:\n{spent}");
            // The CAS that acquired the database is counted too.
            assert_eq!(spent.get(Operation::Put, "head").requests, 2);
            let written = fold_bytes_written(&spent);
            assert!(written < SMALL_FOLD_BYTES_MAX, "{written} bytes of packs, page maps and heads");
        }
    }
    assert_eq!(rig.client("app").run("SELECT count(*) || ':' || sum(n) FROM t"), [format!("{ROWS}:1")]);
}
