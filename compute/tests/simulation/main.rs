//! The whole node under simulation: the production executor, VFS, sessions and HTTP code with real SQLite, on a
//! simulated store, clock and randomness.
//!
//! Two or three machines share a bucket. A seed decides everything: what the clients do, which requests to the
//! bucket are lost, late, repeated or refused, when it is gone altogether, when nodes die (at any moment, and at
//! the very moment at which a request takes effect), stand still, shut down, come back, and how their clocks jump.
//! Some seeds run twice and must give the same trace and the same bucket, byte for byte.
//!
//! `SHOAL_SEED=7 cargo test --release -p compute --test simulation -- --nocapture` runs one seed and prints its
//! trace; `SHOAL_SEEDS=1000` runs that many, `SHOAL_FIRST_SEED=5000` others, `SHOAL_TWICE=100` so many of them twice.
//!
//! Checked while clients read, and at the end of every seed by a node without faults, by the names of DESIGN:
//! what was acknowledged is there (I1), once and in order (I2), linearizable (I4), nothing is shown that is not
//! part of history (I5), pages are right (I9), transactions are whole, and what was refused is absent (I11, I12),
//! and somebody serves (I16). Nodes sweep the bucket all the time, and die doing it; at the end nothing that is needed
//! is missing (I6), and once everything is drained and swept, nothing is left that nobody can reach (I8).
//!
//! In half of the seeds databases have a past: see [`past`].
//!
//! In every third seed a page server makes the packs of their folds, as well as it can. In every other seed nodes read
//! what others own: then what a replica shows is part of history (I5), at least what its client asked for, and at most
//! as old as it says.

mod audit;
mod bank;
mod bulk;
mod client;
mod cluster;
mod cold;
mod counts;
mod ending;
mod faults;
mod hits;
mod life;
mod list;
mod machine;
#[cfg(feature = "mutants")]
mod mutants;
mod oracle;
mod past;
mod peers;
mod rng;
mod scratch;
mod staleness;
mod unreliable;
mod world;

use counts::{Counts, Run};
use hits::Hits;
use past::Tally;

/// Seeds of the fast tier, and how many of them run twice.
const SEEDS: u64 = 200;
const TWICE: u64 = 10;
/// Cycles of garbage collection, on an average.
const CYCLES_PER_SEED: u64 = 10;

/// Seeds beyond the fast tier that have found a bug.
const KEPT: [(u64, &str); 11] = [
    (23, "a node whose clock was a little behind listed a history without its newest commits"),
    (44, "the same, of a restored database"),
    (87, "a node that ended while its overlays were large spun for ever, looking for who should fold"),
    (100_141, "a base that a fork of an ended database stored and could not link stayed for ever"),
    (200_254, "a database restored by a clock that was behind was older than the one whose place it took"),
    (200_392, "of one that was deleted by such a clock it was said that it had gone before it came"),
    (200_579, "a replica took a log that was drained meanwhile for one without commits, and called itself complete"),
    (200_990, "a database that was restored to before its first commit was older than the one whose place it took"),
    (400_458, "a database whose time was up, and whose owner had died, was left to him by every sweep"),
    (500_576, "a fork that was written without an answer, and refused when it was sent again, was called not done"),
    (601_609, "a node whose clock was ahead swept the marker of a database that was to end, and nobody found it again"),
];

/// SQLite's random numbers are the process's: two worlds at once would disturb each other.
static ONE_WORLD: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn every_seed_keeps_its_promises_and_repeats_itself() {
    let _alone = ONE_WORLD.lock();
    if let Some(seed) = number("SHOAL_SEED") {
        let run = world::run(seed);
        println!("{}", run.trace.join("\n"));
        assert!(run.broken.is_empty(), "seed {seed}: {}", run.broken.join("\n"));
        return;
    }
    let (mut hits, mut counts, mut past) = (Hits::new(), Counts::default(), Tally::new());
    let seeds = number("SHOAL_SEEDS").unwrap_or(SEEDS);
    let first_seed = number("SHOAL_FIRST_SEED").unwrap_or(0);
    let twice = number("SHOAL_TWICE").unwrap_or(TWICE);
    let mut broken = Vec::new();
    for seed in first_seed..first_seed + seeds {
        let first = world::run(seed);
        if !first.broken.is_empty() {
            broken.push(format!("seed {seed}: {}", first.broken.join("\n    ")));
            println!("{}", broken.last().expect("just pushed"));
        }
        if seed < first_seed + twice {
            repeat(seed, &first);
        }
        counts += first.counts;
        for (cell, count) in first.hits {
            *hits.entry(cell).or_default() += count;
        }
        for (what, count) in first.past {
            *past.entry(what).or_default() += count;
        }
    }
    hits::print(&hits);
    println!("simulation: {seeds} seeds, {twice} of them twice: {counts:?}");
    println!("simulation: with a past: {past:?}");
    println!("simulation: {} cycles of garbage collection", counts.cycles());
    assert!(
        broken.is_empty(),
        "{} seeds are broken; run one again: SHOAL_SEED=… cargo test --release -p compute --test simulation -- --nocapture\n{}",
        broken.len(),
        broken.join("\n")
    );
    assert!(counts.events / seeds >= 200, "the simulation does too little");
    assert!(counts.takeovers * 10 >= seeds * 3, "too few takeovers");
    if seeds >= SEEDS {
        assert!(counts.replica_reads * 4 >= seeds, "too few reads at replicas: {counts:?}");
        assert!(counts.cycles() >= seeds * CYCLES_PER_SEED, "too few cycles of garbage collection: {counts:?}");
        let happened = [
            ("pause", counts.pauses),
            ("fence", counts.fenced),
            ("log given up", counts.given_up),
            ("deletion", counts.deletions),
            ("read from a cache disk", counts.disk_hits),
            ("damage on it", counts.disk_damaged),
            ("transaction without memory", counts.out_of_memory),
        ];
        for (what, count) in happened {
            assert!(count > 0, "no seed had a {what}");
        }
        for what in past::KINDS {
            assert!(past.contains_key(what), "no seed had a {what}");
        }
    }
}

#[test]
fn seeds_that_have_found_a_bug_stay_right() {
    let _alone = ONE_WORLD.lock();
    for (seed, bug) in KEPT {
        let run = world::run(seed);
        assert!(run.broken.is_empty(), "seed {seed} ({bug}): {}", run.broken.join("\n"));
    }
}

/// The same seed must give the same world.
fn repeat(seed: u64, first: &Run) {
    let second = world::run(seed);
    let differs = first.trace.iter().zip(&second.trace).position(|(a, b)| a != b);
    let lines = differs.map(|at| (&first.trace[at], &second.trace[at]));
    assert_eq!(lines, None, "seed {seed} took another way at line {differs:?}");
    assert_eq!(first.trace.len(), second.trace.len(), "seed {seed} took another way at its end");
    assert_eq!(first.bucket, second.bucket, "seed {seed} left another bucket");
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a number")))
}
