//! The store's directory itself: making, opening, refusing, sweeping what crashed processes left.
//!
//! All paths below the root are opened relative to descriptors that are held from the start, so that a
//! directory that is moved, or a disk mounted over it, cannot turn into an empty store under our feet.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};

use rustix::fs::{
    AtFlags, Dir, FlockOperation, Mode, OFlags, Stat, flock, fstat, fstatfs, fsync, mkdirat, openat,
    statat, syncfs, unlinkat,
};
use rustix::io::{Errno, retry_on_intr};
use tracing::warn;

use super::failure::{Doing, Failure};
use crate::clock::SteadyClock;
use crate::seam;
use crate::store::limits::DIRECTORY_LOCKS;
use crate::store::{Key, StoreError, StoreErrorKind};

const OBJECTS: &str = "objects";
const TMP: &str = "tmp";
const LOCKS: &str = "locks";

pub(super) const DIRECTORY_MODE: Mode = Mode::RWXU;
pub(super) const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// An open store. Everything here blocks.
pub(super) struct Root {
    path: PathBuf,
    pub objects: OwnedFd,
    pub scratch: Scratch,
    locks: OwnedFd,
    /// Directories below `objects/` that this process has made durable, up to `objects/` itself.
    pub durable: Mutex<BTreeSet<String>>,
    /// Set when a directory could not be synced: from then on nothing is written.
    pub has_failed_sync: AtomicBool,
    pub date: SteadyClock,
}

/// This process's directory in `tmp/`. The lock on it says that the process lives.
pub(super) struct Scratch {
    pub directory: OwnedFd,
    pub next: AtomicU64,
    tmp: OwnedFd,
    name: String,
}

impl Root {
    /// Makes the directory and those above it, durably.
    pub fn make(root: &Path) -> Result<(), StoreError> {
        let path = absolute(root)?;
        let fail = |failure: Failure| failure.into_store_error(url(&path), StoreErrorKind::Retry);
        let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
        for directory in missing.into_iter().rev() {
            match std::fs::create_dir(directory) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                made => made.doing("make the directory").map_err(fail)?,
            }
            let parent = directory.parent().unwrap_or(directory);
            let synced = File::open(parent).and_then(|parent| parent.sync_all());
            synced.doing("sync the directory above").map_err(fail)?;
        }
        Ok(())
    }

    /// Opens a store that is there already, and makes none.
    pub fn open_existing(root: &Path) -> Result<Self, StoreError> {
        let path = absolute(root)?;
        let fail = |failure: Failure| failure.into_store_error(url(&path), StoreErrorKind::Retry);
        let names = names(&open_root(&path)?).map_err(fail)?;
        if names.iter().any(|name| name == OBJECTS) {
            return Self::open(&path);
        }
        let message = format!("this directory is no store of Shoal's: there is no directory {OBJECTS:?} in it");
        Err(StoreError::new(StoreErrorKind::Missing, url(&path), message))
    }

    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let path = absolute(root)?;
        let fail = |failure: Failure| failure.into_store_error(url(&path), StoreErrorKind::Retry);
        let top = open_root(&path)?;
        refuse_network_file_systems(&path, &top)?;
        refuse_foreign_directories(&path, &top)?;
        let make = |name| make_directory(&top, name).map_err(fail);
        let (objects, tmp, locks) = (make(OBJECTS)?, make(TMP)?, make(LOCKS)?);
        retry_on_intr(|| fsync(&top)).doing("sync the directory").map_err(fail)?;
        let (scratch, newest_micros) = Scratch::take(tmp, &locks).map_err(fail)?;
        let date = SteadyClock::new(newest_micros);
        if date.date_micros(seam::system_micros(), seam::boot_micros()).is_none() {
            warn!("this machine's clock is behind the times of the store's files: no history is trimmed and nothing \
                expires until it is right; if it is right, start this process once more");
        }
        let (durable, has_failed_sync) = (Mutex::default(), AtomicBool::new(false));
        Ok(Self { path, objects, scratch, locks, durable, has_failed_sync, date })
    }

    pub fn describe(&self) -> String {
        url(&self.path)
    }

    /// Waits for the key's lock, but not for ever: whoever holds it may have been stopped. It is released when the
    /// result is dropped, or the process ends.
    pub fn lock(&self, key: &Key) -> Result<OwnedFd, Failure> {
        let number = blake3::hash(key.as_str().as_bytes()).as_bytes()[0] % DIRECTORY_LOCKS;
        lock_file(&self.locks, &format!("{number:02x}"), LOCK_PATIENCE)
    }

    /// An object that is not found may be missing because the whole store is.
    pub fn check_present(&self, key: &Key) -> Result<(), StoreError> {
        let stat = fstat(&self.objects).doing("look at the store's directory");
        let stat = stat.map_err(|failure| failure.into_store_error(key, StoreErrorKind::Retry))?;
        if stat.st_nlink > 0 {
            return Ok(());
        }
        let message = format!("the store's directory {} has been deleted", self.path.display());
        Err(StoreError::new(StoreErrorKind::Missing, key, message))
    }
}

impl Scratch {
    /// Sweeps what dead processes left, and takes a directory of our own. One opener at a time does this,
    /// or a sweeper could find a directory that is made but not locked yet. Tells also when the store was last
    /// written to, as far as that can be seen: every write goes through `tmp/`.
    fn take(tmp: OwnedFd, locks: &OwnedFd) -> Result<(Self, u64), Failure> {
        let _lock = lock_file(locks, "tmp", OPEN_PATIENCE)?;
        let mut taken = BTreeSet::new();
        let mut newest_micros = modified_micros(&fstat(&tmp).doing("look at the directory for new files")?);
        for name in names(&tmp)? {
            // Whoever has it may be removing it.
            if let Ok(stat) = statat(&tmp, &name, AtFlags::SYMLINK_NOFOLLOW) {
                newest_micros = newest_micros.max(modified_micros(&stat));
            }
            if !sweep(&tmp, &name)? {
                taken.insert(name);
            }
        }
        let name = (0_u64..).map(|n| n.to_string()).find(|name| !taken.contains(name));
        let name = name.expect("BUG: as many processes as numbers");
        let directory = make_directory(&tmp, &name)?;
        retry_on_intr(|| flock(&directory, FlockOperation::NonBlockingLockExclusive))
            .doing("lock the directory for new files")?;
        Ok((Self { directory, next: AtomicU64::new(0), tmp, name }, newest_micros))
    }
}

/// In microseconds since the Unix epoch.
fn modified_micros(stat: &Stat) -> u64 {
    u64::try_from(stat.st_mtime).unwrap_or(0).saturating_mul(1_000_000)
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is swept by whoever opens the store next.
        let _ = unlinkat(&self.tmp, &self.name, AtFlags::REMOVEDIR);
    }
}

/// Removes a directory of `tmp/` if its process is dead. `false` if the name stays in use.
fn sweep(tmp: &OwnedFd, name: &str) -> Result<bool, Failure> {
    let directory = match open_directory(tmp, name) {
        // Not ours.
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(false),
        opened => opened.doing("open the leftovers of a crashed process")?,
    };
    match retry_on_intr(|| flock(&directory, FlockOperation::NonBlockingLockExclusive)) {
        Err(Errno::WOULDBLOCK) => return Ok(false),
        locked => locked.doing("lock the leftovers of a crashed process")?,
    }
    let leftovers = names(&directory)?;
    if !leftovers.is_empty() {
        // An object may be a link to the same file, and then this link is what tells readers that the
        // object's directory is not synced.
        retry_on_intr(|| syncfs(tmp)).doing("sync the file system")?;
    }
    for leftover in &leftovers {
        unlinkat(&directory, leftover, AtFlags::empty()).doing("remove a leftover file")?;
    }
    unlinkat(tmp, name, AtFlags::REMOVEDIR).doing("remove a leftover directory")?;
    tracing::info!(files = leftovers.len(), "removed the unfinished files of a crashed process");
    Ok(true)
}

pub(super) fn open_directory(parent: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    retry_on_intr(|| openat(&parent, name, flags, Mode::empty()))
}

fn make_directory(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Failure> {
    match mkdirat(parent, name, DIRECTORY_MODE) {
        Err(Errno::EXIST) => {}
        made => made.doing("make a directory")?,
    }
    open_directory(parent, name).doing("open a directory of the store")
}

fn lock_file(locks: &OwnedFd, name: &str, patience: Duration) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = retry_on_intr(|| openat(locks, name, flags, FILE_MODE)).doing("open a lock")?;
    let mut waited = Duration::ZERO;
    loop {
        match retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive)) {
            Err(Errno::WOULDBLOCK) if waited < patience => {
                wait(LOCK_PAUSE);
                waited += LOCK_PAUSE;
            }
            taken => {
                taken.doing("take a lock, which another process holds")?;
                return Ok(file);
            }
        }
    }
}

/// The caller is on a thread for blocking work.
#[expect(clippy::disallowed_methods, reason = "a lock of the operating system is not part of any simulation")]
fn wait(time: Duration) {
    std::thread::sleep(time);
}

/// The names in a directory, in no order, without those that are not UTF-8 (and so not ours).
pub(super) fn names(directory: impl AsFd) -> Result<Vec<String>, Failure> {
    let entries = Dir::read_from(directory).doing("read a directory")?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.doing("read a directory")?;
        let name: &CStr = entry.file_name();
        match name.to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => names.push(name.to_owned()),
        }
    }
    Ok(names)
}

fn absolute(root: &Path) -> Result<PathBuf, StoreError> {
    std::path::absolute(root).map_err(|error| {
        StoreError::new(StoreErrorKind::Invalid, url(root), format!("not a usable path: {error}"))
    })
}

fn url(path: &Path) -> String {
    format!("file://{}", path.display())
}

fn open_root(path: &Path) -> Result<OwnedFd, StoreError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let error = |kind, message: &str| StoreError::new(kind, url(path), message);
    match retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty())) {
        Ok(root) => Ok(root),
        Err(Errno::NOENT) => Err(error(
            StoreErrorKind::Missing,
            "there is no such directory: make it (mkdir -p), or mount the disk that has it",
        )),
        Err(Errno::NOTDIR) => Err(error(StoreErrorKind::Invalid, "this is not a directory")),
        Err(errno) => {
            let failure = Failure { errno, doing: "open the directory" };
            Err(failure.into_store_error(url(path), StoreErrorKind::Retry))
        }
    }
}

/// Accepts a store and an empty directory. Anything else is likely a mistake, and we would litter it.
fn refuse_foreign_directories(path: &Path, top: &OwnedFd) -> Result<(), StoreError> {
    let fail = |failure: Failure| failure.into_store_error(url(path), StoreErrorKind::Retry);
    let names = names(top).map_err(fail)?;
    let is_ours = |name: &String| [OBJECTS, TMP, LOCKS, "lost+found"].contains(&name.as_str());
    let foreign = names.iter().find(|name| !is_ours(name));
    match foreign {
        Some(foreign) if !names.iter().any(|name| name == OBJECTS) => {
            let message = format!(
                "this directory is neither empty nor a store of Shoal's (it has {foreign:?} in it): \
                 name an empty or a new directory"
            );
            Err(StoreError::new(StoreErrorKind::Invalid, url(path), message))
        }
        _ => Ok(()),
    }
}

/// Locks are held for a few fsyncs.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// Whoever sweeps what crashed processes left syncs the whole file system once for each of them.
const OPEN_PATIENCE: Duration = Duration::from_secs(20);
const LOCK_PAUSE: Duration = Duration::from_micros(500);

/// The magic numbers that `statfs` gives for file systems whose `link`, `flock` or `fsync` may not reach
/// the disk or other machines, and their names.
const NETWORK_FILE_SYSTEMS: [(u32, &str); 12] = [
    (0x0000_6969, "NFS"),
    (0x0000_517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB"),
    (0x0102_1997, "9P"),
    (0x6573_5546, "FUSE"),
    (0x00C3_6400, "Ceph"),
    (0x5346_414F, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x0116_1970, "GFS2"),
];

fn network_file_system(magic: u32) -> Option<&'static str> {
    NETWORK_FILE_SYSTEMS.iter().find(|(number, _)| *number == magic).map(|(_, name)| *name)
}

fn refuse_network_file_systems(path: &Path, top: &OwnedFd) -> Result<(), StoreError> {
    let fail = |failure: Failure| failure.into_store_error(url(path), StoreErrorKind::Retry);
    let stat = fstatfs(top).doing("ask for the kind of file system").map_err(fail)?;
    // The kernel's field is wider than its magic numbers, and signed on some machines.
    let Some(name) = network_file_system(stat.f_type as u32) else {
        return Ok(());
    };
    let message = format!(
        "this directory is on a network or user-space file system ({name}), where locks and syncs do not \
         hold what commits need: use a local disk, or an S3 store (s3://bucket/prefix)"
    );
    Err(StoreError::new(StoreErrorKind::Invalid, url(path), message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_number() {
        assert_eq!(network_file_system(0x6969), Some("NFS"));
        assert_eq!(network_file_system(0xFF53_4D42), Some("CIFS"));
        let (ext4, tmpfs) = (0xEF53, 0x0102_1994);
        assert_eq!(network_file_system(ext4), None);
        assert_eq!(network_file_system(tmpfs), None);
    }
}
