//! Errors in Hrana's form.
//!
//! There are two kinds. [`HranaError`] belongs to one statement or one request of a pipeline: it
//! travels inside an HTTP 200, and what follows it still runs. [`ProtocolError`] is a request that
//! a correct client never sends: it fails the whole HTTP request with status 400, and the stream
//! is closed.
//!
//! # Codes of SQL errors
//! Clients and ORMs compare `code`, so it is what libSQL's server would send: the name of SQLite's
//! *primary* result code, except that result code 1 (`SQLITE_ERROR`, any mistake in the SQL) is
//! split in three:
//! - `SQL_PARSE_ERROR` if SQLite's parser gave up: the text is not SQL;
//! - `SQL_INPUT_ERROR` if SQLite knows the place of the error in the text (an unknown column or
//!   function), which the message then ends with;
//! - `SQLITE_UNKNOWN` otherwise, which includes "no such table".
//!
//! The extended code, where it says more to a program (which constraint failed), is in a field of
//! its own, `extended_code`, that older clients ignore.

use std::borrow::Cow;

use crate::error::Fault;

use super::HranaVersion;
use super::json::{Object, WriteJson};
use super::limits::{JSON_ERROR_CHARS_MAX, SQL_ERROR_CHARS_MAX};

/// An error inside a pipeline's results, a batch's steps or a cursor's entries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct HranaError {
    pub message: String,
    pub code: &'static str,
    pub extended_code: Option<&'static str>,
}

impl HranaError {
    pub fn new(code: &'static str, message: impl Into<String>) -> HranaError {
        HranaError { message: message.into(), code, extended_code: None }
    }

    /// An error that SQLite returned: its (extended) result code, its message, and the byte offset
    /// in the SQL text where it happened, if SQLite knows one.
    pub fn sqlite(result_code: i32, message: &str, offset: Option<usize>) -> HranaError {
        let primary = result_code & 0xff;
        let message = &shorten(message, SQL_ERROR_CHARS_MAX);
        if primary == SQLITE_ERROR && is_syntax_error(message) {
            return HranaError::sql_parse(&with_offset(message, offset));
        }
        if primary == SQLITE_ERROR && offset.is_some() {
            let message = format!("SQL input error: {}", with_offset(message, offset));
            return HranaError::new("SQL_INPUT_ERROR", message);
        }
        HranaError {
            message: format!("SQLite error: {message}"),
            code: sqlite_code(primary),
            extended_code: sqlite_extended_code(result_code),
        }
    }

    pub fn sql_parse(detail: &str) -> HranaError {
        HranaError::new("SQL_PARSE_ERROR", format!("SQL string could not be parsed: {detail}"))
    }

    pub fn no_statement() -> HranaError {
        HranaError::new("SQL_NO_STATEMENT", "SQL string does not contain any statement")
    }

    pub fn many_statements() -> HranaError {
        HranaError::new("SQL_MANY_STATEMENTS", "SQL string contains more than one statement")
    }

    pub fn args_invalid(detail: &str) -> HranaError {
        let message = format!("Arguments do not match SQL parameters: {detail}");
        HranaError::new("ARGS_INVALID", message)
    }

    pub fn args_both_positional_and_named() -> HranaError {
        HranaError::new(
            "ARGS_BOTH_POSITIONAL_AND_NAMED",
            "Specifying both positional and named arguments is not supported",
        )
    }

    /// The transaction was idle or long while others waited for it, and was rolled back.
    /// A statement failed in a way that ended its transaction; this one was to run inside of it.
    pub fn transaction_aborted() -> HranaError {
        let message = "Not run: an earlier statement of this request failed and its transaction was rolled back";
        HranaError::new("TRANSACTION_ABORTED", message)
    }

    pub fn transaction_timeout() -> HranaError {
        HranaError::new("TRANSACTION_TIMEOUT", "Transaction timed out")
    }

    /// Too many transactions wait already.
    pub fn transaction_busy() -> HranaError {
        HranaError::new("TRANSACTION_BUSY", "Server cannot handle additional transactions")
    }

    /// Refused by policy: a quota, a statement that isn't allowed, a blocked database.
    pub fn blocked(reason: &str) -> HranaError {
        HranaError::new("BLOCKED", format!("Operation was blocked: {reason}"))
    }

    pub fn response_too_large(bytes_max: u64) -> HranaError {
        let message = format!(
            "Response is too large: more than {bytes_max} bytes. Read it in parts (LIMIT), or through a cursor"
        );
        HranaError::new("RESPONSE_TOO_LARGE", message)
    }

    pub fn sql_store_too_many(count: usize) -> HranaError {
        let message = format!("The server already stores {count} SQL texts, it cannot store more");
        HranaError::new("SQL_STORE_TOO_MANY", message)
    }

    pub fn sql_store_too_large(bytes: usize, bytes_max: usize) -> HranaError {
        let message = format!("The statement is too large to be stored: {bytes} of {bytes_max} bytes");
        HranaError::new("SQL_STORE_TOO_LARGE", message)
    }

    /// A failure that isn't the SQL's: see [`Fault`] for what the client may conclude.
    pub fn fault(fault: Fault, message: impl Into<String>) -> HranaError {
        HranaError::new(fault.code(), message)
    }
}

impl WriteJson for HranaError {
    fn write_json(&self, out: &mut Vec<u8>) {
        Object::begin(out)
            .field("message", &self.message)
            .field("code", self.code)
            .field_if_some("extended_code", self.extended_code)
            .end();
    }
}

const SQLITE_ERROR: i32 = 1;

/// What SQLite's parser and tokenizer say when the text is not SQL at all.
fn is_syntax_error(message: &str) -> bool {
    message.ends_with(": syntax error") || message == "incomplete input" || message.starts_with("unrecognized token: ")
}

fn with_offset(message: &str, offset: Option<usize>) -> Cow<'_, str> {
    match offset {
        Some(offset) => format!("{message} (at offset {offset})").into(),
        None => message.into(),
    }
}

/// The name of one of SQLite's primary result codes.
pub fn sqlite_code(primary: i32) -> &'static str {
    match primary {
        2 => "SQLITE_INTERNAL",
        3 => "SQLITE_PERM",
        4 => "SQLITE_ABORT",
        5 => "SQLITE_BUSY",
        6 => "SQLITE_LOCKED",
        7 => "SQLITE_NOMEM",
        8 => "SQLITE_READONLY",
        9 => "SQLITE_INTERRUPT",
        10 => "SQLITE_IOERR",
        11 => "SQLITE_CORRUPT",
        12 => "SQLITE_NOTFOUND",
        13 => "SQLITE_FULL",
        14 => "SQLITE_CANTOPEN",
        15 => "SQLITE_PROTOCOL",
        17 => "SQLITE_SCHEMA",
        18 => "SQLITE_TOOBIG",
        19 => "SQLITE_CONSTRAINT",
        20 => "SQLITE_MISMATCH",
        21 => "SQLITE_MISUSE",
        22 => "SQLITE_NOLFS",
        23 => "SQLITE_AUTH",
        25 => "SQLITE_RANGE",
        26 => "SQLITE_NOTADB",
        _ => "SQLITE_UNKNOWN",
    }
}

/// The name of an extended result code, for those that a program acts on: which constraint
/// failed, and the busy code that means "start the transaction again" instead of "wait".
pub fn sqlite_extended_code(extended: i32) -> Option<&'static str> {
    Some(match extended {
        517 => "SQLITE_BUSY_SNAPSHOT",
        275 => "SQLITE_CONSTRAINT_CHECK",
        531 => "SQLITE_CONSTRAINT_COMMITHOOK",
        787 => "SQLITE_CONSTRAINT_FOREIGNKEY",
        1043 => "SQLITE_CONSTRAINT_FUNCTION",
        1299 => "SQLITE_CONSTRAINT_NOTNULL",
        1555 => "SQLITE_CONSTRAINT_PRIMARYKEY",
        1811 => "SQLITE_CONSTRAINT_TRIGGER",
        2067 => "SQLITE_CONSTRAINT_UNIQUE",
        2323 => "SQLITE_CONSTRAINT_VTAB",
        2579 => "SQLITE_CONSTRAINT_ROWID",
        2835 => "SQLITE_CONSTRAINT_PINNED",
        3091 => "SQLITE_CONSTRAINT_DATATYPE",
        _ => return None,
    })
}

/// A request that no correct client sends. The whole HTTP request fails with status 400, the
/// message as its body's `message`, [`ProtocolError::code`] as its `code`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    #[error("Cannot deserialize client message from JSON: {detail}")]
    Json { detail: String },
    #[error("Received an invalid baton")]
    BatonInvalid,
    #[error("Received a baton that has already been used")]
    BatonReused,
    #[error("The stream has expired due to inactivity")]
    StreamExpired,
    #[error("Stream for this baton was closed")]
    StreamClosed,
    #[error("Either `sql` or `sql_id` are required")]
    SqlMissing,
    #[error("Either `sql` or `sql_id` are required, but not both")]
    SqlAndSqlId,
    #[error("SQL text {sql_id} not found")]
    SqlTextNotFound { sql_id: i32 },
    #[error("SQL text {sql_id} already exists")]
    SqlTextExists { sql_id: i32 },
    #[error("Invalid reference to step in a batch condition")]
    ConditionStep,
    #[error("{what} is only supported in protocol version {minimum} and higher")]
    Version { what: &'static str, minimum: HranaVersion },
}

impl ProtocolError {
    /// `STREAM_EXPIRED` is the one code that clients look for; the rest are one class to them.
    pub fn code(&self) -> &'static str {
        match self {
            ProtocolError::StreamExpired => "STREAM_EXPIRED",
            _ => "HRANA_PROTOCOL_ERROR",
        }
    }
}

impl From<serde_json::Error> for ProtocolError {
    fn from(error: serde_json::Error) -> ProtocolError {
        ProtocolError::Json { detail: shorten(&error.to_string(), JSON_ERROR_CHARS_MAX) }
    }
}

/// The text itself, or its beginning and end if it is longer than `chars_max` characters. (The
/// parser's messages end with line and column.)
pub(crate) fn shorten(text: &str, chars_max: usize) -> String {
    let half = chars_max / 2;
    match (text.char_indices().nth(half), text.char_indices().nth_back(half)) {
        (Some((head, _)), Some((tail, _))) if text.len() > 4 * chars_max || text.chars().count() > chars_max => {
            format!("{}…{}", &text[..head], &text[tail..])
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
