//! Names of forks and imports that were cut off. Whoever meets one need not wait until somebody comes by.

use tenant::lifecycle::OwnerState;
use tenant::registry::{self, ResolveError};
use walstore::register::Patience;

use super::NodeContext;
use crate::error::ServerError;
use crate::limits;

impl NodeContext {
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
