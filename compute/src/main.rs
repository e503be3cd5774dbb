//! The `shoal` binary: argument parsing, logging, and nothing else.

use std::io;
use std::process::ExitCode;

use compute::cli::args::{Cli, Command};
use compute::cli::config::ServeConfig;
use compute::serve::{self, Server};
use compute::{cli, dev};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("shoal: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let (config, is_dev) = match Cli::from_command_line().command {
        Command::Client(command) => return cli::run(command),
        Command::Dev(args) => (ServeConfig::for_dev(args)?, true),
        Command::Serve(args) => (ServeConfig::resolve(args)?, false),
    };
    let filter = EnvFilter::try_new(&config.log)?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        let server = Server::start(&config).await?;
        if is_dev {
            dev::welcome(&server).await?;
        }
        serve::serve(config, server).await
    })?;
    // Coroutines that wait for a store that never answers are not unwound: the process just ends.
    runtime.shutdown_background();
    Ok(code)
}
