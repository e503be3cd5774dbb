//! Broken variants of folding and sweeping must be caught, and by name. Run with `--features mutants`.

use pageserver::verify::Damage;
use walstore::mutant::{self, Mutant};

use crate::folds;

fn caught(mutant: Mutant, damages: &[Damage]) {
    mutant::turn_on(None);
    let first = damages.first().unwrap_or_else(|| panic!("{mutant} lives"));
    println!("{mutant}: caught by I6 ({}: {})", first.key, first.what);
}

#[tokio::test(start_paused = true)]
async fn packs_that_are_deleted_before_they_are_unlinked_are_missed() {
    mutant::turn_on(Some(Mutant::DeleteBeforeUnlink));
    caught(Mutant::DeleteBeforeUnlink, &folds::a_fold_dies_at_every_request().await);
}

#[tokio::test(start_paused = true)]
async fn orphans_of_the_present_term_that_are_swept_are_missed() {
    mutant::turn_on(Some(Mutant::SweepPresentEpoch));
    caught(Mutant::SweepPresentEpoch, &folds::a_sweep_comes_between().await);
}
