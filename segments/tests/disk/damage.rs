//! Row R10: the file is damaged in every way, over and over, while several databases are read from it. After each
//! damage every read gives the right bytes or is a miss, and what is put in again is there.

use bytes::Bytes;
use segments::disk::file::simulated::{Damage, SimulatedDisk};
use segments::disk::{CacheKey, DiskCache};

use crate::rig::{Medium, Rng, entry, number, run};

const CAPACITY: u64 = 3 << 20;
const ENTRIES: u64 = 48;
/// What stands before the bytes of an entry, from a multiple of 16 on.
const SLOT_HEADER: usize = 57;
/// Damages of the fast tier; a tenth as many on real files.
const DAMAGES: u64 = 2_000;

/// What a run came to.
#[derive(Debug, Default)]
struct Tally {
    damages: u64,
    restarts: u64,
    reads: u64,
    missed: u64,
    detected: u64,
}

/// A cache with entries of several databases, some of which have the same length as one of another database.
struct World<'a> {
    medium: &'a Medium,
    cache: DiskCache,
    entries: Vec<(CacheKey, Bytes)>,
    rng: Rng,
    tally: Tally,
}

impl<'a> World<'a> {
    async fn new(medium: &'a Medium, seed: u64) -> Self {
        let mut rng = Rng(seed);
        let mut length = || {
            let magnitude = 8 + rng.below(10);
            100 + rng.below(1 << magnitude)
        };
        let lengths: Vec<usize> = (0..ENTRIES / 2).map(|_| length()).collect();
        let entries: Vec<_> = (0..ENTRIES).map(|number| entry(number, lengths[number as usize / 2])).collect();
        let cache = medium.open(CAPACITY).await;
        for (key, stored) in &entries {
            cache.put(key, stored);
        }
        cache.settle().await;
        Self { medium, cache, entries, rng, tally: Tally::default() }
    }

    /// One damage, sometimes a restart, then every entry is read. The error is a broken promise.
    async fn round(&mut self) -> Result<(), String> {
        let restarts = self.rng.below(6) == 0;
        if restarts {
            // Whatever is not written yet is lost with the process.
            self.tally.detected += self.cache.counters().damaged;
            self.cache = DiskCache::absent();
        }
        self.damage();
        if restarts {
            self.tally.restarts += 1;
            self.cache = self.medium.open(CAPACITY).await;
        }
        self.tally.damages += 1;
        for at in 0..self.entries.len() {
            self.read(at).await?;
        }
        if self.rng.below(3) > 0 {
            self.cache.settle().await;
        }
        Ok(())
    }

    async fn read(&mut self, at: usize) -> Result<(), String> {
        let (key, stored) = &self.entries[at];
        self.tally.reads += 1;
        match self.cache.get(key).await {
            Some(found) if found == *stored => return Ok(()),
            Some(_) => return Err(format!("I15: other bytes than {key:?} has, after {} damages", self.tally.damages)),
            None => self.tally.missed += 1,
        }
        let refused = self.cache.counters().refused;
        self.cache.put(key, stored);
        let is_there = self.cache.get(key).await.as_ref() == Some(stored);
        if !is_there && self.cache.counters().refused == refused {
            return Err(format!("{key:?} was put in and is not there"));
        }
        Ok(())
    }

    fn damage(&mut self) {
        let kind = self.rng.below(Damage::ALL.len() + 3);
        match (self.medium, Damage::ALL.get(kind)) {
            (Medium::Simulated(disk), Some(damage)) => disk.damage(*damage),
            (medium, Some(damage)) => medium.edit(|bytes| {
                let disk = SimulatedDisk::new(self.rng.next());
                disk.edit(|content| std::mem::swap(content, bytes));
                disk.damage(*damage);
                disk.edit(|content| std::mem::swap(content, bytes));
            }),
            (medium, None) => medium.edit(|bytes| self.swap_tenants(bytes)),
        }
    }

    /// Two entries of different databases change places: with their keys, or their bytes alone.
    fn swap_tenants(&mut self, bytes: &mut [u8]) {
        let pair = self.rng.below(self.entries.len() / 2) * 2;
        let (one, other) = (&self.entries[pair].1, &self.entries[pair + 1].1);
        let (skip, length) = if self.rng.below(2) == 0 { (0, SLOT_HEADER + one.len()) } else { (SLOT_HEADER, one.len()) };
        let holds = |at: usize, stored: &Bytes| bytes.get(at + SLOT_HEADER..).is_some_and(|slot| slot.starts_with(stored));
        let find = |stored: &Bytes| (0..bytes.len()).step_by(16).find(|at| holds(*at, stored)).map(|at| at + skip);
        let (Some(first), Some(second)) = (find(one), find(other)) else { return };
        let kept = bytes[first..first + length].to_vec();
        bytes.copy_within(second..second + length, first);
        bytes[second..second + length].copy_from_slice(&kept);
    }
}

fn suffer(medium: &Medium, seed: u64, damages: u64) -> (Tally, Result<(), String>) {
    run(false, async {
        let mut world = World::new(medium, seed).await;
        for _ in 0..damages {
            if let Err(broken) = world.round().await {
                return (world.tally, Err(broken));
            }
        }
        world.tally.detected += world.cache.counters().damaged;
        (world.tally, Ok(()))
    })
}

#[test]
fn no_damage_is_ever_served() {
    let seed = number("SHOAL_SEED").unwrap_or(1);
    let damages = number("SHOAL_DAMAGES").unwrap_or(DAMAGES);
    for (name, medium) in Medium::all() {
        let damages = if name == "simulated" { damages } else { damages / 10 };
        let (tally, outcome) = suffer(&medium, seed, damages);
        println!("simulation: cache damage, {name}: {tally:?}");
        assert_eq!(outcome, Ok(()), "{name}, SHOAL_SEED={seed}");
        assert!(tally.detected > damages / 4 && tally.missed > tally.detected, "{name}: the damages hit too little: {tally:?}");
        assert!(tally.missed < tally.reads / 2, "{name}: the cache is empty most of the time: {tally:?}");
    }
}

/// A cache that does not look at what it finds must be caught.
#[cfg(feature = "mutants")]
#[test]
fn a_mutant_that_skips_the_check_of_slots_is_caught() {
    use walstore::mutant::{self, Mutant};
    mutant::turn_on(Some(Mutant::SkipSlotCheck));
    let (tally, outcome) = suffer(&Medium::simulated(1), 1, DAMAGES);
    mutant::turn_on(None);
    let broken = outcome.expect_err("it lives");
    assert!(broken.starts_with("I15"), "{broken}");
    println!("SkipSlotCheck: caught by I15 after {} damages", tally.damages);
}
