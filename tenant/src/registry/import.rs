//! Bringing a database in whose pages come from outside: the name first, then (by the caller) its objects, then a head
//! that refers to them. Nobody can open it before the head is there.
//!
//! | stopped after | what is left | who undoes it |
//! |---|---|---|
//! | the name record | a name without a head: "still being made" | [`abort_import`], or after the node's death whoever meets the name |
//! | some objects | the same, and objects of a database that has ended | [`abort_import`] with its caller, or a sweep |
//! | the head | the database | |

use walstore::id::{DatabaseId, IncarnationId, PutId};
use walstore::register::{self, Patience, RecordError, Swap, Versioned};
use walstore::seam::Seam;
use walstore::store::Store;

use super::create::{CreateError, Creation};
use super::names::resolve_head;
use super::read_head;
use crate::head::Head;
use crate::keys;
use crate::lifecycle;
use crate::limits;
use crate::name::Name;
use crate::record::{NameRecord, NameState, Origin};

/// How an import that was given up has ended.
#[derive(Clone, Debug)]
pub enum Aborted {
    /// It never will exist: what was uploaded for it may go.
    Gone,
    /// Its head had landed after all.
    Lives(Box<Versioned<Head>>),
}

/// Takes a name for a database that `me` is about to import: one PUT if the name is new.
pub async fn begin_import(
    store: &dyn Store,
    seam: &Seam,
    name: &Name,
    me: IncarnationId,
    patience: Patience,
) -> Result<DatabaseId, CreateError> {
    let database = DatabaseId::random(seam);
    let creation = Creation { store, seam, name, database, me, patience };
    let state = NameState::Live { database, origin: Origin::Import, incarnation: me };
    let mut over: Option<Versioned<NameRecord>> = None;
    for _ in 0..limits::NAME_ROUNDS_MAX {
        let put_id = PutId::random(seam);
        let record = match &over {
            None => NameRecord::new(put_id, name.clone(), state),
            Some(over) => over.value.led_to(state, put_id),
        };
        match creation.claim(over.as_ref(), record).await? {
            None => return Ok(database),
            Some(found) => over = creation.free(found).await?,
        }
    }
    Err(CreateError::Busy { name: name.clone() })
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
    Creation { store, seam, name: &name, database, me, patience }.write_head(head).await
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
    let head = lifecycle::abort(name, database, None, seam.wall_micros(), PutId::random(seam));
    let swap = register::create(store, seam, &keys::head(database), head, patience).await.map_err(failed)?;
    if let Swap::Lost(_) = swap
        && let Some(found) = read_head(store, seam, database, patience).await.map_err(failed)?
        && !found.value.state.is_final()
    {
        return Ok(Aborted::Lives(Box::new(found)));
    }
    // It meets the aborted head and frees the name.
    resolve_head(store, seam, name, me, patience).await?;
    Ok(Aborted::Gone)
}
