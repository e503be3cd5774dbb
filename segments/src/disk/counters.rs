//! What a disk cache has done.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counts since the cache was opened.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The same, while they are counted.
        #[derive(Debug, Default)]
        pub(super) struct Counting {
            $(pub $name: AtomicU64,)*
        }

        impl Counting {
            pub fn read(&self) -> Counters {
                Counters { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Look-ups that were answered.
    hits,
    /// Look-ups that were not, for whatever reason.
    misses,
    /// Slots that did not hold what the index said.
    damaged,
    /// Entries that were put in.
    puts,
    /// Entries that were not taken, because the disk fails or is behind.
    refused,
    /// Reads from the file, those of scans and evictions too.
    reads,
    bytes_read,
    reads_failed,
    /// Writes to the file, each of a batch.
    writes,
    bytes_written,
    writes_failed,
    /// Regions whose content went to make room.
    regions_evicted,
    /// Entries that were put in again when their region went, because they had been read.
    entries_kept,
    /// Entries that were found in the file at the start.
    entries_found,
}

pub(super) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}
