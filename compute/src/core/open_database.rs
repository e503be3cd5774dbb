//! An open database with everything that belongs to it on its core.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use pageserver::fold::FoldJob;
use segments::fold::FoldInput;
use tenant::head::{Head, PackRef};
use tokio::sync::Mutex;
use walstore::id::{Lsn, Slot};
use walstore::register::Versioned;

use super::claim::Claim;
use crate::database::Database;
use crate::database::pages::{self, Fetch};
use crate::error::ServerError;
use crate::limits;
use crate::session::pool::Pool;

/// An open database with everything that belongs to it on this core.
pub struct OpenDatabase {
    pub database: Rc<Database>,
    pub pool: Rc<Pool>,
    pub head: RefCell<Versioned<Head>>,
    /// Whether the head is this node's yet.
    pub claim: Claim,
    /// The last commit before this node's first one.
    pub own_after: Option<Lsn>,
    /// Entries of the head's dead list that are deleted already.
    pub deleted: RefCell<Vec<PackRef>>,
    /// When it was last used, by the boot clock.
    pub used_micros: Cell<u64>,
    pub opened_micros: u64,
    /// Held by whoever folds.
    pub folding: Mutex<()>,
    /// About to be closed because nobody uses it.
    pub is_idle: Cell<bool>,
    /// Closed because nobody used it.
    pub is_closed: Cell<bool>,
    /// Where this log holds commits that are not folded, oldest first.
    unfolded: RefCell<VecDeque<(Lsn, Slot)>>,
    folds: Cell<u32>,
    /// There was little dead space in its packs when it was last looked for, and no fold nor another owner since.
    pub is_compact: Cell<bool>,
    /// It was taken over from somebody else, and nothing is known of the dead space that he has left.
    is_taken_over: bool,
    /// How many folds there had been then.
    compacted: Cell<u32>,
    /// Folds since the last collection that have unlinked something of which no dead list knows.
    uncollected: Cell<u32>,
}

impl OpenDatabase {
    /// One that was read from the bucket just now. `unfolded` is what this node's own log holds of it.
    pub fn new(
        database: Rc<Database>,
        head: Versioned<Head>,
        claim: Claim,
        (own_after, unfolded): (Option<Lsn>, VecDeque<(Lsn, Slot)>),
    ) -> Self {
        let folds = head.value.fold_seq;
        // Of what another node's folds have left it is not known how much dead space there is; that of a fork's parent is
        // none of its own.
        let is_taken_over = !claim.is_won() && head.value.parent.is_none();
        Self {
            opened_micros: database.node.seam.boot_micros(),
            used_micros: Cell::new(database.node.seam.boot_micros()),
            database,
            pool: Rc::default(),
            head: RefCell::new(head),
            claim,
            own_after,
            deleted: RefCell::default(),
            folding: Mutex::new(()),
            is_idle: Cell::new(false),
            is_closed: Cell::new(false),
            unfolded: RefCell::new(unfolded),
            folds: Cell::new(folds),
            is_compact: Cell::new(!is_taken_over),
            is_taken_over,
            compacted: Cell::new(folds),
            uncollected: Cell::new(0),
        }
    }

    /// A replica: nothing of it is in this node's log, and this node never folds it.
    pub fn of_replica(database: Rc<Database>, head: Versioned<Head>) -> Self {
        Self::new(database, head, Claim::won(), (None, VecDeque::new()))
    }

    pub fn on_durable(&self, lsn: Lsn, slot: Slot) {
        self.unfolded.borrow_mut().push_back((lsn, slot));
        self.database.on_durable(lsn);
    }

    /// Waits for bytes of the bucket.
    pub async fn fetch(&self, fetch: Fetch) -> Result<(), ServerError> {
        pages::fetch(&self.database.node.fetcher, fetch).await
    }

    /// How many dead objects the head lists that are not deleted yet.
    pub fn dead_count(&self) -> usize {
        self.head.borrow().value.dead.len().saturating_sub(self.deleted.borrow().len())
    }

    /// Whether dead space is to be looked for: while nobody uses the database, and now and then if somebody always does.
    pub fn compaction_is_due(&self) -> bool {
        let since = self.folds.get() - self.compacted.get();
        !self.is_compact.get() && (self.is_idle.get() || since >= limits::FOLDS_WITHOUT_COMPACTION_MAX)
    }

    /// Whether this node has only just taken it over, and folded nothing since.
    pub fn is_new_here(&self) -> bool {
        self.is_taken_over && self.head.borrow().value.fold_seq == 0
    }

    /// There is little dead space, or it can wait.
    pub fn has_been_compacted(&self) {
        self.is_compact.set(true);
        self.compacted.set(self.folds.get());
    }

    /// A fold has been linked.
    pub fn note_unlinked(&self, has_unlinked: bool) {
        self.uncollected.set(self.uncollected.get() + u32::from(has_unlinked));
    }

    /// Whether enough may have become garbage for a listing to be worth it.
    pub fn collection_is_due(&self) -> bool {
        self.uncollected.get() >= limits::FOLDS_WITHOUT_COLLECTION_MAX
    }

    pub fn has_been_collected(&self) {
        self.uncollected.set(0);
    }

    /// A fold of nothing, to be filled in.
    pub fn job_without_commits(&self) -> FoldJob {
        let base = self.database.base();
        let map = base.map();
        FoldJob {
            input: FoldInput::new(self.database.id, &map),
            map,
            head: self.head.borrow().clone(),
            tip: base.tip,
            own_after: self.own_after,
            seq: self.next_fold(),
            deleted: self.deleted.borrow().clone(),
            release: false,
            pin: None,
        }
    }

    /// Counts this owner's folds.
    pub fn next_fold(&self) -> u32 {
        // A fork counts like one: it writes objects, and the head.
        let fold = self.folds.get().max(self.head.borrow().value.fold_seq) + 1;
        self.folds.set(fold);
        fold
    }

    /// Where this log holds commits that are not folded.
    pub fn unfolded_slots(&self) -> VecDeque<(Lsn, Slot)> {
        self.unfolded.borrow().clone()
    }

    /// Whether slots of the log below `slot` cannot be deleted because of this database.
    pub fn holds_slots_below(&self, slot: Slot) -> bool {
        self.unfolded.borrow().front().is_some_and(|(_, oldest)| *oldest < slot)
    }

    /// Everything up to `lsn` is folded.
    pub fn forget_slots(&self, lsn: Lsn) {
        let mut unfolded = self.unfolded.borrow_mut();
        while unfolded.front().is_some_and(|(oldest, _)| *oldest <= lsn) {
            unfolded.pop_front();
        }
    }
}
