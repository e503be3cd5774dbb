//! Every interleaving of two nodes that share one database, over the real transitions of
//! [`tenant::lifecycle`].
//!
//! Each node has a log that takes commits until it is sealed, and believes what it last read. Writes of the
//! head travel: they land later, in any order, or never, and the node may give up before. In every state:
//!
//! - every acknowledged commit is readable, exactly once (I1),
//! - every readable commit follows the very commit on which it was executed (I2),
//! - no two readable commits share an LSN (I2),
//! - no write of the head breaks [`tenant::head::invariant`] (I6), and
//! - were the head lost at that moment, whoever meets the name would make an empty database in its place only while
//!   nothing is folded, and so all commits are in logs (I7).
//!
//! For the last one the model has the name record, in which the owner notes before the first fold that there was a head.
//!
//! A model that stays silent about a broken protocol is a broken model, so [`Mutant`]s break it on purpose.

mod world;

use std::collections::{BTreeSet, VecDeque};

use world::{Mutant, World};

/// Explores breadth first, so that a violation comes with a shortest history. Returns the number of states, and
/// the violation at which it stopped.
fn explore(mutant: Option<Mutant>) -> (usize, Option<String>) {
    let start = World::new(mutant);
    let mut seen = BTreeSet::from([start.fingerprint()]);
    let mut queue = VecDeque::from([start]);
    while let Some(world) = queue.pop_front() {
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
                Err(violation) => return (seen.len(), Some(violation)),
            }
        }
    }
    (seen.len(), None)
}

#[test]
fn the_protocol_holds_in_every_state() {
    let (states, violation) = explore(None);
    assert_eq!(violation, None);
    println!("correct: every invariant holds in all {states} states");
    assert!(states > 100_000, "only {states} states: the model is too small to mean anything");
}

fn caught(mutant: Mutant, by: &str, as_what: &str) {
    let (states, violation) = explore(Some(mutant));
    let violation = violation.expect("the mutant lives");
    assert!(violation.contains(as_what), "{violation}");
    println!("{mutant:?}: caught by {by}, after {states} states");
}

#[test]
fn taking_over_before_the_seal_loses_an_acknowledged_commit() {
    caught(Mutant::TakeOverBeforeSeal, "I1", "acknowledged");
}

#[test]
fn writing_again_without_looking_at_the_owner_loses_an_acknowledged_commit() {
    caught(Mutant::BlindRetry, "I1", "acknowledged");
}

#[test]
fn logging_before_the_acquire_is_won_makes_two_commits_with_one_lsn() {
    caught(Mutant::LogBeforeAcquired, "I2", "LSN");
}

#[test]
fn releasing_what_is_not_folded_loses_an_acknowledged_commit() {
    caught(Mutant::ReleaseUnfolded, "I1", "acknowledged");
}

#[test]
fn forgetting_where_the_own_commits_begin_loses_an_acknowledged_commit() {
    caught(Mutant::FoldForgetsOwnStart, "I1", "acknowledged");
}

#[test]
fn serving_while_a_release_may_still_arrive_loses_an_acknowledged_commit() {
    caught(Mutant::ServeWhileLeaving, "I1", "acknowledged");
}

#[test]
fn an_acquire_that_keeps_the_epoch_is_refused() {
    caught(Mutant::AcquireKeepsEpoch, "I6", "epoch");
}

#[test]
fn taking_a_database_back_without_the_own_former_term_loses_an_acknowledged_commit() {
    caught(Mutant::ForgetOwnTerm, "I1", "acknowledged");
}

#[test]
fn a_first_fold_that_is_not_noted_lets_a_lost_head_be_made_anew() {
    caught(Mutant::ForgetMade, "I7", "empty database");
}
