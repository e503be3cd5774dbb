//! Forks, restores in place and undeletes against a model that knows every state of every database: what they show,
//! what they cost, what a crash leaves, what comes between, and that collecting takes all that is dead and nothing else.

#[path = "../../../walstore/tests/support/mod.rs"]
mod held;
mod costs;
mod crashes;
mod forest;
mod moments;
#[cfg(feature = "mutants")]
mod mutants;
mod owner;
mod pages;
mod races;
mod random;
mod slow;
mod tidy;
#[path = "../damage/witness.rs"]
mod witness;

use std::panic::AssertUnwindSafe;

use forest::{Forest, RETENTION_SECS};
use futures_util::FutureExt;
use pageserver::history::Located;
use pageserver::verify::Options;
use tenant::head::MapField;
use walstore::id::Lsn;
use walstore::register::Record;
use witness::verify;

/// Commits of a small, then a larger, then a small database.
async fn history(forest: &mut Forest, at: usize) {
    forest.commit(at, &[1, 2, 3], 3).await;
    forest.commit(at, &[2], 3).await;
    forest.fold(at).await;
    forest.commit(at, &[1, 40], 40).await;
    forest.commit(at, &[3, 39], 40).await;
    forest.fold(at).await;
    forest.commit(at, &[1], 5).await;
    forest.commit(at, &[4, 7], 9).await;
    forest.fold(at).await;
}

/// A check of the whole bucket, as `shoal verify --delete-dead` makes it, finds no damage, and makes none.
async fn check_bucket(forest: &Forest) {
    let options = Options { deletes_dead: true, ..Options::default() };
    let (found, _) = verify(&forest.memory, &forest.seam, &options).await;
    // There is no cluster here and there are no logs, but databases and names.
    let damages: Vec<_> = found.damages.iter().filter(|it| ["t/", "n/"].iter().any(|p| it.key.starts_with(p))).collect();
    assert!(damages.is_empty(), "I6: {damages:?}");
}

/// What a run comes to, or what it has found that is not as it must be.
async fn told<T>(run: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(run).catch_unwind().await.map_err(|panic| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().map_or_else(|| "no text".to_owned(), |text| (*text).to_owned()),
    })
}

/// Bug: a parent that had ended, and whose own content was collected, was not asked what its pins keep. Damage: forks
/// lost the pages that they shared with it as soon as somebody had what is dead deleted.
#[tokio::test(start_paused = true)]
async fn what_a_fork_reads_of_a_parent_that_is_gone_is_not_taken_for_dead() {
    let mut forest = Forest::new();
    let root = forest.create(RETENTION_SECS).await;
    history(&mut forest, root).await;
    forest.commit(root, &(1..=60).collect::<Vec<_>>(), 60).await;
    forest.fold(root).await;
    let fork = forest.fork(root, 7).await;
    forest.commit(root, &(1..=60).collect::<Vec<_>>(), 60).await;
    forest.delete(root).await;
    tokio::time::advance(std::time::Duration::from_secs(200_000)).await;
    forest.sweep().await;
    let head = forest.head(root).await.value;
    assert!(head.is_emptied() && head.is_pinned());
    check_bucket(&forest).await;
    forest.check(fork).await;
}

#[tokio::test(start_paused = true)]
async fn a_fork_of_every_commit_is_its_parent_as_it_was_then() {
    let mut forest = Forest::new();
    let root = forest.create(RETENTION_SECS).await;
    history(&mut forest, root).await;
    for lsn in 0..=6 {
        let fork = forest.fork(root, lsn).await;
        forest.check(fork).await;
        forest.commit(fork, &[1], 2).await;
        forest.fold(fork).await;
        forest.check(fork).await;
        forest.check(root).await;
        forest.check_past(root, lsn).await.unwrap();
    }
    forest.sweep().await;
    for at in 0..forest.all.len() {
        forest.check(at).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_times_between_commits_lead_to_the_commit_before() {
    let mut forest = Forest::new();
    let root = forest.create(RETENTION_SECS).await;
    history(&mut forest, root).await;
    let states = forest.all[root].states.clone();
    for (lsn, (time, _)) in states.iter().filter(|(lsn, _)| **lsn > 0 && **lsn < 6) {
        for micros in [*time, time + 1, states[&(lsn + 1)].0 - 1] {
            assert_eq!(forest.locate(root, micros).await.unwrap(), Located::At(*lsn));
            assert_eq!(forest.all[root].at_time(micros), *lsn);
        }
    }
    assert_eq!(forest.locate(root, states[&6].0).await.unwrap(), Located::AfterFolded);
}

#[tokio::test(start_paused = true)]
async fn a_tree_twenty_deep_reads_on_while_its_ancestors_are_deleted_and_collected() {
    let mut forest = Forest::new();
    let mut at = forest.create(0).await;
    history(&mut forest, at).await;
    for depth in 0..20 {
        let last = forest.all[at].last();
        let fork = forest.fork(at, last).await;
        // Some hand on what they began with, others have pages of their own.
        if depth % 3 == 0 {
            forest.commit(fork, &[1 + depth], 25).await;
            forest.fold(fork).await;
        }
        forest.release(at).await;
        at = fork;
    }
    for deleted in 0..20 {
        forest.delete(deleted).await;
        forest.sweep().await;
        for living in deleted + 1..=20 {
            forest.check(living).await;
        }
    }
    forest.release(20).await;
    forest.delete(20).await;
    for _ in 0..22 {
        forest.sweep().await;
    }
    assert_eq!(forest.objects(), Vec::<String>::new(), "nothing that cannot be reached stays");
}

#[tokio::test(start_paused = true)]
async fn a_restore_in_place_keeps_the_name_and_is_undone_by_another() {
    let mut forest = Forest::new();
    let root = forest.create(RETENTION_SECS).await;
    history(&mut forest, root).await;
    let back = forest.restore(root, root, 3).await;
    forest.check(back).await;
    forest.commit(back, &[2], 5).await;
    assert_eq!(forest.resolve(root).await, Some(forest.all[back].id));
    forest.sweep().await;
    let undone = forest.restore(back, root, 6).await;
    forest.check(undone).await;
    assert_eq!(forest.resolve(root).await, Some(forest.all[undone].id));
    forest.sweep().await;
    forest.check(undone).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_comes_back_within_its_retention_and_not_after() {
    let mut forest = Forest::new();
    let root = forest.create(RETENTION_SECS).await;
    history(&mut forest, root).await;
    forest.delete(root).await;
    forest.sweep().await;
    let name = forest.all[root].name.to_string();
    let back = forest.try_fork(forest.store(), root, 6, &name).await.unwrap();
    forest.settle(back).await;
    forest.check(back).await;
    assert_eq!(forest.resolve(root).await, Some(forest.all[back].id));
    tokio::time::advance(std::time::Duration::from_secs(u64::from(RETENTION_SECS) + 1)).await;
    forest.sweep().await;
    forest.check(back).await;
    let refused = forest.try_fork(forest.store(), root, 6, "late").await.unwrap_err();
    assert!(refused.to_string().contains("its content is gone"), "{refused}");
}

/// Bug: one that had written nothing was found by its marker alone, and stayed if that could not be written.
#[tokio::test(start_paused = true)]
async fn a_fork_whose_time_is_up_is_deleted_by_a_sweep() {
    for is_marked in [true, false] {
        let mut forest = Forest::new();
        let root = forest.create(0).await;
        history(&mut forest, root).await;
        let fork = forest.fork_until(root, 6, 600, is_marked).await;
        forest.release(root).await;
        forest.sweep().await;
        forest.check(fork).await;
        tokio::time::advance(std::time::Duration::from_secs(601)).await;
        assert_eq!(forest.sweep().await.ended, 1, "marked: {is_marked}");
        forest.sweep().await;
        assert!(forest.head(fork).await.value.is_shrunk());
        assert!(!forest.head(root).await.value.is_pinned(), "its parent need keep nothing for it");
        forest.check(root).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_head_of_a_fork_is_small_whatever_its_parent_is() {
    let mut forest = Forest::new();
    let root = forest.create(0).await;
    for first in 0..20 {
        let pages: Vec<u32> = (1..=100).map(|page| first * 100 + page).collect();
        forest.commit(root, &pages, (first + 1) * 100).await;
        forest.fold(root).await;
    }
    let fork = forest.fork(root, 20).await;
    let head = forest.head(fork).await.value;
    assert!(matches!(head.map, MapField::Shared(_)));
    assert_eq!(head.folded.lsn, Lsn::new(20));
    assert!(head.encode().len() < 2048, "{} bytes", head.encode().len());
    forest.check(fork).await;
}
