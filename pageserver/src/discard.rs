//! What a fold of ours uploaded and could not link: it goes at once, if it is certain that nothing refers to it.

use std::collections::BTreeSet;

use segments::keys;
use segments::map::PageMap;
use tenant::head::Head;
use tenant::registry::SwapHeadError;
use tracing::debug;
use walstore::store::{Key, Store};

use crate::base::base_of;
use crate::fold::FoldFailure;
use crate::garbage;

/// Deletes what `new` refers to and `old` does not, after a fold that ended with `failure`.
///
/// If the outcome of its CAS is unknown, or it may have landed and been replaced since, everything stays: a sweep
/// tells later. A delete that fails is not tried again, for the same reason.
pub async fn unlinked(store: &dyn Store, old: &PageMap, new: &PageMap, failure: &FoldFailure) {
    let written: BTreeSet<Key> = objects_of(new).difference(&objects_of(old)).cloned().collect();
    let is_needed = |head: &Head| {
        let Ok((_, map)) = base_of(head) else { return true };
        let unlinked: BTreeSet<Key> = head.dead.iter().filter_map(|dead| garbage::key_of(dead).ok()).collect();
        // Chunks that are not in memory may name any pack.
        let linked = objects_of(&map);
        !map.missing_chunks().is_empty() || written.iter().any(|key| linked.contains(key) || unlinked.contains(key))
    };
    let is_certain = match failure {
        FoldFailure::Lost(found) => !is_needed(&found.value),
        // It was never sent.
        FoldFailure::Swap(SwapHeadError::Invariant { .. }) | FoldFailure::NotFolded(_) => true,
        _ => false,
    };
    if is_certain {
        for key in &written {
            if let Err(error) = store.delete(key).await {
                debug!(%error, "cannot delete what a lost fold has written; left to a sweep");
            }
        }
    }
}

/// Chunks, and the packs that can be told without those that are not in memory.
fn objects_of(map: &PageMap) -> BTreeSet<Key> {
    let packs = map.packs().unwrap_or_else(|| map.deltas().map(|delta| delta.pack).collect());
    map.chunk_ids().iter().map(keys::page_map).chain(packs.iter().map(keys::pack)).collect()
}
