//! What a run of a seed came to, and what happened in it.
//!
//! A *cycle* of garbage collection is one look through all that the bucket, or one database, has stored, with the
//! deletion of what is dead there: a sweep that came from the first log to the last marker, or a collection of one
//! database, by its owner or because it was deleted. A sweep that was cut off on its way is none; nor are drains, nor
//! deletes of a fold's dead list, which look for nothing. `pageserver/tests/fork` and `sweep` count the same.

use std::collections::BTreeMap;

use bytes::Bytes;
use tenant::keys::{DATABASES_PREFIX, DUE_PREFIX};
use walstore::store::{Effect, Fault, TraceLine};

use crate::hits::Hits;
use crate::past::Tally;

/// What one run of a seed came to.
#[derive(Default)]
pub struct Run {
    /// What is wrong, each with the invariant's name in front.
    pub broken: Vec<String>,
    pub trace: Vec<String>,
    pub bucket: BTreeMap<String, Bytes>,
    pub hits: Hits,
    pub counts: Counts,
    /// What was done with the past.
    pub past: Tally,
}

/// What happened in a run, to see that it was worth something.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub events: u64,
    pub lives: u64,
    pub crashes: u64,
    pub pauses: u64,
    pub shutdowns: u64,
    pub fenced: u64,
    /// Of these, logs that were given up because the store refused them.
    pub given_up: u64,
    /// Logs that were sealed by another node than their own.
    pub takeovers: u64,
    pub acknowledged: u64,
    pub unknown: u64,
    pub appends: u64,
    pub reads: u64,
    pub deletions: u64,
    pub replica_reads: u64,
    /// Packs of folds that a page server made.
    pub packs_made: u64,
    /// Reads that a disk cache answered.
    pub disk_hits: u64,
    /// Entries of a disk cache that were found damaged.
    pub disk_damaged: u64,
    /// Answers that say that there was no memory for a transaction.
    pub out_of_memory: u64,
    /// Sweeps that came to the end of the bucket, those after the clients were done among them.
    pub sweeps: u64,
    /// Collections of one database.
    pub collections: u64,
}

impl Counts {
    /// Cycles of garbage collection.
    pub fn cycles(&self) -> u64 {
        self.sweeps + self.collections
    }

    /// Tells cycles by the listings of nodes: of markers at the end of a sweep, and of what one database has.
    pub fn note(&mut self, line: &TraceLine) {
        self.events += 1;
        // One whose answer got lost is repeated, and counts then.
        let is_heard = matches!(line.fault, None | Some(Fault::Slow | Fault::StaleList | Fault::DisorderedList));
        if !matches!(line.effect, Effect::Listed { .. }) || !is_heard {
            return;
        }
        let is_of_one_database = line.key.starts_with(DATABASES_PREFIX) && line.key != DATABASES_PREFIX;
        self.sweeps += u64::from(line.key == DUE_PREFIX);
        self.collections += u64::from(is_of_one_database);
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.events += more.events;
        self.lives += more.lives;
        self.crashes += more.crashes;
        self.pauses += more.pauses;
        self.shutdowns += more.shutdowns;
        self.fenced += more.fenced;
        self.given_up += more.given_up;
        self.takeovers += more.takeovers;
        self.acknowledged += more.acknowledged;
        self.unknown += more.unknown;
        self.appends += more.appends;
        self.reads += more.reads;
        self.deletions += more.deletions;
        self.replica_reads += more.replica_reads;
        self.packs_made += more.packs_made;
        self.disk_hits += more.disk_hits;
        self.disk_damaged += more.disk_damaged;
        self.out_of_memory += more.out_of_memory;
        self.sweeps += more.sweeps;
        self.collections += more.collections;
    }
}
