//! The **page map**: where every page of a database is, as of one LSN.
//!
//! Two kinds of sources:
//! - **deltas**, newest first: packs with single pages as of an LSN. Each has a [`FrameIndex`], which small
//!   deltas repeat here and which others keep in their pack.
//! - **segments**: for each segment the frame that holds it whole, as of an LSN. They are kept in **chunks** of
//!   [`limits::CHUNK_SEGMENTS`], each a part of the head or an object of its own.
//!
//! # Look-up
//! The source with the highest LSN wins; of equal ones the segment, which a merge wrote over the delta.
//! Neither speaks for pages that a shrink cut off: a delta ends at its `valid_upto`, a segment at its
//! number of valid pages. [`PageMap::truncate`] lowers both, so that such a page never comes back when the
//! database grows again. A page inside the database without a source is data loss, never zeros.
//!
//! A page map is a value: changes make a new one that shares what they left alone, so a reader keeps the map of
//! its snapshot while folds go on.
//!
//! ```text
//!   decode(root) ──▶ PageMap ──lookup──▶ NeedChunk ──with_chunk──▶ … NeedIndexes ──▶ Found(Source)
//!                       │
//!                    fold (crate::fold) ──▶ new PageMap ──store──▶ chunk objects, then root in the head's CAS
//! ```

mod chunk;
mod codec;
mod delta;
mod lookup;
mod sources;
mod update;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use chunk::{MapChunkRef, SegmentRef};
pub use codec::StoredMap;
pub use delta::DeltaRef;
pub use lookup::{Lookup, Source};
pub use sources::SegmentSources;
use walstore::id::Lsn;

pub(crate) use self::chunk::Chunk;
pub(crate) use self::delta::Delta;
use crate::id::{MapChunkId, PackId};
use crate::limits;
use crate::pack::FrameIndex;
use crate::page::SegmentNo;

/// See the module documentation. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageMap {
    lsn: Option<Lsn>,
    page_count: u32,
    /// Newest first.
    deltas: Arc<[Delta]>,
    /// One for every started [`limits::CHUNK_SEGMENTS`] of the database.
    chunks: Arc<[ChunkSlot]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ChunkSlot {
    /// In memory; also as an object, unless it changed since it was read.
    Resident { chunk: Arc<Chunk>, stored: Option<MapChunkRef> },
    /// Only as an object.
    Stored(MapChunkRef),
}

/// Gives the index of a delta, if it is in memory.
pub type Indexes<'a> = &'a dyn Fn(&DeltaRef) -> Option<Arc<FrameIndex>>;

impl PageMap {
    /// The map of a database before its first fold.
    pub fn empty() -> Self {
        Self { lsn: None, page_count: 0, deltas: Arc::new([]), chunks: Arc::new([]) }
    }

    /// The last commit that is folded.
    pub fn lsn(&self) -> Option<Lsn> {
        self.lsn
    }

    /// Size of the database as of [`lsn`](Self::lsn).
    pub fn page_count(&self) -> u32 {
        self.page_count
    }

    /// Newest first. Whoever opens a database may read their indexes at once, in parallel.
    pub fn deltas(&self) -> impl ExactSizeIterator<Item = &DeltaRef> {
        self.deltas.iter().map(|delta| &delta.reference)
    }

    /// The chunks that are not in memory.
    pub fn missing_chunks(&self) -> Vec<MapChunkRef> {
        let missing = self.chunks.iter().filter_map(|slot| match slot {
            ChunkSlot::Stored(reference) => Some(*reference),
            ChunkSlot::Resident { .. } => None,
        });
        missing.collect()
    }

    /// The objects that this map consists of besides its root. What an older map lists and a newer does not is
    /// garbage, once the newer is linked and the older forgotten.
    pub fn chunk_ids(&self) -> BTreeSet<MapChunkId> {
        let ids = self.chunks.iter().filter_map(|slot| match slot {
            ChunkSlot::Stored(reference) => Some(reference.id),
            ChunkSlot::Resident { stored, .. } => stored.map(|reference| reference.id),
        });
        ids.collect()
    }

    /// Every pack that this map refers to; `None` while [chunks are missing](Self::missing_chunks).
    pub fn packs(&self) -> Option<BTreeSet<PackId>> {
        let mut packs: BTreeSet<PackId> = self.deltas().map(|delta| delta.pack).collect();
        for slot in self.chunks.iter() {
            match slot {
                ChunkSlot::Resident { chunk, .. } => packs.extend(chunk.packs()),
                ChunkSlot::Stored(_) => return None,
            }
        }
        Some(packs)
    }

    /// Where `segment` stands whole, if anywhere; an error asks for its chunk.
    pub(crate) fn segment(&self, segment: SegmentNo) -> Result<Option<SegmentRef>, MapChunkRef> {
        match self.chunks.get(chunk_of(segment)) {
            None => Ok(None),
            Some(ChunkSlot::Stored(reference)) => Err(*reference),
            Some(ChunkSlot::Resident { chunk, .. }) => Ok(chunk.get(segment)),
        }
    }

    /// Stored length of everything that this map refers to, but for the segments in `without`; `None` while chunks
    /// are missing.
    pub(crate) fn stored_bytes(&self, without: &dyn Fn(SegmentNo) -> bool) -> Option<u64> {
        let mut bytes: u64 = self.deltas().map(|delta| u64::from(delta.frames_bytes)).sum();
        let count = SegmentNo::count_of(self.page_count);
        for segment in (0..count).filter_map(SegmentNo::new).filter(|segment| !without(*segment)) {
            bytes += self.segment(segment).ok()?.map_or(0, |segment| u64::from(segment.at.frame.bytes));
        }
        Some(bytes)
    }

    pub(crate) fn delta_list(&self) -> &[Delta] {
        &self.deltas
    }
}

fn chunk_of(segment: SegmentNo) -> usize {
    (segment.get() / limits::CHUNK_SEGMENTS) as usize
}

fn chunk_count(page_count: u32) -> usize {
    SegmentNo::count_of(page_count).div_ceil(limits::CHUNK_SEGMENTS) as usize
}

#[cfg(test)]
mod tests;
