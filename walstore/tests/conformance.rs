//! The contract of the store seam, over every store that needs no server.

use std::sync::Arc;

use walstore::seam::Seam;
use walstore::store::{
    CountedStore, DirectoryStore, Faults, FaultyStore, MemoryStore, Op, conformance, probe,
};

#[tokio::test]
async fn memory() {
    conformance(Arc::new(MemoryStore::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directory() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let store = DirectoryStore::open(root.path()).await.expect("opens");
    conformance(Arc::new(store)).await;
}

/// Two openings stand for two processes: they share nothing but the directory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directory_opened_twice() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let first = DirectoryStore::open(root.path()).await.expect("opens");
    let second = DirectoryStore::open(root.path()).await.expect("opens");
    conformance(Arc::new(alternating::Alternating::new(first, second))).await;
}

#[tokio::test]
async fn faulty_without_faults() {
    let seam = Seam::production();
    let store = FaultyStore::new(MemoryStore::new(), seam, 7, Faults::default(), None);
    conformance(Arc::new(store)).await;
}

#[tokio::test]
async fn counted() {
    let store = Arc::new(CountedStore::new(MemoryStore::new()));
    conformance(Arc::clone(&store) as Arc<_>).await;
    let counters = store.snapshot();
    let puts = counters[&(Op::Put, "conformance".to_owned())];
    assert!(puts.requests > 100 && puts.bytes > 5 << 20, "{puts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_passes_the_probe() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let store = DirectoryStore::open(root.path()).await.expect("opens");
    probe(&store, &Seam::production()).await.expect("passes");
}

/// The suite must notice a store that is none: here every other request goes to another bucket.
#[tokio::test]
#[should_panic(expected = "the object is there at once")]
async fn two_buckets_are_not_one_store() {
    let store = alternating::Alternating::new(MemoryStore::new(), MemoryStore::new());
    conformance(Arc::new(store)).await;
}

mod alternating {
    use std::ops::Range;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use bytes::Bytes;
    use walstore::store::{Condition, Key, Object, Put, Store, StoreError};

    /// Sends every other request to the other store.
    pub struct Alternating<S> {
        stores: [S; 2],
        next: AtomicUsize,
    }

    impl<S> Alternating<S> {
        pub fn new(first: S, second: S) -> Self {
            Self { stores: [first, second], next: AtomicUsize::new(0) }
        }

        fn next(&self) -> &S {
            &self.stores[self.next.fetch_add(1, Ordering::Relaxed) % 2]
        }
    }

    #[async_trait]
    impl<S: Store> Store for Alternating<S> {
        async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
            self.next().get(key).await
        }

        async fn get_range(
            &self,
            key: &Key,
            range: Range<u64>,
        ) -> Result<Option<Object>, StoreError> {
            self.next().get_range(key, range).await
        }

        async fn put(
            &self,
            key: &Key,
            bytes: Bytes,
            condition: &Condition,
        ) -> Result<Put, StoreError> {
            self.next().put(key, bytes, condition).await
        }

        async fn delete(&self, key: &Key) -> Result<(), StoreError> {
            self.next().delete(key).await
        }

        async fn list(
            &self,
            prefix: &str,
            after: Option<&str>,
            limit: usize,
        ) -> Result<Vec<Key>, StoreError> {
            self.next().list(prefix, after, limit).await
        }

        fn describe(&self) -> String {
            self.next().describe()
        }
    }
}
