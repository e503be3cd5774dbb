//! P23: how much do folds, merges and collection slow commits down?
//!
//! Clients commit row by row, each in a database of its own. In every other phase other databases of the same node are
//! changed in bulk meanwhile, so that the node folds, merges and deletes all the time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use emulator::{Counters, Operation, Profile};

use crate::hrana::Client;
use crate::raw::RawClient;
use crate::report::{Report, Value};
use crate::rig::Rig;
use crate::scatter::scattered;
use crate::stats::{median, quantile};
use crate::{Options, bulk, clock};

const CLIENTS: u64 = 24;
const ROWS: u64 = 5_000;
const BULK_DATABASES: u64 = 2;
const BULK_MIB: u64 = 8;
/// Bulk changes follow each other after this: a tenant that never rests is another row's matter.
const BULK_PAUSE: Duration = Duration::from_millis(100);
const PHASE: Duration = Duration::from_secs(6);

/// About a batch of these commits.
const RAW_BYTES: usize = 4096;

const RATIO_MAX: f64 = 3.0;

pub fn run(options: &Options) -> anyhow::Result<Report> {
    // Nothing is to be kept for restores.
    let rig = Rig::start_with(&["--retention", "0"])?;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let rows = format!(
            "WITH RECURSIVE ids(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids WHERE id < {ROWS})
             INSERT INTO t SELECT id, 0, hex(randomblob(50)) FROM ids"
        );
        clients.push(rig.create_with(&format!("small-{number}"), &[bulk::SCHEMA, &rows])?);
    }
    let mut writers = Vec::new();
    for number in 0..BULK_DATABASES {
        let client = Client::new(rig.create(&format!("bulk-{number}"))?);
        bulk::fill(&client, BULK_MIB)?;
        writers.push(client);
    }
    bulk::wait_until_quiet(&rig);
    rig.emulator.set_profile(Profile::s3std());
    let mut raw = RawClient::new(&rig.emulator)?;
    let (mut quiet, mut busy, mut work, mut puts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // The first finds clients without connections, and a log without pace.
    commit(&clients, &[], &mut raw)?;
    for _ in 0..options.rounds {
        quiet.extend(commit(&clients, &[], &mut raw)?.0);
        let ((latencies, raw_latencies), spent) = rig.count(|| commit(&clients, &writers, &mut raw))?;
        busy.extend(latencies);
        puts.extend(raw_latencies);
        work.push(spent);
    }
    let p999 = |samples: &[f64]| quantile(samples, 0.999);
    let count = |of: fn(&Counters) -> u64| work.iter().map(of).sum::<u64>() as f64;
    Ok(Report::new("P23", "commits while others are folded, merged and collected, 24 databases, s3std", vec![
        Value::new("p99.9 of commits in busy phases ÷ p50 of all", p999(&busy) / median(&quiet), "×").at_most(RATIO_MAX),
        Value::new("p99.9 of commits in quiet phases ÷ their p50", p999(&quiet) / median(&quiet), "×"),
        Value::new("quiet: p50", median(&quiet), "ms"),
        Value::new("quiet: p99.9", p999(&quiet), "ms"),
        Value::new("busy: p50", median(&busy), "ms"),
        Value::new("busy: p99", quantile(&busy, 0.99), "ms"),
        Value::new("busy: p99.9", p999(&busy), "ms"),
        Value::new("busy: raw PUTs of one client beside it, p50", median(&puts), "ms"),
        Value::new("busy: raw PUTs of one client beside it, slowest", quantile(&puts, 1.0), "ms"),
        Value::new("commits in busy phases", busy.len() as f64, ""),
        Value::new("packs put meanwhile", count(|spent| spent.get(Operation::Put, "pack").requests), "").at_least(1.0),
        Value::new("bytes of these", count(|spent| spent.get(Operation::Put, "pack").bytes) / f64::from(1 << 20), "MiB"),
        Value::new("packs deleted meanwhile", count(|spent| spent.get(Operation::Delete, "pack").requests), "")
            .at_least(1.0),
    ]))
}

/// Lets every client commit for one phase, while `writers` change their databases in bulk and a raw client puts one object
/// after the other. Tells how long commits and raw PUTs took.
fn commit(clients: &[Client], writers: &[Client], raw: &mut RawClient) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let (deadline, is_over) = (clock::now() + PHASE, AtomicBool::new(false));
    thread::scope(|scope| {
        let bulk: Vec<_> = writers.iter().map(|writer| scope.spawn(|| change_in_bulk(writer, &is_over))).collect();
        let one = |client: &Client, number: u64| {
            let (mut latencies, mut n) = (Vec::new(), number << 40);
            while clock::now() < deadline {
                let sql = format!("UPDATE t SET n = n + 1 WHERE id = {}", scattered(n) % ROWS + 1);
                let (done, millis) = clock::millis(|| client.run(&sql));
                done?;
                latencies.push(millis);
                n += 1;
            }
            Ok(latencies)
        };
        let threads: Vec<_> = clients.iter().zip(0..).map(|(client, number)| scope.spawn(move || one(client, number))).collect();
        let mut puts = Vec::new();
        while clock::now() < deadline {
            puts.push(raw.put(RAW_BYTES)?);
        }
        let latencies = threads.into_iter().map(|thread| thread.join().expect("BUG: a client panicked"));
        let latencies = latencies.collect::<anyhow::Result<Vec<Vec<f64>>>>();
        is_over.store(true, Ordering::Release);
        bulk.into_iter().try_for_each(|thread| thread.join().expect("BUG: a writer panicked"))?;
        Ok((latencies?.concat(), puts))
    })
}

/// Changes every hundredth row after the other, which is a row of every 25th page.
fn change_in_bulk(client: &Client, is_over: &AtomicBool) -> anyhow::Result<()> {
    for n in 0.. {
        if is_over.load(Ordering::Acquire) {
            break;
        }
        client.run(&format!("UPDATE t SET n = n + 1 WHERE id % 100 = {}", n % 100))?;
        clock::pause(BULK_PAUSE);
    }
    Ok(())
}
