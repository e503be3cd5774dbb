//! What is in the bucket, and what is on its way there.
//!
//! A request stays on its way for ever: it may arrive late, twice, or never, and its answer may be lost. Two
//! requests that would do the same are one here. A conditional write of the record is forgotten once the record
//! has another version: it can only be refused from then on.

use walstore::id::{IncarnationId, PutId, Slot};
use walstore::incarnation::{IncarnationRecord, State};

use crate::key::Key;
use crate::log::Commits;

pub const SLOTS: usize = 6;
/// Put ids tell apart tries of the owner; the model keeps that beside the record (`keeper::Renewal`).
const PUT_ID: PutId = PutId::from_bytes([3; 16]);
const INCARNATION: IncarnationId = IncarnationId::from_bytes([1; 16]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    Empty,
    /// The owner's fragment: all tries of a slot have the same bytes.
    Data,
    Tombstone,
}

#[derive(Clone, Debug)]
pub struct Bucket {
    pub cells: [Cell; SLOTS],
    pub record: IncarnationRecord,
    /// Slots that have ever been in the bucket as the log's data.
    pub held_data: u8,
    /// A tombstone at or above `low` is gone, or the record went back to an earlier state.
    pub fence_gone: bool,
    /// The end that was recorded first, and the commits that were in `low..end` then.
    pub sealed: Option<(u8, Commits)>,

    /// DELETEs of slots.
    pub deletes: u8,
    /// PUTs of tombstones, by slot.
    pub tombstones: u8,
    /// Renewals of the present version, by try: hint and low.
    pub renewals: [Option<(u8, u8)>; 2],
    /// The CAS to *recovering*.
    pub recovering: bool,
    /// CASes to *sealed*, by end.
    pub seals: u8,
}

impl Bucket {
    pub fn new() -> Self {
        Self {
            cells: [Cell::Empty; SLOTS],
            record: IncarnationRecord::new(INCARNATION, PUT_ID, 0, String::new()),
            held_data: 0,
            fence_gone: false,
            sealed: None,
            deletes: 0,
            tombstones: 0,
            renewals: [None; 2],
            recovering: false,
            seals: 0,
        }
    }

    pub fn cell(&self, slot: u8) -> Cell {
        self.cells[usize::from(slot)]
    }

    pub fn store_data(&mut self, slot: u8) {
        self.cells[usize::from(slot)] = Cell::Data;
        self.held_data |= 1 << slot;
    }

    /// It stands there for ever, or is junk below `low`: other tombstones for this slot are of no more interest.
    pub fn store_tombstone(&mut self, slot: u8) {
        self.cells[usize::from(slot)] = Cell::Tombstone;
        self.tombstones &= !(1 << slot);
    }

    pub fn delete(&mut self, slot: u8) {
        // Below `low` nobody reads: a tombstone that a slow sealer left there ends nothing.
        self.fence_gone |= self.cell(slot) == Cell::Tombstone && slot >= self.low();
        self.cells[usize::from(slot)] = Cell::Empty;
    }

    pub fn hint(&self) -> u8 {
        self.record.hint.0 as u8
    }

    pub fn low(&self) -> u8 {
        self.record.low.0 as u8
    }

    pub fn end(&self) -> Option<u8> {
        match self.record.state {
            State::Sealed { end } => Some(end.0 as u8),
            State::Open | State::Recovering => None,
        }
    }

    /// The record's successor with another state, hint and low.
    pub fn successor(&self, state: State, hint: u8, low: u8) -> IncarnationRecord {
        let (hint, low) = (Slot(hint.into()), Slot(low.into()));
        IncarnationRecord { state, hint, low, ..self.record.successor(PUT_ID) }
    }

    /// A write of the record arrives. `keep_seals` is for the mutant that seals without a condition.
    pub fn replace(&mut self, record: IncarnationRecord, keep_seals: bool) {
        self.fence_gone |= progress(record.state) < progress(self.record.state);
        self.record = record;
        self.renewals = [None; 2];
        self.recovering = false;
        if !keep_seals {
            self.seals = 0;
        }
    }

    /// The length of the prefix that has been in the bucket without a gap.
    pub fn durable_prefix(&self) -> u8 {
        self.held_data.trailing_ones() as u8
    }

    pub fn write(&self, key: &mut Key) {
        self.write_present(key);
        key.push(self.held_data, 6);
        key.push(self.fence_gone.into(), 1);
        let (end, content) = self.sealed.map_or((0, 0), |(end, content)| (end + 1, content));
        key.push(end, 3);
        key.push(content, 5);
        key.push(self.deletes, 6);
        key.push(self.tombstones, 6);
        for renewal in self.renewals {
            let (hint, low) = renewal.unwrap_or((7, 7));
            key.push(hint, 3);
            key.push(low, 3);
        }
    }

    /// What a sealer can see, and what it sends. The record's version is not part of it: what counts is whether
    /// a version is the present one.
    pub fn write_present(&self, key: &mut Key) {
        for cell in self.cells {
            key.push(cell as u8, 2);
        }
        key.push(progress(self.record.state) + self.end().unwrap_or(0), 4);
        key.push(self.hint(), 3);
        key.push(self.low(), 3);
        key.push(self.recovering.into(), 1);
        key.push(self.seals, 6);
    }
}

/// Open, recovering, sealed: in this order only.
fn progress(state: State) -> u8 {
    match state {
        State::Open => 0,
        State::Recovering => 1,
        State::Sealed { .. } => 2,
    }
}
