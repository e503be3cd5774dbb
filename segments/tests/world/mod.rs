//! One database, the bucket, and the model that it is compared with.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use segments::cache::PageCache;
use segments::commit::{Base, Commit, UncheckedCommit, encode};
use segments::fold::{
    FoldError, FoldInput, Folded, Planned, build_fold, plan_compaction, plan_fold, plan_whole, wants_image,
};
use segments::id::{MapChunkId, PackId};
use segments::image::{BootImage, Carried, Image, WholeImage};
use segments::keys;
use segments::map::{DeltaRef, Indexes, Lookup, PageMap};
use segments::pack::{Frame, FrameAt, FrameIndex, PackWriter};
use segments::page::{PAGE_BYTES, Page, PageNo, SegmentNo};
use segments::tip::Tip;
use walstore::id::{DatabaseId, Lsn};
use walstore::store::Key;

pub const DATABASE: DatabaseId = DatabaseId::from_bytes([9; 16]);

type Planner = fn(&PageMap, &FoldInput, Indexes<'_>) -> Result<Planned, FoldError>;

/// What stands in a page: 0 is zeros, else the number of the write that made it.
type Stamp = u64;

pub struct World {
    bucket: BTreeMap<Key, Bytes>,
    /// What the head would hold, and what came of reading it.
    root: Bytes,
    image: Option<Bytes>,
    map: PageMap,
    tip: Tip,
    /// Commits that are not folded.
    tail: Vec<Commit>,
    /// The model: pages after each commit from the map's LSN on, newest last.
    states: Vec<(Option<Lsn>, Vec<Stamp>)>,
    /// For patches: last version of each page.
    last: BTreeMap<PageNo, Base>,
    stamps: Stamp,
    objects: u32,
}

impl World {
    pub fn new() -> Self {
        let map = PageMap::empty();
        Self {
            bucket: BTreeMap::new(),
            root: map.store(&mut || unreachable!()).root,
            image: None,
            map,
            tip: Tip::before_first(DATABASE),
            tail: Vec::new(),
            states: vec![(None, Vec::new())],
            last: BTreeMap::new(),
            stamps: 0,
            objects: 0,
        }
    }

    pub fn page_count(&self) -> u32 {
        self.tip.page_count
    }

    pub fn is_in_head(&self) -> bool {
        matches!(self.image(), Some(Image::Whole(_)))
    }

    /// The pages that stand in the head besides the packs.
    pub fn boot_pages(&self) -> usize {
        match self.image() {
            Some(Image::Boot(boot)) => boot.pages().len(),
            _ => 0,
        }
    }

    pub fn map(&self) -> &PageMap {
        &self.map
    }

    /// Commits a database of `page_count` pages of which `pages` were written. Those beyond do not count.
    pub fn commit(&mut self, page_count: u32, pages: &[u32]) {
        self.commit_stamped(page_count, pages, |stamps| {
            *stamps += 1;
            *stamps
        });
    }

    /// The same, and these pages are zeros.
    pub fn commit_zeros(&mut self, page_count: u32, pages: &[u32]) {
        self.commit_stamped(page_count, pages, |_| 0);
    }

    fn commit_stamped(&mut self, page_count: u32, pages: &[u32], next: impl Fn(&mut Stamp) -> Stamp) {
        let mut state = self.states.last().unwrap().1.clone();
        state.resize(page_count as usize, 0);
        let mut written = BTreeMap::new();
        for page in pages.iter().filter(|page| **page <= page_count) {
            let stamp = next(&mut self.stamps);
            state[*page as usize - 1] = stamp;
            written.insert(PageNo::new(*page).unwrap(), content(*page, stamp));
        }
        let commit = Commit::new(&self.tip, 0, page_count, written).unwrap();
        let commit = self.through_the_log(commit);
        self.states.push((Some(commit.lsn), state));
        self.tail.push(commit);
    }

    /// Encodes, decodes and checks a commit as a node does that takes over.
    fn through_the_log(&mut self, commit: Commit) -> Commit {
        let encoded = encode(&commit, &self.tip, &|page| self.last.get(&page).cloned());
        let checked = UncheckedCommit::decode(&encoded.bytes).unwrap().check(&self.tip).unwrap();
        assert_eq!(checked.tip(), encoded.tip);
        let read = |page, lsn| match &self.last[&page] {
            base if base.lsn == lsn => Ok(base.page.clone()),
            base => Err(base.lsn),
        };
        let decoded = checked.apply(read).unwrap();
        assert_eq!(decoded, commit);
        self.last.retain(|page, _| page.get() <= commit.page_count);
        for ((page, content), patched) in commit.pages.iter().zip(encoded.patched) {
            let before = self.last.get(page).map_or(0, |base| base.patches_in_a_row);
            let patches_in_a_row = if patched { before + 1 } else { 0 };
            self.last.insert(*page, Base { lsn: commit.lsn, page: content.clone(), patches_in_a_row });
        }
        self.tip = encoded.tip;
        decoded
    }

    /// A database of `page_count` pages, all folded.
    pub fn load(&mut self, page_count: u32) {
        self.commit(page_count, &(1..=page_count).collect::<Vec<_>>());
        self.fold(0);
    }

    /// Folds all but the last `keep` commits and checks all of the result. Returns the bytes written.
    pub fn fold(&mut self, keep: usize) -> usize {
        let count = self.tail.len().saturating_sub(keep);
        let mut input = FoldInput::new(DATABASE, &self.map);
        for commit in &self.tail[..count] {
            input.add(commit.lsn, commit.page_count, commit.pages.clone());
        }
        let written = self.run_fold(&input);
        self.tail.drain(..count);
        self.states.drain(..count);
        written
    }

    fn run_fold(&mut self, input: &FoldInput) -> usize {
        let wanted = wants_image(&self.map, input, self.is_in_head());
        let whole = wanted.and_then(|bytes_max| {
            let folded = self.plan_and_build(input, plan_whole).expect("there is something to fold");
            let pack = folded.pack.as_ref().expect("a database has pages");
            let image = WholeImage::of_pack(pack, bytes_max).map(|image| Image::Whole(image).encode());
            // One that leaves its head is written whole, for the last time.
            (image.is_some() || self.is_in_head()).then_some((folded, image))
        });
        match whole {
            Some((folded, image)) => self.link(folded, image, input),
            None => self.plan_and_build(input, plan_fold).map_or(0, |folded| self.link(folded, None, input)),
        }
    }

    /// Gives dead space back until there is little. Returns the number of steps.
    pub fn compact(&mut self) -> usize {
        let mut steps = 0;
        while !self.is_in_head() {
            let input = FoldInput::new(DATABASE, &self.map);
            let Some(folded) = self.plan_and_build(&input, plan_compaction) else { break };
            assert!(folded.pack.is_none() || folded.pack.as_ref().is_some_and(|pack| pack.delta.is_none()));
            self.link(folded, None, &input);
            steps += 1;
            assert!(steps < 1000, "compacting comes to no end");
        }
        steps
    }

    /// Bytes of packs in the bucket, and of a pack with all pages and nothing else.
    pub fn pack_bytes(&self) -> (usize, usize) {
        let state = &self.states.iter().find(|(lsn, _)| *lsn == self.map.lsn()).expect("a state of this map").1;
        let pages: Vec<Page> = (1..).zip(state).map(|(page, stamp)| content(page, *stamp)).collect();
        let lsn = self.map.lsn().expect("a fold");
        let id = PackId { owner: DATABASE, epoch: 9, seq: 9, nonce: 9 };
        let mut fresh = PackWriter::new(id, lsn, self.map.page_count());
        for (number, pages) in (0..).zip(pages.chunks(32)) {
            fresh.add_segment(SegmentNo::new(number).expect("a segment"), pages.to_vec());
        }
        let packs = self.bucket.iter().filter(|(key, _)| key.as_str().contains("/p/"));
        (packs.map(|(_, bytes)| bytes.len()).sum(), fresh.finish().expect("it fits").bytes.len())
    }

    fn plan_and_build(&mut self, input: &FoldInput, plan_fold: Planner) -> Option<Folded> {
        let cache = PageCache::new(1 << 30);
        // As a runner does it: plan, read what the plan lacks, plan again.
        let plan = loop {
            match plan_fold(&self.map, input, &|delta| cache.index(delta)).unwrap() {
                Planned::Nothing => return None,
                Planned::Ready(plan) => break plan,
                Planned::Needs { chunks, indexes } => {
                    for chunk in &chunks {
                        self.map = self.map.with_chunk(chunk, &self.bucket[&keys::page_map(&chunk.id)]).unwrap();
                    }
                    for delta in &indexes {
                        assert!(cache.index(delta).is_none(), "asked for twice");
                        cache.insert_index(delta, Arc::new(self.read_index(delta)));
                    }
                    assert!(!chunks.is_empty() || !indexes.is_empty(), "needs nothing and does not go on");
                }
            }
        };
        let frames = plan.reads().into_iter().map(|at| (at, self.read_frame(&at))).collect();
        Some(build_fold(&plan, input, &frames, self.next_pack()).unwrap())
    }

    fn link(&mut self, folded: Folded, image: Option<Bytes>, input: &FoldInput) -> usize {
        let boot = self.boot(input, folded.map.page_count()).filter(|_| image.is_none());
        let mut written = image.as_ref().map_or(0, Bytes::len);
        if let Some(pack) = &folded.pack {
            segments::pack::read_pack(&pack.bytes, &pack.id).unwrap();
            if image.is_none() {
                written += pack.bytes.len();
                self.bucket.insert(keys::pack(&pack.id), pack.bytes.clone());
            }
        }
        let mut ids = Vec::new();
        let stored = folded.map.store(&mut || {
            self.objects += 1;
            ids.push(self.objects);
            MapChunkId { owner: DATABASE, epoch: 1, seq: self.objects, nonce: 0 }
        });
        for (id, object) in &stored.objects {
            written += object.len();
            self.bucket.insert(keys::page_map(id), object.clone());
        }
        written += stored.root.len();
        let old = std::mem::replace(&mut self.map, stored.map);
        self.root = stored.root;
        self.check_snapshot(&old);
        let old_image = self.image();
        self.image = image.or_else(|| boot.map(|boot| boot.encode()));
        self.check_boot(&old);
        for pack in folded.dead.iter().filter(|pack| !old_image.as_ref().is_some_and(|image| image.is_pack(pack))) {
            assert!(self.bucket.remove(&keys::pack(pack)).is_some(), "{pack} is dead twice");
        }
        for chunk in old.chunk_ids().difference(&self.map.chunk_ids()) {
            self.bucket.remove(&keys::page_map(chunk)).unwrap();
        }
        if self.page_count() < 1000 {
            self.check();
        }
        written
    }

    /// The boot image after a fold of `input`: every seventh page that the fold wrote, and those that it had.
    fn boot(&mut self, input: &FoldInput, page_count: u32) -> Option<Image> {
        let carried = match self.image() {
            Some(Image::Boot(boot)) => boot.carry(&self.map, input).unwrap(),
            _ => Carried::ChooseAgain(Vec::new()),
        };
        let mut pages = match carried {
            Carried::AsItIs(boot) => return Some(Image::Boot(boot)),
            Carried::Renewed(pages) | Carried::ChooseAgain(pages) => pages,
        };
        let is_wanted = |page: PageNo| page.get() % 7 == 1 && !pages.iter().any(|(known, _)| *known == page);
        let more: Vec<(PageNo, Page)> =
            input.pages.iter().filter(|(page, _)| is_wanted(**page)).map(|(no, page)| (*no, page.clone())).collect();
        pages.extend(more);
        assert!(pages.iter().all(|(page, _)| page.get() <= page_count));
        BootImage::new(self.next_pack(), input.lsn?, &pages).map(Image::Boot)
    }

    /// What stands in the head is what the packs hold, and is never taken for another state's.
    fn check_boot(&self, old: &PageMap) {
        let Some(image @ Image::Boot(boot)) = &self.image() else { return };
        let state = self.states.iter().find(|(lsn, _)| *lsn == self.map.lsn());
        let (_, state) = state.expect("the model keeps the state of this map");
        for page in boot.pages() {
            let source = image.source(&self.map, *page).expect("it is of this map");
            let found = image.frame(&source.at).unwrap().unwrap().page(source.place).unwrap();
            assert!(found == content(page.get(), state[page.get() as usize - 1]), "page {page} of the boot image");
            assert!(old.lsn() == self.map.lsn() || image.source(old, *page).is_none());
        }
    }

    fn image(&self) -> Option<Image> {
        self.image.as_ref().map(|stored| Image::decode(stored).unwrap())
    }

    fn next_pack(&mut self) -> PackId {
        self.objects += 1;
        PackId { owner: DATABASE, epoch: 1, seq: self.objects, nonce: u64::from(self.objects) << 40 }
    }

    /// The map as somebody reads it who starts from the bucket, page by page, against the model.
    pub fn check(&mut self) {
        let map = PageMap::decode(&self.root).unwrap();
        assert_eq!((map.lsn(), map.page_count()), (self.map.lsn(), self.map.page_count()));
        self.check_snapshot(&map);
        self.check_packs(&map);
    }

    fn check_snapshot(&self, map: &PageMap) {
        let state = self.states.iter().find(|(lsn, _)| *lsn == map.lsn());
        let (_, state) = state.expect("the model keeps the state of this map");
        assert_eq!(state.len(), map.page_count() as usize);
        let cache = PageCache::new(1 << 30);
        let mut map = map.clone();
        for (page, stamp) in (1..).zip(state) {
            let found = self.read(&mut map, &cache, PageNo::new(page).unwrap());
            assert!(found == content(page, *stamp), "page {page} at LSN {:?}: {found:?}", map.lsn());
        }
        let outside = PageNo::new(map.page_count() + 1).unwrap();
        assert_eq!(map.lookup(outside, &|_| None), Lookup::Outside);
    }

    /// Every pack of the bucket is in use, and every pack in use is there.
    fn check_packs(&self, map: &PageMap) {
        let Some(used) = map.packs() else { return };
        let image = self.image();
        let in_bucket = used.iter().filter(|pack| !image.as_ref().is_some_and(|image| image.is_pack(pack)));
        let used: Vec<Key> = in_bucket.map(keys::pack).collect();
        let there: Vec<Key> = self.bucket.keys().filter(|key| key.as_str().contains("/p/")).cloned().collect();
        assert_eq!(used, there);
    }

    /// Reads a page as a connection does.
    pub fn read(&self, map: &mut PageMap, cache: &PageCache, page: PageNo) -> Page {
        loop {
            match map.lookup(page, &|delta| cache.index(delta)) {
                Lookup::Found(source) => {
                    // Here with all indexes that were read so far; without them, nothing else is found.
                    let sources = map.sources(page.segment(), &|delta| cache.index(delta));
                    assert_eq!(sources.find(page).map(|(_, source)| source), Some(source), "page {page}");
                    let inline_only = map.sources(page.segment(), &|_| None).find(page);
                    assert!(inline_only.is_none_or(|(_, found)| found == source), "page {page}: {inline_only:?}");
                    match cache.page(&source) {
                        Some(page) => return page.unwrap(),
                        None => cache.insert_frame(&source.at, self.read_frame(&source.at)),
                    }
                }
                Lookup::NeedIndexes(deltas) => {
                    for delta in deltas {
                        cache.insert_index(&delta, Arc::new(self.read_index(&delta)));
                    }
                }
                Lookup::NeedChunk(chunk) => {
                    *map = map.with_chunk(&chunk, &self.bucket[&keys::page_map(&chunk.id)]).unwrap();
                }
                Lookup::LockPage => return Page::zeroed(),
                lost @ (Lookup::Missing | Lookup::Outside) => panic!("page {page}: {lost:?}"),
            }
        }
    }

    fn get_range(&self, pack: &PackId, range: Range<u64>) -> Bytes {
        self.bucket[&keys::pack(pack)].slice(range.start as usize..range.end as usize)
    }

    fn read_frame(&self, at: &FrameAt) -> Frame {
        if let Some(frame) = self.image().and_then(|image| image.frame(at)) {
            return frame.unwrap();
        }
        Frame::decode(&self.get_range(&at.pack, at.frame.range()), &at.frame).unwrap()
    }

    fn read_index(&self, delta: &DeltaRef) -> FrameIndex {
        delta.decode_index(&self.get_range(&delta.pack, delta.index.range())).unwrap()
    }
}

/// Page content that differs between stamps: a little, as rows do, or all of it.
fn content(page: u32, stamp: Stamp) -> Page {
    if stamp == 0 {
        return Page::zeroed();
    }
    let seed = if stamp.is_multiple_of(5) { stamp } else { 0 };
    let mut bytes = [0; PAGE_BYTES];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&page.to_le_bytes()).update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    let at = stamp as usize * 13 % (PAGE_BYTES - 8);
    bytes[at..at + 8].copy_from_slice(&stamp.to_le_bytes());
    Page::copy_of(&bytes)
}
