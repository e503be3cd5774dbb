//! Winning a name for a database that is about to be made.

use walstore::envelope::Corrupt;
use walstore::id::{DatabaseId, IncarnationId, PutId};
use walstore::register::{self, Patience, Swap, Versioned};
use walstore::seam::Seam;
use walstore::store::Store;

use super::create::CreateError;
use super::names::{read_name, resolve_head};
use crate::head::ChunkRef;
use crate::keys;
use crate::limits;
use crate::name::Name;
use crate::record::{NameRecord, NameState, Origin};

/// A name, and the database that it is to lead to.
pub(super) struct Claim<'a> {
    pub store: &'a dyn Store,
    pub seam: &'a Seam,
    pub name: &'a Name,
    pub database: DatabaseId,
    pub me: IncarnationId,
    pub patience: Patience,
}

impl Claim<'_> {
    /// Writes the record: one PUT if the name is new. Who wins it makes the database, whoever else wants the name.
    /// `base` is where its folded state will stand, if it is known.
    pub async fn take(&self, origin: Origin, base: Option<ChunkRef>) -> Result<Versioned<NameRecord>, CreateError> {
        let state = NameState::Live { database: self.database, origin, incarnation: self.me, is_made: false };
        let mut over = None;
        for _ in 0..limits::NAME_ROUNDS_MAX {
            let put_id = PutId::random(self.seam);
            let record = match &over {
                None => NameRecord::new(put_id, self.name.clone(), state),
                Some(Versioned { value, .. }) => NameRecord::led_to(value, state, put_id),
            };
            match self.write(over.as_ref(), NameRecord { base: base.clone(), ..record }).await? {
                Swap::Won(won) => return Ok(won),
                // Our answer was lost. Somebody has finished the database meanwhile, and noted in the record that it is made.
                Swap::Lost(Some(found)) if found.value.leads_to(self.database) => return Ok(found),
                Swap::Lost(Some(found)) => over = self.free(found).await?,
                Swap::Lost(None) => {
                    let corrupt = Corrupt::new("a name record was deleted; they never are").at(keys::name(self.name));
                    return Err(CreateError::failed(self.name, corrupt));
                }
            }
        }
        Err(CreateError::Busy { name: self.name.clone() })
    }

    /// Where no record is, or over that of a deleted database.
    async fn write(
        &self,
        over: Option<&Versioned<NameRecord>>,
        record: NameRecord,
    ) -> Result<Swap<NameRecord>, CreateError> {
        let key = keys::name(self.name);
        let swap = match over {
            None => register::create(self.store, self.seam, &key, record, self.patience).await,
            Some(over) => register::replace(self.store, self.seam, &key, &over.etag, record, self.patience).await,
        };
        swap.map_err(|error| CreateError::failed(self.name, error))
    }

    /// The record of a free name to create over, or the error that says why the name is not free.
    async fn free(&self, found: Versioned<NameRecord>) -> Result<Option<Versioned<NameRecord>>, CreateError> {
        if found.value.mentions(self.database) {
            return Err(CreateError::DeletedMeanwhile { name: self.name.clone(), database: self.database });
        }
        if matches!(found.value.state, NameState::Deleted { .. }) {
            return Ok(Some(found));
        }
        if let Some(head) = resolve_head(self.store, self.seam, self.name, self.me, self.patience).await? {
            return Err(CreateError::AlreadyExists { name: self.name.clone(), database: head.value.database });
        }
        let read = read_name(self.store, self.seam, self.name, self.patience).await;
        read.map_err(|error| CreateError::failed(self.name, error))
    }
}
