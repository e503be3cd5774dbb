//! The server's memory while transactions as large as it allows are written, logged and folded, while much is sorted,
//! and while bodies and values come that are large for it.
//!
//! With `SHOAL_MEMORY_MIB` for another size than 128 MiB: everything grows with it.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::clock;
use crate::client::Client;
use crate::memory::{accounted, status};
use crate::rig::{Rig, one_at_a_time};

/// What the process may take besides `--memory`.
const BESIDES_BYTES: u64 = 128 << 20;
const BODY_BYTES: u64 = 1_000;

/// `--memory`.
fn memory_mib() -> u64 {
    std::env::var("SHOAL_MEMORY_MIB").map_or(128, |text| text.parse().expect("a number"))
}

/// Of a transaction that is nearly as large as is allowed: a quarter of the memory. A row takes a quarter of a page.
fn rows_max() -> u64 {
    memory_mib().min(1016) * 240
}

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
    while let Err(why) = client.attempt(&rows(1, rows_max())) {
        assert!(why.contains("no memory left (--memory)") && clock::now() < deadline, "{why}");
        println!("{why}");
    }
}

/// Every row, several times: with what does not compress, with what does, and in a few bytes of each page.
fn change_everything(client: &Client) {
    client.run(&format!("UPDATE t SET n = n + 1, body = randomblob({BODY_BYTES})"));
    client.run("UPDATE t SET n = n + 1, body = replace(hex(zeroblob(250)), '00', hex(randomblob(2)))");
    client.run("UPDATE t SET n = n + 1");
    assert_eq!(client.run("SELECT count(*) || ':' || min(n) || ':' || max(n) FROM t"), [format!("{}:4:4", rows_max())]);
}

/// All at once; each may be refused for want of memory, and for nothing else.
fn at_once(rig: &Rig, names: &[&str], work: impl Fn(&Client) -> Result<(), String> + Sync) {
    let refused = thread::scope(|scope| {
        let work = &work;
        let start = |name: &&str| {
            let client = rig.client(name);
            scope.spawn(move || work(&client))
        };
        let running: Vec<_> = names.iter().map(start).collect();
        running.into_iter().filter_map(|one| one.join().expect("a client").err()).collect::<Vec<_>>()
    });
    println!("{} of {} are refused", refused.len(), names.len());
    assert!(refused.iter().all(|why| why.contains("--memory")), "{refused:?}");
    // One that is alone gets through.
    let (client, deadline) = (rig.client(names[0]), clock::now() + clock::PATIENCE);
    while let Err(why) = work(&client) {
        assert!(why.contains("--memory") && clock::now() < deadline, "{why}");
    }
}

struct Peak(u32);

impl Peak {
    fn check(&self, after: &str) {
        let peak = status(self.0, "VmHWM");
        println!("{after}: {} MiB resident at the peak, {} now", peak >> 20, status(self.0, "VmRSS") >> 20);
        assert!(peak <= (memory_mib() << 20) + BESIDES_BYTES, "{after}: {peak} bytes resident at the peak");
    }
}

#[test]
fn the_largest_transactions_statements_and_bodies_stay_within_the_memory() {
    let _turn = one_at_a_time();
    let memory: &'static str = format!("{}MiB", memory_mib()).leak();
    // Half of it is for temporary files: five sorts, each of twice a transaction.
    let cache: &'static str = format!("{}MiB", 8 * memory_mib()).leak();
    let log = "info,compute::node=debug";
    let rig = Rig::start(&["--memory", memory, "--cache-size", cache, "--lease", "3s", "--log", log]);
    let peak = Peak(rig.shoal().pid());
    let (kept, plain) = (create(&rig, "kept"), create(&rig, "plain"));
    rig.shoal().ask("plain", "retention", &json!({ "retention": "0" }));
    for (name, client) in [("with its history", &kept), ("without", &plain)] {
        client.run(&rows(1, rows_max()));
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
    let names: Vec<&str> = others.iter().map(String::as_str).chain(["kept", "plain"]).collect();
    let change = format!("UPDATE t SET n = n + 1, body = randomblob({BODY_BYTES})");
    at_once(&rig, &names, |client| client.attempt(&change));
    peak.check("changes of five databases");
    rig.wait_until_quiet();

    // Together more than the memory is: sorted in pieces on the disk.
    let sort = "SELECT id FROM t ORDER BY body DESC";
    thread::scope(|scope| {
        for name in &names {
            let client = rig.client(name);
            scope.spawn(move || assert_eq!(client.run(sort).len() as u64, rows_max()));
        }
    });
    peak.check("sorts of five databases");

    // Values that are built in memory, each of a tenth of it and more than once.
    let bytes = ((memory_mib() << 20) / 10).min(30 << 20);
    let build = format!(
        "SELECT length(hex(randomblob({}))) + length(group_concat(hex(body))) FROM t WHERE id < {}",
        bytes / 2,
        bytes / BODY_BYTES / 2
    );
    at_once(&rig, &names, |client| client.attempt(&build));
    peak.check("large values");

    // Bodies of that size, each of which is written.
    let value = json!({ "type": "text", "value": "x".repeat(bytes as usize) });
    at_once(&rig, &names, |client| client.attempt_with("INSERT INTO t VALUES (NULL, 0, ?)", std::slice::from_ref(&value)));
    peak.check("large bodies");
    rig.wait_until_quiet();

    // One that is too large is told so, and changes nothing.
    let count = "SELECT count(*) FROM t";
    let before = plain.run(count);
    let refused = plain.attempt(&rows(1_000_000, 2 * rows_max())).expect_err("too large");
    assert!(refused.contains("over the limit of ") && refused.contains("(--max-transaction-size)"), "{refused}");
    assert_eq!(plain.run(count), before);
    peak.check("one that was refused");

    clock::pause(Duration::from_secs(2));
    let most = accounted(&rig.shoal().log()).into_iter().max().expect("it says so a few times per lease");
    println!("accounted: {} KiB at most", most >> 10);
    assert!(most <= (memory_mib() << 20) * 105 / 100, "{most} bytes accounted");
}
