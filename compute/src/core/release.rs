//! Giving a database up on purpose, so that another node can take it without waiting for a lease.

use std::rc::Rc;

use pageserver::fold::FoldFailure;
use tenant::name::Name;
use tracing::{info, warn};
use walstore::id::Lsn;
use walstore::register::Backoff;

use super::Core;
use super::databases::{OpenDatabase, OpenError};
use crate::error::{Fault, ServerError};

impl Core {
    /// Stops the writers, folds until the tail is empty, and leaves the head without an owner. Whoever uses the
    /// database next acquires it.
    pub(super) async fn release(self: &Rc<Self>, name: Name) -> Result<(), OpenError> {
        let open = self.open(&name, false).await?;
        let (seam, settings) = (&self.node.seam, &self.node.settings);
        let turn = tokio::select! {
            biased;
            turn = open.database.turn.take() => turn,
            () = seam.sleep(settings.busy_timeout) => {
                let text = format!("`{name}` is being written to for longer than {:?}; nothing was done", settings.busy_timeout);
                return Err(ServerError::new(Fault::Retry, text).into());
            }
        };
        let newest = Lsn::raw(open.database.newest().lsn);
        tokio::select! {
            biased;
            passed = open.database.gate.pass(newest) => {
                passed.map_err(|lost| ServerError::new(Fault::Fenced, lost.0))?;
            }
            () = seam.sleep(settings.commit_timeout) => {
                let text = format!("the bucket has not taken the last commits of `{name}`; nothing was done");
                return Err(ServerError::new(Fault::Retry, text).into());
            }
        }
        self.give_up(&open).await.map_err(|failure| {
            let text = format!("`{name}` cannot be given up at the moment: {failure}");
            ServerError::new(Fault::Retry, text)
        })?;
        info!(database = %name, "given up");
        self.leave(&open, "the database was given up by this node; ask again").await;
        drop(turn);
        Ok(())
    }

    /// The writers are stopped: what is folded last is all that there is.
    ///
    /// Once the release was sent it may arrive at any time, and would take the tail away under later commits. So
    /// from then on it is carried through, however often the store fails, and no writer goes on before.
    async fn give_up(self: &Rc<Self>, open: &Rc<OpenDatabase>) -> Result<(), FoldFailure> {
        let _folding = open.folding.lock().await;
        let mut backoff = Backoff::default();
        let mut was_sent = false;
        loop {
            match self.fold(open, true).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                // A write of our own whose answer was an error: an earlier fold, or this very release.
                Err(FoldFailure::Lost(found)) if self.adopt(open, &found) => {}
                Err(FoldFailure::Lost(found)) if found.value.owner != Some(self.node.id) => return Ok(()),
                Err(failure) if was_sent || matches!(failure, FoldFailure::Swap(_)) => {
                    was_sent = true;
                    warn!(database = %open.database.name, %failure, "cannot give it up yet; trying again");
                    backoff.pause(&self.node.seam).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }
}
