//! The `shoal` binary: argument parsing, logging, and nothing else.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use compute::cli::args::{Cli, Command};
use compute::cli::config::ServeConfig;
use compute::serve::{self, Server};
use compute::{cli, dev, pageserve};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("shoal: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, but none that the text before ends with: many errors tell theirs themselves.
fn told(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Colours are for people: not for a file, nor for whoever says so (no-color.org).
fn is_colourful() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// What this process is for.
#[derive(PartialEq, Eq)]
enum Role {
    Dev,
    Serve,
    Pageserver(pageserve::Intervals),
}

fn run() -> anyhow::Result<ExitCode> {
    compute::sqlite::memory::share_among_threads();
    let (config, role) = match Cli::from_command_line().command {
        Command::Client(command) => return cli::run(command),
        Command::Dev(args) => (ServeConfig::for_dev(args)?, Role::Dev),
        Command::Serve(args) => (ServeConfig::resolve(args)?, Role::Serve),
        Command::Pageserver(args) => {
            let (drain, scrub) = (args.drain_interval.as_duration(), args.scrub_interval.as_duration());
            (ServeConfig::for_pageserver(args)?, Role::Pageserver(pageserve::Intervals { drain, scrub }))
        }
    };
    let filter = EnvFilter::try_new(&config.log)?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(is_colourful()).init();
    compute::sqlite::memory::start_giving_back()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        if let Role::Pageserver(intervals) = role {
            return pageserve::run(&config, intervals).await;
        }
        let server = Server::start(&config).await?;
        if role == Role::Dev {
            dev::welcome(&server).await?;
        }
        serve::serve(config, server).await
    })?;
    // Coroutines that wait for a store that never answers are not unwound: the process just ends.
    runtime.shutdown_background();
    Ok(code)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_cause_that_is_told_already_is_not_told_twice() {
        let full = || io::Error::from_raw_os_error(28);
        let twice = anyhow::Error::new(full()).context(format!("cannot write: {}", full()));
        assert_eq!(told(&twice), "cannot write: No space left on device (os error 28)");
        let once = Err::<(), _>(full()).context("cannot write").unwrap_err();
        assert_eq!(told(&once), "cannot write: No space left on device (os error 28)");
    }
}
