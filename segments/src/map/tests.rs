use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use walstore::id::DatabaseId;

use super::*;
use crate::pack::{FrameAt, FrameRef, Pack, PackWriter};
use crate::page::{PAGE_BYTES, Page, PageNo, SEGMENT_PAGES};

const OWNER: DatabaseId = DatabaseId::from_bytes([3; 16]);

fn no(page: u32) -> PageNo {
    PageNo::new(page).unwrap()
}

fn lsn(lsn: u64) -> Lsn {
    Lsn::new(lsn).unwrap()
}

/// A pack as of `as_of` with some whole segments and some pages. Its sequence number is its LSN.
fn pack(as_of: u64, page_count: u32, segments: &[u32], pages: &[u32]) -> Pack {
    let id = PackId { owner: OWNER, epoch: 1, seq: as_of as u32, nonce: 9 };
    let mut writer = PackWriter::new(id, lsn(as_of), page_count);
    for segment in segments {
        let segment = SegmentNo::new(*segment).unwrap();
        writer.add_segment(segment, vec![Page::zeroed(); segment.pages_within(page_count).into()]);
    }
    pages.iter().for_each(|page| writer.add_page(no(*page), Page::copy_of(&[1; PAGE_BYTES])));
    writer.finish().unwrap()
}

fn folded(map: &PageMap, pack: &Pack) -> PageMap {
    map.with_fold(pack.lsn, pack.page_count, Some(pack), &BTreeSet::new())
}

fn no_index(_: &DeltaRef) -> Option<Arc<FrameIndex>> {
    None
}

/// The LSN of the pack that holds `page`; `None` if nobody does.
fn found(map: &PageMap, page: u32) -> Option<u32> {
    match map.lookup(no(page), &no_index) {
        Lookup::Found(source) => Some(source.at.pack.seq),
        Lookup::Missing => None,
        other => panic!("page {page}: {other:?}"),
    }
}

/// 70 pages: all segments at LSN 1, pages 1, 40 and 70 at 2, page 40 and segment 0 at 3.
fn sample() -> PageMap {
    let map = folded(&PageMap::empty(), &pack(1, 70, &[0, 1, 2], &[]));
    let map = folded(&map, &pack(2, 70, &[], &[1, 40, 70]));
    folded(&map, &pack(3, 70, &[0], &[40]))
}

#[test]
fn the_source_with_the_highest_lsn_wins() {
    let map = sample();
    assert_eq!([1, 2, 39, 40, 69, 70].map(|page| found(&map, page)), [3, 3, 1, 3, 1, 2].map(Some));
    assert_eq!(map.lookup(no(71), &no_index), Lookup::Outside);
    assert_eq!(map.lookup(PageNo::LOCK_PAGE, &no_index), Lookup::LockPage);
    let seqs: Vec<u32> = map.packs().unwrap().iter().map(|pack| pack.seq).collect();
    assert_eq!(seqs, [1, 2, 3]);
}

#[test]
fn of_equal_lsns_the_segment_wins_because_a_merge_without_commits_wrote_it() {
    let map = folded(&PageMap::empty(), &pack(1, 70, &[0, 1, 2], &[]));
    let map = folded(&map, &pack(2, 70, &[], &[40]));
    let id = PackId { owner: OWNER, epoch: 1, seq: 99, nonce: 9 };
    let mut writer = PackWriter::new(id, lsn(2), 70);
    writer.add_segment(SegmentNo::new(1).unwrap(), vec![Page::zeroed(); 32]);
    let merged = folded(&map, &writer.finish().unwrap());
    assert_eq!([39, 40, 69].map(|page| found(&merged, page)), [99, 99, 1].map(Some));
}

#[test]
fn a_page_inside_without_a_source_is_missing_not_zeros() {
    let map = folded(&PageMap::empty(), &pack(1, 70, &[0, 1], &[]));
    assert_eq!([64, 65, 70].map(|page| found(&map, page)), [Some(1), None, None]);
}

#[test]
fn what_a_shrink_cut_off_never_comes_back() {
    let cut = sample().truncate(39).unwrap();
    assert_eq!((found(&cut, 39), cut.lookup(no(40), &no_index)), (Some(1), Lookup::Outside));
    let regrown = folded(&cut, &pack(4, 70, &[2], &[]));
    assert_eq!([1, 39, 40, 64, 70].map(|page| found(&regrown, page)), [Some(3), Some(1), None, None, Some(4)]);
    let decoded = PageMap::decode(&stored_inline(&regrown)).unwrap();
    assert_eq!([39, 40, 64].map(|page| found(&decoded, page)), [Some(1), None, None]);

    let nothing = sample().truncate(0).unwrap();
    assert_eq!((nothing.deltas().len(), nothing.packs().unwrap().len()), (0, 0));
    assert_eq!(sample().truncate(99).unwrap(), sample());
}

fn stored_inline(map: &PageMap) -> Bytes {
    let stored = map.store(&mut || panic!("a small map has no objects"));
    assert_eq!((stored.objects.len(), &stored.map), (0, map));
    stored.root
}

#[test]
fn golden_page_map() {
    let root = stored_inline(&sample());
    let hash = blake3::hash(&root).to_hex()[..16].to_owned();
    let (chunk, object) = Chunk::new(&[]).seal(MapChunkId { owner: OWNER, epoch: 1, seq: 2, nonce: 3 }, 4);
    let object = blake3::hash(&object).to_hex()[..16].to_owned();
    assert_eq!(
        format!("{hash} root\n{object} object of {} bytes\n", chunk.bytes),
        include_str!("../../golden/page_map.b3")
    );
    assert_eq!(PageMap::decode(&root), Ok(sample()));
}

#[test]
fn a_large_index_stays_in_its_pack_and_is_asked_for() {
    let pages: Vec<u32> = (0..240).map(|segment| segment * 32 + 5).collect();
    let segments: Vec<u32> = (0..240).collect();
    let map = folded(&PageMap::empty(), &pack(1, 7680, &segments, &[]));
    let large = pack(2, 7680, &[], &pages);
    let map = folded(&map, &large);
    let Lookup::NeedIndexes(wanted) = map.lookup(no(5), &no_index) else { panic!() };
    assert_eq!(wanted.len(), 1);
    let range = wanted[0].index.range();
    let stored = large.bytes.slice(range.start as usize..range.end as usize);
    let index = Arc::new(wanted[0].decode_index(&stored).unwrap());
    assert!(wanted[0].decode_index(&stored[1..]).is_err());
    let Lookup::Found(source) = map.lookup(no(5), &|_| Some(index.clone())) else { panic!() };
    assert_eq!((source.at.pack.seq, source.place), (2, 0));
    let Lookup::Found(source) = map.lookup(no(6), &|_| Some(index.clone())) else { panic!() };
    assert_eq!((source.at.pack.seq, source.place), (1, 5));
    // A newer source that is in memory makes the older index unnecessary.
    let map = folded(&map, &pack(3, 7680, &[], &[5]));
    assert_eq!(found(&map, 5), Some(3));
}

/// Each segment in a pack of its own, so that the map outgrows the head.
fn large() -> PageMap {
    let count = 4 * limits::CHUNK_SEGMENTS + 10;
    let mut map = PageMap::empty();
    for segment in 0..count {
        map = folded(&map, &pack(u64::from(segment) + 1, (segment + 1) * SEGMENT_PAGES, &[segment], &[]));
    }
    map
}

#[test]
fn a_large_map_is_chunks_of_which_only_changed_ones_are_written_again() {
    let map = large();
    let mut seq = 0;
    let mut next_id = || {
        seq += 1;
        MapChunkId { owner: OWNER, epoch: 1, seq, nonce: 7 }
    };
    let stored = map.store(&mut next_id);
    assert_eq!((stored.objects.len(), stored.map.chunk_ids().len()), (5, 5));
    assert!(stored.root.len() < 300 && stored.objects.iter().all(|(_, object)| object.len() < limits::CHUNK_BYTES_MAX));

    let cold = PageMap::decode(&stored.root).unwrap();
    assert_eq!((cold.missing_chunks().len(), cold.packs()), (5, None));
    let Lookup::NeedChunk(chunk) = cold.lookup(no(32_769), &no_index) else { panic!() };
    let objects: BTreeMap<MapChunkId, Bytes> = stored.objects.iter().cloned().collect();
    let warm = cold.with_chunk(&chunk, &objects[&chunk.id]).unwrap();
    assert_eq!((chunk.number, found(&warm, 32_769)), (1, Some(1025)));
    assert!(cold.with_chunk(&chunk, &Bytes::from_static(b"not it")).is_err());
    assert_eq!(warm.with_chunk(&chunk, &Bytes::from_static(b"not asked for")).unwrap(), warm);

    let again = folded(&warm, &pack(9_999, map.page_count(), &[1030], &[])).store(&mut next_id);
    assert_eq!((again.objects.len(), again.objects[0].0.seq), (1, 6));
    assert_eq!(
        found(
            &PageMap::decode(&again.root)
                .unwrap()
                .with_chunk(&again.map.missing_chunks()[0], &objects[&again.map.missing_chunks()[0].id])
                .unwrap(),
            1
        ),
        Some(1)
    );

    assert_eq!(cold.truncate(40).unwrap_err().number, 0, "a cut goes through a chunk, which is needed");
    let small = map.truncate(64).unwrap().store(&mut next_id);
    assert!(small.objects.is_empty() && small.map.chunk_ids().is_empty());
}

#[test]
fn the_map_of_a_gibibyte_that_was_loaded_at_a_megabyte_a_fold_stands_in_the_head() {
    let segment = |number: u32| {
        let id = PackId { owner: OWNER, epoch: 1, seq: number / 8, nonce: 9 };
        let (offset, crc) = (52 + number % 8 * 131_074, number.wrapping_mul(0x9E37_79B9));
        let at = FrameAt { pack: id, frame: FrameRef { offset, bytes: 131_074, crc } };
        Some(SegmentRef { at, pack_bytes: 1_048_800, lsn: lsn(u64::from(number / 8) + 1), pages: 32 })
    };
    let chunks = (0..8).map(|number| {
        let first = number * limits::CHUNK_SEGMENTS;
        let segments: Vec<_> = (first..first + limits::CHUNK_SEGMENTS).map(segment).collect();
        ChunkSlot::Resident { chunk: Arc::new(Chunk::new(&segments)), stored: None }
    });
    let map = PageMap { lsn: Lsn::new(1024), page_count: 1 << 18, deltas: Arc::new([]), chunks: chunks.collect() };
    let root = stored_inline(&map);
    assert!((100 << 10..limits::MAP_INLINE_BYTES_MAX).contains(&root.len()), "{} bytes", root.len());
    assert_eq!(PageMap::decode(&root), Ok(map));
}

#[test]
fn impossible_maps_are_refused() {
    let root = stored_inline(&sample()).to_vec();
    let with = |at: usize, bytes: &[u8]| {
        let mut root = root.clone();
        root[at..at + bytes.len()].copy_from_slice(bytes);
        PageMap::decode(&root).unwrap_err().reason
    };
    assert!(with(0, &[9]).contains("version 9"));
    assert!(with(1, &[2]).contains("deltas that it cannot have"), "deltas newer than the map");
    assert!(with(9, &[69]).contains("deltas that it cannot have"), "valid beyond the end");
    assert!(with(9, &[0xff; 4]).contains("without segments"));
    assert!(with(13, &[17]).contains("17"), "more deltas than there may be");
    let tiny = sample().truncate(33).unwrap();
    let mut root = stored_inline(&tiny).to_vec();
    root[9] = 32;
    assert!(PageMap::decode(&root).is_err(), "a segment beyond the end");
}

proptest! {
    #[test]
    fn damaged_maps_never_panic(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let mut root = stored_inline(&sample()).to_vec();
        let at = at.index(root.len());
        root[at] = byte;
        root.truncate(cut.index(root.len() * 4));
        if let Ok(map) = PageMap::decode(&root) {
            for page in 1..=71 {
                let _ = map.lookup(no(page), &no_index);
            }
            let _ = map.truncate(5);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = PageMap::decode(&bytes);
        let _ = Chunk::decode(&mut walstore::envelope::Reader::new(&bytes), 0, Lsn::FIRST, 1000);
    }
}
