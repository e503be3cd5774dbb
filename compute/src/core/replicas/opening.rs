//! From a name to a replica: what is folded, and what the logs of former owners hold. The rest is the follower's.

use std::rc::Rc;
use std::time::Duration;

use tenant::head::Head;
use tenant::lifecycle::OwnerState;
use tenant::name::Name;
use tenant::registry;
use walstore::id::{DatabaseId, IncarnationId};
use walstore::register::Versioned;

use super::super::databases::OpenError;
use super::super::open_database::OpenDatabase;
use super::super::opening::{borrow_for, recover};
use super::super::{Core, spawn_local};
use crate::database::Database;
use crate::database::replica::Replica;
use crate::error::{Fault, ServerError};

/// How long the first request to a replica waits until that has caught up.
const PATIENCE_MICROS: u64 = 10_000_000;

/// How often a replica is begun for one request: its owner may fold what it begins with meanwhile.
const OPENINGS_MAX: usize = 4;

impl Core {
    /// Opens a replica of the database, if another node that lives owns it.
    ///
    /// Nothing is written, not even to finish what somebody else has left: that is for whoever opens it as owner.
    pub(super) async fn load_replica(self: &Rc<Self>, name: &Name) -> Result<Option<Rc<OpenDatabase>>, OpenError> {
        for _ in 0..OPENINGS_MAX {
            let Some(open) = self.begin_replica(name).await? else { return Ok(None) };
            match self.first_state(&open).await {
                Ok(true) => return Ok(Some(open)),
                // What it began with is folded by now, say: the head is another one.
                Ok(false) => {}
                Err(error) => {
                    self.shut_replica(&open, "it did not become complete");
                    return Err(error.into());
                }
            }
        }
        Err(incomplete(name).into())
    }

    async fn begin_replica(self: &Rc<Self>, name: &Name) -> Result<Option<Rc<OpenDatabase>>, OpenError> {
        let (of, patience) = (name.clone(), self.patience());
        let id = self.node.io(move |node| async move {
            registry::resolve(&*node.stores.main, &node.seam, &of, patience).await
        });
        let Some(id) = id.await?.map_err(ServerError::from)? else { return Ok(None) };
        let Some(head) = self.read_head(id).await? else { return Ok(None) };
        let Some(owner) = head.value.owner.filter(|owner| *owner != self.node.id) else { return Ok(None) };
        let is_foreign = !head.value.state.is_final() && head.value.name == *name;
        let was_mine = head.value.tail.iter().any(|entry| entry.incarnation == self.node.id);
        if !is_foreign || was_mine {
            return Ok(None);
        }
        let OwnerState::Alive { address } = self.probe(owner).await? else { return Ok(None) };
        let base = self.folded_base(&head.value).await?;
        let identity = (id, name.clone(), head.value.epoch);
        let replica = Replica::default();
        replica.set_owner(Some((owner, address)));
        let database = Rc::new(Database::replica(identity, self.node.clone(), self.number, base, replica));
        self.take_in_sealed(&database, &head.value, Some(owner)).await?;
        let open = Rc::new(OpenDatabase::of_replica(database, head));
        // What the owner itself has logged is in no sealed log yet, and belongs to the first answer.
        spawn_local(self.clone().keep_up(open.clone()));
        Ok(Some(open))
    }

    /// Waits until it is known how new the replica is. `false`: it is over before.
    async fn first_state(&self, open: &OpenDatabase) -> Result<bool, ServerError> {
        let replica = open.database.replica.as_ref().expect("BUG: just made as one");
        let limit = self.node.seam.boot_micros().saturating_add(PATIENCE_MICROS);
        loop {
            let changed = replica.changed.notified();
            if open.is_closed.get() {
                return Ok(false);
            }
            if replica.as_of_micros() > 0 {
                return Ok(true);
            }
            let left = Duration::from_micros(limit.saturating_sub(self.node.seam.boot_micros()));
            if left.is_zero() {
                return Err(incomplete(&open.database.name));
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = self.node.seam.sleep(left) => {}
            }
        }
    }

    pub(super) async fn probe(&self, id: IncarnationId) -> Result<OwnerState, ServerError> {
        let probe = self.node.io(move |node| async move { node.others.probe(id).await });
        Ok(probe.await?.map_err(ServerError::from)?.state)
    }

    pub(in crate::core) async fn read_head(&self, id: DatabaseId) -> Result<Option<Versioned<Head>>, ServerError> {
        let patience = self.patience();
        let head = self.node.io(move |node| async move {
            registry::read_head(&*node.stores.main, &node.seam, id, patience).await
        });
        head.await?.map_err(ServerError::from)
    }

    /// Applies what sealed logs hold after the database's newest commit: of all owners in the head's tail but
    /// `open`, whose log has no end yet.
    ///
    /// A log that is drained meanwhile shows no commits, since later heads have them all: then commits of the next log
    /// may follow nothing that is known, which is told as [`Fault::Retry`]; or there may be no more, which is not told.
    /// Whoever calls the replica complete reads the head again.
    pub(super) async fn take_in_sealed(
        &self,
        database: &Rc<Database>,
        head: &Head,
        open: Option<IncarnationId>,
    ) -> Result<(), ServerError> {
        for entry in head.tail.iter().filter(|entry| Some(entry.incarnation) != open) {
            let (incarnation, id, after) = (entry.incarnation, database.id, database.newest().lsn);
            // Ownership goes on only after a seal. Were it not sealed, reading it would seal it: a replica must not.
            if self.probe(incarnation).await? != OwnerState::Sealed {
                let text = format!("the log of {incarnation}, a former owner, has no end; try again");
                return Err(ServerError::new(Fault::Retry, text));
            }
            let commits = self.node.io(move |node| async move { node.logged_commits(incarnation, id, after).await });
            let commits = commits.await?.map_err(ServerError::from)?;
            let _loan = borrow_for(&commits, &self.node.cache);
            for commit in &commits {
                let is_next = Some(commit.lsn) > database.newest().lsn;
                if is_next && entry.holds(incarnation, commit.epoch, commit.lsn) {
                    match recover(database, commit, incarnation).await {
                        Err(error) if error.fault == Fault::Corrupt => return Err(self.why_damaged(head, error).await),
                        result => result?,
                    }
                }
            }
        }
        Ok(())
    }

    /// What was read by `head` makes no sense: because there is a later one, or because it is damaged.
    async fn why_damaged(&self, head: &Head, error: ServerError) -> ServerError {
        match self.read_head(head.database).await {
            Ok(Some(now)) if now.value.version == head.version => error,
            Ok(_) => ServerError::new(Fault::Retry, format!("`{}` was folded while its logs were read; try again", head.name)),
            Err(error) => error,
        }
    }
}

fn incomplete(name: &Name) -> ServerError {
    ServerError::new(Fault::Retry, format!("`{name}` could not be read as its owner has it; try again, or ask there"))
}
