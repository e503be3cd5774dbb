//! Folds that die, lose, or are in flight while others sweep.

use std::sync::Arc;

use pageserver::fetcher::Fetcher;
use pageserver::fold::{FoldFailure, FoldJob, Folder, Linked};
use pageserver::tail::Tail;
use pageserver::verify::{Damage, Options};
use segments::cache::PageCache;
use walstore::life::Incarnation;
use walstore::store::Store;

use crate::held::Held;
use crate::sweeper;
use crate::witness::verify;
use crate::world::World;

/// A database in one pack, all of whose pages have changed since: the next fold leaves that pack without use.
async fn before_a_fold() -> (World, Incarnation) {
    let mut world = World::new();
    let all: Vec<u32> = (1..=40).collect();
    let first = world.node().await;
    world.create(&first).await;
    world.commit(&first, 0, &all, 40);
    dies(&world, &first).await;
    world.fold(0).await;
    let second = world.node().await;
    world.acquire(0, &second).await;
    world.commit(&second, 0, &all, 40);
    dies(&world, &second).await;
    (world, second)
}

pub async fn dies(world: &World, node: &Incarnation) {
    world.dies(node).await;
    walstore::seal::seal(&world.stores(), &world.seam, node.id, walstore::register::Patience::endless()).await.unwrap();
}

async fn fold_over(world: &World, store: &(impl Store + Clone)) -> Result<Linked, FoldFailure> {
    let fetcher = Fetcher::new(Arc::new(store.clone()), world.seam.clone(), PageCache::new(1 << 20), 8 << 20);
    let head = world.head(0).await;
    // What the owner of an open database has in memory.
    let Tail { map, input, tip, .. } = world.tail(&head.value, &world.fetcher()).await;
    let seq = head.value.fold_seq + 1;
    let job = FoldJob { head, map, input, tip, own_after: tip.lsn, seq, deleted: Vec::new(), release: false, pin: None };
    Folder { store, seam: &world.seam, fetcher: &fetcher }.fold(job).await
}

/// What is damaged, but for the bucket's own record, which these worlds do without.
pub async fn damages(world: &World) -> Vec<Damage> {
    let (found, _) = verify(&world.memory, &world.seam, &Options::default()).await;
    found.damages.into_iter().filter(|damage| damage.key != "meta/cluster").collect()
}

/// Everything up to some request of a fold has happened, and nothing after: that request itself once did, and once not.
pub async fn a_fold_dies_at_every_request() -> Vec<Damage> {
    let mut at = 0;
    loop {
        let mut has_died = false;
        for earlier in 0..2 {
            let (world, _) = before_a_fold().await;
            let dying = Held::dying(&world.memory, at + earlier);
            for _ in 0..earlier {
                // Which deaths come after the request took effect goes by its number.
                dying.list("nothing", None, 1).await.unwrap();
            }
            let _ = fold_over(&world, &dying).await;
            let damages = damages(&world).await;
            if !damages.is_empty() {
                return damages;
            }
            has_died |= dying.request_count() > at + earlier;
        }
        if !has_died {
            assert!(at > 1, "a fold makes requests");
            return Vec::new();
        }
        at += 1;
    }
}

/// Somebody sweeps between the PUT of a fold's pack and the CAS that links it.
pub async fn a_sweep_comes_between() -> Vec<Damage> {
    let (world, _) = before_a_fold().await;
    // Its owner's log must not have an end, or the sweep takes the database away from it.
    let owner = acquired_anew(&world).await;
    let held = Held::over(&world.memory);
    held.hold(tenant::keys::head(world.databases[0].id).to_string().leak());
    let sweep = async {
        held.catches().await;
        sweeper(&world, world.memory.clone()).sweep().await.unwrap();
        held.release();
    };
    let (linked, ()) = tokio::join!(fold_over(&world, &held), sweep);
    linked.unwrap();
    drop(owner);
    damages(&world).await
}

pub async fn acquired_anew(world: &World) -> Incarnation {
    let owner = world.node().await;
    let head = world.head(0).await;
    let put_id = walstore::id::PutId::random(&world.seam);
    let next = tenant::lifecycle::acquire(&head.value, owner.id, put_id);
    let patience = walstore::register::Patience::endless();
    tenant::registry::swap_head(&world.memory, &world.seam, &head, next, patience).await.unwrap();
    owner
}

#[tokio::test(start_paused = true)]
async fn a_fold_that_dies_leaves_every_reference_whole() {
    assert_eq!(a_fold_dies_at_every_request().await, vec![]);
}

#[tokio::test(start_paused = true)]
async fn a_fold_in_flight_is_left_alone_by_a_sweep() {
    assert_eq!(a_sweep_comes_between().await, vec![]);
}

#[tokio::test(start_paused = true)]
async fn a_fold_that_loses_takes_back_what_it_wrote() {
    let (world, _) = before_a_fold().await;
    let before = world.objects_of(0);
    let held = Held::over(&world.memory);
    held.hold(tenant::keys::head(world.databases[0].id).to_string().leak());
    let other = async {
        held.catches().await;
        assert!(world.objects_of(0).len() > before.len(), "its pack is there");
        acquired_anew(&world).await;
        held.release();
    };
    let (lost, ()) = tokio::join!(fold_over(&world, &held), other);
    assert!(matches!(lost, Err(FoldFailure::Lost(_))));
    assert_eq!(world.objects_of(0), before);
}
