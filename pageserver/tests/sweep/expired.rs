//! Databases whose time is up, and whose owner died before he heard of it.

use std::time::Duration;

use tenant::due::{DueKind, DueMarker};
use tenant::head::HeadState;
use tenant::settings::Settings;
use tenant::{lifecycle, registry};
use walstore::id::PutId;
use walstore::register::Patience;

use crate::folds::dies;
use crate::sweeper;
use crate::world::World;

/// Owned by a node that has died, with pages in a pack or without any commit.
async fn to_end(has_pack: bool, has_marker: bool) -> World {
    let mut world = World::new();
    let owner = world.node().await;
    world.create(&owner).await;
    let (head, patience) = (world.head(0).await, Patience::endless());
    let expires_micros = world.seam.wall_micros() + 10_000_000;
    let settings = Settings { expires_micros, ..head.value.settings };
    let next = lifecycle::with_settings(&head.value, settings, PutId::random(&world.seam));
    registry::swap_head(&world.memory, &world.seam, &head, next, patience).await.unwrap();
    if has_marker {
        let database = world.databases[0].id;
        let marker = DueMarker { database, kind: DueKind::Expire, due_micros: expires_micros, other: None };
        registry::put_due(&world.memory, &world.seam, &marker, patience).await.unwrap();
    }
    if has_pack {
        world.commit(&owner, 0, &(1..=40).collect::<Vec<_>>(), 40);
    }
    dies(&world, &owner).await;
    if has_pack {
        world.fold(0).await;
    }
    world
}

/// Bug: a sweep left it to its owner, and an owner that is over hears of nothing. Only a name that was asked for ended it.
#[tokio::test(start_paused = true)]
async fn what_a_dead_node_owns_ends_when_its_time_is_up() {
    for (has_pack, has_marker) in [(true, true), (true, false), (false, true)] {
        let world = to_end(has_pack, has_marker).await;
        let early = sweeper(&world, world.memory.clone()).sweep().await.unwrap();
        assert_eq!(early.ended, 0, "its time has not come");
        world.seam.sleep(Duration::from_secs(60)).await;
        let clock = world.seam.clone();
        world.memory.set_clock(move || clock.wall_micros());
        let collected = sweeper(&world, world.memory.clone()).sweep().await.unwrap();
        assert_eq!((collected.released, collected.ended), (1, 1), "pack {has_pack}, marker {has_marker}: {collected:?}");
        sweeper(&world, world.memory.clone()).sweep().await.unwrap();
        let head = world.head(0).await.value;
        assert!(matches!(head.state, HeadState::Deleted { .. }) && head.is_shrunk(), "{head:?}");
        assert_eq!(world.objects_of(0), [tenant::keys::head(head.database)], "a small head stays");
    }
}

/// Bug: one whose clock was ahead of the store's took the marker for done. Without objects nothing else leads to it.
#[tokio::test(start_paused = true)]
async fn a_sweeper_whose_clock_is_early_leaves_the_marker() {
    let world = to_end(false, true).await;
    // Not the time of the database by the store's clock, but by the sweeper's.
    let clock = world.seam.clone();
    world.memory.set_clock(move || clock.wall_micros() - 120_000_000);
    world.seam.sleep(Duration::from_secs(60)).await;
    let early = sweeper(&world, world.memory.clone()).sweep().await.unwrap();
    assert_eq!((early.ended, early.markers, world.count("due/")), (0, 0, 1), "{early:?}");
    world.seam.sleep(Duration::from_secs(120)).await;
    let collected = sweeper(&world, world.memory.clone()).sweep().await.unwrap();
    assert_eq!(collected.ended, 1, "{collected:?}");
}
