//! The owner's renewals and deletions, step by step as `walstore::lease::Keeper` makes them.
//!
//! | here | there |
//! |---|---|
//! | [`renew`], hint and low in it | `Keeper::renew`, `next_hint`, `next_low` |
//! | [`answers`], won | `Keeper::renewed`, `delete_slots` |
//! | [`answers`], lost to an open record | the arm "a late renewal of our own had landed" |
//! | [`answers`], lost to another state | `Keeper::end` |
//! | giving up | the end of `Patience`, after which another put id is used |
//!
//! The lease itself is not modelled: a sealer may suspect the owner at any time, which includes the time after
//! its lease has run out.

use std::rc::Rc;

use walstore::incarnation::State;

use crate::key::Key;
use crate::rules::Mutant;
use crate::world::{Step, World};

/// What the keeper knows.
#[derive(Clone, Copy)]
pub struct Keeper {
    hint: u8,
    low: u8,
    /// The version that it would replace is the present one.
    fresh: bool,
    over: bool,
    renewal: Option<Renewal>,
}

/// A renewal that waits for its answer.
#[derive(Clone, Copy)]
struct Renewal {
    /// Tells this try from one that was given up and is still on its way.
    number: u8,
    hint: u8,
    low: u8,
    /// It has arrived.
    applied: bool,
    /// The record has another version than the one it would replace, or, once applied, than the one it made.
    passed: bool,
}

impl Keeper {
    pub fn new() -> Self {
        Self { hint: 0, low: 0, fresh: true, over: false, renewal: None }
    }

    /// Another version of the record stands; `by` is the try of the owner that made it.
    pub fn record_moved(&mut self, by: Option<u8>) {
        self.fresh = false;
        if let Some(renewal) = &mut self.renewal {
            if !renewal.applied && !renewal.passed && by == Some(renewal.number) {
                renewal.applied = true;
            } else {
                renewal.passed = true;
            }
        }
    }

    pub fn write(&self, key: &mut Key) {
        key.push(self.hint, 3);
        key.push(self.low, 3);
        key.push(self.fresh.into(), 1);
        key.push(self.over.into(), 1);
        let none = Renewal { number: 0, hint: 7, low: 0, applied: false, passed: false };
        let renewal = self.renewal.unwrap_or(none);
        key.push(renewal.number, 1);
        key.push(renewal.hint, 3);
        key.push(renewal.low, 3);
        key.push(renewal.applied.into(), 1);
        key.push(renewal.passed.into(), 1);
    }
}

pub fn successors(world: &World, next: &mut Vec<(Step, World)>) {
    for number in 0..2 {
        if let Some((hint, low)) = world.bucket.renewals[usize::from(number)] {
            let mut to = world.clone();
            to.replace_record(world.bucket.successor(State::Open, hint, low), Some(number));
            next.push((Step::RenewalArrives(number), to));
        }
    }
    if world.keeper.over {
        return;
    }
    match world.keeper.renewal {
        None => next.extend(renew(world).map(|to| (Step::Renew, to))),
        Some(renewal) => {
            if world.size.renewals > 1 {
                let mut to = world.clone();
                to.keeper.renewal = None;
                next.push((Step::GiveUpRenewal, to));
            }
            answers(world, renewal, next);
        }
    }
}

/// Sends one CAS, if it says something new or tells the keeper that it is over. A renewal that changes nothing
/// only makes a sealer's CAS lose, whereupon the sealer reads again; one that dies does the same. Against a version that is gone it is refused for certain, so nothing is on its way then.
fn renew(world: &World) -> Option<World> {
    let mut to = world.clone();
    let durable_end = match world.mutant {
        Some(Mutant::HintPastInFlight) => world.log.next(),
        _ => world.log.durable_end(),
    };
    let hint = durable_end.max(world.keeper.hint);
    let low = world.log.low().min(hint).max(world.keeper.low);
    let says_something = (hint, low) != (world.keeper.hint, world.keeper.low);
    if !says_something && world.bucket.record.state == State::Open {
        return None;
    }
    let number = world.bucket.renewals.iter().take(world.size.renewals).position(Option::is_none)? as u8;
    if world.keeper.fresh {
        to.bucket.renewals[usize::from(number)] = Some((hint, low));
    }
    to.keeper.renewal = Some(Renewal { number, hint, low, applied: false, passed: !world.keeper.fresh });
    Some(to)
}

/// The answer comes: at once, or to a later try of the same request, which was refused and read the record.
fn answers(world: &World, renewal: Renewal, next: &mut Vec<(Step, World)>) {
    if renewal.applied {
        let mut to = world.clone();
        let dead = (1u8 << renewal.low) - (1u8 << world.keeper.low.min(renewal.low));
        to.bucket.deletes |= dead;
        to.keeper = Keeper { hint: renewal.hint, low: renewal.low, fresh: !renewal.passed, over: false, renewal: None };
        next.push((Step::RenewalWon, to));
    }
    if renewal.passed {
        let mut to = world.clone();
        to.keeper.renewal = None;
        if world.bucket.record.state == State::Open {
            to.keeper.hint = world.bucket.hint();
            to.keeper.low = world.bucket.low();
            to.keeper.fresh = true;
        } else {
            to.keeper.over = true;
            Rc::make_mut(&mut to.log).fence(world.mutant);
        }
        next.push((Step::RenewalLost, to));
    }
}
