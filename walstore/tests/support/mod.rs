//! A log over a store whose requests can be held back, and what it reported.
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;
use walstore::fragment::Entry;
use walstore::id::{DatabaseId, IncarnationId, Lsn};
use walstore::life::{Incarnation, Stores};
use walstore::log::{self, Acknowledged, Commit, LogSink};
use walstore::recovery::Access;
use walstore::register::Patience;
use walstore::seam::{Seam, simulated};
use walstore::store::{Condition, Key, MemoryStore, Object, Put, Store, StoreError, StoreErrorKind};

/// Virtual time, and the same randomness in every run.
pub fn virtual_seam() -> Seam {
    simulated::seam(7)
}

pub const LARGE: usize = walstore::limits::INLINE_COMMIT_BYTES_MAX + 1;

pub fn database(byte: u8) -> DatabaseId {
    DatabaseId::from_bytes([byte; 16])
}

/// A store that keeps requests under some prefixes waiting, and can be made to die at a request.
#[derive(Clone, Default)]
pub struct Held {
    pub memory: MemoryStore,
    prefixes: Arc<Mutex<BTreeSet<&'static str>>>,
    read_prefixes: Arc<Mutex<BTreeSet<&'static str>>>,
    refused: Arc<Mutex<BTreeSet<&'static str>>>,
    changed: Arc<Notify>,
    /// Signalled when a request begins to wait.
    caught: Arc<Notify>,
    /// Requests so far, and the one at which the connection dies.
    requests: Arc<Mutex<(u64, Option<u64>)>>,
    /// The connection dies after it has written an object whose key ends like this.
    last: Arc<Mutex<Option<&'static str>>>,
}

impl Held {
    pub fn over(memory: &MemoryStore) -> Self {
        Self { memory: memory.clone(), ..Self::default() }
    }

    /// A connection that dies at its request `at`: before it, or right after it took effect, if `after`.
    pub fn dying(memory: &MemoryStore, at: u64) -> Self {
        let held = Self::over(memory);
        held.requests.lock().unwrap().1 = Some(at);
        held
    }

    /// A connection that dies once it has written an object whose key ends like this.
    pub fn dying_after(memory: &MemoryStore, suffix: &'static str) -> Self {
        let held = Self::over(memory);
        *held.last.lock().unwrap() = Some(suffix);
        held
    }

    pub fn hold(&self, prefix: &'static str) {
        self.prefixes.lock().unwrap().insert(prefix);
    }

    pub fn hold_reads(&self, prefix: &'static str) {
        self.read_prefixes.lock().unwrap().insert(prefix);
    }

    /// From here on the store answers that it can never take such an object.
    pub fn refuse(&self, prefix: &'static str) {
        self.refused.lock().unwrap().insert(prefix);
    }

    pub fn release(&self) {
        self.refused.lock().unwrap().clear();
        self.release_held();
    }

    pub fn release_held(&self) {
        self.prefixes.lock().unwrap().clear();
        self.read_prefixes.lock().unwrap().clear();
        self.changed.notify_waiters();
    }

    /// Returns once none of these prefixes holds the key.
    async fn wait(&self, prefixes: &Mutex<BTreeSet<&'static str>>, key: &Key) {
        loop {
            let changed = self.changed.notified();
            let is_held = prefixes.lock().unwrap().iter().any(|prefix| key.as_str().starts_with(prefix));
            if !is_held {
                return;
            }
            self.caught.notify_one();
            changed.await;
        }
    }

    /// Returns when a request waits that has not been asked for before.
    pub async fn catches(&self) {
        self.caught.notified().await;
    }

    pub fn request_count(&self) -> u64 {
        self.requests.lock().unwrap().0
    }

    pub fn count(&self, prefix: &str) -> usize {
        self.memory.keys().iter().filter(|key| key.as_str().starts_with(prefix)).count()
    }

    /// Whether the request takes effect; an error is what its caller hears, even if it does.
    fn request(&self, key: &str) -> (bool, Result<(), StoreError>) {
        let mut requests = self.requests.lock().unwrap();
        let (number, at) = (requests.0, requests.1);
        requests.0 += 1;
        let dead = || Err(StoreError::new(StoreErrorKind::Denied, key, "this node is dead"));
        match at {
            Some(at) if number > at => (false, dead()),
            // Every other death comes after the request took effect.
            Some(at) if number == at => (at % 2 == 0, dead()),
            _ => (true, Ok(())),
        }
    }
}

#[async_trait]
impl Store for Held {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.wait(&self.read_prefixes, key).await;
        self.request(key.as_str()).1?;
        self.memory.get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Object>, StoreError> {
        self.request(key.as_str()).1?;
        self.memory.get_range(key, range).await
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: &Condition) -> Result<Put, StoreError> {
        self.wait(&self.prefixes, key).await;
        let is_refused = self.refused.lock().unwrap().iter().any(|prefix| key.as_str().starts_with(prefix));
        if is_refused {
            return Err(StoreError::new(StoreErrorKind::Invalid, key, "too large for this store"));
        }
        let (takes_effect, answer) = self.request(key.as_str());
        let put = if takes_effect { Some(self.memory.put(key, bytes, condition).await) } else { None };
        answer?;
        if self.last.lock().unwrap().is_some_and(|suffix| key.as_str().ends_with(suffix)) {
            let mut requests = self.requests.lock().unwrap();
            // Odd, so that the request at which it dies does not take effect either.
            requests.0 |= 1;
            requests.1 = Some(requests.0);
        }
        put.expect("a request that is answered took effect")
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let (takes_effect, answer) = self.request(key.as_str());
        if takes_effect {
            self.memory.delete(key).await?;
        }
        answer
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Key>, StoreError> {
        self.request(prefix).1?;
        self.memory.list(prefix, after, limit).await
    }

    fn describe(&self) -> String {
        self.memory.describe()
    }
}

#[derive(Default)]
struct Sink(Mutex<Vec<Acknowledged>>);

impl LogSink for Sink {
    fn durable(&self, commits: Vec<Acknowledged>) {
        self.0.lock().unwrap().extend(commits);
    }

    fn fenced(&self, _: &str) {}
}

/// A running log.
pub struct Rig {
    pub seam: Seam,
    pub stores: Stores,
    pub node: Incarnation,
    sink: Arc<Sink>,
}

impl Rig {
    pub async fn start(store: impl Store) -> Self {
        let seam = virtual_seam();
        let stores = Stores::one(Arc::new(store));
        let id = IncarnationId::random(&seam);
        let sink = Arc::new(Sink::default());
        let lease = Duration::from_secs(3);
        let ends = log::channel();
        let node = Incarnation::start(id, stores.clone(), seam.clone(), lease, ends, sink.clone()).await.unwrap();
        Self { seam, stores, node, sink }
    }

    pub fn append(&self, byte: u8, lsn: u64, bytes: Vec<u8>) {
        let entry =
            Entry { database: database(byte), epoch: 1, lsn: Lsn::new(lsn).unwrap(), bytes: Bytes::from(bytes).into() };
        self.node.log.append(Commit { entry, window_micros: 0, home: 0, side: None });
    }

    /// LSNs of a database that were reported durable, in this order.
    pub fn acknowledged(&self, byte: u8) -> Vec<u64> {
        let seen = self.sink.0.lock().unwrap();
        seen.iter().filter(|commit| commit.database == database(byte)).map(|commit| commit.lsn.get()).collect()
    }

    /// Waits until `holds`, for as long as any correct log could take.
    pub async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        for _ in 0..10_000 {
            if holds() {
                return;
            }
            self.seam.sleep(Duration::from_millis(1)).await;
        }
        panic!("never: {what}");
    }

    pub fn access(&self) -> Access<'_> {
        access(&self.stores, &self.seam)
    }
}

pub fn access<'a>(stores: &'a Stores, seam: &'a Seam) -> Access<'a> {
    Access { stores, seam, patience: Patience::endless() }
}
