//! Creating an empty database.

use walstore::envelope::Corrupt;
use walstore::id::{DatabaseId, IncarnationId, PutId};
use walstore::register::{self, Patience, RecordError, Swap, Versioned};
use walstore::seam::Seam;
use walstore::store::{Store, StoreError, StoreErrorKind};

use super::claim::Claim;
use super::names::ResolveError;
use crate::head::Head;
use crate::keys;
use crate::lifecycle;
use crate::name::Name;
use crate::record::Origin;
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
    let claim = Claim { store, seam, name, database, me, patience };
    claim.take(Origin::Empty(settings), None).await?;
    let head = lifecycle::first_head(name, database, me, settings, PutId::random(seam));
    write_head(&claim, head).await.map_err(|error| match error {
        // It exists: the name stands.
        CreateError::Record { name, source: RecordError::Store(error) } => {
            CreateError::Record { name, source: StoreError { kind: StoreErrorKind::Indefinite, ..error }.into() }
        }
        error => error,
    })
}

pub(super) async fn write_head(claim: &Claim<'_>, head: Head) -> Result<Versioned<Head>, CreateError> {
    let key = keys::head(claim.database);
    let failed = |source: RecordError| CreateError::failed(claim.name, source);
    match register::create(claim.store, claim.seam, &key, head, claim.patience).await.map_err(failed)? {
        Swap::Won(head) => Ok(head),
        Swap::Lost(Some(found)) if !found.value.state.is_final() => Ok(found),
        Swap::Lost(Some(_)) => {
            Err(CreateError::DeletedMeanwhile { name: claim.name.clone(), database: claim.database })
        }
        Swap::Lost(None) => Err(failed(Corrupt::new("a head was deleted; they never are").at(key).into())),
    }
}

impl CreateError {
    pub(super) fn failed(name: &Name, source: impl Into<RecordError>) -> Self {
        Self::Record { name: name.clone(), source: source.into() }
    }
}
