//! Pins of forks that have ended, in databases that this node owns.
//!
//! ```text
//!   it is idle, or it was open for an hour ─▶ look at the heads of its forks ─▶ [folding stopped] lift the pins of those
//!                                             that nobody needs, in one write of the head ─▶ the next collection deletes
//! ```
//!
//! A sweep leaves these alone, for only the owner knows which forks he is making: he makes none while folds are stopped.
//! What may go, and that a fork's key is occupied first, is decided as in a sweep ([`tenant::lifecycle::plan_pin`]). A crash
//! leaves an aborted head and a pin, or a pin less; the next look goes on from there.
//!
//! A database is looked at once an hour at most, when it is open anyway; then it costs a GET for each of at most
//! [`limits::FORKS_LOOKED_AT_MAX`] forks. One that was closed before its forks ended is told by the node's sweep.

use std::rc::Rc;

use pageserver::sweep::Sweeper;
use tenant::name::Name;
use tracing::{debug, warn};
use walstore::id::DatabaseId;

use super::Core;
use super::open_database::OpenDatabase;
use crate::context::NodeContext;
use crate::error::ServerError;
use crate::limits;

impl Core {
    /// Whether a database has forks at which nobody has looked lately.
    pub(super) fn has_forks(&self, open: &OpenDatabase) -> bool {
        let looked_at = self.tidied.borrow().get(&open.database.id).copied();
        let is_pinned = open.head.borrow().value.is_pinned();
        is_pinned && open.claim.is_won() && looked_at.is_none_or(|at| self.is_long_ago(at))
    }

    /// Whether it is time to look at them.
    pub(super) fn forks_are_due(&self, open: &OpenDatabase) -> bool {
        self.has_forks(open) && (open.is_idle.get() || self.is_long_ago(open.opened_micros))
    }

    fn is_long_ago(&self, since_micros: u64) -> bool {
        let every = limits::FORKS_LOOKED_AT_EVERY.as_micros() as u64;
        self.node.seam.boot_micros().saturating_sub(since_micros) >= every
    }

    /// Lifts the pins of forks that have ended.
    pub(super) async fn tidy_forks(self: &Rc<Self>, open: &Rc<OpenDatabase>) {
        // One more reference: nobody closes it meanwhile.
        let open = &open.clone();
        self.tidied.borrow_mut().retain(|_, at| !self.is_long_ago(*at));
        self.tidied.borrow_mut().insert(open.database.id, self.node.seam.boot_micros());
        let (name, head) = (&open.database.name, open.head.borrow().value.clone());
        let forks = self.node.io(move |node| async move {
            sweeper(&node).forks_to_look_at(&head, limits::FORKS_LOOKED_AT_MAX).await
        });
        let forks = match forks.await {
            Ok(Ok(forks)) => forks,
            Ok(Err(error)) => return warn!(database = %name, %error, "cannot look at its forks"),
            Err(error) => return warn!(database = %name, error = %error.message, "cannot look at its forks"),
        };
        for some in forks.chunks(limits::FORKS_TIDIED_AT_ONCE) {
            if let Err(error) = self.lift_pins(open, some.to_vec()).await {
                warn!(database = %name, error = %error.message, "cannot lift the pins of its forks yet");
                return;
            }
        }
    }

    async fn lift_pins(&self, open: &Rc<OpenDatabase>, forks: Vec<DatabaseId>) -> Result<(), ServerError> {
        let _folding = open.folding.lock().await;
        let is_in_use = self.pasts.all().iter().any(|past| past.database.id == open.database.id);
        if open.database.lost().is_some() || open.is_closed.get() || is_in_use {
            // A moment that is open here may be read from a base that only a fork has kept.
            return Ok(());
        }
        let head = open.head.borrow().clone();
        let lifted = self.node.io(move |node| async move { sweeper(&node).lift_own_pins(&head, &forks).await });
        if let Some(head) = lifted.await?.map_err(sweep_failed)? {
            *open.head.borrow_mut() = head;
            open.note_unlinked(true);
        }
        Ok(())
    }

    /// A sweep has met a database that this node owns, and that has forks or is to end.
    pub(super) async fn tidy(self: &Rc<Self>, name: &Name) {
        match self.open(name, false).await {
            Ok(open) if self.has_expired(&open) => self.clone().expire(&open),
            Ok(open) if open.head.borrow().value.is_pinned() => self.tidy_forks(&open).await,
            Ok(_) => {}
            Err(error) => debug!(%name, ?error, "cannot open it to tidy what it leads to"),
        }
    }
}

fn sweeper(node: &NodeContext) -> Sweeper {
    Sweeper::new(node.id, node.stores.clone(), node.seam.clone(), &node.fetcher)
}

fn sweep_failed(error: pageserver::sweep::SweepError) -> ServerError {
    match error {
        pageserver::sweep::SweepError::Store(error) => error.into(),
        pageserver::sweep::SweepError::Record(error) => error.into(),
    }
}
