//! Memory for what a moment of the past has beyond its base: the pages that the commits since then have changed. It is
//! counted while they are replayed, and then for as long as the moment is open.
//!
//! What is shown by URL has a bound: with the pages of replicas, and with what this node's own databases have not folded
//! at the time, it is what all overlays may take ([`OverlaySpace`]). Only what would come on top of other moments or
//! replicas is refused, so one can always be opened, as one transaction can always be had. A history has bases often
//! enough for a moment to be small ([`segments::limits::HISTORY_BASE_PAGES_MAX`]), unless one commit is larger.
//!
//! A fork or a restore waits for its turn instead, and is not refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pageserver::history::Room;
use segments::page::PAGE_BYTES;

use super::overlay_space::OverlaySpace;
use crate::context::NodeContext;

/// What one moment takes. Given back when it is dropped.
pub struct PastRoom {
    space: Arc<OverlaySpace>,
    /// Of what this node owns; `None`: it is not refused.
    own: Option<Arc<OverlaySpace>>,
    bytes: AtomicUsize,
}

impl PastRoom {
    /// For a moment that is to be shown.
    pub fn to_show(node: &NodeContext) -> Self {
        Self::new(node, Some(node.overlays.clone()))
    }

    /// For one that becomes a database.
    pub fn to_fork(node: &NodeContext) -> Self {
        Self::new(node, None)
    }

    fn new(node: &NodeContext, own: Option<Arc<OverlaySpace>>) -> Self {
        Self { space: node.replica_overlays.clone(), own, bytes: AtomicUsize::new(0) }
    }

    fn grow(&self, to: usize) -> bool {
        let from = self.bytes.load(Ordering::Relaxed);
        if to <= from {
            return true;
        }
        let has_grown = match &self.own {
            Some(own) => self.space.try_grow(from, to, own.bytes()),
            None => {
                self.space.add(to - from);
                true
            }
        };
        if has_grown {
            self.bytes.store(to, Ordering::Relaxed);
        }
        has_grown
    }
}

impl Room for PastRoom {
    fn take(&self, pages: usize) -> bool {
        self.grow(pages * PAGE_BYTES)
    }
}

impl Drop for PastRoom {
    fn drop(&mut self) {
        self.space.give_back(self.bytes.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(space: &Arc<OverlaySpace>, own: Option<&Arc<OverlaySpace>>) -> PastRoom {
        PastRoom { space: space.clone(), own: own.cloned(), bytes: AtomicUsize::new(0) }
    }

    #[test]
    fn one_always_fits_and_more_only_beside_what_is_not_folded() {
        let (space, own) = (OverlaySpace::new(100), OverlaySpace::new(100));
        let first = room(&space, Some(&own));
        assert!(first.grow(30) && first.grow(70));
        let second = room(&space, Some(&own));
        assert!(second.grow(20) && !second.grow(31) && second.grow(30));
        assert_eq!(space.bytes(), 100);
        drop(first);
        own.add(60);
        assert!(second.grow(200), "it is alone");
        assert!(!room(&space, Some(&own)).grow(1));
        let fork = room(&space, None);
        assert!(fork.grow(50));
        assert_eq!(space.bytes(), 250);
        drop((second, fork));
        let [one, other] = [0; 2].map(|_| room(&space, Some(&own)));
        assert!(one.grow(10) && other.grow(30) && !other.grow(31), "the owner's count");
        drop((one, other));
        assert_eq!(space.bytes(), 0);
    }
}
