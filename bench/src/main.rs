//! Runs rows of the scoreboard and tells what they came to.
//!
//! The emulated store runs on a thread of this process, and Shoal in a process of its own, which is this
//! same program started again ([`server`]). A run ends with a failure if a goal was missed.

mod big;
mod bulk;
mod cgroup;
mod chain;
mod clock;
mod cold;
mod forks;
mod hrana;
mod p1;
mod p10;
mod p11;
mod p14;
mod p18;
mod p19;
mod p19b;
mod p2;
mod p20;
mod p22;
mod p23;
mod p5;
mod p6;
mod p8;
mod p9;
mod pair;
mod process;
mod raw;
mod replica;
mod report;
mod rig;
mod scatter;
mod server;
mod sqld;
mod stats;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, ValueEnum};

use self::report::Report;

/// Measure Shoal against an emulated store
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Args {
    /// Rows of the scoreboard
    #[arg(value_enum, ignore_case = true, required = true, value_name = "ROW")]
    rows: Vec<Row>,

    /// Write the results here: one object for one row, an array for several
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// libSQL's server, to compare with it where a row can
    #[arg(long, value_name = "PATH")]
    sqld: Option<PathBuf>,

    /// What was measured [default: what `git rev-parse HEAD` says]
    #[arg(long, value_name = "HASH", env = "BENCH_COMMIT")]
    commit: Option<String>,

    /// How often what is compared is run, in turns
    #[arg(long, value_name = "COUNT", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// P20: how often an owner is killed
    #[arg(long, value_name = "COUNT", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    kills: u32,

    /// P20: how many databases one owner leaves behind
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    databases: u32,

    /// P20: for how many seconds an owner writes at full speed before it is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    log_seconds: u64,

    /// P10, P18, P19: how large the database is
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..))]
    megabytes: u64,

    /// P18: how many forks one database is given
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    forks: u64,

    /// P22: for how many minutes rows are written
    #[arg(long, value_name = "MINUTES", default_value_t = 1)]
    minutes: u64,

    /// big: the size of the database, in GiB
    #[arg(long, value_name = "SIZE", default_value_t = 1.0)]
    gib: f64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Row {
    /// Commit latency over HTTP against a raw conditional PUT
    P1,
    /// Store requests per acknowledged batch
    P2,
    /// Commits of one database: how many share a PUT, and how many there are in a second
    P5,
    /// Bytes put per one-row commit against SQLite's WAL
    P6,
    /// Speed in process through our VFS against SQLite on a plain file
    P8,
    /// Round trips of the first query of a small cold database
    P9,
    /// Round trips, GETs and bytes of a point query in a large cold database
    P10,
    /// A cold scan against raw parallel GETs
    P11,
    /// What an open, idle database costs
    P14,
    /// Forks of a large database beside a small one: requests, time, bytes, and a chain of them
    P18,
    /// Restores of a large database beside a small one: requests, and that they are exact
    P19,
    /// The first query after kill -9 of the node, by size of the database
    P19b,
    /// Failover after kill -9: time, round trips, growth with the number of databases, recovery of a long log
    P20,
    /// Bytes put over time, and left, against SQLite's WAL and a fresh image
    P22,
    /// Commits while others are folded, merged and collected
    P23,
    /// A database larger than memory and cache
    Big,
    /// How far a read replica is behind its owner
    Replica,
}

/// What a row needs to know.
pub struct Options {
    pub rounds: u32,
    pub sqld: Option<PathBuf>,
    pub kills: u32,
    pub databases: u32,
    pub log_seconds: u64,
    pub megabytes: u64,
    pub forks: u64,
    pub minutes: u64,
    pub gib: f64,
}

fn main() -> ExitCode {
    let run = if server::is_wanted() { server::main() } else { measure(Args::parse()) };
    run.unwrap_or_else(|error| {
        eprintln!("bench: {error:#}");
        ExitCode::FAILURE
    })
}

fn measure(args: Args) -> anyhow::Result<ExitCode> {
    let Args { rounds, sqld, kills, databases, log_seconds, megabytes, forks, minutes, gib, .. } = args;
    let options = Options { rounds, sqld, kills, databases, log_seconds, megabytes, forks, minutes, gib };
    let commit = args.commit.unwrap_or_else(report::commit_of_this_directory);
    let mut reports: Vec<Report> = Vec::new();
    for row in args.rows {
        let mut report = match row {
            Row::P1 => p1::run(&options),
            Row::P2 => p2::run(&options),
            Row::P5 => p5::run(&options),
            Row::P6 => p6::run(&options),
            Row::P8 => p8::run(&options),
            Row::P9 => p9::run(&options),
            Row::P10 => p10::run(&options),
            Row::P11 => p11::run(&options),
            Row::P14 => p14::run(&options),
            Row::P18 => p18::run(&options),
            Row::P19 => p19::run(&options),
            Row::P19b => p19b::run(&options),
            Row::P20 => p20::run(&options),
            Row::P22 => p22::run(&options),
            Row::P23 => p23::run(&options),
            Row::Big => big::run(&options),
            Row::Replica => replica::run(&options),
        }?;
        let capped = server::share_with_a_cap();
        let name = "servers that the kernel held to --memory and 128 MiB, of all";
        report.values.extend(capped.map(|share| report::Value::new(name, share, "")));
        report.commit.clone_from(&commit);
        println!("{report}");
        reports.push(report);
    }
    if let Some(path) = args.json {
        let json = match reports.as_slice() {
            [one] => serde_json::to_string_pretty(one)?,
            several => serde_json::to_string_pretty(several)?,
        };
        std::fs::write(&path, json + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    let is_met = reports.iter().all(Report::is_met);
    Ok(if is_met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
