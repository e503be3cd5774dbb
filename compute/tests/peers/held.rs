//! A bucket whose PUTs of the log can be held back.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;
use walstore::store::{Condition, Key, MemoryStore, Object, Put, Store, StoreError};

pub struct HeldStore {
    inner: MemoryStore,
    is_held: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl HeldStore {
    pub fn new(inner: MemoryStore) -> Self {
        Self { inner, is_held: watch::Sender::new(false), waiting: watch::Sender::new(0) }
    }

    /// From now on PUTs of the log wait.
    pub fn hold(&self) {
        self.waiting.send_replace(0);
        self.is_held.send_replace(true);
    }

    /// Returns when one waits.
    pub async fn has_one(&self) {
        self.waiting.subscribe().wait_for(|waiting| *waiting > 0).await.expect("its sender is ours");
    }

    pub fn release(&self) {
        self.is_held.send_replace(false);
    }
}

#[async_trait]
impl Store for HeldStore {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Object>, StoreError> {
        self.inner.get_range(key, range).await
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: &Condition) -> Result<Put, StoreError> {
        if key.as_str().starts_with("w/") && *self.is_held.borrow() {
            self.waiting.send_modify(|waiting| *waiting += 1);
            self.is_held.subscribe().wait_for(|is_held| !is_held).await.expect("its sender is ours");
        }
        self.inner.put(key, bytes, condition).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Key>, StoreError> {
        self.inner.list(prefix, after, limit).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
