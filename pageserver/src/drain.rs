//! **Drain**: what incarnations that are over left in their logs becomes packs, and then the logs go.
//!
//! ```text
//!  live/<inc> ─▶ sealed? ──▶ bundle ──▶ for each database with commits in it:
//!                  │ open: watched; sealed             its head needs none of them ─────────────▶ done
//!                  │ once its lease has run out        every owner in its tail is over ─▶ fold ─▶ done (CAS head:
//!                  ▼                                                                 owner none, tail empty, epoch + 1)
//!               left alone                             it has a living owner ───────────────────▶ left to his folds
//!
//!  all done ─▶ slots, bundles, side objects, then live/<inc> are deleted
//! ```
//!
//! A drainer owns nothing. Every step is a CAS that somebody else may win, or a delete of what nobody can reach,
//! so any number of nodes may drain the same incarnation, and one that dies leaves the rest to the others.
//!
//! This is one timer for a node, not for a database: a LIST of `live/` and a GET for each other incarnation there,
//! every few minutes. More only if there is something to drain.

mod database;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use segments::cache::PageCache;
use tracing::{error, info, warn};
use walstore::bundling;
use walstore::drained;
use walstore::id::{DatabaseId, IncarnationId, Lsn};
use walstore::incarnation::{IncarnationRecord, State};
use walstore::keys;
use walstore::life::Stores;
use walstore::recovery::{Access, SealedLog};
use walstore::register::{self, Patience, Versioned};
use walstore::run::Run;
use walstore::seal::{self, SealError};
use walstore::seam::Seam;

pub use self::database::DrainError;
use self::database::Outcome;
use crate::fetcher::Fetcher;
use crate::limits;

/// What one sweep came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Incarnations of which nothing but their end is left.
    pub drained: usize,
    /// Incarnations that are over, but with commits that a head needs still.
    pub waiting: usize,
    /// Incarnations that may be alive.
    pub alive: usize,
    /// Databases that were folded.
    pub databases: usize,
}

/// Drains for one node. Its memory is only a saving: another one can go on at any time.
pub struct Drainer {
    me: IncarnationId,
    stores: Stores,
    seam: Seam,
    /// With a cache of its own.
    fetcher: Fetcher,
    /// Others that seemed alive in the last sweep.
    sightings: BTreeMap<IncarnationId, Sighting>,
    /// Incarnations of which a sweep could drain nothing: for how many sweeps they are left alone, and for how many
    /// the next time.
    resting: BTreeMap<IncarnationId, Rest>,
    /// Logs in use.
    logs: Mutex<BTreeMap<IncarnationId, Arc<SealedLog>>>,
    /// Incarnations known to be over, which they stay.
    sealed: Mutex<BTreeSet<IncarnationId>>,
}

/// When a record was first seen in its present version.
#[derive(Clone, Copy)]
struct Sighting {
    /// None for a marker without a record.
    version: Option<u64>,
    since_micros: u64,
}

#[derive(Clone, Copy)]
struct Rest {
    left: u32,
    next: u32,
}

/// The last LSN of a database in a log, for each epoch.
type LastLsns = Vec<(u64, Lsn)>;

/// What a look at an incarnation came to.
enum Standing {
    Alive,
    /// Its log has an end, or should get one now, if its record is still this one.
    Over(Option<Versioned<IncarnationRecord>>),
}

impl Drainer {
    /// For the node `me`, whose pages `fetcher` reads.
    pub fn new(me: IncarnationId, stores: Stores, seam: Seam, fetcher: &Fetcher) -> Self {
        Self {
            me,
            stores,
            seam,
            fetcher: fetcher.with_cache(PageCache::new(limits::DRAIN_CACHE_BYTES)),
            sightings: BTreeMap::new(),
            resting: BTreeMap::new(),
            logs: Mutex::default(),
            sealed: Mutex::default(),
        }
    }

    /// Sweeps for ever, the first time soon: nodes that start together do not sweep together.
    pub async fn run(mut self, interval: Duration) {
        let mut next = interval / 10;
        loop {
            let jitter = self.seam.random_u64() % u64::try_from(next.as_micros()).unwrap_or(u64::MAX).max(1);
            self.seam.sleep(next + Duration::from_micros(jitter)).await;
            next = interval / 2;
            // One object that makes a sweep panic must not keep all others from being drained for ever.
            match AssertUnwindSafe(self.sweep()).catch_unwind().await {
                Ok(Ok(Swept { drained: 0, waiting: 0, .. })) => {}
                Ok(Ok(swept)) => info!(?swept, "swept the logs of incarnations that are over"),
                Ok(Err(error)) => warn!(%error, "cannot look for logs to drain; trying again later"),
                Err(_) => error!("looking for logs to drain panicked; trying again later"),
            }
        }
    }

    /// Looks at every incarnation that is not drained, once.
    pub fn sweep(&mut self) -> BoxFuture<'_, Result<Swept, SealError>> {
        Box::pin(self.look_at_each())
    }

    async fn look_at_each(&mut self) -> Result<Swept, SealError> {
        let mut found = drained::list_live(self.access()).await?;
        found.retain(|id| *id != self.me);
        self.sightings.retain(|id, _| found.contains(id));
        self.resting.retain(|id, _| found.contains(id));
        // Several drainers begin at different ones.
        let first = self.seam.random_u64() as usize % found.len().max(1);
        found.rotate_left(first);
        let mut swept = Swept::default();
        for id in found {
            match self.is_over(id).await {
                Ok(Standing::Alive) => swept.alive += 1,
                Ok(Standing::Over(_)) if self.rests(id) => swept.waiting += 1,
                Ok(Standing::Over(watched)) => self.try_drain(id, watched, &mut swept).await,
                Err(error) => warn!(incarnation = %id, %error, "cannot tell whether it is over"),
            }
        }
        Ok(swept)
    }

    /// Keeps little of what it reads.
    pub(crate) fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    /// Takes a database from owners that are all over, even if they left nothing to fold. `false`: it is nobody's
    /// already, or somebody in its tail may live.
    pub(crate) async fn release_if_over(&self, database: DatabaseId) -> Result<bool, DrainError> {
        let released = self.release_head(database).await;
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).clear();
        released
    }

    fn rests(&mut self, id: IncarnationId) -> bool {
        let Some(rest) = self.resting.get_mut(&id).filter(|rest| rest.left > 0) else { return false };
        rest.left -= 1;
        true
    }

    async fn try_drain(
        &mut self,
        id: IncarnationId,
        watched: Option<Versioned<IncarnationRecord>>,
        swept: &mut Swept,
    ) {
        let before = swept.databases;
        let drained = self.drain(id, watched, &mut swept.databases).await;
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).clear();
        match drained {
            Ok(true) => {
                swept.drained += 1;
                return;
            }
            Ok(false) => {}
            Err(error) => warn!(incarnation = %id, %error, "cannot drain its log yet"),
        }
        swept.waiting += 1;
        // Looking again costs a request for each of its databases, so it is done ever more seldom.
        let next = match self.resting.get(&id) {
            Some(rest) if swept.databases == before => (rest.next * 2).min(limits::DRAIN_REST_SWEEPS_MAX),
            _ => 1,
        };
        self.resting.insert(id, Rest { left: next - 1, next });
    }

    fn access(&self) -> Access<'_> {
        let patience = Patience::for_duration(&self.seam, limits::DRAIN_PATIENCE);
        Access { stores: &self.stores, seam: &self.seam, patience }
    }

    /// Whether an incarnation's log has an end, or should get one now.
    async fn is_over(&mut self, id: IncarnationId) -> Result<Standing, SealError> {
        let record = self.record(id).await?;
        let version = record.as_ref().map(|record| record.value.version);
        let lease_micros = match record.as_ref().map(|record| &record.value) {
            Some(IncarnationRecord { state: State::Sealed { .. } | State::Recovering, .. }) => {
                return Ok(Standing::Over(record));
            }
            Some(record) => record.lease_micros,
            // A process that is just starting, or one that died between the two writes.
            None => 0,
        };
        let fresh = Sighting { version, since_micros: self.seam.boot_micros() };
        let sighting = self.sightings.insert(id, fresh).filter(|former| former.version == version);
        let Some(sighting) = sighting else { return Ok(Standing::Alive) };
        self.sightings.insert(id, sighting);
        // Unchanged since the last sweep. After an outage of the store that is so with everybody, so it gets one
        // more lease to renew.
        self.seam.sleep(Duration::from_micros(lease_micros).min(limits::DRAIN_WATCH_MAX)).await;
        let record = self.record(id).await?;
        let is_unchanged = record.as_ref().map(|record| record.value.version) == version;
        let seen_for = self.seam.boot_micros().saturating_sub(sighting.since_micros);
        Ok(if is_unchanged && seen_for >= lease_micros { Standing::Over(record) } else { Standing::Alive })
    }

    async fn record(&self, id: IncarnationId) -> Result<Option<Versioned<IncarnationRecord>>, SealError> {
        let Access { stores, seam, patience } = self.access();
        Ok(register::read(&*stores.main, seam, &keys::incarnation(id), patience).await?)
    }

    /// Drains one incarnation. `false`: a head needs some of its commits still.
    async fn drain(
        &self,
        id: IncarnationId,
        watched: Option<Versioned<IncarnationRecord>>,
        databases: &mut usize,
    ) -> Result<bool, DrainError> {
        let patience = self.access().patience;
        // Renewed in the last moment, it lives.
        if seal::seal_unless_renewed(&self.stores, &self.seam, id, watched, patience).await?.is_none() {
            return Ok(false);
        }
        let log = self.log(id).await?;
        let mut left = 0;
        for block in log.blocks() {
            let runs = log.block(self.access(), block).await?;
            let drains = stream::iter(by_database(&runs)).map(|(database, last)| async move {
                let outcome = self.drain_database(id, database, &last).await;
                self.seam.sleep(limits::DRAIN_PAUSE).await;
                outcome.inspect_err(|error| warn!(%database, %error, "cannot drain this database yet"))
            });
            let outcomes: Vec<_> = drains.buffer_unordered(limits::DRAINS_AT_ONCE).collect().await;
            *databases += outcomes.iter().filter(|outcome| matches!(outcome, Ok(Outcome::Folded))).count();
            left += outcomes.iter().filter(|outcome| !matches!(outcome, Ok(Outcome::Folded | Outcome::NotNeeded))).count();
        }
        if left > 0 {
            return Ok(false);
        }
        drained::forget(self.access(), id).await?;
        Ok(true)
    }

    /// The log of an incarnation that is over, bundled: then only what is asked for is read of it.
    async fn log(&self, id: IncarnationId) -> Result<Arc<SealedLog>, SealError> {
        if let Some(log) = self.logs.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(log.clone());
        }
        bundling::bundle(self.access(), id).await?;
        let log = Arc::new(SealedLog::open(self.access(), id).await?);
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).insert(id, log.clone());
        Ok(log)
    }

    fn forget_log(&self, id: IncarnationId) {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Whether the log of an incarnation in some tail has an end.
    async fn is_sealed(&self, id: IncarnationId) -> Result<bool, SealError> {
        if self.sealed.lock().unwrap_or_else(PoisonError::into_inner).contains(&id) {
            return Ok(true);
        }
        let is_sealed = self.record(id).await?.is_some_and(|record| matches!(record.value.state, State::Sealed { .. }));
        if is_sealed {
            self.sealed.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        }
        Ok(is_sealed)
    }
}

fn by_database(runs: &[Run]) -> BTreeMap<DatabaseId, LastLsns> {
    let mut all: BTreeMap<DatabaseId, LastLsns> = BTreeMap::new();
    for run in runs {
        let last = Lsn::new(run.last()).unwrap_or(run.first);
        all.entry(run.database).or_default().push((run.epoch, last));
    }
    all
}
