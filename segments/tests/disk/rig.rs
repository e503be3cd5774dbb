//! A cache on some medium, entries for it, and ways to change the file behind its back.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use segments::disk::file::simulated::{DiskFaults, SimulatedDisk};
use segments::disk::file::{self, DiskIo};
use segments::disk::{CacheKey, DiskCache};
use segments::id::{MapChunkId, PackId};
use segments::keys::Object;
use walstore::id::DatabaseId;
use walstore::seam::simulated::split_mix64;
use walstore::seam::{Clock, Random, Seam};

/// Four databases share the cache.
pub const DATABASES: u64 = 4;

/// When this is `1`, tests that want io_uring fail without it.
const REQUIRE_VARIABLE: &str = "SHOAL_REQUIRE_IO_URING";

/// Where the file is.
pub enum Medium {
    Simulated(SimulatedDisk),
    File { _directory: tempfile::TempDir, path: PathBuf, io: DiskIo },
}

impl Medium {
    pub fn simulated(seed: u64) -> Self {
        Self::Simulated(SimulatedDisk::new(seed))
    }

    pub fn file(io: DiskIo) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pages");
        Self::File { _directory: directory, path, io }
    }

    /// One of each, with its name. Where io_uring is forbidden there is none to test, and it is said aloud; unless
    /// `SHOAL_REQUIRE_IO_URING` is `1`: then that fails.
    pub fn all() -> Vec<(&'static str, Self)> {
        let mut all = vec![("simulated", Self::simulated(1)), ("plain", Self::file(DiskIo::Plain))];
        let ring = Self::file(DiskIo::IoUring);
        let Self::File { path, io, .. } = &ring else { unreachable!() };
        match file::open(path, 1 << 20, *io) {
            Ok(_) => all.push(("io_uring", ring)),
            Err(error) => {
                let is_required = std::env::var_os(REQUIRE_VARIABLE).is_some_and(|value| value == "1");
                assert!(!is_required, "{REQUIRE_VARIABLE}=1, but io_uring does not work here: {error}");
                println!("disk: io_uring is NOT tested, because it does not work here: {error}");
            }
        }
        all
    }

    /// A life of a node with this cache, once it knows what is there.
    pub async fn open(&self, capacity_bytes: u64) -> DiskCache {
        let seam = seam();
        let file = match self {
            Self::Simulated(disk) => disk.open(&seam, DiskFaults::default(), Arc::new(|_, _| {})),
            Self::File { path, io, .. } => file::open(path, capacity_bytes, *io).unwrap(),
        };
        let cache = DiskCache::open(&seam, file, capacity_bytes);
        cache.settle().await;
        cache
    }

    /// Changes the content of the file.
    pub fn edit(&self, change: impl FnOnce(&mut Vec<u8>)) {
        match self {
            Self::Simulated(disk) => disk.edit(change),
            Self::File { path, .. } => {
                let mut bytes = fs::read(path).unwrap();
                change(&mut bytes);
                // In place: an open file must see it.
                let file = fs::OpenOptions::new().write(true).open(path).unwrap();
                file.set_len(bytes.len() as u64).unwrap();
                std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
            }
        }
    }

    pub fn bytes(&self) -> u64 {
        match self {
            Self::Simulated(disk) => disk.edit(|bytes| bytes.len() as u64),
            Self::File { path, .. } => fs::metadata(path).unwrap().len(),
        }
    }
}

/// Runs a test on tokio's own time, which may be paused.
pub fn run<T>(is_paused: bool, test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(is_paused).build();
    runtime.unwrap().block_on(test)
}

pub fn seam() -> Seam {
    Seam::new(Arc::new(TokioClock(tokio::time::Instant::now())), Arc::new(NoRandom), {
        Arc::new(tokio::runtime::Handle::current())
    })
}

struct TokioClock(tokio::time::Instant);

impl Clock for TokioClock {
    fn wall_micros(&self) -> u64 {
        self.boot_micros()
    }

    fn boot_micros(&self) -> u64 {
        self.0.elapsed().as_micros() as u64 + 1
    }
}

struct NoRandom;

impl Random for NoRandom {
    fn fill(&self, _: &mut [u8]) {
        unreachable!("a cache draws nothing");
    }
}

/// Entry `number`: in the databases by turns; every eighth is a chunk of a page map. Its bytes follow from its number.
pub fn entry(number: u64, bytes: usize) -> (CacheKey, Bytes) {
    let mut rng = Rng(number ^ (bytes as u64) << 32);
    let stored: Bytes = (0..bytes.div_ceil(8)).flat_map(|_| rng.next().to_le_bytes()).take(bytes).collect();
    let owner = DatabaseId::from_bytes([(number % DATABASES) as u8 + 1; 16]);
    let (seq, nonce) = (number as u32, number * 7);
    let object = match number % 8 {
        7 => Object::MapChunk(MapChunkId { owner, epoch: 1, seq, nonce }),
        _ => Object::Pack(PackId { owner, epoch: 1, seq, nonce }),
    };
    let offset = if number % 8 == 7 { 0 } else { 16 + number as u32 * 1_000 };
    let key = CacheKey { object, offset, bytes: bytes as u32, crc: crc32c::crc32c(&stored) };
    (key, stored)
}

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        split_mix64(&mut self.0)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

pub fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a number")))
}
