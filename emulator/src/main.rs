//! The emulator as a program.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use emulator::{Chances, Emulator, EmulatorConfig, Profile};
use tracing_subscriber::EnvFilter;

/// An S3 store in memory, with the latencies of a real one, request counters, and faults on demand.
///
/// It speaks S3's wire protocol (path-style addresses, signature version 4, single-part PUTs with
/// If-None-Match: * and If-Match). Everything it stores is gone when it ends. Ctrl-C prints the counters.
#[derive(Parser)]
#[command(name = "emulator", version, max_term_width = 100, after_help = EXAMPLES)]
struct Options {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:9000", value_name = "ADDR")]
    listen: SocketAddr,

    /// Bucket that exists from the start
    #[arg(long, default_value = "shoal")]
    bucket: String,

    /// What all keys start with; it is skipped when keys are classed for the counters
    #[arg(long, default_value = "", value_name = "KEY")]
    prefix: String,

    #[arg(long, default_value = "emulator", value_name = "ID")]
    access_key: String,

    #[arg(long, default_value = "emulator-secret", value_name = "SECRET")]
    secret_key: String,

    /// Latencies: local (none), s3std, express, or fixed:<milliseconds>
    #[arg(long, default_value = "local")]
    profile: Profile,

    /// Determines latencies and chance faults
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Threads that serve requests
    #[arg(long, default_value_t = 1)]
    threads: usize,

    #[command(flatten)]
    faults: FaultOptions,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Faults (probabilities from 0 to 1)")]
struct FaultOptions {
    /// Apply the N-th PUT and close its connection without an answer (may be repeated)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    drop_put: Vec<u64>,

    /// Answer 403 to everything
    #[arg(long)]
    deny: bool,

    /// Ignore If-None-Match and If-Match, as stores do that do not know them
    #[arg(long)]
    ignore_conditions: bool,

    /// Close the connection before applying the request
    #[arg(long, default_value = "0", value_name = "P", value_parser = probability)]
    lost_request: f64,

    /// Answer 503 before applying the request
    #[arg(long, default_value = "0", value_name = "P", value_parser = probability)]
    unavailable: f64,

    /// Answer 409 before applying the PUT
    #[arg(long, default_value = "0", value_name = "P", value_parser = probability)]
    conflict: f64,

    /// Answer 500 after applying the request
    #[arg(long, default_value = "0", value_name = "P", value_parser = probability)]
    failed_after: f64,

    /// Close the connection after applying the request
    #[arg(long, default_value = "0", value_name = "P", value_parser = probability)]
    lost_answer: f64,

    /// Close the connection in the middle of a GET's body
    #[arg(long, default_value = "0", value_name = "P", value_parser = probability)]
    cut_answer: f64,
}

const EXAMPLES: &str = "\
While it runs, without credentials:
  curl http://127.0.0.1:9000/-/counters                    counters and faults that struck, as JSON
  curl -X DELETE http://127.0.0.1:9000/-/counters          start counting anew
  curl -X PUT http://127.0.0.1:9000/-/outage/unavailable   none, unavailable or hang
  curl http://127.0.0.1:9000/-/                            all of these

RUST_LOG=emulator=debug prints every request.";

fn probability(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err("not between 0 and 1".to_owned()) }
}

impl FaultOptions {
    fn switch_on(&self, emulator: &Emulator) {
        let faults = emulator.faults();
        self.drop_put.iter().for_each(|n| faults.drop_put_answer(*n));
        faults.deny(self.deny);
        faults.ignore_conditions(self.ignore_conditions);
        faults.chances(Chances {
            lost_request: self.lost_request,
            unavailable: self.unavailable,
            conflict: self.conflict,
            failed_after: self.failed_after,
            lost_answer: self.lost_answer,
            cut_answer: self.cut_answer,
        });
    }
}

fn main() -> ExitCode {
    // s3s logs every refused request as an error; here refusals are the point.
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("emulator=info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("emulator: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), String> {
    let listen = options.listen;
    let emulator = Emulator::start_in_thread(EmulatorConfig {
        bucket: options.bucket,
        prefix: options.prefix,
        profile: options.profile,
        seed: options.seed,
        access_key: options.access_key,
        secret_key: options.secret_key,
        listen,
        threads: options.threads,
    })
    .map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    options.faults.switch_on(&emulator);
    println!("listening on {}", emulator.endpoint());
    println!("store URL: {}", emulator.store_url());
    for (name, value) in emulator.environment() {
        println!("  export {name}={value}");
    }
    wait_for_interrupt().map_err(|error| format!("cannot wait for Ctrl-C: {error}"))?;
    println!("\n{}", emulator.counters());
    for (fault, hits) in emulator.faults().hits() {
        println!("{fault:?}: {hits}");
    }
    emulator.stop();
    Ok(())
}

fn wait_for_interrupt() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tokio::signal::ctrl_c())
}
