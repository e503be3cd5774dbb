//! What a run of a seed came to, and what happened in it.

use std::collections::BTreeMap;

use bytes::Bytes;

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
    }
}
