//! P1: how much longer is a commit over HTTP than a raw conditional PUT of the same bytes, at low load?

use emulator::{Operation, Profile};

use crate::raw::RawClient;
use crate::report::{Report, Value};
use crate::rig::Rig;
use crate::stats::{median, quantile};
use crate::{Options, clock};

/// Of each of the two, in each round.
const SAMPLES: usize = 150;
const WARM_UP: usize = 20;

const P50_RATIO_MAX: f64 = 1.10;
const P99_RATIO_MAX: f64 = 1.25;

pub fn run(options: &Options) -> anyhow::Result<Report> {
    let rig = Rig::start()?;
    let schema = ["CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)", "INSERT INTO t VALUES (1, 0)"];
    let client = rig.create_with("app", &schema)?;
    let mut raw = RawClient::new(&rig.emulator)?;
    rig.emulator.set_profile(Profile::s3std());
    let commit = || {
        let (done, millis) = clock::millis(|| client.run("UPDATE t SET n = n + 1 WHERE id = 1"));
        done.map(|()| millis)
    };
    for _ in 0..WARM_UP {
        commit()?;
        raw.put(256)?;
    }

    let (mut commits, mut puts, mut ratios, mut sizes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let (round, spent) = rig.count(|| (0..SAMPLES).map(|_| commit()).collect::<anyhow::Result<Vec<f64>>>())?;
        let log = spent.get(Operation::Put, "w");
        let bytes = log.bytes / log.requests.max(1);
        let raw_round = (0..SAMPLES).map(|_| raw.put(bytes as usize)).collect::<anyhow::Result<Vec<f64>>>()?;
        ratios.push(median(&round) / median(&raw_round));
        sizes.push(bytes as f64);
        commits.extend(round);
        puts.extend(raw_round);
    }
    let p99 = |samples: &[f64]| quantile(samples, 0.99);
    let values = vec![
        Value::new("p50 of commits ÷ p50 of raw PUTs, median of the rounds", median(&ratios), "×")
            .at_most(P50_RATIO_MAX),
        // A round's p99 rests on one or two samples, so all rounds are taken together.
        Value::new("p99 of commits ÷ p99 of raw PUTs, all rounds", p99(&commits) / p99(&puts), "×")
            .at_most(P99_RATIO_MAX),
        Value::new("commit, p50", median(&commits), "ms"),
        Value::new("commit, p99", p99(&commits), "ms"),
        Value::new("raw PUT, p50", median(&puts), "ms"),
        Value::new("raw PUT, p99", p99(&puts), "ms"),
        Value::new("bytes of both", median(&sizes), "B"),
        Value::new("samples of each", commits.len() as f64, ""),
    ];
    Ok(Report::new("P1", "commit latency over HTTP ÷ raw conditional PUT of the same bytes, s3std, one client", values))
}
