//! Random lives of a bucket with logs: nodes come, write, fold and die, databases change hands and end, folds leave
//! what nobody links, and all the while somebody sweeps, and often dies doing it.
//!
//! `SHOAL_SEEDS=2000 cargo test --release -p pageserver --test sweep random` runs that many, `SHOAL_FIRST_SEED=5000`
//! others, and `SHOAL_SEED=7` one. A sweep that came to the end of the bucket is a cycle of garbage collection.

use std::collections::BTreeSet;

use pageserver::drain::Drainer;
use pageserver::sweep::Collected;
use pageserver::verify::Options;
use segments::id::PackId;
use tenant::registry;
use walstore::id::IncarnationId;
use walstore::life::Incarnation;
use walstore::register::Patience;

use crate::held::Held;
use crate::witness::verify;
use crate::world::World;
use crate::{folds, litter, sweeper};

/// Seeds of the fast tier.
const SEEDS: u64 = 100;
const STEPS: usize = 60;
/// Cycles of garbage collection, on an average.
const CYCLES_PER_SEED: u64 = 12;
const NODES_MAX: usize = 3;
const DATABASES_MAX: usize = 6;
/// A sweep that dies does so before one of so many requests, if it makes as many.
const REQUESTS: usize = 25;
/// Incarnations in a tail, beyond which it is folded before anybody else writes.
const TAIL_MAX: usize = 2;
/// Rounds of draining, and sweeps, until nothing is left to do.
const LAST_ROUNDS: usize = 6;
/// Pages of databases: one in its head, and two with packs.
const SIZES: [u32; 3] = [2, 40, 90];

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

struct Life {
    world: World,
    dice: Dice,
    nodes: Vec<Incarnation>,
    /// By their places.
    deleted: BTreeSet<usize>,
    /// Sweeps that came to their end, and others.
    cycles: u64,
    deaths: u64,
}

/// Says which seed it was that failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let again = "cargo test --release -p pageserver --test sweep random";
            eprintln!("run it again: SHOAL_SEED={} {again}", self.0);
        }
    }
}

impl Life {
    async fn begin(seed: u64) -> Self {
        let world = World::new();
        litter::put_cluster(&world).await;
        let (nodes, deleted) = (Vec::new(), BTreeSet::new());
        Self { world, dice: Dice(seed), nodes, deleted, cycles: 0, deaths: 0 }
    }

    fn living(&self) -> impl Iterator<Item = usize> {
        (0..self.world.databases.len()).filter(|at| !self.deleted.contains(at))
    }

    /// Which node owns it, of those that are alive.
    async fn owner(&self, database: usize) -> Option<usize> {
        let owner = self.world.head(database).await.value.owner;
        self.nodes.iter().position(|node| Some(node.id) == owner)
    }

    /// One whose owner is alive, and that one; or, not `is_owned`, one whose owner is not.
    async fn any(&mut self, is_owned: bool) -> Option<(usize, Option<usize>)> {
        let mut found = Vec::new();
        for database in self.living() {
            let owner = self.owner(database).await;
            if owner.is_some() == is_owned {
                found.push((database, owner));
            }
        }
        self.dice.pick(&found)
    }

    async fn create(&mut self) {
        let node = self.dice.roll(self.nodes.len().max(1));
        let Some(node) = self.nodes.get(node) else { return };
        let database = self.world.create(node).await;
        let size = SIZES[self.dice.roll(SIZES.len())];
        self.world.commit(node, database, &(1..=size).collect::<Vec<_>>(), size);
    }

    async fn commit(&mut self) {
        let Some((database, Some(node))) = self.any(true).await else { return };
        let size = self.world.databases[database].pages.len() as u32;
        // All pages anew: then nothing needs the packs before.
        let pages: BTreeSet<u32> = match self.dice.roll(3) {
            0 => (1..=size).collect(),
            _ => (0..1 + self.dice.roll(4)).map(|_| 1 + self.dice.roll(size as usize) as u32).collect(),
        };
        self.world.commit(&self.nodes[node], database, &pages.into_iter().collect::<Vec<_>>(), size);
    }

    async fn acquire(&mut self) {
        let node = self.dice.roll(self.nodes.len().max(1));
        let Some((database, _)) = self.any(false).await else { return };
        let head = self.world.head(database).await.value;
        if head.owner.is_some() && (head.tail.len() >= TAIL_MAX || self.dice.roll(3) == 0) {
            self.world.fold_and_release(database).await;
        }
        if let Some(node) = self.nodes.get(node) {
            self.world.acquire(database, node).await;
        }
    }

    async fn delete(&mut self) {
        let Some((database, Some(node))) = self.any(true).await else { return };
        let (head, owner) = (self.world.head(database).await, self.nodes[node].id);
        let World { memory, seam, .. } = &self.world;
        let deleted = registry::delete_database(memory, seam, &head, owner, Patience::endless()).await;
        deleted.expect("it is the owner's");
        self.deleted.insert(database);
    }

    /// A pack of a fold that died, of this term or an earlier one.
    async fn leave_a_pack(&mut self) {
        let Some((database, _)) = self.any(true).await else { return };
        let head = self.world.head(database).await.value;
        let epoch = 1 + self.dice.roll(head.epoch as usize) as u64;
        let (seq, nonce) = (head.fold_seq + 1 + self.dice.roll(3) as u32, self.dice.roll(1 << 30) as u64);
        litter::put_pack(&self.world, PackId { owner: head.database, epoch, seq, nonce }).await;
    }

    async fn drain(&self) {
        let (world, me) = (&self.world, IncarnationId::random(&self.world.seam));
        let mut drainer = Drainer::new(me, world.stores(), world.seam.clone(), &world.fetcher());
        drainer.sweep().await.expect("a store that works");
    }

    /// A walk, and whether there was nothing to do.
    async fn sweep(&mut self) -> bool {
        let collected = sweeper(&self.world, self.world.memory.clone()).sweep().await.expect("a store that works");
        assert_eq!(collected.skipped, 0, "I6: a sweep meets what is damaged: {collected:?}");
        self.cycles += 1;
        collected == Collected::default()
    }

    async fn sweep_and_die(&mut self) {
        let at = self.dice.roll(REQUESTS) as u64;
        let dying = Held::dying(&self.world.memory, at);
        let _ = sweeper(&self.world, dying.clone()).sweep().await;
        match dying.request_count() > at {
            true => self.deaths += 1,
            false => self.cycles += 1,
        }
    }

    async fn die(&mut self) {
        if !self.nodes.is_empty() {
            let node = self.nodes.swap_remove(self.dice.roll(self.nodes.len()));
            folds::dies(&self.world, &node).await;
        }
    }

    async fn step(&mut self) {
        match self.dice.roll(26) {
            0..=1 if self.nodes.len() < NODES_MAX => self.nodes.push(self.world.node().await),
            2..=3 if self.world.databases.len() < DATABASES_MAX => self.create().await,
            4..=9 => self.commit().await,
            10..=11 => {
                if let Some((database, _)) = self.any(true).await {
                    self.world.fold(database).await;
                }
            }
            12 => self.die().await,
            13..=15 => self.acquire().await,
            16 => self.delete().await,
            17 => self.drain().await,
            18 => self.leave_a_pack().await,
            19..=22 => {
                self.sweep_and_die().await;
                self.check().await;
            }
            _ => {
                self.sweep().await;
                self.check().await;
            }
        }
    }

    /// Nothing that is needed is missing, and what nobody writes to is what its clients know.
    async fn check(&self) {
        let (found, _) = verify(&self.world.memory, &self.world.seam, &Options::default()).await;
        assert_eq!(found.damages, vec![], "I6");
        for database in self.living() {
            if self.owner(database).await.is_none() {
                self.world.check(database).await;
            }
        }
    }

    /// Once everybody is dead and all of that is drained, sweeps leave nothing that nobody can reach.
    async fn end(&mut self) {
        while !self.nodes.is_empty() {
            self.die().await;
        }
        for _ in 0..LAST_ROUNDS {
            self.drain().await;
        }
        for round in 0.. {
            if self.sweep().await {
                break;
            }
            assert!(round < LAST_ROUNDS, "I8: sweeps find something to do for ever");
        }
        self.check().await;
        let (found, _) = verify(&self.world.memory, &self.world.seam, &Options::default()).await;
        assert!(found.orphans.is_empty(), "I8: left behind: {:?}", found.orphans);
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a number")))
}

#[tokio::test(start_paused = true)]
async fn whoever_dies_nothing_is_lost_and_in_the_end_nothing_is_left() {
    let first = number("SHOAL_FIRST_SEED").unwrap_or(0);
    let seeds = first..first + number("SHOAL_SEEDS").unwrap_or(SEEDS);
    let seeds = number("SHOAL_SEED").map_or(seeds, |seed| seed..seed + 1);
    let (count, mut cycles, mut deaths) = (seeds.end - seeds.start, 0, 0);
    for seed in seeds {
        let _seed = Seed(seed);
        let mut life = Life::begin(seed).await;
        for _ in 0..STEPS {
            life.step().await;
        }
        life.end().await;
        cycles += life.cycles;
        deaths += life.deaths;
    }
    println!("sweeps: {count} seeds, {cycles} cycles of garbage collection, {deaths} sweeps that died");
    if count >= SEEDS {
        assert!(cycles >= count * CYCLES_PER_SEED && deaths >= count, "too few: {cycles}, {deaths}");
    }
}
