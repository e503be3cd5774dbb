//! Random lives of whole trees: commits, folds, forks of random commits and times, restores, deletes, sweeps.

use std::time::Duration;

use tenant::head::HeadState;
use walstore::id::Lsn;

use crate::forest::{Forest, RETENTION_SECS};

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }
}

fn seeds() -> std::ops::Range<u64> {
    if let Ok(seed) = std::env::var("SHOAL_SEED") {
        let seed: u64 = seed.parse().expect("SHOAL_SEED is a number");
        return seed..seed + 1;
    }
    0..std::env::var("SHOAL_SEEDS").map_or(25, |count| count.parse().expect("SHOAL_SEEDS is a number"))
}

async fn commit(forest: &mut Forest, dice: &mut Dice, at: usize) {
    let sizes = if dice.roll(4) == 0 { 70 } else { 12 };
    let size = 1 + dice.roll(sizes) as u32;
    let pages: Vec<u32> = (0..1 + dice.roll(5)).map(|_| 1 + dice.roll(size as usize) as u32).collect();
    let pages: std::collections::BTreeSet<u32> = pages.into_iter().collect();
    forest.commit(at, &pages.into_iter().collect::<Vec<_>>(), size).await;
}

/// A commit that can be gone back to, often one at an edge.
async fn moment(forest: &mut Forest, dice: &mut Dice, at: usize) -> u64 {
    let is_final = forest.head(at).await.value.state.is_final();
    if !is_final {
        forest.fold(at).await;
    }
    let head = forest.head(at).await.value;
    let (oldest, newest) = (Lsn::raw(head.horizon), Lsn::raw(head.folded.lsn));
    match dice.roll(4) {
        0 => oldest,
        1 => newest,
        _ => oldest + dice.roll((newest - oldest + 1) as usize) as u64,
    }
}

async fn step(forest: &mut Forest, dice: &mut Dice) {
    let living: Vec<usize> = (0..forest.all.len()).filter(|at| !forest.all[*at].is_over).collect();
    let Some(at) = living.get(dice.roll(living.len().max(1))).copied() else {
        forest.create(RETENTION_SECS).await;
        return;
    };
    match dice.roll(20) {
        0..=8 => commit(forest, dice, at).await,
        9..=11 => drop(forest.fold(at).await),
        12..=14 if living.len() < 12 => {
            let lsn = moment(forest, dice, at).await;
            let fork = forest.fork(at, lsn).await;
            forest.check(fork).await;
        }
        15 => {
            let lsn = moment(forest, dice, at).await;
            let new = forest.restore(at, at, lsn).await;
            forest.check(new).await;
        }
        16 => forest.delete(at).await,
        17 => {
            let lsn = moment(forest, dice, at).await;
            forest.check_past(at, lsn).await.expect("it is inside of the window");
        }
        18 => tokio::time::advance(Duration::from_secs(dice.roll(RETENTION_SECS as usize) as u64)).await,
        _ => {
            if dice.roll(2) == 0 {
                for at in living {
                    forest.release(at).await;
                }
            }
            forest.sweep().await;
        }
    }
}

async fn check_all(forest: &Forest) {
    crate::check_bucket(forest).await;
    for at in 0..forest.all.len() {
        if forest.head(at).await.value.state == HeadState::Live {
            forest.check(at).await;
        }
    }
}

async fn live(seed: u64) {
    let mut forest = Forest::new();
    let mut dice = Dice(seed);
    forest.create(if seed.is_multiple_of(3) { 0 } else { RETENTION_SECS }).await;
    for number in 0..60 {
        step(&mut forest, &mut dice).await;
        if number % 15 == 14 {
            check_all(&forest).await;
        }
    }
    check_all(&forest).await;
    for at in 0..forest.all.len() {
        if !forest.all[at].is_over {
            forest.delete(at).await;
        }
    }
    tokio::time::advance(Duration::from_secs(200_000)).await;
    // Pins are lifted from the leaves of a tree to its root.
    for _ in 0..forest.all.len() + 2 {
        forest.sweep().await;
    }
    assert_eq!(forest.objects(), Vec::<String>::new(), "seed {seed}: nothing that cannot be reached stays");
}

#[tokio::test(start_paused = true)]
async fn every_state_of_every_tree_is_as_the_model_has_it() {
    for seed in seeds() {
        live(seed).await;
    }
}
