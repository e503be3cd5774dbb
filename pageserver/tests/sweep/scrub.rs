//! Reading what is at rest again and again: all of it in one interval, from any place on.

use std::sync::Arc;
use std::time::Duration;

use pageserver::scrub::Scrubber;
use walstore::life::Stores;
use walstore::store::{Condition, CountedStore, Key, MemoryStore, Op, Store};

use crate::fetcher_of;
use crate::litter::seal_now;
use crate::witness::Found;
use crate::world::World;

const DATABASES: usize = 12;
const DAY: Duration = Duration::from_secs(86_400);

/// A bucket of databases that nobody owns.
async fn world() -> World {
    let mut world = World::new();
    let node = world.node().await;
    for database in 0..DATABASES {
        world.create(&node).await;
        let pages: Vec<u32> = (1..=200).collect();
        world.commit(&node, database, &pages, 200);
    }
    node.log.drain().await;
    seal_now(&world, &node).await;
    for database in 0..DATABASES {
        world.fold_and_release(database).await;
    }
    world
}

fn packs(world: &World) -> Vec<Key> {
    let is_pack = |key: &Key| key.as_str().starts_with("t/") && key.as_str().contains("/p/");
    world.memory.keys().into_iter().filter(is_pack).collect()
}

fn place(key: &Key) -> u32 {
    u32::from_str_radix(&key.as_str()[2..6], 16).unwrap()
}

fn scrubber(world: &World, store: Arc<dyn Store>) -> Scrubber {
    let stores = Stores::one(store);
    let fetcher = fetcher_of(world, &stores);
    Scrubber::new(stores, world.seam.clone(), &fetcher, 30 * DAY)
}

async fn flip(memory: &MemoryStore, key: &Key) {
    let mut bytes = memory.get(key).await.unwrap().unwrap().bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    memory.put(key, bytes.into(), &Condition::None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_scrub_reads_everything_once_in_an_interval_and_names_what_is_damaged() {
    let world = world().await;
    let packs = packs(&world);
    assert!(packs.len() >= DATABASES, "{packs:?}");
    for damaged in [None, packs.first(), packs.last()] {
        if let Some(key) = damaged {
            flip(&world.memory, key).await;
        }
        let counted = Arc::new(CountedStore::new(world.memory.clone()));
        let (mut found, mut at, begins) = (Found::default(), 0, tokio::time::Instant::now());
        let summary = scrubber(&world, counted.clone()).walk(&mut at, &mut found).await.unwrap();
        let took = begins.elapsed();
        assert!(took >= 30 * DAY && took < 30 * DAY + Duration::from_secs(60), "{took:?}");
        assert_eq!(summary.databases, DATABASES as u64);
        let requests = counted.take();
        assert!(requests.keys().all(|(op, _)| matches!(op, Op::Get | Op::GetRange | Op::List)), "{requests:?}");
        let named: Vec<&str> = found.damages.iter().map(|damage| damage.key.as_str()).collect();
        match damaged {
            None => {
                assert_eq!(found.damages, vec![]);
                assert_eq!(summary.packs.objects, packs.len() as u64);
            }
            Some(key) => assert!(named.contains(&key.as_str()) && found.damages[0].name.is_some(), "{key} of {:?}", found.damages),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_database_is_read_when_its_place_comes_wherever_a_scrub_begins() {
    let world = world().await;
    let packs = packs(&world);
    for key in &packs {
        flip(&world.memory, key).await;
        for from in [0, place(key)] {
            let scrubber = scrubber(&world, Arc::new(world.memory.clone()));
            let (mut found, mut at) = (Found::default(), from);
            let until = 30 * DAY * (place(key) - from) / 65_536;
            let has_read = async |found: &mut Found, at: &mut u32, until: Duration| {
                let _ = tokio::time::timeout(until, scrubber.walk(at, found)).await;
                found.damages.iter().any(|damage| damage.key == key.as_str())
            };
            if from == 0 {
                assert!(!has_read(&mut found, &mut at, until - Duration::from_secs(1)).await, "{key} before its time");
                (found, at) = (Found::default(), from);
            }
            assert!(has_read(&mut found, &mut at, until + Duration::from_secs(60)).await, "{key}, from {from:04x}");
        }
        flip(&world.memory, key).await;
    }
    let last = packs.iter().map(place).max().unwrap();
    let (mut found, mut at) = (Found::default(), last + 1);
    let summary = scrubber(&world, Arc::new(world.memory.clone())).walk(&mut at, &mut found).await.unwrap();
    assert_eq!(summary.databases, 0, "nothing lies there");
}

/// There is one log for all databases of a node, and only folds read what is in it.
#[tokio::test(start_paused = true)]
async fn what_a_node_owns_is_checked_without_its_log() {
    let mut world = World::new();
    let node = world.node().await;
    for database in 0..DATABASES {
        world.create(&node).await;
        world.commit(&node, database, &[1, 2, 3], 3);
    }
    node.log.drain().await;
    let counted = Arc::new(CountedStore::new(world.memory.clone()));
    let mut found = Found::default();
    let summary = scrubber(&world, counted.clone()).walk(&mut 0, &mut found).await.unwrap();
    assert_eq!((summary.databases, found.damages), (DATABASES as u64, vec![]));
    let requests = counted.take();
    let classes: Vec<&str> = requests.keys().map(|(_, class)| class.as_str()).collect();
    assert!(classes.iter().all(|class| ["t", "head", "pack", "map", "n"].contains(class)), "{requests:?}");
}
