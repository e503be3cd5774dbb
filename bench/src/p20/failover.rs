//! One database, one writer, many kills.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use emulator::{JournalEntry, Operation, Profile};

use super::{SCHEMA, write_until_acknowledged};
use crate::chain::Chain;
use crate::clock;
use crate::hrana::Client;
use crate::pair::{Killed, LEASE_MILLIS, Pair};
use crate::report::Value;
use crate::stats::{median, quantile};

const P50_MILLIS_MAX: f64 = 1300.0;
const P99_MILLIS_MAX: f64 = 2500.0;
const ROUND_TRIPS_MAX: f64 = 8.0;

/// What one kill came to, in milliseconds.
struct Failover {
    /// From the kill to the first acknowledged write on the other node.
    total: f64,
    /// From the kill until the other node had seen the record that it then watched.
    to_first_sight: f64,
    /// From when that had stood for a whole lease to the write's answer.
    after_suspicion: f64,
    round_trips: f64,
    /// The part of `after_suspicion` in which those were on their way.
    in_round_trips: f64,
    requests: f64,
    chain: String,
}

pub fn measure(kills: u32) -> anyhow::Result<Vec<Value>> {
    let mut pair = Pair::start()?;
    let mut failovers = Vec::new();
    for kill in 0..kills {
        let failover = fail_over(&mut pair, kill)?;
        println!(
            "kill {kill}: {:.0} ms; {:.0} to the first sight, {:.0} after suspicion, {:.0} of these in: {}",
            failover.total, failover.to_first_sight, failover.after_suspicion, failover.in_round_trips, failover.chain
        );
        failovers.push(failover);
        pair = pair.promote_standby()?;
    }
    let all = |of: fn(&Failover) -> f64| failovers.iter().map(of).collect::<Vec<f64>>();
    let totals = all(|it| it.total);
    let round_trips = all(|it| it.round_trips);
    Ok(vec![
        Value::new("kill to acknowledged write, p50", median(&totals), "ms").at_most(P50_MILLIS_MAX),
        Value::new("kill to acknowledged write, p99", quantile(&totals, 0.99), "ms").at_most(P99_MILLIS_MAX),
        Value::new("round trips in sequence after suspicion, most", quantile(&round_trips, 1.0), "")
            .at_most(ROUND_TRIPS_MAX),
        Value::new("round trips in sequence after suspicion, p50", median(&round_trips), ""),
        Value::new("kill to first sight of the dead node's record, p50", median(&all(|it| it.to_first_sight)), "ms"),
        Value::new("suspicion to acknowledged write, p50", median(&all(|it| it.after_suspicion)), "ms"),
        Value::new("of this in those round trips, p50", median(&all(|it| it.in_round_trips)), "ms"),
        Value::new("requests of a failover, p50", median(&all(|it| it.requests)), ""),
        Value::new("kills", f64::from(kills), ""),
    ])
}

fn fail_over(pair: &mut Pair, kill: u32) -> anyhow::Result<Failover> {
    let database = format!("failover-{kill}");
    let at_owner = Client::new(pair.owner.server.create(&database)?);
    at_owner.run(SCHEMA)?;
    pair.emulator.set_profile(Profile::s3std());
    let at_standby = Client::new(pair.standby.server.url(&database));
    let is_killed = AtomicBool::new(false);
    let (killed, written) = thread::scope(|scope| {
        let writer = scope.spawn(|| write_through(&at_owner, &at_standby, &is_killed));
        // Not always at the same point between two renewals of the lease.
        clock::pause(Duration::from_millis(600 + u64::from(kill) * 37 % LEASE_MILLIS));
        is_killed.store(true, Ordering::Release);
        let killed = pair.kill_owner();
        (killed, writer.join().expect("BUG: the writer panicked"))
    });
    let (killed, written) = (killed?, written?);
    let journal = pair.end_journal();
    let kept = at_standby.number(&format!("SELECT count(*) FROM t WHERE n < {}", written.acknowledged))?;
    ensure!(kept == written.acknowledged, "{kept} of {} acknowledged rows are left", written.acknowledged);
    Failover::of(&journal, &pair.owner.record, killed, written.answered)
}

struct Written {
    /// So many rows, from 0 on, were acknowledged by the first node.
    acknowledged: i64,
    /// When the other one acknowledged its first.
    answered: Instant,
}

/// Writes row after row; when one fails, goes on at the other node until that acknowledges a row.
fn write_through(owner: &Client, standby: &Client, is_killed: &AtomicBool) -> anyhow::Result<Written> {
    let insert = |n: i64| format!("INSERT INTO t VALUES ({n}, 'a few words of text')");
    let mut acknowledged = 0;
    loop {
        match owner.run(&insert(acknowledged)) {
            Ok(()) => acknowledged += 1,
            Err(_) if is_killed.load(Ordering::Acquire) => break,
            Err(failure) => return Err(failure.context("a write failed before the kill")),
        }
    }
    // The row that failed may be there.
    write_until_acknowledged(standby, &insert(acknowledged + 1))?;
    Ok(Written { acknowledged, answered: clock::now() })
}

impl Failover {
    /// `record` is the key of the dead incarnation's record.
    fn of(journal: &[JournalEntry], record: &str, killed: Killed, answered: Instant) -> anyhow::Result<Self> {
        let at_record = |operation| move |entry: &&JournalEntry| entry.operation == operation && entry.key == record;
        let kill = killed.at - killed.journal_since;
        let answer = answered - killed.journal_since;
        // A renewal may have been on its way when its sender died.
        let renewals = journal.iter().filter(at_record(Operation::Put)).filter(|put| put.began <= kill);
        let renewed = renewals.map(|put| put.ended).max().unwrap_or_default();
        let sight = journal.iter().filter(at_record(Operation::Get)).find(|get| get.began >= renewed.max(kill));
        let sight = sight.context("nobody has read the dead node's record")?.ended;
        let suspicion = sight + Duration::from_millis(LEASE_MILLIS);
        let after = journal.iter().filter(|entry| entry.began >= suspicion && entry.began <= answer);
        let chain = Chain::of(after);
        let millis = |duration: Duration| duration.as_secs_f64() * 1000.0;
        Ok(Self {
            total: millis(answer - kill),
            to_first_sight: millis(sight - kill),
            after_suspicion: millis(answer.saturating_sub(suspicion)),
            round_trips: chain.round_trips() as f64,
            in_round_trips: millis(chain.waited()),
            requests: journal.iter().filter(|entry| entry.began >= kill && entry.began <= answer).count() as f64,
            chain: chain.to_string(),
        })
    }
}
