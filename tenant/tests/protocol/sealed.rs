//! Other incarnations as one node knows them, as `compute` does it: alive, suspect, or sealed with a log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tenant::lifecycle::OwnerState;
use walstore::id::{DatabaseId, IncarnationId};
use walstore::incarnation::{IncarnationRecord, State};
use walstore::keys;
use walstore::life::Stores;
use walstore::recovery::{Access, LoggedCommit, SealedLog};
use walstore::register::{self, Patience, RecordError, Versioned};
use walstore::seal::{self, SealError};
use walstore::seam::Seam;

const PATIENCE: Duration = Duration::from_secs(6);
/// Between the suspicion and the seal.
const PAUSE_MICROS_MAX: u64 = 500_000;

pub struct Others {
    stores: Stores,
    seam: Seam,
    /// An open record and since when it was seen.
    sightings: Mutex<BTreeMap<IncarnationId, (Versioned<IncarnationRecord>, u64)>>,
    logs: Mutex<BTreeMap<IncarnationId, Arc<SealedLog>>>,
}

/// What is known about an owner, when to ask again if it seems alive, and the version of its record.
pub struct Probe {
    pub state: OwnerState,
    pub ask_again: Duration,
    pub renewed: u64,
}

impl Others {
    pub fn new(stores: Stores, seam: Seam) -> Self {
        Self { stores, seam, sightings: Mutex::default(), logs: Mutex::default() }
    }

    fn patience(&self) -> Patience {
        Patience::for_duration(&self.seam, PATIENCE)
    }

    pub async fn probe(&self, id: IncarnationId) -> Result<Probe, RecordError> {
        let key = keys::incarnation(id);
        let record = register::read::<IncarnationRecord>(&*self.stores.main, &self.seam, &key, self.patience()).await?;
        let probe = |state| Probe { state, ask_again: Duration::ZERO, renewed: 0 };
        let Some(record) = record else { return Ok(probe(OwnerState::LeaseOver)) };
        Ok(match record.value.state {
            State::Sealed { .. } => probe(OwnerState::Sealed),
            State::Recovering => probe(OwnerState::LeaseOver),
            State::Open => self.watch(id, record),
        })
    }

    fn watch(&self, id: IncarnationId, record: Versioned<IncarnationRecord>) -> Probe {
        let now = self.seam.boot_micros();
        let (renewed, lease) = (record.value.version, record.value.lease_micros);
        let mut sightings = self.sightings.lock().unwrap();
        let sighting = sightings.entry(id).or_insert((record.clone(), now));
        if sighting.0.value.version != renewed {
            *sighting = (record, now);
        }
        let left = sighting.1.saturating_add(lease).saturating_sub(now);
        let state = if left == 0 { OwnerState::LeaseOver } else { OwnerState::Alive { address: String::new() } };
        let ask_again = Duration::from_micros(left.min(lease / 4).max(10_000));
        Probe { state, ask_again, renewed }
    }

    /// Ends the log of an incarnation whose lease is over by our own watch, unless it was renewed since.
    pub async fn seal(&self, id: IncarnationId) -> Result<(), SealError> {
        let watched = self.sightings.lock().unwrap().get(&id).map(|sighting| sighting.0.clone());
        // A busy machine: time for a renewal to come in between.
        self.seam.sleep(Duration::from_micros(self.seam.random_u64() % PAUSE_MICROS_MAX)).await;
        seal::seal_unless_renewed(&self.stores, &self.seam, id, watched, self.patience()).await.map(|_| ())
    }

    /// Ends the log of an incarnation that is, or is taken to be, dead for certain.
    pub async fn seal_dead(&self, id: IncarnationId) -> Result<(), SealError> {
        seal::seal(&self.stores, &self.seam, id, self.patience()).await.map(|_| ())
    }

    /// The commits of a database in the log of `id`, in order.
    pub async fn commits(&self, id: IncarnationId, database: DatabaseId) -> Result<Vec<LoggedCommit>, SealError> {
        let access = Access { stores: &self.stores, seam: &self.seam, patience: self.patience() };
        let known = self.logs.lock().unwrap().get(&id).cloned();
        let log = match known {
            Some(log) => log,
            None => Arc::new(SealedLog::open(access, id).await?),
        };
        match log.commits(access, database).await {
            Ok(commits) => {
                self.logs.lock().unwrap().insert(id, log);
                Ok(commits)
            }
            Err(error) => {
                self.logs.lock().unwrap().remove(&id);
                Err(error)
            }
        }
    }
}
