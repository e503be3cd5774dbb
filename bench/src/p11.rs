//! P11: how long does a scan of a database take that is nowhere but in the bucket, against raw parallel GETs of as many of
//! the same bytes?
//!
//! The database is open and one row of its schema read, so both sides begin with their first GET of data.

use emulator::{Operation, Profile};

use crate::hrana::Client;
use crate::raw::RawClient;
use crate::report::{Report, Value};
use crate::rig::Rig;
use crate::stats::{median, quantile};
use crate::{Options, bulk, clock};

const MIB: u64 = 256;
const RAW_CONNECTIONS: usize = 16;
const RAW_PART_BYTES: u64 = 1 << 20;
const FLAGS: [&str; 4] = ["--memory", "256MiB", "--statement-timeout", "5m"];

const RATIO_MIN: f64 = 0.8;

pub fn run(options: &Options) -> anyhow::Result<Report> {
    let mut rig = Rig::start_with(&FLAGS)?;
    bulk::fill(&Client::new(rig.create("app")?), MIB)?;
    bulk::wait_until_quiet(&rig);
    let raw = RawClient::new(&rig.emulator)?;
    let (mut ratios, mut ours, mut theirs, mut bytes, mut gets) = (vec![], vec![], vec![], vec![], vec![]);
    let (mut peaks, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        rig.emulator.set_profile(Profile::local());
        rig.server().release("app")?;
        rig.restart_without_cache()?;
        let process = rig.server().process();
        let client = Client::new(rig.server().url("app"));
        client.number("SELECT count(*) FROM sqlite_schema")?;
        rig.emulator.set_profile(Profile::s3std());
        let cpu_before = process.cpu_seconds()?;
        let ((sum, took), spent) =
            rig.count(|| Ok(clock::millis(|| client.number("SELECT sum(length(v)) FROM t"))))?;
        anyhow::ensure!(sum? == bulk::rows(MIB) as i64 * 800, "the scan did not see all");
        cpu.push((process.cpu_seconds()? - cpu_before) * 1000.0);
        let read = spent.get(Operation::Get, "pack");
        let parts = parts(&rig, read.bytes);
        let raw_took = raw.get_parts(&parts, RAW_CONNECTIONS)?;
        ratios.push(raw_took / took);
        ours.push(took);
        theirs.push(raw_took);
        bytes.push(read.bytes as f64 / f64::from(1 << 20));
        gets.push(read.requests as f64);
        peaks.push(process.memory_bytes("VmHWM")? as f64 / f64::from(1 << 20));
        let peak = rig.server().peak_bytes();
        println!("{took:.0} ms, raw {raw_took:.0} ms; bytes in the control group, most: {peak:?}");
    }
    Ok(Report::new("P11", "cold scan of 256 MB ÷ raw parallel GETs of as many of the same bytes, s3std", vec![
        Value::new("our speed ÷ raw, median of the rounds", median(&ratios), "×").at_least(RATIO_MIN),
        Value::new("scan, p50", median(&ours), "ms"),
        Value::new("CPU time of the server during the scan, p50", median(&cpu), "ms"),
        Value::new("raw, 16 connections and parts of 1 MiB, p50", median(&theirs), "ms"),
        Value::new("fetched by the scan, p50", median(&bytes), "MiB"),
        Value::new("GETs of the scan, p50", median(&gets), ""),
        Value::new("resident memory of the server, most", quantile(&peaks, 1.0), "MiB"),
    ]))
}

/// As many bytes of the packs, in parts.
fn parts(rig: &Rig, mut bytes: u64) -> Vec<(String, std::ops::Range<u64>)> {
    let mut parts = Vec::new();
    for (key, object) in rig.emulator.objects("t/").into_iter().filter(|(key, _)| key.contains("/p/")) {
        let mut at = 0;
        while at < object.len() as u64 && bytes > 0 {
            let end = (at + RAW_PART_BYTES.min(bytes)).min(object.len() as u64);
            parts.push((key.clone(), at..end));
            bytes -= end - at;
            at = end;
        }
    }
    parts
}
