//! The database file as one connection sees it: a snapshot to read, an overlay of its own to write.
//!
//! ```text
//!   NONE ──SHARED──▶ a snapshot is pinned ──RESERVED──▶ the turn is held, the snapshot is the newest
//!    ▲                    ▲                                   │ xWrite, xTruncate: own pages
//!    └──────NONE──────────┴── COMMIT_PHASETWO: published ◀────┤
//!                         └── unlock without it: own pages are dropped
//! ```

mod commit;
mod vfs;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::c_int;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::ffi;
use segments::cache::Loan;
use segments::page::{Page, PageNo};
use walstore::id::Lsn;

pub use self::vfs::DatabaseFile;

use super::ahead::ReadAhead;
use super::hit::{self, LastSegment};
use super::turn::TurnGuard;
use super::{Database, Snapshot};
use crate::error::{Fault, ServerError};
use crate::sqlite::Code;
use crate::sqlite::coroutine::{Wait, Wake, suspend};

/// Which state a connection's next snapshot shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// The newest durable one: never waits for the output gate.
    Durable,
    /// The newest one: what a transaction that may write has to build on.
    Newest,
}

/// What the file and its user, the session, share. Lives as long as the SQLite connection.
pub struct Connection {
    pub database: Rc<Database>,
    pub reads: Cell<Reads>,
    /// The highest LSN (raw) that this connection has read or written since it was last reset.
    pub seen: Cell<u64>,
    /// Set when the client has gone or the time is up.
    pub cancelled: RefCell<Option<ServerError>>,
    turn: RefCell<Option<TurnGuard>>,
    /// Mirrors `turn` for the busy handler, which SQLite may call only with what is `Send`.
    turn_flag: Arc<AtomicBool>,
    statement_started: Cell<u64>,
    snapshot: RefCell<Option<Snapshot>>,
    /// As of when a replica's snapshot was known to be complete.
    as_of_micros: Cell<u64>,
    pub(super) last_segment: LastSegment,
    pub(super) ahead: ReadAhead,
    level: Cell<c_int>,
    /// Pages of the running transaction that SQLite has written to the file.
    written: RefCell<BTreeMap<PageNo, Page>>,
    /// The memory that they take.
    loan: RefCell<Loan>,
    /// What is being done is being taken back: what SQLite writes for that finds its memory in any case.
    takes_back: Cell<bool>,
    /// Size in pages as of the running transaction; `None` while nothing was written.
    size: Cell<Option<u32>>,
    cause: RefCell<Option<ServerError>>,
    /// A read has failed because what a replica's snapshot refers to is gone: on a newer one it succeeds.
    is_outdated: Cell<bool>,
    commits: Cell<u64>,
}

impl Connection {
    pub fn new(database: Rc<Database>) -> Rc<Self> {
        Rc::new(Self {
            loan: RefCell::new(database.node.cache.lend()),
            database,
            reads: Cell::new(Reads::Durable),
            seen: Cell::new(0),
            cancelled: RefCell::new(None),
            turn: RefCell::new(None),
            turn_flag: Arc::default(),
            statement_started: Cell::new(0),
            snapshot: RefCell::new(None),
            as_of_micros: Cell::new(0),
            last_segment: LastSegment::default(),
            ahead: ReadAhead::default(),
            level: Cell::new(ffi::SQLITE_LOCK_NONE),
            written: RefCell::default(),
            takes_back: Cell::new(false),
            size: Cell::new(None),
            cause: RefCell::new(None),
            is_outdated: Cell::new(false),
            commits: Cell::new(0),
        })
    }

    /// Whether this connection holds the write turn.
    pub fn has_turn(&self) -> bool {
        self.turn.borrow().is_some()
    }

    pub fn give_turn(&self, guard: TurnGuard) {
        *self.turn.borrow_mut() = Some(guard);
        self.turn_flag.store(true, Ordering::Relaxed);
    }

    fn give_turn_back(&self) {
        self.turn_flag.store(false, Ordering::Relaxed);
        // Taken out first: passing the turn on runs code of the next writer's core.
        let guard = self.turn.borrow_mut().take();
        drop(guard);
    }

    /// Says whether the turn is held.
    pub fn turn_flag(&self) -> Arc<AtomicBool> {
        self.turn_flag.clone()
    }

    /// A rollback begins.
    pub fn start_rollback(&self) {
        self.takes_back.set(true);
    }

    /// Notes when the running statement began, for its time limit.
    pub fn start_statement(&self) {
        self.takes_back.set(false);
        self.statement_started.set(self.database.node.seam.boot_micros());
    }

    /// No statement runs: nothing is timed, and what stopped it does not stop the answer that tells so.
    pub fn end_statement(&self) {
        self.statement_started.set(0);
        self.cancelled.borrow_mut().take();
    }

    /// `boot_micros` of when the running statement began; 0 while none runs.
    pub fn statement_started(&self) -> u64 {
        self.statement_started.get()
    }

    /// Forgets the last user.
    pub fn reset(&self) {
        // The schema that SQLite has cached may be of a commit that is not durable yet: then the next user's
        // replies wait for it too, even for statements that read nothing.
        if self.seen.get() <= self.database.gate.durable() {
            self.seen.set(0);
        }
        self.reads.set(Reads::Durable);
        self.cancelled.borrow_mut().take();
        self.cause.borrow_mut().take();
        self.is_outdated.set(false);
        self.commits.set(0);
    }

    /// No request runs here: what the transaction has written does not grow meanwhile.
    pub fn rest(&self) {
        self.loan.borrow_mut().rest();
    }

    /// Gives the turn back unless a transaction is writing.
    pub fn release_idle_turn(&self) {
        if self.level.get() < ffi::SQLITE_LOCK_RESERVED {
            self.give_turn_back();
        }
    }

    /// Waits until this connection holds the write turn and the overlay has room.
    pub fn take_turn(&self) -> Result<(), ServerError> {
        if let Some(replica) = &self.database.replica {
            return Err(replica.refusal(&self.database.name));
        }
        // Nobody gets the turn of the past: SQLite finds that it cannot be written.
        if self.has_turn() || self.database.past.is_some() {
            return Ok(());
        }
        match self.database.turn.try_take() {
            Some(guard) if !self.database.is_overfull() => self.give_turn(guard),
            // The guard goes back first: whoever serves the wait takes it again.
            guard => {
                drop(guard);
                self.wait(Wait::Turn)?;
            }
        }
        Ok(())
    }

    fn wait(&self, wait: Wait) -> Result<(), ServerError> {
        match suspend(wait) {
            Wake::Ready => Ok(()),
            Wake::Failed(error) => Err(error),
            Wake::Abandon => Err(self.abandoned()),
        }
    }

    /// Why a suspended call was abandoned.
    pub fn abandoned(&self) -> ServerError {
        let cancelled = self.cancelled.borrow().clone();
        cancelled.unwrap_or_else(|| ServerError::new(Fault::Closed, "the database is closing; try again"))
    }

    /// The real reason of the last I/O error, which SQLite knows only as a code.
    pub fn take_cause(&self) -> Option<ServerError> {
        self.cause.borrow_mut().take()
    }

    fn fail(&self, code: Code, error: ServerError) -> Code {
        self.cause.borrow_mut().get_or_insert(error);
        code
    }

    /// What a read of this connection refers to is gone, as the owner has replaced it.
    pub fn note_outdated(&self) {
        self.is_outdated.set(true);
    }

    /// Whether a statement has failed for that since the connection was last reset.
    pub fn is_outdated(&self) -> bool {
        self.is_outdated.get()
    }

    /// How many commits this connection has published.
    pub fn commits(&self) -> u64 {
        self.commits.get()
    }

    /// See [`Replica::as_of_micros`](super::replica::Replica::as_of_micros): as it was when the snapshot was pinned.
    pub fn as_of_micros(&self) -> u64 {
        self.as_of_micros.get()
    }

    fn pin(&self) {
        self.as_of_micros.set(self.database.replica.as_ref().map_or(0, super::replica::Replica::as_of_micros));
        let durable_is_enough = self.database.gate.durable() >= self.seen.get();
        let snapshot = match self.reads.get() {
            Reads::Durable if durable_is_enough => self.database.durable_snapshot(),
            Reads::Durable | Reads::Newest => self.database.newest_snapshot(),
        };
        self.saw(snapshot.lsn);
        *self.snapshot.borrow_mut() = Some(snapshot);
    }

    fn saw(&self, lsn: Option<Lsn>) {
        self.seen.set(self.seen.get().max(Lsn::raw(lsn)));
    }

    /// Whether a snapshot is pinned, and with it a base.
    pub fn is_pinned(&self) -> bool {
        self.snapshot.borrow().is_some()
    }

    fn unpin(&self) {
        let was_old = self.database.has_old_readers();
        self.snapshot.borrow_mut().take();
        self.last_segment.forget();
        self.ahead.end_statement();
        if was_old {
            self.database.forget_folded();
        }
    }

    /// The page as the running transaction, or else the pinned snapshot, has it.
    fn page(&self, page_no: PageNo) -> Result<Page, Code> {
        if let Some(page) = self.written.borrow().get(&page_no) {
            return Ok(page.clone());
        }
        if let Some(page) = self.resident(page_no) {
            self.ahead.saw(&self.database, page_no, &page);
            return Ok(page);
        }
        let snapshot = self.pinned();
        if page_no.get() > snapshot.page_count || page_no == PageNo::LOCK_PAGE {
            // Inside the running transaction's size but never written: a page that SQLite allocated and
            // freed again. Committed ones are always explicit.
            return Ok(Page::zeroed());
        }
        let read = match super::pages::read(self, &snapshot, page_no) {
            Err(_) if self.moves_on(&snapshot) => super::pages::read(self, &self.pinned(), page_no),
            read => read,
        };
        let page = read.map_err(|error| self.fail(Code::IO_READ, error))?;
        self.ahead.saw(&self.database, page_no, &page);
        Ok(page)
    }

    /// The base of a replica's snapshot may be gone, as its owner folds without asking. A later one does as well, if
    /// the overlay reaches from there to the snapshot.
    fn moves_on(&self, failed: &Snapshot) -> bool {
        let base = self.database.base();
        let is_later = !Rc::ptr_eq(&base, &failed.base) && base.tip.lsn >= failed.base.tip.lsn;
        let fits = is_later && base.tip.lsn <= failed.lsn;
        let moves = self.database.replica.is_some() && fits && self.cancelled.borrow().is_none();
        if moves && let Some(snapshot) = &mut *self.snapshot.borrow_mut() {
            snapshot.base = base;
            self.is_outdated.set(false);
        }
        moves
    }

    /// A page of the pinned snapshot that is in memory.
    fn resident(&self, page_no: PageNo) -> Option<Page> {
        let snapshot = self.snapshot.borrow();
        let snapshot = snapshot.as_ref().filter(|snapshot| page_no.get() <= snapshot.page_count)?;
        hit::page(self, snapshot, page_no)
    }

    /// The pinned snapshot, or (for SQLite's look at the header before it locks) the newest durable one.
    fn pinned(&self) -> Snapshot {
        match &*self.snapshot.borrow() {
            Some(Snapshot { lsn, page_count, base }) => {
                Snapshot { lsn: *lsn, page_count: *page_count, base: base.clone() }
            }
            None => self.database.durable_snapshot(),
        }
    }

    fn page_count(&self) -> u32 {
        let pinned = || self.snapshot.borrow().as_ref().map(|snapshot| snapshot.page_count);
        self.size.get().or_else(pinned).unwrap_or_else(|| self.database.durable_snapshot().page_count)
    }

    fn drop_written(&self) {
        self.written.borrow_mut().clear();
        self.loan.borrow_mut().set(0);
        self.takes_back.set(false);
        self.size.set(None);
    }
}
