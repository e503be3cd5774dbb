//! Bringing a database in whose pages come from outside: the name first, then (by the caller) its objects, then a head
//! that refers to them. Nobody can open it before the head is there.
//!
//! | stopped after | what is left | who undoes it |
//! |---|---|---|
//! | the name record | a name without a head: "still being made" | [`abort_import`], or after the node's death whoever meets the name |
//! | some objects | the same, and objects of a database that has ended | [`abort_import`] with its caller, or a sweep |
//! | the head | the database, of whose head the name does not know that it was there | |

use tracing::warn;
use walstore::id::{DatabaseId, IncarnationId};
use walstore::register::{Patience, RecordError, Versioned};
use walstore::seam::Seam;
use walstore::store::Store;

use super::claim::Claim;
use super::create::{CreateError, write_head};
use super::fork::occupy;
use super::names::{note_made, resolve_head};
use crate::head::{Head, HeadState};
use crate::name::Name;
use crate::record::Origin;

/// How an import that was given up has ended.
#[derive(Clone, Debug)]
pub enum Aborted {
    /// It never will exist: what was uploaded for it may go.
    Gone,
    /// Its head had landed after all.
    Lives(Box<Versioned<Head>>),
}

/// Takes a name for `database`, which `me` is about to import: one PUT if the name is new.
pub async fn begin_import(
    store: &dyn Store,
    seam: &Seam,
    name: &Name,
    database: DatabaseId,
    me: IncarnationId,
    patience: Patience,
) -> Result<(), CreateError> {
    Claim { store, seam, name, database, me, patience }.take(Origin::Import, None).await.map(drop)
}

/// Writes the head of an import: from now on the database exists.
pub async fn finish_import(
    store: &dyn Store,
    seam: &Seam,
    head: Head,
    me: IncarnationId,
    patience: Patience,
) -> Result<Versioned<Head>, CreateError> {
    let (name, database) = (head.name.clone(), head.database);
    let head = write_head(&Claim { store, seam, name: &name, database, me, patience }, head).await?;
    // It may never be written to, so no fold notes it.
    if let Err(error) = note_made(store, seam, &head.value, patience).await {
        warn!(%error, %name, %database, "imported, but a loss of its head would not be noticed");
    }
    Ok(head)
}

/// Gives an import up that `me` has begun: occupies its head's key, so that a head that was sent cannot land any more,
/// and frees the name.
pub async fn abort_import(
    store: &dyn Store,
    seam: &Seam,
    name: &Name,
    database: DatabaseId,
    me: IncarnationId,
    patience: Patience,
) -> Result<Aborted, CreateError> {
    let failed = |source: RecordError| CreateError::Record { name: name.clone(), source };
    let stands = occupy(store, seam, name, database, None, patience).await.map_err(failed)?;
    // It may have lived and ended since, by somebody else's doing, and forks of it may need what it stored.
    if stands.value.state != HeadState::Aborted {
        return Ok(Aborted::Lives(Box::new(stands)));
    }
    // It meets the aborted head and frees the name.
    resolve_head(store, seam, name, me, patience).await?;
    Ok(Aborted::Gone)
}
