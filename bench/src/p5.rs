//! P5: commits of one database. With a crowd of writers at a store's latency: how many share a PUT? With a
//! store that answers at once: how many are there in a second, against libSQL's server if it is at hand?

use std::sync::Barrier;
use std::thread;

use anyhow::bail;
use emulator::{Operation, Profile};

use crate::hrana::Client;
use crate::report::{Report, Value};
use crate::rig::Rig;
use crate::sqld::Sqld;
use crate::stats::{mean, median, quantile};
use crate::{Options, clock};

const CROWD: usize = 64;
const CROWD_COMMITS_PER_CLIENT: u64 = 20;
const COMMITS_PER_PUT_MIN: f64 = 50.0;

const CLIENTS: usize = 16;
const COMMITS_PER_CLIENT: u64 = 100;
const SQLD_RATIO_MIN: f64 = 10.0;

const SCHEMA: &str = "CREATE TABLE t (client INTEGER NOT NULL, n INTEGER NOT NULL)";

pub fn run(options: &Options) -> anyhow::Result<Report> {
    let mut values = shared_puts(options)?;
    values.extend(commits_per_second(options)?);
    Ok(Report::new("P5", "commits of one database: 64 clients at s3std, 16 clients at local", values))
}

fn shared_puts(options: &Options) -> anyhow::Result<Vec<Value>> {
    let rig = Rig::start()?;
    let url = rig.create("app")?;
    Client::new(&url).run(SCHEMA)?;
    rig.emulator.set_profile(Profile::s3std());
    let mut per_put = Vec::new();
    let mut latencies = Vec::new();
    // One more round than is counted: the first finds clients without connections, and a log without pace.
    for round in 0..=options.rounds {
        let (result, spent) = rig.count(|| crowd(&url, CROWD, CROWD_COMMITS_PER_CLIENT))?;
        if let Some(failure) = result.failures.first() {
            bail!("{} commits failed: {failure:#}", result.failures.len());
        }
        if round > 0 {
            per_put.push(result.commits() as f64 / spent.get(Operation::Put, "w").requests as f64);
            latencies.extend(result.millis);
        }
    }
    Ok(vec![
        Value::new("64 clients, s3std: commits per PUT, median of the rounds", median(&per_put), "")
            .at_least(COMMITS_PER_PUT_MIN),
        Value::new("64 clients, s3std: commits per PUT, worst round", quantile(&per_put, 0.0), ""),
        Value::new("64 clients, s3std: a commit, p50", median(&latencies), "ms"),
        Value::new("64 clients, s3std: a commit, p99", quantile(&latencies, 0.99), "ms"),
    ])
}

fn commits_per_second(options: &Options) -> anyhow::Result<Vec<Value>> {
    let rig = Rig::start()?;
    let url = rig.create("app")?;
    Client::new(&url).run(SCHEMA)?;
    let sqld = options.sqld.as_deref().map(Sqld::start).transpose()?;
    if let Some(sqld) = &sqld {
        Client::new(&sqld.url).run(SCHEMA)?;
    }
    let (mut ours, mut theirs, mut ratios, mut busy) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut failures = 0;
    for _ in 0..options.rounds {
        let round = crowd(&url, CLIENTS, COMMITS_PER_CLIENT)?;
        failures += round.failures.len();
        ours.push(round.per_second());
        if let Some(sqld) = &sqld {
            let their_round = crowd(&sqld.url, CLIENTS, COMMITS_PER_CLIENT)?;
            theirs.push(their_round.per_second());
            ratios.push(round.per_second() / their_round.per_second());
            busy.push(their_round.failures.len() as f64);
        }
    }
    let mut values = vec![
        Value::new("16 clients, local: commits per second, median of the rounds", median(&ours), "1/s"),
        Value::new("16 clients, local: refused commits", failures as f64, "").exactly(0.0),
    ];
    if sqld.is_some() {
        values.extend([
            Value::new("16 clients, local: commits per second ÷ sqld's, median", median(&ratios), "×")
                .at_least(SQLD_RATIO_MIN),
            Value::new("sqld, 16 clients: commits per second, median", median(&theirs), "1/s"),
            Value::new("sqld, 16 clients: refused commits per round", mean(&busy), ""),
        ]);
    }
    Ok(values)
}

/// What clients that write at the same time came to.
struct Round {
    /// Of each acknowledged commit.
    millis: Vec<f64>,
    failures: Vec<anyhow::Error>,
    seconds: f64,
}

impl Round {
    fn commits(&self) -> usize {
        self.millis.len()
    }

    fn per_second(&self) -> f64 {
        self.commits() as f64 / self.seconds
    }
}

/// Clients that insert one row after the other, each as soon as its last one was answered.
fn crowd(url: &str, clients: usize, commits_per_client: u64) -> anyhow::Result<Round> {
    let start = Barrier::new(clients + 1);
    thread::scope(|scope| {
        let start = &start;
        let one_client = |number: usize| {
            move || {
                let client = Client::new(url);
                // A connection is made before, in a request that commits nothing.
                let connected = client.run("SELECT 1");
                start.wait();
                let insert = |n| clock::millis(|| client.run(&format!("INSERT INTO t VALUES ({number}, {n})")));
                connected.map(|()| (0..commits_per_client).map(insert).collect::<Vec<_>>())
            }
        };
        let threads: Vec<_> = (0..clients).map(|number| scope.spawn(one_client(number))).collect();
        start.wait();
        let join = || threads.into_iter().map(|thread| thread.join().expect("BUG: a client panicked"));
        let (answers, took) = clock::millis(|| join().collect::<anyhow::Result<Vec<_>>>());
        let mut round = Round { millis: Vec::new(), failures: Vec::new(), seconds: took / 1000.0 };
        for (answer, millis) in answers?.into_iter().flatten() {
            match answer {
                Ok(()) => round.millis.push(millis),
                Err(failure) => round.failures.push(failure),
            }
        }
        match round.failures.pop() {
            Some(failure) if round.millis.is_empty() => Err(failure.context("no commit was acknowledged")),
            last => {
                round.failures.extend(last);
                Ok(round)
            }
        }
    })
}
