//! Page map → the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use walstore::id::Lsn;

use super::chunk::{Chunk, SegmentRef};
use super::{ChunkSlot, Delta, MapChunkRef, PageMap, chunk_count, chunk_of};
use crate::id::PackId;
use crate::limits;
use crate::pack::{FrameAt, Pack};
use crate::page::SegmentNo;

impl PageMap {
    /// The chunk that [`truncate`](Self::truncate) to `page_count` must have in memory.
    pub(crate) fn chunk_to_truncate(&self, page_count: u32) -> Option<MapChunkRef> {
        let cut = (page_count < self.page_count).then(|| self.chunks.get(chunk_count(page_count).checked_sub(1)?));
        match cut.flatten() {
            Some(ChunkSlot::Stored(reference)) => Some(*reference),
            _ => None,
        }
    }

    /// The map after a shrink to `page_count` pages: no source speaks for a page beyond any more, even if the
    /// database grows again. An error asks for a chunk.
    pub fn truncate(&self, page_count: u32) -> Result<Self, MapChunkRef> {
        if page_count >= self.page_count {
            return Ok(self.clone());
        }
        if let Some(chunk) = self.chunk_to_truncate(page_count) {
            return Err(chunk);
        }
        let deltas = self.deltas.iter().map(|delta| delta.truncated(page_count));
        let mut chunks = self.chunks[..chunk_count(page_count)].to_vec();
        if let Some((number, slot)) = chunks.iter_mut().enumerate().next_back()
            && let ChunkSlot::Resident { chunk, .. } = slot
        {
            let cut = truncate_chunk(chunk, number, page_count);
            if cut != **chunk {
                *slot = ChunkSlot::Resident { chunk: Arc::new(cut), stored: None };
            }
        }
        let deltas: Arc<[Delta]> = deltas.filter(|delta| delta.reference.valid_upto > 0).collect();
        Ok(Self { lsn: self.lsn, page_count, deltas, chunks: chunks.into() })
    }

    /// The map as of `lsn`, with what a fold wrote. `gone` are the deltas that it made superfluous. The chunks
    /// of all segments of `pack` are in memory.
    pub(crate) fn with_fold(&self, lsn: Lsn, page_count: u32, pack: Option<&Pack>, gone: &BTreeSet<PackId>) -> Self {
        let kept = self.deltas.iter().filter(|delta| !gone.contains(&delta.reference.pack)).cloned();
        let deltas: Arc<[Delta]> = pack.and_then(Delta::of_pack).into_iter().chain(kept).collect();
        assert!(deltas.len() <= limits::DELTAS_MAX, "BUG: {} deltas", deltas.len());
        let mut chunks = self.chunks.to_vec();
        chunks.resize_with(chunk_count(page_count), ChunkSlot::empty);
        let mut changed: BTreeMap<usize, Vec<(SegmentNo, SegmentRef)>> = BTreeMap::new();
        for entry in pack.into_iter().flat_map(|pack| pack.segments.entries()) {
            let pack = pack.expect("BUG: it has segments");
            let at = FrameAt { pack: pack.id, frame: entry.frame };
            let pack_bytes = u32::try_from(pack.bytes.len()).expect("BUG: a pack over 4 GiB");
            let segment = SegmentRef { at, pack_bytes, lsn, pages: entry.pages.count() as u8 };
            changed.entry(chunk_of(entry.segment)).or_default().push((entry.segment, segment));
        }
        for (number, segments) in changed {
            chunks[number] = chunks[number].with_segments(&segments);
        }
        Self { lsn: Some(lsn), page_count, deltas, chunks: chunks.into() }
    }
}

impl ChunkSlot {
    fn empty() -> Self {
        Self::Resident { chunk: Arc::default(), stored: None }
    }

    fn with_segments(&self, changed: &[(SegmentNo, SegmentRef)]) -> Self {
        let Self::Resident { chunk, .. } = self else { panic!("BUG: the plan asked for this chunk") };
        let mut segments = chunk.to_segments();
        segments.resize(limits::CHUNK_SEGMENTS as usize, None);
        for (number, segment) in changed {
            segments[(number.get() % limits::CHUNK_SEGMENTS) as usize] = Some(*segment);
        }
        Self::Resident { chunk: Arc::new(Chunk::new(&segments)), stored: None }
    }
}

fn truncate_chunk(chunk: &Chunk, number: usize, page_count: u32) -> Chunk {
    let first = number as u32 * limits::CHUNK_SEGMENTS;
    let mut segments = chunk.to_segments();
    for (at, slot) in (first..).zip(&mut segments) {
        let pages_max = SegmentNo::new(at).map_or(0, |segment| segment.pages_within(page_count));
        *slot =
            slot.filter(|_| pages_max > 0).map(|segment| SegmentRef { pages: segment.pages.min(pages_max), ..segment });
    }
    Chunk::new(&segments)
}
