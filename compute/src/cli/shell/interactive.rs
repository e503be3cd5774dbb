//! The shell at a terminal: lines with history, statements over several lines, a prompt that tells
//! what is left open.
//!
//! Ctrl-C gives up what has been typed of a statement, Ctrl-D ends the shell. While a statement
//! runs, Ctrl-C ends the shell, and the server stops the statement when it sees the connection
//! close.

use std::path::PathBuf;
use std::process::ExitCode;

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};

use super::split::{Open, Splitter};
use super::{Flow, Session, ShellError, dot, is_about_output};
use crate::cli::limits::HISTORY_ENTRIES_MAX;
use crate::cli::wire::Cell;

type Lines = Editor<(), FileHistory>;

/// Greets the server, then reads and runs until the end of input.
pub fn run(session: &mut Session<'_>) -> anyhow::Result<ExitCode> {
    greet(session)?;
    let history = history_path();
    let mut lines = open_editor(history.as_ref())?;
    let outcome = read_and_run(session, &mut lines);
    session.client.close();
    if let Some(path) = history
        && let Err(error) = lines.append_history(&path)
    {
        eprintln!("Note: the history is not kept in {}: {error}", path.display());
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Asks for the version, so that a wrong URL shows before the first statement.
fn greet(session: &mut Session<'_>) -> anyhow::Result<()> {
    let rows = session.query("SELECT sqlite_version()")?;
    let version = match rows.first().and_then(|row| row.first()) {
        Some(Cell::Text(version)) => version.clone(),
        _ => "unknown".into(),
    };
    eprintln!("{} (SQLite {version})", session.client.base());
    eprintln!("End a statement with `;`. `.help` lists the shell's own commands, Ctrl-D ends it.");
    Ok(())
}

fn open_editor(history: Option<&PathBuf>) -> anyhow::Result<Lines> {
    let config = Config::builder()
        .max_history_size(HISTORY_ENTRIES_MAX)?
        .history_ignore_space(true)
        .auto_add_history(false)
        .build();
    let mut lines = Lines::with_config(config)?;
    if let Some(path) = history {
        // There is none the first time.
        let _ = lines.load_history(path);
    }
    Ok(lines)
}

/// `$XDG_STATE_HOME/shoal/history` where that is set, else `~/.shoal_history`.
fn history_path() -> Option<PathBuf> {
    if let Some(state) = std::env::var_os("XDG_STATE_HOME").filter(|state| !state.is_empty()) {
        let directory = PathBuf::from(state).join("shoal");
        std::fs::create_dir_all(&directory).ok()?;
        return Some(directory.join("history"));
    }
    std::env::home_dir().map(|home| home.join(".shoal_history"))
}

fn read_and_run(session: &mut Session<'_>, lines: &mut Lines) -> anyhow::Result<()> {
    let mut splitter = Splitter::default();
    // What has been typed since the last complete statement, for the history.
    let mut typed = String::new();
    loop {
        let prompt = prompt(session, splitter.open());
        let line = match lines.readline(&prompt) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                splitter.clear();
                typed.clear();
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        typed.push_str(&line);
        let flow = run_line(session, &mut splitter, &line);
        if splitter.open() == Open::Nothing {
            lines.add_history_entry(typed.as_str())?;
            typed.clear();
        } else {
            typed.push('\n');
        }
        match flow {
            Ok(Flow::Continue) => {}
            Ok(Flow::Quit) => return Ok(()),
            Err(error) if is_about_output(&error) => return Err(error.into()),
            Err(error) => eprintln!("Error: {error}"),
        }
    }
}

/// Runs what a line completes. After an error the rest of the line is dropped: it was written in
/// the belief that all goes well.
fn run_line(session: &mut Session<'_>, splitter: &mut Splitter, line: &str) -> Result<Flow, ShellError> {
    if line.starts_with('.') && splitter.open() == Open::Nothing {
        return dot::run(session, line.trim());
    }
    splitter.push(line);
    splitter.push("\n");
    while let Some(statement) = splitter.next_statement() {
        if let Err(error) = session.execute(&statement.sql) {
            splitter.clear();
            return Err(error);
        }
    }
    Ok(Flow::Continue)
}

/// `shoal>`, with a star inside a transaction, or what is left open on the lines before.
fn prompt(session: &mut Session<'_>, open: Open) -> String {
    match open {
        Open::Statement => "  ...> ".into(),
        Open::Quote(quote) => format!("  ..{quote}> "),
        Open::Comment => "  .*/> ".into(),
        Open::Nothing => match session.client.in_transaction() {
            Ok(false) => "shoal> ".into(),
            Ok(true) => "shoal*> ".into(),
            Err(error) => {
                eprintln!("Error: {error}");
                "shoal> ".into()
            }
        },
    }
}
