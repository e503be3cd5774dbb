//! What a [`FaultyStore`](super::FaultyStore) tells of each request: one line when the request takes effect, or when it
//! turns out that it does not.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::{Answer, Fault};
use crate::store::{Op, Put, StoreError, StoreErrorKind};

/// Receives the lines in the order of their effects. It must not block or call the store.
pub type Trace = Arc<dyn Fn(&TraceLine) + Send + Sync>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceLine {
    pub at_boot_micros: u64,
    /// Requests count from 0 in the order in which they were made; a duplicate has its original's number.
    pub request: u64,
    pub op: Op,
    /// The key, or the prefix of a listing.
    pub key: String,
    /// What a write carries. Not in the line's text.
    pub body: Option<Bytes>,
    pub effect: Effect,
    pub fault: Option<Fault>,
}

/// What a request did at the store, whatever its caller hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It never arrived, or was turned away.
    None,
    Found {
        bytes: usize,
    },
    Absent,
    Written,
    Refused,
    Deleted,
    Listed {
        keys: usize,
    },
    Failed(StoreErrorKind),
}

impl Effect {
    pub(super) fn of(result: &Result<Answer, StoreError>) -> Self {
        match result {
            Ok(Answer::Object(Some(object))) => Self::Found { bytes: object.bytes.len() },
            Ok(Answer::Object(None)) => Self::Absent,
            Ok(Answer::Put(Put::Done(_))) => Self::Written,
            Ok(Answer::Put(Put::Refused)) => Self::Refused,
            Ok(Answer::Deleted) => Self::Deleted,
            Ok(Answer::Keys(keys)) => Self::Listed { keys: keys.len() },
            Err(error) => Self::Failed(error.kind),
        }
    }
}

impl fmt::Display for TraceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at_boot_micros, request, op, key, effect, .. } = self;
        write!(f, "{at_boot_micros} #{request} {op} {key}: {effect:?}")?;
        match self.fault {
            Some(fault) => write!(f, " ({fault:?})"),
            None => Ok(()),
        }
    }
}
