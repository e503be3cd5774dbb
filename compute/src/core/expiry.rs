//! Databases whose time is up.
//!
//! The head says until when a database is promised. From then on it is not served, and who meets it deletes it: its owner,
//! at the next request or when it is open anyway, or a sweep of the bucket, which a marker leads there, if nobody owns it.
//! Who wants its name has it deleted first, and waits for that.

use std::rc::Rc;

use pageserver::fold::agreed_micros;
use tenant::due::{DueKind, DueMarker};
use tenant::head::Head;
use tenant::name::Name;
use tenant::registry;
use tracing::{debug, info, warn};

use super::databases::OpenError;
use super::open_database::OpenDatabase;
use super::{Core, spawn_local};
use crate::error::{Fault, ServerError};

/// Tries to have a database end before a caller is told to come back.
const ROUNDS_MAX: usize = 4;

impl Core {
    /// As long as the claim is pending, somebody else may have given the database more time.
    pub(super) fn has_expired(&self, open: &OpenDatabase) -> bool {
        self.is_over(&open.head.borrow().value)
    }

    /// Whether nothing of a database, nor of its past, is shown any more.
    pub(super) fn is_over(&self, head: &Head) -> bool {
        head.settings.is_expired(self.node.now_micros())
    }

    /// The database of this name, unless its time is up.
    pub(super) async fn open_living(self: &Rc<Self>, name: &Name) -> Result<Rc<OpenDatabase>, OpenError> {
        let open = self.open(name, false).await?;
        if !self.has_expired(&open) {
            return Ok(open);
        }
        self.clone().expire(&open);
        Err(OpenError::NoSuchDatabase(name.clone()))
    }

    /// Deletes a database whose time is up, once node and store agree that it is: it may be for good. Not one that was
    /// given more time meanwhile, and no other one that has got its name.
    pub(super) fn expire(self: Rc<Self>, open: &Rc<OpenDatabase>) {
        if !self.is_to_end(&open.head.borrow().value) {
            return;
        }
        let (open, name) = (open.clone(), open.database.name.clone());
        info!(%name, "deleting a database whose time is up");
        spawn_local(async move {
            match self.delete_if(&open, |head| self.is_to_end(head)).await {
                Ok(_) | Err(OpenError::NoSuchDatabase(_)) => {}
                // Two have met it at the same time, or a client has deleted it.
                Err(OpenError::Server(error)) if error.fault == Fault::Fenced => debug!(%name, %error, "it has ended already"),
                Err(OpenError::Server(error)) => warn!(%name, %error, "cannot delete a database whose time is up yet"),
            }
        });
    }

    /// Deletes the database of a name if its time is up, for somebody who wants the name. Returns whether it was, and the
    /// name is free.
    pub(super) async fn free_if_over(self: &Rc<Self>, name: &Name) -> Result<bool, ServerError> {
        for round in 0..ROUNDS_MAX {
            match self.resolve(name).await? {
                None => return Ok(round > 0),
                Some(head) if !self.is_over(&head.value) => return Ok(false),
                Some(_) => {}
            }
            match self.end_if_over(name).await {
                Ok(()) | Err(OpenError::NoSuchDatabase(_)) => {}
                // Somebody else is at it, or was.
                Err(OpenError::Server(error)) if error.fault == Fault::Fenced => debug!(%name, %error, "it has ended meanwhile"),
                Err(OpenError::Server(error)) => return Err(error),
            }
        }
        Err(not_over_yet(name))
    }

    async fn end_if_over(self: &Rc<Self>, name: &Name) -> Result<(), OpenError> {
        let open = self.open(name, false).await?;
        let head = open.head.borrow().value.clone();
        if !self.is_over(&head) {
            return Ok(());
        }
        if !self.is_to_end(&head) {
            return Err(not_over_yet(name).into());
        }
        info!(%name, "deleting a database whose time is up, for its name");
        self.delete_if(&open, |head| self.is_to_end(head)).await.map(drop)
    }

    fn is_to_end(&self, head: &Head) -> bool {
        let agreed = agreed_micros(self.node.seam.wall_micros(), self.node.stores.main.date_micros());
        agreed.is_some_and(|now| head.settings.is_expired(now))
    }

    /// Those that are open.
    pub(super) fn end_expired(self: &Rc<Self>) {
        for open in self.databases.all() {
            if open.claim.is_won() && self.has_expired(&open) && open.database.lost().is_none() {
                self.clone().expire(&open);
            }
        }
        self.end_expired_pasts();
    }

    /// Leads a sweep to a database that is to end. Without the marker its owner finds out all the same, some time.
    pub(super) async fn announce_end(&self, head: &Head) {
        let due_micros = head.settings.expires_micros;
        if due_micros == 0 {
            return;
        }
        let marker = DueMarker { database: head.database, kind: DueKind::Expire, due_micros, other: None };
        let patience = self.patience();
        let put = self.node.io(move |node| async move {
            registry::put_due(&*node.stores.main, &node.seam, &marker, patience).await
        });
        if let Ok(Err(error)) = put.await {
            warn!(name = %head.name, %error, "cannot mark when a database ends; its owner deletes it when it is asked for");
        }
    }
}

/// Node and store have to agree.
fn not_over_yet(name: &Name) -> ServerError {
    let text = format!("the time of `{name}` is up by this node's clock, but not yet by the bucket's; nothing was done; try again");
    ServerError::new(Fault::Retry, text)
}
