//! Orders for packs, and the check of what comes of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use walstore::id::{DatabaseId, Lsn};

use super::*;
use crate::id::PackId;
use crate::map::PageMap;
use crate::pack::{Frame, FrameAt, Pack};
use crate::page::{PAGE_BYTES, Page, PageNo};

const DATABASE: DatabaseId = DatabaseId::from_bytes([4; 16]);
const PAGE_COUNT: u32 = 128;

fn content(number: u32, version: u32) -> Page {
    let mut bytes = [number as u8; PAGE_BYTES];
    bytes[..4].copy_from_slice(&version.to_le_bytes());
    Page::copy_of(&bytes)
}

fn pages(numbers: impl IntoIterator<Item = u32>, version: u32) -> Vec<(PageNo, Page)> {
    numbers.into_iter().map(|number| (PageNo::new(number).unwrap(), content(number, version))).collect()
}

fn id(seq: u32) -> PackId {
    PackId { owner: DATABASE, epoch: 3, seq, nonce: 77 }
}

/// All frames of a pack.
fn frames(pack: &Pack) -> BTreeMap<FrameAt, Frame> {
    let entries = pack.segments.entries().iter().chain(pack.delta.iter().flat_map(|delta| delta.index.entries()));
    let frame = |entry: &crate::pack::IndexEntry| {
        let stored = pack.bytes.slice(entry.frame.range().start as usize..entry.frame.range().end as usize);
        (FrameAt { pack: pack.id, frame: entry.frame }, Frame::decode(&stored, &entry.frame).unwrap())
    };
    entries.map(frame).collect()
}

/// A fold that writes whole segments and single pages, merges what is stored, and keeps its commits.
struct Case {
    input: FoldInput,
    plan: FoldPlan,
    stored: BTreeMap<FrameAt, Frame>,
}

impl Case {
    fn new() -> Self {
        let (mut map, mut stored) = (PageMap::empty(), BTreeMap::new());
        let mut folded = |numbers: std::ops::RangeInclusive<u32>, number: u32| {
            let mut tail = FoldInput::new(DATABASE, &map);
            tail.add(Lsn::after(tail.lsn), PAGE_COUNT, pages(numbers, number));
            let Planned::Ready(plan) = plan_fold(&map, &tail, &|_| None).unwrap() else { panic!() };
            let folded = build_fold(&plan, &tail, &BTreeMap::new(), id(number)).unwrap();
            stored.extend(frames(folded.pack.as_ref().unwrap()));
            map = folded.map;
        };
        folded(1..=PAGE_COUNT, 1);
        folded(1..=24, 2);
        folded(33..=56, 3);
        // The last segment whole, and so many single pages that the first two are merged.
        let mut input = FoldInput::new(DATABASE, &map);
        input.add(Lsn::new(4).unwrap(), PAGE_COUNT, pages((65..=84).chain(97..=PAGE_COUNT), 4));
        input.commits = vec![Bytes::from_static(b"the fourth commit")];
        let Planned::Ready(plan) = plan_fold(&map, &input, &|_| None).unwrap() else { panic!() };
        assert_eq!((plan.segment_count(), plan.delta_page_count(), plan.reads().len()), (3, 20, 4), "{plan:?}");
        Self { input, plan, stored }
    }

    fn order(&self) -> PackOrder {
        self.plan.order(&self.input, id(4)).expect("there is something to make")
    }

    fn check(&self, object: &Bytes) -> Result<Pack, Corrupt> {
        self.plan.check(&self.input, id(4), object, &|at| self.stored.get(at).cloned())
    }

    fn refused(&self, object: &Bytes) -> String {
        self.check(object).expect_err("it is wrong").reason
    }
}

#[test]
fn what_is_made_elsewhere_is_what_would_have_been_made_here() {
    let case = Case::new();
    let order = PackOrder::decode(&case.order().encode()).unwrap();
    assert_eq!(order, case.order());
    assert_eq!(order.reads(), case.plan.reads());
    let made = order.build(&case.stored).unwrap();
    let here = build_fold(&case.plan, &case.input, &case.stored, id(4)).unwrap();
    let elsewhere = fold_with(&case.plan, &case.input, Some(case.check(&made.bytes).unwrap()));
    assert_eq!(made.bytes, here.pack.as_ref().unwrap().bytes);
    assert_eq!((elsewhere.map, elsewhere.dead), (here.map, here.dead));
    let (checked, here) = (elsewhere.pack.unwrap(), here.pack.unwrap());
    assert_eq!((checked.segments, checked.delta, checked.history), (here.segments, here.delta, here.history));
}

#[test]
fn a_pack_that_is_not_what_was_ordered_is_refused_with_the_reason() {
    let case = Case::new();
    let other = |change: &dyn Fn(&mut FoldInput)| {
        let mut input = case.input.clone();
        change(&mut input);
        case.plan.order(&input, id(4)).unwrap().build(&case.stored).unwrap().bytes
    };
    let page = |number| PageNo::new(number).unwrap();
    assert!(case.check(&other(&|_| {})).is_ok());
    // A page of the tail in its former version, in a segment and alone.
    for number in [100, 70] {
        let stale = other(&|input| drop(input.pages.insert(page(number), content(number, 1))));
        assert_eq!(case.refused(&stale), format!("page {number} is not what was ordered"));
    }
    assert_eq!(case.refused(&other(&|input| input.commits.clear())), "does not keep the commits that were folded");
    let twice = other(&|input| input.commits = vec![Bytes::from_static(b"another commit")]);
    assert_eq!(case.refused(&twice), "does not keep the commits that were folded");
    // What is merged comes from another segment.
    let read = case.plan.reads().first().copied().unwrap();
    let mut wrong = case.stored.clone();
    let other_segment = wrong.values().find(|frame| frame.page_count() == 32 && **frame != wrong[&read]).cloned();
    wrong.insert(read, other_segment.unwrap());
    let merged = case.order().build(&wrong).unwrap().bytes;
    assert!(case.refused(&merged).ends_with("is not what was ordered"));
    // Another order's, of another pack, of another size, and less of it.
    let mut few = FoldInput { pages: BTreeMap::new(), ..case.input.clone() };
    few.pages.extend(pages([70], 4));
    let Ok(Planned::Ready(plan)) = plan_fold(&case.plan.old, &few, &|_| None) else { panic!() };
    let one_page = plan.order(&few, id(4)).unwrap().build(&case.stored).unwrap().bytes;
    assert_eq!(case.refused(&one_page), "has other pages than were ordered");
    let elsewhere = case.plan.order(&case.input, id(5)).unwrap().build(&case.stored).unwrap().bytes;
    assert!(case.refused(&elsewhere).starts_with("holds pack"));
    let mut later = few.clone();
    later.add(Lsn::new(5).unwrap(), PAGE_COUNT, pages([71], 5));
    let Ok(Planned::Ready(plan)) = plan_fold(&case.plan.old, &later, &|_| None) else { panic!() };
    let later = plan.order(&later, id(4)).unwrap().build(&case.stored).unwrap().bytes;
    assert_eq!(case.refused(&later), "is as of commit 5 and 128 pages, not of 4 and 128");
    let whole = other(&|_| {});
    for length in [0, 15, 60, whole.len() / 2, whole.len() - 1] {
        assert!(case.check(&whole.slice(..length)).is_err(), "{length} bytes of {}", whole.len());
    }
}

#[test]
fn what_cannot_be_ordered_is_made_here() {
    let case = Case::new();
    let mut shrunk = FoldInput::new(DATABASE, &case.plan.old);
    shrunk.add(Lsn::new(4).unwrap(), 120, []);
    let Ok(Planned::Ready(plan)) = plan_fold(&case.plan.old, &shrunk, &|_| None) else { panic!() };
    assert_eq!(plan.order(&shrunk, id(4)), None, "there is no pack to make");
    let large = FoldInput { commits: vec![Bytes::from(vec![0; limits::ORDER_TAIL_BYTES_MAX])], ..case.input.clone() };
    assert_eq!(case.plan.order(&large, id(4)), None, "too much to send");
}

/// Whatever comes over the wire: it is refused, or makes a pack, or fails to.
#[test]
fn damaged_orders_do_no_harm() {
    let case = Case::new();
    let whole = case.order().encode();
    let head = whole.len() - case.input.pages.len() * PAGE_BYTES;
    let mut refused = 0;
    for at in 0..head {
        for value in [0, 1, 2, 0x7f, 0x80, 0xff, whole[at] ^ 1] {
            let mut bytes = whole.to_vec();
            bytes[at] = value;
            match PackOrder::decode(&bytes.into()) {
                Err(_) => refused += 1,
                // What has other pages can be as large as an order may be; making it is not the point.
                Ok(order) if order.pages_in_pack() <= 200 => drop(order.build(&case.stored)),
                Ok(_) => {}
            }
        }
    }
    assert!(refused > head, "{refused} of {} were refused", head * 7);
    for length in 0..head {
        assert!(PackOrder::decode(&whole.slice(..length)).is_err(), "{length} bytes");
    }
}
