//! Looking names up, also those of forks and imports that were cut off: whoever meets one need not wait until somebody
//! comes by.

use std::sync::{Mutex, PoisonError};

use pageserver::base::Ahead;
use segments::base::BaseRef;
use tenant::head::Head;
use tenant::lifecycle::OwnerState;
use tenant::name::Name;
use tenant::record::NameRecord;
use tenant::registry::{self, ResolveError};
use walstore::register::{Patience, Versioned};

use super::NodeContext;
use crate::error::ServerError;
use crate::limits;

/// Where a name leads.
pub struct LookedUp {
    pub head: Versioned<Head>,
    pub record: Versioned<NameRecord>,
    /// What is being read because it will probably be needed.
    pub ahead: Option<Ahead>,
}

impl NodeContext {
    /// The head to which a name leads, as its record says. `reads_ahead`: the base that this names is read beside it.
    pub async fn look_up(
        &self,
        name: &Name,
        reads_ahead: bool,
        patience: Patience,
    ) -> Result<Option<LookedUp>, ServerError> {
        let ahead = Mutex::new(None);
        let led_there = Mutex::new(None);
        let see = |record: &Versioned<NameRecord>| {
            *led_there.lock().unwrap_or_else(PoisonError::into_inner) = Some(record.clone());
            let base = record.value.base.as_ref().filter(|_| reads_ahead);
            if let Some(Ok(base)) = base.map(|base| BaseRef::from_bytes(&base.0)) {
                let reading = Ahead::read(&self.fetcher, &self.seam, record.value.database(), base);
                *ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(reading);
            }
        };
        let try_once =
            || registry::resolve_head_ahead(&*self.stores.main, &self.seam, name, self.id, patience, &see);
        let head = match try_once().await {
            Err(error) if self.end_unfinished(&error).await? => try_once().await?,
            resolved => resolved?,
        };
        let ahead = ahead.into_inner().unwrap_or_else(PoisonError::into_inner);
        let record = led_there.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(head.zip(record).map(|(head, record)| LookedUp { head, ahead, record }))
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
