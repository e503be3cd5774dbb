//! One node's log: group commit over all of its databases.
//!
//! [`core`] decides (`pace`: when a batch closes; `queue` and `bucket`: what is in it; `unfolded`: which slots may
//! go), [`run`] talks to the store (`slot_put`: until a slot decides; [`crate::hedge`]: when a PUT is sent twice;
//! `side`: what is stored before it is in a slot; `refusals`: when a store that refuses is given up). A [`LogHandle`] is
//! what the rest of the node holds.

mod bucket;
pub mod core;
mod driver;
mod pace;
mod queue;
mod refusals;
pub(crate) mod side;
mod slot_put;
mod unfolded;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};

pub use self::core::{Acknowledged, Commit};
pub use driver::run;

use self::refusals::Refusals;
use crate::hedge::Hedging;
use crate::id::{DatabaseId, Lsn, Slot};

/// Told what became of commits. Called on the I/O runtime; must not block.
pub trait LogSink: Send + Sync + 'static {
    fn durable(&self, commits: Vec<Acknowledged>);
    /// The log has ended. Commits that were not reported durable by now are *indefinite*.
    fn fenced(&self, reason: &str);
}

enum Command {
    Append(Commit),
    Folded(DatabaseId, Lsn),
    Fence(String),
    Drain(oneshot::Sender<()>),
}

/// What other tasks may know of the log without asking it.
#[derive(Default)]
struct Shared {
    backlog_bytes: AtomicUsize,
    /// `boot_micros` of the oldest unanswered PUT; 0 if there is none.
    waiting_since: AtomicU64,
    durable_end: AtomicU64,
    low: AtomicU64,
    /// Signalled when the hint lags far behind.
    hint_lags: Notify,
    /// The hint that the record in the bucket carries.
    hint_written: AtomicU64,
    hedging: Hedging,
    /// Side objects of durable commits, by the slot that refers to them.
    sides: Mutex<BTreeMap<Slot, Vec<side::Nonce>>>,
    failing: side::Failing,
    refusals: Refusals,
}

impl Shared {
    fn place_sides(&self, placed: Vec<(Slot, side::Nonce)>) {
        if !placed.is_empty() {
            let mut sides = self.sides.lock().unwrap_or_else(PoisonError::into_inner);
            for (slot, nonce) in placed {
                sides.entry(slot).or_default().push(nonce);
            }
        }
    }
}

/// Sends to the log's task. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct LogHandle {
    commands: mpsc::UnboundedSender<Command>,
    shared: Arc<Shared>,
}

/// The receiving end of a [`LogHandle`], consumed by [`run`].
pub struct LogInbox {
    commands: mpsc::UnboundedReceiver<Command>,
    shared: Arc<Shared>,
}

/// Makes the two ends of a log.
pub fn channel() -> (LogHandle, LogInbox) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared::default());
    (LogHandle { commands: sender, shared: shared.clone() }, LogInbox { commands: receiver, shared })
}

impl LogHandle {
    /// Queues a commit. The caller has checked [`LogHandle::backlog_bytes`] and
    /// [`LogHandle::waiting_since_of`] against its limits, which is where back-pressure comes from.
    pub fn append(&self, commit: Commit) {
        self.shared.backlog_bytes.fetch_add(commit.entry.bytes.len(), Ordering::Relaxed);
        // A closed channel means that the node is going down: the commit stays indefinite.
        let _ = self.commands.send(Command::Append(commit));
    }

    /// Everything of `database` up to `lsn` is in packs that its head links.
    pub fn folded(&self, database: DatabaseId, lsn: Lsn) {
        let _ = self.commands.send(Command::Folded(database, lsn));
    }

    /// How long the store may refuse this log's slots before the log is given up.
    pub fn give_up_after(&self, bound: Duration) {
        self.shared.refusals.bound(bound);
    }

    /// Whether it was: then its own node is to seal it.
    pub fn has_given_up(&self) -> bool {
        self.shared.refusals.are_over()
    }

    /// Ends the log: the incarnation's record is no longer open.
    pub fn fence(&self, reason: impl Into<String>) {
        let _ = self.commands.send(Command::Fence(reason.into()));
    }

    /// Returns when everything appended before is durable, or the log is fenced.
    pub async fn drain(&self) {
        let (sender, receiver) = oneshot::channel();
        if self.commands.send(Command::Drain(sender)).is_ok() {
            let _ = receiver.await;
        }
    }

    /// Bytes of commits that are queued and not durable yet.
    pub fn backlog_bytes(&self) -> usize {
        self.shared.backlog_bytes.load(Ordering::Relaxed)
    }

    /// `boot_micros` of when the oldest unanswered PUT was started, if there is one.
    pub fn waiting_since(&self) -> Option<u64> {
        match self.shared.waiting_since.load(Ordering::Relaxed) {
            0 => None,
            since => Some(since),
        }
    }

    /// The same for one database: its commits also wait for its upload of a large one. That counts as unanswered once
    /// the store has failed to take it; one that only takes long, since it is large, does not.
    pub fn waiting_since_of(&self, database: DatabaseId) -> Option<u64> {
        [self.waiting_since(), self.shared.failing.since(database)].into_iter().flatten().min()
    }

    /// The contiguous durable prefix: what the hint may say.
    pub fn durable_end(&self) -> Slot {
        Slot(self.shared.durable_end.load(Ordering::Acquire))
    }

    /// What `low` may say, before it is bounded by the hint.
    pub fn low(&self) -> Slot {
        Slot(self.shared.low.load(Ordering::Acquire))
    }

    /// Side objects that go with the slots below `low`, to be deleted by the caller.
    pub(crate) fn take_sides_below(&self, low: Slot) -> Vec<side::Nonce> {
        let mut sides = self.shared.sides.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = sides.split_off(&low);
        std::mem::replace(&mut *sides, kept).into_values().flatten().collect()
    }

    /// How many PUTs were sent a second time because the first was slow: requests beyond one for a batch.
    pub fn hedges(&self) -> u64 {
        self.shared.hedging.sent()
    }

    pub(crate) async fn hint_lags(&self) {
        self.shared.hint_lags.notified().await;
    }

    pub(crate) fn hint_written(&self, hint: Slot) {
        self.shared.hint_written.store(hint.0, Ordering::Relaxed);
    }
}
