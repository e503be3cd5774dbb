//! What a fold of ours uploaded and could not link: it goes at once, if it is certain that nothing refers to it.

use std::collections::BTreeSet;

use segments::history::{Entry, HistoryIndex};
use segments::keys;
use segments::map::PageMap;
use tenant::head::{Head, MapField};
use tenant::registry::SwapHeadError;
use tracing::debug;
use walstore::store::{Key, Store};

use crate::base::inline_base_of;
use crate::fold::FoldFailure;
use crate::garbage;

/// Deletes what was `written` by fold `seq` of `epoch`, which ended with `failure`.
///
/// If the outcome of its CAS is unknown, or it may have landed and been replaced since, everything stays: a sweep
/// tells later. A delete that fails is not tried again, for the same reason.
pub async fn unlinked(store: &dyn Store, written: &[Key], (epoch, seq): (u64, u32), failure: &FoldFailure) {
    let is_certain = match failure {
        FoldFailure::Lost(found) => !may_refer(&found.value, written, (epoch, seq)),
        // It was never sent.
        FoldFailure::Swap(SwapHeadError::Invariant { .. })
        | FoldFailure::NotFolded(_)
        | FoldFailure::Name(_) => true,
        _ => false,
    };
    if is_certain {
        never_sent(store, written).await;
    }
}

/// The same for a fold whose CAS was not sent, and never will be.
pub async fn never_sent(store: &dyn Store, written: &[Key]) {
    for key in written {
        if let Err(error) = store.delete(key).await {
            debug!(%error, "cannot delete what a lost fold has written; left to a sweep");
        }
    }
}

fn may_refer(head: &Head, written: &[Key], (epoch, seq): (u64, u32)) -> bool {
    let Ok(index) = HistoryIndex::decode(&head.history) else { return true };
    // What is not in memory may name any pack.
    let later_chunks = index.chunks().iter().any(|chunk| (chunk.id.epoch, chunk.id.seq) >= (epoch, seq));
    let later_bases = index.bases().any(|(_, base)| (base.id.epoch, base.id.seq) >= (epoch, seq));
    let mut linked: BTreeSet<Key> = head.dead.iter().filter_map(|dead| garbage::key_of(dead).ok()).collect();
    for entry in index.entries() {
        if let Entry::Run(run) = entry {
            linked.insert(keys::pack(&run.pack));
        }
    }
    let has_unknown = match (&head.map, inline_base_of(head)) {
        // A base of somebody else, or one that was linked before.
        (MapField::Shared(_), _) => false,
        (_, Ok(Some(base))) => {
            linked.extend(objects_of(&base.map));
            !base.map.missing_chunks().is_empty()
        }
        _ => true,
    };
    has_unknown || later_chunks || later_bases || written.iter().any(|key| linked.contains(key))
}

/// Chunks, and the packs that can be told without those that are not in memory.
fn objects_of(map: &PageMap) -> BTreeSet<Key> {
    let packs = map.packs().unwrap_or_else(|| map.deltas().map(|delta| delta.pack).collect());
    map.chunk_ids().iter().map(keys::page_map).chain(packs.iter().map(keys::pack)).collect()
}
