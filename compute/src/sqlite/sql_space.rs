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
//!
//! It is full as well when there is little left to lend, whoever has it. And nobody gets all of it: a database may grow
//! to three times what is left then, so that each leaves some of it to the next one.

use std::sync::Arc;

use segments::cache::PageCache;

use crate::lent::LentBytes;
use crate::limits;

/// Counts for a node.
#[derive(Debug)]
pub struct SqlSpace {
    held: LentBytes,
    bytes_max: usize,
    /// `None`: memory of all kinds together has no bound.
    lender: Option<PageCache>,
}

impl SqlSpace {
    /// Full beyond `bytes_max`, or when `lender` has little left.
    pub fn new(bytes_max: usize, lender: Option<PageCache>) -> Arc<Self> {
        Arc::new(Self { held: LentBytes::new(lender.as_ref().map(PageCache::lend)), bytes_max, lender })
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
        let is_scarce = |lender: &PageCache| lender.left_to_lend() < lender.lent_bytes_max() / limits::SCARCE_PART;
        self.bytes() > self.bytes_max || self.lender.as_ref().is_some_and(is_scarce)
    }

    /// One database had `before` and has `now`.
    pub fn change(&self, before: usize, now: usize) {
        if now >= before {
            self.held.add(now - before);
        } else {
            self.held.give_back(before - now);
        }
    }

    /// One database has `before` and wants `now`, which is more: it has that if it may.
    pub fn try_grow(&self, before: usize, now: usize) -> bool {
        let growth = now.saturating_sub(before);
        let left = self.lender.as_ref().map_or(usize::MAX, PageCache::left_to_lend);
        let leaves_some = left.checked_sub(growth).is_some_and(|left| now / limits::SQL_TIMES_WHAT_IS_LEFT <= left);
        leaves_some && self.held.try_add(growth)
    }
}
