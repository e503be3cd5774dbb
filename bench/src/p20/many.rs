//! Many databases of one dead owner, all wanted at once.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use emulator::Profile;

use super::{SCHEMA, write_until_acknowledged};
use crate::hrana::{self, Client};
use crate::pair::Pair;
use crate::report::Value;
use crate::stats::median;

/// In turns with one database.
const ROUNDS: u32 = 3;
/// So many clients ask for them.
const CLIENTS: u32 = 256;
/// So many create them, with a store that answers at once.
const CREATORS: u32 = 8;

const GROWTH_MILLIS_MAX: f64 = 3000.0;

struct Round {
    millis: f64,
    requests: f64,
}

pub fn measure(databases: u32) -> anyhow::Result<Vec<Value>> {
    let mut pair = Pair::start()?;
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for (count, rounds) in [(1, &mut one), (databases, &mut many)] {
            let result = fail_over(&mut pair, round, count)?;
            println!("{count} databases: {:.0} ms, {} requests", result.millis, result.requests);
            rounds.push(result);
            pair = pair.promote_standby()?;
        }
    }
    let millis = |rounds: &[Round]| median(&rounds.iter().map(|round| round.millis).collect::<Vec<f64>>());
    let requests = many.iter().map(|round| round.requests / f64::from(databases)).collect::<Vec<f64>>();
    let growth = millis(&many) - millis(&one);
    Ok(vec![
        Value::new(format!("{databases} databases, all wanted at once: longer than one by"), growth, "ms")
            .at_most(GROWTH_MILLIS_MAX),
        Value::new("one database, no writer: kill to acknowledged write", millis(&one), "ms"),
        Value::new(format!("{databases} databases: kill to the last acknowledged write"), millis(&many), "ms"),
        Value::new(format!("{databases} databases: requests for each"), median(&requests), ""),
    ])
}

/// The owner has written to each of `count` databases and folded none when it is killed.
fn fail_over(pair: &mut Pair, round: u32, count: u32) -> anyhow::Result<Round> {
    let name = |number: u32| format!("many-{round}-{count}-{number}");
    let owner = &pair.owner.server;
    for_each(CREATORS, count, |agent, number| {
        let client = Client::with(agent.clone(), owner.create(&name(number))?);
        client.transaction(&[SCHEMA, "INSERT INTO t VALUES (1, 'written by the owner')"])
    })?;
    pair.emulator.set_profile(Profile::s3std());
    let killed = pair.kill_owner()?;
    let standby = &pair.standby.server;
    for_each(CLIENTS, count, |agent, number| {
        let client = Client::with(agent.clone(), standby.url(&name(number)));
        write_until_acknowledged(&client, "INSERT INTO t SELECT max(n) + 1, 'written after it' FROM t")
    })?;
    let millis = killed.at.elapsed().as_secs_f64() * 1000.0;
    let requests = pair.end_journal().len() as f64;
    for_each(CREATORS, count, |agent, number| {
        let rows = Client::with(agent.clone(), standby.url(&name(number))).number("SELECT count(*) FROM t")?;
        anyhow::ensure!(rows == 2, "{} has {rows} rows of 2", name(number));
        Ok(())
    })?;
    Ok(Round { millis, requests })
}

/// Does `work` for the numbers below `count`, on so many threads at most, each with connections of its own.
fn for_each(
    threads: u32,
    count: u32,
    work: impl Fn(&ureq::Agent, u32) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    let next = AtomicU32::new(0);
    let one_thread = || {
        let agent = hrana::agent();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            work(&agent, number)?;
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.min(count)).map(|_| scope.spawn(one_thread)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("BUG: a client panicked"))
    })
}
