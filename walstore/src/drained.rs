//! Forgetting a log that nobody needs any more.
//!
//! What stays for ever is the record `inc/<inc>`, which says where the log ended, and the tombstone there: a
//! freed name would be a broken fence. Everything else goes, the marker `live/<inc>` last, so that whoever dies
//! half-way leaves the rest to be found.

use tracing::info;

use crate::bundling;
use crate::id::{IncarnationId, PutId};
use crate::incarnation::State;
use crate::keys;
use crate::limits;
use crate::mutant::{self, Mutant};
use crate::recovery::Access;
use crate::register::{self, Backoff, Swap};
use crate::seal::{SealError, Sealed};
use crate::store::limits::LIST_MAX;
use crate::store::{Key, StoreError};

/// Deletes slots, bundles, side objects and marker of a sealed and bundled log.
///
/// The caller knows that no head needs any commit of it: each one is in packs that its database's head links, or
/// its database has ended. No head can come to need it again, since an incarnation gets into tails only while it
/// lives.
pub async fn forget(access: Access<'_>, id: IncarnationId) -> Result<(), SealError> {
    let store = &*access.stores.main;
    let key = keys::incarnation(id);
    for _ in 0..limits::RECOVERY_ROUNDS_MAX {
        let found = bundling::read(access, id).await?.ok_or_else(|| SealError::Stale(key.to_string()))?;
        let State::Sealed { end } = found.value.state else { return Err(SealError::Stale(key.to_string())) };
        let sealed = Sealed::of(found.value.clone(), end);
        if sealed.low != sealed.end {
            return Err(SealError::Stale(key.to_string()));
        }
        if mutant::is_on(Mutant::MarkerFirst) {
            bundling::delete_all(access, std::iter::once(keys::live(id)), true).await?;
        }
        if mutant::is_on(Mutant::DeleteLinkedBundles) {
            let linked: Vec<Key> = sealed.bundles.iter().map(|bundle| bundle.key(id)).collect();
            bundling::delete_all(access, linked.into_iter(), true).await?;
        }
        // Before the references go: the first of them says where to begin.
        bundling::delete_all(access, bundling::slots_of(id, &sealed), false).await?;
        if !sealed.bundles.is_empty() {
            let mut next = found.value.successor(PutId::random(access.seam));
            next.bundles.clear();
            match register::replace(store, access.seam, &key, &found.etag, next, access.patience).await? {
                Swap::Won(_) => {}
                Swap::Lost(_) => continue,
            }
        }
        // Unlinked now. A listing finds the orphans as well: side objects without a slot, bundles without a race won.
        for prefix in [keys::side_prefix(id), keys::bundle_prefix(id)] {
            let orphans = list_all(access, &prefix).await?;
            bundling::delete_all(access, orphans.into_iter(), true).await?;
        }
        bundling::delete_all(access, std::iter::once(keys::live(id)), true).await?;
        info!(incarnation = %id, "drained: nothing is left of its log but its end");
        return Ok(());
    }
    Err(SealError::Stale(key.to_string()))
}

/// Markers of incarnations that may have a log that is not drained.
pub async fn list_live(access: Access<'_>) -> Result<Vec<IncarnationId>, StoreError> {
    let keys = list_all(access, keys::LIVE_PREFIX).await?;
    Ok(keys.iter().filter_map(keys::parse_live).collect())
}

async fn list_all(access: Access<'_>, prefix: &str) -> Result<Vec<Key>, StoreError> {
    let mut all: Vec<Key> = Vec::new();
    let mut backoff = Backoff::default();
    loop {
        match access.stores.main.list(prefix, all.last().map(Key::as_str), LIST_MAX).await {
            Ok(page) => {
                let is_last = page.len() < LIST_MAX;
                all.extend(page);
                if is_last {
                    return Ok(all);
                }
            }
            Err(error) if error.is_permanent() || access.patience.has_ended(access.seam) => return Err(error),
            Err(_) => backoff.pause(access.seam).await,
        }
    }
}
