//! Reading what the page path needs out of the bucket, checked. One [`Fetcher`] for a node: queries, folds, recovery
//! and drains all read through it.
//!
//! ```text
//!   wanted ──▶ in memory? ──▶ on its way already? join ──▶ queue ──▶ disk? else ──▶ check, decode ──▶ caches, all who
//!              (PageCache)    (flights.rs)               (queue.rs)  ranged GET     (wanted.rs)       wait
//!                                                                    (get.rs)
//! ```
//!
//! - **Single flight**: many who miss the same frame share one request.
//! - **Bounded and fair**: so many requests and bytes are on their way at the same time; databases take turns.
//! - **Together**: neighbours in a pack that are wanted at the same time go in one request.
//! - **Hedged**: a request that is slower than most is sent once more.
//!
//! An object that a head or a map names and that is not there is corruption that names the object (invariant I10),
//! never zeros.

mod flights;
mod get;
mod queue;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::future::try_join_all;
use segments::cache::{Loan, PageCache};
use segments::disk::{CacheKey, DiskCache};
use segments::id::{MapChunkId, PackId};
use segments::keys;
use segments::map::{DeltaRef, MapChunkRef};
use segments::pack::{Frame, FrameAt, FrameIndex, Section};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use walstore::hedge::Hedging;
use walstore::id::DatabaseId;
use walstore::register::RecordError;
use walstore::seam::Seam;
use walstore::store::Store;

use self::flights::{Flights, Interest};
use self::get::Source;
use self::queue::Urgency;
use self::wanted::{Fetched, Wanted};

/// See the module documentation. Cloning shares everything.
#[derive(Clone)]
pub struct Fetcher {
    flights: Arc<Flights>,
    cache: PageCache,
    /// Of the node, which lends memory for folds.
    lender: PageCache,
    rooms: Arc<Semaphore>,
    /// Whether what is read through it is kept on disk.
    keeps: bool,
    /// Somebody is at [`decode_ahead`](Self::decode_ahead).
    is_decoding: Arc<AtomicBool>,
}

/// The part of the memory that a node lends which folds take, beyond what was set aside for them.
const ROOMS_SHARE: usize = 4;
/// In such units.
const ROOM_BYTES: usize = 64 << 10;

/// Memory to make a pack in, until it is dropped.
pub struct Room {
    _permit: OwnedSemaphorePermit,
    _loan: Loan,
}

/// At most 16 TiB.
fn room_units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(ROOM_BYTES)).unwrap_or(u32::MAX).min(1 << 28)
}

impl Fetcher {
    /// Of a node, in front of whose store is `cache`. What is on its way takes at most about `bytes_max` of memory.
    pub fn new(store: Arc<dyn Store>, seam: Seam, cache: PageCache, bytes_max: usize) -> Self {
        Self::with_disk(store, seam, cache, DiskCache::absent(), bytes_max)
    }

    /// The same with a disk cache in between.
    pub fn with_disk(
        store: Arc<dyn Store>,
        seam: Seam,
        cache: PageCache,
        disk: DiskCache,
        bytes_max: usize,
    ) -> Self {
        let source = Source { store, seam, hedging: Hedging::default(), disk };
        let rooms = Arc::new(Semaphore::new(room_units(cache.lent_bytes_max() / ROOMS_SHARE) as usize));
        let (flights, lender) = (Arc::new(Flights::new(source, bytes_max)), cache.clone());
        Self { flights, cache, lender, rooms, keeps: true, is_decoding: Arc::default() }
    }

    /// The same requests under the same bounds, for somebody who keeps what he reads elsewhere, and not on disk.
    pub fn with_cache(&self, cache: PageCache) -> Self {
        Self { cache, keeps: false, is_decoding: Arc::default(), ..self.clone() }
    }

    /// Keeps on disk what goes to the store.
    pub fn keep(&self, key: &CacheKey, stored: &Bytes) {
        if self.keeps {
            self.flights.source().disk.put(key, stored);
        }
    }

    pub fn cache(&self) -> &PageCache {
        &self.cache
    }

    /// A loan of the node's memory.
    pub fn lend(&self) -> Loan {
        self.lender.lend()
    }

    /// Waits for memory to make a pack in, or to replay what a large one keeps. Together these have a part of what the
    /// node lends; what needs more than all of that is alone. Nobody waits for a room while he has one.
    pub async fn room(&self, bytes: usize) -> Room {
        let units = room_units(bytes).min(room_units(self.lender.lent_bytes_max() / ROOMS_SHARE));
        let permit = self.rooms.clone().acquire_many_owned(units).await.expect("BUG: nobody closes it");
        let mut loan = self.lender.lend();
        loan.set(bytes);
        Room { _permit: permit, _loan: loan }
    }

    /// So much memory was freed at once.
    pub fn freed(&self, bytes: usize) {
        self.lender.freed(bytes);
    }

    /// Bytes of memory that requests on their way take at most.
    pub fn bytes_in_flight(&self) -> usize {
        self.flights.bytes()
    }

    /// How many requests were sent a second time because the first was slow.
    pub fn hedges(&self) -> u64 {
        self.flights.source().hedging.sent()
    }

    /// One frame of a pack, on behalf of a database.
    pub async fn frame(&self, of: DatabaseId, at: &FrameAt) -> Result<Frame, RecordError> {
        match self.cache.frame(at) {
            Some(frame) => Ok(frame),
            None => self.frame_of_flight(of, *at).await,
        }
    }

    async fn frame_of_flight(&self, of: DatabaseId, at: FrameAt) -> Result<Frame, RecordError> {
        match self.one(of, Wanted::Frame(at), Some(self.cache.clone())).await? {
            Fetched::Frame(frame) => Ok(frame),
            _ => unreachable!("BUG: a frame was asked for"),
        }
    }

    /// Many frames, for somebody who needs them once: what is not in the cache already does not get into it.
    pub async fn frames_once(
        &self,
        of: DatabaseId,
        wanted: BTreeSet<FrameAt>,
    ) -> Result<BTreeMap<FrameAt, Frame>, RecordError> {
        let mut frames = BTreeMap::new();
        let mut missing = Vec::new();
        for at in wanted {
            match self.cache.frame(&at) {
                Some(frame) => drop(frames.insert(at, frame)),
                None => missing.push(Wanted::Frame(at)),
            }
        }
        for (wanted, fetched) in self.all(of, missing, None).await? {
            if let (Wanted::Frame(at), Fetched::Frame(frame)) = (wanted, fetched) {
                frames.insert(at, frame);
            }
        }
        Ok(frames)
    }

    /// The indexes of deltas, in their order.
    pub async fn indexes(
        &self,
        of: DatabaseId,
        deltas: &[DeltaRef],
    ) -> Result<Vec<(DeltaRef, Arc<FrameIndex>)>, RecordError> {
        let wanted = deltas.iter().map(Wanted::index).collect();
        let fetched = self.all(of, wanted, Some(self.cache.clone())).await?;
        let indexes = deltas.iter().zip(fetched).map(|(delta, (_, fetched))| match fetched {
            Fetched::Index(index) => (*delta, index),
            _ => unreachable!("BUG: an index was asked for"),
        });
        Ok(indexes.collect())
    }

    /// A chunk of a page map, whole. [`segments::map::PageMap::with_chunk`] checks it.
    pub async fn chunk(&self, of: DatabaseId, chunk: &MapChunkRef) -> Result<Bytes, RecordError> {
        match self.one(of, Wanted::Chunk(*chunk), None).await? {
            Fetched::Chunk(object) => Ok(object),
            _ => unreachable!("BUG: a chunk was asked for"),
        }
    }

    /// An object that is not a pack, whole: a chunk of a history's index, or a stored base. Whoever asks checks it.
    pub async fn object(&self, of: DatabaseId, id: MapChunkId, bytes: u32, crc: u32) -> Result<Bytes, RecordError> {
        self.chunk(of, &MapChunkRef { id, number: 0, bytes, crc }).await
    }

    /// A section of a pack, checked by its checksum. It is not kept.
    pub async fn section(&self, pack: &PackId, section: &Section) -> Result<Bytes, RecordError> {
        let key = keys::pack(pack);
        let stored = self.flights.source().get(&key, section.range()).await?;
        section.check(&stored).map_err(|corrupt| corrupt.at(key))?;
        Ok(stored)
    }

    /// How many stored bytes may be read ahead at the moment, for whomever: what waits to be asked for, and what is on its
    /// way to wait, takes a bounded part of the cache.
    pub fn room_ahead(&self) -> usize {
        self.cache.room_ahead().saturating_sub(self.flights.ahead_bytes())
    }

    /// Begins to read what somebody will probably ask for soon, in this order, as far as there is
    /// [room](Self::room_ahead). Answers how many frames it has to read.
    pub fn read_ahead(&self, of: DatabaseId, frames: impl Iterator<Item = FrameAt>) -> usize {
        let mut seen = BTreeSet::new();
        let missing = frames.filter(|at| seen.insert(*at) && !self.cache.has_frame(at));
        let mut room = self.room_ahead();
        let fits = |at: &FrameAt| {
            let left = room.checked_sub(at.frame.bytes as usize);
            room = left.unwrap_or(0);
            left.is_some()
        };
        let missing: Vec<FrameAt> = missing.take_while(fits).collect();
        let interest = || Interest { answer: None, cache: Some(self.cache.clone()), keeps: self.keeps };
        self.flights.request(of, Urgency::Ahead, missing.iter().map(|at| (Wanted::Frame(*at), interest())));
        missing.len()
    }

    /// Begins to decode what was read ahead and is not decoded yet, as far as there is room for it.
    pub fn decode_ahead(&self) {
        if !self.cache.wants_decoding() || self.is_decoding.swap(true, Ordering::AcqRel) {
            return;
        }
        let (cache, is_decoding) = (self.cache.clone(), self.is_decoding.clone());
        self.flights.source().seam.spawn(async move {
            while cache.decode_next() {
                tokio::task::yield_now().await;
            }
            is_decoding.store(false, Ordering::Release);
        });
    }

    async fn one(&self, of: DatabaseId, wanted: Wanted, cache: Option<PageCache>) -> Result<Fetched, RecordError> {
        let (answer, waiting) = oneshot::channel();
        // A chunk has no place in the cache, its map holds it; frames that are needed once come through `all`.
        let interest = Interest { answer: Some(answer), cache, keeps: self.keeps };
        self.flights.request(of, Urgency::Now, std::iter::once((wanted, interest)));
        waiting.await.unwrap_or_else(|_| Err(flights::cut_off(&wanted)))
    }

    /// All of them, in their order; they may share requests.
    async fn all(
        &self,
        of: DatabaseId,
        wanted: Vec<Wanted>,
        cache: Option<PageCache>,
    ) -> Result<Vec<(Wanted, Fetched)>, RecordError> {
        let (answers, waiting): (Vec<_>, Vec<_>) = wanted.iter().map(|_| oneshot::channel()).unzip();
        let keeps = self.keeps && cache.is_some();
        let interests = answers.into_iter().map(|answer| Interest { answer: Some(answer), cache: cache.clone(), keeps });
        self.flights.request(of, Urgency::Now, wanted.iter().copied().zip(interests));
        let each = wanted.into_iter().zip(waiting).map(|(wanted, waiting)| async move {
            let fetched = waiting.await.unwrap_or_else(|_| Err(flights::cut_off(&wanted)))?;
            Ok((wanted, fetched))
        });
        try_join_all(each).await
    }
}
