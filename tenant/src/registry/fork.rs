//! The steps of a fork and of a restore in place that are about names and heads of children.
//!
//! | step | a crash after it leaves | and then |
//! |---|---|---|
//! | [`claim_fork`]: the name | a name without a head | once this incarnation is sealed, whoever meets it occupies the head's key and frees the name ([`resolve_head`](super::resolve_head)) |
//! | the parent's head, with the pin | the same, and a pin without a child | the sweep occupies the key, and then lifts the pin ([`plan_pin`](crate::lifecycle::plan_pin)) |
//! | [`create_child`]: the child's head | a fork | it is done |
//!
//! A restore in place has no name to claim. Its last steps:
//!
//! | step | a crash after it leaves | and then |
//! |---|---|---|
//! | [`create_child`] | a fork to which no name leads | the sweep deletes it ([`plan_leftover`](crate::lifecycle::plan_leftover)) |
//! | the old head: moved | a name that leads to a moved head | whoever meets it swings the name ([`swing_name`]) |
//!
//! The order of the first table is what makes a fork safe; nothing in it is a time-out.

use walstore::envelope::Corrupt;
use walstore::id::{DatabaseId, IncarnationId, PutId};
use walstore::register::{self, Patience, RecordError, Swap, Versioned};
use walstore::seam::Seam;
use walstore::store::Store;

use super::claim::Claim;
use super::create::CreateError;
use super::heads::read_head;
use super::names::{ResolveError, read_name};
use crate::head::{ChunkRef, ForkPoint, Head, HeadState};
use crate::keys;
use crate::lifecycle;
use crate::limits;
use crate::name::Name;
use crate::record::{NameRecord, NameState, Origin};

#[derive(Clone, Debug, thiserror::Error)]
pub enum ChildError {
    /// Somebody took this node for dead, or its fork for given up. Nothing is left of it; try again.
    #[error("the fork {child} was undone while it was being made; try again")]
    Undone { child: DatabaseId },
    /// Nothing was sent.
    #[error("refused to write the head of a fork: {0}")]
    Invariant(String),
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Claims `name` for the fork `child` of `point`, which will begin with `base`: one PUT if the name is new.
pub async fn claim_fork(
    store: &dyn Store,
    seam: &Seam,
    (name, child): (&Name, DatabaseId),
    point: ForkPoint,
    base: Option<ChunkRef>,
    me: IncarnationId,
    patience: Patience,
) -> Result<Versioned<NameRecord>, CreateError> {
    Claim { store, seam, name, database: child, me, patience }.take(Origin::Fork(point), base).await
}

/// Brings the fork to life: one PUT, if absent. The parent's pin stands.
pub async fn create_child(
    store: &dyn Store,
    seam: &Seam,
    head: Head,
    patience: Patience,
) -> Result<Versioned<Head>, ChildError> {
    head.check_first().map_err(ChildError::Invariant)?;
    let (child, key) = (head.database, keys::head(head.database));
    match register::create(store, seam, &key, head, patience).await? {
        Swap::Won(head) => Ok(head),
        // It came to life, and somebody opened it before our answer came.
        Swap::Lost(Some(found)) if found.value.state != HeadState::Aborted => Ok(found),
        Swap::Lost(Some(_)) => Err(ChildError::Undone { child }),
        Swap::Lost(None) => {
            Err(RecordError::from(Corrupt::new("a head was deleted; they never are").at(key)).into())
        }
    }
}

/// Occupies the head's key of `child`, so that it never comes to life, and answers what stands there: an aborted head,
/// or the child's, if that was faster.
pub async fn occupy(
    store: &dyn Store,
    seam: &Seam,
    name: &Name,
    child: DatabaseId,
    point: Option<ForkPoint>,
    patience: Patience,
) -> Result<Versioned<Head>, RecordError> {
    let head = lifecycle::abort(name, child, point, seam.wall_micros(), PutId::random(seam));
    let key = keys::head(child);
    match register::create(store, seam, &key, head, patience).await?.found() {
        Some(found) => Ok(found),
        None => Err(Corrupt::new("a head was deleted; they never are").at(key).into()),
    }
}

/// Gives up a fork that this node claimed the name of and did not finish. `false`: it lives.
pub async fn abandon_fork(
    store: &dyn Store,
    seam: &Seam,
    claimed: &Versioned<NameRecord>,
    patience: Patience,
) -> Result<bool, RecordError> {
    let name = &claimed.value.name;
    let (child, point) = match claimed.value.state {
        NameState::Live { database, origin: Origin::Fork(point), .. } => (database, point),
        NameState::Live { .. } | NameState::Deleted { .. } => unreachable!("BUG: {name} was not claimed for a fork"),
    };
    let stands = occupy(store, seam, name, child, Some(point), patience).await?;
    if stands.value.state != HeadState::Aborted {
        return Ok(false);
    }
    let next = claimed.value.deleted(seam.wall_micros(), PutId::random(seam));
    // Whoever changed the record meanwhile found the aborted head too.
    register::replace(store, seam, &keys::name(name), &claimed.etag, next, patience).await?;
    Ok(true)
}

/// Leads the name of `moved`, a head restored in place, to the database that took its place, which begins with `base`:
/// one GET and one PUT, no PUT if it is done. Answers the record that it has written.
///
/// `known` is the record as the caller saw it last, which saves the GET. If it is out of date, the PUT is refused, and it is
/// read after all.
pub async fn swing_name(
    store: &dyn Store,
    seam: &Seam,
    (moved, base): (&Head, Option<&ChunkRef>),
    known: Option<Versioned<NameRecord>>,
    me: IncarnationId,
    patience: Patience,
) -> Result<Option<Versioned<NameRecord>>, ResolveError> {
    let HeadState::Moved { new } = moved.state else { return Ok(None) };
    let failed = |error: RecordError| ResolveError::record(&moved.name, error);
    let key = keys::name(&moved.name);
    let leads_there = |record: &Versioned<NameRecord>| {
        record.value.name == moved.name && record.value.leads_to(moved.database)
    };
    let mut known = known.filter(leads_there);
    for _ in 0..limits::NAME_ROUNDS_MAX {
        let record = match known.take() {
            Some(record) => Some(record),
            None => read_name(store, seam, &moved.name, patience).await.map_err(failed)?,
        };
        // It leads elsewhere already: there, or further.
        let Some(record) = record.filter(leads_there) else { return Ok(None) };
        // A crash before this write leaves the same name to whoever meets it; he finds the point in the new head.
        let origin = Origin::Fork(ForkPoint { parent: moved.database, lsn: moved.folded.lsn });
        let state = NameState::Live { database: new, origin, incarnation: me, is_made: true };
        let next = NameRecord { base: base.cloned(), ..record.value.led_to(state, PutId::random(seam)) };
        match register::replace(store, seam, &key, &record.etag, next, patience).await.map_err(failed)? {
            Swap::Won(swung) => return Ok(Some(swung)),
            Swap::Lost(found) => known = found.filter(leads_there),
        }
    }
    Err(ResolveError::Busy { name: moved.name.clone() })
}

/// The living database that `name` leads to now or once what was interrupted is finished, past heads that were restored
/// in place; `None` if it leads to none. `at` is answered as it stands, even without a head.
pub async fn follow_name(
    store: &dyn Store,
    seam: &Seam,
    name: &Name,
    at: DatabaseId,
    patience: Patience,
) -> Result<Followed, RecordError> {
    let record = read_name(store, seam, name, patience).await?.map(|record| record.value.state);
    let Some(NameState::Live { mut database, .. }) = record else { return Ok(Followed::Nobody) };
    for _ in 0..limits::NAME_ROUNDS_MAX {
        if database == at {
            return Ok(Followed::There);
        }
        match read_head(store, seam, database, patience).await? {
            Some(head) => match head.value.state {
                HeadState::Live => return Ok(Followed::Elsewhere(Box::new(head))),
                HeadState::Moved { new } => database = new,
                HeadState::Renamed { .. } | HeadState::Deleted { .. } | HeadState::Aborted => {
                    return Ok(Followed::Nobody);
                }
            },
            None => return Ok(Followed::InMaking),
        }
    }
    Ok(Followed::InMaking)
}

/// Where a name leads, seen from one database.
#[derive(Debug)]
pub enum Followed {
    /// To that one.
    There,
    Elsewhere(Box<Versioned<Head>>),
    /// To one that has no head yet, or past more moves than anybody makes.
    InMaking,
    Nobody,
}
