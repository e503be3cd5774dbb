//! From a name to its database, finishing on the way what a crash left half-done.

use tracing::info;
use walstore::envelope::Corrupt;
use walstore::id::{DatabaseId, IncarnationId, PutId};
use walstore::incarnation::{IncarnationRecord, State};
use walstore::mutant::{self, Mutant};
use walstore::register::{self, Patience, RecordError, Swap, Versioned};
use walstore::seam::Seam;
use walstore::store::Store;

use crate::head::{ChunkRef, ForkPoint, Head, HeadState};
use crate::keys;
use crate::lifecycle;
use crate::limits;
use crate::name::Name;
use crate::naming::{NamePlan, plan_name};
use crate::record::{NameRecord, NameState, Origin};
use crate::registry::read_head;
use crate::settings::Settings;

#[derive(Clone, Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("cannot find the database `{name}`: {source}")]
    Record { name: Name, source: RecordError },
    /// A node is about to fork or import it.
    #[error("the database `{name}` is still being made by {incarnation}; try again")]
    Unfinished { name: Name, database: DatabaseId, incarnation: IncarnationId },
    #[error("the database `{name}` is being changed by too many at once; try again")]
    Busy { name: Name },
}

impl ResolveError {
    pub(super) fn record(name: &Name, source: impl Into<RecordError>) -> Self {
        Self::Record { name: name.clone(), source: source.into() }
    }
}

/// The database that `name` leads to: one GET.
///
/// The name is live only if that database's head is, so the caller reads it next. If it is missing or
/// final, [`resolve_head`] finds out what that means.
pub async fn resolve(
    store: &dyn Store,
    seam: &Seam,
    name: &Name,
    patience: Patience,
) -> Result<Option<DatabaseId>, ResolveError> {
    let record = read_name(store, seam, name, patience).await.map_err(|error| ResolveError::record(name, error))?;
    Ok(record.and_then(|record| match record.value.state {
        NameState::Live { database, .. } => Some(database),
        NameState::Deleted { .. } => None,
    }))
}

/// The record of `name`, if it ever had one.
pub async fn read_name(
    store: &dyn Store,
    seam: &Seam,
    name: &Name,
    patience: Patience,
) -> Result<Option<Versioned<NameRecord>>, RecordError> {
    let key = keys::name(name);
    let record = register::read::<NameRecord>(store, seam, &key, patience).await?;
    match record {
        Some(record) if record.value.name != *name => {
            let reason = format!("holds the record of `{}`", record.value.name);
            Err(Corrupt::new(reason).at(key).into())
        }
        record => Ok(record),
    }
}

/// The live head of `name`, or `None` if there is no such database: two GETs, and what it takes to finish
/// an interrupted create, delete, restore, fork or import. A head that has to be created for that is owned
/// by `me`.
pub async fn resolve_head(
    store: &dyn Store,
    seam: &Seam,
    name: &Name,
    me: IncarnationId,
    patience: Patience,
) -> Result<Option<Versioned<Head>>, ResolveError> {
    resolve_head_ahead(store, seam, name, me, patience, &|_, _| ()).await
}

/// Is told which base a database's head will probably lead to.
pub type Ahead<'a> = &'a (dyn Fn(DatabaseId, &ChunkRef) + Send + Sync);

/// The same. As soon as the name record is there, and so before its head, `ahead` is told where that will probably lead.
pub async fn resolve_head_ahead(
    store: &dyn Store,
    seam: &Seam,
    name: &Name,
    me: IncarnationId,
    patience: Patience,
    ahead: Ahead<'_>,
) -> Result<Option<Versioned<Head>>, ResolveError> {
    let bucket = Bucket { store, seam, name, patience, ahead };
    for _ in 0..limits::NAME_ROUNDS_MAX {
        match bucket.round(me).await.map_err(|error| error.of(name))? {
            Round::Found(head) => return Ok(Some(*head)),
            Round::Nothing => return Ok(None),
            Round::Again => {}
        }
    }
    Err(ResolveError::Busy { name: name.clone() })
}

enum Round {
    Found(Box<Versioned<Head>>),
    Nothing,
    /// Something was finished, or changed under our eyes.
    Again,
}

enum RoundError {
    Record(RecordError),
    Unfinished(DatabaseId, IncarnationId),
}

impl RoundError {
    fn of(self, name: &Name) -> ResolveError {
        match self {
            Self::Record(source) => ResolveError::record(name, source),
            Self::Unfinished(database, incarnation) => {
                ResolveError::Unfinished { name: name.clone(), database, incarnation }
            }
        }
    }
}

impl From<RecordError> for RoundError {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}

/// One name and how to reach the bucket.
struct Bucket<'a> {
    store: &'a dyn Store,
    seam: &'a Seam,
    name: &'a Name,
    patience: Patience,
    ahead: Ahead<'a>,
}

impl Bucket<'_> {
    /// Reads record and head, and takes one step.
    async fn round(&self, me: IncarnationId) -> Result<Round, RoundError> {
        let Some(record) = read_name(self.store, self.seam, self.name, self.patience).await? else {
            return Ok(Round::Nothing);
        };
        if let Some(base) = &record.value.base {
            (self.ahead)(record.value.database(), base);
        }
        let head = match record.value.state {
            NameState::Live { database, .. } => self.head(database).await?,
            NameState::Deleted { .. } => None,
        };
        let plan = plan_name(Some(&record.value), head.as_ref().map(|head| &head.value));
        match plan {
            NamePlan::Missing | NamePlan::Deleted { .. } => Ok(Round::Nothing),
            NamePlan::Live(_) => Ok(head.map_or(Round::Again, |head| Round::Found(Box::new(head)))),
            NamePlan::CreateHead { database, settings } => self.create_head(database, me, settings).await,
            NamePlan::UndoOnceSealed { database, incarnation, parent } => {
                self.undo(database, incarnation, parent).await
            }
            NamePlan::Lost { database } => {
                let reason = format!("`{}` leads to it, and it was there, but it is gone", self.name);
                Err(RecordError::from(Corrupt::new(reason).at(keys::head(database))).into())
            }
            NamePlan::Free { database } => {
                info!(name = %self.name, %database, "freeing the name of a database that is over");
                let at_micros = self.seam.wall_micros();
                let next = record.value.deleted(at_micros, PutId::random(self.seam));
                self.replace(&record, next).await
            }
            NamePlan::Swing { from, to } => self.swing(&record, from, to, me).await,
        }
    }

    async fn head(&self, database: DatabaseId) -> Result<Option<Versioned<Head>>, RecordError> {
        let head = read_head(self.store, self.seam, database, self.patience).await?;
        match head {
            // Whoever gave up a fork may not have known what it was to be called.
            Some(head) if head.value.name != *self.name && head.value.state != HeadState::Aborted => {
                let reason = format!("`{}` leads to it, but its name is `{}`", self.name, head.value.name);
                Err(Corrupt::new(reason).at(keys::head(database)).into())
            }
            head => Ok(head),
        }
    }

    async fn create_head(
        &self,
        database: DatabaseId,
        me: IncarnationId,
        settings: Settings,
    ) -> Result<Round, RoundError> {
        // A database that has objects had a head. Without it nobody knows which of them count, and an empty database
        // in its place would be a lie.
        let prefix = keys::database_prefix(database);
        let others = register::list(self.store, self.seam, &prefix, self.patience).await.map_err(RecordError::from)?;
        if !others.is_empty() && !others.contains(&keys::head(database)) {
            let reason = "the database has objects, but its head is not there";
            return Err(RecordError::from(Corrupt::new(reason).at(keys::head(database))).into());
        }
        info!(name = %self.name, %database, "finishing an interrupted create");
        let head = lifecycle::first_head(self.name, database, me, settings, PutId::random(self.seam));
        let key = keys::head(database);
        match register::create(self.store, self.seam, &key, head, self.patience).await? {
            Swap::Won(head) => Ok(Round::Found(Box::new(head))),
            Swap::Lost(_) => Ok(Round::Again),
        }
    }

    /// Occupies the head's key once nobody can write it any more. The name is freed in the next round,
    /// which reads what really stands there.
    ///
    /// A parent's pin is lifted by the parent's owner, who finds the child aborted; the marker that was put
    /// before the fork leads there.
    async fn undo(
        &self,
        database: DatabaseId,
        incarnation: IncarnationId,
        parent: Option<ForkPoint>,
    ) -> Result<Round, RoundError> {
        let key = walstore::keys::incarnation(incarnation);
        let record = register::read::<IncarnationRecord>(self.store, self.seam, &key, self.patience).await?;
        let is_sealed = record.is_some_and(|record| matches!(record.value.state, State::Sealed { .. }));
        if !is_sealed {
            return Err(RoundError::Unfinished(database, incarnation));
        }
        info!(name = %self.name, %database, %incarnation, "undoing what a dead node was making");
        let at_micros = self.seam.wall_micros();
        let head = lifecycle::abort(self.name, database, parent, at_micros, PutId::random(self.seam));
        register::create(self.store, self.seam, &keys::head(database), head, self.patience).await?;
        Ok(Round::Again)
    }

    /// Leads the name to the database that took the place of `from`.
    async fn swing(
        &self,
        record: &Versioned<NameRecord>,
        from: DatabaseId,
        to: DatabaseId,
        me: IncarnationId,
    ) -> Result<Round, RoundError> {
        let Some(head) = self.head(to).await? else {
            let reason = format!("moved to {to}, which has no head");
            return Err(RecordError::from(Corrupt::new(reason).at(keys::head(from))).into());
        };
        // Its fate is its own: if it is over too, the next round follows it from there.
        info!(name = %self.name, %from, %to, state = ?head.value.state, "finishing a restore in place");
        let origin = head.value.parent.map_or(Origin::Import, Origin::Fork);
        let state = NameState::Live { database: to, origin, incarnation: me, is_made: true };
        let base = head.value.shared().cloned();
        self.replace(record, NameRecord { base, ..record.value.led_to(state, PutId::random(self.seam)) }).await
    }

    /// Whoever wins, the next round reads what stands there.
    async fn replace(&self, record: &Versioned<NameRecord>, next: NameRecord) -> Result<Round, RoundError> {
        let key = keys::name(self.name);
        register::replace(self.store, self.seam, &key, &record.etag, next, self.patience).await?;
        Ok(Round::Again)
    }
}

/// Notes in the name record of a database that it has had a head, which is about to become `next`: one GET and one PUT,
/// or only the GET if that is known. To be called before commits of it leave the logs.
///
/// A name that leads elsewhere, or nowhere, is left as it is: so it is if the database is about to end, or to take the
/// place of another one.
pub async fn note_made(store: &dyn Store, seam: &Seam, next: &Head, patience: Patience) -> Result<(), ResolveError> {
    if mutant::is_on(Mutant::ForgetMade) {
        return Ok(());
    }
    let failed = |error: RecordError| ResolveError::record(&next.name, error);
    let key = keys::name(&next.name);
    for _ in 0..limits::NAME_ROUNDS_MAX {
        let record = read_name(store, seam, &next.name, patience).await.map_err(failed)?;
        let made = record.and_then(|record| Some((record.value.made(next, PutId::random(seam))?, record.etag)));
        let Some((made, etag)) = made else { return Ok(()) };
        let swap = register::replace(store, seam, &key, &etag, made, patience).await.map_err(failed)?;
        if matches!(swap, Swap::Won(_)) {
            return Ok(());
        }
    }
    Err(ResolveError::Busy { name: next.name.clone() })
}

/// Says that a database is over where its name still leads to it.
pub async fn free_name(
    store: &dyn Store,
    seam: &Seam,
    head: &Head,
    patience: Patience,
) -> Result<(), ResolveError> {
    let HeadState::Deleted { at_micros } = head.state else { return Ok(()) };
    let failed = |error: RecordError| ResolveError::record(&head.name, error);
    let key = keys::name(&head.name);
    for _ in 0..limits::NAME_ROUNDS_MAX {
        let Some(record) = read_name(store, seam, &head.name, patience).await.map_err(failed)? else {
            return Ok(());
        };
        if !record.value.leads_to(head.database) {
            return Ok(());
        }
        let next = record.value.deleted(at_micros, PutId::random(seam));
        let swap = register::replace(store, seam, &key, &record.etag, next, patience).await.map_err(failed)?;
        if matches!(swap, Swap::Won(_)) {
            return Ok(());
        }
    }
    Err(ResolveError::Busy { name: head.name.clone() })
}
