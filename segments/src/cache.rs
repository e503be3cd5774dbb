//! The page cache in memory: decoded frames and delta indexes of all databases of a node.
//!
//! Only what can never change is cached: a frame or an index at an offset of a pack, whose id is never
//! reused. So nothing has to be invalidated, and forks share what they share. What goes in has passed its
//! checksum ([`Frame::decode`], [`DeltaRef::decode_index`]).
//!
//! An insert is a suggestion: a full cache may drop the new entry at once, in favour of what is asked for more
//! often. Whoever has just read something holds on to it until it has served, or may read it for ever.

use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use moka::sync::Cache;
use walstore::envelope::Corrupt;

use crate::id::PackId;
use crate::map::{DeltaRef, Source};
use crate::pack::{Frame, FrameAt, FrameIndex};
use crate::page::Page;

/// Bytes that an entry costs besides its content: key, list nodes, counters.
const ENTRY_BYTES: usize = 192;

/// The same in every process, so that a simulated run can be repeated.
type FixedHasher = BuildHasherDefault<DefaultHasher>;

/// Shared by all databases; cloning shares it. Its capacity is in bytes.
#[derive(Clone)]
pub struct PageCache(Cache<Place, Cached, FixedHasher>);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    pack: PackId,
    offset: u32,
}

#[derive(Clone)]
enum Cached {
    Frame(Frame),
    Index(Arc<FrameIndex>),
}

impl Cached {
    fn weight_bytes(&self) -> u32 {
        let content = match self {
            Self::Frame(frame) => frame.weight_bytes(),
            Self::Index(index) => index.weight_bytes(),
        };
        u32::try_from(content + ENTRY_BYTES).unwrap_or(u32::MAX)
    }
}

impl PageCache {
    /// A cache that keeps up to about `capacity_bytes`.
    pub fn new(capacity_bytes: u64) -> Self {
        let cache = Cache::builder().max_capacity(capacity_bytes).weigher(|_, cached: &Cached| cached.weight_bytes());
        Self(cache.build_with_hasher(FixedHasher::default()))
    }

    pub fn frame(&self, at: &FrameAt) -> Option<Frame> {
        match self.0.get(&frame_place(at))? {
            Cached::Frame(frame) => Some(frame),
            Cached::Index(_) => None,
        }
    }

    pub fn insert_frame(&self, at: &FrameAt, frame: Frame) {
        self.0.insert(frame_place(at), Cached::Frame(frame));
    }

    /// One page, if its frame is here. It shares the frame's memory.
    pub fn page(&self, source: &Source) -> Option<Result<Page, Corrupt>> {
        self.frame(&source.at).map(|frame| frame.page(source.place))
    }

    pub fn index(&self, delta: &DeltaRef) -> Option<Arc<FrameIndex>> {
        match self.0.get(&index_place(delta))? {
            Cached::Index(index) => Some(index),
            Cached::Frame(_) => None,
        }
    }

    pub fn insert_index(&self, delta: &DeltaRef, index: Arc<FrameIndex>) {
        self.0.insert(index_place(delta), Cached::Index(index));
    }

    /// Bytes in it, its own bookkeeping included.
    pub fn weight_bytes(&self) -> u64 {
        self.0.run_pending_tasks();
        self.0.weighted_size()
    }
}

fn frame_place(at: &FrameAt) -> Place {
    Place { pack: at.pack, offset: at.frame.offset }
}

fn index_place(delta: &DeltaRef) -> Place {
    Place { pack: delta.pack, offset: delta.index.offset }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::{FrameRef, Section};
    use crate::page::SEGMENT_BYTES;
    use walstore::id::{DatabaseId, Lsn};

    fn at(nonce: u64, offset: u32) -> FrameAt {
        let pack = PackId { owner: DatabaseId::from_bytes([1; 16]), epoch: 1, seq: 1, nonce };
        FrameAt { pack, frame: FrameRef { offset, bytes: 1, crc: 1 } }
    }

    fn frame(byte: u8) -> Frame {
        let stored = [&[0, 32][..], &vec![byte; SEGMENT_BYTES]].concat();
        let reference = FrameRef { offset: 0, bytes: stored.len() as u32, crc: crc32c::crc32c(&stored) };
        Frame::decode(&stored, &reference).unwrap()
    }

    #[test]
    fn frames_and_indexes_are_found_by_pack_and_offset() {
        let cache = PageCache::new(1 << 20);
        cache.insert_frame(&at(1, 16), frame(7));
        let page = |at: FrameAt, place| cache.page(&Source { at, place });
        assert_eq!(page(at(1, 16), 31).unwrap().unwrap().as_bytes()[0], 7);
        assert!(page(at(1, 16), 32).unwrap().is_err());
        assert!(page(at(1, 17), 0).is_none() && page(at(2, 16), 0).is_none());

        let index = Section { offset: 900, bytes: 3, crc: 0 };
        let pack = at(1, 0).pack;
        let delta = DeltaRef { pack, lsn: Lsn::FIRST, index, page_count: 0, frames_bytes: 0, valid_upto: 0 };
        assert!(cache.index(&delta).is_none());
        cache.insert_index(&delta, Arc::default());
        assert!(cache.index(&delta).is_some() && cache.frame(&at(1, 900)).is_none());
    }

    #[test]
    fn the_capacity_bounds_bytes_not_entries() {
        let cache = PageCache::new(10 * SEGMENT_BYTES as u64);
        for nonce in 0..100 {
            cache.insert_frame(&at(nonce, 16), frame(nonce as u8));
        }
        let bytes = cache.weight_bytes();
        assert!(bytes <= 10 * SEGMENT_BYTES as u64 && bytes > 5 * SEGMENT_BYTES as u64, "{bytes}");
    }
}
