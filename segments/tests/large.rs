//! A database beyond 1 GiB: the lock page, and a page map that outgrows the head.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use segments::fold::{FoldInput, Planned, build_fold, plan_fold};
use segments::id::{MapChunkId, PackId};
use segments::limits;
use segments::map::{Lookup, PageMap};
use segments::pack::Frame;
use segments::page::{PAGE_BYTES, Page, PageNo, SEGMENT_PAGES};
use walstore::id::{DatabaseId, Lsn};

const DATABASE: DatabaseId = DatabaseId::from_bytes([9; 16]);

struct Bucket {
    packs: BTreeMap<PackId, Bytes>,
    chunks: BTreeMap<MapChunkId, Bytes>,
    seq: u32,
}

impl Bucket {
    /// Folds `input` into the map of `root` and returns the new root, and how many objects were written.
    fn fold(&mut self, root: &[u8], fill: impl Fn(&mut FoldInput)) -> (Bytes, usize) {
        let mut map = PageMap::decode(root).unwrap();
        let mut input = FoldInput::new(DATABASE, &map);
        fill(&mut input);
        let plan = loop {
            match plan_fold(&map, &input, &|_| None).unwrap() {
                Planned::Ready(plan) => break plan,
                Planned::Needs { chunks, indexes } => {
                    assert!(indexes.is_empty());
                    for chunk in chunks {
                        map = map.with_chunk(&chunk, &self.chunks[&chunk.id]).unwrap();
                    }
                }
                Planned::Nothing => panic!("there is something to fold"),
            }
        };
        assert_eq!(plan.reads(), BTreeSet::new());
        self.seq += 1;
        let pack = PackId { owner: DATABASE, epoch: 1, seq: self.seq, nonce: 1 };
        let folded = build_fold(&plan, &input, &BTreeMap::new(), pack).unwrap();
        self.packs.insert(pack, folded.pack.unwrap().bytes);
        let stored = folded.map.store(&mut || {
            self.seq += 1;
            MapChunkId { owner: DATABASE, epoch: 1, seq: self.seq, nonce: 1 }
        });
        let count = stored.objects.len();
        self.chunks.extend(stored.objects);
        (stored.root, count)
    }

    fn read(&self, root: &[u8], page: PageNo) -> Page {
        let mut map = PageMap::decode(root).unwrap();
        loop {
            match map.lookup(page, &|_| None) {
                Lookup::NeedChunk(chunk) => map = map.with_chunk(&chunk, &self.chunks[&chunk.id]).unwrap(),
                Lookup::LockPage => return Page::zeroed(),
                Lookup::Found(source) => {
                    let range = source.at.frame.range();
                    let stored = self.packs[&source.at.pack].slice(range.start as usize..range.end as usize);
                    return Frame::decode(&stored, &source.at.frame).unwrap().page(source.place).unwrap();
                }
                other => panic!("page {page}: {other:?}"),
            }
        }
    }
}

fn no(page: u32) -> PageNo {
    PageNo::new(page).unwrap()
}

fn content(page: u32) -> Page {
    if page % 64 == 1 { Page::copy_of(&[page as u8 | 1; PAGE_BYTES]) } else { Page::zeroed() }
}

#[test]
fn a_database_beyond_the_lock_page_folds_and_reads() {
    let mut bucket = Bucket { packs: BTreeMap::new(), chunks: BTreeMap::new(), seq: 0 };
    let mut root = PageMap::empty().store(&mut || unreachable!()).root;
    // Whole segments, so that no fold takes older pages along.
    let step = limits::COMMIT_PAGES_MAX as u32 / SEGMENT_PAGES * SEGMENT_PAGES;
    let mut page_count = 0;
    for _ in 0..12 {
        let grown = page_count + step;
        (root, _) = bucket.fold(&root, |input| {
            let pages = PageNo::grown(page_count, grown).map(|page| (page, content(page.get())));
            input.add(Lsn::after(input.lsn), grown, pages);
        });
        page_count = grown;
    }
    assert!(page_count > PageNo::LOCK_PAGE.get() + 32 && root.len() < 1500, "{} bytes", root.len());
    for page in [1, 64, 65, 129, 32_769, 262_081, 262_144, 262_145, 262_146, 262_209, page_count] {
        let expected = if no(page) == PageNo::LOCK_PAGE { Page::zeroed() } else { content(page) };
        assert!(bucket.read(&root, no(page)) == expected, "page {page}");
    }

    let filled = Page::copy_of(&[7; PAGE_BYTES]);
    let around = PageNo::LOCK_PAGE.segment();
    let lock_segment: Vec<PageNo> =
        (0..32).filter_map(|at| around.page(at)).filter(|no| *no != PageNo::LOCK_PAGE).collect();
    let (root, count) = bucket.fold(&root, |input| {
        let pages = lock_segment.iter().map(|page| (*page, filled.clone()));
        input.add(Lsn::after(input.lsn), page_count, pages.chain([(no(1), filled.clone())]));
    });
    assert_eq!(count, 1, "one chunk changed: the lock page counts as written with its segment");
    for page in [1, 262_146, 262_176] {
        assert!(bucket.read(&root, no(page)) == filled, "page {page}");
    }
    assert!(bucket.read(&root, no(262_145)).is_zero() && bucket.read(&root, no(65)) == content(65));

    let (root, count) = bucket.fold(&root, |input| {
        input.add(Lsn::after(input.lsn), 40_000, [(no(1), filled.clone())]);
        input.add(Lsn::after(input.lsn), 40_001, [(no(40_001), filled.clone())]);
    });
    assert_eq!(count, 1, "the shrink changed the chunk that it goes through, and dropped those beyond");
    assert!(bucket.read(&root, no(40_001)) == filled && bucket.read(&root, no(39_937)) == content(39_937));
}
