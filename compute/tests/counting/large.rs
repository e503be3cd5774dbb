//! The server's memory while transactions as large as it allows are written, logged and folded, and while much is
//! sorted.

use std::thread;
use std::time::Duration;

use crate::clock;
use crate::client::Client;
use crate::memory::{accounted, status};
use crate::rig::{Rig, one_at_a_time};

/// `--memory 128MiB`, and what the process takes besides.
const MEMORY_BYTES: u64 = 128 << 20;
const RESIDENT_BYTES_MAX: u64 = MEMORY_BYTES + (128 << 20);

/// A transaction may write a quarter of it: 8,192 pages, of which a row of this length takes a quarter.
const ROWS: u64 = 4 * 7_700;
const BODY_BYTES: u64 = 1_000;

fn create(rig: &Rig, database: &str) -> Client {
    let client = rig.create(database);
    client.run("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL, body BLOB NOT NULL)");
    client
}

fn rows(first: u64, count: u64) -> String {
    let last = first + count - 1;
    format!(
        "WITH RECURSIVE ids(id) AS (SELECT {first} UNION ALL SELECT id + 1 FROM ids WHERE id < {last})
         INSERT INTO t SELECT id, 1, randomblob({BODY_BYTES}) FROM ids"
    )
}

/// Tries again if others take all of the memory for longer than a writer waits, as they may on a slow machine.
fn fill_beside_others(client: &Client) {
    let deadline = clock::now() + clock::PATIENCE;
    while let Err(why) = client.attempt(&rows(1, ROWS)) {
        assert!(why.contains("no memory left (--memory)") && clock::now() < deadline, "{why}");
        println!("{why}");
    }
}

/// Every row, several times: with what does not compress, with what does, and in a few bytes of each page.
fn change_everything(client: &Client) {
    client.run(&format!("UPDATE t SET n = n + 1, body = randomblob({BODY_BYTES})"));
    client.run("UPDATE t SET n = n + 1, body = replace(hex(zeroblob(250)), '00', hex(randomblob(2)))");
    client.run("UPDATE t SET n = n + 1");
    assert_eq!(client.run("SELECT count(*) || ':' || min(n) || ':' || max(n) FROM t"), [format!("{ROWS}:4:4")]);
}

struct Peak(u32);

impl Peak {
    fn check(&self, after: &str) {
        let peak = status(self.0, "VmHWM");
        println!("{after}: {} MiB resident at the peak, {} now", peak >> 20, status(self.0, "VmRSS") >> 20);
        assert!(peak <= RESIDENT_BYTES_MAX, "{after}: {peak} bytes resident at the peak");
    }
}

#[test]
fn the_largest_transactions_and_many_sorts_stay_within_the_memory() {
    let _turn = one_at_a_time();
    let rig = Rig::start(&["--memory", "128MiB", "--lease", "3s", "--log", "info,compute::node=debug"]);
    let peak = Peak(rig.shoal().pid());
    let (kept, plain) = (create(&rig, "kept"), create(&rig, "plain"));
    rig.shoal().ask("plain", "retention", &serde_json::json!({ "retention": "0" }));
    for (name, client) in [("with its history", &kept), ("without", &plain)] {
        client.run(&rows(1, ROWS));
        change_everything(client);
        rig.wait_until_quiet();
        peak.check(name);
    }

    // At once they wait for each other's folds.
    let others: Vec<String> = (0..3).map(|number| format!("other-{number}")).collect();
    others.iter().for_each(|name| drop(create(&rig, name)));
    thread::scope(|scope| {
        let rig = &rig;
        others.iter().for_each(|name| drop(scope.spawn(move || fill_beside_others(&rig.client(name)))));
    });
    peak.check("three at once");
    rig.wait_until_quiet();

    // Together more than the memory is: sorted in pieces on the disk.
    let sort = "SELECT id FROM t ORDER BY body DESC";
    thread::scope(|scope| {
        let (rig, names) = (&rig, others.iter().map(String::as_str).chain(["kept", "plain"]));
        for name in names {
            scope.spawn(move || assert_eq!(rig.client(name).run(sort).len() as u64, ROWS));
        }
    });
    peak.check("sorts of five databases");

    // One that is too large is told so, and changes nothing.
    let refused = rig.client("plain").attempt(&rows(100_000, 40_000)).expect_err("too large");
    assert!(refused.contains("over the limit of 33554432 bytes (--max-transaction-size)"), "{refused}");
    assert_eq!(plain.run("SELECT count(*) FROM t"), [ROWS.to_string()]);
    peak.check("one that was refused");

    clock::pause(Duration::from_secs(2));
    let most = accounted(&rig.shoal().log()).into_iter().max().expect("it says so a few times per lease");
    println!("accounted: {} KiB at most", most >> 10);
    assert!(most <= MEMORY_BYTES * 105 / 100, "{most} bytes accounted");
}
