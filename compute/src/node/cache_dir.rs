//! The cache directory: who uses it, which incarnation used it last, the disk cache, temporary files.
//!
//! A process that holds the lock knows that whoever held it before is dead, so the log of the incarnation
//! named in the directory can be sealed at once, without waiting for its lease. Everything in the
//! directory may be deleted while no process runs.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use segments::disk::file::{self, CacheFile, DiskIo};
use tracing::warn;
use walstore::id::IncarnationId;

/// A locked cache directory. The lock ends with the process.
pub struct CacheDir {
    path: PathBuf,
    _lock: File,
}

#[derive(Debug, thiserror::Error)]
pub enum CacheDirError {
    #[error("the cache directory {path} is in use by another process; each node needs its own (--cache-dir)")]
    InUse { path: PathBuf },
    #[error("cannot use the cache directory {path}: {cause}{}", advice(.cause))]
    Io { path: PathBuf, cause: io::Error },
}

fn advice(cause: &io::Error) -> &'static str {
    if is_full(cause) { "; make room on that disk, or name another directory (--cache-dir)" } else { "" }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

impl CacheDir {
    /// Creates the directory if need be and locks it.
    pub fn lock(path: &Path) -> Result<Self, CacheDirError> {
        let failed = |cause| CacheDirError::Io { path: path.to_owned(), cause };
        fs::create_dir_all(path.join("tmp")).map_err(failed)?;
        let lock = File::create(path.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(CacheDirError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(cause)) => Err(failed(cause)),
        }
    }

    /// The file of the disk cache, open. Without it the node reads from the bucket.
    pub fn open_pages(&self, bytes_max: u64, io: DiskIo) -> std::io::Result<Arc<dyn CacheFile>> {
        file::open(&self.pages(), bytes_max, io)
    }

    /// Bytes that cached pages and temporary files may take together: what is free on the disk, what the pages of the former
    /// process take, and a little less.
    pub fn room(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.path)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        // Of a file with holes only what is there.
        let taken = fs::metadata(self.pages()).map_or(0, |pages| pages.blocks().saturating_mul(512));
        let room = free.saturating_add(taken);
        Ok(room - room / 16)
    }

    fn pages(&self) -> PathBuf {
        self.path.join("pages")
    }

    /// Where temporary files of queries go.
    pub fn temp_directory(&self) -> PathBuf {
        self.path.join("tmp")
    }

    /// The incarnation that used the directory last, and is therefore dead. A file that does not hold an
    /// id says nothing: then its lease runs out.
    pub fn predecessor(&self) -> Option<IncarnationId> {
        let text = fs::read_to_string(self.path.join("incarnation")).ok()?;
        IncarnationId::parse(text.trim())
    }

    /// Notes who uses the directory from now on. Called before the incarnation writes anything, and before the disk
    /// cache is opened: on a full disk its file makes room. A disk that is full of other things costs the next process
    /// a lease, and is no reason not to serve.
    pub fn claim(&self, id: IncarnationId) -> Result<(), CacheDirError> {
        self.claim_by(|| self.note(id))
    }

    fn claim_by(&self, mut note: impl FnMut() -> io::Result<()>) -> Result<(), CacheDirError> {
        let mut noted = note();
        if noted.as_ref().is_err_and(is_full) && fs::remove_file(self.pages()).is_ok() {
            warn!(path = %self.path.display(), "the disk of the cache directory is full: the cached pages are deleted");
            noted = note();
        }
        match noted {
            Err(error) if is_full(&error) => {
                let path = self.path.display();
                warn!(%path, %error, "the cache directory cannot note who uses it: if this process is killed, the next one \
                    waits for its lease to run out (--lease). Make room on that disk");
                Ok(())
            }
            noted => noted.map_err(|cause| CacheDirError::Io { path: self.path.clone(), cause }),
        }
    }

    fn note(&self, id: IncarnationId) -> io::Result<()> {
        let new = self.path.join("incarnation.new");
        let mut file = File::create(&new)?;
        writeln!(file, "{id}")?;
        file.sync_all()?;
        fs::rename(&new, self.path.join("incarnation"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_user_and_remembers_the_last_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        let id = IncarnationId::from_bytes([7; 16]);
        let first = CacheDir::lock(&path).unwrap();
        assert_eq!(first.predecessor(), None);
        first.claim(id).unwrap();
        assert!(matches!(CacheDir::lock(&path), Err(CacheDirError::InUse { .. })));
        drop(first);
        assert_eq!(CacheDir::lock(&path).unwrap().predecessor(), Some(id));
        fs::write(path.join("incarnation"), "rubbish").unwrap();
        assert_eq!(CacheDir::lock(&path).unwrap().predecessor(), None);
    }

    #[test]
    fn holes_in_the_pages_of_the_former_process_are_no_room() {
        let directory = tempfile::tempdir().unwrap();
        let cache = CacheDir::lock(directory.path()).unwrap();
        let before = cache.room().unwrap();
        // What they take counts, and what they might take does not.
        let pages = File::create(directory.path().join("pages")).unwrap();
        pages.set_len(1 << 42).unwrap();
        assert!(cache.room().unwrap() < before + (1 << 41));
    }

    /// Bug: cached pages had filled the disk, and the node could not note its name. Damage: it did not start until
    /// somebody deleted them. Fix: they go first, being only a cache.
    #[test]
    fn a_full_disk_costs_the_cached_pages_or_a_lease_but_never_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let cache = CacheDir::lock(directory.path()).unwrap();
        let (pages, id) = (directory.path().join("pages"), IncarnationId::from_bytes([7; 16]));
        let full = || Err(io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error()));

        fs::write(&pages, "cached").unwrap();
        cache.claim_by(|| if pages.exists() { full() } else { cache.note(id) }).unwrap();
        assert_eq!(cache.predecessor(), Some(id));
        assert!(!pages.exists());

        fs::write(&pages, "cached").unwrap();
        let mut tries = 0;
        let never = || {
            tries += 1;
            full()
        };
        cache.claim_by(never).unwrap();
        assert_eq!((tries, pages.exists()), (2, false), "room is made once");
        assert_eq!(cache.predecessor(), Some(id), "whoever was noted before");

        fs::write(&pages, "cached").unwrap();
        cache.claim(id).unwrap();
        assert!(pages.exists(), "nothing is deleted without need");
        let denied = || Err(io::Error::from(io::ErrorKind::PermissionDenied));
        let error = cache.claim_by(denied).unwrap_err();
        assert!(pages.exists() && !error.to_string().contains("make room"), "{error}");
    }

    #[test]
    fn a_directory_that_a_full_disk_cannot_hold_says_once_what_is_wrong_and_what_to_do() {
        let cause = io::Error::from_raw_os_error(28);
        let error = anyhow::Error::from(CacheDirError::Io { path: "/c".into(), cause });
        let text = "cannot use the cache directory /c: No space left on device (os error 28); make room on that disk, or \
            name another directory (--cache-dir)";
        assert_eq!(format!("{error:#}"), text);
    }
}
