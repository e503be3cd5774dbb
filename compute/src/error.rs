//! The error taxonomy of the whole server, in one place: every failure that isn't the SQL's own
//! is one of these seven, and each has one Hrana code and one HTTP status.
//!
//! | fault | what the client may conclude | code | HTTP |
//! |---|---|---|---|
//! | retry | nothing was done; the same request works once what is in its way has gone | `SHOAL_UNAVAILABLE` | 503, Retry-After |
//! | conflict | another writer came first; nothing was done; start over from what is there now | `SHOAL_CONFLICT` | 409 |
//! | fenced | this node lost the database; nothing was done; another node serves it | `SHOAL_FENCED` | 503, Retry-After |
//! | corrupt | bytes at rest failed their check; trying again won't help | `SHOAL_CORRUPT` | 500 |
//! | invalid | the request can't be served as it is written | `SHOAL_INVALID` | 400 |
//! | closed | what the request needed is shutting down; nothing was done | `SHOAL_CLOSED` | 503, Retry-After |
//! | indefinite | the write was sent and its outcome is unknown | `SHOAL_OUTCOME_UNKNOWN` | 500 |
//!
//! **Why *indefinite* is 500.** Whoever repeats such a write may do it twice, so no machine between
//! the application and us may do so on its own. Proxies and client libraries repeat 502, 503 and
//! 504 ("gateway errors") and 408 and 429 by common default; 409 and other 4xx would claim that
//! nothing happened. A plain 500 without Retry-After is outside those sets. Where possible an
//! indefinite outcome is not an HTTP error at all but an error inside a pipeline's 200, which only
//! the application sees. The message says to read before writing again.
//!
//! Which of them an error of the bucket is, [`crate::failure`] says.
//!
//! Conflicts that SQLite itself reports (`SQLITE_BUSY_SNAPSHOT`) keep SQLite's code, which ORMs
//! know; [`Fault::Conflict`] is for those that SQLite never sees, such as creating a database
//! that exists.

use http::StatusCode;

use crate::hrana::error::HranaError;
use crate::hrana::json::Object;

/// The class of a failure. See the module's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Retry,
    Conflict,
    Fenced,
    Corrupt,
    Invalid,
    Closed,
    Indefinite,
}

/// What `Retry-After` says, in seconds. A take-over waits for a lease of about 10 s at worst, but
/// nearly every other reason is gone within a second.
const RETRY_AFTER_SECONDS: u32 = 1;

impl Fault {
    pub const ALL: [Fault; 7] = [
        Fault::Retry,
        Fault::Conflict,
        Fault::Fenced,
        Fault::Corrupt,
        Fault::Invalid,
        Fault::Closed,
        Fault::Indefinite,
    ];

    /// The `code` of a Hrana error and of a JSON error body.
    pub fn code(self) -> &'static str {
        match self {
            Fault::Retry => "SHOAL_UNAVAILABLE",
            Fault::Conflict => "SHOAL_CONFLICT",
            Fault::Fenced => "SHOAL_FENCED",
            Fault::Corrupt => "SHOAL_CORRUPT",
            Fault::Invalid => "SHOAL_INVALID",
            Fault::Closed => "SHOAL_CLOSED",
            Fault::Indefinite => "SHOAL_OUTCOME_UNKNOWN",
        }
    }

    /// The status when the whole HTTP request fails.
    pub fn status(self) -> StatusCode {
        match self {
            Fault::Retry | Fault::Fenced | Fault::Closed => StatusCode::SERVICE_UNAVAILABLE,
            Fault::Conflict => StatusCode::CONFLICT,
            Fault::Invalid => StatusCode::BAD_REQUEST,
            Fault::Corrupt | Fault::Indefinite => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Seconds for a `Retry-After` header, for exactly those faults after which the same request
    /// may be repeated blindly.
    pub fn retry_after_seconds(self) -> Option<u32> {
        (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER_SECONDS)
    }
}

/// A failure that isn't the SQL's own: its class, and what happened and what to do, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ServerError {
    pub fault: Fault,
    pub message: String,
}

impl ServerError {
    pub fn new(fault: Fault, message: impl Into<String>) -> ServerError {
        ServerError { fault, message: message.into() }
    }

    /// As the answer to one request of a pipeline.
    pub fn into_hrana(self) -> HranaError {
        HranaError::fault(self.fault, self.message)
    }
}

/// The body of every HTTP answer that isn't 2xx, to be sent as `application/json`: JavaScript's
/// Hrana client reads `message` and `code`, while the tools around libSQL's server read `error`.
pub fn error_body(message: &str, code: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(2 * message.len() + code.len() + 40);
    Object::begin(&mut body).field("message", message).field("code", code).field("error", message).end();
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_so_that_a_code_names_its_fault() {
        let codes: std::collections::BTreeSet<_> = Fault::ALL.iter().map(|f| f.code()).collect();
        assert_eq!(codes.len(), Fault::ALL.len());
    }

    #[test]
    fn an_indefinite_outcome_never_carries_a_status_that_proxies_repeat() {
        let status = Fault::Indefinite.status().as_u16();
        assert!(![408, 425, 429, 502, 503, 504].contains(&status));
        assert!(status >= 500, "a 4xx would claim that nothing happened");
        assert_eq!(Fault::Indefinite.retry_after_seconds(), None);
    }

    #[test]
    fn retry_after_goes_with_503_and_only_with_it() {
        for fault in Fault::ALL {
            assert_eq!(fault.retry_after_seconds().is_some(), fault.status() == 503, "{fault:?}");
        }
    }

    #[test]
    fn an_error_body_serves_both_conventions() {
        let body = error_body("no \"x\"", "SHOAL_INVALID");
        assert_eq!(
            String::from_utf8(body).unwrap(),
            r#"{"message":"no \"x\"","code":"SHOAL_INVALID","error":"no \"x\""}"#
        );
    }
}
