//! The cache directory: who uses it, which incarnation used it last, the disk cache, temporary files.
//!
//! A process that holds the lock knows that whoever held it before is dead, so the log of the incarnation
//! named in the directory can be sealed at once, without waiting for its lease. Everything in the
//! directory may be deleted while no process runs.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use segments::disk::file::{self, CacheFile, DiskIo};
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
    #[error("cannot use the cache directory {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl CacheDir {
    /// Creates the directory if need be and locks it.
    pub fn lock(path: &Path) -> Result<Self, CacheDirError> {
        let failed = |source| CacheDirError::Io { path: path.to_owned(), source };
        fs::create_dir_all(path.join("tmp")).map_err(failed)?;
        let lock = File::create(path.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(CacheDirError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// The file of the disk cache, open. Without it the node reads from the bucket.
    pub fn open_pages(&self, bytes_max: u64, io: DiskIo) -> std::io::Result<Arc<dyn CacheFile>> {
        file::open(&self.path.join("pages"), bytes_max, io)
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

    /// Notes who uses the directory from now on. Called before the incarnation writes anything.
    pub fn claim(&self, id: IncarnationId) -> Result<(), CacheDirError> {
        let failed = |source| CacheDirError::Io { path: self.path.clone(), source };
        let new = self.path.join("incarnation.new");
        let mut file = File::create(&new).map_err(failed)?;
        writeln!(file, "{id}").map_err(failed)?;
        file.sync_all().map_err(failed)?;
        fs::rename(&new, self.path.join("incarnation")).map_err(failed)
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
}
