//! Giving a database up on purpose, so that another node can take it without waiting for a lease.

use std::rc::Rc;

use pageserver::fold::FoldFailure;
use tenant::name::Name;
use tracing::{info, warn};
use walstore::id::Lsn;
use walstore::register::Backoff;

use super::Core;
use super::databases::OpenError;
use super::open_database::OpenDatabase;
use crate::database::turn::TurnGuard;
use crate::error::{Fault, ServerError};
use crate::failure::fold_words;

impl Core {
    /// Stops the writers, folds until the tail is empty, and leaves the head without an owner. Whoever uses the
    /// database next acquires it.
    pub(super) async fn release(self: &Rc<Self>, name: Name) -> Result<(), OpenError> {
        let open = self.open(&name, false).await?;
        let turn = self.stop_writers(&open).await?;
        self.give_up(&open).await.map_err(|failure| {
            let text = format!("`{name}` cannot be given up at the moment: {}", fold_words(&name, &failure));
            ServerError::new(Fault::Retry, text)
        })?;
        info!(database = %name, "given up");
        drop(turn);
        Ok(())
    }

    /// Waits for the turn, and until all that was written before is durable. Nobody writes for as long as the guard is
    /// held.
    pub(super) async fn stop_writers(&self, open: &OpenDatabase) -> Result<TurnGuard, ServerError> {
        let name = &open.database.name;
        let (seam, settings) = (&self.node.seam, &self.node.settings);
        let turn = tokio::select! {
            biased;
            turn = open.database.turn.take() => turn,
            () = seam.sleep(settings.busy_timeout) => {
                let text = format!("`{name}` is being written to for longer than {:?}; nothing was done", settings.busy_timeout);
                return Err(ServerError::new(Fault::Retry, text));
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
                return Err(ServerError::new(Fault::Retry, text));
            }
        }
        if let Some(reason) = open.database.lost() {
            return Err(ServerError::new(Fault::Fenced, reason));
        }
        Ok(turn)
    }

    /// The writers are stopped: what is folded last is all that there is.
    ///
    /// Once the release was sent it may arrive at any time: it would take the tail away under later commits, and
    /// another node may own the database from then on. So before it is sent the database ends here, for readers
    /// too, and after that it is carried through, however often the store fails.
    async fn give_up(self: &Rc<Self>, open: &Rc<OpenDatabase>) -> Result<(), FoldFailure> {
        let _folding = open.folding.lock().await;
        while open.database.durable_unfolded().is_some() {
            match self.fold(open, false).await {
                Ok(_) => {}
                Err(FoldFailure::Lost(found)) if self.adopt(open, &found) => {}
                Err(failure) => return Err(failure),
            }
        }
        open.database.lose("the database was given up by this node; ask again");
        open.pool.clear();
        self.end_streams_of(open).await;
        let mut backoff = Backoff::default();
        loop {
            match self.fold(open, true).await {
                Ok(_) => break,
                // An earlier fold of ours had landed.
                Err(FoldFailure::Lost(found)) if self.adopt(open, &found) => {}
                // This very release had landed, or somebody has sealed our log.
                Err(FoldFailure::Lost(found)) if found.value.owner != Some(self.node.id) => break,
                Err(failure) => {
                    warn!(database = %open.database.name, %failure, "cannot give it up yet; trying again");
                    backoff.pause(&self.node.seam).await;
                }
            }
        }
        // All of it is folded, so this node may own it again.
        if let Some(last) = open.database.newest().lsn {
            self.node.log.folded(open.database.id, last);
        }
        self.databases.close(open);
        Ok(())
    }
}
