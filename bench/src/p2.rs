//! P2: how many store requests does an acknowledged batch cost?

use emulator::{Counters, Operation};

use crate::Options;
use crate::report::{Report, Value};
use crate::rig::Rig;

const BATCHES: u64 = 1000;

pub fn run(_options: &Options) -> anyhow::Result<Report> {
    let rig = Rig::start()?;
    let schema = ["CREATE TABLE t (id INTEGER PRIMARY KEY, batch INTEGER NOT NULL, note TEXT NOT NULL)"];
    let client = rig.create_with("app", &schema)?;
    let ((), spent) = rig.count(|| {
        for batch in 0..BATCHES {
            let insert = format!("INSERT INTO t (batch, note) VALUES ({batch}, 'a few words of text')");
            client.transaction(&[&insert, &insert, &insert])?;
        }
        Ok(())
    })?;
    println!("{spent}");
    let per_batch = |requests: u64| requests as f64 / BATCHES as f64;
    let deletes = spent.of_operation(Operation::Delete).requests;
    let log_puts = spent.get(Operation::Put, "w").requests;
    let values = vec![
        Value::new("PUTs to the log per batch", per_batch(log_puts), "").exactly(1.0),
        Value::new("GETs, HEADs and LISTs per batch", per_batch(reads(&spent)), "").exactly(0.0),
        Value::new("PUTs and GETs of folds per batch, in the background", per_batch(of_folds(&spent)), ""),
        Value::new("DELETEs per batch, in the background", per_batch(deletes), ""),
        Value::new("heartbeats and hints during the run", spent.get(Operation::Put, "inc").requests as f64, ""),
        Value::new("batches", BATCHES as f64, ""),
    ];
    Ok(Report::new("P2", "store requests per acknowledged batch of three inserts, one client", values))
}

/// Reads that are not a fold's.
fn reads(spent: &Counters) -> u64 {
    let all =
        [Operation::Get, Operation::Head, Operation::List].map(|operation| spent.of_operation(operation).requests);
    all.iter().sum::<u64>() - reads_of_folds(spent)
}

/// Folds read what they merge. A warm batch reads no pages, so none of these can be its own.
fn reads_of_folds(spent: &Counters) -> u64 {
    ["pack", "map"].iter().map(|class| spent.get(Operation::Get, *class).requests).sum()
}

/// What folds read, and the packs, page maps and heads that they write.
fn of_folds(spent: &Counters) -> u64 {
    let written = ["pack", "map", "head"].iter().map(|class| spent.get(Operation::Put, *class).requests);
    written.sum::<u64>() + reads_of_folds(spent)
}
