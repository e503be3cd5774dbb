//! `.dump`: a [`Source`] that reads the database through the protocol.
//!
//! Rows come through a cursor, of any number. Each column is read as bytes where it is text (JSON
//! has no word for text that is no UTF-8), and beside the columns go *marks*, one letter each, that
//! tell its type and the sign of an infinite float:
//!
//! | mark | type | | mark | type |
//! |---|---|---|---|---|
//! | `n` | NULL | | `t` | TEXT |
//! | `i` | INTEGER | | `b` | BLOB |
//! | `r` | finite REAL | | `+`, `-` | +∞, -∞ |

use std::borrow::Cow;
use std::io::{self, Write};

use crate::cli::client::{Client, ClientError, RowSink};
use crate::cli::wire::{Cell, Step};
use crate::dump::{self, EachRow, Encoding, Options, Source};
use crate::hrana::value::ValueRef;

/// Marks that share one result column. Each `||` is a level of the expression's depth, and servers
/// limit that.
const MARKS_PER_COLUMN: usize = 100;

/// Prints the database, or the tables whose names are like `pattern` with what belongs to them.
pub fn dump(client: &mut Client, out: &mut dyn Write, pattern: Option<&str>) -> Result<(), ClientError> {
    let own_transaction = !client.in_transaction()?;
    if own_transaction {
        run(client, "BEGIN")?;
    }
    let outcome = dump::dump(&mut ByProtocol { client }, out, Options { pattern, with_rowids: false });
    if own_transaction {
        // It has read only; if it is gone already, that changes nothing.
        let _ = run(client, "ROLLBACK");
    }
    outcome
}

struct ByProtocol<'c> {
    client: &'c mut Client,
}

impl Source for ByProtocol<'_> {
    type Error = ClientError;

    fn rows(&mut self, sql: &str, each: EachRow<'_>) -> Result<(), ClientError> {
        self.client.stream_rows(sql, &mut Plain(each))
    }

    fn table_rows(
        &mut self,
        columns: &[String],
        from: &str,
        encoding: Encoding,
        each: EachRow<'_>,
    ) -> Result<(), ClientError> {
        let sql = format!("SELECT {} FROM {from}", exact_columns(columns));
        self.client.stream_rows(&sql, &mut Marked { each, column_count: columns.len(), encoding })
    }

    fn not_written(error: io::Error) -> ClientError {
        ClientError::Output(error)
    }

    fn impossible(why: String) -> ClientError {
        ClientError::NoDump(why)
    }
}

/// Hands rows on as they are.
struct Plain<'e>(EachRow<'e>);

impl RowSink for Plain<'_> {
    fn columns(&mut self, _: Vec<String>) -> io::Result<()> {
        Ok(())
    }

    fn row(&mut self, cells: Vec<Cell>) -> io::Result<()> {
        let values: Vec<ValueRef<'_>> = cells.iter().map(as_value).collect();
        (self.0)(&values)
    }
}

fn as_value(cell: &Cell) -> ValueRef<'_> {
    match cell {
        Cell::Null | Cell::Infinite => ValueRef::Null,
        Cell::Integer(integer) => ValueRef::Integer(*integer),
        Cell::Real(real) => ValueRef::Float(*real),
        Cell::Text(text) => ValueRef::Text(text.as_bytes()),
        Cell::Blob(blob) => ValueRef::Blob(blob),
    }
}

/// Puts rows and their marks together.
struct Marked<'e> {
    each: EachRow<'e>,
    column_count: usize,
    encoding: Encoding,
}

impl RowSink for Marked<'_> {
    fn columns(&mut self, _: Vec<String>) -> io::Result<()> {
        Ok(())
    }

    fn row(&mut self, cells: Vec<Cell>) -> io::Result<()> {
        let odd = || io::Error::new(io::ErrorKind::InvalidData, "the server's row doesn't fit its query");
        let (cells, marks) = cells.split_at_checked(self.column_count).ok_or_else(odd)?;
        let marks = marks.iter().flat_map(|mark| match mark {
            Cell::Blob(letters) => letters.as_slice(),
            _ => &[],
        });
        let texts: Vec<Cow<'_, [u8]>> = cells.iter().map(|cell| self.text(cell)).collect();
        let values = cells.iter().zip(&texts).zip(marks).map(|((cell, text), mark)| marked(cell, text, *mark));
        let values: Vec<ValueRef<'_>> = values.collect::<Option<_>>().ok_or_else(odd)?;
        if values.len() != self.column_count {
            return Err(odd());
        }
        (self.each)(&values)
    }
}

impl Marked<'_> {
    /// The bytes of a cell, should it be text, as UTF-8.
    fn text<'c>(&self, cell: &'c Cell) -> Cow<'c, [u8]> {
        let Cell::Blob(bytes) = cell else { return Cow::Borrowed(&[]) };
        let unit: fn([u8; 2]) -> u16 = match self.encoding {
            Encoding::Utf8 => return Cow::Borrowed(bytes),
            Encoding::Utf16Little => u16::from_le_bytes,
            Encoding::Utf16Big => u16::from_be_bytes,
        };
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
        Cow::Owned(String::from_utf16_lossy(&units).into_bytes())
    }
}

/// The value of a cell; nothing if the mark and the cell contradict each other.
fn marked<'c>(cell: &'c Cell, text: &'c [u8], mark: u8) -> Option<ValueRef<'c>> {
    Some(match (mark, cell) {
        (b'n', Cell::Null) => ValueRef::Null,
        (b'i', Cell::Integer(integer)) => ValueRef::Integer(*integer),
        (b'r', Cell::Real(real)) => ValueRef::Float(*real),
        (b'+', _) => ValueRef::Float(f64::INFINITY),
        (b'-', _) => ValueRef::Float(f64::NEG_INFINITY),
        (b't', Cell::Blob(_)) => ValueRef::Text(text),
        (b'b', Cell::Blob(blob)) => ValueRef::Blob(blob),
        _ => return None,
    })
}

/// The columns to select, exactly, and their marks.
fn exact_columns(columns: &[String]) -> String {
    let values = columns.iter().map(|c| format!("iif(typeof({c})='text',CAST({c} AS BLOB),{c})"));
    let marks = columns.chunks(MARKS_PER_COLUMN).map(|chunk| {
        let letters: Vec<String> = chunk.iter().map(|column| mark_of(column)).collect();
        // As a blob, because text may come with a collation or be changed on its way, bytes may not. Made of digits,
        // a mark is one byte whatever the encoding.
        format!("unhex({})", letters.join("||"))
    });
    values.chain(marks).collect::<Vec<_>>().join(",")
}

/// A column's mark, as the hexadecimal digits of its letter.
fn mark_of(column: &str) -> String {
    format!(
        "CASE typeof({column}) WHEN 'null' THEN '6E' WHEN 'integer' THEN '69' WHEN 'text' THEN '74' \
         WHEN 'blob' THEN '62' ELSE CASE {column} WHEN 9e999 THEN '2B' WHEN -9e999 THEN '2D' ELSE '72' END END"
    )
}

fn run(client: &mut Client, sql: &str) -> Result<(), ClientError> {
    client.batch(&[sql])?.into_iter().try_for_each(|step| match step {
        Step::Failed(error) => Err(error.into()),
        Step::Done(_) | Step::Skipped => Ok(()),
    })
}
