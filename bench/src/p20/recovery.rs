//! A long log behind: the owner has written at full speed for a while when it is killed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use emulator::{JournalEntry, Operation, Profile};

use super::{SCHEMA, write_until_acknowledged};
use crate::chain::Chain;
use crate::clock;
use crate::hrana::Client;
use crate::pair::Pair;
use crate::report::Value;

const DATABASES: usize = 16;
const CLIENTS_PER_DATABASE: usize = 4;
/// So many random bytes, in hexadecimal.
const INSERT: &str = "INSERT INTO t (note) VALUES (hex(randomblob(512)))";
pub fn measure(log_seconds: u64) -> anyhow::Result<Vec<Value>> {
    let mut pair = Pair::start()?;
    let names: Vec<String> = (0..DATABASES).map(|number| format!("recovery-{number}")).collect();
    for name in &names {
        Client::new(pair.owner.server.create(name)?).run(SCHEMA)?;
    }
    pair.emulator.set_profile(Profile::s3std());
    let before = pair.emulator.counters();
    let acknowledged: Vec<AtomicU64> = names.iter().map(|_| AtomicU64::new(0)).collect();
    let is_over = AtomicBool::new(false);
    let killed = thread::scope(|scope| {
        for (name, acknowledged) in names.iter().zip(&acknowledged) {
            for _ in 0..CLIENTS_PER_DATABASE {
                let client = Client::new(pair.owner.server.url(name));
                scope.spawn(|| flood(client, acknowledged, &is_over));
            }
        }
        clock::pause(Duration::from_secs(log_seconds));
        let killed = pair.kill_owner();
        is_over.store(true, Ordering::Release);
        killed
    })?;
    let written = pair.emulator.counters().since(&before).get(Operation::Put, "w");
    let since_kill = || killed.at.elapsed().as_secs_f64() * 1000.0;

    // The clients come back, all at once.
    let mut answered = thread::scope(|scope| {
        let ask = |name: &String| {
            let client = Client::new(pair.standby.server.url(name));
            scope.spawn(move || write_until_acknowledged(&client, INSERT).map(|()| since_kill()))
        };
        let threads: Vec<_> = names.iter().map(ask).collect();
        let answers = threads.into_iter().map(|thread| thread.join().expect("BUG: a client panicked"));
        answers.collect::<anyhow::Result<Vec<f64>>>()
    })?;
    answered.sort_by(f64::total_cmp);
    let journal = pair.end_journal();
    for (name, acknowledged) in names.iter().zip(&acknowledged) {
        let rows = Client::new(pair.standby.server.url(name)).number("SELECT count(*) FROM t")?;
        let acknowledged = acknowledged.load(Ordering::Relaxed) as i64;
        anyhow::ensure!(rows > acknowledged, "{name} has {rows} rows, {acknowledged} were acknowledged before");
    }

    let of = |operation: Operation, class: &str| {
        let chosen = |entry: &&JournalEntry| entry.operation == operation && entry.class.as_str() == class;
        journal.iter().filter(chosen).count() as f64
    };
    let chain = Chain::of(journal.iter().filter(|entry| killed.journal_since + entry.began >= killed.at));
    println!("recovery: {chain}");
    let commits: u64 = acknowledged.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    let label = |what: &str| format!("{log_seconds} s of log behind: {what}");
    Ok(vec![
        Value::new(label("kill to first acknowledged write"), answered[0], "ms"),
        Value::new(label("kill to all databases' writes"), answered[DATABASES - 1], "ms"),
        Value::new(label("GETs of slots"), of(Operation::Get, "w"), ""),
        Value::new(label("GETs of packs and maps"), of(Operation::Get, "pack") + of(Operation::Get, "map"), ""),
        Value::new(label("round trips in sequence from the kill"), chain.round_trips() as f64, ""),
        Value::new(label("slots written before"), written.requests as f64, ""),
        Value::new(label("bytes written before"), written.bytes as f64 / f64::from(1 << 20), "MiB"),
        Value::new(label("commits acknowledged before"), commits as f64, ""),
    ])
}

/// Writes until the node is gone.
fn flood(client: Client, acknowledged: &AtomicU64, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Acquire) && client.run(INSERT).is_ok() {
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}
