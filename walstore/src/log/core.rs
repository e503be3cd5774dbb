//! The log's protocol as a pure state machine: events and a clock reading in, actions out.
//!
//! ```text
//!  append ─▶ batch ──close──▶ in flight (a slot, a PUT) ──stored──▶ stored ──in slot order──▶ durable
//!                                   │
//!                                   └──another object is in the slot──▶ fenced
//! ```
//!
//! When a batch closes is [`pace`](super::pace)'s to say, and what is in it [`queue`](super::queue)'s. A plan's
//! window is a lower bound on top: the batch waits for its most impatient member.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::pace::{Pace, Situation};
use super::queue::{Queue, Ready};
use super::unfolded::Unfolded;
use crate::fragment::{self, Entry};
use crate::id::{DatabaseId, IncarnationId, Lsn, PutId, Slot};
use crate::limits;
use crate::mutant::{self, Mutant};
use crate::side;

/// A commit on its way into the log.
#[derive(Clone, Debug)]
pub struct Commit {
    pub entry: Entry,
    /// How long it may wait for company, in microseconds (the plan's window).
    pub window_micros: u64,
    /// Which of the node's executors waits for it. Opaque here.
    pub home: u16,
    /// Its side object, if it is large and whoever made it has made that, too.
    pub side: Option<side::Made>,
}

/// A commit that is in the bucket, with every slot before its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    pub database: DatabaseId,
    pub epoch: u64,
    pub lsn: Lsn,
    pub slot: Slot,
    pub home: u16,
}

/// What the driver has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Store `object` in `slot`, if absent, until it is stored or fenced.
    Put { slot: Slot, object: Bytes },
    /// These commits, in order, are durable.
    Durable(Vec<Acknowledged>),
    /// Another incarnation ended this log. Nothing else will be acknowledged but what is still in flight
    /// and turns out to be stored without a gap.
    Fenced,
}

/// What a PUT turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    Stored,
    Fenced,
    /// A broken variant of the protocol takes the slot for empty ([`Mutant::MissingIsNotWritten`]).
    #[cfg(feature = "mutants")]
    Missing,
}

#[derive(Clone)]
struct InFlight {
    commits: Vec<Acknowledged>,
    bytes: usize,
    started_micros: u64,
    stored: bool,
    #[cfg(feature = "mutants")]
    object: Bytes,
}

/// State of one log. See the module's documentation.
#[derive(Clone)]
pub struct LogCore {
    incarnation: IncarnationId,
    /// Makes this log's put ids differ from those of any other writer of the same slots.
    nonce: [u8; 16],
    next: Slot,
    durable_end: Slot,
    queue: Queue,
    in_flight: BTreeMap<Slot, InFlight>,
    backlog_bytes: usize,
    pace: Pace,
    unfolded: Unfolded,
    fenced: bool,
}

impl LogCore {
    pub fn new(incarnation: IncarnationId, nonce: [u8; 16]) -> Self {
        Self {
            incarnation,
            nonce,
            next: Slot::ZERO,
            durable_end: Slot::ZERO,
            queue: Queue::default(),
            in_flight: BTreeMap::new(),
            backlog_bytes: 0,
            pace: Pace::default(),
            unfolded: Unfolded::default(),
            fenced: false,
        }
    }

    /// Queues a commit for the next batch. A fenced log drops it: nothing new is ever stored.
    pub fn on_append(&mut self, commit: Commit, now_micros: u64) -> Vec<Action> {
        if self.fenced {
            return Vec::new();
        }
        self.pace.on_arrival(now_micros);
        self.backlog_bytes += commit.entry.bytes.len();
        self.queue.push(commit, now_micros);
        self.on_tick(now_micros)
    }

    /// Closes the batch if its time has come, and the next one if that is due as well.
    pub fn on_tick(&mut self, now_micros: u64) -> Vec<Action> {
        self.queue.release_held(now_micros);
        let mut actions = Vec::new();
        while self.closes_at(now_micros).is_some_and(|at| at <= now_micros) {
            actions.push(self.start_put(now_micros));
            if mutant::is_on(Mutant::AcknowledgeBeforeDurable) {
                actions.extend(self.release(now_micros));
            }
        }
        actions
    }

    /// Takes the result of a PUT and releases what has become durable in slot order.
    pub fn on_put(&mut self, slot: Slot, outcome: PutOutcome, now_micros: u64) -> Vec<Action> {
        match outcome {
            PutOutcome::Stored => {}
            PutOutcome::Fenced => return self.on_fenced(),
            #[cfg(feature = "mutants")]
            PutOutcome::Missing => return self.move_on(slot, now_micros),
        }
        if let Some(put) = self.in_flight.get_mut(&slot) {
            put.stored = true;
            self.pace.on_answer(now_micros.saturating_sub(put.started_micros));
        }
        let mut actions = self.release(now_micros);
        actions.extend(self.on_tick(now_micros));
        actions
    }

    /// Stops the log: a tombstone stands in one of its slots, or its record is no longer open.
    pub fn on_fenced(&mut self) -> Vec<Action> {
        if std::mem::replace(&mut self.fenced, true) {
            return Vec::new();
        }
        self.queue = Queue::default();
        vec![Action::Fenced]
    }

    /// Everything of `database` up to `lsn` is in packs that its head links.
    pub fn on_folded(&mut self, database: DatabaseId, lsn: Lsn) {
        self.unfolded.forget(database, lsn);
        // A deleted database may have commits that still wait for a slot; they need not be remembered either.
        self.queue.on_folded(database, lsn);
    }

    /// When there is something to do, if nothing else happens before.
    pub fn wake_at(&self, now_micros: u64) -> Option<u64> {
        let held_until = if self.may_start() { self.queue.held_until() } else { None };
        let at = [self.closes_at(now_micros), held_until].into_iter().flatten().min()?;
        Some(at.max(now_micros))
    }

    /// When the batch closes that could be made of what is ready now.
    fn closes_at(&self, now_micros: u64) -> Option<u64> {
        let ready = self.queue.ready().filter(|_| self.may_start())?;
        if ready.bytes >= limits::FRAGMENT_BYTES_TARGET {
            return Some(now_micros);
        }
        Some(ready.deadline_micros.max(self.company_at(ready)).max(now_micros))
    }

    fn may_start(&self) -> bool {
        !self.fenced && self.in_flight.len() < limits::PUTS_IN_FLIGHT_MAX
    }

    /// When waiting for company stops to be worth it; 0 if it is not now.
    fn company_at(&self, ready: Ready) -> u64 {
        self.pace.company_at(Situation {
            opened_micros: ready.opened_micros,
            commits: self.commits_held(),
            waiting_since: self.waiting_since(),
        })
    }

    /// In flight, or ready for the next batch.
    fn commits_held(&self) -> usize {
        let in_flight: usize = self.in_flight.values().map(|put| put.commits.len()).sum();
        in_flight + self.queue.ready().map_or(0, |ready| ready.commits)
    }

    fn start_put(&mut self, now_micros: u64) -> Action {
        let batch = self.queue.take(now_micros);
        let slot = self.next;
        self.next = slot.next();
        let mut entries = Vec::with_capacity(batch.commits.len());
        let mut commits = Vec::with_capacity(batch.commits.len());
        for (Commit { entry, home, .. }, is_needed) in batch.commits {
            commits.push(Acknowledged { database: entry.database, epoch: entry.epoch, lsn: entry.lsn, slot, home });
            if is_needed {
                self.unfolded.remember(entry.database, entry.lsn, slot);
            }
            entries.push(entry);
        }
        let object = fragment::encode(self.incarnation, slot, self.put_id(slot), &entries);
        let put = InFlight {
            commits,
            bytes: batch.bytes,
            started_micros: now_micros,
            stored: false,
            #[cfg(feature = "mutants")]
            object: object.clone(),
        };
        self.in_flight.insert(slot, put);
        self.pace.on_start(now_micros);
        Action::Put { slot, object }
    }

    /// One put id per slot, the same for every try of that slot.
    pub fn put_id(&self, slot: Slot) -> PutId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.nonce);
        hasher.update(&slot.0.to_le_bytes());
        let hash = hasher.finalize();
        PutId::from_bytes(*hash.as_bytes().first_chunk().expect("BUG: a hash has 32 bytes"))
    }

    fn release(&mut self, now_micros: u64) -> Vec<Action> {
        let mut released = Vec::new();
        while let Some(entry) = self.in_flight.first_entry() {
            if !entry.get().stored || *entry.key() != self.durable_end {
                break;
            }
            let put = entry.remove();
            self.durable_end = self.durable_end.next();
            self.backlog_bytes -= put.bytes;
            released.extend(put.commits);
        }
        let is_early = mutant::is_on(Mutant::AcknowledgeBeforeDurable);
        if is_early || mutant::is_on(Mutant::AcknowledgeOutOfOrder) {
            let early = self.in_flight.values_mut().filter(|put| put.stored || is_early);
            early.for_each(|put| released.append(&mut put.commits));
        }
        if released.is_empty() {
            return Vec::new();
        }
        self.pace.on_release(released.len(), self.commits_held(), now_micros);
        vec![Action::Durable(released)]
    }

    /// Slots below are durable: what the hint may say.
    pub fn durable_end(&self) -> Slot {
        self.durable_end
    }

    /// Slots below hold nothing that is not folded: what `low` may say.
    pub fn low(&self) -> Slot {
        self.unfolded.lowest().map_or(self.durable_end, |slot| slot.min(self.durable_end))
    }

    /// Bytes of commits that are not durable yet.
    pub fn backlog_bytes(&self) -> usize {
        self.backlog_bytes
    }

    /// When the oldest unanswered PUT was started.
    pub fn waiting_since(&self) -> Option<u64> {
        self.in_flight.values().find(|put| !put.stored).map(|put| put.started_micros)
    }

    /// Nothing is waiting or in flight.
    pub fn is_drained(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_empty()
    }

    pub fn is_fenced(&self) -> bool {
        self.fenced
    }
}

#[cfg(feature = "mutants")]
#[path = "core_broken.rs"]
mod broken;

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
