//! From a commit of a history to an open database that shows it.

use std::rc::Rc;

use bytes::Bytes;
use segments::tip::Tip;
use tenant::head::Head;
use tenant::name::Name;
use tracing::info;
use walstore::id::Lsn;

use super::finding::FoundCommit;
use super::history;
use crate::core::Core;
use crate::core::open_database::OpenDatabase;
use crate::database::Database;
use crate::database::overlay::Changes;
use crate::database::pages::Base;
use crate::database::past::Past;
use crate::error::{Fault, ServerError};
use crate::limits;

impl Core {
    pub(super) async fn load_past(&self, found: &FoundCommit) -> Result<Rc<OpenDatabase>, ServerError> {
        let (head, lsn) = (&found.head.value, found.lsn);
        let tail = match Lsn::new(lsn).filter(|lsn| Some(*lsn) > head.folded.lsn) {
            Some(lsn) => Some(self.unfolded(&found.name, head, lsn)?),
            None => None,
        };
        let mut tries = 0;
        let mut state = loop {
            let (of, folded) = (head.clone(), lsn.min(Lsn::raw(head.folded.lsn)));
            let state = self.node.io(move |node| async move { history::state_at(&node, &of, folded).await });
            let state = match state.await? {
                Ok(state) => state,
                Err(error) => return Err(self.why_past_is_gone(head, error).await),
            };
            match state {
                Some(state) => break state,
                None => self.wait_for_room(&found.name, lsn, &mut tries).await?,
            }
        };
        if let Some((changes, tip)) = tail {
            state.go_on(changes, tip);
            while !state.has_room() {
                self.wait_for_room(&found.name, lsn, &mut tries).await?;
            }
        }
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

    /// Has moments closed that nobody uses, on all cores.
    async fn wait_for_room(&self, name: &Name, lsn: u64, tries: &mut u32) -> Result<(), ServerError> {
        if *tries >= limits::PAST_ROOM_TRIES {
            let text = format!(
                "this node has no memory left (--memory) to open `{name}` as it was after commit {lsn}, beside the moments \
                 of the past that are in use; try again later"
            );
            return Err(ServerError::new(Fault::Retry, text));
        }
        *tries += 1;
        self.node.replica_overlays.ask_for_room();
        self.node.seam.sleep(limits::OVERLAY_ROUND).await;
        Ok(())
    }

    /// What has been committed after what `head` says is folded, up to a commit that this node has in memory.
    fn unfolded(&self, name: &Name, head: &Head, lsn: Lsn) -> Result<(Changes, Tip), ServerError> {
        let open = self.databases.opened(name).filter(|open| open.database.id == head.database);
        open.and_then(|open| open.database.changes_between(head.folded.lsn, lsn)).ok_or_else(|| {
            // It was folded in this very moment, or has ended.
            ServerError::new(Fault::Retry, format!("commit {lsn} of `{name}` is being stored elsewhere; try again"))
        })
    }
}
