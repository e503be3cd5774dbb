//! How much of the local disk temporary files take: a bound for the node, and a share of it for each database.
//!
//! The node's cores count into one place. A file is charged before it grows and credited when it shrinks or is
//! closed, so the sum is never below what is on the disk.

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

/// What the temporary files of one database have on disk.
#[derive(Debug)]
pub struct TempShare {
    node: Arc<TempSpace>,
    bytes: AtomicU64,
    refusal: Mutex<Option<String>>,
}

impl TempShare {
    /// Counts `bytes` more, unless they would be too many; then [`TempShare::take_refusal`] says of what.
    pub fn charge(&self, bytes: u64) -> bool {
        let share_max = self.node.bytes_max / limits::TEMP_SHARE;
        if !add_up_to(&self.bytes, bytes, share_max) {
            self.refuse(format!(
                "the temporary files of this database (sorts, large intermediate results, VACUUM) would take more \
                 than {share_max} bytes of disk, which is 1/{} of the server's --cache-size",
                limits::TEMP_SHARE * limits::TEMP_PART
            ));
            return false;
        }
        if !add_up_to(&self.node.bytes, bytes, self.node.bytes_max) {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.refuse(format!(
                "the temporary files of all databases (sorts, large intermediate results, VACUUM) would take more \
                 than {} bytes of disk, which is 1/{} of the server's --cache-size; try again when others are done",
                self.node.bytes_max,
                limits::TEMP_PART
            ));
            return false;
        }
        true
    }

    pub fn credit(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.node.bytes.fetch_sub(bytes, Ordering::Relaxed);
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
        assert!(!shares[0].charge(501));
        assert!(shares[0].take_refusal().expect("a reason").contains("1/4 of the server's --cache-size"));
        assert_eq!(node.bytes(), 0, "what was refused is not counted");
        for share in &shares[..2] {
            assert!(share.charge(450) && share.charge(50) && share.take_refusal().is_none());
        }
        assert_eq!(node.bytes(), 1000);
        assert!(!shares[4].charge(1));
        assert!(shares[4].take_refusal().expect("a reason").contains("which is 1/2 of the server's --cache-size"));
        shares[0].credit(250);
        assert!(shares[4].charge(250), "the refused byte is not kept against it");
        assert!(!shares[4].charge(u64::MAX), "no overflow");
        assert_eq!(node.bytes(), 1000);
    }
}
