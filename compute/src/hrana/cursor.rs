//! The answer to `POST …/v3/cursor`: lines of JSON, written while the batch runs.
//!
//! The first line is [`CursorResponseBody`]; each further line is one entry. A step that ran is
//! `step_begin`, any number of `row`, and `step_end` or `step_error`; a step that was skipped has
//! no entry; a step that failed before its first row may be a lone `step_error`. The last line is
//! `replication_index` if the batch came to its end, `error` if it didn't. A body that ends with
//! neither was cut off, and clients treat it so.
//!
//! Here numbers are numbers: `last_insert_rowid` and `replication_index` are *strings* in a
//! pipeline's results and JSON numbers in a cursor's entries, as clients of each expect.

use super::error::HranaError;
use super::json::{Object, WriteJson};
use super::result::{Col, write_row};
use super::value::ValueRef;

/// The first line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CursorResponseBody {
    pub baton: Option<String>,
    pub base_url: Option<String>,
}

/// Every line after the first except rows, which [`write_row_line`] takes straight from SQLite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CursorEntry {
    StepBegin {
        step: u32,
        cols: Vec<Col>,
    },
    StepEnd {
        affected_row_count: u64,
        last_insert_rowid: Option<i64>,
    },
    StepError {
        step: u32,
        error: HranaError,
    },
    /// The batch as a whole failed; the last line.
    Error {
        error: HranaError,
    },
    /// The batch came to its end; the last line.
    ReplicationIndex {
        replication_index: Option<u64>,
    },
}

/// Writes `line` and a newline. (Newlines inside strings are escaped by JSON.)
pub fn write_line(out: &mut Vec<u8>, line: &impl WriteJson) {
    line.write_json(out);
    out.push(b'\n');
}

/// Writes a `row` entry and a newline.
pub fn write_row_line<'v>(out: &mut Vec<u8>, values: impl IntoIterator<Item = ValueRef<'v>>) {
    out.extend_from_slice(br#"{"type":"row","row":"#);
    write_row(out, values);
    out.extend_from_slice(b"}\n");
}

impl WriteJson for CursorResponseBody {
    fn write_json(&self, out: &mut Vec<u8>) {
        Object::begin(out).field("baton", &self.baton).field("base_url", &self.base_url).end();
    }
}

impl WriteJson for CursorEntry {
    fn write_json(&self, out: &mut Vec<u8>) {
        let object = Object::begin(out);
        match self {
            CursorEntry::StepBegin { step, cols } => {
                object.field("type", "step_begin").field("step", step).field("cols", cols).end();
            }
            CursorEntry::StepEnd { affected_row_count, last_insert_rowid } => object
                .field("type", "step_end")
                .field("affected_row_count", affected_row_count)
                .field("last_insert_rowid", last_insert_rowid)
                .end(),
            CursorEntry::StepError { step, error } => {
                object.field("type", "step_error").field("step", step).field("error", error).end();
            }
            CursorEntry::Error { error } => {
                object.field("type", "error").field("error", error).end();
            }
            CursorEntry::ReplicationIndex { replication_index } => {
                object.field("type", "replication_index").field("replication_index", replication_index).end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_cursor_reads_as_the_protocol_says() {
        let col = Col { name: Some("x".into()), decltype: Some("INT".into()) };
        let error = HranaError::sqlite(2067, "UNIQUE constraint failed: t.x", None);
        let mut out = Vec::new();
        write_line(&mut out, &CursorResponseBody { baton: Some("b".into()), base_url: None });
        write_line(&mut out, &CursorEntry::StepBegin { step: 0, cols: vec![col] });
        write_row_line(&mut out, [ValueRef::Integer(42), ValueRef::Text(b"a\nb")]);
        write_row_line(&mut out, []);
        write_line(&mut out, &CursorEntry::StepEnd { affected_row_count: 1, last_insert_rowid: Some(i64::MIN) });
        write_line(&mut out, &CursorEntry::StepError { step: 2, error: error.clone() });
        write_line(&mut out, &CursorEntry::StepEnd { affected_row_count: 0, last_insert_rowid: None });
        write_line(&mut out, &CursorEntry::ReplicationIndex { replication_index: Some(7) });
        write_line(&mut out, &CursorEntry::ReplicationIndex { replication_index: None });
        write_line(&mut out, &CursorEntry::Error { error });
        let expected = r#"{"baton":"b","base_url":null}
{"type":"step_begin","step":0,"cols":[{"name":"x","decltype":"INT"}]}
{"type":"row","row":[{"type":"integer","value":"42"},{"type":"text","value":"a\nb"}]}
{"type":"row","row":[]}
{"type":"step_end","affected_row_count":1,"last_insert_rowid":-9223372036854775808}
{"type":"step_error","step":2,"error":{"message":"SQLite error: UNIQUE constraint failed: t.x","code":"SQLITE_CONSTRAINT","extended_code":"SQLITE_CONSTRAINT_UNIQUE"}}
{"type":"step_end","affected_row_count":0,"last_insert_rowid":null}
{"type":"replication_index","replication_index":7}
{"type":"replication_index","replication_index":null}
{"type":"error","error":{"message":"SQLite error: UNIQUE constraint failed: t.x","code":"SQLITE_CONSTRAINT","extended_code":"SQLITE_CONSTRAINT_UNIQUE"}}
"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
