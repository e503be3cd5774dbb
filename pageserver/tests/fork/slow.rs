//! A fork that stops before one of its requests, and goes on when others have done what they will.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use pageserver::fork::{ForkFailure, Forked, Forker};
use pageserver::history::Unbounded;
use tenant::name::Name;
use tenant::registry::{ChildError, GivenUp, SwapHeadError};
use tokio::sync::Notify;
use walstore::id::Lsn;
use walstore::register::Patience;
use walstore::store::{Condition, Key, MemoryStore, Object, Put, Store, StoreError};

use crate::forest::{Forest, ME, check_alone};

/// A connection that stops before its request `at`, until it is told to go on.
#[derive(Clone)]
struct Stopping {
    memory: MemoryStore,
    at: u64,
    requests: Arc<AtomicU64>,
    has_stopped: Arc<Notify>,
    may_go_on: Arc<Notify>,
}

impl Stopping {
    fn new(memory: &MemoryStore, at: u64) -> Self {
        let (requests, has_stopped, may_go_on) = Default::default();
        Self { memory: memory.clone(), at, requests, has_stopped, may_go_on }
    }

    async fn request(&self) {
        if self.requests.fetch_add(1, Ordering::Relaxed) == self.at {
            self.has_stopped.notify_one();
            self.may_go_on.notified().await;
        }
    }
}

#[async_trait]
impl Store for Stopping {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.request().await;
        self.memory.get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Object>, StoreError> {
        self.request().await;
        self.memory.get_range(key, range).await
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: &Condition) -> Result<Put, StoreError> {
        self.request().await;
        self.memory.put(key, bytes, condition).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.request().await;
        self.memory.delete(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Key>, StoreError> {
        self.request().await;
        self.memory.list(prefix, after, limit).await
    }

    fn date_micros(&self) -> Option<u64> {
        self.memory.date_micros()
    }

    fn describe(&self) -> String {
        self.memory.describe()
    }
}

type Made = Result<Forked, ForkFailure>;

/// A fork of a database as it was after `lsn`.
pub struct Slow {
    parent: usize,
    lsn: u64,
    name: Name,
    going: Pin<Box<dyn Future<Output = Made>>>,
    store: Stopping,
    /// It was done before it would have stopped.
    made: Option<Made>,
}

impl Slow {
    /// Begins a fork, which goes on until its request `stop_at`.
    pub async fn begin(forest: &Forest, parent: usize, lsn: u64, stop_at: u64) -> Self {
        let head = forest.owned(parent).await;
        let store = Stopping::new(&forest.memory, stop_at);
        let name = Name::parse(&format!("slow-{:x}", forest.seam.random_u64())).expect("a name");
        let settings = forest.settings(head.value.settings.retention_secs);
        let through: Arc<dyn Store> = Arc::new(store.clone());
        let (seam, fetcher, named) = (forest.seam.clone(), forest.fetcher(&through), name.clone());
        let going = async move {
            let (store, seam, fetcher, given_up) = (&*through, &seam, &fetcher, &GivenUp::default());
            let patience = Patience::endless();
            let forker = Forker { store, seam, fetcher, given_up, me: ME, patience, room: &Unbounded };
            forker.fork(head, Lsn::new(lsn), &named, settings).await
        };
        let mut slow = Self { parent, lsn, name, going: Box::pin(going), store, made: None };
        slow.made = tokio::select! {
            biased;
            made = &mut slow.going => Some(made),
            () = slow.store.has_stopped.notified() => None,
        };
        slow
    }

    /// Whether it waits for being told to go on.
    pub fn has_stopped(&self) -> bool {
        self.made.is_none()
    }

    /// Goes on to its end. It is a fork like any other then, or there is nothing of it: which it is depends on what has
    /// come between.
    pub async fn go_on(self, forest: &mut Forest) -> Option<usize> {
        let Self { parent, lsn, name, going, store, made } = self;
        let was_stopped = made.is_none();
        let made = match made {
            Some(made) => made,
            None => {
                store.may_go_on.notify_one();
                going.await
            }
        };
        let what = format!("a fork of database {parent} at {lsn}, which stopped before its request {}", store.at);
        match made {
            Ok(Forked { child, .. }) => {
                check_alone(&child.value);
                let fork = forest.grow(parent, lsn, child.value.database, name);
                forest.settle(fork).await;
                forest.check(fork).await;
                Some(fork)
            }
            Err(failure) => {
                let is_bug = matches!(
                    failure,
                    ForkFailure::Swap(SwapHeadError::Invariant { .. }) | ForkFailure::Child(ChildError::Invariant(_))
                );
                assert!(!is_bug, "I6: {what}: {failure}");
                assert!(was_stopped, "R19: {what}, or would have: {failure}");
                assert!(forest.resolved(&name).await.is_none(), "R19: {what}, is there, and failed: {failure}");
                None
            }
        }
    }
}
