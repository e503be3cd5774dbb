//! P19b: `kill -9` of the only node, its start, and the first query: does it depend on the database's size?
//!
//! All databases are on the same node; each round kills it once for each of them, in turns. The time is from the start of
//! the new process to the answer of a query of a random row, whose client tries again as long as nobody listens.

use std::time::Duration;

use emulator::Operation;

use crate::hrana::Client;
use crate::report::{Report, Value};
use crate::rig::Rig;
use crate::scatter::scattered;
use crate::sqld::Sqld;
use crate::stats::median;
use crate::{Options, bulk, clock};

const MIB: [u64; 3] = [1, 10, 105];
/// Rows that are written, and acknowledged, right before each kill.
const WRITES: u64 = 20;
const RETRY: Duration = Duration::from_millis(2);

/// As much as two medians of the same thing differ on a noisy machine.
const RATIO_MAX: f64 = 1.25;

pub fn run(options: &Options) -> anyhow::Result<Report> {
    let mut rig = Rig::start()?;
    for mib in MIB {
        bulk::fill(&Client::new(rig.create(&name(mib))?), mib)?;
    }
    bulk::wait_until_quiet(&rig);
    let mut millis: [Vec<f64>; 3] = Default::default();
    let mut gets: [Vec<f64>; 3] = Default::default();
    for round in 0..u64::from(options.rounds) {
        for (index, mib) in MIB.into_iter().enumerate() {
            let client = Client::new(rig.server().url(&name(mib)));
            write(&client, mib, round)?;
            let before = rig.emulator.counters();
            let (answered, took) = clock::millis(|| {
                rig.restart()?;
                first_query(|| rig.server().url(&name(mib)), mib, round)
            });
            answered?;
            millis[index].push(took);
            gets[index].push(rig.emulator.counters().since(&before).of_operation(Operation::Get).requests as f64);
        }
    }
    let mut values = vec![
        Value::new("105 MB ÷ 1 MB, medians", median(&millis[2]) / median(&millis[0]), "×").at_most(RATIO_MAX),
        Value::new("10 MB ÷ 1 MB, medians", median(&millis[1]) / median(&millis[0]), "×").at_most(RATIO_MAX),
    ];
    for (index, mib) in MIB.into_iter().enumerate() {
        values.push(Value::new(format!("{mib} MB: start to answer, p50"), median(&millis[index]), "ms"));
        values.push(Value::new(format!("{mib} MB: GETs of it, p50"), median(&gets[index]), ""));
    }
    if let Some(binary) = &options.sqld {
        for mib in [1, 105] {
            let theirs = sqld(binary, mib, options.rounds)?;
            values.push(Value::new(format!("libSQL's server, {mib} MB: start to answer, p50"), theirs, "ms"));
        }
    }
    Ok(Report::new("P19b", "first query after kill -9 of the node, on the same node, local", values))
}

fn name(mib: u64) -> String {
    format!("size-{mib}")
}

/// Leaves something that is in the log alone.
fn write(client: &Client, mib: u64, round: u64) -> anyhow::Result<()> {
    (0..WRITES).try_for_each(|write| {
        let id = scattered(round * WRITES + write) % bulk::rows(mib) + 1;
        client.run(&format!("UPDATE t SET n = n + 1 WHERE id = {id}"))
    })
}

fn first_query(url: impl Fn() -> String, mib: u64, round: u64) -> anyhow::Result<()> {
    let id = scattered(round + 1_000_000) % bulk::rows(mib) + 1;
    let deadline = clock::now() + Duration::from_secs(30);
    loop {
        match Client::new(url()).number(&format!("SELECT length(v) FROM t WHERE id = {id}")) {
            Ok(length) => {
                anyhow::ensure!(length == 800, "a row of {length}");
                return Ok(());
            }
            Err(error) if clock::now() > deadline => return Err(error),
            Err(_) => clock::pause(RETRY),
        }
    }
}

/// The same with libSQL's server and its own disk.
fn sqld(binary: &std::path::Path, mib: u64, rounds: u32) -> anyhow::Result<f64> {
    let mut sqld = Sqld::start(binary)?;
    bulk::fill(&Client::new(&sqld.url), mib)?;
    let mut millis = Vec::new();
    for round in 0..u64::from(rounds) {
        write(&Client::new(&sqld.url), mib, round)?;
        let (answered, took) = clock::millis(|| {
            sqld.restart()?;
            first_query(|| sqld.url.clone(), mib, round)
        });
        answered?;
        millis.push(took);
    }
    Ok(median(&millis))
}
