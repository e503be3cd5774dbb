//! Hrana, the protocol of libSQL's clients, as pure functions over bytes: requests are parsed,
//! responses are written, conditions are evaluated and batons are sealed here. Nothing in this
//! module knows SQLite, HTTP connections, threads or time.
//!
//! | file | what |
//! |---|---|
//! | [`value`] | SQL values and their exact JSON |
//! | [`request`] | what clients send; tolerant of unknown fields, strict in what it does read |
//! | [`parts`] | how much memory that will take, seen before it is parsed |
//! | [`condition`] | when a step of a batch runs |
//! | [`result`], [`response`], [`cursor`] | what they get back |
//! | [`error`] | errors inside a 200 answer, and those that fail the whole request |
//! | [`baton`] | the sealed reference to a stream between two requests |
//! | [`json`] | the writer below all of them |
//!
//! Encoding is by hand into a `Vec<u8>`, because rows are by far the largest thing that passes:
//! they go from SQLite's memory into the response's bytes without anything in between.
//!
//! Differences between the versions: Hrana 3 has `get_autocommit`, the condition `is_autocommit`
//! and cursors; Hrana 2 requests that use them are refused as a whole.

pub mod baton;
pub mod condition;
pub mod cursor;
pub mod error;
pub mod json;
pub mod limits;
pub mod parts;
pub mod request;
pub mod response;
pub mod result;
pub mod value;

use std::fmt;

/// The protocol version of one request, from its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HranaVersion {
    Hrana2,
    Hrana3,
}

impl fmt::Display for HranaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HranaVersion::Hrana2 => "hrana2",
            HranaVersion::Hrana3 => "hrana3",
        })
    }
}
