//! Sweeping the bucket: what is dead goes, what is not stays, whoever dies in between.

mod dead_space;
mod expired;
mod folds;
#[path = "../../../walstore/tests/support/mod.rs"]
mod held;
mod litter;
#[cfg(feature = "mutants")]
mod mutants;
mod random;
mod scrub;
#[path = "../damage/witness.rs"]
mod witness;
#[path = "../drain/world.rs"]
mod world;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use held::Held;
use litter::{DELETED, Litter, LIVING};
use pageserver::fetcher::Fetcher;
use pageserver::orphan::Standing;
use pageserver::sweep::{Collected, Sweeper};
use pageserver::verify::Options;
use segments::cache::PageCache;
use segments::id::PackId;
use tenant::name::Name;
use tenant::record::{NameRecord, NameState, Origin};
use walstore::id::{DatabaseId, IncarnationId, PutId};
use walstore::keys;
use walstore::life::Stores;
use walstore::register::Record;
use walstore::store::{Condition, CountedStore, Key, Op, Store};
use witness::verify;
use world::World;

fn fetcher_of(world: &World, stores: &Stores) -> Fetcher {
    Fetcher::new(stores.main.clone(), world.seam.clone(), PageCache::new(1 << 20), 8 << 20)
}

fn sweeper(world: &World, store: impl Store) -> Sweeper {
    sweeper_of(world, Arc::new(store))
}

fn sweeper_of(world: &World, store: Arc<dyn Store>) -> Sweeper {
    let stores = Stores::one(store);
    let fetcher = fetcher_of(world, &stores);
    Sweeper::new(IncarnationId::random(&world.seam), stores, world.seam.clone(), &fetcher)
}

/// Nothing is damaged, every database is what its client knows, and these are all orphans.
async fn assert_sound(world: &World, expected: &[&Key]) {
    let (found, _) = verify(&world.memory, &world.seam, &Options::default()).await;
    assert_eq!(found.damages, vec![]);
    let mut orphans: Vec<&Key> = found.orphans.iter().map(|orphan| &orphan.key).collect();
    orphans.sort();
    assert_eq!(orphans, expected);
    // A living owner's log is not read by `check`, which would end it.
    for database in (0..world.databases.len()).filter(|database| ![DELETED, LIVING].contains(database)) {
        world.check(database).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_sweep_takes_what_is_dead_and_leaves_what_may_be_in_flight() {
    let litter = Litter::new().await;
    let (found, summary) = verify(&litter.world.memory, &litter.world.seam, &Options::default()).await;
    assert_eq!(found.damages, vec![]);
    assert!(summary.dead.objects > 0 && summary.waiting.objects > 0, "{summary:?}");
    let is_dead = |key: &Key| {
        let orphan = found.orphans.iter().find(|orphan| orphan.key == *key);
        matches!(orphan.unwrap_or_else(|| panic!("{key} is no orphan")).standing, Standing::Dead(_))
    };
    assert!(litter.dead.iter().all(is_dead), "{:?}", found.orphans);
    assert!(!litter.in_flight.iter().any(is_dead), "{:?}", found.orphans);

    let collected = sweeper(&litter.world, litter.world.memory.clone()).sweep().await.unwrap();
    let keys = litter.world.memory.keys();
    assert!(litter.dead.iter().all(|key| !keys.contains(key)), "{collected:?}");
    assert!(litter.in_flight.iter().all(|key| keys.contains(key)), "{collected:?}");
    assert_eq!((collected.databases, collected.markers, collected.skipped), (1, 1, 0), "{collected:?}");
    let objects_of_deleted = litter.world.objects_of(DELETED);
    assert_eq!(objects_of_deleted, [tenant::keys::head(litter.world.databases[DELETED].id)], "a small head stays");
    assert_sound(&litter.world, &litter.in_flight.iter().collect::<Vec<_>>()).await;
    let again = sweeper(&litter.world, litter.world.memory.clone()).sweep().await.unwrap();
    assert_eq!(again, Collected::default(), "and then there is nothing to do");
}

#[tokio::test(start_paused = true)]
async fn once_no_node_is_alive_nothing_that_cannot_be_reached_stays() {
    let litter = Litter::new().await;
    litter.everybody_dies().await;
    let collected = sweeper(&litter.world, litter.world.memory.clone()).sweep().await.unwrap();
    assert_eq!(collected.released, 1, "the database that its owner never wrote to; {collected:?}");
    assert_sound(&litter.world, &[]).await;
    litter.world.check(LIVING).await;
}

#[tokio::test(start_paused = true)]
async fn a_sweep_that_dies_at_any_request_neither_loses_nor_leaks() {
    let mut at = 0;
    loop {
        let litter = Litter::new().await;
        litter.everybody_dies().await;
        let dying = Held::dying(&litter.world.memory, at);
        let _ = sweeper(&litter.world, dying.clone()).sweep().await;
        let has_died = dying.request_count() > at;
        let (found, _) = verify(&litter.world.memory, &litter.world.seam, &Options::default()).await;
        assert_eq!(found.damages, vec![], "died at request {at}");
        sweeper(&litter.world, litter.world.memory.clone()).sweep().await.unwrap();
        assert_sound(&litter.world, &[]).await;
        if !has_died {
            assert!(at > 30, "{at} requests are too few to be all");
            return;
        }
        at += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn verify_deletes_the_dead_only_when_it_is_told_to() {
    let litter = Litter::new().await;
    let before = litter.world.memory.snapshot();
    verify(&litter.world.memory, &litter.world.seam, &Options::default()).await;
    assert!(litter.world.memory.snapshot() == before, "a check changes nothing");
    let options = Options { deletes_dead: true, ..Options::default() };
    let (found, summary) = verify(&litter.world.memory, &litter.world.seam, &options).await;
    assert_eq!((found.damages, summary.deleted), (vec![], summary.dead));
    let keys = litter.world.memory.keys();
    assert!(litter.dead.iter().all(|key| !keys.contains(key)));
    assert!(litter.in_flight.iter().all(|key| keys.contains(key)));
}

#[tokio::test(start_paused = true)]
async fn a_fleet_walks_once_in_an_interval() {
    let world = World::new();
    let counted = Arc::new(CountedStore::new(world.memory.clone()));
    let interval = Duration::from_secs(3600);
    for _ in 0..5 {
        let id = IncarnationId::random(&world.seam);
        let stores = Stores { main: counted.clone(), log: counted.clone() };
        let fetcher = fetcher_of(&world, &stores);
        world.seam.spawn(Sweeper::new(id, stores, world.seam.clone(), &fetcher).run(interval));
    }
    world.seam.sleep(interval * 20).await;
    let walks: u64 = counted.take().iter().filter(|((op, _), _)| *op == Op::List).map(|(_, counter)| counter.requests).sum();
    // A walk of an empty bucket is a LIST for each of six prefixes.
    assert!((6 * 14..=6 * 20).contains(&walks), "{walks} listings in 20 intervals");
}

#[tokio::test(start_paused = true)]
async fn damage_keeps_a_sweep_from_what_it_touches_and_from_nothing_else() {
    let litter = Litter::new().await;
    litter.everybody_dies().await;
    let head = tenant::keys::head(litter.world.databases[LIVING].id);
    litter.world.memory.put(&head, Bytes::from_static(b"damaged"), &Condition::None).await.unwrap();
    let collected = sweeper(&litter.world, litter.world.memory.clone()).sweep().await.unwrap();
    assert_eq!(collected.skipped, 1, "{collected:?}");
    let keys = litter.world.memory.keys();
    let prefix = tenant::keys::database_prefix(litter.world.databases[LIVING].id);
    let (of_damaged, others): (Vec<&Key>, Vec<&Key>) =
        litter.dead.iter().chain(&litter.in_flight).partition(|key| key.as_str().starts_with(&prefix));
    assert!(of_damaged.iter().all(|key| keys.contains(key)), "what may belong to the damaged database stays");
    assert!(others.iter().all(|key| !keys.contains(key)), "everything else goes");
}

#[tokio::test(start_paused = true)]
async fn a_marker_that_was_lost_is_put_again() {
    let litter = Litter::new().await;
    let live = keys::live(litter.living.id);
    litter.world.memory.delete(&live).await.unwrap();
    sweeper(&litter.world, litter.world.memory.clone()).sweep().await.unwrap();
    assert!(litter.world.memory.get(&live).await.unwrap().is_some());
}

/// Bug: what a fork or an import has uploaded before its head was told as the remains of a database that has lost it.
#[tokio::test(start_paused = true)]
async fn what_is_being_made_is_not_told_as_damaged() {
    let litter = Litter::new().await;
    let world = &litter.world;
    let (name, database) = (Name::parse("in-the-making").unwrap(), DatabaseId::random(&world.seam));
    litter::put_pack(world, PackId { owner: database, epoch: 1, seq: 1, nonce: 1 }).await;
    let damages = async |maker: IncarnationId| {
        let state = NameState::Live { database, origin: Origin::Import, incarnation: maker, is_made: false };
        let record = NameRecord::new(PutId::random(&world.seam), name.clone(), state);
        litter::put(world, &tenant::keys::name(&name), record.encode()).await;
        let (found, _) = verify(&world.memory, &world.seam, &Options::default()).await;
        found.damages.into_iter().map(|damage| damage.key).collect::<Vec<_>>()
    };
    assert_eq!(damages(litter.living.id).await, Vec::<String>::new());
    let over = world.node().await;
    folds::dies(world, &over).await;
    assert_eq!(damages(over.id).await, [tenant::keys::head(database).to_string()], "nobody goes on with it");
}
