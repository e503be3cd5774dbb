//! page(P, L) is what SQLite's own file has in page P after the commit L (I9).
//!
//! A seed draws a history: growth, shrinking, VACUUM, incremental vacuum, transactions that spill, large blobs, big
//! tables that are dropped and made again, rollbacks. The same statements run on a plain file, with the same build of
//! SQLite, and through the VFS. In between the database is folded, merged, collected, evicted, taken over after a
//! crash, and drained, and snapshots are held through all of that. Whatever is still readable is compared page by page
//! with the file as it was at that LSN.
//!
//! Half of the seeds keep the past for a second, and pin forks. Every state of the window is made from what the bucket
//! keeps, through all of that, and compared with the file as it was then; and so is what each fork begins with.
//!
//! What may differ are the counters that SQLite writes into the first page for other processes: the change counter
//! (bytes 24 to 27), the version that it is valid for and the version of SQLite (92 to 99); and what is in free pages,
//! which nobody reads ([`plain::Free`]).
//!
//! `SHOAL_SEED=7` runs one seed and prints what it does, `SHOAL_SEEDS=1000` that many.

mod history;
#[path = "../simulation/machine.rs"]
#[expect(dead_code, reason = "shared with the simulation, which also bends clocks")]
mod machine;
#[cfg(feature = "mutants")]
mod mutants;
mod node;
mod plain;
#[path = "../simulation/rng.rs"]
mod rng;
mod world;

/// Seeds of the fast tier.
const SEEDS: u64 = 16;

/// Seeds beyond these that have found a bug.
const KEPT: [(u64, &str); 1] = [(731, "a database of next to nothing was compacted without end")];

/// SQLite's random numbers are the process's: two worlds at once would disturb each other.
static ONE_WORLD: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn every_page_at_every_lsn_is_what_sqlites_own_file_has() {
    let _alone = ONE_WORLD.lock();
    if let Some(seed) = number("SHOAL_SEED") {
        let run = world::run(seed);
        println!("{}", run.trace.join("\n"));
        return run.verdict.unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
    let seeds = number("SHOAL_SEEDS").unwrap_or(SEEDS);
    let mut sum = world::Counts::default();
    for seed in 0..seeds {
        let run = world::run(seed);
        run.verdict.unwrap_or_else(|broken| {
            panic!("seed {seed}: {broken}\nrun it again: SHOAL_SEED={seed} cargo test --release -p compute --test pages -- --nocapture")
        });
        sum.add(&run.counts);
    }
    for (seed, bug) in KEPT {
        world::run(seed).verdict.unwrap_or_else(|broken| panic!("seed {seed} ({bug}): {broken}"));
    }
    println!("pages: {seeds} seeds: {sum:?}");
    if seeds >= SEEDS {
        sum.assert_all_happened();
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a number")))
}
