//! How a body names a moment, and how an answer does.
//!
//! | field | what |
//! |---|---|
//! | `timestamp` | a time as in RFC 3339; without an offset it is UTC, as libSQL's server has it |
//! | `lsn` | a number |
//! | `bookmark` | `<database id>-<lsn>` |

use axum::response::Response;

use super::bodies::invalid;
use crate::moment::{Moment, parse_time};

/// At most one of them is given.
#[derive(Debug, Default)]
pub struct At {
    timestamp: Option<String>,
    lsn: Option<u64>,
    bookmark: Option<String>,
}

impl At {
    pub fn new(timestamp: Option<String>, lsn: Option<u64>, bookmark: Option<String>) -> Self {
        Self { timestamp, lsn, bookmark }
    }

    /// The moment, if one is given.
    pub fn moment(&self) -> Result<Option<Moment>, Box<Response>> {
        let Self { timestamp, lsn, bookmark } = self;
        let moment = match (timestamp, lsn, bookmark) {
            (None, None, None) => return Ok(None),
            (Some(text), None, None) => parse_time(text).map(Moment::Time),
            (None, Some(lsn), None) => Moment::parse(&lsn.to_string()),
            (None, None, Some(text)) => match Moment::parse(text) {
                Ok(bookmark @ Moment::Bookmark { .. }) => Ok(bookmark),
                Ok(_) => return Err(invalid(&format!("`{}` is no bookmark: those are <database id>-<lsn>", text.escape_default()))),
                Err(error) => Err(error),
            },
            _ => return Err(invalid("give one of `timestamp`, `lsn` and `bookmark`, not two")),
        };
        moment.map(Some).map_err(|error| invalid(&error.to_string()))
    }
}
