//! The command line of `shoal`: what can be written there, what it means, and the commands that
//! are plain clients of a server.
//!
//! | file | idea |
//! |---|---|
//! | [`args`] | every command and its help; the flags |
//! | [`settings`] | the flags, variables and file keys of `shoal serve` |
//! | [`config`] | flag, environment, file and default become one checked [`config::ServeConfig`] |
//! | [`environment`] | a `SHOAL_*` variable that nobody knows is an error |
//! | [`units`] | sizes, durations and windows as people write them |
//! | [`url`] | the forms in which a database's URL may be written |
//! | [`wire`], [`client`] | Hrana over HTTP, from the client's side |
//! | [`shell`] | `shoal shell` |
//! | [`admin`] | the administration interface, from the client's side |
//! | [`db`] | `shoal db`: its commands, also those about the past, forks and files |
//! | [`verify`] | `shoal verify`, which looks at the bucket itself |
//! | [`snippets`] | ready-made code that connects to a URL |
//!
//! Everything here is synchronous and single-threaded. It may use `anyhow`: it is the outermost
//! layer of a program, and an error's next reader is a person at a terminal.

pub mod admin;
pub mod args;
pub mod client;
pub mod config;
pub mod db;
pub mod environment;
pub mod limits;
pub mod settings;
pub mod shell;
pub mod snippets;
pub mod units;
pub mod url;
pub mod verify;
pub mod wire;

#[cfg(test)]
mod test_server;

use std::io::{self, Write};
use std::process::ExitCode;

use args::ClientCommand;

/// What a process ends with when whoever read its output went away, as after a SIGPIPE.
const EXIT_BROKEN_PIPE: u8 = 141;

/// What the parser of the command line ends the process with when it refuses one.
const EXIT_USAGE: u8 = 2;

/// Runs a command that is a client of a server, or needs none. `dev` and `serve` are not here:
/// they are the server.
pub fn run(command: ClientCommand) -> anyhow::Result<ExitCode> {
    let outcome = match command {
        ClientCommand::Shell(shell_args) => shell::run(shell_args),
        ClientCommand::Db(db_args) => db::run(db_args),
        ClientCommand::Verify(verify_args) => verify::run(verify_args),
        ClientCommand::Version => print_version(),
    };
    match outcome {
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::from(EXIT_BROKEN_PIPE)),
        Err(error) if error.is::<db::NobodyToAsk>() => {
            eprintln!("shoal: {error}");
            Ok(ExitCode::from(EXIT_USAGE))
        }
        // These errors tell their causes themselves; whoever prints the chain would tell them twice.
        Err(error) => Err(anyhow::Error::msg(error.to_string())),
        Ok(code) => Ok(code),
    }
}

fn print_version() -> anyhow::Result<ExitCode> {
    writeln!(io::stdout(), "shoal {} (SQLite {})", env!("CARGO_PKG_VERSION"), rusqlite::version())?;
    Ok(ExitCode::SUCCESS)
}

/// `shoal shell … | head` ends the pipe early; that is no error to report.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|io| io.kind() == io::ErrorKind::BrokenPipe)
}
