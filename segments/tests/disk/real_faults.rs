//! Real files that cannot be written or read: a device that is always full, a limit that cuts writes short, and files
//! opened for one direction only. Whatever fails is a miss, and nothing that is not whole in the file is ever found.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use segments::disk::DiskCache;
use segments::disk::file::plain::PlainFile;
use segments::disk::file::ring::RingFile;
use segments::disk::file::{self, CacheFile, DiskIo};

use crate::rig::{Medium, entry, run, seam};

const CAPACITY: u64 = 3 << 20;
const ENTRY_BYTES: usize = 60_000;
const ENTRIES: u64 = 60;
/// Entries that are written together, so that a write is longer than a page.
const TOGETHER: u64 = 3;

/// The back ends that work here, each with a file of its own.
fn files() -> Vec<(DiskIo, Medium)> {
    let all = Medium::all().into_iter();
    all.filter_map(|(_, medium)| match &medium {
        Medium::Simulated(_) => None,
        Medium::File { io, .. } => Some((*io, medium)),
    })
    .collect()
}

fn started(file: File, io: DiskIo) -> Arc<dyn CacheFile> {
    match io {
        DiskIo::Plain => Arc::new(PlainFile::start(file).unwrap()),
        DiskIo::IoUring | DiskIo::Auto => Arc::new(RingFile::start(file).unwrap()),
    }
}

fn path_of(medium: &Medium) -> &Path {
    match medium {
        Medium::File { path, .. } => path,
        Medium::Simulated(_) => unreachable!("a real file was asked for"),
    }
}

async fn cache_of(file: Arc<dyn CacheFile>) -> DiskCache {
    let cache = DiskCache::open(&seam(), file, CAPACITY);
    cache.settle().await;
    cache
}

/// Puts these in, and waits until they are written or given up.
async fn fill(cache: &DiskCache, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let (key, stored) = entry(number, ENTRY_BYTES);
        cache.put(&key, &stored);
        if number % TOGETHER == 0 {
            cache.settle().await;
        }
    }
    cache.settle().await;
}

/// How many of these are there. None of them is wrong.
async fn found(cache: &DiskCache, numbers: std::ops::Range<u64>) -> usize {
    let mut count = 0;
    for number in numbers {
        let (key, stored) = entry(number, ENTRY_BYTES);
        let found = cache.get(&key).await;
        assert!(found.as_ref().is_none_or(|found| *found == stored), "I15: wrong bytes for {number}");
        count += usize::from(found.is_some());
    }
    count
}

/// Its reads are zeros, and its writes find no room.
#[test]
fn a_device_that_is_full_holds_nothing() {
    for (io, _) in files() {
        run(false, async {
            let cache = cache_of(file::open(Path::new("/dev/full"), CAPACITY, io).unwrap()).await;
            for number in 0..ENTRIES {
                fill(&cache, number..number + 1).await;
                assert_eq!(found(&cache, 0..ENTRIES).await, 0, "{io:?}");
            }
            let counters = cache.counters();
            assert!(counters.writes_failed > 0, "{io:?}: {counters:?}");
            assert_eq!((cache.entry_count(), counters.damaged), (0, 0), "{io:?}: {counters:?}");
        });
    }
}

/// Bytes of a process's files, in units that differ from shell to shell. It lies within the capacity, and within a write.
const LIMIT: u64 = 2500;
const UNITS: [u64; 2] = [512, 1024];

/// What tells this program that it has been started by itself, as a process whose files are limited.
const LIMITED: &str = "SHOAL_LIMITED_FILES";

/// The last write that fits is cut short by the kernel, and all later ones are refused.
#[test]
fn a_write_that_is_cut_short_leaves_nothing_that_can_be_found() {
    if std::env::var_os(LIMITED).is_some() {
        return within_a_limit();
    }
    let limited = Command::new("sh")
        .args(["-c", &format!("trap '' XFSZ; ulimit -f {LIMIT} && exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "real_faults::a_write_that_is_cut_short_leaves_nothing_that_can_be_found", "--nocapture"])
        .env(LIMITED, "1")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&limited.stdout), String::from_utf8_lossy(&limited.stderr));
    assert!(limited.status.success() && out.contains("1 passed"), "{out}\n{err}");
    print!("{out}");
}

fn within_a_limit() {
    for (io, medium) in files() {
        run(false, async {
            let cache = medium.open(CAPACITY).await;
            fill(&cache, 0..ENTRIES).await;
            let counters = cache.counters();
            assert!(counters.writes_failed > 0, "{io:?}: {counters:?}");
            let kept = found(&cache, 0..ENTRIES).await;
            assert!(kept > 0 && (kept as u64) < ENTRIES, "{io:?}: {kept} entries");
            assert_eq!(cache.counters().damaged, 0, "{io:?}: a write that failed was believed");
            drop(cache);

            // The last write has left a piece of itself: the file is as long as it may be.
            let length = fs::metadata(path_of(&medium)).unwrap().len();
            assert!(UNITS.map(|unit| unit * LIMIT).contains(&length), "{io:?}: {length} bytes");
            let again = medium.open(CAPACITY).await;
            assert_eq!(found(&again, 0..ENTRIES).await, kept, "{io:?}: what is whole in the file, and nothing else");
            assert_eq!(again.counters().damaged, 0, "{io:?}: half a batch was taken for a whole one");
        });
        println!("disk: writes were cut short, {io:?}");
    }
}

/// Each write is an error, and each read is right.
#[test]
fn a_file_that_cannot_be_written_is_read_on() {
    for (io, medium) in files() {
        run(false, async {
            fill(&medium.open(CAPACITY).await, 0..20).await;
            let cache = cache_of(started(File::open(path_of(&medium)).unwrap(), io)).await;
            assert_eq!(found(&cache, 0..20).await, 20, "{io:?}");
            fill(&cache, 100..120).await;
            assert_eq!((found(&cache, 0..20).await, found(&cache, 100..120).await), (20, 0), "{io:?}");
            let counters = cache.counters();
            assert!(counters.writes_failed > 0 && counters.damaged == 0, "{io:?}: {counters:?}");
        });
    }
}

/// Each read is an error, and what is written meanwhile is there when the file can be read again.
#[test]
fn a_file_that_cannot_be_read_is_all_misses() {
    for (io, medium) in files() {
        run(false, async {
            fill(&medium.open(CAPACITY).await, 0..20).await;
            let file = OpenOptions::new().write(true).open(path_of(&medium)).unwrap();
            let cache = cache_of(started(file, io)).await;
            assert_eq!(found(&cache, 0..20).await, 0, "{io:?}");
            fill(&cache, 100..104).await;
            assert_eq!(found(&cache, 100..104).await, 0, "{io:?}");
            let counters = cache.counters();
            assert!(counters.reads_failed > 0 && counters.damaged == 0, "{io:?}: {counters:?}");
            drop(cache);
            let again = medium.open(CAPACITY).await;
            assert_eq!(found(&again, 100..104).await, 4, "{io:?}");
            assert_eq!(again.counters().damaged, 0, "{io:?}");
        });
    }
}
