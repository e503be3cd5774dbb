//! From a head to an open database: what is folded, and then the commits that are only in logs.

use std::rc::Rc;

use pageserver::warm::Cold;
use segments::map::PageMap;
use tenant::head::{Head, MapField};
use tokio::sync::oneshot;
use walstore::register::Versioned;

use super::recover;
use crate::core::Core;
use crate::core::claim::Claim;
use crate::core::open_database::OpenDatabase;
use crate::database::Database;
use crate::database::pages::Base;
use crate::error::{Fault, ServerError};

/// Parts of a page map that are being read.
pub(super) struct Warm {
    /// The map, as the head has it.
    root: MapField,
    read: oneshot::Receiver<Option<PageMap>>,
}

impl Core {
    /// Reads the log of the former owner, which this node will need, while it makes itself the owner.
    pub(super) fn read_ahead(&self, head: &Head) {
        let node = self.node.clone();
        if let Some(owner) = head.owner.filter(|owner| *owner != node.id) {
            self.node.seam.spawn(async move { node.read_ahead(owner).await });
        }
    }

    /// Begins to read the parts of the page map that are not in the head. What cannot be read is left to the query
    /// that wants it.
    pub(super) fn warm(&self, head: &Head) -> Option<Warm> {
        let (_, map) = pageserver::base::base_of(head).ok()?;
        let cold = Cold::of(&map, &self.node.cache)?;
        let (sender, read) = oneshot::channel();
        let (fetcher, of) = (self.node.fetcher.clone(), head.database);
        self.node.seam.spawn(async move { drop(sender.send(cold.read(&fetcher, of, map).await.ok())) });
        Some(Warm { root: head.map.clone(), read })
    }

    /// Builds the open database: what is folded, and then the tail of commits out of sealed logs.
    pub(super) async fn load(
        &self,
        head: Versioned<Head>,
        warm: Option<Warm>,
        claim: Claim,
    ) -> Result<Rc<OpenDatabase>, ServerError> {
        let node = &self.node;
        let id = head.value.database;
        // It may have ended while it was acquired.
        self.check_not_ended(&head.value)?;
        let base = Base::of_head(&head.value).map_err(|corrupt| {
            let key = tenant::keys::head(head.value.database);
            ServerError::new(Fault::Corrupt, corrupt.at(key).to_string())
        })?;
        if let Some(warm) = warm.filter(|warm| warm.root == head.value.map)
            && let Ok(Some(map)) = warm.read.await
        {
            base.learn(map);
        }
        let window_micros = u64::from(head.value.settings.window_millis) * 1000;
        let identity = (head.value.database, head.value.name.clone(), head.value.epoch);
        let database = Rc::new(Database::new(identity, node.clone(), self.number, window_micros, base));
        for entry in &head.value.tail {
            if entry.incarnation != node.id {
                let incarnation = entry.incarnation;
                let after = database.newest().lsn;
                let commits = node.io(move |node| async move { node.logged_commits(incarnation, id, after).await });
                for commit in &commits.await?.map_err(ServerError::from)? {
                    let is_next = Some(commit.lsn) > database.newest().lsn;
                    if is_next && entry.holds(entry.incarnation, commit.epoch, commit.lsn) {
                        recover(&database, commit, entry.incarnation).await?;
                    }
                }
            }
        }
        let own_after = database.newest().lsn;
        let unfolded = self.wake(&database).await?;
        database.warm_up();
        Ok(Rc::new(OpenDatabase::new(database, head, claim, (own_after, unfolded))))
    }
}
