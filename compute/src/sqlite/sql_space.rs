//! How much memory SQLite holds for all databases of a node together.
//!
//! Each [`Meter`](super::memory::Meter) counts for itself, allocation by allocation; here it is summed up whenever a
//! statement yields or ends, or has taken much more, so that cores do not fight over one counter.
//!
//! ```text
//!   0 ───────────── full ───────────────────────── the node's memory is lent
//!     connections    idle ones are closed,          a database that has more than
//!     are kept       new ones cache little          a little gets no more
//! ```

use std::sync::Arc;

use segments::cache::Loan;

use crate::lent::LentBytes;

/// Counts for a node.
#[derive(Debug)]
pub struct SqlSpace {
    held: LentBytes,
    bytes_max: usize,
}

impl SqlSpace {
    /// Full beyond `bytes_max`. With a loan, memory of all kinds together has a bound.
    pub fn new(bytes_max: usize, loan: Option<Loan>) -> Arc<Self> {
        Arc::new(Self { held: LentBytes::new(loan), bytes_max })
    }

    pub fn bytes(&self) -> usize {
        self.held.bytes()
    }

    /// What is lent for it.
    pub fn lent(&self) -> usize {
        self.held.lent()
    }

    /// Whether idle connections have to give their memory back.
    pub fn is_full(&self) -> bool {
        self.bytes() > self.bytes_max
    }

    /// One database had `before` and has `now`.
    pub fn change(&self, before: usize, now: usize) {
        if now >= before {
            self.held.add(now - before);
        } else {
            self.held.give_back(before - now);
        }
    }

    /// One database has so much more, if the node has room for it.
    pub fn try_grow(&self, bytes: usize) -> bool {
        self.held.try_add(bytes)
    }
}
