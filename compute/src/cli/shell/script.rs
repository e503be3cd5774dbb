//! Runs a script: a file, a pipe, or the SQL of the command line.
//!
//! Statements are gathered and sent many at a time, for a round trip costs more than most of them.
//! Within a request each runs only if the one before it went well, so a script stops at its first
//! error exactly, as if each had been sent alone. Nothing is wrapped in a transaction: where the
//! script has none, each statement is a commit of its own, and only the waiting for the answers is
//! shared. Queries travel alone, since their results may be of any length.
//!
//! What has been gathered is sent when a request is full, before a query or a dot command, and when
//! all that has arrived is used up: whoever writes into a pipe and waits for the result gets it.

use std::io::{BufRead, BufReader, Read};

use super::split::{Open, Splitter, Statement};
use super::{Flow, Session, ShellError, dot};
use crate::cli::client::ClientError;
use crate::cli::limits::{GROUP_BYTES_MAX, GROUP_STATEMENTS_MAX, STATEMENT_BYTES_MAX};
use crate::cli::wire::Step;

/// Runs all of `reader`; `Quit` if the script said so.
pub fn run(session: &mut Session<'_>, mut reader: BufReader<impl Read>) -> Result<Flow, ShellError> {
    let mut script = Script { session, splitter: Splitter::default(), group: Group::default() };
    loop {
        if reader.buffer().is_empty() {
            script.send_group()?;
        }
        let Some(line) = read_line(&mut reader).map_err(|error| error.at_line(script.splitter.line()))? else {
            return script.finish();
        };
        if script.take_line(&line)? == Flow::Quit {
            return Ok(Flow::Quit);
        }
    }
}

struct Script<'s, 'w> {
    session: &'s mut Session<'w>,
    splitter: Splitter,
    group: Group,
}

/// Statements that travel together.
#[derive(Default)]
struct Group {
    statements: Vec<Statement>,
    bytes: usize,
}

impl Group {
    fn has_room_for(&self, statement: &Statement) -> bool {
        self.statements.len() < GROUP_STATEMENTS_MAX && self.bytes + statement.sql.len() <= GROUP_BYTES_MAX
    }

    fn push(&mut self, statement: Statement) {
        self.bytes += statement.sql.len();
        self.statements.push(statement);
    }
}

impl Script<'_, '_> {
    fn take_line(&mut self, line: &str) -> Result<Flow, ShellError> {
        if line.starts_with('.') && self.splitter.open() == Open::Nothing {
            self.send_group()?;
            let at = self.splitter.line();
            self.splitter.skip_line();
            return dot::run(self.session, line.trim()).map_err(|error| error.at_line(at));
        }
        self.splitter.push(line);
        while let Some(statement) = self.splitter.next_statement() {
            self.add(statement)?;
        }
        if self.splitter.waiting_bytes() > STATEMENT_BYTES_MAX {
            return Err(ShellError::TooLong.at_line(self.splitter.line()));
        }
        Ok(Flow::Continue)
    }

    /// At the end, a statement without its semicolon is one too.
    fn finish(mut self) -> Result<Flow, ShellError> {
        if let Some(statement) = self.splitter.finish() {
            self.add(statement)?;
        }
        self.send_group()?;
        Ok(Flow::Continue)
    }

    fn add(&mut self, statement: Statement) -> Result<(), ShellError> {
        if statement.is_query {
            self.send_group()?;
            return self.session.execute(&statement.sql).map_err(|error| error.at_line(statement.line));
        }
        if !self.group.has_room_for(&statement) {
            self.send_group()?;
        }
        self.group.push(statement);
        Ok(())
    }

    fn send_group(&mut self) -> Result<(), ShellError> {
        let Group { statements, .. } = std::mem::take(&mut self.group);
        if statements.is_empty() {
            return Ok(());
        }
        let sql: Vec<&str> = statements.iter().map(|statement| statement.sql.as_str()).collect();
        let steps = self.session.client.batch(&sql).map_err(|cause| request_failed(&statements, cause))?;
        for (statement, step) in statements.iter().zip(steps) {
            self.take_step(step).map_err(|error| error.at_line(statement.line))?;
        }
        Ok(())
    }

    fn take_step(&mut self, step: Step) -> Result<(), ShellError> {
        match step {
            Step::Done(rows) => self.session.print(rows),
            Step::Failed(error) => Err(ClientError::Sql(error).into()),
            // Comes only after a failed one, which has ended the script already, unless the server
            // breaks the protocol.
            Step::Skipped => Err(ShellError::Command("the server skipped this statement".into())),
        }
    }
}

/// The error of a request as a whole, which tells nothing about the single statements.
fn request_failed(statements: &[Statement], cause: ClientError) -> ShellError {
    let first = statements.first().map_or(0, |statement| statement.line);
    let last = statements.last().map_or(first, |statement| statement.line);
    let error = if nothing_was_done(&cause) || statements.len() == 1 {
        ShellError::Client(cause)
    } else {
        ShellError::Partly { first, last, cause }
    };
    error.at_line(first)
}

/// Whether the request was turned away before any of its statements ran.
fn nothing_was_done(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Refused { status, .. } => (400..500).contains(status),
        ClientError::StreamLost(cause) => nothing_was_done(cause),
        _ => false,
    }
}

/// The next line with its end, or nothing at the end of the script.
fn read_line(reader: &mut impl BufRead) -> Result<Option<String>, ShellError> {
    let mut line = Vec::new();
    let mut limited = reader.take(STATEMENT_BYTES_MAX as u64 + 1);
    limited.read_until(b'\n', &mut line).map_err(ShellError::NotRead)?;
    match line.len() {
        0 => Ok(None),
        length if length > STATEMENT_BYTES_MAX => Err(ShellError::TooLong),
        _ => {
            let line = String::from_utf8(line).map_err(|_| ShellError::NotText)?;
            // Some editors put it at a file's beginning; to SQL it is a letter.
            Ok(Some(line.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(line)))
        }
    }
}
