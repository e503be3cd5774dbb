//! P14: what an open database costs that nobody uses at the moment: memory, file descriptors, CPU, requests.
//!
//! Databases of two small tables with a few rows are made by one process, and opened by the next with a query each. Then
//! nobody asks for a while. Whether all of them were open all the time is counted: a query after that reads no head.

use std::thread;
use std::time::Duration;

use emulator::Operation;

use crate::hrana::{self, Client};
use crate::report::{Report, Value};
use crate::rig::Rig;
use crate::{Options, bulk, clock};

const DATABASES: usize = 3_500;
/// Opened before: what the first ones cost is not each one's.
const WARM_UP: usize = 100;
const CLIENTS: usize = 16;
/// Longer than the lease of a process that was killed.
const LEASE: Duration = Duration::from_secs(30);
/// For caches to be given up.
const SETTLE: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(15);

const KIB_MAX: f64 = 40.0;

const STATEMENTS: [&str; 4] = [
    "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT NOT NULL, amount INTEGER NOT NULL)",
    "CREATE TABLE customers (name TEXT PRIMARY KEY, since INTEGER) WITHOUT ROWID",
    "INSERT INTO orders (customer, amount) VALUES ('one', 1), ('two', 2), ('three', 3)",
    "INSERT INTO customers VALUES ('one', 1), ('two', 2), ('three', 3)",
];
const QUERY: &str = "SELECT sum(amount) + (SELECT count(*) FROM customers) FROM orders";

pub fn run(_options: &Options) -> anyhow::Result<Report> {
    let mut rig = Rig::start()?;
    for_all(0..DATABASES + WARM_UP, |agent, name| {
        let url = rig.create(&name)?;
        Client::with(agent.clone(), url).transaction(&STATEMENTS)?;
        rig.server().release(&name)
    })?;
    // Nothing is left to do in the background when the next process begins: all is folded.
    rig.restart()?;
    let query = |range| for_all(range, |agent, name| {
        let sum = Client::with(agent.clone(), rig.server().url(&name)).number(QUERY)?;
        anyhow::ensure!(sum == 9, "{name} has {sum}");
        Ok(())
    });
    query(0..WARM_UP)?;
    // The log of the process before is drained once its lease is over, and that is not what is measured.
    clock::pause(LEASE);
    bulk::wait_until_quiet(&rig);
    let process = rig.server().process();
    let (bytes_before, files_before) = (process.memory_bytes("VmRSS")?, process.file_descriptors()?);
    let cpu_before = idle_cpu(&rig)?;

    // Those of the warm-up again, so that none is idle for long enough to be closed.
    let (opened, opening) = clock::millis(|| query(0..WARM_UP + DATABASES));
    opened?;
    clock::pause(SETTLE);
    let (bytes, files) = (process.memory_bytes("VmRSS")?, process.file_descriptors()?);
    let (cpu, spent) = rig.count(|| idle_cpu(&rig))?;
    let closed = rig.count(|| query(0..WARM_UP + DATABASES))?.1.get(Operation::Get, "head").requests;

    // Besides its heartbeat a node looks for logs to drain every few minutes, however many databases it has.
    let of_node = spent.of_class("inc").requests + spent.of_class("live").requests;
    let requests = spent.total().requests - of_node;
    let more_files = files.saturating_sub(files_before) as f64;
    let growth = bytes.saturating_sub(bytes_before) as f64 / 1024.0;
    Ok(Report::new("P14", "an open, idle database", vec![
        Value::new("memory of one", growth / DATABASES as f64, "KiB").at_most(KIB_MAX),
        // A few connections to the bucket are kept for a while, however many databases there are.
        Value::new("file descriptors of one", (more_files / DATABASES as f64 * 10.0).round() / 10.0, "").at_most(0.0),
        Value::new("file descriptors of all, above those of a node without", more_files, ""),
        Value::new("CPU of all, above that of a node without", (cpu - cpu_before).max(0.0).round(), "% of a core")
            .at_most(0.0),
        Value::new("CPU of the node with all", cpu, "% of a core"),
        Value::new("CPU of the node without", cpu_before, "% of a core"),
        Value::new("requests of all, besides heartbeats", requests as f64, "").at_most(0.0),
        Value::new("databases that were not open any more", closed as f64, "").at_most(0.0),
        Value::new("databases", DATABASES as f64, ""),
        Value::new("opening one, of 16 at a time", opening / DATABASES as f64, "ms"),
        Value::new("resident memory of the node before", bytes_before as f64 / f64::from(1 << 20), "MiB"),
    ]))
}

/// CPU time of the server while nothing happens.
fn idle_cpu(rig: &Rig) -> anyhow::Result<f64> {
    let process = rig.server().process();
    let before = process.cpu_seconds()?;
    clock::pause(IDLE);
    Ok((process.cpu_seconds()? - before) / IDLE.as_secs_f64() * 100.0)
}

/// Does something with each database of a range, over connections that are closed afterwards.
fn for_all(
    range: std::ops::Range<usize>,
    work: impl Fn(&ureq::Agent, String) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (range, work) = (range.clone(), &work);
                scope.spawn(move || {
                    let agent = hrana::agent();
                    range.skip(client).step_by(CLIENTS).try_for_each(|number| work(&agent, format!("idle-{number}")))
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("BUG: a client panicked"))
    })
}
