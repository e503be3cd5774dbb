//! Other incarnations as this node knows them: alive, suspect, or sealed with a log to recover from.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tenant::lifecycle::OwnerState;
use tokio::sync::OnceCell;
use tracing::info;
use walstore::id::{DatabaseId, IncarnationId};
use walstore::incarnation::{IncarnationRecord, State};
use walstore::keys;
use walstore::life::Stores;
pub use walstore::recovery::LoggedCommit;
use walstore::recovery::{Access, SealedLog};
use walstore::register::{self, Patience, RecordError};
use walstore::seal::{self, SealError, Sealed};
use walstore::seam::Seam;

/// How long a seal or a recovery keeps asking the store.
const PATIENCE: Duration = Duration::from_secs(20);
/// Times that a log is read again because it was bundled or drained under the reader.
const ROUNDS_MAX: usize = 4;

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

type Shared = Arc<OnceCell<SealedLog>>;

/// Sealed logs that were read, shared by all databases of the node that recover from them.
pub struct SealedLogs {
    stores: Stores,
    seam: Seam,
    /// Read logs, for as long as somebody recovers from them.
    logs: Mutex<BTreeMap<IncarnationId, Weak<OnceCell<SealedLog>>>>,
    /// The log that was read last. After a takeover many databases need it, one after the other.
    last: Mutex<Option<Shared>>,
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

    /// The commits of a database in a sealed log, in the order of the log. The log is read once, at 128 requests at
    /// a time, however many databases ask while it is held; once it is bundled, each reads only its own part.
    pub async fn commits(&self, id: IncarnationId, database: DatabaseId) -> Result<Vec<LoggedCommit>, SealError> {
        let patience = Patience::for_duration(&self.seam, PATIENCE);
        let access = Access { stores: &self.stores, seam: &self.seam, patience };
        let mut rounds = 0;
        loop {
            rounds += 1;
            let shared = self.shared(id);
            let log = shared.get_or_try_init(|| self.read(access, id)).await?;
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(shared.clone());
            match log.commits(access, database).await {
                // Bundled or drained since it was read.
                Err(SealError::Stale(_)) if rounds < ROUNDS_MAX => self.forget(id, &shared),
                result => return result,
            }
        }
    }

    fn shared(&self, id: IncarnationId) -> Shared {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.retain(|_, log| log.strong_count() > 0);
        let held = logs.get(&id).and_then(Weak::upgrade);
        held.unwrap_or_else(|| {
            let cell = Arc::default();
            logs.insert(id, Arc::downgrade(&cell));
            cell
        })
    }

    fn forget(&self, id: IncarnationId, stale: &Shared) {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        if logs.get(&id).is_some_and(|log| log.as_ptr() == Arc::as_ptr(stale)) {
            logs.remove(&id);
        }
    }

    async fn read(&self, access: Access<'_>, id: IncarnationId) -> Result<SealedLog, SealError> {
        let log = SealedLog::open(access, id).await?;
        let Sealed { low, end, bundles, .. } = log.sealed();
        let databases = log.unbundled_databases();
        info!(incarnation = %id, slots = end.0 - low.0, databases, bundles = bundles.len(), "read its log");
        Ok(log)
    }
}
