//! The memory of one request: of its body while that comes, then of what is in it, and of what each part of that comes
//! to, until it is done and its answer is written.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use segments::cache::Loan;

use super::NodeContext;
use crate::limits;

/// What one request has borrowed. A small one has nothing.
pub struct BodyLoan {
    node: Arc<NodeContext>,
    loan: Option<Loan>,
}

impl BodyLoan {
    pub fn new(node: &Arc<NodeContext>) -> Self {
        Self { node: node.clone(), loan: None }
    }

    pub fn node(&self) -> &NodeContext {
        &self.node
    }

    pub fn bytes(&self) -> usize {
        self.loan.as_ref().map_or(0, Loan::bytes)
    }

    /// The most that one request may ever have.
    pub fn most_bytes(&self) -> usize {
        self.node.cache.lent_bytes_max()
    }

    /// The values are there, so many bytes, and the body is not any more.
    pub fn is_parsed(&mut self, bytes: usize) {
        self.set(bytes.min(self.bytes()));
    }

    /// From now on it has so many bytes, if there is room. All together have a part of what the node lends; one that is
    /// alone may have more.
    pub fn try_set(&mut self, bytes: usize) -> bool {
        let (before, node) = (self.bytes(), &self.node);
        let growth = bytes.saturating_sub(before);
        let others = node.body_bytes.fetch_add(growth, Ordering::Relaxed) - before;
        let share = node.cache.lent_bytes_max() / limits::BODIES_PART;
        let loan = self.loan.get_or_insert_with(|| node.cache.lend());
        let has_room = (others == 0 || others.saturating_add(bytes) <= share) && loan.try_set(bytes);
        if !has_room {
            node.body_bytes.fetch_sub(growth, Ordering::Relaxed);
        }
        has_room
    }

    /// No more than before.
    pub fn set(&mut self, bytes: usize) {
        if let Some(loan) = &mut self.loan {
            self.node.body_bytes.fetch_sub(loan.bytes() - bytes, Ordering::Relaxed);
            loan.set(bytes);
        }
    }
}

impl Drop for BodyLoan {
    fn drop(&mut self) {
        self.set(0);
    }
}
