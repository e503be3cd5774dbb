//! Draining incarnations that are over.

#[path = "../../../walstore/tests/support/mod.rs"]
mod held;
mod world;

use std::sync::Arc;
use std::time::Duration;

use held::Held;
use pageserver::drain::{Drainer, Swept};
use pageserver::fetcher::Fetcher;
use segments::cache::PageCache;
use walstore::id::IncarnationId;
use walstore::life::{Incarnation, Stores};
use walstore::limits;
use walstore::recovery::Access;
use walstore::store::{MemoryStore, Store};
use world::World;

const LARGE: usize = 3;
const FOLDED: usize = 1;
const DELETED: usize = 2;

/// A node with databases of all kinds, which is dead: nothing of its log is sealed yet.
async fn a_dead_node(databases: usize) -> (World, Incarnation) {
    let mut world = World::new();
    let node = world.node().await;
    for database in 0..databases {
        world.create(&node).await;
        world.commit(&node, database, &[1, 2, 3], 3);
        world.commit(&node, database, &[2], 3);
    }
    if databases > LARGE {
        let all: Vec<u32> = (1..=400).collect();
        world.commit(&node, LARGE, &all, 400);
    }
    node.log.drain().await;
    for database in 0..databases {
        // Patches, a shrink and a regrowth.
        world.commit(&node, database, &[1, 2], 2);
        world.commit(&node, database, &[1, 3, 4], 4);
        world.commit(&node, database, &[1, 2], 4);
    }
    world.dies(&node).await;
    (world, node)
}

fn drainer(world: &World, store: impl Store) -> Drainer {
    drainer_of(IncarnationId::random(&world.seam), world, store)
}

fn drainer_of(me: IncarnationId, world: &World, store: impl Store) -> Drainer {
    let stores = Stores::one(Arc::new(store));
    let fetcher = Fetcher::new(stores.main.clone(), world.seam.clone(), PageCache::new(1 << 20), 8 << 20);
    Drainer::new(me, stores, world.seam.clone(), &fetcher)
}

/// Two sweeps: the first sees the record, the second that it has not changed. What both came to.
async fn drain(world: &World, store: impl Store) -> Swept {
    let mut drainer = drainer(world, store);
    let first = drainer.sweep().await.unwrap();
    let second = drainer.sweep().await.unwrap();
    Swept { drained: first.drained + second.drained, databases: first.databases + second.databases, ..second }
}

async fn assert_all_released(world: &World, databases: impl Iterator<Item = usize>) {
    for database in databases {
        let head = world.head(database).await.value;
        assert_eq!((head.owner, head.tail.len()), (None, 0), "database {database}");
        assert_eq!(head.folded.lsn, world.databases[database].tip.lsn, "database {database}");
        world.check(database).await;
    }
}

#[tokio::test(start_paused = true)]
async fn another_node_drains_what_a_dead_one_left() {
    let (mut world, node) = a_dead_node(12).await;
    assert_eq!(world.count("x/"), 1);
    // One database was deleted, one has a folded part and then a new owner that died as well.
    walstore::seal::seal(&world.stores(), &world.seam, node.id, walstore::register::Patience::endless()).await.unwrap();
    let second = world.node().await;
    for database in [FOLDED, DELETED] {
        world.acquire(database, &second).await;
        world.fold(database).await;
    }
    let head = world.head(DELETED).await;
    let patience = walstore::register::Patience::endless();
    tenant::registry::delete_database(&world.memory, &world.seam, &head, second.id, patience).await.unwrap();
    for pages in [&[1, 4][..], &[2], &[2]] {
        world.commit(&second, FOLDED, pages, 4);
    }
    second.log.drain().await;

    let swept = drain(&world, world.memory.clone()).await;
    assert_eq!(swept, Swept { drained: 1, waiting: 0, alive: 1, databases: 10 }, "the second node lives");
    assert_eq!(world.head(FOLDED).await.value.owner, Some(second.id));
    world.dies(&second).await;
    let before = world.head(FOLDED).await.value.epoch;
    assert_eq!(drain(&world, world.memory.clone()).await.databases, 1);
    assert_eq!(world.head(FOLDED).await.value.epoch, before + 1);

    assert_all_released(&world, (0..12).filter(|database| *database != DELETED)).await;
    assert_eq!((world.count("live/"), world.count("b/"), world.count("x/"), world.count("w/")), (0, 0, 0, 2));
    assert_eq!(world.count("inc/"), 2, "records stay for ever");
    assert_eq!(drain(&world, world.memory.clone()).await, Swept::default());
}

/// The head of a database that was never folded cannot be told from one that was never written, by who meets the name.
/// But the log tells, and stays.
#[tokio::test(start_paused = true)]
async fn a_log_with_commits_of_a_lost_head_is_kept() {
    let (world, node) = a_dead_node(3).await;
    let (lost, anew) = (tenant::keys::head(world.databases[0].id), tenant::keys::head(world.databases[1].id));
    for key in [&lost, &anew] {
        world.memory.delete(key).await.unwrap();
    }
    let (me, name) = (IncarnationId::random(&world.seam), tenant::name::Name::parse("db-1").unwrap());
    let patience = walstore::register::Patience::endless();
    let found = tenant::registry::resolve_head(&world.memory, &world.seam, &name, me, patience).await.unwrap();
    assert_eq!(found.unwrap().value.folded.lsn, None, "an empty database in its place");
    assert_eq!(drain(&world, world.memory.clone()).await, Swept { waiting: 1, databases: 1, ..Swept::default() });
    let stores = world.stores();
    let access = Access { stores: &stores, seam: &world.seam, patience };
    let log = walstore::recovery::SealedLog::open(access, node.id).await.unwrap();
    for known in &world.databases[..2] {
        assert_eq!(log.commits(access, known.id, None).await.unwrap().len(), 5);
    }
}

/// A log of more than a bundle is several, and a database may have commits in each of them.
#[tokio::test(start_paused = true)]
async fn a_log_of_several_bundles_is_drained() {
    let mut world = World::new();
    let node = world.node().await;
    for _ in 0..3 {
        world.create(&node).await;
    }
    // Just small enough to be in the slots themselves, and they do not compress.
    let pages: Vec<u32> = (1..=200).collect();
    let commits = 2 * limits::BUNDLE_BYTES_TARGET / (pages.len() * 4096) + 4;
    for at in 0..commits {
        let fresh = |number: &u32| (world::page_no(*number), world::content((at as u64) << 32 | u64::from(*number)));
        world.commit_pages(&node, 0, pages.iter().map(fresh).collect(), 200);
        if at % 16 == 0 {
            world.commit(&node, 1, &[1, 2], 2);
            node.log.drain().await;
        }
    }
    world.commit(&node, 2, &[1], 1);
    world.dies(&node).await;
    assert_eq!(world.count("x/"), 0);

    let mut drainer = drainer(&world, world.memory.clone());
    drainer.sweep().await.unwrap();
    // Somebody has bundled it already, and whoever reads now reads bundles.
    let (stores, patience) = (world.stores(), walstore::register::Patience::endless());
    let access = Access { stores: &stores, seam: &world.seam, patience };
    let bundled = walstore::bundling::bundle(access, node.id).await.unwrap();
    assert!(bundled.bundles.len() >= 2, "{} bundles", bundled.bundles.len());
    for database in 0..3 {
        world.check(database).await;
    }
    let mut other = self::drainer(&world, world.memory.clone());
    assert_eq!(other.sweep().await.unwrap(), Swept { drained: 1, waiting: 0, alive: 0, databases: 3 });
    assert_eq!(drainer.sweep().await.unwrap(), Swept::default());
    world.assert_drained(node.id).await;
    assert_all_released(&world, 0..3).await;
}

/// A tail that is too large for one fold takes several. Only the last one gives the database up, and who dies in
/// between leaves a head that the next one goes on from.
#[tokio::test(start_paused = true)]
async fn a_tail_that_is_too_large_for_one_fold_is_drained_in_several() {
    let mut world = World::new();
    let node = world.node().await;
    world.create(&node).await;
    world.commit(&node, 0, &[1, 2], 2);
    // All the same, so that a test can hold them: the bound counts pages.
    let page = world::content(7);
    let half = segments::limits::FOLD_PAGES_MAX as u32 / 2 + 10;
    for pages in [1..=half, half + 1..=2 * half] {
        let end = *pages.end();
        world.commit_pages(&node, 0, pages.map(|number| (world::page_no(number), page.clone())).collect(), end);
    }
    world.commit(&node, 0, &[3], 2 * half);
    world.dies(&node).await;
    let before = world.head(0).await;

    // The first fold is linked, and then that drainer is dead.
    let mut first = drainer(&world, Held::dying_after(&world.memory, "/head"));
    first.sweep().await.unwrap();
    let _ = first.sweep().await;
    let between = world.head(0).await.value;
    assert_eq!((between.owner, between.epoch), (Some(node.id), before.value.epoch), "not given up yet");
    assert_eq!(between.folded.lsn.map(|lsn| lsn.get()), Some(2));

    assert_eq!(drain(&world, world.memory.clone()).await, Swept { drained: 1, waiting: 0, alive: 0, databases: 1 });
    assert_eq!(world.head(0).await.value.epoch, before.value.epoch + 1);
    world.assert_drained(node.id).await;
    assert_all_released(&world, 0..1).await;
}

#[tokio::test(start_paused = true)]
async fn two_drainers_race_and_both_end_well() {
    for _ in 0..4 {
        let (world, node) = a_dead_node(8).await;
        let mut one = drainer(&world, world.memory.clone());
        let mut other = drainer(&world, world.memory.clone());
        for _ in 0..3 {
            let (first, second) = tokio::join!(one.sweep(), other.sweep());
            first.unwrap();
            second.unwrap();
        }
        world.assert_drained(node.id).await;
        assert_all_released(&world, 0..8).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_drainer_that_dies_at_any_request_loses_nothing_and_is_followed() {
    let mut at = 0;
    loop {
        let (world, node) = a_dead_node(LARGE + 1).await;
        let dying = Held::dying(&world.memory, at);
        let mut first = drainer(&world, dying.clone());
        let _ = first.sweep().await;
        let _ = first.sweep().await;
        let has_died = dying.request_count() > at;
        if !world.is_open(node.id) {
            for database in 0..=LARGE {
                world.check(database).await;
            }
        }
        drain(&world, world.memory.clone()).await;
        world.assert_drained(node.id).await;
        assert_all_released(&world, 0..=LARGE).await;
        if !has_died {
            assert!(at > 30, "{at} requests are too few to be all");
            return;
        }
        at += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn a_database_that_a_live_node_has_taken_over_is_left_to_its_folds() {
    let (mut world, node) = a_dead_node(6).await;
    walstore::seal::seal(&world.stores(), &world.seam, node.id, walstore::register::Patience::endless()).await.unwrap();
    let owner = world.node().await;
    world.acquire(5, &owner).await;
    let mut drainer = drainer(&world, world.memory.clone());
    let swept = drainer.sweep().await.unwrap();
    assert_eq!(swept, Swept { drained: 0, waiting: 1, alive: 1, databases: 5 });
    assert_all_released(&world, 0..5).await;
    assert_eq!((world.count("live/"), world.count("b/")), (2, 1));
    world.check(5).await;

    // Looking again gets rarer while nothing changes.
    let requests = |held: &Held| held.request_count();
    let held = Held::over(&world.memory);
    let mut patient = self::drainer(&world, held.clone());
    let mut spent = Vec::new();
    for _ in 0..8 {
        let before = requests(&held);
        patient.sweep().await.unwrap();
        spent.push(requests(&held) - before);
    }
    let busy = spent.iter().filter(|count| **count > 4).count();
    assert!((2..=4).contains(&busy), "{spent:?}");

    world.fold(5).await;
    for _ in 0..3 {
        drainer.sweep().await.unwrap();
    }
    assert_eq!((world.count("live/"), world.count("b/"), world.count("w/")), (1, 0, 1));
    world.check(5).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_acquires_under_a_drainer_reads_everything() {
    let (mut world, node) = a_dead_node(1).await;
    walstore::seal::seal(&world.stores(), &world.seam, node.id, walstore::register::Patience::endless()).await.unwrap();
    let owner = world.node().await;
    let held = Held::over(&world.memory);
    held.hold("t/");
    let mut drainer = drainer(&world, held.clone());
    let sweep = tokio::task::LocalSet::new();
    let swept = sweep
        .run_until(async {
            let sweep = tokio::task::spawn_local(async move { drainer.sweep().await.unwrap() });
            // The drainer has read the head, and its pack is on the way.
            held.catches().await;
            assert!(world.count("b/") > 0, "it has bundled the log before");
            world.acquire(0, &owner).await;
            held.release();
            sweep.await.unwrap()
        })
        .await;
    assert_eq!(swept, Swept { drained: 0, waiting: 1, alive: 1, databases: 0 });
    assert_eq!(world.head(0).await.value.owner, Some(owner.id));
    world.check(0).await;
}

#[tokio::test(start_paused = true)]
async fn a_marker_without_a_record_is_closed() {
    let world = World::new();
    let id = IncarnationId::random(&world.seam);
    let marker = walstore::incarnation::encode_live(id);
    world.memory.put(&walstore::keys::live(id), marker, &walstore::store::Condition::None).await.unwrap();
    let mut drainer = drainer(&world, world.memory.clone());
    assert_eq!(drainer.sweep().await.unwrap().alive, 1, "it may just be starting");
    assert_eq!(drainer.sweep().await.unwrap().drained, 1);
    let left: Vec<_> = world.memory.keys();
    assert_eq!(left, [walstore::keys::incarnation(id)], "occupied, so that a late start loses");
}

#[tokio::test(start_paused = true)]
async fn with_nothing_to_drain_a_sweep_is_one_request_and_one_for_each_other_node() {
    let world = World::new();
    let nodes = [world.node().await, world.node().await];
    let held = Held::over(&world.memory);
    let mut drainer = drainer_of(nodes[0].id, &world, held.clone());
    for _ in 0..3 {
        let before = held.request_count();
        // Long enough for the other node to have renewed.
        world.seam.sleep(Duration::from_secs(5)).await;
        assert_eq!(drainer.sweep().await.unwrap().alive, 1);
        assert!(held.request_count() - before <= 3, "{}", held.request_count() - before);
    }
    let empty: MemoryStore = MemoryStore::new();
    let held = Held::over(&empty);
    self::drainer(&world, held.clone()).sweep().await.unwrap();
    assert_eq!(held.request_count(), 1);
}
