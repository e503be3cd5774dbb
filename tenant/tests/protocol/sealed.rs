//! Other incarnations as one node knows them, as `compute` does it: alive, suspect, or sealed with a log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tenant::lifecycle::OwnerState;
use walstore::id::{DatabaseId, IncarnationId, Lsn};
use walstore::incarnation::{IncarnationRecord, State};
use walstore::keys;
use walstore::life::Stores;
use walstore::register::{self, Patience, RecordError};
use walstore::seal::{self, SealError};
use walstore::seam::Seam;

const PATIENCE: Duration = Duration::from_secs(6);

/// One commit of a sealed log: its epoch, LSN and bytes.
pub type Logged = (u64, Lsn, Bytes);
pub type Log = BTreeMap<DatabaseId, Vec<Logged>>;

pub struct Others {
    stores: Stores,
    seam: Seam,
    /// The version of a record and since when it was seen.
    sightings: Mutex<BTreeMap<IncarnationId, (u64, u64)>>,
    logs: Mutex<BTreeMap<IncarnationId, Arc<Log>>>,
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
        let Some(record) = record.map(|record| record.value) else { return Ok(probe(OwnerState::LeaseOver)) };
        Ok(match record.state {
            State::Sealed { .. } => probe(OwnerState::Sealed),
            State::Recovering => probe(OwnerState::LeaseOver),
            State::Open => self.watch(id, &record),
        })
    }

    fn watch(&self, id: IncarnationId, record: &IncarnationRecord) -> Probe {
        let now = self.seam.boot_micros();
        let mut sightings = self.sightings.lock().unwrap();
        let sighting = sightings.entry(id).or_insert((record.version, now));
        if sighting.0 != record.version {
            *sighting = (record.version, now);
        }
        let left = sighting.1.saturating_add(record.lease_micros).saturating_sub(now);
        let state = if left == 0 { OwnerState::LeaseOver } else { OwnerState::Alive { address: String::new() } };
        let ask_again = Duration::from_micros(left.min(record.lease_micros / 4).max(10_000));
        Probe { state, ask_again, renewed: record.version }
    }

    /// Ends the log of an incarnation whose lease is over by our own watch, unless it was renewed since.
    pub async fn seal(&self, id: IncarnationId) -> Result<(), SealError> {
        let watched = self.sightings.lock().unwrap().get(&id).map(|sighting| sighting.0).unwrap_or_default();
        seal::seal_unless_renewed(&self.stores, &self.seam, id, watched, self.patience()).await.map(|_| ())
    }

    /// Ends the log of an incarnation that is, or is taken to be, dead for certain.
    pub async fn seal_dead(&self, id: IncarnationId) -> Result<(), SealError> {
        seal::seal(&self.stores, &self.seam, id, self.patience()).await.map(|_| ())
    }

    pub async fn log(&self, id: IncarnationId) -> Result<Arc<Log>, SealError> {
        if let Some(log) = self.logs.lock().unwrap().get(&id) {
            return Ok(log.clone());
        }
        let sealed = seal::seal(&self.stores, &self.seam, id, self.patience()).await?;
        let mut log = Log::new();
        for fragment in seal::read_log(&self.stores, &self.seam, id, sealed, self.patience()).await? {
            for run in fragment.runs {
                let mut lsn = run.first;
                for bytes in run.commits {
                    log.entry(run.database).or_default().push((run.epoch, lsn, bytes));
                    lsn = Lsn::after(Some(lsn));
                }
            }
        }
        let log = Arc::new(log);
        self.logs.lock().unwrap().insert(id, log.clone());
        Ok(log)
    }
}
