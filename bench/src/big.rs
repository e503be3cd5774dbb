//! `big`: a database much larger than the node's memory and cache. Random rows are read and changed; every answer is
//! checked; the memory stays bounded.

use emulator::{Operation, Profile};

use crate::hrana::Client;
use crate::report::{Report, Value};
use crate::rig::Rig;
use crate::scatter::scattered;
use crate::stats::{median, quantile};
use crate::{Options, bulk, clock};

const FLAGS: [&str; 4] = ["--memory", "256MiB", "--cache-size", "256MiB"];
const MEMORY_MIB_MAX: f64 = 256.0 + 128.0;
const READS: u64 = 2_000;
const UPDATES: u64 = 500;

pub fn run(options: &Options) -> anyhow::Result<Report> {
    let mib = (options.gib * 1024.0).round() as u64;
    let mut rig = Rig::start_with(&FLAGS)?;
    let (filled, loading) = clock::millis(|| bulk::fill(&Client::new(rig.create("big")?), mib));
    filled?;
    bulk::wait_until_quiet(&rig);
    let peak_of_loading = rig.server().process().memory_bytes("VmHWM")?;
    rig.server().release("big")?;
    rig.restart_without_cache()?;
    let process = rig.server().process();
    let client = Client::new(rig.server().url("big"));
    client.number("SELECT count(*) FROM sqlite_schema")?;

    rig.emulator.set_profile(Profile::s3std());
    let rows = bulk::rows(mib);
    let row = |n: u64| scattered(n) % rows + 1;
    let mut wrong = 0;
    let (reads, spent) = rig.count(|| {
        (0..READS).map(|n| {
            let sql = format!("SELECT n * 1000 + length(v) FROM t WHERE id = {}", row(n));
            let (found, millis) = clock::millis(|| client.number(&sql));
            wrong += u64::from(found? != (row(n) % 977 * 1000 + 800) as i64);
            Ok(millis)
        })
        .collect::<anyhow::Result<Vec<f64>>>()
    })?;
    let updated = |n: u64| row(n + READS);
    let updates = (0..UPDATES)
        .map(|n| {
            let sql = format!("UPDATE t SET n = -1 WHERE id = {}", updated(n));
            let (done, millis) = clock::millis(|| client.run(&sql));
            done.map(|()| millis)
        })
        .collect::<anyhow::Result<Vec<f64>>>()?;
    for n in 0..UPDATES {
        wrong += u64::from(client.number(&format!("SELECT n FROM t WHERE id = {}", updated(n)))? != -1);
    }
    let mib_of = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Ok(Report::new("big", "a database larger than memory and cache, 256 MiB each: random rows, s3std", vec![
        Value::new("answers that were wrong", wrong as f64, "").at_most(0.0),
        Value::new("resident memory while rows are read and changed, most", mib_of(process.memory_bytes("VmHWM")?), "MiB")
            .at_most(MEMORY_MIB_MAX),
        Value::new("resident memory while it was filled, most", mib_of(peak_of_loading), "MiB").at_most(MEMORY_MIB_MAX),
        Value::new("a row read, p50", median(&reads), "ms"),
        Value::new("a row read, p99", quantile(&reads, 0.99), "ms"),
        Value::new("GETs of packs and maps per row read", {
            let gets = spent.get(Operation::Get, "pack").requests + spent.get(Operation::Get, "map").requests;
            gets as f64 / READS as f64
        }, ""),
        Value::new("a row changed, p50", median(&updates), "ms"),
        Value::new("a row changed, p99", quantile(&updates, 0.99), "ms"),
        Value::new("filled at", mib as f64 / (loading / 1000.0), "MiB/s"),
        Value::new("size of the database", mib as f64, "MiB"),
    ]))
}
