//! Counts what a store is asked for, by request and class of key.
//!
//! A request counts when it is made, whatever becomes of it. Bytes are the body of a write and what a
//! read returned; headers and listings have none.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Condition, Key, Object, Op, Put, Store, StoreError, key_class};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    pub requests: u64,
    pub bytes: u64,
}

/// Counters by request and [class of key](key_class).
pub type Counters = BTreeMap<(Op, String), Counter>;

pub struct CountedStore<S> {
    inner: S,
    counters: Mutex<Counters>,
}

impl<S> CountedStore<S> {
    pub fn new(inner: S) -> Self {
        Self { inner, counters: Mutex::default() }
    }

    /// Everything since the start, or since the last [`take`](Self::take).
    pub fn snapshot(&self) -> Counters {
        self.counters.lock().expect("BUG: a panic while counting").clone()
    }

    /// The counters, which start again from nothing: what one step of a test cost.
    pub fn take(&self) -> Counters {
        std::mem::take(&mut *self.counters.lock().expect("BUG: a panic while counting"))
    }

    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn count(&self, op: Op, key: &str, requests: u64, bytes: usize) {
        let mut counters = self.counters.lock().expect("BUG: a panic while counting");
        let counter = counters.entry((op, key_class(key).to_owned())).or_default();
        counter.requests += requests;
        counter.bytes += bytes as u64;
    }

    fn count_answer(&self, op: Op, key: &Key, answer: &Result<Option<Object>, StoreError>) {
        if let Ok(Some(object)) = answer {
            self.count(op, key.as_str(), 0, object.bytes.len());
        }
    }
}

#[async_trait]
impl<S: Store> Store for CountedStore<S> {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.count(Op::Get, key.as_str(), 1, 0);
        let answer = self.inner.get(key).await;
        self.count_answer(Op::Get, key, &answer);
        answer
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Object>, StoreError> {
        self.count(Op::GetRange, key.as_str(), 1, 0);
        let answer = self.inner.get_range(key, range).await;
        self.count_answer(Op::GetRange, key, &answer);
        answer
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: &Condition) -> Result<Put, StoreError> {
        self.count(Op::Put, key.as_str(), 1, bytes.len());
        self.inner.put(key, bytes, condition).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.count(Op::Delete, key.as_str(), 1, 0);
        self.inner.delete(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        self.count(Op::List, prefix, 1, 0);
        self.inner.list(prefix, after, limit).await
    }

    fn date_micros(&self) -> Option<u64> {
        self.inner.date_micros()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[tokio::test]
    async fn requests_and_bytes_are_counted_by_class() {
        let store = CountedStore::new(MemoryStore::new());
        let slot = Key::new("w/1/a/0");
        store.put(&slot, Bytes::from_static(b"12345"), &Condition::Absent).await.unwrap();
        store.put(&slot, Bytes::from_static(b"12345"), &Condition::Absent).await.unwrap();
        store.get_range(&slot, 1..3).await.unwrap();
        store.get(&Key::new("t/1/d/head")).await.unwrap();
        let expected = BTreeMap::from([
            ((Op::Put, "w".to_owned()), Counter { requests: 2, bytes: 10 }),
            ((Op::GetRange, "w".to_owned()), Counter { requests: 1, bytes: 2 }),
            ((Op::Get, "head".to_owned()), Counter { requests: 1, bytes: 0 }),
        ]);
        assert_eq!(store.take(), expected);
        assert!(store.snapshot().is_empty());
    }
}
