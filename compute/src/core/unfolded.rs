//! The owner's side of pages that other processes ask for, as of commits that are durable and not folded yet: they come
//! from the overlay, and what that does not have from the base under it.
//!
//! What is shown is durable (the gate has let it pass), and only while this node has not heard that it lost the database.
//! The snapshot keeps its base alive for as long as it is read, as a transaction's does; a commit that folds have passed
//! is left to the history in the bucket.

use std::rc::Rc;

use async_trait::async_trait;
use bytes::Bytes;
use pageserver::service::follow::Ending;
use pageserver::service::messages::{Page, PagesReply};
use pageserver::service::owners::{Owned, Owners, Unserved};
use segments::page::PageNo;
use tenant::lifecycle::OwnerState;
use tokio::sync::oneshot;
use walstore::id::Lsn;

use super::open_database::OpenDatabase;
use super::{Core, Message, spawn_local};
use crate::database::Snapshot;
use crate::error::{Fault, ServerError};
use crate::node::NodeHandle;

/// What another process is told.
pub type PagesAnswer = oneshot::Sender<Result<PagesReply, Unserved>>;

#[async_trait]
impl Owners for NodeHandle {
    async fn pages(&self, of: &Owned, lsn: Lsn, numbers: &[PageNo]) -> Result<PagesReply, Unserved> {
        if of.incarnation != self.context.id {
            // Told, not asked: only page servers ask on behalf of others, so nobody's question goes in circles.
            let owner = self.context.others.probe(of.incarnation).await.map(|probe| probe.state);
            return Err(Unserved::Elsewhere(match owner {
                Ok(OwnerState::Alive { address }) if !address.is_empty() => format!("the node at {address} owns it; ask there"),
                _ => format!("{} owns it; ask there", of.incarnation),
            }));
        }
        let (reply, answer) = oneshot::channel();
        let message = Message::Pages { of: of.clone(), lsn, numbers: numbers.to_vec(), reply };
        self.send(&of.name, message).map_err(|error| Unserved::Elsewhere(error.message))?;
        answer.await.unwrap_or_else(|_| Err(going_down()))
    }
}

fn going_down() -> Unserved {
    Unserved::Elsewhere("this node is going down; ask another one".into())
}

impl Core {
    pub(super) fn serve_pages(self: &Rc<Self>, of: Owned, lsn: Lsn, numbers: Vec<PageNo>, reply: PagesAnswer) {
        let core = self.clone();
        spawn_local(async move {
            let pages = core.unfolded_pages(&of, lsn, &numbers, &reply).await;
            let _ = reply.send(pages);
        });
    }

    async fn unfolded_pages(
        self: &Rc<Self>,
        of: &Owned,
        lsn: Lsn,
        numbers: &[PageNo],
        reply: &PagesAnswer,
    ) -> Result<PagesReply, Unserved> {
        let open = self.owned(of.database, &of.name, of.incarnation).await;
        let open = open.map_err(|ending| match ending {
            Ending::NotHere(text) | Ending::Over(text) => Unserved::Elsewhere(text),
            other => Unserved::Elsewhere(other.to_string()),
        })?;
        self.may_show(&open)?;
        open.used_micros.set(self.node.seam.boot_micros());
        open.is_idle.set(false);
        let snapshot = durable_at(&open, lsn)?;
        let pages = self.read_pages(&open, snapshot, numbers, reply).await;
        open.database.forget_folded();
        pages
    }

    async fn read_pages(
        &self,
        open: &OpenDatabase,
        snapshot: Snapshot,
        numbers: &[PageNo],
        reply: &PagesAnswer,
    ) -> Result<PagesReply, Unserved> {
        let Snapshot { lsn, page_count, .. } = snapshot;
        let mut pages = Vec::new();
        for number in numbers.iter().filter(|number| number.get() <= page_count) {
            if reply.is_closed() {
                return Err(Unserved::Elsewhere("nobody waits for it any more".into()));
            }
            let page = open.database.page_at(&snapshot, *number).await;
            // What it is read from may be gone because this node has lost the database: that is no damage.
            self.may_show(open)?;
            let page = page.map_err(unread)?;
            pages.push(Page { page_no: number.get(), content: Bytes::copy_from_slice(page.as_bytes()) });
        }
        Ok(PagesReply { lsn: Lsn::raw(lsn), page_count, pages })
    }

    /// Whether anything of a database may leave this node.
    fn may_show(&self, open: &OpenDatabase) -> Result<(), Unserved> {
        let name = &open.database.name;
        if let Some(reason) = open.database.lost() {
            return Err(Unserved::Elsewhere(format!("this node serves `{name}` no more ({reason}); ask its present owner")));
        }
        if self.is_stopping.get() {
            return Err(going_down());
        }
        if self.has_expired(open) {
            return Err(Unserved::Elsewhere(format!("the time of `{name}` is up")));
        }
        if !self.node.lease_is_valid() {
            return Err(Unserved::Elsewhere(self.out_of_touch().message));
        }
        Ok(())
    }
}

fn unread(error: ServerError) -> Unserved {
    match error.fault {
        Fault::Corrupt => Unserved::Damaged(error.message),
        _ => Unserved::Elsewhere(error.message),
    }
}

/// The state after a commit that is durable and that folds have not passed.
fn durable_at(open: &OpenDatabase, lsn: Lsn) -> Result<Snapshot, Unserved> {
    let database = &open.database;
    if let Some(folded) = database.base().tip.lsn.filter(|folded| *folded > lsn) {
        return Err(Unserved::Folded(folded));
    }
    database.durable_snapshot_at(lsn).ok_or_else(|| {
        let (name, newest) = (&database.name, database.gate.durable());
        Unserved::NotDurable(format!("commit {lsn} of `{name}` is not durable; the newest that is, is {newest}"))
    })
}
