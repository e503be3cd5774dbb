//! The page cache in memory: decoded frames and delta indexes of all databases of a node.
//!
//! Only what can never change is cached: a frame or an index at an offset of a pack, whose id is never
//! reused. So nothing has to be invalidated, and forks share what they share. What goes in has passed its
//! checksum ([`Frame::decode`], [`DeltaRef::decode_index`]).
//!
//! Most of it keeps what is asked for often, a quarter what came last ([`recent`]), which is also where frames that are
//! read ahead wait to be asked for, most of them [as they are stored](StoredFrame): so reading ahead never pushes out more
//! than that.
//!
//! An insert is a suggestion: a full cache may drop the new entry at once. Whoever has just read something holds on to
//! it until it has served, or may read it for ever.

mod recent;

use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use moka::sync::Cache;
use walstore::envelope::Corrupt;

use self::recent::{Content, Recent};
use crate::id::PackId;
use crate::map::{DeltaRef, Source};
use crate::pack::{Frame, FrameAt, FrameIndex, StoredFrame};
use crate::page::Page;

/// Bytes that an entry costs besides its content: key, list nodes, counters.
const ENTRY_BYTES: usize = 192;

/// The same in every process, so that a simulated run can be repeated.
type FixedHasher = BuildHasherDefault<DefaultHasher>;

/// The part of the capacity that keeps what came last, a floor of each database in it.
const RECENT_SHARE: u64 = 4;

/// Shared by all databases; cloning shares it. Its capacity is in bytes.
#[derive(Clone)]
pub struct PageCache {
    often: Cache<Place, Cached, FixedHasher>,
    recent: Arc<Recent>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// A cache that keeps up to `capacity_bytes`.
    pub fn new(capacity_bytes: u64) -> Self {
        let recent_bytes = capacity_bytes / RECENT_SHARE;
        let often = Cache::builder().max_capacity(capacity_bytes - recent_bytes);
        let often = often.weigher(|_, cached: &Cached| cached.weight_bytes()).build_with_hasher(FixedHasher::default());
        Self { often, recent: Arc::new(Recent::new(usize::try_from(recent_bytes).unwrap_or(usize::MAX))) }
    }

    pub fn frame(&self, at: &FrameAt) -> Option<Frame> {
        let place = frame_place(at);
        match self.often.get(&place) {
            Some(Cached::Frame(frame)) => Some(frame),
            Some(Cached::Index(_)) => None,
            None => self.recent_frame(&place),
        }
    }

    fn recent_frame(&self, place: &Place) -> Option<Frame> {
        let found = self.recent.get(place)?;
        if found.is_first {
            self.insert(*place, Cached::Frame(found.frame.clone()));
        }
        self.ask_again(found.gone);
        Some(found.frame)
    }

    /// Whether it is here. Unlike [`frame`](Self::frame) this does not count as being asked for.
    pub fn has_frame(&self, at: &FrameAt) -> bool {
        let place = frame_place(at);
        self.often.contains_key(&place) || self.recent.contains(&place)
    }

    pub fn insert_frame(&self, at: &FrameAt, frame: Frame) {
        let place = frame_place(at);
        self.insert(place, Cached::Frame(frame.clone()));
        self.add_recent(place, frame);
    }

    /// Keeps a frame that somebody will probably ask for.
    pub fn insert_frame_ahead(&self, at: &FrameAt, frame: Frame) {
        self.insert_ahead(at, Content::Decoded(frame));
    }

    /// The same, if it is not worth decoding yet: whoever asks for it first decodes it.
    pub fn insert_stored_ahead(&self, at: &FrameAt, frame: StoredFrame) {
        self.insert_ahead(at, Content::Stored(frame));
    }

    fn insert_ahead(&self, at: &FrameAt, content: Content) {
        if !self.has_frame(at) {
            let gone = self.recent.add(frame_place(at), content, true);
            self.ask_again(gone);
        }
    }

    /// Bytes that may still be read ahead.
    pub fn room_ahead(&self) -> usize {
        self.recent.room_ahead()
    }

    /// Whether a frame that comes now and was read ahead is to be decoded at once.
    pub fn is_next_to_decode(&self) -> bool {
        self.recent.is_next_to_decode()
    }

    /// Whether [`decode_next`](Self::decode_next) has enough to do to begin with it.
    pub fn wants_decoding(&self) -> bool {
        self.recent.wants_decoding()
    }

    /// Decodes one frame that was read ahead, and answers whether there was one, and room.
    pub fn decode_next(&self) -> bool {
        let gone = self.recent.decode_next();
        let is_done = gone.is_some();
        self.ask_again(gone.unwrap_or_default());
        is_done
    }

    fn add_recent(&self, place: Place, frame: Frame) {
        let gone = self.recent.add(place, Content::Decoded(frame), false);
        self.ask_again(gone);
    }

    fn ask_again(&self, gone: Vec<(Place, Frame)>) {
        for (place, frame) in gone {
            if !self.often.contains_key(&place) {
                self.insert(place, Cached::Frame(frame));
            }
        }
    }

    fn insert(&self, place: Place, cached: Cached) {
        self.often.insert(place, cached);
        // What has to go for it goes now, and not after some more inserts: those would be memory beyond the bound.
        self.often.run_pending_tasks();
    }

    /// One page, if its frame is here. It shares the frame's memory.
    pub fn page(&self, source: &Source) -> Option<Result<Page, Corrupt>> {
        self.frame(&source.at).map(|frame| frame.page(source.place))
    }

    pub fn index(&self, delta: &DeltaRef) -> Option<Arc<FrameIndex>> {
        match self.often.get(&index_place(delta))? {
            Cached::Index(index) => Some(index),
            Cached::Frame(_) => None,
        }
    }

    pub fn insert_index(&self, delta: &DeltaRef, index: Arc<FrameIndex>) {
        self.insert(index_place(delta), Cached::Index(index));
    }

    /// Bytes in it, its own bookkeeping included.
    pub fn weight_bytes(&self) -> u64 {
        self.often.run_pending_tasks();
        self.often.weighted_size() + self.recent.bytes() as u64
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

    #[test]
    fn a_full_cache_keeps_what_has_just_come() {
        let cache = PageCache::new(32 * SEGMENT_BYTES as u64);
        // Full of what is asked for often.
        for _ in 0..20 {
            for nonce in 0..28 {
                if cache.frame(&at(nonce, 16)).is_none() {
                    cache.insert_frame(&at(nonce, 16), frame(1));
                }
            }
        }
        for nonce in 100..200 {
            cache.insert_frame(&at(nonce, 16), frame(2));
            assert!((0..3).all(|_| cache.frame(&at(nonce, 16)).is_some()), "a scan comes back for more of its pages");
        }
        let kept = (0..28).filter(|nonce| cache.frame(&at(*nonce, 16)).is_some()).count();
        assert!(kept >= 20, "and pushes little out: {kept}");
    }

    #[test]
    fn what_is_read_ahead_waits_and_pushes_out_only_its_own_part() {
        let cache = PageCache::new(64 * SEGMENT_BYTES as u64);
        for nonce in 0..48 {
            cache.insert_frame(&at(nonce, 16), frame(1));
        }
        assert_eq!(cache.room_ahead(), 12 * SEGMENT_BYTES);
        for nonce in 100..112 {
            cache.insert_frame_ahead(&at(nonce, 16), frame(2));
        }
        assert_eq!(cache.room_ahead(), 0);
        for nonce in 100..112 {
            assert!(cache.has_frame(&at(nonce, 16)) && cache.frame(&at(nonce, 16)).is_some());
        }
        assert_eq!(cache.room_ahead(), 12 * SEGMENT_BYTES, "it is used now");
        (200..1_000).for_each(|nonce| cache.insert_frame_ahead(&at(nonce, 16), frame(3)));
        let kept = (0..48).filter(|nonce| cache.has_frame(&at(*nonce, 16))).count();
        // Twelve were read ahead and then asked for: they count as much as the first.
        assert!(kept >= 34, "{kept} of 48");
        assert!(cache.weight_bytes() <= 64 * SEGMENT_BYTES as u64);
    }

    #[test]
    fn what_is_kept_as_stored_takes_little_room_and_is_decoded_in_turn_or_when_it_is_asked_for() {
        let cache = PageCache::new(64 * SEGMENT_BYTES as u64);
        let pages: Vec<Page> = (0..32).map(|byte| Page::copy_of(&[byte; 4096])).collect();
        let stored = crate::pack::encode_frame(pages.iter());
        let reference = FrameRef { offset: 16, bytes: stored.len() as u32, crc: crc32c::crc32c(&stored) };
        let frame = StoredFrame::copy_of(&stored, &reference).unwrap();
        (0..40).for_each(|nonce| cache.insert_stored_ahead(&at(nonce, 16), frame.clone()));
        let stored_bytes = stored.len() + recent::ENTRY_BYTES;
        assert!(cache.weight_bytes() == 40 * stored_bytes as u64 && stored_bytes < SEGMENT_BYTES / 10);
        let room = |stored_count: usize, decoded_count: usize| {
            12 * SEGMENT_BYTES - stored_count * stored_bytes - decoded_count * (SEGMENT_BYTES + recent::ENTRY_BYTES)
        };
        assert_eq!(cache.room_ahead(), room(40, 0));

        // Some are decoded, in their order but for the very first ones.
        assert!(cache.wants_decoding() && !cache.is_next_to_decode());
        let decoded = std::iter::from_fn(|| cache.decode_next().then_some(())).count();
        assert_eq!((decoded, cache.room_ahead()), (3, room(37, 3)));
        assert!(!cache.wants_decoding());
        for nonce in 0..40 {
            assert_eq!(cache.frame(&at(nonce, 16)).unwrap().page(31).unwrap(), pages[31], "{nonce}");
        }
        assert_eq!(cache.room_ahead(), room(0, 0));
        assert!(cache.is_next_to_decode() && !cache.decode_next());
        assert!(cache.weight_bytes() <= 64 * SEGMENT_BYTES as u64);

        // What cannot be decoded is missing.
        let damaged = [&[1, 32][..], &[7; 100]].concat();
        let reference = FrameRef { offset: 16, bytes: 102, crc: crc32c::crc32c(&damaged) };
        assert!(StoredFrame::copy_of(&damaged[1..], &reference).is_err());
        cache.insert_stored_ahead(&at(99, 16), StoredFrame::copy_of(&damaged, &reference).unwrap());
        assert!(cache.has_frame(&at(99, 16)) && cache.frame(&at(99, 16)).is_none() && !cache.has_frame(&at(99, 16)));
    }

    #[test]
    fn frames_of_next_to_nothing_are_not_for_nothing() {
        let cache = PageCache::new(64 << 10);
        let zeros = vec![Page::copy_of(&[0; 4096]); 32];
        let stored = crate::pack::encode_frame(zeros.iter());
        let reference = FrameRef { offset: 16, bytes: stored.len() as u32, crc: crc32c::crc32c(&stored) };
        let frame = StoredFrame::copy_of(&stored, &reference).unwrap();
        assert!(stored.len() < 100, "{}", stored.len());
        (0..10_000).for_each(|nonce| cache.insert_stored_ahead(&at(nonce, 16), frame.clone()));
        let kept = (0..10_000).filter(|nonce| cache.has_frame(&at(*nonce, 16))).count();
        assert!((1..=(16 << 10) / recent::ENTRY_BYTES).contains(&kept), "{kept}");
        assert_eq!(cache.weight_bytes(), (kept * (stored.len() + recent::ENTRY_BYTES)) as u64);
    }

    #[test]
    fn a_flood_of_one_database_leaves_the_others_what_they_used_last() {
        let cache = PageCache::new(64 * SEGMENT_BYTES as u64);
        let of = |database: u8, nonce: u64| {
            let place = at(nonce, 16);
            FrameAt { pack: PackId { owner: DatabaseId::from_bytes([database; 16]), ..place.pack }, ..place }
        };
        (2..6).for_each(|database| (0..3).for_each(|nonce| cache.insert_frame(&of(database, nonce), frame(1))));
        for nonce in 0..1_000 {
            // Asked for often, too: none of it is let go of because nobody wants it.
            cache.insert_frame(&of(1, nonce), frame(2));
            (0..3).for_each(|_| drop(cache.frame(&of(1, nonce))));
        }
        for database in 2..6 {
            assert!((0..3).all(|nonce| cache.has_frame(&of(database, nonce))), "database {database}");
        }
        assert!(cache.weight_bytes() <= 64 * SEGMENT_BYTES as u64);
        // With more databases than there is room for, those go that were used longest ago.
        (10..100).for_each(|database| cache.insert_frame_ahead(&of(database, 0), frame(3)));
        let kept: Vec<u8> = (10..100).filter(|database| cache.has_frame(&of(*database, 0))).collect();
        assert_eq!(kept.last(), Some(&99));
        assert!((12..=16).contains(&kept.len()) && kept.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{kept:?}");
    }
}
