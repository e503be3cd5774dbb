//! SQLite's allocator: every allocation is charged to the database whose coroutine asked for it.
//!
//! Installed before SQLite initialises, because that is the only time when it can be. Each block carries a
//! header of 16 bytes: its size, and the meter that was charged, so that it is credited to the right one
//! whoever frees it. Over its limit, or when the node has no more memory to lend, a meter answers "no memory", which
//! SQLite turns into `SQLITE_NOMEM` for that statement alone.
//!
//! ```text
//!   0 ───────── 4 MiB ────────────────────────────────────── the limit of one database
//!     granted          the node is asked for what is more than     refused
//!     in any case      a little beyond what it has granted
//! ```

use std::alloc::{Layout, alloc, dealloc, realloc};
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::{Arc, OnceLock};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread::Thread;

use rusqlite::ffi;

use super::sql_space::SqlSpace;
use super::temp_space::TempShare;
use crate::limits;

const HEADER_BYTES: usize = 16;

/// Bytes that SQLite holds for one database. The block headers keep it alive.
#[derive(Debug)]
pub struct Meter {
    bytes: AtomicUsize,
    bytes_max: usize,
    /// What it has on disk in temporary files.
    pub temp: TempShare,
    /// Where the node sums up, and what it has granted this one. It has a little more at most, without asking.
    space: Arc<SqlSpace>,
    granted: AtomicUsize,
    /// Why the last allocation was refused.
    refusal: AtomicU8,
}

const NOT_REFUSED: u8 = 0;
const OVER_ITS_LIMIT: u8 = 1;
const NODE_IS_FULL: u8 = 2;

/// Why an allocation was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "out of memory: the values, sorts and caches of this database would take more than {bytes_max} bytes, the \
         server's limit for one; read and write less in one statement"
    )]
    OverItsLimit { bytes_max: usize },
    #[error(
        "out of memory: too much of the server's --memory is in use, by this statement, by those of other databases and \
         by large transactions that are being stored; read and write less in one statement, or try again when others \
         are done"
    )]
    NodeIsFull,
}

impl Meter {
    pub fn new(bytes_max: usize, temp: TempShare, space: Arc<SqlSpace>) -> Arc<Self> {
        let (bytes, granted) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { bytes, bytes_max, temp, space, granted, refusal: AtomicU8::new(NOT_REFUSED) })
    }

    /// Tells the node how much it is by now. What it has beyond what was granted it asks for as an allocation would: else
    /// a statement that yields often would never be asked.
    pub fn report(&self) {
        let (granted, now) = (self.granted.load(Ordering::Relaxed), self.bytes());
        if now < granted {
            self.granted.store(now, Ordering::Relaxed);
            self.space.change(granted, now);
        } else if now > granted {
            self.grow(granted, now);
        }
    }

    /// Whether the node grants so much instead of what it has granted.
    fn grow(&self, granted: usize, now: usize) -> bool {
        if now <= limits::SQL_SMALL_BYTES {
            self.space.change(granted, now);
        } else if !self.space.try_grow(granted, now) {
            return false;
        }
        self.granted.store(now, Ordering::Relaxed);
        true
    }

    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Counts `bytes` more, unless they would be too many: then [`Meter::take_refusal`] says of what.
    fn charge(&self, bytes: usize) -> bool {
        let refused = match self.try_charge(bytes) {
            Ok(()) => return true,
            Err(why) => why,
        };
        self.refusal.store(refused, Ordering::Relaxed);
        false
    }

    fn try_charge(&self, bytes: usize) -> Result<(), u8> {
        let all = self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let charged = match all > self.bytes_max {
            true => Err(OVER_ITS_LIMIT),
            false if self.may_hold(all) => Ok(()),
            false => Err(NODE_IS_FULL),
        };
        if charged.is_err() {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        charged
    }

    /// Whether the node lets it have so much. Asked once it is more than a little beyond what was granted.
    fn may_hold(&self, all: usize) -> bool {
        let granted = self.granted.load(Ordering::Relaxed);
        all <= granted + limits::SQL_STEP_BYTES || self.grow(granted, all)
    }

    fn credit(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts what a temporary file has in memory, if there is room for it: else it is to go to the disk.
    pub(super) fn charge_file(&self, bytes: usize) -> bool {
        self.try_charge(bytes).is_ok()
    }

    pub(super) fn credit_file(&self, bytes: usize) {
        self.credit(bytes);
    }

    /// Why an allocation was refused, for the statement that has failed of it.
    pub fn take_refusal(&self) -> Option<Refusal> {
        match self.refusal.swap(NOT_REFUSED, Ordering::Relaxed) {
            OVER_ITS_LIMIT => Some(Refusal::OverItsLimit { bytes_max: self.bytes_max }),
            NODE_IS_FULL => Some(Refusal::NodeIsFull),
            _ => None,
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.space.change(self.granted.load(Ordering::Relaxed), 0);
    }
}

thread_local! {
    static CHARGED: Cell<*const Meter> = const { Cell::new(ptr::null()) };
}

/// Charges what SQLite allocates on this thread to `meter` until the guard is dropped. Held by the
/// executor around each resumption, never across a suspend.
pub struct Charging<'a> {
    previous: *const Meter,
    meter: &'a Arc<Meter>,
}

impl<'a> Charging<'a> {
    pub fn to(meter: &'a Arc<Meter>) -> Self {
        Self { previous: CHARGED.replace(Arc::as_ptr(meter)), meter }
    }
}

impl Drop for Charging<'_> {
    fn drop(&mut self) {
        CHARGED.set(self.previous);
        self.meter.report();
    }
}

/// The meter that is charged on this thread at the moment.
pub fn charged() -> Option<Arc<Meter>> {
    let meter = CHARGED.get();
    (!meter.is_null()).then(|| {
        // SAFETY: a non-null CHARGED came from `Arc::as_ptr` of a meter whose `Charging` guard is alive; the count
        // that is added here is the returned one.
        unsafe {
            Arc::increment_strong_count(meter);
            Arc::from_raw(meter)
        }
    })
}

#[repr(C)]
struct Header {
    size: usize,
    /// Null, or one strong count of an `Arc<Meter>`.
    meter: *const Meter,
}

pub(super) fn install() {
    let methods = ffi::sqlite3_mem_methods {
        xMalloc: Some(sql_malloc),
        xFree: Some(sql_free),
        xRealloc: Some(sql_realloc),
        xSize: Some(sql_size),
        xRoundup: Some(sql_roundup),
        xInit: Some(sql_init),
        xShutdown: Some(sql_shutdown),
        pAppData: ptr::null_mut(),
    };
    // SAFETY: SQLite copies the methods; it is not initialised yet, or it answers MISUSE.
    let code = unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MALLOC, &raw const methods) };
    assert_eq!(code, ffi::SQLITE_OK, "BUG: SQLite was initialised before its allocator was installed");
}

/// Looks at all that the allocator has free.
fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> c_int;
        }
        // SAFETY: documented as callable at any time, from any thread.
        unsafe { malloc_trim(0) };
    }
}

/// The thread of [`start_giving_back`].
static TRIMMER: OnceLock<Thread> = OnceLock::new();

/// Starts a thread that gives memory which nobody uses back to the operating system, when it is [told to](give_back).
/// That takes milliseconds: nobody else is to wait for it, and it is not to be done all the time.
pub fn start_giving_back() -> std::io::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "a thread of the process, not of a node: nothing depends on when it runs")]
    let body = || loop {
        std::thread::park();
        trim();
        std::thread::sleep(limits::GIVE_BACK_PAUSE);
    };
    let thread = std::thread::Builder::new().name("give-back".into()).spawn(body)?;
    // Another one does as well.
    let _ = TRIMMER.set(thread.thread().clone());
    Ok(())
}

/// Much was freed.
pub fn give_back() {
    if let Some(trimmer) = TRIMMER.get() {
        trimmer.unpark();
    }
}

/// Has the allocator share its memory among threads. By itself glibc gives each thread up to 64 MiB of its own to hold on
/// to, eight times as often as there are processors: what one thread has freed is not there for another. What takes a
/// megabyte for a moment, as a request for pages does, is to come from memory that was in use before: fresh memory costs
/// the system more than filling it. To be called before there are threads.
pub fn share_among_threads() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// Of `malloc.h`.
        const M_ARENA_MAX: c_int = -8;
        const M_MMAP_THRESHOLD: c_int = -3;
        const M_TRIM_THRESHOLD: c_int = -1;
        const ARENAS: c_int = 2;
        /// What is larger is given back to the system as soon as it is freed.
        const KEPT_BLOCK_BYTES: c_int = 2 << 20;
        /// What an arena keeps at its end, at most, before [`give_back`].
        const KEPT_BYTES: c_int = 8 << 20;
        unsafe extern "C" {
            fn mallopt(parameter: c_int, value: c_int) -> c_int;
        }
        // SAFETY: there is one thread yet, and the parameters and their values are documented ones.
        unsafe {
            mallopt(M_ARENA_MAX, ARENAS);
            mallopt(M_MMAP_THRESHOLD, KEPT_BLOCK_BYTES);
            mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
        }
    }
}

fn layout(size: usize) -> Option<Layout> {
    Layout::from_size_align(size.checked_add(HEADER_BYTES)?, 16).ok()
}

unsafe extern "C" fn sql_malloc(size: c_int) -> *mut c_void {
    let Some((size, layout)) = usize::try_from(size).ok().and_then(|size| Some((size, layout(size)?))) else {
        return ptr::null_mut();
    };
    let meter = CHARGED.get();
    // SAFETY: a non-null CHARGED points to the meter of a `Charging` guard that is alive.
    if !meter.is_null() && !unsafe { &*meter }.charge(size) {
        return ptr::null_mut();
    }
    // SAFETY: the layout is not empty.
    let block = unsafe { alloc(layout) };
    if block.is_null() {
        // SAFETY: as above.
        if !meter.is_null() {
            unsafe { &*meter }.credit(size);
        }
        return ptr::null_mut();
    }
    // SAFETY: the block has room for the header and is aligned for it; the count belongs to the block.
    unsafe {
        if !meter.is_null() {
            Arc::increment_strong_count(meter);
        }
        block.cast::<Header>().write(Header { size, meter });
        block.add(HEADER_BYTES).cast()
    }
}

/// # Safety
/// `block` came from [`sql_malloc`] or [`sql_realloc`] and is not freed.
unsafe fn header(block: *mut c_void) -> *mut Header {
    // SAFETY: every block is preceded by its header.
    unsafe { block.cast::<u8>().sub(HEADER_BYTES).cast() }
}

unsafe extern "C" fn sql_free(block: *mut c_void) {
    if block.is_null() {
        return;
    }
    // SAFETY: SQLite frees only blocks of ours, once.
    unsafe {
        let header = header(block);
        let Header { size, meter } = header.read();
        if !meter.is_null() {
            (*meter).credit(size);
            Arc::decrement_strong_count(meter);
        }
        dealloc(header.cast(), layout(size).expect("BUG: a block of impossible size"));
    }
}

unsafe extern "C" fn sql_realloc(block: *mut c_void, size: c_int) -> *mut c_void {
    let Ok(size) = usize::try_from(size) else { return ptr::null_mut() };
    let Some(new_layout) = layout(size) else { return ptr::null_mut() };
    // SAFETY: SQLite passes a live block of ours; its meter stays the one that was charged first.
    unsafe {
        let old = header(block);
        let Header { size: old_size, meter } = old.read();
        if !meter.is_null() && size > old_size && !(*meter).charge(size - old_size) {
            return ptr::null_mut();
        }
        let old_layout = layout(old_size).expect("BUG: a block of impossible size");
        let moved = realloc(old.cast(), old_layout, new_layout.size());
        if moved.is_null() {
            if !meter.is_null() && size > old_size {
                (*meter).credit(size - old_size);
            }
            return ptr::null_mut();
        }
        if !meter.is_null() && size < old_size {
            (*meter).credit(old_size - size);
        }
        moved.cast::<Header>().write(Header { size, meter });
        moved.add(HEADER_BYTES).cast()
    }
}

unsafe extern "C" fn sql_size(block: *mut c_void) -> c_int {
    // SAFETY: SQLite passes a live block of ours.
    c_int::try_from(unsafe { (*header(block)).size }).unwrap_or(c_int::MAX)
}

unsafe extern "C" fn sql_roundup(size: c_int) -> c_int {
    size.saturating_add(7) & !7
}

unsafe extern "C" fn sql_init(_data: *mut c_void) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn sql_shutdown(_data: *mut c_void) {}
