//! Every command, flag and environment variable of `shoal`, with the texts of `--help`.
//!
//! Flags carry their values already checked for form (a size is a size); what they mean together
//! is [`super::config`]'s. Each flag of a server has the environment variable `SHOAL_<FLAG>` and
//! the same name as a key of `shoal.toml`: [`super::settings::Settings`] is one struct, filled once from the command
//! line and once from the file, so the two can't drift apart.

mod db;
mod past;
mod server;
mod shell;
#[cfg(test)]
mod tests;
mod verify;

use std::ffi::OsString;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue};
use clap::{Parser, Subcommand};

pub use self::db::{DbArgs, DbCommand, Output};
pub use self::past::{AtArgs, PastCommand};
pub use self::server::{DevArgs, PageserverArgs, ServeArgs};
pub use self::shell::{Mode, ShellArgs};
pub use self::verify::VerifyArgs;

const ABOUT: &str = "\
Shoal serves SQLite databases over libSQL's protocol and keeps them in object storage.

Every write that is acknowledged is in the bucket. The local disk is a cache that may be lost.";

const EXAMPLES: &str = "\
Examples:
  shoal dev                                        try it: everything in ./shoal-data
  shoal shell http://127.0.0.1:8080/db/app/        open a database in a terminal
  shoal serve --store s3://bucket/prefix           the production form
  shoal db list                                    ask the server what it holds

`shoal <command> --help` tells all about a command.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "shoal", version, about = "SQLite databases whose only home is a bucket")]
#[command(long_about = ABOUT, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "one value for a whole process")]
pub enum Command {
    Dev(DevArgs),
    Serve(ServeArgs),
    Pageserver(PageserverArgs),
    #[command(flatten)]
    Client(ClientCommand),
}

/// The commands that are plain clients of a server, or need none: [`super::run`] runs them.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    Shell(ShellArgs),
    Db(DbArgs),
    Verify(VerifyArgs),
    /// Print the versions of Shoal and of the SQLite inside it
    Version,
}

impl Cli {
    /// Reads the process's command line. Prints and ends the process on `--help` or an error.
    pub fn from_command_line() -> Cli {
        Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    /// Reads a command line; says so when a refused value came from the environment, which the
    /// parser's own message doesn't.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
        let words: Vec<OsString> = words.into_iter().collect();
        Cli::try_parse_from(&words).map_err(|error| {
            let is_set = |variable: &str| std::env::var_os(variable).is_some();
            name_the_variable(error, &words, is_set)
        })
    }
}

fn name_the_variable(mut error: clap::Error, words: &[OsString], is_set: impl Fn(&str) -> bool) -> clap::Error {
    let Some(variable) = variable_behind(&error, words).filter(|variable| is_set(variable)) else {
        return error;
    };
    let tip = StyledStr::from(format!("the value comes from the environment variable {variable}"));
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    error
}

/// The variable that can have given the value of which `error` speaks, unless a flag did.
fn variable_behind(error: &clap::Error, words: &[OsString]) -> Option<String> {
    // The argument is named as in the usage line: `--lease <DURATION>`.
    let ContextValue::String(argument) = error.get(ContextKind::InvalidArg)? else { return None };
    let flag = argument.split([' ', '=', '[']).next()?;
    let name = flag.strip_prefix("--")?;
    let given_as_flag = words.iter().any(|word| {
        let word = word.to_string_lossy();
        word == flag || word.starts_with(&format!("{flag}="))
    });
    let variable = format!("SHOAL_{}", name.replace('-', "_").to_uppercase());
    (!given_as_flag).then_some(variable)
}
