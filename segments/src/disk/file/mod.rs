//! Where the bytes of a disk cache are: one trait, and its back ends.
//!
//! - [`ring`]: io_uring, on Linux. One thread, many requests at once.
//! - [`plain`]: a few threads that `pread` and `pwrite`, where the kernel or a seccomp profile forbids io_uring, as
//!   containers' default profiles do.
//! - [`simulated`]: memory that outlives the node, and fails as disks do.
//!
//! None of them syncs anything.

pub mod plain;
mod queue;
#[cfg(target_os = "linux")]
pub mod ring;
pub mod simulated;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tracing::info;

/// A request to the disk. Dropping it does not take it back.
pub type Pending<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// A file of a known most length.
pub trait CacheFile: Send + Sync + fmt::Debug {
    /// Up to so many bytes from `at`: fewer where the file ends. `WouldBlock` says that too much is waiting.
    fn read(&self, at: u64, bytes: usize) -> Pending<Bytes>;

    /// Writes all of it, and makes the file larger if need be.
    fn write(&self, at: u64, bytes: Bytes) -> Pending<()>;

    /// Length of the file.
    fn bytes(&self) -> u64;
}

/// How the file is read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskIo {
    /// io_uring if it works here, else plain.
    #[default]
    Auto,
    IoUring,
    Plain,
}

/// Opens or creates the file, no longer than `bytes_max`, and says in the log how.
pub fn open(path: &Path, bytes_max: u64, io: DiskIo) -> io::Result<Arc<dyn CacheFile>> {
    // Nobody else's business: it holds the databases' pages.
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.len() > bytes_max {
        file.set_len(bytes_max)?;
    }
    let (file, how) = start(file, io)?;
    info!(path = %path.display(), bytes_max, "disk cache: {how}");
    Ok(file)
}

fn start(file: File, io: DiskIo) -> io::Result<(Arc<dyn CacheFile>, String)> {
    let why = match io {
        DiskIo::Plain => "as --disk-io says".to_owned(),
        DiskIo::Auto | DiskIo::IoUring => match ring(&file) {
            Ok(ring) => return Ok((ring, "io_uring with registered buffers".to_owned())),
            Err(error) if io == DiskIo::IoUring => return Err(error),
            Err(error) => format!("because io_uring does not work here: {error}"),
        },
    };
    Ok((Arc::new(plain::PlainFile::start(file)?), format!("plain reads and writes, {why}")))
}

#[cfg(target_os = "linux")]
fn ring(file: &File) -> io::Result<Arc<dyn CacheFile>> {
    Ok(Arc::new(ring::RingFile::start(file.try_clone()?)?))
}

#[cfg(not(target_os = "linux"))]
fn ring(_: &File) -> io::Result<Arc<dyn CacheFile>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this is not Linux"))
}
