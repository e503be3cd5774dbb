//! Every interleaving of a small world around one log: its owner, its keeper, sealers, a new owner, a collector.
//!
//! | module | what | mirrors |
//! |---|---|---|
//! | `log` | the owner's log | drives the production [`LogCore`](walstore::log::core::LogCore) and `fragment` |
//! | `world` | a state; the PUTs of the log | `SlotPut` in `walstore/src/log/slot_put.rs` |
//! | `keeper` | renewals, hint, low, deletions | `walstore::lease` |
//! | `seal` | sealers | `walstore::seal` |
//! | `head` | folds, takeover, draining | `tenant/tests/head_model` has the heads themselves |
//! | `bucket` | objects, and requests on their way | `walstore::incarnation` for the record's successors |
//! | `rules`, `check` | the invariants, by DESIGN's names, and the mutants | `walstore::mutant` |
//!
//! `seal` and `lease` await a store at every step, so their steps are written down here again, next to the names
//! of the functions that they mirror. Whoever changes those functions changes these.
//!
//! A model that stays silent about a broken protocol is a broken model, so a [`Mutant`] breaks it on purpose.
//! Fences fail before losses do: each mutant is searched for the first invariant that fails, and, where that was
//! a fence, again for the loss that it guards against.

mod bucket;
mod check;
mod head;
mod keeper;
mod key;
mod log;
mod rules;
mod seal;
mod search;
mod world;

use rules::{Invariant, Mutant};
use search::{Violation, Watch, explore};
use world::{Size, World};

/// Two sealers that race, and renewals that are given up and arrive all the same.
const RACE: Size = Size { commits: 2, databases: 1, batch: 1, sealers: 2, renewals: 2 };
/// One more slot. The only sealer may die and start again, and what it sent before races with it.
const DEEP: Size = Size { commits: 3, databases: 1, batch: 1, sealers: 1, renewals: 1 };
/// Commits of two databases share slots, so that `low` lags behind what is folded.
const SHARED: Size = Size { commits: 3, databases: 2, batch: 2, sealers: 1, renewals: 1 };

/// Both at once: six million states, a minute.
const LARGE: Size = Size { sealers: 2, ..DEEP };

#[test]
fn the_protocol_holds_in_every_state() {
    let is_large = std::env::var("SHOAL_MODEL").is_ok_and(|size| size == "large");
    let sizes = [RACE, DEEP, SHARED].into_iter().chain(is_large.then_some(LARGE));
    let mut states = 0;
    for size in sizes {
        let found = explore(World::new(size, None), Watch::All);
        if let Some(violation) = found.violation {
            panic!("{size:?}: {}", describe(&violation));
        }
        println!("correct: every invariant holds in all {} states of {size:?}", found.states);
        states += found.states;
    }
    assert!(states > 500_000, "only {states} states: the model is too small to mean anything");
}

#[test]
fn every_mutant_is_caught() {
    for mutant in Mutant::ALL {
        let (fence, loss) = expected(mutant);
        caught(mutant, Watch::All, fence);
        if let Some(loss) = loss {
            caught(mutant, Watch::Losses, loss);
        }
    }
}

fn caught(mutant: Mutant, watch: Watch, by: Invariant) {
    let found = explore(World::new(RACE, Some(mutant)), watch);
    let violation = found.violation.unwrap_or_else(|| panic!("{mutant:?} lives, in {} states", found.states));
    assert_eq!(violation.invariant, by, "{mutant:?}: {}", describe(&violation));
    let looking_at = if watch == Watch::All { "caught by" } else { "without fences by" };
    println!("{mutant:?}: {looking_at} {by}, after {} states, {} steps", found.states, violation.history.len());
}

/// Which invariant fails first, and, if that is a fence, which loss follows. The last three do not lose a commit:
/// they need a fence of their own, or none at all.
fn expected(mutant: Mutant) -> (Invariant, Option<Invariant>) {
    match mutant {
        Mutant::AcknowledgeOutOfOrder => (Invariant::I3InOrder, Some(Invariant::I3Kept)),
        Mutant::AcknowledgeBeforeDurable => (Invariant::I3InOrder, Some(Invariant::I3Kept)),
        Mutant::ListInsteadOfTombstone => (Invariant::I3Kept, None),
        Mutant::CollectTombstone => (Invariant::I7, Some(Invariant::I4Sealed)),
        Mutant::SealWithoutCas => (Invariant::I3Same, None),
        Mutant::DeleteAboveHint => (Invariant::I8, Some(Invariant::I3Same)),
        Mutant::HintPastInFlight => (Invariant::Hint, Some(Invariant::I3Same)),
        Mutant::TakeOverBeforeSeal => (Invariant::I4Owner, None),
        Mutant::BlindHeadRetry => (Invariant::I1, None),
        Mutant::ProbeFromOldHint => (Invariant::Hint, Some(Invariant::I3Kept)),
        Mutant::TombstoneOverwrites => (Invariant::I8, Some(Invariant::I3Kept)),
        Mutant::OwnRefusalIsFence => (Invariant::I12, None),
        Mutant::MissingIsNotWritten => (Invariant::I12, None),
        Mutant::WaitForOtherSealer => (Invariant::I16, None),
    }
}

fn describe(violation: &Violation) -> String {
    format!("{} after {:?}", violation.invariant, violation.history)
}
