//! From a commit of a history to an open database that shows it.

use std::rc::Rc;

use bytes::Bytes;
use tracing::info;
use walstore::id::Lsn;

use super::finding::FoundCommit;
use super::history;
use crate::core::Core;
use crate::core::open_database::OpenDatabase;
use crate::database::Database;
use crate::database::pages::Base;
use crate::database::past::Past;
use crate::error::{Fault, ServerError};

impl Core {
    pub(super) async fn load_past(&self, found: &FoundCommit) -> Result<Rc<OpenDatabase>, ServerError> {
        let (head, lsn) = (found.head.value.clone(), found.lsn);
        let state = self.node.io(move |node| async move { history::state_at(&node, &head, lsn).await });
        let state = state.await??;
        let head = &found.head.value;
        let base = Base::new(state.tip, state.map, state.image);
        let identity = (head.database, found.name.clone(), head.epoch);
        let database = Database::past(identity, self.node.clone(), self.number, base, Past { lsn });
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
}
