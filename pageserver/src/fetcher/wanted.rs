//! What can be fetched, and what becomes of its bytes.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use segments::cache::PageCache;
use segments::disk::{CacheKey, DiskCache};
use segments::keys;
use segments::map::{DeltaRef, MapChunkRef};
use segments::pack::{Frame, FrameAt, FrameIndex, StoredFrame};
use walstore::envelope::Corrupt;
use walstore::store::Key;

/// A stretch of an object that never changes, as what refers to it names it, checksum included. In order of their
/// places: frames that stand next to each other in a pack are neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    Frame(FrameAt),
    /// The index of a delta. See [`Wanted::index`].
    Index(DeltaRef),
    Chunk(MapChunkRef),
}

/// It, checked and decoded.
#[derive(Clone, Debug)]
pub enum Fetched {
    Frame(Frame),
    /// A frame that nobody waits for, and that is not decoded yet.
    Stored(StoredFrame),
    Index(Arc<FrameIndex>),
    /// The object as it is: `segments::map::PageMap::with_chunk` checks it against the map that it belongs to.
    Chunk(Bytes),
}

impl Wanted {
    /// Maps differ in how far a delta is valid; its index is the same.
    pub fn index(delta: &DeltaRef) -> Self {
        Self::Index(DeltaRef { valid_upto: 0, ..*delta })
    }

    pub fn key(&self) -> Key {
        match self {
            Self::Frame(at) => keys::pack(&at.pack),
            Self::Index(delta) => keys::pack(&delta.pack),
            Self::Chunk(chunk) => keys::page_map(&chunk.id),
        }
    }

    pub fn range(&self) -> Range<u64> {
        match self {
            Self::Frame(at) => at.frame.range(),
            Self::Index(delta) => delta.index.range(),
            Self::Chunk(chunk) => 0..u64::from(chunk.bytes),
        }
    }

    /// What it is on the disk.
    pub fn cache_key(&self) -> CacheKey {
        match self {
            Self::Frame(at) => CacheKey::frame(at),
            Self::Index(delta) => CacheKey::index(delta),
            Self::Chunk(chunk) => CacheKey::chunk(chunk),
        }
    }

    pub fn stored_bytes(&self) -> usize {
        match self {
            Self::Frame(at) => at.frame.bytes as usize,
            Self::Index(delta) => delta.index.bytes as usize,
            Self::Chunk(chunk) => chunk.bytes as usize,
        }
    }

    /// Memory that it takes at most while it is fetched. Frames are decoded one after the other, see
    /// [`super::queue::Batch`].
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Frame(_) => self.stored_bytes(),
            // An entry of an index takes at most four times what it takes encoded.
            Self::Index(_) => 5 * self.stored_bytes(),
            Self::Chunk(_) => 2 * self.stored_bytes(),
        }
    }

    /// Whether `self` and the `next` of its kind are in the same object, not further apart than `gap_max`.
    pub fn is_near(&self, next: &Self, gap_max: u64) -> bool {
        match (self, next) {
            (Self::Frame(at), Self::Frame(next)) => {
                let (end, start) = (at.frame.range().end, next.frame.range().start);
                at.pack == next.pack && start.checked_sub(end).is_some_and(|gap| gap <= gap_max)
            }
            _ => false,
        }
    }

    /// Checks and decodes what a GET of [`range`](Self::range) returned.
    pub fn decode(&self, stored: Bytes) -> Result<Fetched, Corrupt> {
        let decoded = match self {
            Self::Frame(at) => Frame::decode(&stored, &at.frame).map(Fetched::Frame),
            Self::Index(delta) => delta.decode_index(&stored).map(|index| Fetched::Index(Arc::new(index))),
            Self::Chunk(_) => Ok(Fetched::Chunk(stored)),
        };
        decoded.map_err(|corrupt| corrupt.at(self.key()))
    }

    /// Checks what a GET returned of something that is read ahead, and decodes it if there is room for that.
    pub fn decode_ahead(&self, stored: Bytes, cache: &PageCache) -> Result<Fetched, Corrupt> {
        match self {
            Self::Frame(at) if !cache.is_next_to_decode() => {
                let stored = StoredFrame::copy_of(&stored, &at.frame).map(Fetched::Stored);
                stored.map_err(|corrupt| corrupt.at(self.key()))
            }
            _ => self.decode(stored),
        }
    }

    /// What somebody waits for is decoded.
    pub fn decoded(&self, fetched: Fetched) -> Result<Fetched, Corrupt> {
        match fetched {
            Fetched::Stored(stored) => {
                stored.decode().map(Fetched::Frame).map_err(|corrupt| corrupt.at(self.key()))
            }
            decoded => Ok(decoded),
        }
    }

    /// It, if it is in memory.
    pub fn cached(&self, cache: &PageCache) -> Option<Fetched> {
        match self {
            Self::Frame(at) => cache.frame(at).map(Fetched::Frame),
            Self::Index(delta) => cache.index(delta).map(Fetched::Index),
            Self::Chunk(_) => None,
        }
    }

    /// Keeps what somebody has asked for.
    pub fn keep(&self, fetched: &Fetched, cache: &PageCache) {
        match (self, fetched) {
            (Self::Frame(at), Fetched::Frame(frame)) => cache.insert_frame(at, frame.clone()),
            (Self::Index(delta), Fetched::Index(index)) => cache.insert_index(delta, index.clone()),
            // A chunk becomes a part of its map.
            _ => {}
        }
    }

    /// Keeps on disk what has come.
    pub fn keep_on_disk(&self, fetched: &Fetched, stored: &Bytes, disk: &DiskCache) {
        match fetched {
            // Whoever asked for it checks it.
            Fetched::Chunk(_) => disk.put(&self.cache_key(), stored),
            _ => disk.put_checked(&self.cache_key(), stored),
        }
    }

    /// Keeps what somebody will probably ask for.
    pub fn keep_ahead(&self, fetched: &Fetched, cache: &PageCache) {
        match (self, fetched) {
            (Self::Frame(at), Fetched::Frame(frame)) => cache.insert_frame_ahead(at, frame.clone()),
            (Self::Frame(at), Fetched::Stored(stored)) => cache.insert_stored_ahead(at, stored.clone()),
            _ => self.keep(fetched, cache),
        }
    }
}
