//! The log's protocol as a pure state machine: events and a clock reading in, actions out.
//!
//! ```text
//!  append ─▶ batch ──close──▶ in flight (a slot, a PUT) ──stored──▶ stored ──in slot order──▶ durable
//!                                   │
//!                                   └──another object is in the slot──▶ fenced
//! ```
//!
//! **When a batch closes.** A commit that meets an idle log goes out at once, so a single writer waits for
//! exactly one PUT. While PUTs are in flight a batch may wait for company. Its *slack*, counted from its first
//! member, is a quarter of a PUT's usual latency, or half of it once a crowd of commits is waiting. It waits
//! - until a quarter has passed since the last PUT was started, but not beyond the slack: PUTs are spread over
//!   the round trip;
//! - for the oldest PUT's answer, if that should come within the slack: its clients come back and share this
//!   batch;
//! - up to a quarter after such an answer, until one commit has come for each that was released.
//!
//! So convoys of writers, wherever they are in the round trip, merge into one instead of scattering over the
//! pipeline. A plan's window is a lower bound on top: the batch waits for its most impatient member.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::fragment::{self, Entry};
use crate::id::{DatabaseId, IncarnationId, Lsn, PutId, Slot};
use crate::limits;

/// A commit on its way into the log.
#[derive(Clone, Debug)]
pub struct Commit {
    pub entry: Entry,
    /// How long it may wait for company, in microseconds (the plan's window).
    pub window_micros: u64,
    /// Which of the node's executors waits for it. Opaque here.
    pub home: u16,
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
}

#[derive(Clone)]
struct InFlight {
    commits: Vec<Acknowledged>,
    bytes: usize,
    started_micros: u64,
    stored: bool,
}

#[derive(Clone, Default)]
struct Batch {
    commits: Vec<Commit>,
    bytes: usize,
    /// Databases of which it holds nothing that is still needed, up to these commits.
    folded: BTreeMap<DatabaseId, Lsn>,
    /// When its first member came.
    opened_micros: u64,
    /// The earliest `arrival + window` of its members.
    deadline_micros: u64,
}

/// State of one log. See the module's documentation.
#[derive(Clone)]
pub struct LogCore {
    incarnation: IncarnationId,
    /// Makes this log's put ids differ from those of any other writer of the same slots.
    nonce: [u8; 16],
    next: Slot,
    durable_end: Slot,
    batch: Batch,
    in_flight: BTreeMap<Slot, InFlight>,
    backlog_bytes: usize,
    last_start_micros: u64,
    /// When commits were last acknowledged.
    last_release_micros: u64,
    /// How many of the clients released lately have not come back yet.
    awaited: usize,
    put_micros: Smoothed,
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
            batch: Batch::default(),
            in_flight: BTreeMap::new(),
            backlog_bytes: 0,
            last_start_micros: 0,
            last_release_micros: 0,
            awaited: 0,
            put_micros: Smoothed::default(),
            unfolded: Unfolded::default(),
            fenced: false,
        }
    }

    /// Adds a commit to the open batch. A fenced log drops it: nothing new is ever stored.
    pub fn on_append(&mut self, commit: Commit, now_micros: u64) -> Vec<Action> {
        if self.fenced {
            return Vec::new();
        }
        let deadline = now_micros.saturating_add(commit.window_micros);
        if self.batch.commits.is_empty() {
            self.batch.opened_micros = now_micros;
            self.batch.deadline_micros = deadline;
        }
        self.batch.deadline_micros = self.batch.deadline_micros.min(deadline);
        self.awaited = self.awaited.saturating_sub(1);
        self.batch.bytes += commit.entry.bytes.len();
        self.backlog_bytes += commit.entry.bytes.len();
        self.batch.commits.push(commit);
        self.on_tick(now_micros)
    }

    /// Closes the batch if its time has come.
    pub fn on_tick(&mut self, now_micros: u64) -> Vec<Action> {
        match self.wake_at(now_micros) {
            Some(at) if at <= now_micros => vec![self.start_put(now_micros)],
            _ => Vec::new(),
        }
    }

    /// Takes the result of a PUT and releases what has become durable in slot order.
    pub fn on_put(&mut self, slot: Slot, outcome: PutOutcome, now_micros: u64) -> Vec<Action> {
        if outcome == PutOutcome::Fenced {
            return self.on_fenced();
        }
        if let Some(put) = self.in_flight.get_mut(&slot) {
            put.stored = true;
            self.put_micros.add(now_micros.saturating_sub(put.started_micros));
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
        self.batch = Batch::default();
        vec![Action::Fenced]
    }

    /// Everything of `database` up to `lsn` is in packs that its head links.
    pub fn on_folded(&mut self, database: DatabaseId, lsn: Lsn) {
        self.unfolded.forget(database, lsn);
        // A deleted database may have commits in the open batch; they need not be remembered either.
        if self.batch.commits.iter().any(|commit| commit.entry.database == database && commit.entry.lsn <= lsn) {
            self.batch.folded.insert(database, lsn);
        }
    }

    /// When the open batch closes, if nothing else happens before.
    pub fn wake_at(&self, now_micros: u64) -> Option<u64> {
        if self.fenced || self.batch.commits.is_empty() || self.in_flight.len() >= limits::PUTS_IN_FLIGHT_MAX {
            return None;
        }
        if self.batch.bytes >= limits::FRAGMENT_BYTES_TARGET {
            return Some(now_micros);
        }
        Some(self.batch.deadline_micros.max(self.company_at()).max(now_micros))
    }

    /// How much longer than one PUT a commit may take for the sake of company.
    fn slack_micros(&self) -> u64 {
        let in_flight: usize = self.in_flight.values().map(|put| put.commits.len()).sum();
        let is_crowd = in_flight + self.batch.commits.len() >= limits::CROWD_COMMITS_MIN;
        self.put_micros.value() / if is_crowd { 2 } else { 4 }
    }

    /// When waiting for company stops to be worth it; 0 if it is not now.
    fn company_at(&self) -> u64 {
        let put = self.put_micros.value();
        let slack_ends = self.batch.opened_micros.saturating_add(self.slack_micros());
        let mut until = 0;
        if let Some(oldest) = self.in_flight.values().find(|put| !put.stored) {
            until = self.last_start_micros.saturating_add(put / 4);
            let answered = oldest.started_micros.saturating_add(put);
            // Decided by when the batch was opened, not by now: else it would wait ever again for an answer
            // that comes just after the slack has ended.
            if answered <= slack_ends {
                until = until.max(answered.saturating_add(put / 8));
            }
        }
        until = until.min(slack_ends);
        if self.awaited > 0 && self.last_release_micros <= slack_ends {
            until = until.max(self.last_release_micros.saturating_add(put / 4));
        }
        until
    }

    fn start_put(&mut self, now_micros: u64) -> Action {
        let batch = std::mem::take(&mut self.batch);
        let slot = self.next;
        self.next = slot.next();
        let mut entries = Vec::with_capacity(batch.commits.len());
        let mut commits = Vec::with_capacity(batch.commits.len());
        for Commit { entry, home, .. } in batch.commits {
            commits.push(Acknowledged { database: entry.database, epoch: entry.epoch, lsn: entry.lsn, slot, home });
            if batch.folded.get(&entry.database).is_none_or(|folded| entry.lsn > *folded) {
                self.unfolded.remember(entry.database, entry.lsn, slot);
            }
            entries.push(entry);
        }
        let object = fragment::encode(self.incarnation, slot, self.put_id(slot), &entries);
        let put = InFlight { commits, bytes: batch.bytes, started_micros: now_micros, stored: false };
        self.in_flight.insert(slot, put);
        self.last_start_micros = now_micros;
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
        if released.is_empty() {
            return Vec::new();
        }
        let slack = self.slack_micros();
        let is_recent = now_micros.saturating_sub(self.last_release_micros) <= slack;
        self.awaited = if is_recent { self.awaited + released.len() } else { released.len() };
        self.last_release_micros = now_micros;
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
        self.batch.commits.is_empty() && self.in_flight.is_empty()
    }

    pub fn is_fenced(&self) -> bool {
        self.fenced
    }
}

/// A moving average of PUT latencies, for pacing only.
#[derive(Clone)]
struct Smoothed {
    micros: u64,
}

impl Default for Smoothed {
    fn default() -> Self {
        Self { micros: 4_000 }
    }
}

impl Smoothed {
    fn add(&mut self, sample_micros: u64) {
        // A stalled store must not make the pace useless for minutes after it has recovered.
        let sample = sample_micros.min(100_000);
        self.micros = (self.micros * 7 + sample) / 8;
    }

    fn value(&self) -> u64 {
        self.micros
    }
}

/// The slots whose commits are not folded yet: complete from the log's first slot on.
#[derive(Clone, Default)]
struct Unfolded {
    by_database: BTreeMap<DatabaseId, VecDeque<(Lsn, Slot)>>,
    commits_in: BTreeMap<Slot, usize>,
}

impl Unfolded {
    fn remember(&mut self, database: DatabaseId, lsn: Lsn, slot: Slot) {
        self.by_database.entry(database).or_default().push_back((lsn, slot));
        *self.commits_in.entry(slot).or_default() += 1;
    }

    fn forget(&mut self, database: DatabaseId, up_to: Lsn) {
        let Some(commits) = self.by_database.get_mut(&database) else { return };
        while let Some(&(lsn, slot)) = commits.front() {
            if lsn > up_to {
                break;
            }
            commits.pop_front();
            let left = self.commits_in.get_mut(&slot).expect("BUG: a slot without a count");
            *left -= 1;
            if *left == 0 {
                self.commits_in.remove(&slot);
            }
        }
        if commits.is_empty() {
            self.by_database.remove(&database);
        }
    }

    fn lowest(&self) -> Option<Slot> {
        self.commits_in.keys().next().copied()
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
