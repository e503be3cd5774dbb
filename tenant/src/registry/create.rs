//! Creating an empty database.

use walstore::envelope::Corrupt;
use walstore::id::{DatabaseId, IncarnationId, PutId};
use walstore::register::{self, Patience, RecordError, Swap, Versioned};
use walstore::seam::Seam;
use walstore::store::Store;

use super::names::{ResolveError, read_name, resolve_head};
use crate::head::Head;
use crate::keys;
use crate::lifecycle;
use crate::limits;
use crate::name::Name;
use crate::record::{NameRecord, NameState};
use crate::settings::Settings;

#[derive(Clone, Debug, thiserror::Error)]
pub enum CreateError {
    #[error("cannot create the database `{name}` with these settings: {reason}")]
    Settings { name: Name, reason: String },
    #[error("there is a database `{name}` already ({database})")]
    AlreadyExists { name: Name, database: DatabaseId },
    /// Created, and gone again before this call ended.
    #[error("the database `{name}` ({database}) was deleted while it was being created")]
    DeletedMeanwhile { name: Name, database: DatabaseId },
    #[error("cannot create the database `{name}`: {source}")]
    Record { name: Name, source: RecordError },
    /// What stands under the name cannot be told, so nothing was created.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error("the database `{name}` is being changed by too many at once; try again")]
    Busy { name: Name },
}

/// Creates the database `name`: two PUTs if the name is new.
///
/// Who wins the name record has created the database, whoever writes its first head, so of several creators
/// exactly one succeeds. The head that is returned is `me`'s, unless another node met the record first and
/// wrote the head: then it is that node's, with the same settings.
///
/// A creator that stops between the two, or whose second PUT fails, leaves a name that the next user
/// completes ([`resolve_head`]); to create it again is [`CreateError::AlreadyExists`].
pub async fn create_database(
    store: &dyn Store,
    seam: &Seam,
    name: &Name,
    me: IncarnationId,
    settings: Settings,
    patience: Patience,
) -> Result<Versioned<Head>, CreateError> {
    if let Err(broken) = settings.check() {
        return Err(CreateError::Settings { name: name.clone(), reason: broken.reason });
    }
    let database = DatabaseId::random(seam);
    let creation = Creation { store, seam, name, database, me, patience };
    let mut over = None;
    for _ in 0..limits::NAME_ROUNDS_MAX {
        let put_ids = [PutId::random(seam), PutId::random(seam)];
        let past = over.as_ref().map(|over: &Versioned<NameRecord>| &over.value);
        let (record, head) = lifecycle::create(name, database, me, settings, past, put_ids);
        match creation.claim(over.as_ref(), record).await? {
            None => return creation.write_head(head).await,
            Some(found) => over = creation.free(found).await?,
        }
    }
    Err(CreateError::Busy { name: name.clone() })
}

pub(super) struct Creation<'a> {
    pub store: &'a dyn Store,
    pub seam: &'a Seam,
    pub name: &'a Name,
    pub database: DatabaseId,
    pub me: IncarnationId,
    pub patience: Patience,
}

impl Creation<'_> {
    /// Writes the record where none is, or over that of a deleted database. `Some` is the record that was
    /// there instead.
    pub async fn claim(
        &self,
        over: Option<&Versioned<NameRecord>>,
        record: NameRecord,
    ) -> Result<Option<Versioned<NameRecord>>, CreateError> {
        let key = keys::name(self.name);
        let swap = match over {
            None => register::create(self.store, self.seam, &key, record, self.patience).await,
            Some(over) => register::replace(self.store, self.seam, &key, &over.etag, record, self.patience).await,
        };
        match swap.map_err(|error| self.failed(error))? {
            Swap::Won(_) => Ok(None),
            Swap::Lost(Some(found)) => Ok(Some(found)),
            Swap::Lost(None) => Err(self.failed(Corrupt::new("a name record was deleted; they never are").at(key))),
        }
    }

    /// The record of a free name to create over, or the error that says why the name is not free.
    pub async fn free(&self, found: Versioned<NameRecord>) -> Result<Option<Versioned<NameRecord>>, CreateError> {
        if found.value.mentions(self.database) {
            return Err(self.deleted_meanwhile());
        }
        if matches!(found.value.state, NameState::Deleted { .. }) {
            return Ok(Some(found));
        }
        if let Some(head) = resolve_head(self.store, self.seam, self.name, self.me, self.patience).await? {
            return Err(CreateError::AlreadyExists { name: self.name.clone(), database: head.value.database });
        }
        read_name(self.store, self.seam, self.name, self.patience).await.map_err(|error| self.failed(error))
    }

    pub async fn write_head(&self, head: Head) -> Result<Versioned<Head>, CreateError> {
        let key = keys::head(self.database);
        let swap = register::create(self.store, self.seam, &key, head, self.patience).await;
        match swap.map_err(|error| self.failed(error))? {
            Swap::Won(head) => Ok(head),
            Swap::Lost(Some(found)) if !found.value.state.is_final() => Ok(found),
            Swap::Lost(Some(_)) => Err(self.deleted_meanwhile()),
            Swap::Lost(None) => Err(self.failed(Corrupt::new("a head was deleted; they never are").at(key))),
        }
    }

    fn deleted_meanwhile(&self) -> CreateError {
        CreateError::DeletedMeanwhile { name: self.name.clone(), database: self.database }
    }

    fn failed(&self, source: impl Into<RecordError>) -> CreateError {
        CreateError::Record { name: self.name.clone(), source: source.into() }
    }
}
