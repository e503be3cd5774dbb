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
//!
//! Its capacity is what nobody else needs at the moment: see [`Lending`].

mod lending;
mod recent;

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::sync::Cache;
use walstore::envelope::Corrupt;

use self::lending::Lent;
pub use self::lending::{Lending, Loan};
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

/// What goes beyond what has to, when memory is lent: so that not every entry which comes then looks for one that goes.
const GIVEN_WAY_AT_ONCE: u64 = 16;

/// Shared by all databases; cloning shares it. Its capacity is in bytes.
#[derive(Clone)]
pub struct PageCache(Arc<Inner>);

struct Inner {
    often: Cache<Place, Cached, FixedHasher>,
    recent: Recent,
    /// While nothing is lent.
    capacity_bytes: u64,
    lent: Lent,
    /// How often it was drawn who goes.
    draws: AtomicU64,
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
        Self::lending(capacity_bytes, Lending::UNBOUNDED)
    }

    /// The same of a node that lends memory.
    pub fn lending(capacity_bytes: u64, terms: Lending) -> Self {
        let recent_bytes = recent_part(capacity_bytes);
        let often = Cache::builder().max_capacity(capacity_bytes - recent_bytes as u64);
        let often = often.weigher(|_, cached: &Cached| cached.weight_bytes()).build_with_hasher(FixedHasher::default());
        let (recent, lent) = (Recent::new(recent_bytes), Lent::new(terms));
        Self(Arc::new(Inner { often, recent, capacity_bytes, lent, draws: AtomicU64::new(0) }))
    }

    /// A loan of nothing yet.
    pub fn lend(&self) -> Loan {
        Loan::new(self.0.clone())
    }

    /// Bytes that are lent.
    pub fn lent_bytes(&self) -> usize {
        self.0.lent.bytes()
    }

    /// So much that was not in the cache was freed at once.
    pub fn freed(&self, bytes: usize) {
        self.0.lent.freed(bytes);
    }

    /// Bytes that may be lent, in all.
    pub fn lent_bytes_max(&self) -> usize {
        self.0.lent.terms().bytes_max
    }

    /// Bytes that may still be lent.
    pub fn left_to_lend(&self) -> usize {
        self.lent_bytes_max().saturating_sub(self.lent_bytes())
    }

    pub fn frame(&self, at: &FrameAt) -> Option<Frame> {
        let place = frame_place(at);
        match self.0.often.get(&place) {
            Some(Cached::Frame(frame)) => Some(frame),
            Some(Cached::Index(_)) => None,
            None => self.recent_frame(&place),
        }
    }

    fn recent_frame(&self, place: &Place) -> Option<Frame> {
        let found = self.0.recent.get(place)?;
        if found.is_first {
            self.insert(*place, Cached::Frame(found.frame.clone()));
        }
        self.ask_again(found.gone);
        Some(found.frame)
    }

    /// Whether it is here. Unlike [`frame`](Self::frame) this does not count as being asked for.
    pub fn has_frame(&self, at: &FrameAt) -> bool {
        let place = frame_place(at);
        self.0.often.contains_key(&place) || self.0.recent.contains(&place)
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
            let gone = self.0.recent.add(frame_place(at), content, true);
            self.ask_again(gone);
        }
    }

    /// Bytes that may still be read ahead.
    pub fn room_ahead(&self) -> usize {
        self.0.recent.room_ahead()
    }

    /// Whether a frame that comes now and was read ahead is to be decoded at once.
    pub fn is_next_to_decode(&self) -> bool {
        self.0.recent.is_next_to_decode()
    }

    /// Whether [`decode_next`](Self::decode_next) has enough to do to begin with it.
    pub fn wants_decoding(&self) -> bool {
        self.0.recent.wants_decoding()
    }

    /// Decodes one frame that was read ahead, and answers whether there was one, and room.
    pub fn decode_next(&self) -> bool {
        let gone = self.0.recent.decode_next();
        let is_done = gone.is_some();
        self.ask_again(gone.unwrap_or_default());
        is_done
    }

    fn add_recent(&self, place: Place, frame: Frame) {
        let gone = self.0.recent.add(place, Content::Decoded(frame), false);
        self.ask_again(gone);
    }

    fn ask_again(&self, gone: Vec<(Place, Frame)>) {
        for (place, frame) in gone {
            if !self.0.often.contains_key(&place) {
                self.insert(place, Cached::Frame(frame));
            }
        }
    }

    fn insert(&self, place: Place, cached: Cached) {
        self.0.often.insert(place, cached);
        // What has to go for it goes now, and not after some more inserts: those would be memory beyond the bound.
        self.0.often.run_pending_tasks();
        if self.0.lent.is_pressed() {
            // What comes is allocated by another thread than what goes was, and so in another place.
            self.0.lent.freed(self.0.shrink_often());
        }
    }

    /// One page, if its frame is here. It shares the frame's memory.
    pub fn page(&self, source: &Source) -> Option<Result<Page, Corrupt>> {
        self.frame(&source.at).map(|frame| frame.page(source.place))
    }

    pub fn index(&self, delta: &DeltaRef) -> Option<Arc<FrameIndex>> {
        match self.0.often.get(&index_place(delta))? {
            Cached::Index(index) => Some(index),
            Cached::Frame(_) => None,
        }
    }

    pub fn insert_index(&self, delta: &DeltaRef, index: Arc<FrameIndex>) {
        self.insert(index_place(delta), Cached::Index(index));
    }

    /// Bytes in it, its own bookkeeping included.
    pub fn weight_bytes(&self) -> u64 {
        self.0.often.run_pending_tasks();
        self.0.often.weighted_size() + self.0.recent.bytes() as u64
    }
}

impl std::fmt::Debug for PageCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PageCache({} lent)", self.lent_bytes())
    }
}

impl Inner {
    /// Somebody has borrowed of the capacity.
    fn give_way(&self) {
        let before = self.recent.bytes();
        self.limit_recent();
        let given_up = before.saturating_sub(self.recent.bytes()) + self.shrink_often();
        self.lent.freed(given_up);
    }

    /// Has the part with what came last be as large as it may be. What goes is not offered to the other part, which gives
    /// way, too.
    fn limit_recent(&self) {
        let bytes_max = || recent_part(self.lent.left_of(self.capacity_bytes));
        loop {
            let limit = bytes_max();
            drop(self.recent.limit(limit));
            // Another thread may have changed it meanwhile, and been here before us: then ours is out of date.
            if limit == bytes_max() {
                return;
            }
        }
    }

    /// Makes the other part as small as it is to be, and answers how many bytes went. The cache behind it has its order
    /// in which entries go, but only for a capacity that never changes. So lots are drawn, others each time: every
    /// database loses its part, and none the same pages again and again.
    fn shrink_often(&self) -> usize {
        let left = self.lent.left_of(self.capacity_bytes);
        let bytes_max = left - recent_part(left) as u64;
        self.often.run_pending_tasks();
        let weight = self.often.weighted_size();
        if weight <= bytes_max {
            return 0;
        }
        let to_go = weight - bytes_max + bytes_max / GIVEN_WAY_AT_ONCE;
        let draw = self.draws.fetch_add(1, Ordering::Relaxed);
        let is_drawn = |place: &Place| {
            let lot = FixedHasher::default().hash_one((place, draw));
            ((u128::from(lot) * u128::from(weight)) >> u64::BITS) < u128::from(to_go)
        };
        let gone = self.invalidate_some(to_go, is_drawn);
        // The lots are about as many as there have to be, and no more than that.
        let gone = gone + if gone < to_go { self.invalidate_some(to_go - gone, |_| true) } else { 0 };
        usize::try_from(gone).unwrap_or(usize::MAX)
    }

    fn invalidate_some(&self, bytes: u64, goes: impl Fn(&Place) -> bool) -> u64 {
        let mut gone = 0;
        for (place, cached) in &self.often {
            if gone >= bytes {
                break;
            }
            if goes(&place) {
                gone += u64::from(cached.weight_bytes());
                self.often.invalidate(&*place);
            }
        }
        self.often.run_pending_tasks();
        gone
    }
}

fn recent_part(capacity_bytes: u64) -> usize {
    usize::try_from(capacity_bytes / RECENT_SHARE).unwrap_or(usize::MAX)
}

fn frame_place(at: &FrameAt) -> Place {
    Place { pack: at.pack, offset: at.frame.offset }
}

fn index_place(delta: &DeltaRef) -> Place {
    Place { pack: delta.pack, offset: delta.index.offset }
}

#[cfg(test)]
mod tests;
