//! The whole node under simulation: the production executor, VFS, sessions and HTTP code with real SQLite,
//! on a simulated store, clock and randomness.
//!
//! A seed decides everything: what clients do, which requests are lost, late, repeated or refused, when
//! the node dies and whether its successor knows of it. Each seed runs twice and must give the same trace,
//! byte for byte. `SHOAL_SEED=7 cargo test --release -p compute --test simulation -- --nocapture` runs one
//! seed and prints its trace; `SHOAL_SEEDS=1000` runs that many.
//!
//! Checked at the end of every seed, by a node without faults: every acknowledged transfer is there (I1),
//! nothing is there that was not sent, every transfer is whole (I11), the sum of the balances and
//! `integrity_check` are right (I9), and what was refused is absent (I12).

mod client;
mod oracle;
mod world;

use std::collections::BTreeMap;

use world::World;

/// Seeds of the fast tier.
const SEEDS: u64 = 20;

#[test]
fn every_seed_keeps_its_promises_and_repeats_itself() {
    if let Some(seed) = number("SHOAL_SEED") {
        let run = World::run(seed);
        println!("{}", run.trace.join("\n"));
        run.verdict.unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        return;
    }
    let mut hits: BTreeMap<String, u64> = BTreeMap::new();
    let (mut events, mut takeovers, mut acknowledged, mut unknown) = (0, 0, 0, 0);
    let seeds = number("SHOAL_SEEDS").unwrap_or(SEEDS);
    for seed in 0..seeds {
        let first = World::run(seed);
        if let Err(broken) = &first.verdict {
            panic!("seed {seed}: {broken}\nrun it again: SHOAL_SEED={seed} cargo test --release -p compute --test simulation -- --nocapture");
        }
        let second = World::run(seed);
        let differs = first.trace.iter().zip(&second.trace).position(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed} took another way: {:?}", differs.map(|at| (&first.trace[at], &second.trace[at])));
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed} took another way at its end");
        assert_eq!(first.bucket, second.bucket, "seed {seed} left another bucket");
        events += first.trace.len();
        takeovers += first.takeovers;
        acknowledged += first.acknowledged;
        unknown += first.unknown;
        for (fault, count) in first.fault_counts {
            *hits.entry(fault).or_default() += count;
        }
    }
    println!("seeds {seeds}, events {events}, takeovers {takeovers}");
    println!("transfers acknowledged {acknowledged} and lost 0, with an unknown outcome {unknown}");
    println!("faults: {hits:?}");
    assert!(events as u64 / seeds >= 200, "the simulation does too little: {events} events");
    assert!(takeovers * 10 >= seeds * 3, "too few takeovers: {takeovers}");
    if seeds >= SEEDS {
        for fault in ["Lost", "AnswerLost", "Late", "Duplicated", "Unavailable", "Slow"] {
            assert!(hits.get(fault).is_some_and(|count| *count > 0), "no seed met the fault {fault}");
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a number")))
}
