//! Every broken variant of the protocol must be caught, and by name. Run with `--features mutants`.

use walstore::mutant::{self, Mutant};

use crate::world;

/// Seeds after which a variant counts as not caught.
const SEEDS: u64 = 2_000;

/// Those that need SQLite, its connections or the HTTP code to show; the others are caught in the simulation of the
/// protocol alone (`tenant/tests/protocol`), or by the tests of sweeps and folds (`pageserver/tests/sweep`), and those
/// of them that also break something here soon are run for good measure.
const MUTANTS: [Mutant; 13] = [
    Mutant::ReplyBeforeGate,
    Mutant::PublishOnSync,
    Mutant::RefuseWithBusy,
    Mutant::EvictAndForget,
    Mutant::AcknowledgeBeforeDurable,
    Mutant::AcknowledgeOutOfOrder,
    Mutant::TakeOverBeforeSeal,
    Mutant::BlindHeadRetry,
    Mutant::HintPastInFlight,
    Mutant::DeleteBeforeUnlink,
    Mutant::TrimBeyondHorizon,
    Mutant::PinWithoutBase,
    Mutant::CollectPinned,
];

#[test]
fn every_mutant_is_caught() {
    let _alone = crate::ONE_WORLD.lock();
    let mut survivors = Vec::new();
    for mutant in MUTANTS {
        mutant::turn_on(Some(mutant));
        let caught = (0..SEEDS).find_map(|seed| world::run(seed).broken.first().map(|broken| (seed, broken.clone())));
        mutant::turn_on(None);
        match caught {
            Some((seed, broken)) => {
                let invariant = broken.split(':').next().unwrap_or_default();
                println!("{mutant}: caught by {invariant} after {} seeds ({broken})", seed + 1);
                assert!(world::run(seed).broken.is_empty(), "seed {seed} is broken without {mutant} too");
            }
            None => survivors.push(mutant),
        }
    }
    assert!(survivors.is_empty(), "not caught in {SEEDS} seeds: {survivors:?}");
}
