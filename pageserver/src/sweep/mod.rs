//! **Sweep**: one walk through the whole bucket that collects what nobody will ever look for.
//!
//! | what is left behind | by | collected once |
//! |---|---|---|
//! | packs and map chunks that were never linked | folds and drains that died or lost | their writer's term is over |
//! | packs and chunks on a dead list | owners that died, or gave the database up | nobody owns the database |
//! | [dead space](compacting) in packs | owners that died busy, or gave the database up busy | nobody owns the database |
//! | everything of a deleted database | its deletion | its retention has passed and no fork needs it |
//! | pins without a fork, forks without a name | forks and restores that were cut off | nobody owns the parent; [the fork's key is occupied first](tenant::lifecycle::plan_pin) |
//! | databases whose time is up | their expiry | nobody owns them; an owner on this node is told |
//! | slots below `low` or behind the end | late duplicates, keepers that died | the record says so |
//! | bundles and side objects of a drained log | late duplicates, lost races | the log is bundled, or drained |
//! | due markers | deletes | what they announce is done |
//!
//! Any node may do it. A CAS'd record, `meta/sweep`, says who began the latest walk and when, so that a fleet does one
//! walk in each interval. Which walk that is does not matter for safety: each delete is of what is dead for ever
//! ([`crate::orphan`]), so two walks at once, or half of one, do no harm.
//!
//! A walk is paged LISTs at a bounded rate, a GET for each database that has packs, and one for each log and each owner.
//! Nothing in between: an idle database costs nothing (I13).

mod compacting;
mod database;
mod forks;
mod logs;
mod markers;
mod record;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use tenant::head::Head;
use tenant::keys;
use tracing::{error, info, warn};
use walstore::envelope::Corrupt;
use walstore::id::{IncarnationId, PutId};
use walstore::life::Stores;
use walstore::recovery::Access;
use walstore::register::{self, Patience, RecordError, Swap, Versioned};
use walstore::seam::Seam;
use walstore::store::{Key, Store, StoreError};

pub use self::record::SweepRecord;
use crate::drain::Drainer;
use crate::fetcher::Fetcher;
use crate::fold::agreed_micros;
use crate::limits;
use crate::listing::{Group, Listing};

/// What one walk collected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Packs and chunks of page maps.
    pub packs: u64,
    /// Slots, bundles and side objects.
    pub log_objects: u64,
    pub markers: u64,
    /// Deleted databases of which nothing but a small head is left now.
    pub databases: u64,
    /// Databases that were deleted: their time was up, or they were what a restore in place had left behind.
    pub ended: u64,
    /// Pins of forks that need them no more.
    pub pins: u64,
    /// Databases whose owner was over, and that are nobody's now.
    pub released: u64,
    /// Steps by which databases that nobody owns gave dead space back.
    pub compactions: u64,
    /// Objects that could not be told, because something is damaged.
    pub skipped: u64,
}

impl Collected {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error(transparent)]
    Store(StoreError),
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl From<StoreError> for SweepError {
    fn from(error: StoreError) -> Self {
        match RecordError::from(error) {
            RecordError::Store(error) => Self::Store(error),
            damage => Self::Record(damage),
        }
    }
}

type Tell = Box<dyn Fn(&Head) + Send + Sync>;

/// Sweeps for one node.
pub struct Sweeper {
    me: IncarnationId,
    stores: Stores,
    seam: Seam,
    fetcher: Fetcher,
    drainer: Drainer,
    /// Of which owners this walk knows whether their logs have an end; one that ends meanwhile waits for the next walk.
    owners: Mutex<BTreeMap<IncarnationId, bool>>,
    /// Steps of compacting that this walk may still take.
    compactions_left: AtomicU64,
    pause: Duration,
    /// Is told of databases that this node owns and that have forks, or whose time is up: these are its own business.
    tell: Option<Tell>,
}

/// The record of the latest walk as it was first seen.
#[derive(Clone, Copy)]
struct Sighting {
    version: u64,
    since_micros: u64,
}

impl Sweeper {
    /// For the node `me`, whose pages `fetcher` reads.
    pub fn new(me: IncarnationId, stores: Stores, seam: Seam, fetcher: &Fetcher) -> Self {
        let drainer = Drainer::new(me, stores.clone(), seam.clone(), fetcher);
        Self {
            me,
            stores,
            seam,
            fetcher: fetcher.clone(),
            drainer,
            owners: Mutex::default(),
            compactions_left: AtomicU64::default(),
            pause: limits::SWEEP_PAUSE,
            tell: None,
        }
    }

    /// Has it tell whoever owns databases here which of them have forks, and which are to end. Of one it may tell twice.
    pub fn telling(self, tell: impl Fn(&Head) + Send + Sync + 'static) -> Self {
        Self { tell: Some(Box::new(tell)), ..self }
    }

    /// For ever: a walk in each interval, by whichever node of the fleet looks first.
    pub async fn run(self, interval: Duration) {
        let look = interval / limits::SWEEP_LOOKS_PER_INTERVAL;
        let mut sighting = None;
        loop {
            let jitter = self.seam.random_u64() % u64::try_from(look.as_micros()).unwrap_or(u64::MAX).max(1);
            self.seam.sleep(look / 2 + Duration::from_micros(jitter)).await;
            match self.claim(interval, &mut sighting).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    warn!(%error, "cannot tell whether a sweep is due; looking again later");
                    continue;
                }
            }
            // One object that makes a walk panic must not end all walks to come.
            match AssertUnwindSafe(self.sweep()).catch_unwind().await {
                Ok(Ok(collected)) if collected.is_nothing() => {}
                Ok(Ok(collected)) => info!(?collected, "swept the bucket"),
                Ok(Err(error)) => warn!(%error, "a sweep was cut short; the next one goes on"),
                Err(_) => error!("a sweep panicked; the next one goes on"),
            }
        }
    }

    /// Whether a walk is due, and this node the one to do it. Clocks decide only that, never what is dead: by its own
    /// clock, a record that has stood for a whole interval is old, and so is one that says so itself.
    async fn claim(&self, interval: Duration, sighting: &mut Option<Sighting>) -> Result<bool, SweepError> {
        let (store, key, patience) = (&*self.stores.main, walstore::keys::sweep(), self.access().patience);
        let found = register::read::<SweepRecord>(store, &self.seam, &key, patience).await?;
        let interval_micros = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
        let next = |version| SweepRecord {
            put_id: PutId::random(&self.seam),
            version,
            by: self.me,
            began_micros: self.seam.wall_micros(),
        };
        let Some(Versioned { value, etag }) = found else {
            let swap = register::create(store, &self.seam, &key, next(1), patience).await?;
            return Ok(matches!(swap, Swap::Won(_)));
        };
        let now = self.seam.boot_micros();
        let seen = sighting.filter(|seen| seen.version == value.version);
        let seen = *sighting.insert(seen.unwrap_or(Sighting { version: value.version, since_micros: now }));
        let is_old = self.seam.wall_micros() >= value.began_micros.saturating_add(interval_micros);
        if !is_old && now.saturating_sub(seen.since_micros) < interval_micros {
            return Ok(false);
        }
        let swap = register::replace(store, &self.seam, &key, &etag, next(value.version + 1), patience).await?;
        Ok(matches!(swap, Swap::Won(_)))
    }

    /// One walk.
    pub fn sweep(&self) -> BoxFuture<'_, Result<Collected, SweepError>> {
        Box::pin(self.walk())
    }

    async fn walk(&self) -> Result<Collected, SweepError> {
        let mut collected = Collected::default();
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.compactions_left.store(limits::COMPACTIONS_PER_SWEEP_MAX, Ordering::Relaxed);
        self.sweep_logs(&mut collected).await?;
        let main = self.stores.main.clone();
        let mut groups = Listing::new(&*main, &self.seam, keys::DATABASES_PREFIX).with_pause(self.pause);
        while let Some(group) = groups.next_group().await? {
            if let Group::Database(database, keys) = group {
                let swept = self.sweep_database(database, keys, &mut collected).await;
                self.or_skip(swept, &mut collected)?;
            }
        }
        self.sweep_markers(&mut collected).await?;
        Ok(collected)
    }

    /// Damage of one object keeps nobody from sweeping the others.
    fn or_skip(&self, swept: Result<(), SweepError>, collected: &mut Collected) -> Result<(), SweepError> {
        match swept {
            Err(SweepError::Record(RecordError::Corrupt(corrupt))) => {
                warn!(%corrupt, "something is damaged; what may belong to it is left alone");
                collected.skipped += 1;
                Ok(())
            }
            Err(SweepError::Record(RecordError::Store(error))) => Err(error.into()),
            swept => swept,
        }
    }

    /// A time that is over by this node's clock and by the store's, if they agree: nothing is given up for good by one
    /// clock alone.
    fn agreed_micros(&self) -> Option<u64> {
        agreed_micros(self.seam.wall_micros(), self.stores.main.date_micros())
    }

    fn tell_owner(&self, head: &Head) {
        let is_to_look = head.is_pinned() || (!head.state.is_final() && self.has_expired(head));
        if head.owner == Some(self.me) && is_to_look && let Some(tell) = &self.tell {
            tell(head);
        }
    }

    fn access(&self) -> Access<'_> {
        let patience = Patience::for_duration(&self.seam, limits::WALK_PATIENCE);
        Access { stores: &self.stores, seam: &self.seam, patience }
    }

    /// Deletes what is dead, waiting out what passes. Returns how many those were.
    async fn delete(&self, store: &dyn Store, keys: Vec<Key>) -> Result<u64, SweepError> {
        let (count, access) = (keys.len() as u64, self.access());
        let delete = |key: Key| async move { register::delete(store, &self.seam, &key, access.patience).await };
        let deletes = stream::iter(keys).map(delete);
        deletes.buffer_unordered(limits::SWEEP_DELETES_AT_ONCE).try_collect::<()>().await?;
        Ok(count)
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, SweepError> {
        let found = register::get(&*self.stores.main, &self.seam, key, self.access().patience).await?;
        Ok(found.map(|(object, _)| object))
    }
}

impl From<Corrupt> for SweepError {
    fn from(corrupt: Corrupt) -> Self {
        Self::Record(corrupt.into())
    }
}
