//! Folding on a core: when a database's tail is due, and what follows once a fold is linked.

use std::rc::Rc;
use std::sync::Arc;

use pageserver::fold::{FoldFailure, FoldJob, Folder, Linked};
use pageserver::base::inline_base_of;
use pageserver::tail::keeps_commits;
use pageserver::{collect, garbage};
use segments::tip::Tip;
use tenant::head::{Head, MapField};
use tokio::sync::oneshot;
use tracing::{debug, info, warn};
use walstore::id::Lsn;
use walstore::register::{Backoff, Versioned};

use super::open_database::OpenDatabase;
use super::{Core, spawn_local};
use crate::database::pages::Base;
use crate::limits;
use crate::context::NodeContext;

impl Core {
    /// Starts the task that folds a database for as long as it is open. It waits for commits, not for time.
    pub(super) fn start_folding(self: &Rc<Self>, open: &Rc<OpenDatabase>) {
        let (core, open) = (self.clone(), open.clone());
        spawn_local(async move {
            let mut backoff = Backoff::default();
            loop {
                if open.database.lost().is_some() || open.is_closed.get() {
                    return;
                }
                let is_due = core.fold_is_due(&open);
                if !is_due && !open.compaction_is_due() {
                    if core.forks_are_due(&open) {
                        core.tidy_forks(&open).await;
                        continue;
                    }
                    open.database.changed.notified().await;
                    continue;
                }
                let folding = open.folding.lock().await;
                if open.database.lost().is_some() || open.is_closed.get() {
                    return;
                }
                if open.dead_count() >= limits::DEAD_UNFOLDED_MAX {
                    // Old readers keep everything alive that folds have replaced; they end some time.
                    core.delete_dead(&open).await;
                    if open.dead_count() >= limits::DEAD_UNFOLDED_MAX {
                        drop(folding);
                        backoff.pause(&core.node.seam).await;
                        continue;
                    }
                }
                let folded = match is_due {
                    true => core.fold(&open, false).await.map(drop),
                    false => core.compact(&open).await,
                };
                drop(folding);
                match folded {
                    Ok(()) => backoff = Backoff::default(),
                    Err(FoldFailure::Lost(found)) if core.adopt(&open, &found) => {
                        warn!(database = %open.database.name, "an earlier fold of ours had landed; going on from it");
                    }
                    Err(FoldFailure::Lost(found)) => {
                        let (epoch, owner) = (found.value.epoch, found.value.owner);
                        info!(database = %open.database.name, epoch, ?owner, "not ours any more");
                        core.leave(&open, "another node has taken the database over; ask again").await;
                    }
                    Err(failure) => {
                        warn!(database = %open.database.name, %failure, "a fold failed; trying again");
                        backoff.pause(&core.node.seam).await;
                    }
                }
            }
        });
    }

    /// Ends a database on this node: it is somebody else's, or nobody's.
    pub(super) async fn leave(self: &Rc<Self>, open: &Rc<OpenDatabase>, reason: &str) {
        open.database.lose(reason);
        open.pool.clear();
        self.databases.forget(open);
        self.end_streams_of(open).await;
    }

    /// Goes on from a head that changed under a fold, if it is still ours: then only a write of our own, whose
    /// answer was an error, can have changed it, and what it has folded is our history.
    pub(super) fn adopt(&self, open: &OpenDatabase, found: &Versioned<Head>) -> bool {
        let (database, head) = (&open.database, &found.value);
        let is_mine = head.owner == Some(self.node.id) && head.epoch == database.epoch && !head.state.is_final();
        let is_as_before = pageserver::base::tip_of(head) == database.base().tip;
        if is_mine && is_as_before && matches!(head.map, MapField::Shared(_)) {
            *open.head.borrow_mut() = found.clone();
            return true;
        }
        let base = if is_mine { inline_base_of(head).ok().flatten() } else { None };
        let Some(base) = base.map(Base::of_parts) else { return false };
        let is_our_history = Lsn::raw(base.tip.lsn) <= database.gate.durable() && base.tip.lsn >= database.base().tip.lsn;
        if is_our_history {
            *open.head.borrow_mut() = found.clone();
            self.rebase(open, base);
        }
        is_our_history
    }

    fn rebase(&self, open: &OpenDatabase, base: Base) {
        let folded = base.tip.lsn;
        open.database.rebase(base);
        if let Some(lsn) = folded {
            open.forget_slots(lsn);
            self.node.log.folded(open.database.id, lsn);
        }
    }

    /// Wakes whoever has to fold: because the log is to be rid of old slots, or memory of pages.
    pub(super) fn look_at_folds(&self) {
        for open in self.databases.all() {
            if self.fold_is_due(&open) {
                open.database.changed.notify_one();
            }
        }
    }

    fn fold_is_due(&self, open: &OpenDatabase) -> bool {
        let database = &open.database;
        let tail = open.head.borrow().value.tail.len();
        // Nobody uses it: then others' logs are let go of, so that they can be drained.
        if tail >= limits::TAIL_INCARNATIONS_MAX || (tail > 1 && open.is_idle.get()) {
            return true;
        }
        let Some(unfolded) = database.durable_unfolded() else { return false };
        let page_count = database.newest().page_count;
        // It is about to be compacted, and what a later fold left of dead space would stay.
        let is_last_fold = open.is_idle.get() && !open.is_compact.get();
        unfolded.encoded_bytes > 0
            && (is_last_fold
                || segments::fold::fold_is_due(unfolded.encoded_bytes, page_count)
                || unfolded.page_bytes > limits::OVERLAY_BYTES_MAX / 4
                || unfolded.page_bytes >= database.node.overlays.fold_from()
                || open.holds_slots_below(database.node.fold_below()))
    }

    /// One fold, from the durable tail to the linked head. With `release` it gives the database up in the same
    /// write, if nothing is left then, and says whether it did; the caller has stopped the writers.
    pub(super) async fn fold(self: &Rc<Self>, open: &Rc<OpenDatabase>, release: bool) -> Result<bool, FoldFailure> {
        let mut job = self.fold_job(open).await;
        let tip = job.tip;
        let release = release && tip.lsn == open.database.newest().lsn;
        job.release = release;
        let linked = run_on_io(&self.node, job, false).await?.expect("BUG: a fold links something");
        self.has_folded(open, tip, linked);
        if !release {
            self.delete_dead(open).await;
        }
        Ok(release)
    }

    /// What a fold is to do now. The caller holds the lock on folding until it is done.
    pub(super) async fn fold_job(self: &Rc<Self>, open: &Rc<OpenDatabase>) -> FoldJob {
        // Garbage first: a list that has grown full, also under a former owner, must shrink in this very CAS.
        self.delete_dead(open).await;
        let (input, tip) = open.database.fold_input(limits::FOLD_PAGES_MAX);
        debug!(database = %open.database.name, lsn = Lsn::raw(tip.lsn), pages = input.pages.len(), "folding");
        FoldJob { input, tip, ..open.job_without_commits() }
    }

    /// Goes on from a fold up to `tip`.
    pub(super) fn has_folded(&self, open: &OpenDatabase, tip: Tip, linked: Linked) {
        open.is_compact.set(false);
        let version = linked.head.value.version;
        self.go_on_from(open, tip, linked);
        debug!(database = %open.database.name, lsn = Lsn::raw(tip.lsn), version, "folded");
    }

    /// One step of giving dead space back. When there is little, nothing more happens until the next fold.
    async fn compact(self: &Rc<Self>, open: &Rc<OpenDatabase>) -> Result<(), FoldFailure> {
        self.delete_dead(open).await;
        let job = open.job_without_commits();
        let tip = job.tip;
        match run_on_io(&self.node, job, true).await {
            Ok(Some(linked)) => {
                self.go_on_from(open, tip, linked);
                debug!(database = %open.database.name, "compacted");
                self.delete_dead(open).await;
            }
            Ok(None) => open.has_been_compacted(),
            // It can wait for the next fold.
            Err(failure) => {
                open.has_been_compacted();
                return Err(failure);
            }
        }
        Ok(())
    }

    fn go_on_from(&self, open: &OpenDatabase, tip: Tip, linked: Linked) {
        // The linked head lists them as dead no longer.
        open.deleted.borrow_mut().clear();
        *open.head.borrow_mut() = linked.head;
        open.note_unlinked(linked.has_unlinked);
        if let Some(record) = linked.record {
            self.databases.records.borrow_mut().learn(&open.database.name, record);
        }
        open.database.keep_commits(keeps_commits(&open.head.borrow().value));
        self.rebase(open, Base::new(tip, linked.map, linked.image));
    }

    /// Deletes what the linked head lists as dead, once no reader of this node uses an older base.
    async fn delete_dead(self: &Rc<Self>, open: &Rc<OpenDatabase>) {
        open.database.forget_folded();
        if open.database.has_old_readers() || !self.node.lease_is_valid() {
            return;
        }
        if open.collection_is_due() {
            self.collect(open).await;
        }
        let done = open.deleted.borrow().clone();
        let dead: Vec<_> = open.head.borrow().value.dead.iter().filter(|it| !done.contains(it)).cloned().collect();
        if dead.is_empty() {
            return;
        }
        let (sender, receiver) = oneshot::channel();
        let node = self.node.clone();
        self.node.seam.spawn(async move { drop(sender.send(garbage::delete(&*node.stores.main, dead).await)) });
        if let Ok(gone) = receiver.await {
            open.deleted.borrow_mut().extend(gone);
        }
    }
}

impl Core {
    /// Deletes what no state that is kept needs any more. The caller folds nothing meanwhile, and nobody reads what an
    /// older head referred to.
    async fn collect(self: &Rc<Self>, open: &Rc<OpenDatabase>) {
        let head = open.head.borrow().value.clone();
        let collected = self.node.io(move |node| async move {
            collect::collect(&*node.stores.main, &node.seam, &node.fetcher, &head).await
        });
        match collected.await {
            Ok(Ok(collected)) => {
                debug!(database = %open.database.name, ?collected, "collected");
                open.has_been_collected();
            }
            Ok(Err(error)) => warn!(database = %open.database.name, %error, "cannot collect what it needs no more yet"),
            Err(error) => warn!(database = %open.database.name, error = %error.message, "cannot collect"),
        }
    }
}

/// The store is asked on the I/O runtime.
async fn run_on_io(node: &Arc<NodeContext>, job: FoldJob, compacts: bool) -> Result<Option<Linked>, FoldFailure> {
    let (sender, receiver) = oneshot::channel();
    let io = node.clone();
    node.seam.spawn(async move {
        let folder = Folder { store: &*io.stores.main, seam: &io.seam, fetcher: &io.fetcher };
        // With a release the database is closed to everybody until it is through.
        let maker = io.pack_maker().filter(|_| !job.release);
        let done = match compacts {
            true => folder.compact_by(job, maker).await,
            false => folder.fold_by(job, maker).await.map(Some),
        };
        let _ = sender.send(done);
    });
    // It panicked, or the node is shutting down.
    receiver.await.unwrap_or(Err(FoldFailure::CutOff))
}
