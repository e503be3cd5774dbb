use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use super::*;
use crate::store::{CountedStore, Key, MemoryStore, Object, Op};

const ID: IncarnationId = IncarnationId::from_bytes([7; 16]);

/// Bug: a sealer whose CAS met a renewal read the record again and sealed it all the same. Damage: the owner
/// served reads within its lease while another node took its databases over. Fix: only the version that was
/// watched for a lease is sealed on suspicion.
#[tokio::test]
async fn a_record_that_was_renewed_is_not_sealed_on_suspicion() {
    let (stores, seam) = (Stores::one(Arc::new(MemoryStore::new())), Seam::production());
    let (key, patience) = (keys::incarnation(ID), Patience::endless());
    let store = &*stores.main;
    let watched = open_record(&stores, &seam).await;
    let renewed = watched.value.successor(PutId::random(&seam));
    let renewed = register::replace(store, &seam, &key, &watched.etag, renewed, patience).await.unwrap().found();
    let seal = |watched| seal_unless_renewed(&stores, &seam, ID, watched, patience);
    assert_eq!(seal(Some(watched.clone())).await.unwrap(), None);
    assert_eq!(seal(None).await.unwrap(), None, "it was not there when it was looked for");
    let record = register::read::<IncarnationRecord>(store, &seam, &key, patience).await.unwrap().unwrap();
    assert_eq!(record.value.state, State::Open);
    // From then on there is nothing to be careful about.
    for watched in [renewed, Some(watched)] {
        assert_eq!(seal(watched).await.unwrap().map(|sealed| sealed.end), Some(Slot::ZERO));
    }
}

/// While clients wait for a takeover, every round trip counts.
#[tokio::test]
async fn sealing_what_was_watched_takes_four_round_trips() {
    let store = Arc::new(CountedStore::new(MemoryStore::new()));
    let (stores, seam) = (Stores::one(store.clone()), Seam::production());
    let watched = open_record(&stores, &seam).await;
    store.take();
    seal_unless_renewed(&stores, &seam, ID, Some(watched), Patience::endless()).await.unwrap().unwrap();
    let spent: Vec<_> = store.take().into_iter().map(|((op, class), spent)| (op, class, spent.requests)).collect();
    let expected = [
        // All of these at once.
        (Op::GetRange, "w".to_owned(), limits::SEAL_PROBE_SLOTS),
        // To recovering, and to sealed.
        (Op::Put, "inc".to_owned(), 2),
        (Op::Put, "w".to_owned(), 1),
    ];
    assert_eq!(spent, expected);
}

async fn open_record(stores: &Stores, seam: &Seam) -> Versioned<IncarnationRecord> {
    let first = IncarnationRecord::new(ID, PutId::random(seam), 1, String::new());
    let created = register::create(&*stores.main, seam, &keys::incarnation(ID), first, Patience::endless()).await;
    created.unwrap().found().unwrap()
}

/// A store in which a slot is taken when a tombstone comes, and empty right after.
#[derive(Default)]
struct TakenOnce {
    memory: MemoryStore,
    was_taken: AtomicBool,
}

#[async_trait]
impl Store for TakenOnce {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.memory.get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Object>, StoreError> {
        self.memory.get_range(key, range).await
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: &Condition) -> Result<Put, StoreError> {
        if key.as_str().starts_with("w/") && !self.was_taken.swap(true, Ordering::SeqCst) {
            return Ok(Put::Refused);
        }
        self.memory.put(key, bytes, condition).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.memory.delete(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Key>, StoreError> {
        self.memory.list(prefix, after, limit).await
    }

    fn describe(&self) -> String {
        self.memory.describe()
    }
}

/// Bug: a slot that refused a tombstone and read as empty after that counted as data. Damage: the log's end was looked
/// for behind a hole. Fix: the slot is tried again.
#[tokio::test(start_paused = true)]
async fn a_slot_that_is_emptied_under_a_tombstone_is_tried_again() {
    let store = TakenOnce::default();
    let end = find_end(&store, &Seam::production(), ID, Slot(4), Patience::endless()).await.unwrap();
    assert_eq!(end, Slot(4));
    assert_eq!(store.memory.keys(), [keys::fragment(ID, Slot(4))]);
}
