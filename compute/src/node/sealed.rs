//! Other incarnations as this node knows them: alive, suspect, or sealed with a log to recover from.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tenant::lifecycle::OwnerState;
use tokio::sync::OnceCell;
use tracing::info;
use walstore::fragment::Run;
use walstore::id::{DatabaseId, IncarnationId, Lsn};
use walstore::incarnation::{IncarnationRecord, State};
use walstore::keys;
use walstore::life::Stores;
use walstore::register::{self, Patience, RecordError};
use walstore::seal::{self, SealError};
use walstore::seam::Seam;

/// How long a seal or a recovery keeps asking the store.
const PATIENCE: Duration = Duration::from_secs(20);

/// One commit of a sealed log.
#[derive(Clone, Debug)]
pub struct LoggedCommit {
    pub epoch: u64,
    pub lsn: Lsn,
    pub bytes: Bytes,
}

impl LoggedCommit {
    /// The commits of one database in one slot.
    pub fn of_run(run: Run) -> impl Iterator<Item = Self> {
        let lsns = std::iter::successors(Some(run.first), |lsn| Some(Lsn::after(Some(*lsn))));
        lsns.zip(run.commits).map(move |(lsn, bytes)| Self { epoch: run.epoch, lsn, bytes })
    }
}

/// The content of a sealed log, by database.
#[derive(Default)]
pub struct SealedLog {
    commits: BTreeMap<DatabaseId, Vec<LoggedCommit>>,
}

impl SealedLog {
    /// The commits of a database, in the order of the log.
    pub fn commits(&self, database: DatabaseId) -> &[LoggedCommit] {
        self.commits.get(&database).map_or(&[], Vec::as_slice)
    }

    /// Every database that has commits here.
    pub fn databases(&self) -> impl Iterator<Item = DatabaseId> {
        self.commits.keys().copied()
    }
}

/// A sealed log in use. While one exists, others that need the same log share it.
pub struct LogHold {
    log: Arc<SealedLog>,
    _shared: Arc<OnceCell<Arc<SealedLog>>>,
}

impl std::ops::Deref for LogHold {
    type Target = SealedLog;

    fn deref(&self) -> &SealedLog {
        &self.log
    }
}

/// When a record was first seen in its present version.
struct Sighting {
    version: u64,
    since_micros: u64,
}

/// What is known about an owner, and how long to wait before asking again if it seems alive.
pub struct OwnerProbe {
    pub state: OwnerState,
    pub ask_again: Duration,
    /// The version of its record: a change while one watches proves that it lives.
    pub renewed: u64,
}

/// Sealed logs that were read, shared by all databases of the node that recover from them.
pub struct SealedLogs {
    stores: Stores,
    seam: Seam,
    /// Read logs, for as long as somebody recovers from them.
    logs: Mutex<BTreeMap<IncarnationId, Weak<OnceCell<Arc<SealedLog>>>>>,
    /// The log that was read last. After a takeover many databases need it, one after the other.
    last: Mutex<Option<Arc<OnceCell<Arc<SealedLog>>>>>,
    sightings: Mutex<BTreeMap<IncarnationId, Sighting>>,
}

impl SealedLogs {
    pub fn new(stores: Stores, seam: Seam) -> Self {
        Self { stores, seam, logs: Mutex::default(), last: Mutex::default(), sightings: Mutex::default() }
    }

    /// Whether `id` is over. A lease is measured on our own clock, from our own first sight of an
    /// unchanged record.
    pub async fn probe(&self, id: IncarnationId) -> Result<OwnerProbe, RecordError> {
        let patience = Patience::for_duration(&self.seam, PATIENCE);
        let key = keys::incarnation(id);
        let record = register::read::<IncarnationRecord>(&*self.stores.main, &self.seam, &key, patience).await?;
        let probe = |state| OwnerProbe { state, ask_again: Duration::ZERO, renewed: 0 };
        let Some(record) = record.map(|record| record.value) else { return Ok(probe(OwnerState::LeaseOver)) };
        Ok(match record.state {
            State::Sealed { .. } => probe(OwnerState::Sealed),
            // Irreversible: whoever began may have died, so anybody goes on.
            State::Recovering => probe(OwnerState::LeaseOver),
            State::Open => self.watch(id, &record),
        })
    }

    fn watch(&self, id: IncarnationId, record: &IncarnationRecord) -> OwnerProbe {
        let now = self.seam.boot_micros();
        let mut sightings = self.sightings.lock().unwrap_or_else(PoisonError::into_inner);
        let sighting = sightings.entry(id).or_insert(Sighting { version: record.version, since_micros: now });
        if sighting.version != record.version {
            *sighting = Sighting { version: record.version, since_micros: now };
        }
        let left = sighting.since_micros.saturating_add(record.lease_micros).saturating_sub(now);
        let state = if left == 0 { OwnerState::LeaseOver } else { OwnerState::Alive { address: record.address.clone() } };
        let ask_again = Duration::from_micros(left.min(record.lease_micros / 8).max(10_000));
        OwnerProbe { state, ask_again, renewed: record.version }
    }

    /// Ends the log of an incarnation whose lease is over by [`probe`](Self::probe), unless it was renewed since.
    pub async fn seal(&self, id: IncarnationId) -> Result<(), SealError> {
        let watched = self.sightings.lock().unwrap_or_else(PoisonError::into_inner).get(&id).map(|it| it.version);
        let patience = Patience::for_duration(&self.seam, PATIENCE);
        // Without a sighting the record was not open.
        let version = watched.unwrap_or_default();
        match seal::seal_unless_renewed(&self.stores, &self.seam, id, version, patience).await? {
            Some(sealed) => info!(incarnation = %id, end = %sealed.end, low = %sealed.low, "its log is sealed"),
            None => info!(incarnation = %id, "it lives after all"),
        }
        Ok(())
    }

    /// The content of a sealed log. Read once, at 128 requests at a time, however many databases ask while
    /// it is held.
    pub async fn log(&self, id: IncarnationId) -> Result<LogHold, SealError> {
        let cell = {
            let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
            logs.retain(|_, log| log.strong_count() > 0);
            let held = logs.get(&id).and_then(Weak::upgrade);
            held.unwrap_or_else(|| {
                let cell = Arc::default();
                logs.insert(id, Arc::downgrade(&cell));
                cell
            })
        };
        let log = cell.get_or_try_init(|| self.read(id)).await?.clone();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(cell.clone());
        Ok(LogHold { log, _shared: cell })
    }

    async fn read(&self, id: IncarnationId) -> Result<Arc<SealedLog>, SealError> {
        let patience = Patience::for_duration(&self.seam, PATIENCE);
        let sealed = seal::seal(&self.stores, &self.seam, id, patience).await?;
        let fragments = seal::read_log(&self.stores, &self.seam, id, sealed, patience).await?;
        let mut log = SealedLog::default();
        for fragment in fragments {
            for run in fragment.runs {
                log.commits.entry(run.database).or_default().extend(LoggedCommit::of_run(run));
            }
        }
        info!(incarnation = %id, slots = sealed.end.0 - sealed.low.0, databases = log.commits.len(), "read its log");
        Ok(Arc::new(log))
    }
}
