//! When each request came and when it was answered, for whoever wants to know what waited for what.
//!
//! Counters tell how many requests there were; only their times tell which of them were in sequence.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::class::{Class, Operation};
use crate::clock;

/// One request that has been answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    pub operation: Operation,
    pub class: Class,
    /// With the configured prefix, without percent-encoding; empty if the request named none. A listing's
    /// prefix is not in here.
    pub key: String,
    /// When its head had arrived, counted from when the journal began.
    pub began: Duration,
    /// When its answer was handed to the connection.
    pub ended: Duration,
    /// Absent if the connection was closed instead.
    pub status: Option<u16>,
}

/// Keeps nothing until it is begun.
#[derive(Debug, Default)]
pub(crate) struct Journal(Mutex<Option<Running>>);

#[derive(Debug)]
struct Running {
    since: Instant,
    entries: Vec<JournalEntry>,
}

/// What is known of a request when it arrives.
pub(crate) struct Arrival {
    pub operation: Operation,
    pub class: Class,
    pub key: String,
    pub at: Instant,
}

impl Journal {
    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.0.lock().expect("BUG: the journal panicked")
    }

    pub(crate) fn is_running(&self) -> bool {
        self.lock().is_some()
    }

    /// Begins anew, with nothing in it. Tells since when.
    pub(crate) fn begin(&self) -> Instant {
        let since = clock::now();
        *self.lock() = Some(Running { since, entries: Vec::new() });
        since
    }

    /// What was answered until now, in order of arrival. The journal ends.
    pub(crate) fn end(&self) -> Vec<JournalEntry> {
        let mut entries = self.lock().take().map_or_else(Vec::new, |running| running.entries);
        entries.sort_by_key(|entry| entry.began);
        entries
    }

    /// A request that had arrived before the journal began counts from its beginning.
    pub(crate) fn answered(&self, arrival: Arrival, status: Option<u16>) {
        let ended = clock::now();
        let mut running = self.lock();
        let Some(running) = running.as_mut() else { return };
        let Arrival { operation, class, key, at } = arrival;
        let since = |moment: Instant| moment.saturating_duration_since(running.since);
        let (began, ended) = (since(at), since(ended));
        running.entries.push(JournalEntry { operation, class, key, began, ended, status });
    }
}
