//! From a head to one that is this node's, or that it may claim.

use tenant::head::Head;
use tenant::lifecycle::{self, OpenPlan, OwnerState};
use tenant::name::Name;
use tenant::registry;
use tracing::info;
use walstore::id::{IncarnationId, PutId};
use walstore::register::{Swap, Versioned};

use super::ROUNDS_MAX;
use crate::core::Core;
use crate::core::databases::OpenError;
use crate::error::{Fault, ServerError};

/// What stands between a head and serving its database.
pub(super) enum Acquired {
    Owned(Versioned<Head>),
    /// It is nobody's, or a dead owner's whose log is sealed.
    Claimable(Versioned<Head>),
}

impl Core {
    /// Finds out whether this node owns the database or may claim it, sealing the log of an owner that is gone.
    pub(super) async fn acquire(&self, name: &Name, mut head: Versioned<Head>) -> Result<Acquired, OpenError> {
        let node = &self.node;
        for _ in 0..ROUNDS_MAX {
            let owner = match head.value.owner {
                None => OwnerState::None,
                Some(owner) if owner == node.id => OwnerState::Me,
                Some(owner) => {
                    let state = node.io(move |node| async move { node.others.watch(owner).await });
                    state.await?.map_err(ServerError::from)?
                }
            };
            match lifecycle::plan_open(&head.value, node.id, owner) {
                OpenPlan::Serve => return Ok(Acquired::Owned(head)),
                OpenPlan::Acquire => return Ok(Acquired::Claimable(head)),
                OpenPlan::Confirm => {
                    let next = lifecycle::confirm(&head.value, PutId::random(&node.seam));
                    let (before, patience) = (head.clone(), self.patience());
                    let swap = node.io(move |node| async move {
                        registry::swap_head(&*node.stores.main, &node.seam, &before, next, patience).await
                    });
                    match swap.await?.map_err(ServerError::from)? {
                        Swap::Won(won) => return Ok(Acquired::Owned(won)),
                        Swap::Lost(Some(found)) => head = found,
                        Swap::Lost(None) => return Err(OpenError::NoSuchDatabase(name.clone())),
                    }
                }
                OpenPlan::SealFirst(owner) => {
                    let sealed = node.io(move |node| async move { node.others.seal(owner).await });
                    sealed.await?.map_err(ServerError::from)?;
                }
                OpenPlan::DrainFirst => return Err(self.tail_is_full(&head.value).into()),
                OpenPlan::OwnedElsewhere { incarnation, address } => return Err(owned_elsewhere(name, incarnation, &address).into()),
                OpenPlan::Fenced => {
                    let text = format!("another node has taken `{name}` over from this one, which is over; ask there");
                    return Err(ServerError::new(Fault::Fenced, text).into());
                }
                OpenPlan::Gone(state) => {
                    info!(database = %name, ?state, "its head is final; reading the name again");
                    head = self.resolve(name).await?.ok_or_else(|| OpenError::NoSuchDatabase(name.clone()))?;
                }
                OpenPlan::ReadAgain => {
                    head = self.resolve(name).await?.ok_or_else(|| OpenError::NoSuchDatabase(name.clone()))?;
                }
            }
        }
        Err(ownership_keeps_changing(name).into())
    }

    fn tail_is_full(&self, head: &Head) -> ServerError {
        let text = format!("`{}` changed hands {} times without a fold; drain it first", head.name, head.tail.len());
        ServerError::new(Fault::Retry, text)
    }
}

pub(super) fn ownership_keeps_changing(name: &Name) -> ServerError {
    ServerError::new(Fault::Retry, format!("the ownership of `{name}` keeps changing; try again"))
}

fn owned_elsewhere(name: &Name, incarnation: IncarnationId, address: &str) -> ServerError {
    let at = if address.is_empty() { String::new() } else { format!(" at {address}") };
    let text = format!("`{name}` is served by another node ({incarnation}{at}); ask there, or try again when it is gone");
    ServerError::new(Fault::Retry, text)
}
