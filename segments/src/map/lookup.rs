//! Page → where it is.

use std::sync::Arc;

use bytes::Bytes;
use walstore::envelope::Corrupt;

use super::chunk::Chunk;
use super::{ChunkSlot, DeltaRef, Indexes, MapChunkRef, PageMap};
use crate::pack::FrameAt;
use crate::page::PageNo;

/// One page of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    pub at: FrameAt,
    /// Place of the page in the frame, from 0.
    pub place: u8,
}

/// What a page map says about a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    Found(Source),
    /// Read this object, hand it to [`PageMap::with_chunk`] and ask the new map.
    NeedChunk(MapChunkRef),
    /// Read these indexes, in parallel, and ask again.
    NeedIndexes(Vec<DeltaRef>),
    /// The lock page: zeros.
    LockPage,
    /// Outside of the database as of the map's LSN.
    Outside,
    /// Inside, but lost: answer with [`crate::page::MissingPage`].
    Missing,
}

impl PageMap {
    /// Finds `page` as of the map's LSN. Later commits are the overlay's matter.
    pub fn lookup(&self, page: PageNo, indexes: Indexes<'_>) -> Lookup {
        if page == PageNo::LOCK_PAGE {
            return Lookup::LockPage;
        }
        if page.get() > self.page_count {
            return Lookup::Outside;
        }
        let segment = match self.segment(page.segment()) {
            Ok(segment) => segment.filter(|segment| page.position() < segment.pages),
            Err(chunk) => return Lookup::NeedChunk(chunk),
        };
        let as_of = segment.map(|segment| segment.lsn);
        let newer = self.deltas.iter().filter(|delta| Some(delta.reference.lsn) > as_of && delta.reaches(page));
        let mut unknown = Vec::new();
        for delta in newer {
            match delta.index(indexes) {
                None => unknown.push(delta.reference),
                Some(index) => match index.find(page) {
                    None => {}
                    Some((frame, place)) if unknown.is_empty() => {
                        return Lookup::Found(Source { at: FrameAt { pack: delta.reference.pack, frame }, place });
                    }
                    Some(_) => break,
                },
            }
        }
        match segment {
            _ if !unknown.is_empty() => Lookup::NeedIndexes(unknown),
            Some(segment) => Lookup::Found(Source { at: segment.at, place: page.position() }),
            None => Lookup::Missing,
        }
    }

    /// The deltas whose indexes are not in memory. Almost every look-up needs them, so whoever has to read something
    /// else first reads them at the same time.
    pub fn missing_indexes(&self, indexes: Indexes<'_>) -> Vec<DeltaRef> {
        self.deltas.iter().filter(|delta| delta.index(indexes).is_none()).map(|delta| delta.reference).collect()
    }

    /// The same map with one more chunk in memory.
    pub fn with_chunk(&self, reference: &MapChunkRef, object: &Bytes) -> Result<Self, Corrupt> {
        let number = reference.number as usize;
        let Some(lsn) = self.lsn.filter(|_| self.chunks.get(number) == Some(&ChunkSlot::Stored(*reference))) else {
            return Ok(self.clone());
        };
        let chunk = Arc::new(Chunk::open(object, reference, lsn, self.page_count)?);
        let mut chunks = self.chunks.to_vec();
        chunks[number] = ChunkSlot::Resident { chunk, stored: Some(*reference) };
        Ok(Self { chunks: chunks.into(), ..self.clone() })
    }
}
