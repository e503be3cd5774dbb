//! The cache itself: what is read when, written when, and what happens when the disk fails.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tracing::{info, warn};
use walstore::seam::Seam;

use super::counters::{Counters, Counting, add};
use super::file::CacheFile;
use super::geometry::Geometry;
use super::health::Health;
use super::index::Place;
use super::key::CacheKey;
use super::placement::{Eviction, Found, Placement, Put};
use super::scan;
use super::slot;
use crate::limits;

/// Stored bytes on the local disk, of all databases of a node. Cloning shares it.
#[derive(Clone)]
pub struct DiskCache(Option<Arc<Inner>>);

struct Inner {
    disk: Disk,
    geometry: Geometry,
    state: Mutex<State>,
    /// Told whenever the writer has nothing left to do.
    idle: Notify,
}

/// The file, with everything counted and nothing waited for without end.
pub(super) struct Disk {
    seam: Seam,
    file: Arc<dyn CacheFile>,
    counting: Counting,
}

struct State {
    placement: Placement,
    reads: Health,
    writes: Health,
    /// When a file that had to stop growing may grow again.
    grow_at: Option<u64>,
    is_full_reported: bool,
    /// No report of damage before.
    report_at: u64,
    is_writing: bool,
    is_timed: bool,
    is_scanned: bool,
}

impl Disk {
    pub async fn read(&self, at: u64, bytes: usize) -> io::Result<Bytes> {
        add(&self.counting.reads, 1);
        let read = self.within(limits::DISK_READ_PATIENCE, self.file.read(at, bytes)).await;
        match &read {
            Ok(read) => add(&self.counting.bytes_read, read.len() as u64),
            Err(_) => add(&self.counting.reads_failed, 1),
        }
        read
    }

    async fn write(&self, at: u64, bytes: Bytes) -> io::Result<()> {
        add(&self.counting.writes, 1);
        add(&self.counting.bytes_written, bytes.len() as u64);
        let written = self.within(limits::DISK_WRITE_PATIENCE, self.file.write(at, bytes)).await;
        if written.is_err() {
            add(&self.counting.writes_failed, 1);
        }
        written
    }

    async fn within<T>(&self, patience: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        tokio::select! {
            biased;
            done = work => done,
            () = self.seam.sleep(patience) => Err(io::Error::new(io::ErrorKind::TimedOut, "the disk does not answer")),
        }
    }
}

impl DiskCache {
    /// A cache that never has anything.
    pub fn absent() -> Self {
        Self(None)
    }

    /// Begins to read what is in the file, and answers meanwhile. Absent if `capacity_bytes` are too few.
    pub fn open(seam: &Seam, file: Arc<dyn CacheFile>, capacity_bytes: u64) -> Self {
        let Some(geometry) = Geometry::of_capacity(capacity_bytes) else { return Self::absent() };
        let state = State {
            placement: Placement::new(geometry),
            reads: Health::new(limits::DISK_FAILURES_MAX),
            writes: Health::new(1),
            grow_at: None,
            is_full_reported: false,
            report_at: 0,
            is_writing: false,
            is_timed: false,
            is_scanned: false,
        };
        let disk = Disk { seam: seam.clone(), file, counting: Counting::default() };
        let inner = Arc::new(Inner { disk, geometry, state: Mutex::new(state), idle: Notify::new() });
        seam.spawn(inner.clone().scan());
        Self(Some(inner))
    }

    /// The stored bytes, checked against the key. `None` is a miss, for whatever reason.
    pub async fn get(&self, key: &CacheKey) -> Option<Bytes> {
        let inner = self.0.as_ref()?;
        let found = inner.look_up(key).await;
        let counting = &inner.disk.counting;
        add(if found.is_some() { &counting.hits } else { &counting.misses }, 1);
        found
    }

    /// Keeps a copy of bytes that came from the bucket, or went there. Never waits; may keep nothing.
    pub fn put(&self, key: &CacheKey, stored: &Bytes) {
        if key.fits(stored) {
            self.put_checked(key, stored);
        }
    }

    /// The same of bytes that were checked by the key's checksum. (If they were not, what they come to is a miss.)
    pub fn put_checked(&self, key: &CacheKey, stored: &[u8]) {
        if let Some(inner) = self.0.as_ref().filter(|_| stored.len() == key.bytes as usize) {
            inner.put(key, stored);
        }
    }

    /// Waits until the file has been read at the start, and all that was put in has been written, or given up.
    pub async fn settle(&self) {
        let Some(inner) = &self.0 else { return };
        loop {
            let idle = inner.idle.notified();
            {
                let mut state = inner.lock();
                state.placement.seal_open();
                inner.keep_writing(&mut state);
                if state.is_scanned && !state.is_writing {
                    return;
                }
            }
            idle.await;
        }
    }

    pub fn counters(&self) -> Counters {
        self.0.as_ref().map_or_else(Counters::default, |inner| inner.disk.counting.read())
    }

    pub fn entry_count(&self) -> usize {
        self.0.as_ref().map_or(0, |inner| inner.lock().placement.entry_count())
    }

    /// Memory that it takes at the moment: its index, and what is not written yet.
    pub fn memory_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |inner| inner.lock().placement.memory_bytes())
    }

    /// The most that the file grows to.
    pub fn file_bytes_max(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.geometry.file_bytes())
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        self.disk.seam.boot_micros()
    }

    /// Rebuilds the index from the file.
    async fn scan(self: Arc<Self>) {
        let regions = self.disk.file.bytes().div_ceil(u64::from(self.geometry.region_bytes()));
        let regions = regions.min(u64::from(self.geometry.region_count())) as u32;
        let mut failures = 0;
        for region in 0..regions {
            let mut found = scan::FoundRegion::default();
            if failures < limits::DISK_FAILURES_MAX {
                match scan::region(&self.disk, self.geometry, region).await {
                    Ok(whole) => found = whole,
                    Err(_) => failures += 1,
                }
            }
            add(&self.disk.counting.entries_found, found.entries.len() as u64);
            self.lock().placement.add_found(found);
        }
        let mut state = self.lock();
        state.placement.ready();
        state.is_scanned = true;
        info!(regions, entries = state.placement.entry_count(), "the disk cache knows what it has");
        self.keep_writing(&mut state);
        self.idle.notify_waiters();
    }

    async fn look_up(&self, key: &CacheKey) -> Option<Bytes> {
        let hash = key.hash();
        let (at, place) = {
            let mut state = self.lock();
            match state.placement.find(hash, key)? {
                Found::Memory(slot) => return slot::open(&slot, key),
                Found::File { at, place } if state.reads.may_try(self.now()) => (at, place),
                Found::File { .. } => return None,
            }
        };
        match self.disk.read(at, slot::slot_bytes(key)).await {
            Err(error) => {
                self.read_failed(hash, place, &error);
                None
            }
            Ok(slot) => {
                if self.lock().reads.succeeded() {
                    info!("the disk cache can be read again");
                }
                let stored = slot::open(&slot, key);
                if stored.is_none() {
                    self.damaged(hash, place, key);
                }
                stored
            }
        }
    }

    fn read_failed(&self, hash: u64, place: Place, error: &io::Error) {
        // The disk is behind, not broken.
        if error.kind() == io::ErrorKind::WouldBlock {
            return;
        }
        let now = self.now();
        let mut state = self.lock();
        state.placement.forget(hash, place);
        if state.reads.failed(now) {
            warn!(%error, "cannot read the disk cache; what is missing comes from the bucket. Look at the disk of --cache-dir");
        }
    }

    /// A slot did not hold what was asked for. If it has been given to others meanwhile, nothing is wrong with that.
    fn damaged(&self, hash: u64, place: Place, key: &CacheKey) {
        let now = self.now();
        let mut state = self.lock();
        if !state.placement.is_at(hash, place) {
            return;
        }
        state.placement.forget(hash, place);
        add(&self.disk.counting.damaged, 1);
        if now >= state.report_at {
            state.report_at = now + limits::DAMAGE_REPORT_EVERY.as_micros() as u64;
            let damaged = self.disk.counting.read().damaged;
            warn!(damaged, object = ?key.object, "an entry of the disk cache is damaged; it is fetched again");
        }
    }

    fn put(self: &Arc<Self>, key: &CacheKey, stored: &[u8]) {
        let (hash, now) = (key.hash(), self.now());
        let mut state = self.lock();
        if !state.writes.may_try(now) {
            return add(&self.disk.counting.refused, 1);
        }
        if state.grow_at.take_if(|at| now >= *at).is_some() {
            state.placement.grow_again();
        }
        match state.placement.put(hash, key, stored) {
            Put::Known => return,
            Put::Taken => add(&self.disk.counting.puts, 1),
            Put::Refused => add(&self.disk.counting.refused, 1),
        }
        self.keep_writing(&mut state);
        if !std::mem::replace(&mut state.is_timed, true) {
            self.disk.seam.spawn(self.clone().seal_later());
        }
    }

    /// An entry does not wait longer than this for others to be written with.
    async fn seal_later(self: Arc<Self>) {
        self.disk.seam.sleep(limits::BATCH_AGE_MAX).await;
        let mut state = self.lock();
        state.is_timed = false;
        state.placement.seal_open();
        self.keep_writing(&mut state);
    }

    fn keep_writing(self: &Arc<Self>, state: &mut State) {
        let has_work = state.placement.next_write().is_some() || state.placement.needs_eviction();
        if has_work && !std::mem::replace(&mut state.is_writing, true) {
            self.disk.seam.spawn(self.clone().write());
        }
    }

    /// Writes what is sealed, and makes room for more.
    async fn write(self: Arc<Self>) {
        loop {
            let (write, eviction) = {
                let mut state = self.lock();
                let write = state.placement.next_write();
                let eviction = if write.is_none() { state.placement.plan_eviction() } else { None };
                if write.is_none() && eviction.is_none() {
                    state.is_writing = false;
                    self.idle.notify_waiters();
                    return;
                }
                (write, eviction)
            };
            if let Some((at, batch)) = write {
                let written = self.disk.write(at, batch.bytes).await;
                self.wrote(written);
            }
            if let Some(eviction) = eviction {
                self.evict(eviction).await;
            }
        }
    }

    fn wrote(&self, written: io::Result<()>) {
        let now = self.now();
        let mut state = self.lock();
        let Err(error) = written else {
            state.placement.written();
            state.is_full_reported &= state.grow_at.is_some();
            if state.writes.succeeded() {
                info!("the disk cache is written again");
            }
            return;
        };
        let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let goes_on = state.placement.write_failed(is_full);
        if is_full && !std::mem::replace(&mut state.is_full_reported, true) {
            warn!("the disk of --cache-dir is full; the disk cache stays as it is. Make room, or lower --cache-size");
        }
        state.grow_at = is_full.then(|| now + limits::GROW_AGAIN_AFTER.as_micros() as u64);
        if !goes_on && state.writes.failed(now) && !is_full {
            warn!(%error, "cannot write the disk cache; it is left alone for a while. Look at the disk of --cache-dir");
        }
    }

    async fn evict(&self, eviction: Eviction) {
        let mut bytes = Bytes::new();
        if eviction.read_bytes > 0 {
            let start = self.geometry.start(eviction.region);
            // What can't be read is not kept.
            bytes = self.disk.read(start, eviction.read_bytes as usize).await.unwrap_or_default();
        }
        let kept = self.lock().placement.evict(&eviction, &bytes);
        add(&self.disk.counting.regions_evicted, 1);
        add(&self.disk.counting.entries_kept, kept);
    }
}
