//! How much of the local disk temporary files take: a bound for the node, and a share of it for each database.
//!
//! The node's cores count into one place. A file is charged before it grows and credited when it shrinks or is
//! closed, so the sum is never below what is on the disk.
//!
//! Journals, which roll a transaction or a statement back, have no share of their own: how large they get is bounded by
//! what a transaction may write. They count for the node.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::limits;

/// What the temporary files of all databases together have on disk, in bytes.
#[derive(Debug)]
pub struct TempSpace {
    bytes: AtomicU64,
    bytes_max: u64,
}

impl TempSpace {
    pub fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicU64::new(0), bytes_max })
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The account of one more database.
    pub fn share(self: &Arc<Self>) -> TempShare {
        TempShare { node: self.clone(), bytes: AtomicU64::new(0), refusal: Mutex::default() }
    }
}

/// What a temporary file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A sort, an intermediate result, the copy that VACUUM makes.
    Statement,
    /// To roll back.
    Journal,
}

/// What the temporary files of one database have on disk.
#[derive(Debug)]
pub struct TempShare {
    node: Arc<TempSpace>,
    /// Without journals.
    bytes: AtomicU64,
    refusal: Mutex<Option<String>>,
}

impl TempShare {
    /// Counts `bytes` more, unless they would be too many; then [`TempShare::take_refusal`] says of what.
    pub fn charge(&self, of: Use, bytes: u64) -> bool {
        let share_max = self.node.bytes_max / limits::TEMP_SHARE;
        if of == Use::Statement && !add_up_to(&self.bytes, bytes, share_max) {
            self.refuse(format!(
                "the temporary files of this database (sorts, large intermediate results, VACUUM) would take more \
                 than {share_max} bytes of disk, which is 1/{} of the server's --cache-size",
                limits::TEMP_SHARE * limits::TEMP_PART
            ));
            return false;
        }
        if !add_up_to(&self.node.bytes, bytes, self.node.bytes_max) {
            if of == Use::Statement {
                self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            }
            self.refuse(format!(
                "the temporary files of all databases (sorts, large intermediate results, VACUUM, what would roll large \
                 transactions back) would take more than {} bytes of disk, which is 1/{} of the server's --cache-size; \
                 try again when others are done",
                self.node.bytes_max,
                limits::TEMP_PART
            ));
            return false;
        }
        true
    }

    pub fn credit(&self, of: Use, bytes: u64) {
        if of == Use::Statement {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.node.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A temporary file cannot be made or written.
    pub fn has_failed(&self, error: &std::io::Error) {
        self.refuse(format!(
            "the server cannot write a temporary file (for sorts, large intermediate results, or to roll back) to its \
             disk: {error}"
        ));
    }

    fn refuse(&self, why: String) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    /// Why the last charge was refused, for the statement that has failed of it.
    pub fn take_refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Adds, unless the sum would be over `max`.
fn add_up_to(sum: &AtomicU64, bytes: u64, max: u64) -> bool {
    let add = |before: u64| before.checked_add(bytes).filter(|after| *after <= max);
    sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_gets_its_share_and_the_node_its_bound_and_what_is_given_back_is_free() {
        let node = TempSpace::new(1000);
        let shares: Vec<TempShare> = (0..5).map(|_| node.share()).collect();
        assert!(!shares[0].charge(Use::Statement, 501));
        assert!(shares[0].take_refusal().expect("a reason").contains("1/4 of the server's --cache-size"));
        assert_eq!(node.bytes(), 0, "what was refused is not counted");
        for share in &shares[..2] {
            assert!(share.charge(Use::Statement, 450) && share.charge(Use::Statement, 50) && share.take_refusal().is_none());
        }
        assert_eq!(node.bytes(), 1000);
        assert!(!shares[4].charge(Use::Statement, 1));
        assert!(shares[4].take_refusal().expect("a reason").contains("which is 1/2 of the server's --cache-size"));
        shares[0].credit(Use::Statement, 250);
        assert!(shares[4].charge(Use::Statement, 250), "the refused byte is not kept against it");
        assert!(!shares[4].charge(Use::Statement, u64::MAX), "no overflow");
        assert_eq!(node.bytes(), 1000);
    }

    #[test]
    fn a_journal_may_take_more_than_a_share_and_no_sort_less_for_it() {
        let node = TempSpace::new(1000);
        let share = node.share();
        assert!(share.charge(Use::Journal, 400) && share.charge(Use::Statement, 500) && share.charge(Use::Journal, 100));
        assert!(!share.charge(Use::Journal, 1));
        assert!(share.take_refusal().expect("a reason").contains("which is 1/2 of the server's --cache-size"));
        share.credit(Use::Statement, 500);
        assert!(share.charge(Use::Journal, 500) && !share.charge(Use::Statement, 1));
        share.credit(Use::Journal, 1000);
        assert!(share.charge(Use::Statement, 500) && !share.charge(Use::Statement, 1));
        assert_eq!(node.bytes(), 500);
    }
}
