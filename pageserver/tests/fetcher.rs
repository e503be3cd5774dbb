//! The fetcher over a store whose GETs are counted, slow, stuck or failing, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{Either, join, join_all, join3, select};
use pageserver::fetcher::Fetcher;
use pageserver::limits;
use segments::cache::PageCache;
use segments::disk::DiskCache;
use segments::disk::file::simulated::{DiskFaults, SimulatedDisk};
use segments::id::PackId;
use segments::keys;
use segments::pack::{FrameAt, FrameRef, PackWriter};
use segments::page::{PAGE_BYTES, Page, SEGMENT_BYTES, SEGMENT_PAGES, SegmentNo};
use walstore::id::{DatabaseId, Lsn};
use walstore::limits as log_limits;
use walstore::register::RecordError;
use walstore::seam::{Seam, simulated};
use walstore::store::{Condition, Key, MemoryStore, Object, Put, Store, StoreError, StoreErrorKind};

const USUAL: Duration = Duration::from_millis(30);
const OF: DatabaseId = DatabaseId::from_bytes([7; 16]);

/// What happens to a GET.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered(Duration),
    Never,
    Failed,
    /// An answer that ends early, as a store notices it.
    Truncated,
    Flipped,
}

/// A store whose next GETs have the given fates; the others are answered after the usual time.
#[derive(Clone)]
struct Scripted {
    memory: MemoryStore,
    seam: Seam,
    state: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    fates: Vec<Fate>,
    gets: Vec<(String, Range<u64>)>,
    running: usize,
    running_most: usize,
}

#[async_trait]
impl Store for Scripted {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.memory.get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Object>, StoreError> {
        let fate = {
            let mut script = self.state.lock().unwrap();
            script.gets.push((key.to_string(), range.clone()));
            script.running += 1;
            script.running_most = script.running_most.max(script.running);
            if script.fates.is_empty() { Fate::Answered(USUAL) } else { script.fates.remove(0) }
        };
        let failed = |text| Err(StoreError::new(StoreErrorKind::Retry, key, text));
        match fate {
            Fate::Never => std::future::pending().await,
            Fate::Answered(time) => self.seam.sleep(time).await,
            _ => self.seam.sleep(USUAL).await,
        }
        self.state.lock().unwrap().running -= 1;
        match fate {
            Fate::Failed => failed("503"),
            Fate::Truncated => failed("the answer ended early"),
            Fate::Flipped => {
                let object = self.memory.get_range(key, range).await?;
                Ok(object.map(|object| {
                    let mut bytes = object.bytes.to_vec();
                    bytes[0] ^= 1;
                    Object { bytes: bytes.into(), ..object }
                }))
            }
            _ => self.memory.get_range(key, range).await,
        }
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: &Condition) -> Result<Put, StoreError> {
        self.memory.put(key, bytes, condition).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.memory.delete(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Key>, StoreError> {
        self.memory.list(prefix, after, limit).await
    }

    fn describe(&self) -> String {
        "scripted".into()
    }
}

struct World {
    seam: Seam,
    store: Scripted,
    fetcher: Fetcher,
}

impl World {
    fn new() -> Self {
        Self::with(64 << 20, 32 << 20)
    }

    fn with(cache_bytes: u64, in_flight_bytes: usize) -> Self {
        let seam = simulated::seam(7);
        let store = Scripted { memory: MemoryStore::new(), seam: seam.clone(), state: Arc::default() };
        let fetcher = Fetcher::new(Arc::new(store.clone()), seam.clone(), PageCache::new(cache_bytes), in_flight_bytes);
        Self { seam, store, fetcher }
    }

    /// A pack of whole segments whose pages do not compress: where each of them is.
    async fn pack(&self, number: u64, segments: u32) -> Vec<FrameAt> {
        let id = PackId { owner: OF, epoch: 1, seq: 1, nonce: number };
        let mut writer = PackWriter::new(id, Lsn::FIRST, segments * SEGMENT_PAGES);
        for segment in 0..segments {
            let pages = (0..SEGMENT_PAGES).map(|page| content(number, segment * SEGMENT_PAGES + page));
            writer.add_segment(SegmentNo::new(segment).unwrap(), pages.collect());
        }
        let pack = writer.finish().unwrap();
        self.store.put(&keys::pack(&id), pack.bytes.clone(), &Condition::None).await.unwrap();
        pack.segments.entries().iter().map(|entry| FrameAt { pack: id, frame: entry.frame }).collect()
    }

    /// Makes the fetcher know how long a GET usually takes.
    async fn warm_up(&self) {
        for (number, _) in (1_000..).zip(0..log_limits::HEDGE_SAMPLES) {
            let at = self.pack(number, 1).await;
            self.fetcher.frame(OF, &at[0]).await.unwrap();
        }
        assert_eq!(self.fetcher.hedges(), 0);
        self.store.state.lock().unwrap().gets.clear();
    }

    fn next_fates(&self, fates: &[Fate]) {
        self.store.state.lock().unwrap().fates = fates.to_vec();
    }

    fn gets(&self) -> usize {
        self.store.state.lock().unwrap().gets.len()
    }

    async fn read(&self, number: u64, segment: u32, at: &FrameAt) {
        let frame = self.fetcher.frame(OF, at).await.unwrap();
        for place in 0..SEGMENT_PAGES {
            assert!(frame.page(place as u8).unwrap() == content(number, segment * SEGMENT_PAGES + place));
        }
    }
}

fn content(pack: u64, page: u32) -> Page {
    let mut bytes = [0; PAGE_BYTES];
    let mut state = pack << 32 | u64::from(page) | 1 << 63;
    for chunk in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes());
    }
    Page::copy_of(&bytes)
}

#[tokio::test(start_paused = true)]
async fn any_number_who_miss_the_same_frame_share_one_request() {
    let world = World::new();
    let at = world.pack(1, 1).await;
    let before = world.seam.boot_micros();
    join_all((0..100).map(|_| world.read(1, 0, &at[0]))).await;
    assert_eq!(world.gets(), 1);
    assert_eq!(Duration::from_micros(world.seam.boot_micros() - before), USUAL);
    world.read(1, 0, &at[0]).await;
    assert_eq!(world.gets(), 1, "it is in memory now");
}

#[tokio::test(start_paused = true)]
async fn one_who_goes_away_cancels_nothing_for_the_others() {
    let world = World::new();
    let at = world.pack(1, 1).await;
    let impatient = Box::pin(world.fetcher.frame(OF, &at[0]));
    let a_moment = Box::pin(world.seam.sleep(USUAL / 2));
    // The one who began it is gone before the answer.
    let Either::Right((_, impatient)) = select(impatient, a_moment).await else { panic!("a GET takes longer") };
    let patient = world.read(1, 0, &at[0]);
    drop(impatient);
    patient.await;
    assert_eq!(world.gets(), 1);
    // And if nobody is left, what comes is kept.
    let at = world.pack(2, 1).await;
    let gone = Box::pin(world.fetcher.frame(OF, &at[0]));
    drop(select(gone, Box::pin(world.seam.sleep(USUAL / 2))).await);
    world.seam.sleep(USUAL).await;
    world.read(2, 0, &at[0]).await;
    assert_eq!(world.gets(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_error_reaches_all_who_wait_and_is_not_kept() {
    let world = World::new();
    let at = world.pack(1, 1).await;
    world.next_fates(&[Fate::Flipped]);
    let answers = join_all((0..5).map(|_| world.fetcher.frame(OF, &at[0]))).await;
    for answer in answers {
        let Err(RecordError::Corrupt(corrupt)) = answer else { panic!("damaged bytes were served") };
        assert_eq!(corrupt.key, keys::pack(&at[0].pack).to_string());
    }
    assert_eq!(world.gets(), 1);
    world.read(1, 0, &at[0]).await;
    assert_eq!(world.gets(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failing_store_is_asked_again_and_the_answer_is_right() {
    let world = World::new();
    let at = world.pack(1, 1).await;
    world.next_fates(&[Fate::Failed, Fate::Truncated, Fate::Failed]);
    join_all((0..3).map(|_| world.read(1, 0, &at[0]))).await;
    assert_eq!(world.gets(), 4);
    // One that fails for ever fails the query, not the node.
    let at = world.pack(2, 1).await;
    world.next_fates(&[Fate::Failed; 1_000]);
    let began = world.seam.boot_micros();
    let Err(RecordError::Store(_)) = world.fetcher.frame(OF, &at[0]).await else { panic!("it cannot be read") };
    let took = Duration::from_micros(world.seam.boot_micros() - began);
    assert!(took < limits::FETCH_PATIENCE + Duration::from_secs(2), "{took:?}");
    world.next_fates(&[]);
    world.read(2, 0, &at[0]).await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_not_there_is_corruption_that_names_it() {
    let world = World::new();
    let mut at = world.pack(1, 1).await[0];
    at.pack.nonce = 99;
    let Err(RecordError::Corrupt(corrupt)) = world.fetcher.frame(OF, &at).await else { panic!("zeros?") };
    assert_eq!(corrupt.key, keys::pack(&at.pack).to_string());
}

#[tokio::test(start_paused = true)]
async fn a_get_that_hangs_is_overtaken_by_its_hedge() {
    let world = World::new();
    world.warm_up().await;
    let at = world.pack(1, 1).await;
    world.next_fates(&[Fate::Never]);
    let began = world.seam.boot_micros();
    world.read(1, 0, &at[0]).await;
    assert_eq!((world.gets(), world.fetcher.hedges()), (2, 1));
    let took = Duration::from_micros(world.seam.boot_micros() - began);
    assert!(took < 3 * USUAL, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn hedges_are_few_and_there_are_none_while_the_store_has_errors() {
    let world = World::new();
    world.warm_up().await;
    let slow = [Fate::Answered(10 * USUAL); 200];
    for number in 0..100 {
        let at = world.pack(number, 1).await;
        world.next_fates(&slow);
        world.read(number, 0, &at[0]).await;
    }
    let hedges = world.fetcher.hedges();
    assert!((1..=8).contains(&hedges), "{hedges} hedges of 164 requests");
    assert_eq!(world.gets() as u64, 100 + hedges);

    let at = world.pack(200, 1).await;
    world.next_fates(&[Fate::Failed, Fate::Answered(10 * USUAL)]);
    world.read(200, 0, &at[0]).await;
    assert_eq!(world.fetcher.hedges(), hedges);
}

#[tokio::test(start_paused = true)]
async fn neighbours_that_are_wanted_together_share_a_request() {
    let world = World::new();
    let at = world.pack(1, 16).await;
    let frames = world.fetcher.frames_once(OF, at.iter().copied().collect()).await.unwrap();
    assert_eq!(frames.len(), 16);
    // What does not compress is a little more than 128 KiB: three in 512 KiB.
    assert_eq!(world.gets(), 6);
    for (segment, at) in (0..).zip(&at) {
        assert!(frames[at].page(5).unwrap() == content(1, segment * SEGMENT_PAGES + 5));
    }
    // It was for once: nothing of it stays.
    world.read(1, 3, &at[3]).await;
    assert_eq!(world.gets(), 7);
    // What is there already is not asked for again.
    world.fetcher.frames_once(OF, BTreeSet::from([at[2], at[3], at[4]])).await.unwrap();
    let gets = world.store.state.lock().unwrap().gets.split_off(7);
    let ranges: BTreeMap<u64, u64> = gets.iter().map(|(_, range)| (range.start, range.end)).collect();
    assert_eq!(ranges, [at[2], at[4]].map(|at| (at.frame.range().start, at.frame.range().end)).into());
}

#[tokio::test(start_paused = true)]
async fn a_damaged_frame_among_neighbours_fails_alone() {
    let world = World::new();
    let at = world.pack(1, 3).await;
    // As if the bytes in between were not what the page map says.
    let damaged = FrameAt { frame: FrameRef { crc: 1, ..at[1].frame }, ..at[1] };
    let all = world.fetcher.frames_once(OF, BTreeSet::from([at[0], damaged, at[2]]));
    let (all, ..) = join3(all, world.read(1, 0, &at[0]), world.read(1, 2, &at[2])).await;
    let Err(RecordError::Corrupt(corrupt)) = all else { panic!("damaged bytes were served") };
    assert_eq!(corrupt.key, keys::pack(&at[1].pack).to_string());
    assert_eq!(world.gets(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_is_bounded_in_requests_and_bytes() {
    let world = World::with(256 << 20, 1 << 30);
    let packs = join_all((0..300).map(|number| world.pack(number, 1))).await;
    join_all((0..).zip(&packs).map(|(number, at)| world.read(number, 0, &at[0]))).await;
    assert_eq!((world.gets(), world.store.state.lock().unwrap().running_most), (300, limits::FETCHES_MAX));
    world.seam.sleep(USUAL).await;
    assert_eq!(world.fetcher.bytes_in_flight(), 0);

    let world = World::with(256 << 20, 2 << 20);
    let packs = join_all((0..50).map(|number| world.pack(number, 1))).await;
    join_all((0..).zip(&packs).map(|(number, at)| world.read(number, 0, &at[0]))).await;
    let most = world.store.state.lock().unwrap().running_most;
    assert!((4..=8).contains(&most), "{most} frames of 256 KiB, as stored and decoded, in 2 MiB");
}

#[tokio::test(start_paused = true)]
async fn a_database_that_wants_much_makes_another_wait_for_one_request_only() {
    let world = World::new();
    let flood = join_all((0..1_000).map(|number| world.pack(number, 1))).await;
    let other = world.pack(5_000, 1).await;
    let flooding = join_all(flood.iter().map(|at| world.fetcher.frame(OF, &at[0])));
    let query = async {
        world.seam.sleep(USUAL / 3).await;
        let began = world.seam.boot_micros();
        world.fetcher.frame(DatabaseId::from_bytes([8; 16]), &other[0]).await.unwrap();
        Duration::from_micros(world.seam.boot_micros() - began)
    };
    let (_, took) = join(flooding, query).await;
    assert!(took <= 2 * USUAL, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_read_ahead_is_there_when_it_is_asked_for() {
    let world = World::new();
    let at = world.pack(1, 12).await;
    assert_eq!(world.fetcher.read_ahead(OF, at.iter().copied()), 12);
    // Asked for while it is on its way: the same request serves.
    join(world.read(1, 0, &at[0]), world.read(1, 11, &at[11])).await;
    let gets = world.gets();
    assert_eq!(gets, 2, "seven frames to a request");
    world.seam.sleep(USUAL).await;
    let began = world.seam.boot_micros();
    for (segment, at) in (0..).zip(&at) {
        world.read(1, segment, at).await;
    }
    assert_eq!((world.gets(), world.seam.boot_micros()), (gets, began), "nobody waits");
    assert_eq!(world.fetcher.read_ahead(OF, at.iter().copied()), 0, "it is there");
}

#[tokio::test(start_paused = true)]
async fn reading_ahead_is_bounded_until_it_is_asked_for() {
    // Three sixteenths of 32 MiB are room for 48 segments, but for what their headers take.
    let world = World::with(32 << 20, 32 << 20);
    let at = world.pack(1, 64).await;
    let room = || world.fetcher.room_ahead() / SEGMENT_BYTES;
    assert_eq!((room(), world.fetcher.read_ahead(OF, at.iter().copied())), (48, 47));
    assert_eq!(room(), 0, "on its way");
    assert_eq!(world.fetcher.read_ahead(OF, at[47..].iter().copied()), 0);
    world.seam.sleep(2 * USUAL).await;
    assert_eq!(room(), 0, "come, and not asked for");
    // Those that are not decoded yet as well as those that are.
    for (segment, at) in (0..3).zip(&at) {
        world.read(1, segment, at).await;
    }
    assert_eq!(room(), 3);
    let gets = world.gets();
    let more = world.fetcher.read_ahead(OF, at[3..].iter().copied());
    assert_eq!(more, 3, "some more, which are not there yet");
    world.seam.sleep(2 * USUAL).await;
    assert_eq!(world.gets(), gets + 1);
}

#[tokio::test(start_paused = true)]
async fn who_waits_goes_before_what_is_read_ahead() {
    let world = World::with(1 << 30, 1 << 30);
    let packs = join_all((0..200).map(|number| world.pack(number, 1))).await;
    // More than may be on its way: the rest waits in line.
    world.fetcher.read_ahead(OF, packs.iter().map(|at| at[0]));
    let began = world.seam.boot_micros();
    // The last in that line does not wait for the others.
    world.read(199, 0, &packs[199][0]).await;
    assert_eq!(Duration::from_micros(world.seam.boot_micros() - began), USUAL);
    let error = [Fate::Failed; 400];
    world.seam.sleep(10 * USUAL).await;
    assert_eq!(world.gets(), 200);
    // A failure of what nobody waits for is nobody's failure.
    let at = world.pack(500, 1).await;
    world.next_fates(&error);
    world.fetcher.read_ahead(OF, at.iter().copied());
    world.seam.sleep(2 * limits::FETCH_PATIENCE).await;
    world.next_fates(&[]);
    world.read(500, 0, &at[0]).await;
}

/// A life of a node: memory is empty, the disk is as the last one left it.
async fn reborn(world: &mut World, disk: &SimulatedDisk) -> DiskCache {
    let file = disk.open(&world.seam, DiskFaults::default(), Arc::new(|_, _| {}));
    let cache = DiskCache::open(&world.seam, file, 8 << 20);
    cache.settle().await;
    let store = Arc::new(world.store.clone());
    world.fetcher = Fetcher::with_disk(store, world.seam.clone(), PageCache::new(64 << 20), cache.clone(), 32 << 20);
    cache
}

#[tokio::test(start_paused = true)]
async fn what_the_disk_has_needs_no_request_and_what_is_damaged_on_it_is_requested_again() {
    let (mut world, disk) = (World::new(), SimulatedDisk::new(1));
    let at = world.pack(1, 6).await;
    let cache = reborn(&mut world, &disk).await;
    let read_all = async |world: &World| join_all((0..6).map(|n| world.read(1, n, &at[n as usize]))).await.len();
    // One who reads for himself alone keeps nothing there.
    let aside = world.fetcher.with_cache(PageCache::new(64 << 20));
    aside.frame(OF, &at[0]).await.unwrap();
    assert_eq!((cache.entry_count(), world.gets()), (0, 1));
    read_all(&world).await;
    cache.settle().await;
    let before = world.gets();

    let cache = reborn(&mut world, &disk).await;
    read_all(&world).await;
    assert_eq!((world.gets(), cache.counters().hits), (before, 6));
    read_all(&world).await;
    assert_eq!(cache.counters().hits, 6, "they are in memory now");

    // The second of six slots: its neighbours still come from the disk.
    disk.edit(|bytes| bytes[200_000] ^= 1);
    let cache = reborn(&mut world, &disk).await;
    read_all(&world).await;
    let counters = cache.counters();
    assert_eq!((world.gets() - before, counters.hits, counters.damaged), (1, 5, 1));
    cache.settle().await;
    reborn(&mut world, &disk).await;
    read_all(&world).await;
    assert_eq!(world.gets() - before, 1, "what was fetched again is kept again");
}
