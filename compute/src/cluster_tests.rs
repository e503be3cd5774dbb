use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use walstore::id::IncarnationId;
use walstore::store::{CountedStore, DirectoryStore, MemoryStore, Object, Op, Put};

use super::*;

/// What a node that has started leaves.
async fn register(store: &dyn Store) {
    let id = IncarnationId::from_bytes([7; 16]);
    store.put(&keys::incarnation(id), Bytes::from_static(b"a record"), &Condition::None).await.unwrap();
}

/// Another node starts while this one looks around: right before its listing is answered.
struct Raced {
    memory: MemoryStore,
    seam: Seam,
    is_over: AtomicBool,
}

#[async_trait]
impl Store for Raced {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.memory.get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Object>, StoreError> {
        self.memory.get_range(key, range).await
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: &Condition) -> Result<Put, StoreError> {
        self.memory.put(key, bytes, condition).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.memory.delete(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Key>, StoreError> {
        if prefix == keys::INCARNATION_PREFIX && !self.is_over.swap(true, Ordering::SeqCst) {
            prepare(&self.memory, &self.seam).await.expect("the other node");
            register(&self.memory).await;
        }
        self.memory.list(prefix, after, limit).await
    }

    fn describe(&self) -> String {
        self.memory.describe()
    }
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_nodes_have_used_is_not_made_anew_when_its_record_is_gone() {
    let (memory, seam) = (MemoryStore::new(), Seam::production());
    prepare(&memory, &seam).await.unwrap();
    register(&memory).await;
    memory.delete(&keys::cluster()).await.unwrap();
    let before = memory.keys();
    let error = prepare(&memory, &seam).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, PrepareError::NoRecord { .. }), "{text}");
    assert!(text.contains("`meta/cluster`") && text.contains("inc/") && text.contains("Bring it back"), "{text}");
    assert_eq!(memory.keys(), before, "nothing is written");
}

#[tokio::test(start_paused = true)]
async fn nodes_that_start_at_the_same_time_on_an_empty_bucket_all_succeed() {
    let (memory, seam) = (MemoryStore::new(), Seam::production());
    let start = || async {
        prepare(&memory, &seam).await?;
        register(&memory).await;
        Ok::<_, PrepareError>(())
    };
    let (one, other) = tokio::join!(start(), start());
    one.and(other).unwrap();

    let raced = Raced { memory: MemoryStore::new(), seam: seam.clone(), is_over: AtomicBool::new(false) };
    prepare(&raced, &seam).await.unwrap();
    assert!(raced.is_over.load(Ordering::SeqCst), "the other one has started meanwhile");
    assert!(raced.memory.keys().contains(&keys::cluster()));
}

#[tokio::test(start_paused = true)]
async fn a_start_on_a_bucket_that_was_used_takes_two_requests() {
    let (store, seam) = (CountedStore::new(MemoryStore::new()), Seam::production());
    prepare(&store, &seam).await.unwrap();
    register(&store).await;
    store.take();
    prepare(&store, &seam).await.unwrap();
    let counted: Vec<_> = store.take().into_iter().map(|((op, class), counter)| (op, class, counter.requests)).collect();
    assert_eq!(counted, [(Op::Get, "meta".to_owned(), 2)]);
}

/// Bug: a damaged record of the probe kept every node from starting. Fix: the probe is run again.
#[tokio::test]
async fn damage_of_the_probes_record_costs_a_probe_and_damage_of_the_bucket_s_is_named() {
    let (directory, seam) = (tempfile::tempdir().unwrap(), Seam::production());
    let store = DirectoryStore::open(directory.path()).await.unwrap();
    prepare(&store, &seam).await.unwrap();
    let file = |key: Key| directory.path().join(format!("objects/{key}@"));
    let cut = |key: Key| std::fs::OpenOptions::new().write(true).open(file(key)).unwrap().set_len(30).unwrap();

    cut(keys::probed());
    prepare(&store, &seam).await.unwrap();
    assert!(is_recorded(&store, &seam, &probe::subject(&store, FORMAT_VERSION), Patience::endless()).await.unwrap());
    store.put(&keys::probed(), Bytes::from_static(b"rubbish"), &Condition::None).await.unwrap();
    prepare(&store, &seam).await.unwrap();

    cut(keys::cluster());
    let error = prepare(&store, &seam).await.unwrap_err();
    assert!(error.to_string().starts_with("corrupt object meta/cluster: "), "{error}");
    refuse_other_format(&store, &seam).await.expect("damage is what `verify` is there to tell");
}
