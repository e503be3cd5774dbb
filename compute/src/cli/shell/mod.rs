//! `shoal shell`: SQL against a database, at a terminal or from a script.
//!
//! | file | idea |
//! |---|---|
//! | [`split`] | text becomes statements |
//! | [`script`] | a file or a pipe: many statements a request, the first error ends it |
//! | [`interactive`] | a terminal: lines, history, prompts |
//! | [`dot`] | the shell's own commands, `.tables` and so on |
//! | [`dump`] | a database as a script that makes it again, read through the protocol |
//! | [`render`], [`table`] | rows become text |
//!
//! The shell holds one stream on the server over its whole life, so that a transaction can be
//! opened in one line and committed in another. It opens none by itself: a statement outside
//! `BEGIN … COMMIT` is a commit of its own, durable before its answer.

pub mod dot;
pub mod dump;
pub mod interactive;
pub mod render;
pub mod script;
pub mod split;
pub mod table;

#[cfg(test)]
mod tests;

use std::io::{self, BufReader, BufWriter, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::args::{Mode, ShellArgs};
use super::client::{Client, ClientError, RowSink};
use super::limits::{READ_DEPTH_MAX, SCRIPT_BUFFER_BYTES, STATEMENT_BYTES_MAX};
use super::url::DatabaseUrl;
use super::wire::{Cell, Rows};
use render::{Printer, Style};

/// Why a statement, a command or a script ended.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    #[error("near line {line}: {cause}")]
    Line {
        line: usize,
        #[source]
        cause: Box<ShellError>,
    },
    #[error("{cause}. The statements of the lines {first} to {last} may have been carried out in part")]
    Partly {
        first: usize,
        last: usize,
        #[source]
        cause: ClientError,
    },
    #[error("{0}")]
    Client(#[from] ClientError),
    /// A dot command that makes no sense; the text says what would.
    #[error("{0}")]
    Command(String),
    #[error("{}: {cause}", path.display())]
    File {
        path: PathBuf,
        #[source]
        cause: Box<ShellError>,
    },
    #[error("it can't be read: {0}")]
    NotRead(#[source] io::Error),
    #[error("this is not UTF-8 text")]
    NotText,
    #[error("a statement is longer than {STATEMENT_BYTES_MAX} bytes: is a quote left open?")]
    TooLong,
    #[error("scripts read each other more than {READ_DEPTH_MAX} deep")]
    TooDeep,
    #[error("the script ended inside a transaction: its COMMIT is missing")]
    InsideTransaction,
    #[error("the output can't be written: {0}")]
    Output(#[source] io::Error),
}

impl ShellError {
    fn at_line(self, line: usize) -> ShellError {
        ShellError::Line { line, cause: Box::new(self) }
    }
}

/// Whether to go on after a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Continue,
    Quit,
}

/// One database, and where and how to print what it says.
pub struct Session<'w> {
    pub client: Client,
    pub out: Box<dyn Write + 'w>,
    pub style: Style,
    /// How many scripts are being read inside each other.
    pub read_depth: usize,
}

/// Runs `shoal shell`.
pub fn run(args: ShellArgs) -> anyhow::Result<ExitCode> {
    let url = DatabaseUrl::parse(&args.url)?;
    let token = args.auth_token.filter(|token| !token.is_empty());
    let for_terminal = io::stdout().is_terminal();
    let mode = args.mode.unwrap_or(if for_terminal { Mode::Table } else { Mode::List });
    let style = Style { mode, headers: args.headers.then_some(true), for_terminal };
    let out = Box::new(BufWriter::new(io::stdout().lock()));
    let mut session = Session { client: Client::new(&url, token), out, style, read_depth: 0 };
    match args.sql {
        Some(sql) => Ok(run_alone(&mut session, sql.as_bytes())?),
        None if io::stdin().is_terminal() => interactive::run(&mut session),
        None => Ok(run_alone(&mut session, io::stdin().lock())?),
    }
}

/// Runs a script that is all there is to do, and reports its error. Only an output that went away
/// is handed up.
fn run_alone(session: &mut Session<'_>, script: impl Read) -> Result<ExitCode, ShellError> {
    let outcome = session.run_whole_script(script);
    let was_open = session.client.in_transaction().unwrap_or(false);
    session.client.close();
    let output = session.out.flush().map_err(ShellError::Output);
    match outcome {
        Ok(()) => output.map(|()| ExitCode::SUCCESS),
        Err(error) if is_about_output(&error) => Err(error),
        Err(error) => {
            eprintln!("Error: {error}");
            if was_open {
                eprintln!("The transaction that was open is rolled back.");
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

fn is_about_output(error: &ShellError) -> bool {
    match error {
        ShellError::Output(_) | ShellError::Client(ClientError::Output(_)) => true,
        ShellError::Client(ClientError::StreamLost(cause)) => matches!(**cause, ClientError::Output(_)),
        ShellError::Line { cause, .. } | ShellError::File { cause, .. } => is_about_output(cause),
        _ => false,
    }
}

impl Session<'_> {
    /// Runs a script that has to leave no transaction open.
    pub fn run_whole_script(&mut self, script: impl Read) -> Result<(), ShellError> {
        let reader = BufReader::with_capacity(SCRIPT_BUFFER_BYTES, script);
        if script::run(self, reader)? == Flow::Continue && self.client.in_transaction()? {
            return Err(ShellError::InsideTransaction);
        }
        Ok(())
    }

    /// Runs one statement and prints its rows as they arrive.
    pub fn execute(&mut self, sql: &str) -> Result<(), ShellError> {
        let mut printer = Printer::new(&mut self.out, self.style);
        let outcome = self.client.stream_rows(sql, &mut printer);
        // The rows before an error are shown, and their table closed.
        printer.finish().map_err(ShellError::Output)?;
        Ok(outcome?)
    }

    /// Prints a result that has arrived whole.
    pub fn print(&mut self, rows: Rows) -> Result<(), ShellError> {
        let mut printer = Printer::new(&mut self.out, self.style);
        let print = |printer: &mut Printer<'_>| {
            printer.columns(rows.columns)?;
            rows.rows.into_iter().try_for_each(|row| printer.row(row))
        };
        print(&mut printer).and_then(|()| printer.finish()).map_err(ShellError::Output)
    }

    /// Runs a query of the shell's own.
    pub fn query(&mut self, sql: &str) -> Result<Vec<Vec<Cell>>, ClientError> {
        query(&mut self.client, sql)
    }
}

/// All rows of a query that has few.
pub fn query(client: &mut Client, sql: &str) -> Result<Vec<Vec<Cell>>, ClientError> {
    struct Collected(Vec<Vec<Cell>>);
    impl RowSink for Collected {
        fn columns(&mut self, _: Vec<String>) -> io::Result<()> {
            Ok(())
        }
        fn row(&mut self, cells: Vec<Cell>) -> io::Result<()> {
            self.0.push(cells);
            Ok(())
        }
    }
    let mut rows = Collected(Vec::new());
    client.stream_rows(sql, &mut rows)?;
    Ok(rows.0)
}
