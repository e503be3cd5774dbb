//! One open database on its core: what is visible, what is durable, and who may write.
//!
//! ```text
//!   newest ───────────▶ what the next writer builds on            (visible to writers of this node)
//!   durable ──────────▶ what plain reads see, what replies may show
//!   base (folded) ────▶ what packs and the page map hold; above it pages come from the overlay
//! ```
//!
//! Everything here lives on one thread. A [`Snapshot`] holds its base alive, and the overlay keeps what
//! the oldest living base needs, so readers never block the writer or the fold.

mod ahead;
pub mod feed;
pub mod file;
pub mod gate;
mod hit;
pub mod overlay;
pub mod overlay_space;
pub mod pages;
pub mod past;
pub mod past_room;
mod publishing;
pub mod replica;
pub mod turn;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use bytes::Bytes;
use pageserver::service::follow::Ending;
use segments::commit::Commit;
use segments::fold::FoldInput;
use segments::page::{Page, PageNo};
use segments::tip::Tip;
use tenant::name::Name;
use tokio::sync::Notify;
use walstore::id::{DatabaseId, Lsn};
use walstore::mutant::{self, Mutant};

use self::feed::Feed;
use self::gate::Gate;
use self::overlay::{Changes, Encoding, Overlay, Unfolded};
use self::pages::Base;
use self::overlay_space::OverlaySpace;
use self::past::Past;
use self::past_room::PastRoom;
use self::replica::Replica;
use self::turn::Turn;
use crate::limits;
use crate::context::{HotSegments, NodeContext};
use crate::sqlite::memory::Meter;

/// A consistent state that a connection reads: an LSN, its size, and the base under it.
pub struct Snapshot {
    pub lsn: Option<Lsn>,
    pub page_count: u32,
    pub base: Rc<Base>,
}

/// An open database. See the module's documentation.
pub struct Database {
    pub id: DatabaseId,
    pub name: Name,
    pub epoch: u64,
    pub node: Arc<NodeContext>,
    pub home: u16,
    pub turn: Rc<Turn>,
    pub gate: Gate,
    pub meter: Arc<Meter>,
    /// What replicas are sent.
    pub feed: Feed,
    /// Whether this is a copy of what another node owns, which only reads.
    pub replica: Option<Replica>,
    /// Which moment of the past this shows, if it does not go on.
    pub past: Option<Past>,
    /// The memory that it takes for that.
    _past_room: Option<PastRoom>,
    /// How long a commit may wait for company, in microseconds.
    pub window_micros: u64,
    /// Whether folds keep the commits that they fold.
    keeps_commits: Cell<bool>,
    /// No commit is earlier.
    created_micros: Cell<u64>,
    /// Where its trees' inner pages were read last.
    pub hot: Cell<HotSegments>,
    /// The history after its newest commit.
    newest: Cell<Tip>,
    overlay: RefCell<Overlay>,
    base: RefCell<Rc<Base>>,
    /// Every base that a snapshot may still use.
    bases: RefCell<Vec<Weak<Base>>>,
    lost: RefCell<Option<String>>,
    /// Signalled when a commit was published or became durable: the folder looks whether there is work.
    pub changed: Notify,
    /// Signalled when a fold has made room.
    pub folded: Notify,
}

impl Database {
    pub fn new(
        (id, name, epoch): (DatabaseId, Name, u64),
        node: Arc<NodeContext>,
        home: u16,
        window_micros: u64,
        base: Base,
    ) -> Self {
        let newest = base.tip;
        let base = Rc::new(base);
        Self {
            id,
            name,
            epoch,
            home,
            turn: Rc::default(),
            gate: Gate::opened_up_to(Lsn::raw(newest.lsn)),
            meter: Meter::new(node.settings.memory_per_database, node.temp.share(), node.sql.clone()),
            window_micros,
            keeps_commits: Cell::new(false),
            created_micros: Cell::new(0),
            feed: Feed::default(),
            replica: None,
            past: None,
            _past_room: None,
            hot: Cell::default(),
            newest: Cell::new(newest),
            overlay: RefCell::new(Overlay::new(node.overlays.clone())),
            bases: RefCell::new(vec![Rc::downgrade(&base)]),
            base: RefCell::new(base),
            lost: RefCell::new(None),
            changed: Notify::new(),
            folded: Notify::new(),
            node,
        }
    }

    /// A copy of a database that another node owns.
    pub fn replica(identity: (DatabaseId, Name, u64), node: Arc<NodeContext>, home: u16, base: Base, replica: Replica) -> Self {
        let overlay = RefCell::new(Overlay::new(node.replica_overlays.clone()));
        Self { overlay, replica: Some(replica), ..Self::new(identity, node, home, 0, base) }
    }

    /// What a database was once. The commits after `base` are still to be applied.
    /// What they have changed is counted by `room`.
    pub fn past(
        identity: (DatabaseId, Name, u64),
        node: Arc<NodeContext>,
        home: u16,
        base: Base,
        past: Past,
        room: PastRoom,
    ) -> Self {
        let overlay = RefCell::new(Overlay::new(OverlaySpace::new(usize::MAX)));
        Self { overlay, past: Some(past), _past_room: Some(room), ..Self::new(identity, node, home, 0, base) }
    }

    /// Whether nothing can be written here, because it is a copy of what another node owns or of what once was.
    pub fn only_reads(&self) -> bool {
        self.replica.is_some() || self.past.is_some()
    }

    /// The history right after a commit that is not folded, if it is in memory.
    pub fn tip_at(&self, lsn: Lsn) -> Option<Tip> {
        self.overlay.borrow().tip(lsn)
    }

    /// What the commits `(after, lsn]` have changed, if all of them are in memory.
    pub fn changes_between(&self, after: Option<Lsn>, lsn: Lsn) -> Option<(Changes, Tip)> {
        let overlay = self.overlay.borrow();
        overlay.tip(Lsn::after(after))?;
        let tip = overlay.tip(lsn)?;
        Some((overlay.changes(after, tip), tip))
    }

    /// The last commit (raw) of a time or before it, if it is not folded, or is the last one that is.
    pub fn last_at(&self, micros: u64) -> Option<u64> {
        let folded = self.base().tip;
        let last = self.overlay.borrow().last_at(micros).filter(|tip| tip.lsn > folded.lsn);
        last.or((folded.time_micros <= micros).then_some(folded)).map(|tip| Lsn::raw(tip.lsn))
    }

    /// No commit from now on has an earlier time than its creation.
    pub fn created_at(&self, micros: u64) {
        self.created_micros.set(micros);
    }

    /// Whether folds are to keep the commits that come from now on.
    pub fn keep_commits(&self, keeps: bool) {
        self.keeps_commits.set(keeps);
    }

    /// Adds a commit found in a sealed log while the database is being opened: durable already.
    pub fn recover(&self, commit: Commit, tip: Tip, encoded: &Bytes) {
        let lsn = commit.lsn;
        let kept = self.keeps_commits.get().then(|| encoded.clone());
        self.add(commit, tip, Vec::new(), Encoding { bytes: encoded.len(), kept, ..Encoding::default() });
        self.gate.open_up_to(lsn.get());
    }

    /// The newest state; plain reads that may wait for the gate and all writers use it.
    pub fn newest_snapshot(&self) -> Snapshot {
        let newest = self.newest.get();
        Snapshot { lsn: newest.lsn, page_count: newest.page_count, base: self.base.borrow().clone() }
    }

    /// The newest durable state.
    pub fn durable_snapshot(&self) -> Snapshot {
        let lsn = Lsn::new(self.gate.durable());
        let base = self.base.borrow().clone();
        let in_overlay = lsn.and_then(|lsn| self.overlay.borrow().tip(lsn)).map(|tip| tip.page_count);
        // Only durable commits are folded, so without newer ones in the overlay the base is it.
        let page_count = in_overlay.unwrap_or(base.tip.page_count);
        Snapshot { lsn, page_count, base }
    }

    /// The state after a durable commit that folds have not passed; `None` if there is no such commit.
    pub fn durable_snapshot_at(&self, lsn: Lsn) -> Option<Snapshot> {
        let base = self.base.borrow().clone();
        if lsn.get() > self.gate.durable() || Some(lsn) < base.tip.lsn {
            return None;
        }
        let tip = if base.tip.lsn == Some(lsn) { base.tip } else { self.overlay.borrow().tip(lsn)? };
        Some(Snapshot { lsn: Some(lsn), page_count: tip.page_count, base })
    }

    /// Whether `snapshot` is the state that a writer must build on.
    pub fn is_newest(&self, snapshot: &Snapshot) -> bool {
        snapshot.lsn == self.newest.get().lsn
    }

    pub fn newest(&self) -> Tip {
        self.newest.get()
    }

    /// A page of the overlay as `snapshot` sees it.
    pub fn overlay_page(&self, page_no: PageNo, snapshot: &Snapshot) -> Option<Page> {
        self.overlay.borrow().page(page_no, snapshot.lsn).map(|version| version.page.clone())
    }

    fn add(&self, commit: Commit, tip: Tip, patched: Vec<bool>, encoding: Encoding) {
        self.newest.set(tip);
        let patched = patched.into_iter().chain(std::iter::repeat(false));
        let pages = commit.pages.into_iter().zip(patched);
        self.overlay.borrow_mut().add(tip, encoding, pages);
        self.changed.notify_one();
    }

    /// Commits up to `lsn` are in the bucket.
    pub fn on_durable(&self, lsn: Lsn) {
        self.gate.open_up_to(lsn.get());
        if self.gate.durable() >= lsn.get() {
            self.feed.durable(self.epoch, lsn);
        }
        self.changed.notify_one();
    }

    /// How much there is to fold: durable and not folded. `None` if nothing.
    pub fn durable_unfolded(&self) -> Option<Unfolded> {
        let durable = Lsn::new(self.gate.durable())?;
        let folded = self.base.borrow().tip.lsn;
        (Some(durable) > folded).then(|| self.overlay.borrow().unfolded(folded, durable))
    }

    /// Whether writers have to wait for folds, of this database or of others.
    pub fn is_overfull(&self) -> bool {
        self.overlay_bytes() > limits::OVERLAY_BYTES_MAX || self.node.overlays.is_full()
    }

    /// Bytes of page versions in memory.
    pub fn overlay_bytes(&self) -> usize {
        self.overlay.borrow().bytes()
    }

    /// Whether everything that was committed is folded: what the overlay still has, readers keep.
    pub fn is_folded(&self) -> bool {
        self.base.borrow().tip.lsn == self.newest.get().lsn
    }

    /// The durable commits that are not folded, summed up, as far as they fit into one fold, and the
    /// history after the last of them.
    pub fn fold_input(&self, pages_max: usize) -> (FoldInput, Tip) {
        let base = self.base();
        let overlay = self.overlay.borrow();
        let mut input = FoldInput::new(self.id, &base.map());
        let mut up_to = match mutant::is_on(Mutant::FoldNotDurable) {
            true => Lsn::raw(self.newest.get().lsn),
            false => self.gate.durable(),
        };
        loop {
            let Some(tip) = Lsn::new(up_to).filter(|lsn| Some(*lsn) > base.tip.lsn).and_then(|lsn| overlay.tip(lsn)) else {
                return (input, base.tip);
            };
            let changes = overlay.changes(base.tip.lsn, tip);
            let folded = Lsn::raw(base.tip.lsn);
            if changes.pages.len() > pages_max && up_to > folded + 1 {
                up_to = folded + (up_to - folded).div_ceil(2);
                continue;
            }
            input.lsn = tip.lsn;
            input.page_count = tip.page_count;
            input.page_count_min = input.page_count_min.min(changes.page_count_min);
            input.pages = changes.pages;
            input.merge_segments_max = self.node.settings.merge_segments_max;
            input.set_aside_bytes = tip.lsn.map_or(0, |lsn| overlay.set_aside(base.tip.lsn, lsn));
            if self.keeps_commits.get() {
                input.commits = tip.lsn.and_then(|lsn| overlay.kept(base.tip.lsn, lsn)).unwrap_or_default();
            }
            return (input, tip);
        }
    }

    pub fn base(&self) -> Rc<Base> {
        self.base.borrow().clone()
    }

    /// New snapshots use `base` from here on; the overlay keeps what older ones need.
    pub fn rebase(&self, base: Base) {
        let base = Rc::new(base);
        self.bases.borrow_mut().push(Rc::downgrade(&base));
        *self.base.borrow_mut() = base.clone();
        if let Some(lsn) = base.tip.lsn {
            self.overlay.borrow_mut().folded(lsn);
        }
        self.forget_folded();
        if let Some(lsn) = self.base.borrow().tip.lsn {
            self.feed.folded(lsn);
        }
        self.folded.notify_waiters();
    }

    /// Drops what no living base needs. Called after a fold and when a snapshot goes.
    pub fn forget_folded(&self) {
        let mut bases = self.bases.borrow_mut();
        bases.retain(|base| base.strong_count() > 0);
        let oldest = bases.iter().filter_map(Weak::upgrade).map(|base| base.tip.lsn).min();
        if let Some(Some(lsn)) = oldest {
            let mut overlay = self.overlay.borrow_mut();
            let before = overlay.bytes();
            overlay.forget(lsn);
            if overlay.bytes() < before {
                self.folded.notify_waiters();
            }
        }
    }

    /// Whether older bases than the present one may still be in use.
    pub fn has_old_readers(&self) -> bool {
        self.bases.borrow().len() > 1 && !mutant::is_on(Mutant::ForgetReaders)
    }

    /// Ends this history: its log is fenced, or its head belongs to somebody else.
    pub fn lose(&self, reason: &str) {
        self.lost.borrow_mut().get_or_insert_with(|| reason.to_owned());
        self.gate.lose(reason);
        self.feed.end(Ending::Over(reason.to_owned()));
        self.changed.notify_one();
        self.folded.notify_waiters();
    }

    /// Why this history has ended, if it has.
    pub fn lost(&self) -> Option<String> {
        self.lost.borrow().clone()
    }
}
