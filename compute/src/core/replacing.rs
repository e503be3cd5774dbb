//! Restores in place: another database takes the place of one that this node owns, under the same name.
//!
//! ```text
//!   writers stopped ─▶ all of it folded ─▶ ended on this node ─▶ new database made, old head: moved, name swung
//! ```
//!
//! Once the write that moves the old head was sent, it may arrive at any time, and another node may own the new
//! database from then on. So before that the old one ends here, for readers too. If it comes to nothing, the head is
//! confirmed, which makes what was sent void, and the next request opens the database again.
//!
//! A reset needs two databases of two cores: the core of the one that is replaced has it end and **lends** its head to
//! the other's.

use std::rc::Rc;

use pageserver::fold::FoldFailure;
use pageserver::fork::{Restore, Restored};
use tenant::head::Head;
use tenant::lifecycle;
use tenant::name::Name;
use tenant::record::NameRecord;
use tenant::registry;
use tenant::settings::Settings;
use tokio::sync::oneshot;
use tracing::{debug, warn};
use walstore::id::{Lsn, PutId};
use walstore::register::{Backoff, Swap, Versioned};

use super::Core;
use super::databases::OpenError;
use super::forking::{Changed, Origin, forker};
use super::names::Known;
use super::open_database::OpenDatabase;
use super::past::check_is_kept;
use super::past::lineage::Lineage;
use crate::database::past_room::PastRoom;
use crate::database::turn::TurnGuard;
use crate::error::{Fault, ServerError};
use crate::failure::fold_words;
use crate::moment::Moment;

/// What is told to whoever uses a database meanwhile.
const REPLACED: &str = "the database was restored to another state; ask again";

/// A database that has ended on its own core, so that another one may take its place.
pub struct Lent {
    pub head: Versioned<Head>,
    /// Its last commit, which is folded.
    pub last: Option<Lsn>,
    /// Told how it came out: what the name leads to now. Dropped, nothing has come of it.
    pub done: oneshot::Sender<Versioned<Head>>,
    /// Ends once the name is looked up anew.
    pub closed: oneshot::Receiver<()>,
}

impl Core {
    /// Puts a former state into the place of the present one.
    pub(super) async fn restore_in_place(self: &Rc<Self>, name: &Name, at: Moment) -> Result<Changed, OpenError> {
        let open = self.open_living(name).await?;
        let origin = self.origin(&open, at).await?;
        self.put_in_place(&open, origin).await
    }

    /// Puts what the last restore in place replaced back into its place.
    pub(super) async fn undo(self: &Rc<Self>, name: &Name) -> Result<Changed, OpenError> {
        let open = self.open_living(name).await?;
        let replaced = self.what_was_replaced(&open).await?;
        self.put_in_place(&open, replaced).await
    }

    async fn put_in_place(self: &Rc<Self>, open: &Rc<OpenDatabase>, origin: Origin) -> Result<Changed, OpenError> {
        let _turn = self.turn_to_fork().await?;
        let turn = self.end_after_folding(open, REPLACED).await?;
        let _folding = open.folding.lock().await;
        let (old, last) = (open.head.borrow().clone(), open.database.newest().lsn);
        let (source, at, replaced) = match origin {
            Origin::Own(at) => (old, at, None),
            Origin::Former(head, at) => (*head, at, Some(old)),
        };
        let settings = self.settings_after(&replaced.as_ref().unwrap_or(&source).value, &source.value);
        let record = self.databases.records.borrow_mut().get(&open.database.name);
        let restored = self.restore_on_io(Restore { source, at, replaced, last, settings, record }).await;
        self.after_replacing(open, restored.as_ref().ok().map(|restored| &restored.new)).await;
        drop(turn);
        let restored = restored?;
        if let Some(record) = &restored.record {
            self.databases.records.borrow_mut().learn(&open.database.name, record.clone());
        }
        self.announce_end(&restored.new.value).await;
        Ok(Changed::of(&restored.new.value, Some(&restored.old.value)))
    }

    /// What is promised to a state of `source` in the place of `replaced`: the same as before.
    fn settings_after(&self, replaced: &Head, source: &Head) -> Settings {
        Settings { created_micros: self.created_after(&[replaced, source]), ..replaced.settings }
    }

    async fn restore_on_io(&self, restore: Restore) -> Result<Restored, ServerError> {
        let patience = self.patience();
        let restored = self.node.io_that_writes(move |node| async move {
            let room = PastRoom::to_fork(&node);
            forker(&node, patience, &room).restore(restore).await
        });
        restored.await?.map_err(ServerError::from)
    }

    /// Stops the writers, folds all that there is, and ends the database on this node. The guard keeps writers away.
    pub(super) async fn end_after_folding(
        self: &Rc<Self>,
        open: &Rc<OpenDatabase>,
        reason: &str,
    ) -> Result<TurnGuard, ServerError> {
        let turn = self.stop_writers(open).await?;
        let folding = open.folding.lock().await;
        while open.database.durable_unfolded().is_some() {
            match self.fold(open, false).await {
                Ok(_) => {}
                Err(FoldFailure::Lost(found)) if self.adopt(open, &found) => {}
                Err(failure) => {
                    let name = &open.database.name;
                    let words = fold_words(name, &failure);
                    let text = format!("`{name}` cannot be folded at the moment, nothing was done: {words}");
                    return Err(ServerError::new(Fault::Retry, text));
                }
            }
        }
        drop(folding);
        open.database.lose(reason);
        open.pool.clear();
        self.end_streams_of(open).await;
        Ok(turn)
    }

    /// Takes the database that has ended out, so that its name is looked up anew. `new` is what has its place.
    pub(super) async fn after_replacing(self: &Rc<Self>, open: &Rc<OpenDatabase>, new: Option<&Versioned<Head>>) {
        match new {
            Some(new) => self.databases.names.borrow_mut().learn(&open.database.name, Known::of(&new.value)),
            None => self.make_void(open).await,
        }
        // All of it is folded.
        if let Some(last) = open.database.newest().lsn {
            self.node.log.folded(open.database.id, last);
        }
        self.databases.close(open);
    }

    /// Nothing came of it. What was sent nevertheless may arrive only before this write.
    pub(super) async fn make_void(&self, open: &OpenDatabase) {
        let (id, mut backoff) = (open.database.id, Backoff::default());
        loop {
            let head = match self.read_head(id).await {
                Ok(head) => head.filter(|head| head.value.owner == Some(self.node.id)),
                Err(error) => {
                    warn!(database = %open.database.name, %error, "cannot find out what became of a restore or a deletion; trying again");
                    backoff.pause(&self.node.seam).await;
                    continue;
                }
            };
            // It has another owner, or has ended: whoever asks next finds out.
            let Some(before) = head else { return };
            let (next, patience) = (lifecycle::confirm(&before.value, PutId::random(&self.node.seam)), self.patience());
            let swap = self.node.io(move |node| async move {
                registry::swap_head(&*node.stores.main, &node.seam, &before, next, patience).await
            });
            match swap.await {
                Ok(Ok(Swap::Won(_))) | Err(_) => return,
                Ok(Ok(Swap::Lost(_))) => {}
                Ok(Err(error)) => {
                    warn!(database = %open.database.name, %error, "cannot make a restore or a deletion void yet; trying again");
                    backoff.pause(&self.node.seam).await;
                }
            }
        }
    }

    /// Has a database end, for another one to take its place.
    pub(super) async fn lend(self: &Rc<Self>, name: &Name, reply: oneshot::Sender<Result<Lent, OpenError>>) {
        let ended = async {
            let open = self.open_living(name).await?;
            let turn = self.end_after_folding(&open, REPLACED).await?;
            Ok((open, turn))
        };
        let (open, turn) = match ended.await {
            Ok(ended) => ended,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let _folding = open.folding.lock().await;
        let ((done, new), (_closed, closed)) = (oneshot::channel(), oneshot::channel());
        let lent = Lent { head: open.head.borrow().clone(), last: open.database.newest().lsn, done, closed };
        drop(reply.send(Ok(lent)));
        let new = new.await.ok();
        self.after_replacing(&open, new.as_ref()).await;
        drop(turn);
    }

    /// The present state of the database `name` takes the place of one that was lent.
    pub(super) async fn take_the_place_of(
        self: &Rc<Self>,
        name: &Name,
        replaced: Versioned<Head>,
        last: Option<Lsn>,
    ) -> Result<(Changed, Versioned<Head>), OpenError> {
        let open = self.open_living(name).await?;
        self.fold_up_to(&open, Lsn::raw(open.database.newest().lsn)).await?;
        let _folding = open.folding.lock().await;
        let source = open.head.borrow().clone();
        let (at, settings) = (source.value.folded.lsn, self.settings_after(&replaced.value, &source.value));
        // The core of the one that is replaced may know it.
        let record = None;
        let restore = Restore { source, at, replaced: Some(replaced), last, settings, record };
        let restored = self.restore_on_io(restore).await?;
        // The pin is in this head. It is done, whether or not that can be read: else the next fold meets it.
        match self.read_head(open.database.id).await {
            Ok(head) => drop(head.map(|head| self.adopt(&open, &head))),
            Err(error) => debug!(%name, %error, "cannot read the head that a reset was pinned in yet"),
        }
        self.announce_end(&restored.new.value).await;
        Ok((Changed::of(&restored.new.value, Some(&restored.old.value)), restored.new))
    }

    /// What the last restore in place replaced, as it was when it ended.
    async fn what_was_replaced(&self, open: &OpenDatabase) -> Result<Origin, OpenError> {
        let (id, name) = (open.database.id, &open.database.name);
        if let Some(record) = self.record_of(open).await? {
            let patience = self.patience();
            let replaced = self.node.io(move |node| async move { Lineage::new(&node, patience).replaced_by(&record, id).await });
            if let Some(head) = replaced.await?.map_err(OpenError::Server)? {
                check_is_kept(&head.value)?;
                let last = head.value.folded.lsn;
                return Ok(Origin::Former(Box::new(head), last));
            }
        }
        let text = format!("`{name}` was not restored in place, so there is nothing to undo; name a bookmark to go back to");
        Err(ServerError::new(Fault::Invalid, text).into())
    }

    /// The record of the name of a database that lives. What is known of it will do if it leads there: before which
    /// others the name led to does not change until it leads elsewhere.
    async fn record_of(&self, open: &OpenDatabase) -> Result<Option<NameRecord>, ServerError> {
        let name = open.database.name.clone();
        let known = self.databases.records.borrow_mut().get(&name);
        if let Some(known) = known.filter(|record| record.value.leads_to(open.database.id)) {
            return Ok(Some(known.value));
        }
        let (of, patience) = (name.clone(), self.patience());
        let record = self.node.io(move |node| async move {
            registry::read_name(&*node.stores.main, &node.seam, &of, patience).await
        });
        let record = record.await?.map_err(ServerError::from)?;
        if let Some(record) = &record {
            self.databases.records.borrow_mut().learn(&name, record.clone());
        }
        Ok(record.map(|record| record.value))
    }
}
