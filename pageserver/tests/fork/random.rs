//! Random lives of whole trees: commits, folds, forks and restores of random commits and times, at the edges of what is
//! kept and beyond them, undeletes, deletes, collections, sweeps, and forks in whose middle all of that happens.
//!
//! `SHOAL_SEEDS=2000 cargo test --release -p pageserver --test fork random` runs that many, `SHOAL_FIRST_SEED=5000`
//! others, and `SHOAL_SEED=7` one. Sweeps and collections are its cycles of garbage collection, and are counted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pageserver::history::Window;
use tenant::head::HeadState;

use crate::forest::{Forest, RETENTION_SECS};
use crate::slow::Slow;

/// Seeds of the fast tier.
const SEEDS: u64 = 200;
const STEPS: u64 = 60;
/// Cycles of garbage collection, on an average.
const CYCLES_PER_SEED: u64 = 8;
/// So deep a line of descent grows in every fifth seed, however many steps that takes.
const DEPTH: usize = 20;
const LIVING_MAX: usize = 12;
const SLOW_MAX: usize = 3;
/// Requests of a fork before one of which it stops.
const SLOW_REQUESTS: usize = 6;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        from.get(self.roll(from.len().max(1))).copied()
    }
}

/// What every large run must have had.
const KINDS: [&str; 11] = [
    "fork",
    "fork by time",
    "fork of the present",
    "restore",
    "restore by time",
    "undelete",
    "time refused",
    "commit refused",
    "interrupted fork made",
    "interrupted fork undone",
    "ancestor ended",
];

/// What happened, and how many databases one descends from at most.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    tally: BTreeMap<&'static str, u64>,
    deepest: usize,
}

impl Counts {
    fn did(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    fn add(&mut self, other: Self) {
        for (what, count) in other.tally {
            *self.tally.entry(what).or_default() += count;
        }
        self.deepest = self.deepest.max(other.deepest);
    }

    /// Sweeps, each of the whole bucket, and collections, each of one database.
    fn cycles(&self) -> u64 {
        ["sweep", "sweep at the end", "collection"].iter().filter_map(|what| self.tally.get(what)).sum()
    }

    fn assert_all_happened(&self) {
        for what in KINDS {
            assert!(self.tally.contains_key(what), "no seed had a {what}");
        }
        assert!(self.deepest >= DEPTH, "no line of descent is {DEPTH} deep");
    }
}

/// A commit that is to be gone back to, and whether a time led there.
#[derive(Clone, Copy)]
struct Wanted {
    lsn: u64,
    by_time: bool,
}

struct Life {
    forest: Forest,
    dice: Dice,
    /// Forks that have stopped.
    slow: Vec<Slow>,
    counts: Counts,
}

impl Forest {
    /// How many databases it descends from.
    fn depth(&self, at: usize) -> usize {
        self.ancestors(at).count()
    }

    /// The nearest first.
    fn ancestors(&self, at: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(self.all[at].parent, |at| self.all[*at].parent)
    }

    fn living(&self) -> Vec<usize> {
        (0..self.all.len()).filter(|at| !self.all[*at].is_over()).collect()
    }
}

impl Life {
    async fn begin(seed: u64) -> Self {
        let mut forest = Forest::new();
        forest.create(if seed.is_multiple_of(3) { 0 } else { RETENTION_SECS }).await;
        Self { forest, dice: Dice(seed), slow: Vec::new(), counts: Counts::default() }
    }

    async fn commit(&mut self, at: usize) {
        let sizes = if self.dice.roll(4) == 0 { 70 } else { 12 };
        let size = 1 + self.dice.roll(sizes) as u32;
        let pages: Vec<u32> = (0..1 + self.dice.roll(5)).map(|_| 1 + self.dice.roll(size as usize) as u32).collect();
        let pages: BTreeSet<u32> = pages.into_iter().collect();
        self.forest.commit(at, &pages.into_iter().collect::<Vec<_>>(), size).await;
    }

    /// A moment to go back to, often one at an edge. `None`: it lies beyond one, and is refused.
    async fn moment(&mut self, at: usize) -> Option<Wanted> {
        let by_time = self.dice.roll(2) == 0;
        let found = if by_time { self.by_time(at).await } else { self.by_commit(at).await };
        if found.is_none() {
            self.counts.did(if by_time { "time refused" } else { "commit refused" });
        }
        Some(Wanted { lsn: found?, by_time })
    }

    async fn by_commit(&mut self, at: usize) -> Option<u64> {
        if !self.forest.all[at].is_over() {
            self.forest.fold(at).await;
        }
        let Window { oldest, newest } = self.forest.window(at).await;
        let beyond = match self.dice.roll(6) {
            0 => return Some(oldest.lsn),
            1 => return Some(newest.lsn),
            2 if oldest.lsn > 0 => self.dice.roll(oldest.lsn as usize) as u64,
            3 => newest.lsn + 1,
            _ => return Some(oldest.lsn + self.dice.roll((newest.lsn - oldest.lsn + 1) as usize) as u64),
        };
        self.forest.assert_refused(at, beyond).await;
        None
    }

    async fn by_time(&mut self, at: usize) -> Option<u64> {
        let (now, oldest) = (self.forest.seam.wall_micros(), self.forest.window(at).await.oldest);
        // Of what it has from its parent, too, which is none of its own window.
        let times: Vec<u64> = self.forest.all[at].states.values().map(|(time, _)| *time).collect();
        let time = self.dice.pick(&times).filter(|time| *time > 0).unwrap_or(now);
        let micros = match self.dice.roll(8) {
            0 | 1 => time,
            // A millisecond before a commit, and a microsecond after it.
            2 => time - 1_000,
            3 => time + 1,
            4 => time + self.dice.roll((now - time + 1) as usize) as u64,
            5 => oldest.time_micros.saturating_sub(1),
            6 => now,
            _ => now + 1 + self.dice.roll(1_000_000) as u64,
        };
        self.forest.commit_at(at, micros).await
    }

    async fn fork(&mut self, at: usize) -> Option<usize> {
        let Wanted { lsn, by_time } = self.moment(at).await?;
        let fork = self.forest.fork(at, lsn).await;
        self.forest.check(fork).await;
        self.counts.did(if by_time { "fork by time" } else { "fork" });
        Some(fork)
    }

    async fn restore(&mut self, at: usize) {
        // It folds all, which may raise the horizon.
        self.forest.fold(at).await;
        let Some(Wanted { lsn, by_time }) = self.moment(at).await else { return };
        self.note_end(at);
        let new = self.forest.restore(at, at, lsn).await;
        self.forest.check(new).await;
        self.counts.did(if by_time { "restore by time" } else { "restore" });
    }

    async fn delete(&mut self, at: usize) {
        self.note_end(at);
        self.forest.delete(at).await;
    }

    fn note_end(&mut self, at: usize) {
        let forest = &self.forest;
        let has_descendants = forest.living().into_iter().any(|it| forest.ancestors(it).any(|ancestor| ancestor == at));
        if has_descendants {
            self.counts.did("ancestor ended");
        }
    }

    /// Forks what has ended, as long as it is there.
    async fn undelete(&mut self) {
        let ended: Vec<usize> = (0..self.forest.all.len()).filter(|at| self.forest.all[*at].is_over()).collect();
        let Some(at) = self.dice.pick(&ended) else { return };
        if !self.forest.is_kept(at).await {
            self.forest.assert_gone(at).await;
            self.counts.did("undelete refused");
        } else if self.fork(at).await.is_some() {
            self.counts.did("undelete");
        }
    }

    /// Begins a fork that stops somewhere.
    async fn fork_slowly(&mut self, at: usize) {
        let Some(Wanted { lsn, .. }) = self.moment(at).await else { return };
        let stop_at = self.dice.roll(SLOW_REQUESTS) as u64;
        let slow = Slow::begin(&self.forest, at, lsn, stop_at).await;
        match slow.has_stopped() {
            true => self.slow.push(slow),
            false => drop(slow.go_on(&mut self.forest).await),
        }
    }

    async fn go_on(&mut self) {
        if self.slow.is_empty() {
            return;
        }
        let slow = self.slow.remove(self.dice.roll(self.slow.len()));
        match slow.go_on(&mut self.forest).await {
            Some(_) => self.counts.did("interrupted fork made"),
            None => self.counts.did("interrupted fork undone"),
        }
    }

    async fn sweep(&mut self, releases: bool) {
        if releases {
            for at in self.forest.living() {
                self.forest.release(at).await;
            }
        }
        self.forest.sweep().await;
        self.counts.did("sweep");
    }

    /// The longest line of descent grows, and loses one that it descends from.
    async fn descend(&mut self) {
        let living = self.forest.living();
        let Some(at) = living.into_iter().max_by_key(|at| (self.forest.depth(*at), *at)) else { return };
        let Some(fork) = self.fork(at).await else { return };
        if self.dice.roll(2) == 0 {
            self.commit(fork).await;
        }
        let ancestors: Vec<usize> = self.forest.ancestors(fork).filter(|at| !self.forest.all[*at].is_over()).collect();
        if let Some(ancestor) = self.dice.pick(&ancestors).filter(|_| ancestors.len() > 3 || self.dice.roll(3) == 0) {
            self.delete(ancestor).await;
        }
        if self.dice.roll(3) == 0 {
            let releases = self.dice.roll(2) == 0;
            self.sweep(releases).await;
        }
    }

    async fn step(&mut self) {
        let living = self.forest.living();
        let Some(at) = self.dice.pick(&living) else {
            self.forest.create(RETENTION_SECS).await;
            return;
        };
        let may_fork = living.len() < LIVING_MAX;
        match self.dice.roll(29) {
            0..=8 => self.commit(at).await,
            9..=11 => drop(self.forest.fold(at).await),
            12..=14 if may_fork => drop(self.fork(at).await),
            15 if may_fork => {
                let fork = self.forest.fork_now(at, RETENTION_SECS).await;
                self.forest.check(fork).await;
                self.counts.did("fork of the present");
            }
            16 => self.restore(at).await,
            17 => self.delete(at).await,
            18 => {
                if let Some(Wanted { lsn, .. }) = self.moment(at).await {
                    let shown = self.forest.check_past(at, lsn).await;
                    shown.unwrap_or_else(|error| panic!("R19: database {at} as of {lsn}: {error}"));
                }
            }
            19 => tokio::time::advance(Duration::from_secs(self.dice.roll(RETENTION_SECS as usize) as u64)).await,
            20 => {
                self.forest.owned(at).await;
                self.forest.tidy(at, self.forest.store()).await.expect("a store that works");
                self.forest.collect(at).await;
                self.counts.did("collection");
            }
            21 if may_fork => self.undelete().await,
            22..=24 if may_fork && self.slow.len() < SLOW_MAX => self.fork_slowly(at).await,
            25..=26 => self.go_on().await,
            _ => {
                let releases = self.dice.roll(2) == 0;
                self.sweep(releases).await;
            }
        }
    }

    async fn check_all(&mut self) {
        // The check of a bucket takes a fork in whose middle it comes for one that has lost its head.
        while !self.slow.is_empty() {
            self.go_on().await;
        }
        for at in 0..self.forest.all.len() {
            if self.forest.head(at).await.value.state == HeadState::Live {
                self.forest.check(at).await;
            }
        }
        crate::check_bucket(&self.forest).await;
        self.counts.deepest = (0..self.forest.all.len()).map(|at| self.forest.depth(at)).max().unwrap_or(0);
    }

    /// Nothing stays once everything is deleted and forgotten.
    async fn end(&mut self) {
        for at in self.forest.living() {
            self.forest.delete(at).await;
        }
        tokio::time::advance(Duration::from_secs(200_000)).await;
        // Pins are lifted from the leaves of a tree to its root.
        for _ in 0..self.forest.all.len() + 2 {
            if self.forest.objects().is_empty() {
                break;
            }
            self.forest.sweep().await;
            self.counts.did("sweep at the end");
        }
        let left = self.forest.objects();
        assert!(left.is_empty(), "R20: {left:?} stay, and nothing leads there");
    }
}

async fn live(seed: u64) -> Counts {
    let mut life = Life::begin(seed).await;
    let depth = if seed % 5 == 4 { DEPTH } else { 0 };
    for number in 0.. {
        match depth > 0 && life.dice.roll(2) == 0 {
            true => life.descend().await,
            false => life.step().await,
        }
        if number % 15 == 14 {
            life.check_all().await;
            if number >= STEPS - 1 && life.counts.deepest >= depth {
                break;
            }
        }
    }
    life.end().await;
    life.counts
}

/// What happened, or what was not as it must be.
pub async fn run(seed: u64) -> Result<Counts, String> {
    crate::told(live(seed)).await
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a number")))
}

#[tokio::test(start_paused = true)]
async fn every_state_of_every_tree_is_as_the_model_has_it() {
    let first = number("SHOAL_FIRST_SEED").unwrap_or(0);
    let seeds = first..first + number("SHOAL_SEEDS").unwrap_or(SEEDS);
    let seeds = number("SHOAL_SEED").map_or(seeds, |seed| seed..seed + 1);
    let (count, mut sum) = (seeds.end - seeds.start, Counts::default());
    for seed in seeds {
        let counts = run(seed).await.unwrap_or_else(|broken| {
            let again = "cargo test --release -p pageserver --test fork random";
            panic!("seed {seed}: {broken}\nrun it again: SHOAL_SEED={seed} {again}")
        });
        sum.add(counts);
    }
    println!("forks: {count} seeds, lines of descent up to {} deep: {:?}", sum.deepest, sum.tally);
    println!("forks: {} cycles of garbage collection", sum.cycles());
    if count >= SEEDS {
        sum.assert_all_happened();
        assert!(sum.cycles() >= count * CYCLES_PER_SEED, "too few cycles of garbage collection: {:?}", sum.tally);
    }
}
