//! Deleting a database.

use tracing::warn;
use walstore::id::{DatabaseId, IncarnationId, PutId};
use walstore::register::{self, Patience, Swap, Versioned};
use walstore::seam::Seam;
use walstore::store::{Store, StoreError};

use super::heads::{SwapHeadError, swap_head};
use super::names::free_name;
use crate::due::{DueKind, DueMarker};
use crate::head::Head;
use crate::keys;
use crate::lifecycle;
use crate::name::Name;

#[derive(Clone, Debug, thiserror::Error)]
pub enum DeleteError {
    #[error("the database `{name}` ({database}) is not owned by {me}, so it can't delete it")]
    NotOwner { name: Name, database: DatabaseId, me: IncarnationId },
    /// The head has changed: start again from `found`, if it is still mine.
    #[error("the head of `{}` ({}) has changed meanwhile", found.value.name, found.value.database)]
    Conflict { found: Box<Versioned<Head>> },
    #[error("cannot announce the delete, so nothing was deleted: {0}")]
    Due(StoreError),
    #[error("cannot delete the database: {0}")]
    Head(#[from] SwapHeadError),
}

/// Deletes the database of `head`, which `me` owns and has stopped writing to. Returns the final head.
///
/// In this order: the due marker, the head, the name. The database is deleted once its head is; if freeing
/// the name fails then, this still succeeds, for whoever meets the name frees it, the sweeper of that day
/// at the latest.
pub async fn delete_database(
    store: &dyn Store,
    seam: &Seam,
    head: &Versioned<Head>,
    me: IncarnationId,
    patience: Patience,
) -> Result<Versioned<Head>, DeleteError> {
    let (name, database) = (&head.value.name, head.value.database);
    if head.value.owner != Some(me) {
        return Err(DeleteError::NotOwner { name: name.clone(), database, me });
    }
    let at_micros = seam.wall_micros();
    let marker = DueMarker { database, kind: DueKind::Delete, due_micros: at_micros, other: None };
    put_due(store, seam, &marker, patience).await.map_err(DeleteError::Due)?;
    let after = lifecycle::delete(&head.value, at_micros, PutId::random(seam));
    let deleted = match swap_head(store, seam, head, after, patience).await? {
        Swap::Won(deleted) => deleted,
        Swap::Lost(Some(found)) => return Err(DeleteError::Conflict { found: Box::new(found) }),
        Swap::Lost(None) => unreachable!("BUG: swap_head reports a missing head as an error"),
    };
    if let Err(error) = free_name(store, seam, &deleted.value, patience).await {
        warn!(%error, %name, %database, "deleted, but its name is not free yet; whoever meets it frees it");
    }
    Ok(deleted)
}

/// Puts a due marker. Putting the same one again changes nothing.
pub async fn put_due(
    store: &dyn Store,
    seam: &Seam,
    marker: &DueMarker,
    patience: Patience,
) -> Result<(), StoreError> {
    let key = keys::due(marker.due_micros, marker.database, marker.kind);
    register::put(store, seam, &key, marker.encode(), patience).await
}
