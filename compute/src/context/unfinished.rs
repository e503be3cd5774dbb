//! Looking names up, also those of forks and imports that were cut off: whoever meets one need not wait until somebody
//! comes by.

use std::sync::{Mutex, PoisonError};

use pageserver::base::Ahead;
use segments::base::BaseRef;
use tenant::head::{ChunkRef, Head};
use tenant::lifecycle::OwnerState;
use tenant::name::Name;
use tenant::registry::{self, ResolveError};
use walstore::register::{Patience, Versioned};

use super::NodeContext;
use crate::error::ServerError;
use crate::limits;

impl NodeContext {
    /// The head to which a name leads, as its record says. `reads_ahead`: the base that this names is read beside it.
    pub async fn look_up(
        &self,
        name: &Name,
        reads_ahead: bool,
        patience: Patience,
    ) -> Result<Option<(Versioned<Head>, Option<Ahead>)>, ServerError> {
        let ahead = Mutex::new(None);
        let read_ahead = |database, base: &ChunkRef| {
            if let Ok(base) = BaseRef::from_bytes(&base.0)
                && reads_ahead
            {
                let reading = Ahead::read(&self.fetcher, &self.seam, database, base);
                *ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(reading);
            }
        };
        let try_once =
            || registry::resolve_head_ahead(&*self.stores.main, &self.seam, name, self.id, patience, &read_ahead);
        let head = match try_once().await {
            Err(error) if self.end_unfinished(&error).await? => try_once().await?,
            resolved => resolved?,
        };
        let ahead = ahead.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(head.map(|head| (head, ahead)))
    }

    /// Sees to it that what stands in the way of a name can be undone, if nobody goes on with it: seals the log of the
    /// dead node that was making it, or keeps what this node has given up from ever coming. `true`: try again.
    pub async fn end_unfinished(&self, error: &ResolveError) -> Result<bool, ServerError> {
        let ResolveError::Unfinished { name, database, incarnation } = error else { return Ok(false) };
        if *incarnation == self.id {
            if !self.given_up.has(*database) {
                return Ok(false);
            }
            let patience = Patience::for_duration(&self.seam, limits::UNFINISHED_PATIENCE);
            registry::occupy(&*self.stores.main, &self.seam, name, *database, None, patience).await?;
            return Ok(true);
        }
        match self.others.watch(*incarnation).await? {
            OwnerState::LeaseOver => self.others.seal(*incarnation).await?,
            OwnerState::Sealed => {}
            OwnerState::Alive { .. } | OwnerState::Me | OwnerState::MeLeaving | OwnerState::None => return Ok(false),
        }
        Ok(true)
    }
}
