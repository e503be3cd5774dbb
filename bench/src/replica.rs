//! replica: how far is a read replica behind its owner, and what does it cost?
//!
//! Two servers on one bucket at `s3std`. A client writes row after row at the owner, with folds; another reads the
//! newest at the replica, one query after the other. *Behind* is the time from a row's acknowledgement at the owner to
//! the first answer of the replica that shows it, queries of the reader included; an answer from before the
//! acknowledgement counts as 0. *Stated* is what the replica says of itself in each answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use emulator::{Operation, Profile};
use serde_json::{Value as Json, json};

use crate::hrana::{Client, agent};
use crate::report::{Report, Value};
use crate::rig::Rig;
use crate::server::ServerProcess;
use crate::stats::{median, quantile};
use crate::{Options, clock};

const LASTS: Duration = Duration::from_secs(20);
const WARM_UP: Duration = Duration::from_secs(2);
const BEHIND_MILLIS_MAX: f64 = 1000.0;

/// One answer of the replica.
struct Seen {
    row: usize,
    at: Instant,
    stated_millis: f64,
}

pub fn run(_options: &Options) -> anyhow::Result<Report> {
    let rig = Rig::start()?;
    let cache_dir = tempfile::tempdir()?;
    let replica = ServerProcess::start_with(&rig.emulator, cache_dir.path(), &["--read-replicas"])?;
    let schema = ["CREATE TABLE t(n INTEGER PRIMARY KEY, v BLOB)", "INSERT INTO t VALUES (0, '')"];
    let owner = rig.create_with("app", &schema)?;
    rig.emulator.set_profile(Profile::s3std());
    let reader = Reader { agent: agent(), url: replica.url("app") };
    let begun = clock::now();
    while begun.elapsed() < WARM_UP {
        reader.read()?;
    }
    let before = rig.emulator.counters();
    let is_over = AtomicBool::new(false);
    let (written, seen) = thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut seen = Vec::new();
            while !is_over.load(Ordering::Acquire) {
                seen.push(reader.read()?);
            }
            anyhow::Ok(seen)
        });
        let written = write(&owner);
        // What was written last has its time, too.
        clock::pause(WARM_UP);
        is_over.store(true, Ordering::Release);
        (written, reading.join().expect("BUG: the reader panicked"))
    });
    let (written, seen) = (written?, seen?);
    let spent = rig.emulator.counters().since(&before);
    let behind = behind(&written, &seen)?;
    let stated: Vec<f64> = seen.iter().map(|seen| seen.stated_millis).collect();
    let latencies: Vec<f64> = written.iter().map(|row| row.1).collect();
    let gets = |class| spent.get(Operation::Get, class).requests as f64;
    Ok(Report::new("replica", "a read replica beside its owner, s3std", vec![
        Value::new("behind the acknowledgement, p50", median(&behind), "ms"),
        Value::new("behind the acknowledgement, p99", quantile(&behind, 0.99), "ms"),
        Value::new("behind the acknowledgement, most", quantile(&behind, 1.0), "ms").at_most(BEHIND_MILLIS_MAX),
        Value::new("stated staleness, p50", median(&stated), "ms"),
        Value::new("stated staleness, most", quantile(&stated, 1.0), "ms").at_most(BEHIND_MILLIS_MAX),
        Value::new("commits at the owner, p50", median(&latencies), "ms"),
        Value::new("commits", written.len() as f64, ""),
        Value::new("reads at the replica", seen.len() as f64, ""),
        Value::new("folds meanwhile (packs put)", spent.get(Operation::Put, "pack").requests as f64, "").at_least(1.0),
        Value::new("GETs of heads and packs by both", gets("head") + gets("pack"), ""),
    ]))
}

/// When each row was acknowledged, and after how many milliseconds; the first one's number is 1.
fn write(owner: &Client) -> anyhow::Result<Vec<(Instant, f64)>> {
    let begun = clock::now();
    let mut written = Vec::new();
    while begun.elapsed() < LASTS {
        let row = written.len() + 1;
        let (done, millis) = clock::millis(|| owner.run(&format!("INSERT INTO t VALUES ({row}, randomblob(3000))")));
        done?;
        written.push((clock::now(), millis));
    }
    Ok(written)
}

/// For each row, how many milliseconds after its acknowledgement it was first seen.
fn behind(written: &[(Instant, f64)], seen: &[Seen]) -> anyhow::Result<Vec<f64>> {
    let mut seen = seen.iter().peekable();
    let millis = written.iter().enumerate().map(|(index, (acknowledged, _))| {
        while seen.next_if(|seen| seen.row < index + 1).is_some() {}
        let first = seen.peek().with_context(|| format!("row {} was never seen", index + 1))?;
        Ok(first.at.saturating_duration_since(*acknowledged).as_secs_f64() * 1000.0)
    });
    millis.collect()
}

struct Reader {
    agent: ureq::Agent,
    url: String,
}

impl Reader {
    fn read(&self) -> anyhow::Result<Seen> {
        let requests = json!([{ "type": "execute", "stmt": { "sql": "SELECT max(n) FROM t" } }, { "type": "close" }]);
        let body = json!({ "requests": requests }).to_string();
        let mut answer = self.agent.post(format!("{}v2/pipeline", self.url)).send(body)?;
        let at = clock::now();
        let header = |name: &str| answer.headers().get(name)?.to_str().ok().map(str::to_owned);
        let stated = header("shoal-staleness-ms").and_then(|text| text.parse().ok());
        let text = answer.body_mut().read_to_string()?;
        let stated_millis = stated.with_context(|| format!("not a replica's answer: {text}"))?;
        let json: Json = serde_json::from_str(&text)?;
        let row = json.pointer("/results/0/response/result/rows/0/0/value").and_then(Json::as_str);
        Ok(Seen { row: row.and_then(|row| row.parse().ok()).context("not a number")?, at, stated_millis })
    }
}
