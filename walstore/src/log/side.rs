//! Large commits on their way into the log: each waits here until its side object is stored.
//!
//! ```text
//!  append ─▶ small, nothing of its database waits ───────────────────────────────▶ LogCore
//!       └──▶ queue of its database: [uploading] [waiting] [waiting] …
//!                     stored ──▶ its reference, then what is small behind it ────▶ LogCore
//! ```
//!
//! Commits of one database keep their order: what comes after a large one waits behind it. Commits of other
//! databases never do. A database has one upload at a time; all of them together are bounded by the backlog
//! that the callers of [`append`](super::LogHandle::append) look at.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tracing::warn;

use super::core::{Acknowledged, Commit};
use crate::id::{DatabaseId, IncarnationId, Lsn, Slot};
use crate::keys;
use crate::limits;
use crate::register::Backoff;
use crate::run::{Content, SideRef};
use crate::seam::Seam;
use crate::side::{self, SideId};
use crate::store::{Condition, Store};

/// Names one side object of this log.
pub type Nonce = [u8; 16];

/// A commit for which a side object is to be stored.
#[derive(Debug)]
pub struct Upload {
    pub id: SideId,
    pub nonce: Nonce,
    pub commit: Bytes,
    /// It, if it was made already.
    pub object: Option<Bytes>,
}

/// What may go on.
#[derive(Debug, Default)]
pub struct Advance {
    /// For the log, in order.
    pub commits: Vec<Commit>,
    pub upload: Option<Upload>,
}

/// See the module's documentation.
pub struct SideQueue {
    incarnation: IncarnationId,
    waiting: BTreeMap<DatabaseId, VecDeque<Waiting>>,
    bytes: usize,
    /// References that are in the log and not durable yet.
    undurable: BTreeMap<(DatabaseId, u64, Lsn), Nonce>,
    stop: Arc<AtomicBool>,
}

struct Waiting {
    /// Without its bytes once they are being stored: the upload has them.
    commit: Commit,
    bytes: usize,
    /// Of the side object that is being stored for it.
    uploading: Option<Nonce>,
}

impl Waiting {
    fn new(commit: Commit) -> Self {
        Self { bytes: commit.entry.bytes.len(), commit, uploading: None }
    }

    fn is_large(&self) -> bool {
        self.bytes > limits::INLINE_COMMIT_BYTES_MAX
    }

    fn start_upload(&mut self, incarnation: IncarnationId, nonce: impl FnOnce() -> Nonce) -> Upload {
        let (nonce, object) = match self.commit.side.take() {
            Some(side::Made { nonce, object }) => (nonce, Some(object)),
            None => (nonce(), None),
        };
        self.uploading = Some(nonce);
        let entry = &mut self.commit.entry;
        let content = std::mem::replace(&mut entry.bytes, Content::Inline(Bytes::new()));
        let Content::Inline(commit) = content else { unreachable!("BUG: a commit that is a reference already") };
        Upload { id: entry.side_id(incarnation), nonce, commit, object }
    }
}

impl SideQueue {
    pub fn new(incarnation: IncarnationId) -> Self {
        Self { incarnation, waiting: BTreeMap::new(), bytes: 0, undurable: BTreeMap::new(), stop: Arc::default() }
    }

    /// Takes a commit. `nonce` is asked for only if a side object is wanted.
    pub fn on_append(&mut self, commit: Commit, nonce: impl FnOnce() -> Nonce) -> Advance {
        if self.stop.load(Ordering::Relaxed) {
            return Advance::default();
        }
        let database = commit.entry.database;
        let waiting = Waiting::new(commit);
        if !waiting.is_large() && !self.waiting.contains_key(&database) {
            return Advance { commits: vec![waiting.commit], upload: None };
        }
        self.bytes += waiting.bytes;
        self.waiting.entry(database).or_default().push_back(waiting);
        self.advance(database, nonce)
    }

    /// The side object is stored that `reference` stands for.
    pub fn on_uploaded(&mut self, database: DatabaseId, reference: SideRef, next: impl FnOnce() -> Nonce) -> Advance {
        let Some(queue) = self.waiting.get_mut(&database) else { return Advance::default() };
        let is_first = |first: &mut Waiting| first.uploading == Some(reference.nonce);
        let Some(mut first) = queue.pop_front_if(is_first) else { return Advance::default() };
        self.bytes -= first.bytes;
        let entry = &mut first.commit.entry;
        entry.bytes = Content::Side(reference);
        self.undurable.insert((database, entry.epoch, entry.lsn), reference.nonce);
        let mut advance = self.advance(database, next);
        advance.commits.insert(0, first.commit);
        advance
    }

    /// Nobody needs what `database` had up to `lsn`: what waits can be so only if the database was deleted.
    pub fn on_folded(&mut self, database: DatabaseId, lsn: Lsn, nonce: impl FnOnce() -> Nonce) -> Advance {
        let Some(queue) = self.waiting.get_mut(&database) else { return Advance::default() };
        let before: usize = queue.iter().map(|waiting| waiting.bytes).sum();
        queue.retain(|waiting| waiting.commit.entry.lsn > lsn);
        self.bytes -= before - queue.iter().map(|waiting| waiting.bytes).sum::<usize>();
        self.advance(database, nonce)
    }

    /// Where the references among `durable` are from now on: they are deleted with these slots.
    pub fn on_durable(&mut self, durable: &[Acknowledged]) -> Vec<(Slot, Nonce)> {
        if self.undurable.is_empty() {
            return Vec::new();
        }
        let placed = durable.iter().filter_map(|commit| {
            let nonce = self.undurable.remove(&(commit.database, commit.epoch, commit.lsn))?;
            Some((commit.slot, nonce))
        });
        placed.collect()
    }

    /// The log is fenced: nothing new is stored, uploads are not tried again.
    pub fn on_fenced(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.waiting.clear();
        self.bytes = 0;
    }

    /// Releases what is small at the front, and starts the upload of what is large behind it.
    fn advance(&mut self, database: DatabaseId, nonce: impl FnOnce() -> Nonce) -> Advance {
        let mut advance = Advance::default();
        let Some(queue) = self.waiting.get_mut(&database) else { return advance };
        while let Some(first) = queue.front_mut() {
            if first.is_large() {
                if first.uploading.is_none() {
                    advance.upload = Some(first.start_upload(self.incarnation, nonce));
                }
                return advance;
            }
            let first = queue.pop_front().expect("BUG: its front was just looked at");
            self.bytes -= first.bytes;
            advance.commits.push(first.commit);
        }
        self.waiting.remove(&database);
        advance
    }

    /// Bytes of commits that wait here.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Raised when uploads are to be given up.
    pub fn stop(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }
}

/// Databases whose upload the store has failed to take at least once, with the `boot_micros` of its first try. One that
/// is merely large and slow is not among them.
#[derive(Default)]
pub struct Failing(Mutex<BTreeMap<DatabaseId, u64>>);

impl Failing {
    pub fn since(&self, database: DatabaseId) -> Option<u64> {
        self.lock().get(&database).copied()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<DatabaseId, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a side object and stores it, however long that takes. `None` if the log was fenced before. The key carries a
/// nonce, so sending again is harmless. A store that can never take it (an object too large for it, a missing right)
/// is asked for ever: the commit is indefinite, and [`Failing`] keeps others from queueing behind it.
pub async fn upload(
    store: &dyn Store,
    seam: &Seam,
    upload: Upload,
    stop: &AtomicBool,
    failing: &Failing,
) -> Option<SideRef> {
    let Upload { id, nonce, commit, object } = upload;
    let key = keys::side(id.incarnation, nonce);
    let (object, reference) = match object {
        Some(object) => (object, side::refer(nonce, &commit).await),
        None => side::prepare(id, nonce, commit).await,
    };
    let started = seam.boot_micros();
    let mut backoff = Backoff::default();
    let mut tries = 0u32;
    let stored = loop {
        if stop.load(Ordering::Relaxed) {
            break None;
        }
        let Err(error) = store.put(&key, object.clone(), &Condition::None).await else { break Some(reference) };
        failing.lock().insert(id.database, started);
        tries += 1;
        if tries.is_power_of_two() {
            warn!(%error, tries, "the store has not taken a large commit yet; sending it again");
        }
        backoff.pause(seam).await;
    };
    failing.lock().remove(&id.database);
    stored
}

/// Deletes side objects whose slots are below a `low` that has been written. What a failed delete leaves behind
/// is swept when the incarnation is drained.
pub async fn delete(store: &dyn Store, incarnation: IncarnationId, nonces: Vec<Nonce>) {
    let deletes = stream::iter(nonces).map(|nonce| async move {
        if let Err(error) = store.delete(&keys::side(incarnation, nonce)).await {
            warn!(%error, "cannot delete a folded side object");
        }
    });
    deletes.buffer_unordered(limits::DELETES_IN_FLIGHT_MAX).for_each(|()| async {}).await;
}

#[cfg(test)]
#[path = "side_tests.rs"]
mod tests;
