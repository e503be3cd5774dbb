//! P10: what does a point query in a large cold database fetch, and over how many round trips?

use crate::Options;
use crate::clock;
use crate::cold::Cold;
use crate::report::{Report, Value};

/// Four rows to a page, which do not compress.
const BODY_BYTES: u64 = 990;
const ROWS_PER_MIB: u64 = 1024;
/// About 4 MB each.
const ROWS_PER_TRANSACTION: u64 = 4_096;
/// The name's record and the head come first.
const UP_TO_THE_HEAD: u64 = 2;

pub fn run(options: &Options) -> anyhow::Result<Report> {
    let rows = options.megabytes * ROWS_PER_MIB;
    let mut cold = Cold::start()?;
    let (loaded, millis) = clock::millis(|| load(&cold, rows));
    loaded?;
    let head = cold.emulator.objects("t/").into_iter().find(|(key, _)| key.ends_with("/head"));
    let head_bytes = head.map_or(0, |(_, head)| head.len());
    let mut costs = Vec::new();
    for round in 0..u64::from(options.rounds) {
        // The database is nobody's, so nobody has to know of the former server.
        cold.restart_elsewhere()?;
        let id = 1 + (round + 1) * 0x9E37_79B9 % rows;
        let (found, cost) = cold.query("app", &format!("SELECT id FROM t WHERE id = {id} AND length(body) > 0"))?;
        anyhow::ensure!(found == id as i64, "row {id} reads as {found}");
        println!("row {id}: {}, {} GETs, {} KiB, {:.0} ms", cost.chain, cost.gets, cost.bytes >> 10, cost.millis);
        costs.push(cost);
        cold.release("app")?;
    }
    // Chance makes requests side by side look like some in sequence, never the other way round.
    let fewest = costs.iter().map(|cost| cost.round_trips).min().unwrap_or_default();
    let most = |of: fn(&crate::cold::Cost) -> u64| costs.iter().map(of).max().unwrap_or_default() as f64;
    let values = vec![
        Value::new("round trips in sequence after the head", (fewest - UP_TO_THE_HEAD) as f64, "").at_most(2.0),
        Value::new("GETs, the name and the head included, at most", most(|cost| cost.gets), "").at_most(5.0),
        Value::new("fetched, the head included, at most", most(|cost| cost.bytes) / 1024.0, "KiB").at_most(512.0),
        Value::new("the head alone", head_bytes as f64 / 1024.0, "KiB"),
        Value::new("answered after, at most", costs.iter().map(|cost| cost.millis).fold(0.0, f64::max), "ms"),
        Value::new("the database", options.megabytes as f64, "MiB"),
        Value::new("loaded in", millis / 1000.0, "s"),
    ];
    Ok(Report::new("P10", "cold point query by integer key, a database of nobody's, at s3std", values))
}

fn load(cold: &Cold, rows: u64) -> anyhow::Result<()> {
    let client = cold.create("app")?;
    client.run("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")?;
    for first in (1..=rows).step_by(ROWS_PER_TRANSACTION as usize) {
        let last = (first + ROWS_PER_TRANSACTION - 1).min(rows);
        client.run(&format!(
            "WITH RECURSIVE ids(id) AS (SELECT {first} UNION ALL SELECT id + 1 FROM ids WHERE id < {last})
             INSERT INTO t SELECT id, randomblob({BODY_BYTES}) FROM ids"
        ))?;
    }
    cold.release("app")
}
