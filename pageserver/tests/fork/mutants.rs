//! Broken variants of forks, of what keeps what they need, and of what tidies up behind them must be caught, and by
//! name. Run with `--features mutants`.

use walstore::mutant::{self, Mutant};

use crate::races::Between;
use crate::random;

/// Seeds after which a variant counts as not caught.
const SEEDS: u64 = 60;

/// What is gone is missed by whoever reads it, or by the check of the bucket, if that comes first.
const GONE: &[&str] = &["I6", "I8"];

/// By which rules each may be caught in random trees.
const IN_TREES: [(Mutant, &[&str]); 8] = [
    (Mutant::ForkBeforeHorizon, &["R19"]),
    (Mutant::CollectBelowPinned, GONE),
    (Mutant::CollectPinned, GONE),
    (Mutant::PinWithoutBase, GONE),
    (Mutant::UnpinReaching, GONE),
    (Mutant::UnpinMissing, GONE),
    (Mutant::OldHorizon, GONE),
    (Mutant::ForeignTail, &["I2"]),
];

/// What comes between the requests of a fork, so that each is caught.
const IN_RACES: [(Mutant, Between); 3] = [
    (Mutant::UnpinMissing, Between::Sweep),
    (Mutant::UnpinMissing, Between::Takeover),
    (Mutant::OldHorizon, Between::Horizon),
];

/// The rule that a run has found broken.
fn rule(broken: &str) -> &str {
    broken.split(':').next().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn every_mutant_is_caught_in_random_trees() {
    let mut wrong = Vec::new();
    for (mutant, expected) in IN_TREES {
        mutant::turn_on(Some(mutant));
        let mut caught = None;
        for seed in 0..SEEDS {
            if let Err(broken) = random::run(seed).await {
                caught = Some((seed, broken));
                break;
            }
        }
        mutant::turn_on(None);
        let Some((seed, broken)) = caught else {
            wrong.push(format!("{mutant} lives"));
            continue;
        };
        println!("{mutant}: caught by {} after {} seeds ({broken})", rule(&broken), seed + 1);
        if !expected.contains(&rule(&broken)) {
            wrong.push(format!("{mutant}: {broken}"));
        }
        if let Err(broken) = random::run(seed).await {
            wrong.push(format!("seed {seed} is broken without {mutant} too: {broken}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// That the same races end well without a mutant is what their own test says.
#[tokio::test(start_paused = true)]
async fn every_mutant_of_a_race_is_caught_whatever_the_seed() {
    let mut wrong = Vec::new();
    for (mutant, between) in IN_RACES {
        mutant::turn_on(Some(mutant));
        let outcomes = crate::told(between.comes_anywhere()).await;
        mutant::turn_on(None);
        match outcomes {
            Err(broken) if GONE.contains(&rule(&broken)) => {
                println!("{mutant}: caught by {}, with {between:?} between its requests ({broken})", rule(&broken));
            }
            found => wrong.push(format!("{mutant}, {between:?}: {found:?}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
