//! **Collect**: mark and sweep of what one database has stored, for databases with history or forks.
//!
//! Their folds put nothing on a dead list, for a pack that the page map no longer needs may be needed by a state of the
//! past, or by a fork. What is needed is what can be [reached](reach) from the head:
//!
//! ```text
//!   head ─▶ page map ─▶ chunks, packs
//!     │   (a base, if it is shared)
//!     └─▶ history index ─▶ chunks of it
//!                       ├▶ runs ─▶ packs
//!                       └▶ bases, pinned ones too ─▶ their page maps ─▶ chunks, packs
//! ```
//!
//! Everything else that was listed **before** the head was read is dead ([`crate::orphan`]) if no fold can link it any
//! more: its epoch is below the head's, or it is that of the head and its number is not above that of the last fold that
//! was linked. Whoever may still read what an earlier head referred to is the caller's matter: the owner knows his
//! readers, and a sweep looks only at databases that nobody owns.

mod reach;

use futures_util::{StreamExt, stream};
use tenant::head::Head;
use tenant::keys;
use walstore::id::DatabaseId;
use walstore::register::RecordError;
use walstore::seam::Seam;
use walstore::store::{Key, Store};

pub use self::reach::{Reach, reach};
use crate::fetcher::Fetcher;
use crate::listing::Listing;
use crate::{limits, orphan};

/// What one collection came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Objects that are gone.
    pub deleted: usize,
    /// Objects that are dead, and could not be deleted.
    pub failed: usize,
}

/// All packs and other objects under a database's keys, but for its head.
pub async fn list(store: &dyn Store, seam: &Seam, database: DatabaseId) -> Result<Vec<Key>, RecordError> {
    let prefix = keys::database_prefix(database);
    let mut listing = Listing::new(store, seam, &prefix);
    let mut found = Vec::new();
    while let Some(key) = listing.next().await? {
        if orphan::object_of(&key).is_some() {
            found.push(key);
        }
    }
    Ok(found)
}

/// Those of `listed` that are dead. `head` was read after they were listed; `is_owner_over`: nobody owns the database, or
/// it is the owner who asks, and no reader of his uses an older head.
pub async fn dead_of(
    fetcher: &Fetcher,
    head: &Head,
    listed: Vec<Key>,
    is_owner_over: bool,
) -> Result<Vec<Key>, RecordError> {
    let reached = reach(fetcher, head, Some(&listed)).await?;
    let is_dead = |key: &Key| {
        let object = orphan::object_of(key);
        object.is_some_and(|object| orphan::of_database(head, object, false, is_owner_over).is_dead())
    };
    Ok(listed.into_iter().filter(|key| !reached.keys.contains(key) && is_dead(key)).collect())
}

/// One collection by the owner, who folds nothing meanwhile and has no readers of older heads. `head` is his latest.
pub async fn collect(
    store: &dyn Store,
    seam: &Seam,
    fetcher: &Fetcher,
    head: &Head,
) -> Result<Collected, RecordError> {
    let listed = list(store, seam, head.database).await?;
    let dead = dead_of(fetcher, head, listed, true).await?;
    let deletes = stream::iter(dead).map(|key| async move { store.delete(&key).await.is_ok() });
    let mut collected = Collected::default();
    let mut deletes = deletes.buffer_unordered(limits::SWEEP_DELETES_AT_ONCE);
    while let Some(is_gone) = deletes.next().await {
        collected.deleted += usize::from(is_gone);
        collected.failed += usize::from(!is_gone);
    }
    Ok(collected)
}
