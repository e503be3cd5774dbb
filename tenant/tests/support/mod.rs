//! Stores that stop or lose answers, and what every test of the registry starts from.
#![allow(dead_code, reason = "each test uses its part")]

use std::ops::Range;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use tenant::head::Head;
use tenant::lifecycle;
use tenant::name::Name;
use tenant::registry::swap_head;
use tenant::settings::Settings;
use walstore::id::{DatabaseId, IncarnationId, PutId};
use walstore::register::{Patience, Record, Swap, Versioned};
use walstore::seam::Seam;
use walstore::store::{Condition, Key, MemoryStore, Object, Put, Store, StoreError, StoreErrorKind};

pub const A: IncarnationId = IncarnationId::from_bytes([0xa; 16]);
pub const B: IncarnationId = IncarnationId::from_bytes([0xb; 16]);

pub fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub fn settings() -> Settings {
    Settings { window_millis: 25, ..Settings::new(1_700_000_000_000_000) }
}

/// Stores in these tests answer at once, if not always truly.
pub fn patience() -> Patience {
    Patience::endless()
}

/// What a writer of the protocol that succeeded got.
pub fn won<T: std::fmt::Debug>(swap: Swap<T>) -> Versioned<T> {
    match swap {
        Swap::Won(won) => won,
        lost => panic!("{lost:?}"),
    }
}

/// Takes a head over as after the seal of its owner's log; keeps it if it is `me`'s.
pub async fn take_over(store: &dyn Store, seam: &Seam, head: Versioned<Head>, me: IncarnationId) -> Versioned<Head> {
    if head.value.owner == Some(me) {
        return head;
    }
    let next = lifecycle::acquire(&head.value, me, PutId::random(seam));
    won(swap_head(store, seam, &head, next, patience()).await.unwrap())
}

/// The head of `database` as it lies in the store.
pub fn stored_head(store: &MemoryStore, database: DatabaseId) -> Option<Head> {
    let object = store.snapshot().get(&tenant::keys::head(database)).cloned()?;
    Some(Head::decode(&object).unwrap())
}

/// Where a node dies, counted in its writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// Before the write reaches the store.
    Before,
    /// After the write took effect, before its answer.
    Unanswered,
}

/// A node's connection to the store, which dies at its write number `at`, counted from 0. From then on
/// every request fails for good.
pub struct Mortal {
    inner: MemoryStore,
    at: u32,
    death: Death,
    writes: Mutex<u32>,
}

impl Mortal {
    pub fn new(inner: MemoryStore, at: u32, death: Death) -> Self {
        Self { inner, at, death, writes: Mutex::new(0) }
    }

    pub fn is_dead(&self) -> bool {
        *self.writes.lock().unwrap() > self.at
    }

    fn alive(&self, key: &str) -> Result<(), StoreError> {
        if self.is_dead() { Err(dead(key)) } else { Ok(()) }
    }
}

fn dead(key: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Denied, key, "this node is dead")
}

#[async_trait]
impl Store for Mortal {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.alive(key.as_str())?;
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Object>, StoreError> {
        self.alive(key.as_str())?;
        self.inner.get_range(key, range).await
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: &Condition) -> Result<Put, StoreError> {
        self.alive(key.as_str())?;
        let number = {
            let mut writes = self.writes.lock().unwrap();
            *writes += 1;
            *writes - 1
        };
        if number == self.at && self.death == Death::Before {
            return Err(dead(key.as_str()));
        }
        let answer = self.inner.put(key, bytes, condition).await;
        if number == self.at { Err(dead(key.as_str())) } else { answer }
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.alive(key.as_str())?;
        self.inner.delete(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Key>, StoreError> {
        self.alive(prefix)?;
        self.inner.list(prefix, after, limit).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

/// Every first try of a write takes effect and is answered with an error, and every first read fails.
pub struct Stammering {
    inner: MemoryStore,
    seen: Mutex<Vec<(Key, Option<Bytes>)>>,
}

impl Stammering {
    pub fn new(inner: MemoryStore) -> Self {
        Self { inner, seen: Mutex::default() }
    }

    fn is_first(&self, key: &Key, bytes: Option<&Bytes>) -> bool {
        let request = (key.clone(), bytes.cloned());
        let mut seen = self.seen.lock().unwrap();
        let is_first = !seen.contains(&request);
        seen.push(request);
        is_first
    }
}

#[async_trait]
impl Store for Stammering {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        if self.is_first(key, None) {
            return Err(StoreError::new(StoreErrorKind::Retry, key, "503"));
        }
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Object>, StoreError> {
        self.inner.get_range(key, range).await
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: &Condition) -> Result<Put, StoreError> {
        let is_first = self.is_first(key, Some(&bytes));
        let answer = self.inner.put(key, bytes, condition).await;
        if is_first { Err(StoreError::new(StoreErrorKind::Indefinite, key, "reset")) } else { answer }
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Key>, StoreError> {
        if self.is_first(&Key::new(format!("{prefix}list")), None) {
            return Err(StoreError::new(StoreErrorKind::Retry, prefix, "503"));
        }
        self.inner.list(prefix, after, limit).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
