//! From a commit of a history to an open database that shows it.

use std::rc::Rc;

use bytes::Bytes;
use tenant::head::Head;
use tracing::info;
use walstore::id::Lsn;

use super::finding::FoundCommit;
use super::history::{self, State};
use crate::core::Core;
use crate::core::open_database::OpenDatabase;
use crate::database::Database;
use crate::database::pages::Base;
use crate::database::past::Past;
use crate::error::{Fault, ServerError};
use crate::limits;

impl Core {
    pub(super) async fn load_past(&self, found: &FoundCommit) -> Result<Rc<OpenDatabase>, ServerError> {
        let (head, lsn) = (&found.head.value, found.lsn);
        let state = self.read_past(head, lsn).await?;
        let base = Base::new(state.tip, state.map, state.image);
        let identity = (head.database, found.name.clone(), head.epoch);
        let database = Database::past(identity, self.node.clone(), self.number, base, Past { lsn }, state.room);
        if let Some((commit, tip)) = state.replayed {
            database.recover(commit, tip, &Bytes::new());
        }
        if Lsn::raw(database.newest().lsn) != lsn {
            let text = format!("the history of {} leads to {:?} instead of {lsn}", head.database, database.newest().lsn);
            return Err(ServerError::new(Fault::Corrupt, text));
        }
        info!(database = %found.name, lsn, "a moment of the past is open");
        Ok(Rc::new(OpenDatabase::of_replica(Rc::new(database), found.head.clone())))
    }

    /// Without room for it, moments that nobody uses are closed on all cores.
    async fn read_past(&self, head: &Head, lsn: u64) -> Result<State, ServerError> {
        for _ in 0..=limits::PAST_ROOM_TRIES {
            let head = head.clone();
            let state = self.node.io(move |node| async move { history::state_at(&node, &head, lsn).await });
            if let Some(state) = state.await?? {
                return Ok(state);
            }
            self.node.replica_overlays.ask_for_room();
            self.node.seam.sleep(limits::OVERLAY_ROUND).await;
        }
        let text = format!(
            "this node has no memory left (--memory) to open `{}` as it was after commit {lsn}, beside the moments of the \
             past that are in use; try again later",
            head.name
        );
        Err(ServerError::new(Fault::Retry, text))
    }
}
