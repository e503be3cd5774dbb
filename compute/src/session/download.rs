//! A database on its way to a client as a whole, from one snapshot: as the SQL that makes it again, or as a SQLite file.
//!
//! A download has two steps, each in a coroutine. The first pins a snapshot and reads what can fail at once, so that
//! such a failure becomes the answer's status. The second sends the bytes, piece by piece; its failure can only break
//! the answer off, which both forms show: a dump lacks its `COMMIT`, and a file is shorter than its announced length.
//! A dump also has the reason in its last line. Who received too little of a file asks for the reason by a *check*, which
//! only reads what was to come next.
//!
//! The snapshot is of what is durable, writers go on meanwhile, and memory holds a piece at a time. A statement of a
//! dump may take as long as its client takes the bytes, as long as he does take them.

use std::io::{self, Write};
use std::ops::Range;
use std::rc::Rc;

use rusqlite::ffi;
use segments::page::PAGE_BYTES;

use super::execute::value;
use super::pool::Role;
use super::stream::Stream;
use crate::database::file::{self, DatabaseFile, Reads};
use crate::dump::{self, EachRow, Encoding, Options, Source};
use crate::error::{Fault, ServerError};
use crate::hrana::error::HranaError;
use crate::hrana::value::ValueRef;
use crate::sqlite::Code;
use crate::sqlite::coroutine::{Wait, Wake, suspend};
use crate::sqlite::vfs::VfsFile;

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Download {
    /// SQL text; with each row's rowid, or only where rows would get another one.
    Dump { with_rowids: bool },
    /// A SQLite file.
    File,
    /// Nothing, unless what would be sent next of the file, from this byte on, can't be read.
    Check { from: u64 },
}

/// A download whose snapshot is pinned.
pub enum Begun {
    Dump { with_rowids: bool },
    File { file: Rc<file::Connection>, bytes: u64 },
    Checked,
}

impl Begun {
    /// How long it is going to be, where that is known.
    pub fn bytes(&self) -> Option<u64> {
        match self {
            Self::Dump { .. } => None,
            Self::File { bytes, .. } => Some(*bytes),
            Self::Checked => Some(0),
        }
    }
}

/// A page of a file is sent with so many others.
const FILE_PIECE_BYTES: usize = 32 * PAGE_BYTES;
/// A check reads so much: far more than can have been on its way when an answer broke off.
const CHECKED_BYTES: u64 = 64 << 20;
/// Pieces of text are sent at about this size.
const TEXT_PIECE_BYTES: usize = 64 << 10;

impl Stream {
    /// Pins the snapshot.
    pub fn begin_download(&mut self, download: Download) -> Result<Begun, ServerError> {
        match download {
            Download::Dump { with_rowids } => {
                let connection = self.connection(Role::Reader).map_err(failed)?;
                connection.file.reads.set(Reads::Durable);
                let begin = "BEGIN; SELECT count(*) FROM sqlite_schema";
                connection.sql.execute_batch(begin).map_err(|error| failed(connection.explain(&error)))?;
                let checked = dump::check(&mut Rows { connection }, Options { pattern: None, with_rowids });
                if let Err(error) = checked {
                    let _ = connection.sql.execute_batch("ROLLBACK");
                    return Err(failed(error));
                }
                Ok(Begun::Dump { with_rowids })
            }
            Download::File => {
                let (file, bytes) = self.pin_file()?;
                Ok(Begun::File { file, bytes })
            }
            Download::Check { from } => {
                let (file, bytes) = self.pin_file()?;
                let end = bytes.min(from.saturating_add(CHECKED_BYTES));
                let begin = from - from % PAGE_BYTES as u64;
                let read = each_piece(&DatabaseFile(file.clone()), begin..end, |_| Ok(()));
                self.end_file(&file, read)?;
                Ok(Begun::Checked)
            }
        }
    }

    fn pin_file(&mut self) -> Result<(Rc<file::Connection>, u64), ServerError> {
        let file = file::Connection::new(self.database.clone());
        *self.running.borrow_mut() = Some(file.clone());
        let pages = DatabaseFile(file.clone());
        let pinned = pages.lock(ffi::SQLITE_LOCK_SHARED).and_then(|()| pages.size());
        let bytes = pinned.map_err(|code| cause_of(&file, code))?;
        self.saw(file.seen.get());
        Ok((file, bytes))
    }

    /// Sends all of it.
    pub fn finish_download(&mut self, begun: Begun) -> Result<(), ServerError> {
        match begun {
            Begun::Dump { with_rowids } => {
                let dumped = self.send_dump(with_rowids);
                if let Ok(connection) = self.connection(Role::Reader) {
                    let _ = connection.sql.execute_batch("ROLLBACK");
                }
                self.release();
                dumped
            }
            Begun::File { file, bytes } => {
                let pages = DatabaseFile(file.clone());
                let sent = each_piece(&pages, 0..bytes, |piece| send(&pages, piece));
                self.end_file(&file, sent)
            }
            Begun::Checked => Ok(()),
        }
    }

    fn end_file(&mut self, file: &Rc<file::Connection>, read: Result<(), Code>) -> Result<(), ServerError> {
        let outcome = read.map_err(|code| cause_of(file, code));
        let _ = DatabaseFile(file.clone()).unlock(ffi::SQLITE_LOCK_NONE);
        self.running.borrow_mut().take();
        outcome
    }

    fn send_dump(&mut self, with_rowids: bool) -> Result<(), ServerError> {
        let connection = self.connection(Role::Reader).map_err(failed)?;
        let mut pieces = Pieces::default();
        let mut source = Rows { connection };
        let options = Options { pattern: None, with_rowids };
        let dumped = dump::dump(&mut source, &mut pieces, options);
        // What was written of a dump that failed says why.
        let sent = pieces.flush().map_err(|_| connection.file.abandoned());
        dumped.map_err(failed).and(sent)
    }
}

fn failed(error: HranaError) -> ServerError {
    let fault = Fault::ALL.into_iter().find(|fault| fault.code() == error.code);
    let fault = fault.unwrap_or(if error.code == "SQLITE_CORRUPT" { Fault::Corrupt } else { Fault::Invalid });
    ServerError::new(fault, error.message)
}

fn cause_of(file: &file::Connection, code: Code) -> ServerError {
    file.take_cause().unwrap_or_else(|| ServerError::new(Fault::Corrupt, format!("a page cannot be read (code {})", code.0)))
}

/// Reads the bytes of a file, up to the end of a page each time.
fn each_piece(
    pages: &DatabaseFile,
    Range { start: mut offset, end }: Range<u64>,
    mut take: impl FnMut(Vec<u8>) -> Result<(), Code>,
) -> Result<(), Code> {
    while offset < end {
        let count = usize::try_from(end - offset).unwrap_or(usize::MAX).min(FILE_PIECE_BYTES);
        let mut piece = vec![0; count];
        if pages.read(&mut piece, offset)? != count {
            return Err(Code::IO_READ);
        }
        take(piece)?;
        offset += count as u64;
    }
    Ok(())
}

fn send(pages: &DatabaseFile, piece: Vec<u8>) -> Result<(), Code> {
    if matches!(suspend(Wait::Send(piece.into())), Wake::Ready) {
        return Ok(());
    }
    let _ = pages.0.take_cause();
    Err(Code::IO)
}

/// Reads rows where they are.
struct Rows<'c> {
    connection: &'c super::connection::SqlConnection,
}

impl Source for Rows<'_> {
    type Error = HranaError;

    fn rows(&mut self, sql: &str, each: EachRow<'_>) -> Result<(), HranaError> {
        let explain = |error: rusqlite::Error| self.connection.explain(&error);
        let mut statement = self.connection.sql.prepare(sql).map_err(explain)?;
        let width = statement.column_count();
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(explain)? {
            let values: Vec<ValueRef<'_>> = (0..width).map(|index| value(row.get_ref(index))).collect();
            each(&values).map_err(|_| HranaError::from(self.connection.file.abandoned()))?;
        }
        Ok(())
    }

    fn table_rows(&mut self, columns: &[String], from: &str, _: Encoding, each: EachRow<'_>) -> Result<(), HranaError> {
        self.rows(&format!("SELECT {} FROM {from}", columns.join(",")), each)
    }

    fn not_written(error: io::Error) -> HranaError {
        HranaError::new(Fault::Closed.code(), error.to_string())
    }

    fn impossible(why: String) -> HranaError {
        HranaError::fault(Fault::Invalid, why)
    }
}

/// Text on its way to the client.
#[derive(Default)]
struct Pieces {
    bytes: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() >= TEXT_PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.bytes);
        match piece.is_empty() || matches!(suspend(Wait::Send(piece.into())), Wake::Ready) {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone")),
        }
    }
}
