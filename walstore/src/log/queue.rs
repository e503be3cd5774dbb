//! The commits that wait for a batch, and whose turn it is.
//!
//! What waits is usually less than a fragment, and then all of it is the next batch. When there is more, the
//! databases take turns (deficit round robin): a turn adds [`limits::TURN_BYTES`] to what a database may send,
//! and it sends its oldest commits as long as that lasts. Commits of one database always leave in order.
//!
//! **The bound.** With N databases waiting, a commit of at most one turn's bytes, of a database that has nothing
//! else waiting, leaves after at most one turn of each of the others. Such a turn sends less than two turns'
//! bytes, what was left of the one before included, if commits are small. So it leaves in one of the next
//! 1 + ⌈N × 2 × [`limits::TURN_BYTES`] / [`limits::FRAGMENT_BYTES_TARGET`]⌉ = 1 + ⌈N / 32⌉ batches, however much
//! the others have waiting; in the very next one, if what the others send in a turn fits beside it. Commits larger
//! than a turn count as what they are, but each waits for as many turns as it has bytes.
//!
//! A database that has emptied its [byte bucket](super::bucket) is *held*: its commits are in no turn, and close
//! no batch, until the bucket has filled a little. So it cannot keep all PUTs in flight to itself either.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::bucket::Buckets;
use super::core::Commit;
use crate::id::{DatabaseId, Lsn};
use crate::limits;

#[derive(Clone)]
struct Waiting {
    commit: Commit,
    arrived_micros: u64,
    /// `arrived_micros` and its window.
    deadline_micros: u64,
}

/// What waits of one database; never empty.
#[derive(Clone, Default)]
struct Line {
    commits: VecDeque<Waiting>,
    bytes: usize,
    /// What it may still send of its last turn.
    deficit_bytes: usize,
    /// Nothing up to here is needed any more.
    folded: Option<Lsn>,
    is_held: bool,
}

impl Line {
    fn next_bytes(&self) -> Option<usize> {
        self.commits.front().map(|waiting| waiting.commit.entry.bytes.len())
    }

    fn opened_micros(&self) -> u64 {
        self.commits.front().map_or(u64::MAX, |waiting| waiting.arrived_micros)
    }

    /// Of its most impatient commit. Deadlines rise, but for a plan whose window was shortened meanwhile.
    fn deadline_micros(&self) -> u64 {
        let ends = [self.commits.front(), self.commits.back()];
        ends.into_iter().flatten().map(|waiting| waiting.deadline_micros).min().unwrap_or(u64::MAX)
    }
}

/// What a batch takes.
#[derive(Clone, Default)]
pub struct Batch {
    /// Each with whether it is still needed.
    pub commits: Vec<(Commit, bool)>,
    pub bytes: usize,
}

/// See the module's documentation.
#[derive(Clone, Default)]
pub struct Queue {
    lines: BTreeMap<DatabaseId, Line>,
    /// Databases that are not held, in the order of their turns.
    turns: VecDeque<DatabaseId>,
    /// Databases that are, by when they may go on.
    held: BTreeSet<(u64, DatabaseId)>,
    buckets: Buckets,
    ready: Ready,
}

/// What may go into the next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    pub commits: usize,
    pub bytes: usize,
    /// When the first of them came.
    pub opened_micros: u64,
    /// The earliest `arrival + window`.
    pub deadline_micros: u64,
}

impl Default for Ready {
    fn default() -> Self {
        Self { commits: 0, bytes: 0, opened_micros: u64::MAX, deadline_micros: u64::MAX }
    }
}

impl Ready {
    fn add(&mut self, line: &Line) {
        self.commits += line.commits.len();
        self.bytes += line.bytes;
        self.opened_micros = self.opened_micros.min(line.opened_micros());
        self.deadline_micros = self.deadline_micros.min(line.deadline_micros());
    }
}

impl Queue {
    pub fn push(&mut self, commit: Commit, now_micros: u64) {
        let (database, bytes) = (commit.entry.database, commit.entry.bytes.len());
        let deadline_micros = now_micros.saturating_add(commit.window_micros);
        if !self.lines.contains_key(&database) {
            self.enter(database, now_micros);
        }
        let line = self.lines.get_mut(&database).expect("BUG: it has just entered");
        line.bytes += bytes;
        line.commits.push_back(Waiting { commit, arrived_micros: now_micros, deadline_micros });
        if !line.is_held {
            self.ready.commits += 1;
            self.ready.bytes += bytes;
            self.ready.opened_micros = self.ready.opened_micros.min(now_micros);
            self.ready.deadline_micros = self.ready.deadline_micros.min(deadline_micros);
        }
    }

    /// The first commit of a database that had none waiting.
    fn enter(&mut self, database: DatabaseId, now_micros: u64) {
        let held_until = self.buckets.wait(database, now_micros);
        self.lines.insert(database, Line { is_held: held_until.is_some(), ..Line::default() });
        match held_until {
            Some(until) => drop(self.held.insert((until, database))),
            None => self.turns.push_back(database),
        }
    }

    /// What may go into the next batch; `None` if nothing may.
    pub fn ready(&self) -> Option<Ready> {
        Some(self.ready).filter(|ready| ready.commits > 0)
    }

    /// When the first of the held databases may go on.
    pub fn held_until(&self) -> Option<u64> {
        self.held.first().map(|(until, _)| *until)
    }

    /// Nothing waits, held or not.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Everything of `database` up to `lsn` is folded, or the database is gone: what still waits of that goes
    /// into the log, but need not be remembered there.
    pub fn on_folded(&mut self, database: DatabaseId, lsn: Lsn) {
        if let Some(line) = self.lines.get_mut(&database) {
            line.folded = line.folded.max(Some(lsn));
        }
    }

    /// Lets databases go on whose bucket has filled.
    pub fn release_held(&mut self, now_micros: u64) {
        while let Some((until, database)) = self.held.first().copied() {
            if until > now_micros {
                return;
            }
            self.held.pop_first();
            let line = self.lines.get_mut(&database).expect("BUG: a held database without commits");
            line.is_held = false;
            self.ready.add(line);
            self.turns.push_back(database);
        }
    }

    /// Takes the next batch: all that is ready if it fits, else a fragment's worth in turns. It overshoots by one
    /// commit at most, and takes at least one.
    pub fn take(&mut self, now_micros: u64) -> Batch {
        let mut batch = Batch::default();
        while batch.bytes < limits::FRAGMENT_BYTES_TARGET {
            let Some(database) = self.turns.pop_front() else { break };
            self.take_turn(database, now_micros, &mut batch);
        }
        self.ready = Ready::default();
        for database in &self.turns {
            self.ready.add(&self.lines[database]);
        }
        batch
    }

    fn take_turn(&mut self, database: DatabaseId, now_micros: u64, batch: &mut Batch) {
        let line = self.lines.get_mut(&database).expect("BUG: the turn of a database without commits");
        line.deficit_bytes += limits::TURN_BYTES;
        let mut held_until = None;
        while batch.bytes < limits::FRAGMENT_BYTES_TARGET && held_until.is_none() {
            let Some(bytes) = line.next_bytes().filter(|bytes| *bytes <= line.deficit_bytes) else { break };
            let Waiting { commit, .. } = line.commits.pop_front().expect("BUG: its size was just read");
            line.deficit_bytes -= bytes;
            line.bytes -= bytes;
            batch.bytes += bytes;
            let is_needed = line.folded.is_none_or(|folded| commit.entry.lsn > folded);
            batch.commits.push((commit, is_needed));
            held_until = self.buckets.take(database, bytes, now_micros);
        }
        let Some(next_bytes) = line.next_bytes() else {
            // Its bucket is looked at when it comes again.
            self.lines.remove(&database);
            return;
        };
        match held_until {
            Some(until) => {
                line.deficit_bytes = 0;
                line.is_held = true;
                self.held.insert((until, database));
            }
            None => {
                // A batch that was full in the middle of the turn leaves no more than other turns do.
                line.deficit_bytes = line.deficit_bytes.min(next_bytes);
                self.turns.push_back(database);
            }
        }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
