//! Which entry goes where, and what goes to make room. Pure: the caller reads and writes.
//!
//! A region is in one of these states:
//!
//! ```text
//!   (not in the file yet) ──▶ filling ──full──▶ in `order` ──oldest──▶ evicting ──▶ free ──▶ filling
//!                                └─────write failed─────▶ free, or as far as it was written in `order`
//! ```

use std::collections::VecDeque;

use bytes::Bytes;

use super::batch::{self, Batch, BatchAt, OpenBatch};
use super::geometry::Geometry;
use super::index::{Index, Place};
use super::key::CacheKey;
use super::scan::FoundRegion;
use super::slot;
use crate::limits;

#[derive(Default)]
struct Region {
    seq: u64,
    /// Bytes from its start that were handed to the file.
    filled: u32,
    /// What was put there. Entries that are elsewhere by now are still listed.
    hashes: Vec<u64>,
}

/// The region that is being filled.
#[derive(Clone, Copy)]
struct Filling {
    region: u32,
    seq: u64,
    /// Where its next batch begins.
    next: u32,
}

/// See the module documentation.
pub(super) struct Placement {
    geometry: Geometry,
    index: Index,
    /// Those in the file, by number.
    regions: Vec<Region>,
    /// Full regions, the oldest first.
    order: VecDeque<u32>,
    free: Vec<u32>,
    /// Of the region that was opened last.
    seq: u64,
    /// The file may have so many regions. Less than the geometry's while the disk is full.
    region_limit: u32,
    filling: Option<Filling>,
    open: Option<OpenBatch>,
    /// Sealed and not written yet, the oldest first.
    writing: VecDeque<Batch>,
    is_evicting: bool,
    /// Entries are taken once it is known what is in the file.
    is_ready: bool,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    Taken,
    /// It is here already.
    Known,
    /// The cache is full, and the disk behind.
    Refused,
}

/// Where an entry is to be read.
pub(super) enum Found {
    Memory(Bytes),
    File { at: u64, place: Place },
}

/// A region whose content goes.
pub(super) struct Eviction {
    pub region: u32,
    /// Bytes of it to read, in which the kept ones are; none if nothing is kept.
    pub read_bytes: u32,
    /// Where the slots are that are put in again, and how often they were used.
    pub kept: Vec<Place>,
}

impl Placement {
    pub fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            index: Index::new(),
            regions: Vec::new(),
            order: VecDeque::new(),
            free: Vec::new(),
            seq: 0,
            region_limit: geometry.region_count(),
            filling: None,
            open: None,
            writing: VecDeque::new(),
            is_evicting: false,
            is_ready: false,
        }
    }

    pub fn entry_count(&self) -> usize {
        self.index.len()
    }

    /// Bytes of memory for the index, the lists, and what is not written yet.
    pub fn memory_bytes(&self) -> usize {
        let lists: usize = self.regions.iter().map(|region| region.hashes.capacity() * size_of::<u64>()).sum();
        let regions = self.regions.capacity() * size_of::<Region>();
        let open = self.open.as_ref().map_or(0, OpenBatch::memory_bytes);
        let writing: usize = self.writing.iter().map(|batch| batch.bytes.len()).sum();
        self.index.memory_bytes() + lists + regions + open + writing
    }

    /// The next region of the file, as it was found at the start.
    pub fn add_found(&mut self, found: FoundRegion) {
        let region = self.regions.len() as u32;
        if found.entries.is_empty() {
            self.free.push(region);
            self.regions.push(Region::default());
            return;
        }
        let mut hashes = Vec::with_capacity(found.entries.len());
        for entry in &found.entries {
            // Without a region in the list it is in this very one.
            let older = self.index.get(entry.hash).and_then(|place| self.regions.get(place.region as usize));
            if older.is_none_or(|older| older.seq <= found.seq) {
                self.index.insert(entry.hash, Place { region, offset: entry.offset, uses: 0 });
            }
            hashes.push(entry.hash);
        }
        self.regions.push(Region { seq: found.seq, filled: found.filled, hashes });
        self.order.push_back(region);
    }

    /// All that is in the file has been found.
    pub fn ready(&mut self) {
        let seq_of = |region: &u32| self.regions[*region as usize].seq;
        self.order.make_contiguous().sort_by_key(seq_of);
        self.seq = self.order.back().map_or(0, seq_of);
        self.is_ready = true;
    }

    /// Where the entry is, if it is anywhere. Counts as a use.
    pub fn find(&mut self, hash: u64, key: &CacheKey) -> Option<Found> {
        let place = self.index.get(hash)?;
        self.index.touch(hash);
        let bytes = slot::slot_bytes(key);
        let open = self.open.iter().filter(|open| open.at.region == place.region);
        let writing = self.writing.iter().filter(|batch| batch.at.region == place.region);
        let in_memory = open.map(|open| open.read(place.offset, bytes));
        let in_memory = in_memory.chain(writing.map(|batch| batch.read(place.offset, bytes))).flatten().next();
        if let Some(slot) = in_memory {
            return Some(Found::Memory(slot));
        }
        let is_inside = place.offset as usize + bytes <= self.geometry.region_bytes() as usize;
        let at = self.geometry.start(place.region) + u64::from(place.offset);
        is_inside.then_some(Found::File { at, place })
    }

    /// Whether an entry still is where it was.
    pub fn is_at(&self, hash: u64, place: Place) -> bool {
        self.index.get(hash).is_some_and(|now| now.is_at(place.region, place.offset))
    }

    /// Forgets an entry that is not what it should be.
    pub fn forget(&mut self, hash: u64, place: Place) {
        if self.is_at(hash, place) {
            self.index.remove(hash);
        }
    }

    /// Takes an entry into the open batch. `stored` fits the key.
    pub fn put(&mut self, hash: u64, key: &CacheKey, stored: &[u8]) -> Put {
        if self.index.get(hash).is_some() {
            return Put::Known;
        }
        self.place(hash, key, stored, 0)
    }

    fn place(&mut self, hash: u64, key: &CacheKey, stored: &[u8], uses: u8) -> Put {
        let alone = batch::bytes_alone(key);
        if !self.is_ready || alone > self.geometry.region_bytes() as usize / 2 {
            return Put::Refused;
        }
        if self.open.as_ref().is_some_and(|open| !self.has_room(open, key)) {
            self.seal_open();
        }
        if self.open.is_none() {
            self.open = self.open_batch(alone);
        }
        let Some(open) = &mut self.open else { return Put::Refused };
        let offset = open.append(hash, key, stored);
        let region = open.at.region;
        self.regions[region as usize].hashes.push(hash);
        self.index.insert(hash, Place { region, offset, uses });
        Put::Taken
    }

    fn has_room(&self, open: &OpenBatch, key: &CacheKey) -> bool {
        let bytes = open.bytes_with(key);
        bytes <= self.geometry.batch_bytes() && bytes <= (self.geometry.region_bytes() - open.at.offset) as usize
    }

    /// A batch with room for one of so many bytes.
    fn open_batch(&mut self, bytes: usize) -> Option<OpenBatch> {
        let waiting: usize = self.writing.iter().map(|batch| batch.bytes.len()).sum();
        if waiting >= limits::WRITING_BYTES_MAX {
            return None;
        }
        let fits = |filling: &Filling| bytes <= (self.geometry.region_bytes() - filling.next) as usize;
        if !self.filling.as_ref().is_some_and(fits) {
            self.open_region()?;
        }
        let Filling { region, seq, next } = self.filling.expect("BUG: opened above");
        let at = BatchAt { region_bytes: self.geometry.region_bytes(), region, seq, offset: next };
        Some(OpenBatch::new(at, self.geometry.batch_bytes().max(bytes)))
    }

    /// Begins to fill the next region, if there is one.
    fn open_region(&mut self) -> Option<()> {
        let fresh = self.regions.len() as u32;
        let region = match self.free.pop() {
            Some(region) => region,
            None if fresh < self.region_limit => {
                self.regions.push(Region::default());
                fresh
            }
            None => return None,
        };
        if let Some(full) = self.filling.take() {
            self.close(full.region);
        }
        self.seq += 1;
        self.regions[region as usize].seq = self.seq;
        self.filling = Some(Filling { region, seq: self.seq, next: 0 });
        Some(())
    }

    fn close(&mut self, region: u32) {
        self.regions[region as usize].hashes.shrink_to_fit();
        self.order.push_back(region);
    }

    /// Hands the open batch to the writer.
    pub fn seal_open(&mut self) {
        let Some(open) = self.open.take() else { return };
        let batch = open.seal();
        if let Some(filling) = self.filling.as_mut().filter(|filling| filling.region == batch.at.region) {
            filling.next = batch.end();
        }
        self.writing.push_back(batch);
    }

    pub fn next_write(&self) -> Option<(u64, Batch)> {
        let batch = self.writing.front()?;
        Some((self.geometry.start(batch.at.region) + u64::from(batch.at.offset), batch.clone()))
    }

    /// The first batch is in the file.
    pub fn written(&mut self) {
        if let Some(batch) = self.writing.pop_front() {
            let region = &mut self.regions[batch.at.region as usize];
            region.filled = region.filled.max(batch.end());
        }
    }

    /// The first batch could not be written: everything of its region that is still in memory is forgotten. If the
    /// disk is full, the file stays as large as it is. Answers whether it may go on at once, in regions that it has.
    pub fn write_failed(&mut self, is_full: bool) -> bool {
        let Some(failed) = self.writing.front().map(|batch| batch.at.region) else { return false };
        let (mut lost, others): (Vec<Batch>, Vec<Batch>) =
            self.writing.drain(..).partition(|batch| batch.at.region == failed);
        self.writing = others.into();
        lost.extend(self.open.take_if(|open| open.at.region == failed).map(OpenBatch::seal));
        for entry in lost.iter().flat_map(|batch| batch.directory.iter()) {
            if self.index.get(entry.hash).is_some_and(|place| place.is_at(failed, entry.offset)) {
                self.index.remove(entry.hash);
            }
        }
        self.order.retain(|region| *region != failed);
        self.filling.take_if(|filling| filling.region == failed);
        let is_empty = self.regions[failed as usize].filled == 0;
        // Where the file grows, or, where it has holes, the place to give it up.
        let is_last = failed as usize + 1 == self.regions.len();
        if is_last && is_empty {
            self.regions.pop();
        } else if is_empty {
            self.regions[failed as usize].hashes = Vec::new();
            self.free.push(failed);
        } else {
            self.close(failed);
        }
        if is_full && is_last {
            self.region_limit = self.regions.len() as u32;
        }
        is_full && is_last && self.region_limit >= limits::REGIONS_MIN
    }

    /// The disk may have room again.
    pub fn grow_again(&mut self) {
        self.region_limit = self.geometry.region_count();
    }

    /// Whether a region has to be emptied: there are too few left to fill after the present one. Where there are many,
    /// one is kept for what is put in again.
    pub fn needs_eviction(&self) -> bool {
        let fresh = (self.region_limit as usize).saturating_sub(self.regions.len());
        let reserve = if self.region_limit < limits::REGIONS_FEW { 1 } else { 2 };
        self.is_ready && !self.is_evicting && !self.order.is_empty() && self.free.len() + fresh < reserve
    }

    /// The next region to be emptied, if one has to be.
    pub fn plan_eviction(&mut self) -> Option<Eviction> {
        if !self.needs_eviction() {
            return None;
        }
        let region = self.order.pop_front()?;
        self.is_evicting = true;
        let places = self.regions[region as usize].hashes.iter().filter_map(|hash| self.index.get(*hash));
        let kept: Vec<Place> = places.filter(|place| place.region == region && place.uses > 0).collect();
        let read_bytes = if kept.is_empty() { 0 } else { self.regions[region as usize].filled };
        Some(Eviction { region, read_bytes, kept })
    }

    /// Empties a region, of which `bytes` were read, and puts in again what is kept. Answers of how many entries.
    pub fn evict(&mut self, eviction: &Eviction, bytes: &Bytes) -> u64 {
        let mut room = self.geometry.region_bytes() as usize / 4 * 3;
        let mut kept = 0;
        for place in &eviction.kept {
            let Some((key, stored)) = read_slot(bytes, place.offset) else { continue };
            let hash = key.hash();
            let Some(more) = room.checked_sub(slot::slot_bytes(&key)) else { break };
            if self.is_at(hash, *place) && self.place(hash, &key, &stored, place.uses / 2) == Put::Taken {
                room = more;
                kept += 1;
            }
        }
        for hash in std::mem::take(&mut self.regions[eviction.region as usize].hashes) {
            if self.index.get(hash).is_some_and(|place| place.region == eviction.region) {
                self.index.remove(hash);
            }
        }
        self.regions[eviction.region as usize] = Region::default();
        self.free.push(eviction.region);
        self.is_evicting = false;
        kept
    }
}

/// The slot at `offset` of a region, whatever its key.
fn read_slot(region: &Bytes, offset: u32) -> Option<(CacheKey, Bytes)> {
    let slot = region.get(offset as usize..).map(|_| region.slice(offset as usize..))?;
    let key = slot::read_key(&slot)?;
    let whole = slot::slot_bytes(&key);
    let slot = (whole <= slot.len()).then(|| slot.slice(..whole))?;
    slot::open(&slot, &key).map(|stored| (key, stored))
}
