//! Other incarnations as this node knows them: alive, suspect, or over.
//!
//! After a node's death many of its databases are wanted here at the same moment. However many ask about one
//! incarnation, its record is read eight times per lease, one of them seals its log, and once that is done nobody
//! asks the bucket about it again: sealed is for ever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tenant::lifecycle::OwnerState;
use tracing::info;
use walstore::envelope::Corrupt;
use walstore::id::IncarnationId;
use walstore::incarnation::{IncarnationRecord, State};
use walstore::keys;
use walstore::life::Stores;
use walstore::register::{self, Patience, RecordError, Versioned};
use walstore::seal::{self, SealError, Sealed};
use walstore::seam::Seam;

/// How long a look or a seal keeps asking the store.
const PATIENCE: Duration = Duration::from_secs(20);
/// Reads of a watched record per lease. More of them tell clients of a living owner sooner that it lives.
const READS_PER_LEASE: u64 = 8;

/// What is known about an owner, and how long to wait before asking again if it seems alive.
pub struct OwnerProbe {
    pub state: OwnerState,
    pub ask_again: Duration,
    /// The version of its record: a change while one watches proves that it lives.
    pub renewed: u64,
}

/// One other incarnation. The lock around it is held while the bucket is asked, so that one asks for all.
#[derive(Default)]
struct Other {
    /// Its record as it was read last.
    record: Option<Versioned<IncarnationRecord>>,
    /// When that version of it was first seen.
    since_micros: u64,
    /// When it was read last, unless that is known to be out of date.
    read_micros: Option<u64>,
    sealed: Option<Sealed>,
    /// When the bucket was last asked in vain, and why.
    failed: Option<(u64, RecordError)>,
}

impl Other {
    /// How much of its lease is left, on our own clock, from our own first sight of the unchanged record.
    fn left_micros(&self, record: &IncarnationRecord, now: u64) -> u64 {
        self.since_micros.saturating_add(record.lease_micros).saturating_sub(now)
    }

    /// For how long what was read last will do. When the lease is over, one look is saved: the swap of the record
    /// shows whether it was renewed since.
    fn fresh_micros(&self, now: u64) -> u64 {
        let (Some(read), Some(record)) = (self.read_micros, &self.record) else { return 0 };
        let interval = record.value.lease_micros / READS_PER_LEASE;
        let fresh = if self.left_micros(&record.value, now) == 0 { interval * 2 } else { interval };
        read.saturating_add(fresh).saturating_sub(now)
    }

    /// Whoever waited for the lock while the bucket was asked in vain doesn't ask it all over again: else many would
    /// wait for each other's patience to end.
    fn failed_since(&self, arrived: u64) -> Result<(), RecordError> {
        self.failed.as_ref().filter(|(at, _)| *at >= arrived).map_or(Ok(()), |(_, error)| Err(error.clone()))
    }

    fn probe(&self, now: u64) -> OwnerProbe {
        let probe = |state| OwnerProbe { state, ask_again: Duration::ZERO, renewed: 0 };
        if self.sealed.is_some() {
            return probe(OwnerState::Sealed);
        }
        let Some(record) = self.record.as_ref().map(|record| &record.value) else {
            return probe(OwnerState::LeaseOver);
        };
        let left = match record.state {
            // Irreversible: whoever began may have died, so anybody goes on. Sealed is told apart above.
            State::Recovering | State::Sealed { .. } => 0,
            State::Open => self.left_micros(record, now),
        };
        let state =
            if left == 0 { OwnerState::LeaseOver } else { OwnerState::Alive { address: record.address.clone() } };
        let ask_again = Duration::from_micros(left.min(self.fresh_micros(now)).max(1000));
        OwnerProbe { state, ask_again, renewed: record.version }
    }
}

pub struct Others {
    stores: Stores,
    seam: Seam,
    known: Mutex<BTreeMap<IncarnationId, Arc<tokio::sync::Mutex<Other>>>>,
}

impl Others {
    pub fn new(stores: Stores, seam: Seam) -> Self {
        Self { stores, seam, known: Mutex::default() }
    }

    fn other(&self, id: IncarnationId) -> Arc<tokio::sync::Mutex<Other>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default().clone()
    }

    fn patience(&self) -> Patience {
        Patience::for_duration(&self.seam, PATIENCE)
    }

    /// Whether `id` is over.
    pub async fn probe(&self, id: IncarnationId) -> Result<OwnerProbe, RecordError> {
        let (other, arrived) = (self.other(id), self.seam.boot_micros());
        let mut other = other.lock().await;
        other.failed_since(arrived)?;
        if other.sealed.is_none() && other.fresh_micros(self.seam.boot_micros()) == 0 {
            self.look(id, &mut other).await?;
        }
        Ok(other.probe(self.seam.boot_micros()))
    }

    /// The same, but that it lives is said only if it has renewed its lease meanwhile: until then it may be dead.
    pub async fn watch(&self, id: IncarnationId) -> Result<OwnerState, RecordError> {
        let mut first = None;
        loop {
            let probe = self.probe(id).await?;
            let is_alive = matches!(probe.state, OwnerState::Alive { .. });
            if !is_alive || *first.get_or_insert(probe.renewed) != probe.renewed {
                return Ok(probe.state);
            }
            self.seam.sleep(probe.ask_again).await;
        }
    }

    async fn look(&self, id: IncarnationId, other: &mut Other) -> Result<(), RecordError> {
        let key = keys::incarnation(id);
        let found = register::read::<IncarnationRecord>(&*self.stores.main, &self.seam, &key, self.patience()).await;
        let now = self.seam.boot_micros();
        // A head names it, so it had a record, and records are never deleted. To seal it anew would forget its log.
        let found = found.and_then(|found| match found {
            None => Err(Corrupt::new("it owns a database, but its record is not there").at(&key).into()),
            found => Ok(found),
        });
        let found = found.inspect_err(|error| other.failed = Some((now, error.clone())))?;
        let version =
            |record: &Option<Versioned<IncarnationRecord>>| record.as_ref().map(|record| record.value.version);
        if version(&found) != version(&other.record) {
            other.since_micros = now;
        }
        if let Some(record) = &found
            && let State::Sealed { end } = record.value.state
        {
            other.sealed = Some(Sealed::of(record.value.clone(), end));
        }
        other.record = found;
        other.read_micros = Some(now);
        Ok(())
    }

    /// Ends the log of an incarnation whose lease is over by [`probe`](Self::probe). If it turns out to have been
    /// renewed since, nothing is done, and the next probe says so.
    pub async fn seal(&self, id: IncarnationId) -> Result<(), SealError> {
        let (other, arrived) = (self.other(id), self.seam.boot_micros());
        let mut other = other.lock().await;
        other.failed_since(arrived)?;
        // Another may have sealed it while this one waited for the lock, or found that it lives.
        let is_over = matches!(other.probe(self.seam.boot_micros()).state, OwnerState::LeaseOver);
        if !is_over || other.read_micros.take().is_none() {
            return Ok(());
        }
        let watched = other.record.clone();
        let sealed = seal::seal_unless_renewed(&self.stores, &self.seam, id, watched, self.patience()).await;
        if let Err(SealError::Record(error)) = &sealed {
            other.failed = Some((self.seam.boot_micros(), error.clone()));
        }
        let sealed = sealed?;
        match &sealed {
            Some(sealed) => info!(incarnation = %id, end = %sealed.end, low = %sealed.low, "its log is sealed"),
            None => info!(incarnation = %id, "it lives after all"),
        }
        other.sealed = sealed;
        Ok(())
    }

    /// Where the log of `id` ends, if this node knows. `low` may have risen since.
    pub async fn sealed(&self, id: IncarnationId) -> Option<Sealed> {
        self.other(id).lock().await.sealed.clone()
    }
}

#[cfg(test)]
#[path = "others_tests.rs"]
mod tests;
