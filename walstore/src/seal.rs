//! Ending the log of an incarnation that is gone. What it left is read by [`recovery`](crate::recovery).
//!
//! Any number of nodes may seal the same log at once. Only the last CAS decides, everyone adopts its
//! result, and a sealer that dies half-way hinders nobody. Safe because a tombstone is created only in an
//! empty slot and never deleted: no slot from it on is ever acknowledged.

use futures_util::future::join_all;

use crate::bundle::BundleRef;
use crate::envelope::Corrupt;
use crate::fragment::{self, TOMBSTONE_BYTES};
use crate::id::{IncarnationId, PutId, Slot};
use crate::incarnation::{IncarnationRecord, State};
use crate::keys;
use crate::limits;
use crate::mutant::{self, Mutant};
use crate::register::{self, Backoff, Patience, Record, RecordError, Versioned};
use crate::seam::Seam;
use crate::life::Stores;
use crate::store::{Condition, Put, Store, StoreError, StoreErrorKind};

/// A log that has an end. Its commits are those in the slots `low..end` and in the bundles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    pub low: Slot,
    pub end: Slot,
    pub bundles: Vec<BundleRef>,
    /// Of the record that says so.
    pub version: u64,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum SealError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("{0}: the slot is neither in the bucket nor folded; commits are missing")]
    Hole(String),
    /// What was read is out of date: the log was bundled or drained meanwhile. Read the record again.
    #[error("{0}: gone, because its log was bundled or drained meanwhile; try again")]
    Stale(String),
}

impl Sealed {
    /// What a record in the state *sealed*, with this end, says.
    pub fn of(record: IncarnationRecord, end: Slot) -> Self {
        Self { low: record.low, end, bundles: record.bundles, version: record.version }
    }
}

impl From<StoreError> for SealError {
    fn from(error: StoreError) -> Self {
        Self::Record(error.into())
    }
}

impl From<Corrupt> for SealError {
    fn from(corrupt: Corrupt) -> Self {
        Self::Record(corrupt.into())
    }
}

/// Seals the log of `id`, or learns how it was sealed. The caller knows that the incarnation is dead; being
/// wrong about that costs the incarnation its life, and may cost its readers a stale answer, but never a commit.
pub async fn seal(stores: &Stores, seam: &Seam, id: IncarnationId, patience: Patience) -> Result<Sealed, SealError> {
    let sealed = seal_from(stores, seam, id, (None, None), patience).await?;
    Ok(sealed.expect("BUG: a log that is sealed at any version was left open"))
}

/// Like [`seal`], for an incarnation that some head names. It had a record before it could be named, and records are
/// never deleted: without one nobody can tell where its log ended, and its commits are not to be forgotten.
pub async fn seal_named(stores: &Stores, seam: &Seam, id: IncarnationId, patience: Patience) -> Result<Sealed, SealError> {
    let key = keys::incarnation(id);
    let found = register::read::<IncarnationRecord>(&*stores.main, seam, &key, patience).await?;
    let found = found.ok_or_else(|| Corrupt::new("a head names this incarnation, but its record is not there").at(key))?;
    let sealed = seal_from(stores, seam, id, (Some(found), None), patience).await?;
    Ok(sealed.expect("BUG: a log that is sealed at any version was left open"))
}

/// Like [`seal`], for an incarnation that is only suspected to be dead, because its record has stood as `watched` (or
/// has been absent) for a whole lease. `None` if it has been renewed since: then it lives, and serves reads for
/// another lease.
///
/// The record is not read again: the swap shows whether it is still the one that was watched.
pub async fn seal_unless_renewed(
    stores: &Stores,
    seam: &Seam,
    id: IncarnationId,
    watched: Option<Versioned<IncarnationRecord>>,
    patience: Patience,
) -> Result<Option<Sealed>, SealError> {
    let version = watched.as_ref().map_or(0, |watched| watched.value.version);
    seal_from(stores, seam, id, (watched, Some(version)), patience).await
}

/// `known` is the record as it was read or written last. An open record is swung to *recovering* only from the
/// version that was watched, if one was.
async fn seal_from(
    stores: &Stores,
    seam: &Seam,
    id: IncarnationId,
    (mut known, watched): (Option<Versioned<IncarnationRecord>>, Option<u64>),
    patience: Patience,
) -> Result<Option<Sealed>, SealError> {
    let key = keys::incarnation(id);
    let store = &*stores.main;
    let mut first_hint = None;
    loop {
        let found = match known.take() {
            Some(known) => Some(known),
            None => register::read::<IncarnationRecord>(store, seam, &key, patience).await?,
        };
        let Some(found) = found else {
            // A marker without a record: the process died between the two, or its create is still on the
            // way. Occupying the key closes it.
            let mut record = IncarnationRecord::new(id, PutId::random(seam), 0, String::new());
            record.state = State::Sealed { end: Slot::ZERO };
            register::create(store, seam, &key, record, patience).await?;
            continue;
        };
        match found.value.state {
            State::Sealed { end } => return Ok(Some(Sealed::of(found.value, end))),
            State::Open | State::Recovering if mutant::is_on(Mutant::TakeOverBeforeSeal) => {
                let end = find_end(&*stores.log, seam, id, found.value.hint, patience).await?;
                return Ok(Some(Sealed::of(found.value, end)));
            }
            State::Open
                if watched.is_some_and(|version| version != found.value.version)
                    && !mutant::is_on(Mutant::SealThoughRenewed) =>
            {
                return Ok(None);
            }
            State::Open => {
                first_hint.get_or_insert(found.value.hint);
                let mut next = found.value.successor(PutId::random(seam));
                next.state = State::Recovering;
                known = register::replace(store, seam, &key, &found.etag, next, patience).await?.found();
            }
            State::Recovering if mutant::is_on(Mutant::ProbeFromOldHint) => {
                let old = first_hint.unwrap_or(found.value.hint);
                let value = IncarnationRecord { hint: old, low: old.min(found.value.low), ..found.value };
                known = finish(stores, seam, id, Versioned { value, ..found }, patience).await?;
            }
            State::Recovering => known = finish(stores, seam, id, found, patience).await?,
        }
    }
}

/// From `recovering` on: finds the end and records it. Losing the CAS is fine. Returns the record that is there
/// then, if that is known.
async fn finish(
    stores: &Stores,
    seam: &Seam,
    id: IncarnationId,
    recovering: Versioned<IncarnationRecord>,
    patience: Patience,
) -> Result<Option<Versioned<IncarnationRecord>>, SealError> {
    let end = find_end(&*stores.log, seam, id, recovering.value.hint, patience).await?;
    let mut next = recovering.value.successor(PutId::random(seam));
    next.state = State::Sealed { end };
    next.hint = end;
    let key = keys::incarnation(id);
    if mutant::is_on(Mutant::SealWithoutCas) {
        stores.main.put(&key, next.encode(), &Condition::None).await?;
        return Ok(None);
    }
    if mutant::is_on(Mutant::CollectTombstone) {
        stores.log.delete(&keys::fragment(id, end)).await?;
    }
    match register::replace(&*stores.main, seam, &key, &recovering.etag, next, patience).await?.found() {
        None => Err(Corrupt::new("an incarnation record was deleted; they never are").at(key).into()),
        found => Ok(found),
    }
}

enum Probe {
    Empty,
    Data,
    Tombstone,
}

/// Probes upward from the hint, several slots at a time, and occupies the first empty one.
async fn find_end(
    store: &dyn Store,
    seam: &Seam,
    id: IncarnationId,
    hint: Slot,
    patience: Patience,
) -> Result<Slot, SealError> {
    let mut from = hint;
    loop {
        let slots = (from.0..from.0 + limits::SEAL_PROBE_SLOTS).map(Slot);
        let probes = join_all(slots.map(|slot| probe(store, seam, id, slot, patience))).await;
        let mut next = Slot(from.0 + limits::SEAL_PROBE_SLOTS);
        for (slot, probe) in (from.0..).map(Slot).zip(probes) {
            match probe? {
                Probe::Data => continue,
                Probe::Tombstone => return Ok(slot),
                Probe::Empty if occupy(store, seam, id, slot, patience).await? => return Ok(slot),
                // Data arrived between the probe and the tombstone: what follows may have changed too.
                Probe::Empty => next = slot.next(),
            }
            break;
        }
        from = next;
    }
}

async fn probe(
    store: &dyn Store,
    seam: &Seam,
    id: IncarnationId,
    slot: Slot,
    patience: Patience,
) -> Result<Probe, SealError> {
    let key = keys::fragment(id, slot);
    let mut backoff = Backoff::default();
    let start = loop {
        match store.get_range(&key, 0..TOMBSTONE_BYTES as u64).await {
            Ok(None) => return Ok(Probe::Empty),
            Ok(Some(start)) => break start.bytes,
            Err(error) if error.is_permanent() || patience.has_ended(seam) => return Err(error.into()),
            Err(_) => backoff.pause(seam).await,
        }
    };
    match fragment::identify(&start, id, slot).map_err(|corrupt| corrupt.at(&key))? {
        fragment::SlotKind::Data => Ok(Probe::Data),
        fragment::SlotKind::Tombstone => Ok(Probe::Tombstone),
    }
}

/// Puts a tombstone; `false` if data was faster.
async fn occupy(
    store: &dyn Store,
    seam: &Seam,
    id: IncarnationId,
    slot: Slot,
    patience: Patience,
) -> Result<bool, SealError> {
    if mutant::is_on(Mutant::ListInsteadOfTombstone) || mutant::is_on(Mutant::TakeOverBeforeSeal) {
        return Ok(true);
    }
    let object = fragment::encode_tombstone(id, slot, PutId::random(seam));
    let mut backoff = Backoff::default();
    loop {
        match store.put(&keys::fragment(id, slot), object.clone(), &Condition::Absent).await {
            Ok(Put::Done(_)) => return Ok(true),
            Ok(Put::Refused) => match probe(store, seam, id, slot, patience).await? {
                Probe::Tombstone => return Ok(true),
                Probe::Data => return Ok(false),
                // Deleted in between, because the log was bundled: nothing says that what follows is data. The CAS
                // will tell us.
                Probe::Empty if patience.has_ended(seam) => {
                    let message = "a slot that is taken and reads as empty";
                    return Err(StoreError::new(StoreErrorKind::Retry, keys::fragment(id, slot), message).into());
                }
                Probe::Empty => backoff.pause(seam).await,
            },
            Err(error) if error.is_permanent() || patience.has_ended(seam) => return Err(error.into()),
            Err(_) => backoff.pause(seam).await,
        }
    }
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
