//! Every interleaving of a database that is forked with its folds, its horizon, its collector and its scavenger, over
//! the real transitions of [`tenant::lifecycle`].
//!
//! The parent's owner commits, folds, moves the horizon and forks; it may die between any two steps, and what it sent
//! lands later or never. Another node takes the database from it once its log has an end, and lifts pins as
//! [`tenant::lifecycle::plan_pin`] says. A collector deletes whatever is dead at that moment. In every state:
//!
//! - what the parent's head refers to is in the bucket (I6),
//! - what a living fork begins with is in the bucket (I8),
//! - a fork is its parent as it was after the commit that was asked for, and no other (R19),
//! - a fork begins without an owner and without a log (I2), and
//! - no write of a head breaks [`tenant::head::invariant`] (I6).
//!
//! A model that stays silent about a broken protocol is a broken model, so [`Mutant`]s break it on purpose.

mod world;

use std::collections::{BTreeSet, VecDeque};

use world::{Mutant, World};

/// Explores breadth first, so that a violation comes with a shortest history. Returns the number of states, how many of
/// them have a living fork, and the violation at which it stopped.
fn explore(mutant: Option<Mutant>) -> (usize, usize, Option<String>) {
    let start = World::new(mutant);
    let mut seen = BTreeSet::from([start.fingerprint()]);
    let (mut queue, mut forked) = (VecDeque::from([start]), 0);
    while let Some(world) = queue.pop_front() {
        forked += usize::from(world.is_forked());
        for next in world.successors() {
            let checked = next.and_then(|next| {
                let is_new = seen.insert(next.fingerprint());
                if is_new {
                    next.check()?;
                }
                Ok(is_new.then_some(next))
            });
            match checked {
                Ok(next) => queue.extend(next),
                Err(violation) => return (seen.len(), forked, Some(violation)),
            }
        }
    }
    (seen.len(), forked, None)
}

#[test]
fn forks_hold_in_every_state() {
    let (states, forked, violation) = explore(None);
    assert_eq!(violation, None);
    println!("correct: every invariant holds in all {states} states, {forked} of them with a fork");
    assert!(states > 5_000 && forked > 1_000, "only {states} states, {forked} with a fork: too few to mean anything");
}

fn caught(mutant: Mutant, by: &str, as_what: &str) {
    let (states, _, violation) = explore(Some(mutant));
    let violation = violation.expect("the mutant lives");
    assert!(violation.starts_with(by) && violation.contains(as_what), "{violation}");
    println!("{mutant:?}: caught by {by}, after {states} states");
}

#[test]
fn lifting_the_pin_of_a_fork_that_is_not_found_takes_its_pages_away() {
    caught(Mutant::UnpinMissing, "I8", "a fork begins with");
}

/// The first finding of Neon's pull request 863.
#[test]
fn a_fork_that_does_not_look_at_the_horizon_again_begins_with_what_is_gone() {
    caught(Mutant::OldHorizon, "I6", "the parent refers to");
}

/// The second one, issue 865: what a branch reads of its parent was collected.
#[test]
fn lifting_the_pin_of_a_fork_that_reaches_its_parent_takes_its_pages_away() {
    caught(Mutant::UnpinReaching, "I8", "a fork begins with");
}

#[test]
fn a_fork_with_its_parents_tail_does_not_begin_alone() {
    caught(Mutant::ForeignTail, "I2", "does not begin as a fork does");
}

#[test]
fn a_fork_whose_head_comes_before_its_pin_begins_with_what_is_gone() {
    caught(Mutant::ChildBeforePin, "I8", "a fork begins with");
}

#[test]
fn a_fork_of_what_was_asked_for_when_more_is_folded_already_is_another() {
    caught(Mutant::ForkAtFolded, "R19", "is not its parent");
}
