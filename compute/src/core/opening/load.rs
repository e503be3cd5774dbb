//! From a head to an open database: what is folded, and then the commits that are only in logs.

use std::rc::Rc;

use pageserver::base::{Ahead, base_of, base_of_ahead, inline_base_of, tip_of};
use pageserver::tail::keeps_commits;
use pageserver::warm::Cold;
use segments::base::BaseParts;
use tenant::head::{Head, MapField};
use tokio::sync::oneshot;
use walstore::envelope::Corrupt;
use walstore::register::Versioned;

use super::{borrow_for, recover};
use crate::core::Core;
use crate::core::claim::Claim;
use crate::core::open_database::OpenDatabase;
use crate::database::Database;
use crate::database::pages::Base;
use crate::error::{Fault, ServerError};

/// What is folded, while parts of it are being read.
pub(super) struct Warm {
    /// The map, as the head has it.
    root: MapField,
    read: oneshot::Receiver<Option<BaseParts>>,
}

impl Core {
    /// Reads the log of the former owner, which this node will need, while it makes itself the owner.
    pub(super) fn read_ahead(&self, head: &Head) {
        let node = self.node.clone();
        if let Some(owner) = head.owner.filter(|owner| *owner != node.id) {
            self.node.seam.spawn(async move { node.read_ahead(owner).await });
        }
    }

    /// Begins to read what is folded as far as it is not in the head: the stored base of a fork, and the parts of the page
    /// map. `ahead` may be that base already. What cannot be read is left to the query that wants it.
    pub(super) fn warm(&self, head: &Head, ahead: Option<Ahead>) -> Option<Warm> {
        let inline = inline_base_of(head).ok()?;
        if let Some(base) = &inline {
            Cold::of(&base.map, &self.node.cache)?;
        }
        let (sender, read) = oneshot::channel();
        let (node, root, head) = (self.node.clone(), head.map.clone(), head.clone());
        self.node.seam.spawn(async move {
            let base = match inline {
                Some(base) => Some(base),
                None => base_of_ahead(&node.fetcher, &head, ahead).await.ok(),
            };
            let Some(base) = base else { return };
            let map = match Cold::of(&base.map, &node.cache) {
                None => Some(base.map.clone()),
                Some(cold) => cold.read(&node.fetcher, head.database, base.map.clone()).await.ok(),
            };
            let map = map.unwrap_or_else(|| base.map.clone());
            drop(sender.send(Some(BaseParts { map, ..base })));
        });
        Some(Warm { root, read })
    }

    /// What is folded, from wherever it stands.
    pub(in crate::core) async fn folded_base(&self, head: &Head) -> Result<Base, ServerError> {
        let at_head = |corrupt: Corrupt| ServerError::new(Fault::Corrupt, corrupt.at(tenant::keys::head(head.database)).to_string());
        if let Some(base) = inline_base_of(head).map_err(at_head)? {
            return Ok(Base::of_parts(base));
        }
        let head = head.clone();
        let read = self.node.io(move |node| async move { base_of(&node.fetcher, &head).await });
        Ok(Base::of_parts(read.await?.map_err(ServerError::from)?))
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
        let warm = match warm.filter(|warm| warm.root == head.value.map) {
            Some(warm) => warm.read.await.ok().flatten(),
            None => None,
        };
        // Of the same map, but maybe of another head: what that said of the history does not count.
        let warm = warm.filter(|base| base.tip == tip_of(&head.value));
        let base = match warm {
            Some(base) => Base::of_parts(base),
            None => self.folded_base(&head.value).await?,
        };
        let window_micros = u64::from(head.value.settings.window_millis) * 1000;
        let identity = (head.value.database, head.value.name.clone(), head.value.epoch);
        let database = Rc::new(Database::new(identity, node.clone(), self.number, window_micros, base));
        database.keep_commits(keeps_commits(&head.value));
        database.created_at(head.value.settings.created_micros);
        for entry in &head.value.tail {
            if entry.incarnation != node.id {
                let incarnation = entry.incarnation;
                let after = database.newest().lsn;
                let commits = node.io(move |node| async move { node.logged_commits(incarnation, id, after).await });
                let commits = commits.await?.map_err(ServerError::from)?;
                let _loan = borrow_for(&commits, &node.cache);
                for commit in &commits {
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
