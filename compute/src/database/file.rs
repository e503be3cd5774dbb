//! The database file as one connection sees it: a snapshot to read, an overlay of its own to write.
//!
//! ```text
//!   NONE ──SHARED──▶ a snapshot is pinned ──RESERVED──▶ the turn is held, the snapshot is the newest
//!    ▲                    ▲                                   │ xWrite, xTruncate: own pages
//!    └──────NONE──────────┴── COMMIT_PHASETWO: published ◀────┤
//!                         └── unlock without it: own pages are dropped
//! ```
//!
//! A refused commit answers only `SQLITE_IOERR_*` or `SQLITE_FULL`: only these make the pager drop its
//! cache, so that the connection never reads its own refused rows. The real cause stays in
//! [`Connection::take_cause`].

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::c_int;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::ffi;
use segments::page::{PAGE_BYTES, Page, PageNo};
use walstore::id::Lsn;
use walstore::mutant::{self, Mutant};

use super::ahead::ReadAhead;
use super::hit::{self, LastSegment};
use super::turn::TurnGuard;
use super::{Database, Snapshot};
use crate::error::{Fault, ServerError};
use crate::limits;
use crate::sqlite::Code;
use crate::sqlite::coroutine::{Wait, Wake, suspend};
use crate::sqlite::vfs::VfsFile;

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
    /// Size in pages as of the running transaction; `None` while nothing was written.
    size: Cell<Option<u32>>,
    cause: RefCell<Option<ServerError>>,
    commits: Cell<u64>,
}

impl Connection {
    pub fn new(database: Rc<Database>) -> Rc<Self> {
        Rc::new(Self {
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
            size: Cell::new(None),
            cause: RefCell::new(None),
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

    /// Notes when the running statement began, for its time limit.
    pub fn start_statement(&self) {
        self.statement_started.set(self.database.node.seam.boot_micros());
    }

    /// No statement runs: nothing is timed.
    pub fn end_statement(&self) {
        self.statement_started.set(0);
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
        self.commits.set(0);
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
        let fits = base.tip.lsn > failed.base.tip.lsn && base.tip.lsn <= failed.lsn;
        let moves = self.database.replica.is_some() && fits && self.cancelled.borrow().is_none();
        if moves && let Some(snapshot) = &mut *self.snapshot.borrow_mut() {
            snapshot.base = base;
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
        self.size.set(None);
    }

    fn refusal(&self) -> Option<(Code, ServerError)> {
        let node = &self.database.node;
        let refuse = |code, fault, text: String| Some((code, ServerError::new(fault, text)));
        if let Some(reason) = self.database.lost() {
            return refuse(Code::IO_WRITE, Fault::Fenced, reason);
        }
        if !node.lease_is_valid() {
            let text = "this node has lost touch with the bucket; nothing was written; try again later";
            return refuse(Code::IO_WRITE, Fault::Retry, text.into());
        }
        let bytes = self.written.borrow().len() * PAGE_BYTES;
        if bytes > node.settings.transaction_bytes_max {
            let max = node.settings.transaction_bytes_max;
            let text = format!("a transaction of {bytes} bytes is over the limit of {max}; split it");
            return refuse(Code::FULL, Fault::Invalid, text);
        }
        let stalled = node.log.waiting_since_of(self.database.id).is_some_and(|since| {
            Duration::from_micros(node.seam.boot_micros().saturating_sub(since)) > node.settings.stall_timeout
        });
        if stalled || node.log.backlog_bytes() > limits::BACKLOG_BYTES_MAX {
            let text = "the bucket does not take writes at the moment; nothing was written; try again later";
            return refuse(Code::IO_WRITE, Fault::Retry, text.into());
        }
        None
    }

    /// The running transaction takes effect, or is refused.
    fn publish(&self) -> Result<(), Code> {
        let before = self.pinned().page_count;
        let nothing = self.written.borrow().is_empty() && self.size.get().is_none_or(|size| size == before);
        if nothing {
            self.drop_written();
            return Ok(());
        }
        if let Some((code, error)) = self.refusal() {
            self.drop_written();
            let code = if mutant::is_on(Mutant::RefuseWithBusy) { Code::BUSY } else { code };
            return Err(self.fail(code, error));
        }
        assert!(self.has_turn(), "BUG: a commit without the turn");
        let page_count = self.page_count();
        let pages = std::mem::take(&mut *self.written.borrow_mut());
        self.drop_written();
        let published = self.database.publish(pages, page_count);
        let lsn = published.map_err(|error| {
            self.fail(Code::FULL, ServerError::new(Fault::Invalid, format!("{error}; split it")))
        })?;
        self.saw(Some(lsn));
        self.commits.set(self.commits.get() + 1);
        *self.snapshot.borrow_mut() = Some(self.database.newest_snapshot());
        self.last_segment.forget();
        Ok(())
    }
}

/// The VFS's half of a [`Connection`].
pub struct DatabaseFile(pub Rc<Connection>);

fn page_at(offset: u64) -> Result<(PageNo, usize), Code> {
    let index = u32::try_from(offset / PAGE_BYTES as u64).map_err(|_| Code::IO)?;
    let page_no = PageNo::new(index.checked_add(1).ok_or(Code::IO)?).ok_or(Code::IO)?;
    Ok((page_no, (offset % PAGE_BYTES as u64) as usize))
}

impl VfsFile for DatabaseFile {
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Code> {
        let size = u64::from(self.0.page_count()) * PAGE_BYTES as u64;
        let inside = buffer.len().min(usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX));
        let mut done = 0;
        while done < inside {
            let (page_no, start) = page_at(offset + done as u64)?;
            let count = (PAGE_BYTES - start).min(inside - done);
            let page = self.0.page(page_no)?;
            buffer[done..done + count].copy_from_slice(&page.as_bytes()[start..start + count]);
            done += count;
        }
        Ok(inside)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<(), Code> {
        let connection = &self.0;
        let (page_no, start) = page_at(offset)?;
        if start != 0 || bytes.len() != PAGE_BYTES || connection.level.get() < ffi::SQLITE_LOCK_RESERVED {
            let text = format!("SQLite wrote {} bytes at {offset}: not a page of a transaction", bytes.len());
            return Err(connection.fail(Code::IO_WRITE, ServerError::new(Fault::Corrupt, text)));
        }
        let size = connection.page_count().max(page_no.get());
        let mut written = connection.written.borrow_mut();
        let max = connection.database.node.settings.transaction_bytes_max;
        if (written.len() + 1) * PAGE_BYTES > max && !written.contains_key(&page_no) {
            let text = format!("the transaction is over the limit of {max} bytes; split it");
            return Err(connection.fail(Code::FULL, ServerError::new(Fault::Invalid, text)));
        }
        let page = Page::copy_of(bytes.try_into().map_err(|_| Code::IO_WRITE)?);
        written.insert(page_no, page);
        connection.size.set(Some(size));
        Ok(())
    }

    fn truncate(&self, size: u64) -> Result<(), Code> {
        let page_count = u32::try_from(size.div_ceil(PAGE_BYTES as u64)).map_err(|_| Code::IO)?;
        self.0.written.borrow_mut().retain(|page_no, _| page_no.get() <= page_count);
        self.0.size.set(Some(page_count));
        Ok(())
    }

    fn size(&self) -> Result<u64, Code> {
        Ok(u64::from(self.0.page_count()) * PAGE_BYTES as u64)
    }

    fn lock(&self, level: c_int) -> Result<(), Code> {
        let connection = &self.0;
        if level <= connection.level.get() {
            return Ok(());
        }
        if level == ffi::SQLITE_LOCK_SHARED {
            if let Some(reason) = connection.database.lost() {
                return Err(connection.fail(Code::IO, ServerError::new(Fault::Fenced, reason)));
            }
            connection.pin();
        } else if connection.level.get() < ffi::SQLITE_LOCK_RESERVED {
            if let Some(replica) = &connection.database.replica {
                return Err(connection.fail(Code::READONLY, replica.refusal(&connection.database.name)));
            }
            if connection.database.past.is_some() {
                return Err(Code::READONLY);
            }
            let is_stale = || connection.snapshot.borrow().as_ref().is_none_or(|it| !connection.database.is_newest(it));
            if !connection.has_turn() && connection.database.is_overfull() && is_stale() {
                // Waiting for room would wait for this very reader.
                connection.reads.set(Reads::Newest);
                return Err(Code::BUSY_SNAPSHOT);
            }
            connection.take_turn().map_err(|error| connection.fail(Code::BUSY, error))?;
            let newest = connection.snapshot.borrow().as_ref().is_some_and(|it| connection.database.is_newest(it));
            if !newest {
                connection.reads.set(Reads::Newest);
                return Err(Code::BUSY_SNAPSHOT);
            }
        }
        connection.level.set(level);
        Ok(())
    }

    fn unlock(&self, level: c_int) -> Result<(), Code> {
        let connection = &self.0;
        let was_writing = connection.level.get() >= ffi::SQLITE_LOCK_RESERVED;
        connection.level.set(level.min(connection.level.get()));
        if was_writing && level < ffi::SQLITE_LOCK_RESERVED {
            connection.drop_written();
            connection.give_turn_back();
        }
        if level == ffi::SQLITE_LOCK_NONE {
            connection.unpin();
        }
        Ok(())
    }

    fn commit(&self) -> Result<(), Code> {
        if mutant::is_on(Mutant::PublishOnSync) { Ok(()) } else { self.0.publish() }
    }

    fn sync(&self) -> Result<(), Code> {
        if mutant::is_on(Mutant::PublishOnSync) { self.0.publish() } else { Ok(()) }
    }

    fn pragma(&self, name: &str, argument: Option<&str>) -> Option<Result<String, String>> {
        match (name.to_ascii_lowercase().as_str(), argument) {
            // The one mode that there is: set when a connection opens, answered to whoever asks for another.
            ("journal_mode", Some(mode)) if mode.eq_ignore_ascii_case("memory") => None,
            ("journal_mode", _) => Some(Ok("memory".into())),
            ("locking_mode", _) => Some(Ok("normal".into())),
            // Writers take turns, for as long as the server says. SQLite's own way to wait would hold the core up.
            ("busy_timeout", _) => Some(Ok(self.0.database.node.settings.busy_timeout.as_millis().to_string())),
            // Pages are 4096 bytes for good; tools that ask for another size are not refused.
            ("page_size", Some(_)) => Some(Ok(PAGE_BYTES.to_string())),
            _ => None,
        }
    }
}
