//! Single decisions of the planner. Whole histories are in `tests/history.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use walstore::id::{DatabaseId, Lsn};

use super::*;
use crate::id::PackId;
use crate::map::PageMap;
use crate::pack::Frame;
use crate::page::{PAGE_BYTES, Page, PageNo};

const DATABASE: DatabaseId = DatabaseId::from_bytes([4; 16]);

fn pages(numbers: impl IntoIterator<Item = u32>) -> Vec<(PageNo, Page)> {
    let page = |number| (PageNo::new(number).unwrap(), Page::copy_of(&[number as u8 | 1; PAGE_BYTES]));
    numbers.into_iter().map(page).collect()
}

fn input(map: &PageMap, page_count: u32, numbers: impl IntoIterator<Item = u32>) -> FoldInput {
    let mut input = FoldInput::new(DATABASE, map);
    input.add(Lsn::after(input.lsn), page_count, pages(numbers));
    input
}

fn plan(map: &PageMap, input: &FoldInput) -> FoldPlan {
    match plan_fold(map, input, &|_| None) {
        Ok(Planned::Ready(plan)) => plan,
        other => panic!("{other:?}"),
    }
}

fn pack_id(input: &FoldInput) -> PackId {
    PackId { owner: DATABASE, epoch: 1, seq: Lsn::raw(input.lsn) as u32, nonce: 0 }
}

/// Folds what needs no reads.
fn fold(map: &PageMap, page_count: u32, numbers: impl IntoIterator<Item = u32>) -> Folded {
    let input = input(map, page_count, numbers);
    build_fold(&plan(map, &input), &input, &BTreeMap::new(), pack_id(&input)).unwrap()
}

/// What a plan writes whole, what page by page, and how many frames it reads.
fn sizes(plan: &FoldPlan) -> (usize, usize, usize) {
    (plan.segment_count(), plan.delta_page_count(), plan.reads().len())
}

#[test]
fn only_segments_that_the_tail_covers_are_written_whole() {
    let map = fold(&PageMap::empty(), 200, 1..=200).map;
    let sizes = |numbers: Vec<u32>| sizes(&plan(&map, &input(&map, 200, numbers)));
    assert_eq!(sizes(vec![1]), (0, 1, 0));
    assert_eq!(sizes((33..=63).collect()), (0, 31, 0));
    assert_eq!(sizes((32..=64).collect()), (1, 1, 0));
    assert_eq!(sizes((193..=200).collect()), (1, 0, 0), "the last segment is short");
}

#[test]
fn deltas_over_half_of_the_database_make_segments() {
    let map = fold(&PageMap::empty(), 96, 1..=96).map;
    let map = fold(&map, 96, 1..=24).map;
    let map = fold(&map, 96, 33..=56).map;
    // 24 + 24 + 20 pages are more than 48. One segment brings it to 44, a second to 20, under half of that.
    let plan = plan(&map, &input(&map, 96, 65..=84));
    assert_eq!(sizes(&plan), (2, 20, 4), "a merge reads the segment and the delta's frame of it");
    assert_eq!(plan.gone.len(), 2, "the deltas without live pages go");
}

#[test]
fn the_ninth_delta_absorbs_the_smallest() {
    let mut map = fold(&PageMap::empty(), 3200, 1..=3200).map;
    for round in 0..8 {
        map = fold(&map, 3200, (0..=round).map(|at| 2 + at + 100 * round)).map;
    }
    assert_eq!(map.deltas().len(), 8);
    let plan = plan(&map, &input(&map, 3200, [3000]));
    assert_eq!(plan.gone.len(), 4, "it goes on to five deltas, as that is cheap");
    assert_eq!(plan.delta_page_count(), 1 + 1 + 2 + 3 + 4);
}

#[test]
fn a_shrink_inside_of_one_tail_ends_older_deltas() {
    let map = fold(&PageMap::empty(), 100, 1..=100).map;
    let map = fold(&map, 100, [50, 70]).map;
    let mut tail = FoldInput::new(DATABASE, &map);
    tail.add(Lsn::after(tail.lsn), 40, pages([1]));
    tail.add(Lsn::after(tail.lsn), 100, pages(41..=100));
    let map = build_fold(&plan(&map, &tail), &tail, &BTreeMap::new(), pack_id(&tail)).unwrap().map;
    assert_eq!(map.deltas().map(|delta| delta.valid_upto).collect::<Vec<_>>(), [100, 40]);
}

#[test]
fn nothing_is_nothing() {
    let map = PageMap::empty();
    assert!(matches!(plan_fold(&map, &FoldInput::new(DATABASE, &map), &|_| None), Ok(Planned::Nothing)));
    let map = fold(&map, 10, 1..=10).map;
    assert!(matches!(plan_fold(&map, &FoldInput::new(DATABASE, &map), &|_| None), Ok(Planned::Nothing)));
}

#[test]
fn a_fold_that_only_shrinks_writes_no_pack_and_frees_what_was_cut_off() {
    let map = fold(&PageMap::empty(), 32, 1..=32).map;
    let map = fold(&map, 64, 33..=64).map;
    let folded = fold(&map, 32, []);
    assert!(folded.pack.is_none());
    assert_eq!(folded.dead.iter().map(|pack| pack.seq).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_merge_without_its_frames_says_which_one_it_lacks() {
    let map = fold(&PageMap::empty(), 32, 1..=32).map;
    let input = input(&map, 32, 1..=20);
    let plan = plan(&map, &input);
    let read = *plan.reads().first().unwrap();
    let error = build_fold(&plan, &input, &BTreeMap::new(), pack_id(&input)).unwrap_err();
    assert_eq!(error, FoldError::NotRead(read));
}

#[test]
fn a_frame_with_too_few_pages_names_its_pack() {
    let map = fold(&PageMap::empty(), 32, 1..=32).map;
    let input = input(&map, 32, 1..=20);
    let plan = plan(&map, &input);
    let read = *plan.reads().first().unwrap();
    let short = fold(&PageMap::empty(), 3, 1..=3).pack.unwrap();
    let frame = short.segments.entries()[0].frame;
    let stored = short.bytes.slice(frame.range().start as usize..frame.range().end as usize);
    let frames = BTreeMap::from([(read, Frame::decode(&stored, &frame).unwrap())]);
    let Err(FoldError::Corrupt(corrupt)) = build_fold(&plan, &input, &frames, pack_id(&input)) else { panic!() };
    assert_eq!(corrupt.key, crate::keys::pack(&read.pack).as_str());
}

#[test]
fn a_lost_page_stops_a_merge_with_its_name() {
    let lossy = {
        let map = fold(&PageMap::empty(), 32, 1..=32).map.truncate(20).unwrap();
        // As if a bug had let the database grow without its new pages.
        map.with_fold(Lsn::new(2).unwrap(), 32, None, &Default::default())
    };
    let error = plan_fold(&lossy, &input(&lossy, 32, 1..=19), &|_| Some(Arc::default())).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("page 21") && message.contains(&DATABASE.to_string()), "{message}");
}
