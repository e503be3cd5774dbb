//! How much memory SQLite holds for all databases of a node together.
//!
//! Each [`Meter`](super::memory::Meter) counts for itself, allocation by allocation; here it is summed up whenever a
//! statement yields or ends, so that cores do not fight over one counter. Beyond the bound nothing is refused: what
//! runs may go on, up to its own database's limit. But idle connections are closed then instead of kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts for a node.
#[derive(Debug)]
pub struct SqlSpace {
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl SqlSpace {
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), bytes_max })
    }

    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether idle connections have to give their memory back.
    pub fn is_full(&self) -> bool {
        self.bytes() > self.bytes_max
    }

    /// One database had `before` and has `now`.
    pub fn change(&self, before: usize, now: usize) {
        if now >= before {
            self.bytes.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(before - now, Ordering::Relaxed);
        }
    }
}
