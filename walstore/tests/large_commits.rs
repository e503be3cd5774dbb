//! Commits that are too large for a fragment: their side objects, from upload to deletion.

mod support;

use bytes::Bytes;
use support::{Held, LARGE, Rig, access, database};
use walstore::drained;
use walstore::recovery::{LoggedCommit, SealedLog};
use walstore::seal::SealError;
use walstore::seam::Seam;
use walstore::store::{Condition, Faults, FaultyStore, MemoryStore, Store};

fn lsns(commits: &[LoggedCommit]) -> Vec<(u64, usize)> {
    commits.iter().map(|commit| (commit.lsn.get(), commit.bytes.len())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_large_upload_holds_back_its_own_database_and_no_other() {
    let store = Held::default();
    let rig = Rig::start(store.clone()).await;
    store.hold("x/");
    rig.append(1, 1, vec![1; 10]);
    rig.append(1, 2, vec![2; LARGE]);
    rig.append(1, 3, vec![3; 10]);
    rig.append(2, 1, vec![4; 10]);
    rig.append(2, 2, vec![5; 10]);
    rig.until("the other database goes on", || rig.acknowledged(2) == [1, 2]).await;
    rig.append(2, 3, vec![6; 10]);
    rig.until("and on", || rig.acknowledged(2) == [1, 2, 3]).await;
    assert_eq!(rig.acknowledged(1), [1]);
    assert!(rig.node.log.backlog_bytes() > LARGE, "what waits counts against the caller's limit");

    store.release();
    rig.node.log.drain().await;
    assert_eq!(rig.acknowledged(1), [1, 2, 3]);
    assert_eq!(rig.node.log.backlog_bytes(), 0);
    let slots: usize = store.memory.snapshot().iter().filter(|(key, _)| key.as_str().starts_with("w/")).map(|(_, o)| o.len()).sum();
    assert!(slots < LARGE / 100, "fragments of {slots} bytes");

    let log = SealedLog::open(rig.access(), rig.node.id).await.unwrap();
    let commits = log.commits(rig.access(), database(1), None).await.unwrap();
    assert_eq!(lsns(&commits), [(1, 10), (2, LARGE), (3, 10)]);
    assert_eq!(commits[1].bytes, vec![2; LARGE]);
    assert_eq!(lsns(&log.commits(rig.access(), database(2), None).await.unwrap()), [(1, 10), (2, 10), (3, 10)]);
}

/// Bug: shutting down waited for one stuck upload without end. Damage: the process was killed before the seal, and all its
/// databases waited for its lease to run out. Fix: half of the time is for waiting, the rest for sealing.
#[tokio::test(start_paused = true)]
async fn a_stuck_upload_does_not_keep_a_log_from_being_sealed() {
    let store = Held::default();
    let rig = Rig::start(store.clone()).await;
    store.hold("x/");
    rig.append(1, 1, vec![1; LARGE]);
    rig.append(1, 2, vec![2; 10]);
    rig.append(2, 1, vec![3; 10]);
    let sealed = rig.node.shut_down(std::time::Duration::from_secs(8)).await.unwrap();
    assert_eq!((rig.acknowledged(1), rig.acknowledged(2)), (vec![], vec![1]));

    // What the upload stores at last has no slot to refer to it.
    store.release();
    rig.until("the upload ends", || store.count("x/") == 1).await;
    let log = SealedLog::open(rig.access(), rig.node.id).await.unwrap();
    assert_eq!(*log.sealed(), sealed);
    assert_eq!(log.commits(rig.access(), database(1), None).await.unwrap(), []);
    assert_eq!(lsns(&log.commits(rig.access(), database(2), None).await.unwrap()), [(1, 10)]);
    assert_eq!(rig.acknowledged(1), []);
}

/// Bug: an upload that the store can never take was tried again for ever, unseen. Damage: commits of its database queued
/// behind it until the whole node's backlog was full. Fix: the caller of `append` sees how long it has been waiting.
#[tokio::test(start_paused = true)]
async fn an_upload_that_the_store_does_not_take_is_seen_by_its_own_database_and_no_other() {
    let store = Held::default();
    let rig = Rig::start(store.clone()).await;
    let log = &rig.node.log;
    store.hold("x/");
    rig.append(1, 1, vec![1; LARGE]);
    rig.seam.sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!(log.waiting_since_of(database(1)), None, "it is slow, and nothing has failed");

    store.refuse("x/");
    store.release_held();
    rig.until("it is seen", || log.waiting_since_of(database(1)).is_some()).await;
    let since = log.waiting_since_of(database(1));
    assert!(since.unwrap() + 59_000_000 < rig.seam.boot_micros(), "from its first try on");
    rig.append(2, 1, vec![2; 10]);
    rig.until("the other database goes on", || rig.acknowledged(2) == [1]).await;
    assert_eq!((log.waiting_since_of(database(2)), log.waiting_since()), (None, None));
    assert_eq!(log.waiting_since_of(database(1)), since);

    store.release();
    log.drain().await;
    assert_eq!((rig.acknowledged(1), log.waiting_since_of(database(1))), (vec![1], None));
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_upload_and_slot_leaves_an_orphan_that_draining_sweeps() {
    let store = Held::default();
    let rig = Rig::start(store.clone()).await;
    store.hold("w/");
    rig.append(1, 1, vec![1; LARGE]);
    rig.until("the side object is stored", || store.count("x/") == 1).await;
    assert_eq!(rig.acknowledged(1), []);

    // The node is gone; another one, whose writes are not held, ends its log.
    let (id, seam) = (rig.node.id, rig.seam.clone());
    let other = walstore::life::Stores::one(std::sync::Arc::new(store.memory.clone()));
    let log = SealedLog::open(access(&other, &seam), id).await.unwrap();
    assert_eq!(log.commits(access(&other, &seam), database(1), None).await.unwrap(), []);
    drained::forget(access(&other, &seam), id).await.unwrap();
    assert_eq!((store.count("x/"), store.count("live/"), store.count("w/"), store.count("inc/")), (0, 0, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_missing_or_damaged_side_object_is_an_error_that_names_it() {
    let store = Held::default();
    let rig = Rig::start(store.clone()).await;
    rig.append(1, 1, vec![1; LARGE]);
    rig.append(2, 1, vec![1; 10]);
    rig.node.log.drain().await;
    let key = store.memory.keys().into_iter().find(|key| key.as_str().starts_with("x/")).unwrap();
    let log = SealedLog::open(rig.access(), rig.node.id).await.unwrap();

    let mut damaged = store.memory.get(&key).await.unwrap().unwrap().bytes.to_vec();
    damaged[LARGE / 2] ^= 1;
    store.memory.put(&key, Bytes::from(damaged), &Condition::None).await.unwrap();
    let error = log.commits(rig.access(), database(1), None).await.unwrap_err();
    assert!(error.to_string().contains(key.as_str()), "{error}");

    store.memory.delete(&key).await.unwrap();
    let error = log.commits(rig.access(), database(1), None).await.unwrap_err();
    assert!(error.to_string().contains(key.as_str()) && !matches!(error, SealError::Stale(_)), "{error}");
    assert_eq!(log.commits(rig.access(), database(2), None).await.unwrap().len(), 1, "others do not suffer");
}

#[tokio::test(start_paused = true)]
async fn a_side_object_goes_with_its_slot() {
    let store = Held::default();
    let rig = Rig::start(store.clone()).await;
    rig.append(1, 1, vec![1; LARGE]);
    rig.node.log.drain().await;
    rig.append(1, 2, vec![1; LARGE]);
    rig.node.log.drain().await;
    assert_eq!((store.count("x/"), store.count("w/")), (2, 2));
    rig.node.log.folded(database(1), walstore::id::Lsn::new(1).unwrap());
    rig.until("the first slot and its side object are deleted", || (store.count("x/"), store.count("w/")) == (1, 1)).await;
    let log = SealedLog::open(rig.access(), rig.node.id).await.unwrap();
    assert_eq!(lsns(&log.commits(rig.access(), database(1), None).await.unwrap()), [(2, LARGE)]);
}

#[tokio::test(start_paused = true)]
async fn large_commits_get_through_a_store_that_fails() {
    let memory = MemoryStore::new();
    let faults = Faults { unavailable: 300_000, answer_lost: 200_000, ..Faults::default() };
    let store = FaultyStore::new(memory.clone(), Seam::production(), 7, faults, None);
    let rig = Rig::start(store).await;
    for lsn in 1..=6 {
        rig.append(1, lsn, vec![lsn as u8; if lsn % 2 == 0 { LARGE } else { 10 }]);
    }
    rig.node.log.drain().await;
    assert_eq!(rig.acknowledged(1), [1, 2, 3, 4, 5, 6]);
    let stores = walstore::life::Stores::one(std::sync::Arc::new(memory));
    let log = SealedLog::open(access(&stores, &rig.seam), rig.node.id).await.unwrap();
    let commits = log.commits(access(&stores, &rig.seam), database(1), None).await.unwrap();
    assert_eq!(commits.len(), 6);
    assert!(commits.iter().all(|commit| commit.bytes.iter().all(|byte| u64::from(*byte) == commit.lsn.get())));
}
