//! Answers about the past, as text for a terminal.

use std::io::{self, Write};

use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub struct History {
    history: Vec<Commit>,
    next: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Commit {
    bookmark: String,
    lsn: u64,
    time: String,
    /// Not known where the window begins.
    bytes: Option<u64>,
}

/// One line a commit.
pub fn history(out: &mut dyn Write, answer: History) -> io::Result<()> {
    writeln!(out, "{:>12}  {:<27}  {:>10}  bookmark", "lsn", "time", "bytes")?;
    for Commit { bookmark, lsn, time, bytes } in &answer.history {
        let bytes = bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
        writeln!(out, "{lsn:>12}  {time:<27}  {bytes:>10}  {bookmark}")?;
    }
    match answer.next {
        Some(next) => writeln!(out, "more: --before {next}"),
        None => Ok(()),
    }
}

/// Levels that are indented; the number of a deeper one stands before it, or a deep family would be mostly blanks.
const LEVELS_INDENTED: usize = 32;

/// The databases of a family, each behind its parent.
#[derive(Debug, Deserialize)]
pub struct Tree {
    tree: Vec<Relative>,
    complete: bool,
}

#[derive(Debug, Deserialize)]
struct Relative {
    name: String,
    database: String,
    state: String,
    /// Where it was forked from its parent.
    lsn: Option<u64>,
    /// How far it is from the first one.
    depth: usize,
    this: bool,
}

/// A database a line, indented under what it was forked from.
pub fn tree(out: &mut dyn Write, answer: Tree) -> io::Result<()> {
    for Relative { name, database, state, lsn, depth, this } in answer.tree {
        let at = lsn.map_or(String::new(), |lsn| format!(" at LSN {lsn}"));
        let state = if state == "live" { String::new() } else { format!(" ({state}, {database})") };
        let this = if this { "  <--" } else { "" };
        let level = if depth <= LEVELS_INDENTED { String::new() } else { format!("[{depth}] ") };
        let indent = 2 * depth.min(LEVELS_INDENTED);
        writeln!(out, "{:indent$}{level}{name}{at}{state}{this}", "")?;
    }
    match answer.complete {
        true => Ok(()),
        false => writeln!(out, "… and more: the family is too large to be shown whole"),
    }
}

#[derive(Debug, Deserialize)]
pub struct Retention {
    retention: String,
    expires: Option<String>,
}

pub fn retention(out: &mut dyn Write, answer: Retention) -> io::Result<()> {
    let expires = answer.expires.unwrap_or_else(|| "never".into());
    writeln!(out, "retention {}\nexpires   {expires}", answer.retention)
}
