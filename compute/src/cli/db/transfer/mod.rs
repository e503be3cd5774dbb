//! Databases that travel as files: `shoal db export`, `shoal db import` and `shoal db create --from`.
//!
//! | file | idea |
//! |---|---|
//! | [`mod@export`] | a stream of pages becomes a file that has been checked |
//! | [`convert`] | any SQLite file becomes one with the pages that the server has |
//! | [`script`] | a dump becomes a SQLite file |
//! | [`upload`] | a file goes to the server in parts, and goes on after an interruption |

pub mod convert;
pub mod export;
pub mod script;
pub mod upload;

use std::io::Write;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode};
use serde_json::json;

use super::progress::Progress;
use crate::cli::admin::{Admin, AdminError};
use crate::cli::args::Output;
use crate::cli::client::ClientError;
use crate::cli::limits::FULL_CHECK_BYTES_MAX;
use crate::cli::url::UrlError;

pub use self::export::{Target, export};

#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Url(#[from] UrlError),
    #[error("{} {what}: {cause}", path.display())]
    File { path: PathBuf, what: &'static str, cause: std::io::Error },
    #[error("{} exists already: write another name, or --force to replace it", .0.display())]
    Exists(PathBuf),
    #[error("{} is no SQLite database that can be read: {cause}", path.display())]
    NotRead { path: PathBuf, cause: rusqlite::Error },
    #[error(
        "there is no room for temporary files ({cause}): the file is converted in {}. Make room there, or set TMPDIR to \
         a directory that has as much as three times the file",
        directory.display()
    )]
    NoRoom { directory: PathBuf, cause: String },
    #[error("{} is damaged: {problem}", path.display())]
    Damaged { path: PathBuf, problem: String },
    #[error("{}, line {line}: {problem}", path.display())]
    Script { path: PathBuf, line: usize, problem: String },
    #[error("{} is neither a SQLite database nor SQL text: {problem}", path.display())]
    NotText { path: PathBuf, problem: String },
    #[error("the server's answer makes no sense: {0}")]
    Odd(String),
    #[error("the answer ended after {received} of {bytes} bytes, and nothing was written. The reason: {cause}")]
    BrokenOff { received: u64, bytes: u64, cause: Box<TransferError> },
    #[error("the answer ended after {received} of {bytes} bytes; nothing was written")]
    CutShort { received: u64, bytes: u64 },
    #[error("the upload does not get any further: {0}. What has arrived is kept; the same command goes on from there")]
    Stuck(#[source] ClientError),
}

impl TransferError {
    fn file<'p>(path: &'p Path, what: &'static str) -> impl Fn(std::io::Error) -> Self + 'p {
        move |cause| Self::File { path: path.to_owned(), what, cause }
    }

    fn no_room(cause: impl std::fmt::Display) -> Self {
        Self::NoRoom { directory: std::env::temp_dir(), cause: cause.to_string() }
    }

    fn not_read<'p>(path: &'p Path) -> impl Fn(rusqlite::Error) -> Self + 'p {
        move |cause| match cause.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged { path: path.to_owned(), problem: cause.to_string() },
            Some(ErrorCode::DiskFull) => Self::no_room(cause),
            _ => Self::NotRead { path: path.to_owned(), cause },
        }
    }
}

/// Makes a database of a file.
pub fn import(admin: &Admin, out: &mut impl Write, output: Output, file: &Path, name: &str) -> Result<(), TransferError> {
    let progress = Progress::to_terminal();
    upload::ask(admin, name)?;
    let converted = convert::convert(file, &progress)?;
    let done = upload::upload(admin, name, &converted, &progress)?;
    progress.end();
    let upload::Done { lsn, resumed_from } = done;
    let bytes = converted.bytes;
    let written = match output {
        Output::Text => writeln!(out, "imported {name}: {bytes} bytes, LSN {lsn}"),
        Output::Json => {
            writeln!(out, "{}", json!({ "imported": name, "bytes": bytes, "lsn": lsn, "resumed_from": resumed_from }))
        }
    };
    written.map_err(|error| ClientError::Output(error).into())
}

/// SQLite's own check of a file: with its indexes, unless it is large.
fn check(sql: &Connection, path: &Path, bytes: u64) -> Result<(), TransferError> {
    let pragma = if bytes <= FULL_CHECK_BYTES_MAX { "PRAGMA integrity_check(1)" } else { "PRAGMA quick_check(1)" };
    let answer: String = sql.query_row(pragma, [], |row| row.get(0)).map_err(TransferError::not_read(path))?;
    if answer == "ok" { Ok(()) } else { Err(TransferError::Damaged { path: path.to_owned(), problem: answer }) }
}
