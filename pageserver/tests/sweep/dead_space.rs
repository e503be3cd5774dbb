//! Dead space that owners have left behind: a sweep gives it back, whoever dies, and whoever comes, in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pageserver::fetcher::Fetcher;
use pageserver::fold::{FoldJob, Folder};
use pageserver::sweep::Collected;
use pageserver::tail::Tail;
use pageserver::{collect, garbage};
use segments::cache::PageCache;
use tenant::settings::Settings;
use tenant::{lifecycle, registry};
use walstore::id::PutId;
use walstore::life::Incarnation;
use walstore::register::Patience;
use walstore::store::{CountedStore, Key, Op, Store};

use crate::folds::{acquired_anew, damages, dies};
use crate::held::Held;
use crate::{sweeper, sweeper_of};
use crate::world::{World, content, page_no};

/// What folds of three owners have made of a database, each of whom died busy: whole segments replaced, and others in
/// part. The last one still owns it.
async fn wasteful() -> World {
    wasteful_keeping(0).await
}

/// The same, with a history of so many seconds.
async fn wasteful_keeping(retention_secs: u32) -> World {
    let mut world = World::new();
    let first = world.node().await;
    world.create(&first).await;
    if retention_secs > 0 {
        let head = world.head(0).await;
        let settings = Settings { retention_secs, ..head.value.settings };
        let next = lifecycle::with_settings(&head.value, settings, PutId::random(&world.seam));
        registry::swap_head(&world.memory, &world.seam, &head, next, Patience::endless()).await.unwrap();
    }
    write(&mut world, &first, &pages_of(0..8), 1);
    dies(&world, &first).await;
    world.fold(0).await;
    let parts = [pages_of([1, 3, 5, 7]), [pages_of([0]), (0..8).map(|segment| segment * 32 + 9).collect()].concat()];
    for (pages, seed) in parts.iter().zip(2..) {
        let owner = world.node().await;
        world.acquire(0, &owner).await;
        write(&mut world, &owner, pages, seed);
        dies(&world, &owner).await;
        world.fold(0).await;
    }
    world
}

fn pages_of(numbers: impl IntoIterator<Item = u32>) -> Vec<u32> {
    numbers.into_iter().flat_map(|segment| segment * 32 + 1..=segment * 32 + 32).collect()
}

/// In small commits, for the log's sake.
fn write(world: &mut World, owner: &Incarnation, pages: &[u32], seed: u64) {
    for some in pages.chunks(32) {
        let size = world.databases[0].tip.page_count.max(some[some.len() - 1]);
        let pages: BTreeMap<_, _> = some.iter().map(|page| (page_no(*page), content(seed << 32 | u64::from(*page)))).collect();
        world.commit_pages(owner, 0, pages, size);
    }
}

/// Nobody owns it.
async fn released() -> World {
    let world = wasteful().await;
    world.fold_and_release(0).await;
    world
}

/// The bytes of all that is in the bucket for a database.
fn bytes_of(world: &World, keys: &[Key]) -> usize {
    let objects = world.memory.snapshot();
    keys.iter().map(|key| objects[key].len()).sum()
}

/// The pages take as many bytes as they have: nothing of them can be compressed.
fn live_bytes(world: &World) -> usize {
    world.databases[0].pages.len() * segments::page::PAGE_BYTES
}

async fn sweep(world: &World) -> Collected {
    sweeper(world, world.memory.clone()).sweep().await.unwrap()
}

async fn assert_compact(world: &World) {
    let (bytes, live) = (bytes_of(world, &world.objects_of(0)), live_bytes(world));
    assert!(bytes * 10 <= live * 13, "{bytes} bytes for {live} that are alive");
    assert_eq!(damages(world).await, vec![]);
    world.check(0).await;
    // What the head still lists as dead is gone, and nobody asks for it again and again.
    let counted = Arc::new(CountedStore::new(world.memory.clone()));
    let again = sweeper_of(world, counted.clone()).sweep().await.unwrap();
    assert_eq!(again, Collected::default(), "and then there is nothing to do");
    let changes = |op: Op| matches!(op, Op::Put | Op::Delete);
    let changes: u64 = counted.take().iter().filter(|((op, _), _)| changes(*op)).map(|(_, counter)| counter.requests).sum();
    assert_eq!(changes, 0);
}

#[tokio::test(start_paused = true)]
async fn what_an_owner_who_died_busy_has_left_is_given_back() {
    let world = wasteful().await;
    let (bytes, live) = (bytes_of(&world, &world.objects_of(0)), live_bytes(&world));
    assert!(bytes * 10 > live * 15, "{bytes} bytes for {live}: there is little to give back");
    let collected = sweep(&world).await;
    assert!(collected.released == 1 && collected.compactions > 0, "{collected:?}");
    assert_compact(&world).await;
}

/// Whoever gives back dies at each of his requests: before it, and after it took effect. A sweep does the rest.
async fn dies_at_every_request(gives_back: impl AsyncFn(&World, Held)) {
    let mut at = 0;
    loop {
        let mut has_died = false;
        for earlier in 0..2 {
            let world = wasteful().await;
            let dying = Held::dying(&world.memory, at + earlier);
            for _ in 0..earlier {
                // Which deaths come after the request took effect goes by its number.
                dying.list("nothing", None, 1).await.unwrap();
            }
            gives_back(&world, dying.clone()).await;
            assert_eq!(damages(&world).await, vec![], "died at request {at}");
            world.check(0).await;
            sweep(&world).await;
            // By then nobody needs the logs any more.
            sweep(&world).await;
            assert_compact(&world).await;
            has_died |= dying.request_count() > at + earlier;
        }
        if !has_died {
            assert!(at > 8, "{at} requests are too few to be all");
            return;
        }
        at += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn a_sweep_that_dies_while_it_gives_back_neither_loses_nor_leaks() {
    let sweeps = async |world: &World, store: Held| drop(sweeper(world, store).sweep().await);
    dies_at_every_request(sweeps).await;
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_dies_while_it_gives_back_neither_loses_nor_leaks() {
    dies_at_every_request(async |world: &World, store: Held| compact_and_collect(world, &store).await).await;
}

/// As the owner does, until it is done or dies.
async fn compact_and_collect(world: &World, store: &Held) {
    let fetcher = Fetcher::new(Arc::new(store.clone()), world.seam.clone(), PageCache::new(1 << 20), 8 << 20);
    loop {
        let head = world.head(0).await;
        let deleted = garbage::delete(store, head.value.dead.clone()).await;
        let Ok(Tail { map, input, tip, .. }) = Tail::of_head(&fetcher, &head.value).await else { return };
        let seq = head.value.fold_seq + 1;
        let of_head = head.value.clone();
        let job = FoldJob { head, map, input, tip, own_after: tip.lsn, seq, deleted, release: false, pin: None };
        match (Folder { store, seam: &world.seam, fetcher: &fetcher }).compact(job).await {
            Ok(Some(_)) => {}
            Ok(None) => return drop(collect::collect(store, &world.seam, &fetcher, &of_head).await),
            Err(_) => return,
        }
    }
}

/// As long as the past leads to what lies in packs, to lay the present out anew would only add to that.
#[tokio::test(start_paused = true)]
async fn what_the_past_needs_is_kept_and_not_copied() {
    let world = wasteful_keeping(60).await;
    let before = world.objects_of(0);
    let collected = sweep(&world).await;
    assert_eq!((collected.compactions, collected.released), (0, 0), "no two clocks say that it is over");
    assert_eq!(world.objects_of(0), before);
    world.seam.sleep(Duration::from_secs(90)).await;
    let clock = world.seam.clone();
    world.memory.set_clock(move || clock.wall_micros());
    let collected = sweep(&world).await;
    assert!(collected.released == 1 && collected.compactions > 0, "{collected:?}");
    let head = world.head(0).await.value;
    assert_eq!(head.horizon, head.folded.lsn);
    assert_compact(&world).await;
}

/// Somebody wants the database while a sweep compacts it.
#[tokio::test(start_paused = true)]
async fn a_new_owner_wins_and_a_sweep_takes_back_what_it_wrote() {
    let world = released().await;
    let (before, held) = (world.objects_of(0), Held::over(&world.memory));
    held.hold(tenant::keys::head(world.databases[0].id).to_string().leak());
    let other = async {
        held.catches().await;
        assert!(world.objects_of(0).len() > before.len(), "its pack is there");
        let owner = acquired_anew(&world).await;
        held.release();
        owner
    };
    let sweeping = sweeper(&world, held.clone());
    let (collected, owner) = tokio::join!(sweeping.sweep(), other);
    assert_eq!(collected.unwrap().compactions, 0);
    assert_eq!(damages(&world).await, vec![]);
    let after = world.objects_of(0);
    assert!(after.iter().all(|key| before.contains(key)), "{after:?} instead of {before:?}");
    drop(owner);
}

/// Two sweeps give the same packs the same numbers: one of them wins each time.
#[tokio::test(start_paused = true)]
async fn two_sweeps_at_once_do_no_harm() {
    let world = released().await;
    let held = Held::over(&world.memory);
    held.hold(tenant::keys::head(world.databases[0].id).to_string().leak());
    let other = async {
        held.catches().await;
        let collected = sweep(&world).await;
        held.release();
        collected
    };
    let slower = sweeper(&world, held.clone());
    let (lost, won) = tokio::join!(slower.sweep(), other);
    assert!(won.compactions > 0 && lost.unwrap().compactions == 0, "{won:?}");
    sweep(&world).await;
    assert_compact(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_database_that_somebody_owns_is_left_alone() {
    let world = released().await;
    let owner = acquired_anew(&world).await;
    let before = world.head(0).await;
    let collected = sweep(&world).await;
    assert_eq!((collected.compactions, collected.released), (0, 0));
    assert_eq!(world.head(0).await.value, before.value);
    drop(owner);
}
