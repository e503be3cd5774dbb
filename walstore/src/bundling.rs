//! Moving what is left of a sealed log into bundles.
//!
//! Off the critical path: whoever needs a database reads fragments meanwhile. Any number of nodes may bundle the
//! same log; one CAS of the record decides, and its losers delete what they wrote. The CAS links the bundles and
//! raises `low` to the end in one step, so a slot is deleted only once its commits are somewhere else.

use futures_util::{StreamExt, TryStreamExt, stream};
use tracing::{info, warn};

use crate::bundle::{BundleRef, Gathered};
use crate::envelope::Corrupt;
use crate::id::{IncarnationId, PutId, Slot};
use crate::incarnation::{IncarnationRecord, State};
use crate::keys;
use crate::lease;
use crate::limits;
use crate::mutant::{self, Mutant};
use crate::recovery::{self, Access};
use crate::register::{self, Backoff, Swap, Versioned};
use crate::seal::{self, SealError, Sealed};
use crate::store::{Condition, Key, StoreError};

/// Bundles the log of `id`, which is sealed first if it is not yet. Returns what the log is then: no slots, and
/// the bundles of whoever won.
pub async fn bundle(access: Access<'_>, id: IncarnationId) -> Result<Sealed, SealError> {
    for _ in 0..limits::RECOVERY_ROUNDS_MAX {
        let sealed = seal::seal(access.stores, access.seam, id, access.patience).await?;
        if sealed.low == sealed.end {
            return Ok(sealed);
        }
        let mut written = Vec::new();
        match write(access, id, &sealed, &mut written).await {
            Ok(()) => {}
            Err(error) => {
                // None of them is linked: no CAS was sent.
                discard(access, id, &written).await;
                match error {
                    SealError::Stale(_) => continue,
                    error => return Err(error),
                }
            }
        }
        if mutant::is_on(Mutant::DeleteBeforeLink) {
            lease::delete_slots(&*access.stores.log, id, sealed.low, sealed.end).await;
        }
        // If this fails, its outcome is unknown and the bundles stay; draining sweeps what is not linked.
        let linked = link(access, id, &sealed, &written).await;
        if linked.is_err() && mutant::is_on(Mutant::DiscardUnknownLink) {
            discard(access, id, &written).await;
        }
        if linked? {
            lease::delete_slots(&*access.stores.log, id, sealed.low, sealed.end).await;
            info!(incarnation = %id, slots = sealed.end.0 - sealed.low.0, bundles = written.len(), "bundled its log");
        } else {
            discard(access, id, &written).await;
        }
    }
    Err(SealError::Stale(keys::incarnation(id).to_string()))
}

/// Stores the bundles. What is stored is in `written`, however this ends.
async fn write(
    access: Access<'_>,
    id: IncarnationId,
    sealed: &Sealed,
    written: &mut Vec<BundleRef>,
) -> Result<(), SealError> {
    let mut fragments = std::pin::pin!(recovery::fragments(access, id, sealed));
    let mut gathered = Gathered::default();
    while let Some(fragment) = fragments.try_next().await? {
        if mutant::is_on(Mutant::BundleWithoutLast) && fragment.slot.next() == sealed.end && !gathered.is_empty() {
            break;
        }
        let key = keys::fragment(id, fragment.slot);
        gathered.add(fragment).map_err(|corrupt| corrupt.at(key))?;
        if gathered.bytes() >= limits::BUNDLE_BYTES_TARGET {
            store(access, id, std::mem::take(&mut gathered), sealed, written).await?;
        }
    }
    if !gathered.is_empty() {
        store(access, id, gathered, sealed, written).await?;
    }
    Ok(())
}

async fn store(
    access: Access<'_>,
    id: IncarnationId,
    gathered: Gathered,
    sealed: &Sealed,
    written: &mut Vec<BundleRef>,
) -> Result<(), SealError> {
    let count = sealed.bundles.len() + written.len();
    let number = u32::try_from(count).ok().filter(|_| count < limits::BUNDLES_MAX);
    let number = number.ok_or_else(|| Corrupt::new("more commits than a record can refer to").at(keys::incarnation(id)))?;
    let (object, reference) = gathered.encode(id, number, access.seam.random_id());
    // Before the PUT: one that fails may have been stored all the same.
    written.push(reference);
    let key = reference.key(id);
    let mut backoff = Backoff::default();
    loop {
        match access.stores.main.put(&key, object.clone(), &Condition::None).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_permanent() || access.patience.has_ended(access.seam) => return Err(error.into()),
            Err(_) => backoff.pause(access.seam).await,
        }
    }
}

/// The CAS that makes the bundles what readers read. `false` if somebody else's took its place.
async fn link(
    access: Access<'_>,
    id: IncarnationId,
    sealed: &Sealed,
    written: &[BundleRef],
) -> Result<bool, SealError> {
    let Some(found) = read(access, id).await? else { return Ok(false) };
    if found.value.version != sealed.version {
        return Ok(false);
    }
    let mut next = found.value.successor(PutId::random(access.seam));
    // As the seal left it; a record from elsewhere may say less.
    (next.low, next.hint) = (sealed.end, sealed.end);
    if mutant::is_on(Mutant::LinkMovesEnd) {
        let end = sealed.end.next();
        (next.state, next.low, next.hint) = (State::Sealed { end }, end, end);
    }
    next.bundles.extend(written);
    let key = keys::incarnation(id);
    let store = &*access.stores.main;
    Ok(match register::replace(store, access.seam, &key, &found.etag, next, access.patience).await? {
        Swap::Won(_) => true,
        // Found means that ours never took place, unless somebody has gone on from ours.
        Swap::Lost(found) => found.is_some_and(|found| written.iter().all(|it| found.value.bundles.contains(it))),
    })
}

/// The record of a sealed log.
pub(crate) async fn read(
    access: Access<'_>,
    id: IncarnationId,
) -> Result<Option<Versioned<IncarnationRecord>>, SealError> {
    let key = keys::incarnation(id);
    let found = register::read::<IncarnationRecord>(&*access.stores.main, access.seam, &key, access.patience).await?;
    match found {
        Some(found) if !matches!(found.value.state, State::Sealed { .. }) => {
            Err(Corrupt::new("a sealed log that is open again").at(key).into())
        }
        found => Ok(found),
    }
}

async fn discard(access: Access<'_>, id: IncarnationId, written: &[BundleRef]) {
    for bundle in written {
        if let Err(error) = access.stores.main.delete(&bundle.key(id)).await {
            warn!(%error, "cannot delete a bundle that lost its race; draining sweeps it");
        }
    }
}

/// Deletes objects, waiting out what passes. Unlike a keeper's, these deletes are followed by others that say
/// that they are done.
pub(crate) async fn delete_all(
    access: Access<'_>,
    keys: impl Iterator<Item = Key> + Send,
    main: bool,
) -> Result<(), StoreError> {
    let store = if main { &access.stores.main } else { &access.stores.log };
    let deletes = keys.map(|key| async move { register::delete(&**store, access.seam, &key, access.patience).await });
    stream::iter(deletes).buffer_unordered(limits::DELETES_IN_FLIGHT_MAX).try_collect().await
}

/// Slots that a drained log may have left: below its end, and right behind it, where PUTs were in flight beside the
/// one that the tombstone was faster than. Never the end itself, whose tombstone stays. One after the other, since the
/// record alone says how many they are.
pub(crate) fn slots_of(id: IncarnationId, sealed: &Sealed) -> impl Iterator<Item = Key> + Send + use<> {
    let first = sealed.bundles.iter().map(|bundle| bundle.first).min().unwrap_or(sealed.low);
    let from = first.0.saturating_sub(limits::SLOTS_SWEPT_BELOW_LOW);
    let behind = sealed.end.0 + 1;
    let slots = (from..sealed.low.0).chain(behind..behind + limits::PUTS_IN_FLIGHT_MAX as u64);
    slots.map(move |slot| keys::fragment(id, Slot(slot)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Section;

    /// Bug: the keys of all slots that a record claims were gathered first. Damage: a damaged record took all memory
    /// of whoever drained it. Fix: they are made when they are deleted.
    #[test]
    fn slots_of_a_record_that_claims_very_many_cost_nothing_until_they_are_asked_for() {
        let id = IncarnationId::from_bytes([1; 16]);
        let low = Slot(limits::COUNTER_MAX);
        let index = Section { offset: 0, bytes: 0, crc: 0 };
        let bundle = BundleRef { number: 0, nonce: [2; 16], first: Slot(5_000), end: low, index };
        let sealed = Sealed { low, end: low, bundles: vec![bundle], version: 1 };
        let first = 5_000 - limits::SLOTS_SWEPT_BELOW_LOW;
        let keys: Vec<Key> = slots_of(id, &sealed).take(2).collect();
        assert_eq!(keys, [first, first + 1].map(|slot| keys::fragment(id, Slot(slot))));
    }
}
