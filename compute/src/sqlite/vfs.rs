//! The VFS shim: SQLite's C interface on one side, [`VfsFile`] on the other.
//!
//! It is SQLite's default VFS, and it opens nothing but (a) the database file that the executor announced
//! with [`announce`] on this thread, (b) that one's rollback journal and (c) nameless temporary files. Whatever path a
//! client may smuggle into ATTACH, VACUUM INTO or an extension ends in `SQLITE_CANTOPEN`.
//!
//! The journal is a temporary file as well: only the connection that wrote it ever reads it, to roll back. A large one
//! is on the local disk and not in memory.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::OnceLock;

use rusqlite::ffi;
use walstore::seam::Seam;

use super::Code;
use super::temp::TempFile;
use super::temp_space::Use;

/// The name under which the VFS is registered, and which stands for "the announced database".
pub const VFS_NAME: &CStr = c"shoal";
pub const DATABASE_PATH: &str = "/shoal/database";
/// What SQLite calls its journal.
const JOURNAL_PATH: &CStr = c"/shoal/database-journal";

/// What SQLite asks of one open file. Offsets and sizes are in bytes.
pub trait VfsFile {
    /// Fills `buffer` from `offset`. The count is how much of it lies inside the file; the rest is zeroed
    /// by the shim and reported as a short read.
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Code>;
    fn write(&self, bytes: &[u8], offset: u64) -> Result<(), Code>;
    fn truncate(&self, size: u64) -> Result<(), Code>;
    fn size(&self) -> Result<u64, Code>;
    fn lock(&self, level: c_int) -> Result<(), Code>;
    fn unlock(&self, level: c_int) -> Result<(), Code>;
    /// The transaction whose pages were written is to take effect (`SQLITE_FCNTL_COMMIT_PHASETWO`).
    fn commit(&self) -> Result<(), Code>;
    /// SQLite wants what was written to be on stable storage. Nothing to do: a commit becomes durable through
    /// [`VfsFile::commit`], and `xSync` also fires on rollbacks and before the truncate of a shrinking commit.
    fn sync(&self) -> Result<(), Code> {
        Ok(())
    }
    /// A pragma that the file answers itself, or `None` to leave it to SQLite.
    fn pragma(&self, name: &str, argument: Option<&str>) -> Option<Result<String, String>>;
}

thread_local! {
    static ANNOUNCED: RefCell<Option<Box<dyn VfsFile>>> = const { RefCell::new(None) };
    static SEAM: RefCell<Option<Seam>> = const { RefCell::new(None) };
}

/// The file that the next open of [`DATABASE_PATH`] on this thread gets.
pub fn announce(file: Box<dyn VfsFile>) {
    ANNOUNCED.with_borrow_mut(|slot| *slot = Some(file));
}

/// Where SQLite on this thread gets time and randomness from.
pub fn set_thread_seam(seam: Seam) {
    SEAM.with_borrow_mut(|slot| *slot = Some(seam));
}

/// Makes SQLite's process-wide generator start again from this thread's seam, so that a simulated node
/// draws the same numbers in each run of a seed.
pub fn reset_randomness() {
    // SAFETY: documented: N < 1 resets the generator; no buffer is touched.
    unsafe { ffi::sqlite3_randomness(0, ptr::null_mut()) };
}

/// SQLite's `sqlite3_file` with our file behind it.
#[repr(C)]
struct ShimFile {
    base: ffi::sqlite3_file,
    file: *mut Box<dyn VfsFile>,
}

pub(super) fn install() {
    static VFS: OnceLock<VfsPointer> = OnceLock::new();
    let vfs = VFS.get_or_init(|| {
        // SAFETY: an all-zero sqlite3_vfs is valid: null pointers and absent methods.
        let mut vfs: ffi::sqlite3_vfs = unsafe { std::mem::zeroed() };
        vfs.iVersion = 2;
        vfs.szOsFile = size_of::<ShimFile>() as c_int;
        vfs.mxPathname = 512;
        vfs.zName = VFS_NAME.as_ptr();
        vfs.xOpen = Some(open);
        vfs.xDelete = Some(delete);
        vfs.xAccess = Some(access);
        vfs.xFullPathname = Some(full_pathname);
        vfs.xRandomness = Some(randomness);
        vfs.xSleep = Some(sleep);
        vfs.xCurrentTime = Some(current_time);
        vfs.xCurrentTimeInt64 = Some(current_time_i64);
        vfs.xGetLastError = Some(last_error);
        VfsPointer(Box::into_raw(Box::new(vfs)))
    });
    // SAFETY: the VFS lives for ever; registering is what it was made for.
    let code = unsafe { ffi::sqlite3_vfs_register(vfs.0, 1) };
    assert_eq!(code, ffi::SQLITE_OK, "BUG: SQLite refused the VFS");
}

struct VfsPointer(*mut ffi::sqlite3_vfs);
// SAFETY: written once before it is shared, then only read by SQLite, which locks around its list.
unsafe impl Send for VfsPointer {}
// SAFETY: as above.
unsafe impl Sync for VfsPointer {}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// Runs a callback's body; a panic becomes an I/O error of this call.
fn guarded(body: impl FnOnce() -> Result<(), Code>) -> c_int {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => ffi::SQLITE_OK,
        Ok(Err(code)) => code.0,
        Err(_) => ffi::SQLITE_IOERR,
    }
}

/// # Safety
/// `file` was opened by [`open`] and is not closed.
unsafe fn shim<'a>(file: *mut ffi::sqlite3_file) -> &'a dyn VfsFile {
    // SAFETY: by the caller's promise this is a ShimFile whose `file` came from Box::into_raw.
    unsafe { &**(*file.cast::<ShimFile>()).file }
}

unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes szOsFile bytes; pMethods must be set even on failure.
    unsafe { (*file).pMethods = ptr::null() };
    guarded(|| {
        // SAFETY: SQLite passes a nul-terminated name, if any.
        let name = (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) });
        let is_journal = flags & ffi::SQLITE_OPEN_MAIN_JOURNAL != 0 && name == Some(JOURNAL_PATH);
        let opened: Box<dyn VfsFile> = if let Some(name) = name.filter(|_| !is_journal) {
            let is_database = flags & ffi::SQLITE_OPEN_MAIN_DB != 0 && name.to_bytes() == DATABASE_PATH.as_bytes();
            let announced = ANNOUNCED.with_borrow_mut(Option::take);
            announced.filter(|_| is_database).ok_or(Code::CANTOPEN)?
        } else {
            let is_journal = is_journal || flags & ffi::SQLITE_OPEN_SUBJOURNAL != 0;
            Box::new(TempFile::open(if is_journal { Use::Journal } else { Use::Statement }))
        };
        let shim = file.cast::<ShimFile>();
        // SAFETY: SQLite allocated szOsFile bytes for us behind `file`.
        unsafe {
            (*shim).file = Box::into_raw(Box::new(opened));
            (*shim).base.pMethods = &METHODS;
            if !out_flags.is_null() {
                *out_flags = flags;
            }
        }
        Ok(())
    })
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes each opened file once; the pointer came from Box::into_raw.
    let opened = unsafe { Box::from_raw((*file.cast::<ShimFile>()).file) };
    guarded(|| {
        drop(opened);
        Ok(())
    })
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, buffer: *mut c_void, count: c_int, offset: i64) -> c_int {
    guarded(|| {
        let (Ok(count), Ok(offset)) = (usize::try_from(count), u64::try_from(offset)) else {
            return Err(Code::IO_READ);
        };
        // SAFETY: SQLite's buffer has `count` bytes and is ours until we return, also across a suspend.
        let (buffer, shim) = unsafe { (std::slice::from_raw_parts_mut(buffer.cast::<u8>(), count), shim(file)) };
        let inside = shim.read(buffer, offset)?;
        if inside < count {
            buffer[inside..].fill(0);
            return Err(Code(ffi::SQLITE_IOERR_SHORT_READ));
        }
        Ok(())
    })
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, bytes: *const c_void, count: c_int, offset: i64) -> c_int {
    guarded(|| {
        let (Ok(count), Ok(offset)) = (usize::try_from(count), u64::try_from(offset)) else {
            return Err(Code::IO_WRITE);
        };
        // SAFETY: SQLite's buffer has `count` bytes and does not change until we return.
        let (bytes, shim) = unsafe { (std::slice::from_raw_parts(bytes.cast::<u8>(), count), shim(file)) };
        shim.write(bytes, offset)
    })
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: SQLite passes a file that is open.
    guarded(|| unsafe { shim(file) }.truncate(u64::try_from(size).map_err(|_| Code::IO)?))
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: SQLite passes a file that is open.
    guarded(|| unsafe { shim(file) }.sync())
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    guarded(|| {
        // SAFETY: SQLite passes a file that is open, and a place for the result.
        unsafe { *size = i64::try_from(shim(file).size()?).map_err(|_| Code::IO)? };
        Ok(())
    })
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite passes a file that is open.
    guarded(|| unsafe { shim(file) }.lock(level))
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite passes a file that is open.
    guarded(|| unsafe { shim(file) }.unlock(level))
}

/// Asked only to look for a hot journal, which never exists here.
unsafe extern "C" fn check_reserved_lock(_file: *mut ffi::sqlite3_file, reserved: *mut c_int) -> c_int {
    // SAFETY: SQLite passes a place for the result.
    unsafe { *reserved = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, operation: c_int, argument: *mut c_void) -> c_int {
    match operation {
        // SAFETY: SQLite passes a file that is open.
        ffi::SQLITE_FCNTL_COMMIT_PHASETWO => guarded(|| unsafe { shim(file) }.commit()),
        // SAFETY: as above; for this operation the argument is an array of at least three strings.
        ffi::SQLITE_FCNTL_PRAGMA => unsafe { pragma(shim(file), argument.cast()) },
        _ => ffi::SQLITE_NOTFOUND,
    }
}

/// # Safety
/// `arguments` is SQLite's array for `SQLITE_FCNTL_PRAGMA`: result, name, argument or null.
unsafe fn pragma(file: &dyn VfsFile, arguments: *mut *mut c_char) -> c_int {
    // SAFETY: by the caller's promise; both strings are nul-terminated.
    let (name, argument) = unsafe {
        let argument = *arguments.add(2);
        let argument = (!argument.is_null()).then(|| CStr::from_ptr(argument).to_string_lossy());
        (CStr::from_ptr(*arguments.add(1)).to_string_lossy(), argument)
    };
    let answer = catch_unwind(AssertUnwindSafe(|| file.pragma(&name, argument.as_deref())));
    let (text, code) = match answer {
        Ok(None) => return ffi::SQLITE_NOTFOUND,
        Ok(Some(Ok(text))) => (text, ffi::SQLITE_OK),
        Ok(Some(Err(text))) => (text, ffi::SQLITE_ERROR),
        Err(_) => return ffi::SQLITE_IOERR,
    };
    let text = CString::new(text).unwrap_or_default();
    // SAFETY: "%s" with a nul-terminated string; SQLite frees the copy.
    unsafe { *arguments = ffi::sqlite3_mprintf(c"%s".as_ptr(), text.as_ptr()) };
    code
}

unsafe extern "C" fn sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    segments::page::PAGE_BYTES as c_int
}

unsafe extern "C" fn device_characteristics(_file: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE | ffi::SQLITE_IOCAP_SAFE_APPEND | ffi::SQLITE_IOCAP_SEQUENTIAL
}

/// A journal is gone once it is closed.
unsafe extern "C" fn delete(_vfs: *mut ffi::sqlite3_vfs, name: *const c_char, _sync: c_int) -> c_int {
    // SAFETY: SQLite passes a nul-terminated name.
    let is_journal = !name.is_null() && unsafe { CStr::from_ptr(name) } == JOURNAL_PATH;
    if is_journal { ffi::SQLITE_OK } else { ffi::SQLITE_IOERR_DELETE_NOENT }
}

/// No file but the announced database can be found: no journal that somebody else has left, no WAL.
unsafe extern "C" fn access(
    _vfs: *mut ffi::sqlite3_vfs,
    _name: *const c_char,
    _flags: c_int,
    exists: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes a place for the result.
    unsafe { *exists = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    count: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite passes a nul-terminated name and a buffer of `count` bytes.
    unsafe {
        let name = CStr::from_ptr(name).to_bytes_with_nul();
        if name.len() > usize::try_from(count).unwrap_or(0) {
            return ffi::SQLITE_CANTOPEN;
        }
        ptr::copy_nonoverlapping(name.as_ptr().cast(), out, name.len());
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn randomness(_vfs: *mut ffi::sqlite3_vfs, count: c_int, out: *mut c_char) -> c_int {
    let filled = catch_unwind(AssertUnwindSafe(|| {
        let count = usize::try_from(count).unwrap_or(0);
        // SAFETY: SQLite passes a buffer of `count` bytes.
        let buffer = unsafe { std::slice::from_raw_parts_mut(out.cast::<u8>(), count) };
        SEAM.with_borrow(|seam| seam.as_ref().map(|seam| seam.fill(buffer)))
    }));
    if matches!(filled, Ok(Some(()))) { count } else { 0 }
}

/// Never sleeps: waiting is the business of coroutines.
unsafe extern "C" fn sleep(_vfs: *mut ffi::sqlite3_vfs, _micros: c_int) -> c_int {
    0
}

/// Milliseconds since noon in Greenwich on November 24, 4714 B.C., which is how SQLite counts.
const UNIX_EPOCH_JULIAN_MILLIS: i64 = 210_866_760_000_000;

fn julian_millis() -> i64 {
    let micros = SEAM.with_borrow(|seam| seam.as_ref().map_or(0, Seam::wall_micros));
    UNIX_EPOCH_JULIAN_MILLIS + i64::try_from(micros / 1000).unwrap_or(0)
}

unsafe extern "C" fn current_time_i64(_vfs: *mut ffi::sqlite3_vfs, out: *mut i64) -> c_int {
    // SAFETY: SQLite passes a place for the result.
    unsafe { *out = julian_millis() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time(_vfs: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: SQLite passes a place for the result.
    unsafe { *out = julian_millis() as f64 / 86_400_000.0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn last_error(_vfs: *mut ffi::sqlite3_vfs, _count: c_int, _out: *mut c_char) -> c_int {
    0
}
