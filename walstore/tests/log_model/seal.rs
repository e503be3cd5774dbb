//! Sealers, step by step as `walstore::seal` makes them. Any of them may stop for ever, or die and start again,
//! at any step; what it has sent stays on its way.
//!
//! | here | there |
//! |---|---|
//! | [`Phase::Reading`] | the loop of `seal` |
//! | [`Phase::Waiting`] | `register::replace`, which ends when the record has another version |
//! | [`Phase::Probing`] | `find_end` and `probe` |
//! | [`Phase::Occupying`], [`Phase::Refused`] | `occupy`, before and after its 412 |
//! | [`Phase::Done`] | what `seal` returns |
//!
//! The 16 probes at a time are made here one after the other. An answer of theirs that is out of date is either
//! data, which stays data, or an empty slot, and then the tombstone's condition finds out: that a slot fills
//! between its probe and its tombstone is among the steps here.

use std::collections::BTreeSet;

use walstore::id::Slot;
use walstore::incarnation::State;

use crate::bucket::Cell;
use crate::key::Key;
use crate::rules::Mutant;
use crate::world::{Step, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Reading,
    Waiting,
    Probing { at: u8 },
    Occupying { at: u8 },
    Refused { at: u8 },
    Done { low: u8, end: u8 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sealer {
    pub phase: Phase,
    /// Only mutants remember these: the hint of the first record read, and who wrote *recovering*.
    first_hint: Option<u8>,
    wrote: bool,
}

impl Sealer {
    pub const NEW: Self = Self { phase: Phase::Reading, first_hint: None, wrote: false };

    pub fn record_moved(&mut self) {
        if self.phase == Phase::Waiting {
            self.phase = Phase::Reading;
        }
    }

    pub fn write(&self, key: &mut Key) {
        let (phase, at, end) = match self.phase {
            Phase::Reading => (0, 0, 0),
            Phase::Waiting => (1, 0, 0),
            Phase::Probing { at } => (2, at, 0),
            Phase::Occupying { at } => (3, at, 0),
            Phase::Refused { at } => (4, at, 0),
            Phase::Done { low, end } => (5, low, end),
        };
        key.push(phase, 3);
        key.push(at, 3);
        key.push(end, 3);
        key.push(self.first_hint.map_or(0, |hint| hint + 1), 3);
        key.push(self.wrote.into(), 1);
    }
}

pub fn successors(world: &World, next: &mut Vec<(Step, World)>) {
    for slot in (0..8).filter(|slot| world.bucket.tombstones >> slot & 1 == 1) {
        next.extend(tombstone_arrives(world, slot).map(|to| (Step::TombstoneArrives(slot), to)));
    }
    next.extend(recovering_arrives(world).map(|to| (Step::RecoveringArrives, to)));
    for end in (0..8).filter(|end| world.bucket.seals >> end & 1 == 1) {
        next.extend(seal_arrives(world, end).map(|to| (Step::SealArrives(end), to)));
    }
    for number in 0..world.sealers.len() as u8 {
        next.extend(advance(world, number).map(|to| (Step::Sealer(number), to)));
        if !matches!(world.sealers[usize::from(number)].phase, Phase::Reading | Phase::Done { .. }) {
            let mut to = world.clone();
            to.sealers[usize::from(number)] = Sealer::NEW;
            next.push((Step::SealerDies(number), to));
        }
    }
}

/// One step of one sealer.
fn advance(world: &World, number: u8) -> Option<World> {
    let mut to = world.clone();
    let sealer = &mut to.sealers[usize::from(number)];
    match sealer.phase {
        Phase::Reading => read(world, &mut to, number)?,
        Phase::Waiting | Phase::Done { .. } => return None,
        Phase::Probing { at } => match world.bucket.cell(at) {
            Cell::Data => sealer.phase = Phase::Probing { at: at + 1 },
            Cell::Tombstone => found(&mut to, number, at),
            Cell::Empty if world.mutant == Some(Mutant::ListInsteadOfTombstone) => found(&mut to, number, at),
            Cell::Empty => {
                sealer.phase = Phase::Occupying { at };
                to.bucket.tombstones |= 1 << at;
            }
        },
        Phase::Occupying { at } => match tombstone_arrives(world, at) {
            Some(arrived) => {
                to = arrived;
                found(&mut to, number, at);
            }
            None => sealer.phase = Phase::Refused { at },
        },
        Phase::Refused { at } if world.bucket.cell(at) == Cell::Tombstone => found(&mut to, number, at),
        Phase::Refused { at } if world.bucket.cell(at) == Cell::Data => sealer.phase = Phase::Probing { at: at + 1 },
        // Deleted in between: it is tried again.
        Phase::Refused { at } => {
            sealer.phase = Phase::Occupying { at };
            to.bucket.tombstones |= 1 << at;
        }
    }
    Some(to)
}

fn read(world: &World, to: &mut World, number: u8) -> Option<()> {
    let sealer = &mut to.sealers[usize::from(number)];
    let hint = world.bucket.hint();
    match world.bucket.record.state {
        State::Open => {
            if world.mutant == Some(Mutant::ProbeFromOldHint) {
                sealer.first_hint = sealer.first_hint.or(Some(hint));
            }
            sealer.wrote = world.mutant == Some(Mutant::WaitForOtherSealer);
            sealer.phase = Phase::Waiting;
            to.bucket.recovering = true;
        }
        State::Recovering if world.mutant == Some(Mutant::WaitForOtherSealer) && !sealer.wrote => return None,
        State::Recovering => sealer.phase = Phase::Probing { at: sealer.first_hint.unwrap_or(hint) },
        State::Sealed { end } => sealer.phase = Phase::Done { low: world.bucket.low(), end: end.0 as u8 },
    }
    Some(())
}

/// The end is known: the last CAS goes out, against the record that was *recovering*.
fn found(to: &mut World, number: u8, end: u8) {
    let blind = to.mutant == Some(Mutant::SealWithoutCas);
    let is_recovering = to.bucket.record.state == State::Recovering;
    if is_recovering || blind {
        to.bucket.seals |= 1 << end;
    }
    // Against a record that is sealed already, it is refused for certain.
    to.sealers[usize::from(number)].phase = if is_recovering { Phase::Waiting } else { Phase::Reading };
}

fn tombstone_arrives(world: &World, slot: u8) -> Option<World> {
    let overwrites = world.mutant == Some(Mutant::TombstoneOverwrites) && world.bucket.cell(slot) == Cell::Data;
    (world.bucket.cell(slot) == Cell::Empty || overwrites).then(|| {
        let mut to = world.clone();
        to.bucket.store_tombstone(slot);
        to
    })
}

fn recovering_arrives(world: &World) -> Option<World> {
    world.bucket.recovering.then(|| {
        let mut to = world.clone();
        to.replace_record(world.bucket.successor(State::Recovering, world.bucket.hint(), world.bucket.low()), None);
        to
    })
}

fn seal_arrives(world: &World, end: u8) -> Option<World> {
    let changes = world.bucket.end() != Some(end);
    changes.then(|| {
        let mut to = world.clone();
        // Without a condition it brings back the `low` that it was made from, which was not above its end.
        let low = world.bucket.low();
        let low = if world.mutant == Some(Mutant::SealWithoutCas) { low.min(end) } else { low };
        to.replace_record(world.bucket.successor(State::Sealed { end: Slot(end.into()) }, end, low), None);
        if to.bucket.sealed.is_none() {
            to.bucket.sealed = Some((end, to.readable(low, end)));
        }
        to
    })
}

/// From which states one sealer, alone with a store that works, reaches the seal. Only what a sealer can see
/// matters for that, so few states have to be tried.
#[derive(Default)]
pub struct Finishes {
    tried: BTreeSet<(Key, Vec<Sealer>)>,
}

impl Finishes {
    pub fn from(&mut self, world: &World) -> bool {
        let mut key = Key::default();
        world.bucket.write_present(&mut key);
        if !self.tried.insert((key, world.sealers.clone())) {
            return true;
        }
        (0..world.sealers.len() as u8).any(|number| finishes_alone(world.clone(), number))
    }
}

fn finishes_alone(mut world: World, number: u8) -> bool {
    const STEPS_MAX: usize = 64;
    for _ in 0..STEPS_MAX {
        let to = match world.sealers[usize::from(number)].phase {
            Phase::Done { .. } => return true,
            Phase::Waiting if world.bucket.recovering => recovering_arrives(&world),
            Phase::Waiting => seal_arrives(&world, world.bucket.seals.trailing_zeros() as u8),
            _ => advance(&world, number),
        };
        let Some(to) = to else { return false };
        world = to;
    }
    false
}
