//! Broken variants of the page path, each of which must be caught by name.

use walstore::mutant::{self, Mutant};

use crate::world;

const SEEDS: u64 = 60;
const MUTANTS: [Mutant; 7] = [
    Mutant::IgnoreValidUpto,
    Mutant::FoldNotDurable,
    Mutant::ZerosForMissing,
    Mutant::ForgetReaders,
    Mutant::TrimBeyondHorizon,
    Mutant::PinWithoutBase,
    Mutant::CollectPinned,
];

#[test]
fn every_mutant_of_the_page_path_is_caught() {
    let _alone = crate::ONE_WORLD.lock();
    let mut survivors = Vec::new();
    for mutant in MUTANTS {
        mutant::turn_on(Some(mutant));
        let caught = (0..SEEDS).find_map(|seed| Some((seed, world::run(seed).verdict.err()?)));
        mutant::turn_on(None);
        match caught {
            Some((seed, broken)) => {
                let invariant = broken.split(':').next().unwrap_or_default();
                println!("mutant {mutant} caught by {invariant} after {} seeds ({broken})", seed + 1);
                assert!(world::run(seed).verdict.is_ok(), "seed {seed} is broken without {mutant} too");
            }
            None => survivors.push(mutant),
        }
    }
    assert!(survivors.is_empty(), "not caught in {SEEDS} seeds: {survivors:?}");
}
