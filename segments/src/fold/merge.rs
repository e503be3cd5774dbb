//! Which older pages a fold takes along. The policy is in [`crate::fold`].

use std::collections::{BTreeMap, BTreeSet};

use super::FoldInput;
use super::plan::Needs;
use crate::id::PackId;
use crate::limits;
use crate::map::{DeltaRef, Indexes, PageMap};
use crate::mask::PageMask;
use crate::page::SegmentNo;

pub(super) type Masks = BTreeMap<SegmentNo, PageMask>;

/// What a fold takes along.
#[derive(Clone, Debug, Default)]
pub(super) struct Merge {
    /// Segments to read and write whole, besides those that the tail covers.
    pub segments: BTreeSet<SegmentNo>,
    /// Deltas whose live pages are copied to the new delta.
    pub absorbed: Vec<DeltaRef>,
    /// Deltas that are not needed any more: absorbed, or without live pages.
    pub gone: BTreeSet<PackId>,
    live: BTreeMap<PackId, Masks>,
}

impl Merge {
    pub fn is_nothing(&self) -> bool {
        self.segments.is_empty() && self.gone.is_empty()
    }

    /// The pages of a delta that are the newest version and stay out of whole segments.
    pub fn live_in(&self, delta: &DeltaRef) -> impl Iterator<Item = (&SegmentNo, &PageMask)> {
        self.live.get(&delta.pack).into_iter().flatten()
    }
}

/// Plans what to take along, when the tail changes the segments `covered` as a whole and `partial` in part.
/// What is not in memory goes to `needs`; then the answer means nothing.
pub(super) fn plan(
    base: &PageMap,
    covered: &Masks,
    partial: &Masks,
    input: &FoldInput,
    indexes: Indexes<'_>,
    needs: &mut Needs,
) -> Merge {
    let new_pages = count(partial);
    let pages_max = (u64::from(input.page_count) / 2).min(limits::DELTA_PAGES_MAX);
    let pages_known: u64 = base.deltas().map(|delta| u64::from(delta.page_count)).sum();
    let delta_count = base.deltas().len() + usize::from(new_pages > 0);
    if pages_known + new_pages <= pages_max && delta_count <= limits::DELTAS_TARGET {
        return Merge::default();
    }
    let Some(mut live) = live_pages(base, covered, partial, indexes, needs) else { return Merge::default() };
    let segments = choose_segments(&live, partial, (pages_max, input.merge_segments_max), covered.is_empty());
    for masks in live.values_mut() {
        masks.retain(|segment, _| !segments.contains(segment));
    }
    let new_pages_left: u64 = partial
        .iter()
        .filter(|(segment, _)| !segments.contains(segment))
        .map(|(_, mask)| u64::from(mask.count()))
        .sum();
    let dropped = base.deltas().map(|delta| delta.pack).filter(|pack| live[pack].is_empty());
    let mut gone: BTreeSet<PackId> = dropped.collect();
    let absorbed = choose_absorbed(base, &live, &gone, new_pages, new_pages_left);
    gone.extend(absorbed.iter().map(|delta| delta.pack));
    Merge { segments, absorbed, gone, live }
}

fn count(masks: &Masks) -> u64 {
    masks.values().map(|mask| u64::from(mask.count())).sum()
}

/// For each delta, the pages of which it holds the newest version. `None` if something was not in memory.
pub(super) fn live_pages(
    base: &PageMap,
    covered: &Masks,
    partial: &Masks,
    indexes: Indexes<'_>,
    needs: &mut Needs,
) -> Option<BTreeMap<PackId, Masks>> {
    let mut newer: Masks = covered.iter().chain(partial).map(|(segment, mask)| (*segment, *mask)).collect();
    let mut live = BTreeMap::new();
    for delta in base.delta_list() {
        let reference = delta.reference;
        let Some(index) = delta.index(indexes) else {
            needs.index(reference);
            continue;
        };
        let masks: &mut Masks = live.entry(reference.pack).or_default();
        for entry in index.entries() {
            let whole = match base.segment(entry.segment) {
                Ok(whole) => whole.filter(|whole| whole.lsn >= reference.lsn),
                Err(chunk) => {
                    needs.chunk(chunk);
                    continue;
                }
            };
            let whole = whole.map_or(PageMask::NONE, |whole| whole.valid());
            let newer = newer.entry(entry.segment).or_default();
            let mask = entry.pages.and(reference.valid(entry.segment)).without(whole).without(*newer);
            *newer = newer.or(mask);
            if !mask.is_empty() {
                masks.insert(entry.segment, mask);
            }
        }
    }
    needs.is_empty().then_some(live)
}

/// The segments with the most pages in deltas, as many as it takes to halve the weight of the deltas, within
/// the budget of this fold.
fn choose_segments(
    live: &BTreeMap<PackId, Masks>,
    partial: &Masks,
    (pages_max, segments_max): (u64, usize),
    nothing_covered: bool,
) -> BTreeSet<SegmentNo> {
    let mut pages: BTreeMap<SegmentNo, u64> = BTreeMap::new();
    for (segment, mask) in live.values().flatten().chain(partial) {
        *pages.entry(*segment).or_default() += u64::from(mask.count());
    }
    let mut total: u64 = pages.values().sum();
    if total <= pages_max {
        return BTreeSet::new();
    }
    let budget = match count(partial) as usize {
        0 if nothing_covered => limits::MERGE_SEGMENTS_IDLE,
        new_pages => new_pages.saturating_sub(limits::MERGE_SMALL_FOLD_PAGES).clamp(1, limits::MERGE_SEGMENTS_MAX),
    };
    let budget = budget.min(segments_max);
    let mut by_pages: Vec<(SegmentNo, u64)> = pages.into_iter().collect();
    by_pages.sort_by_key(|(segment, pages)| (std::cmp::Reverse(*pages), *segment));
    let mut chosen = BTreeSet::new();
    for (segment, pages) in by_pages.into_iter().take(budget) {
        if total <= pages_max / 2 {
            break;
        }
        total -= pages;
        chosen.insert(segment);
    }
    chosen
}

/// The smallest deltas, if there are too many.
fn choose_absorbed(
    base: &PageMap,
    live: &BTreeMap<PackId, Masks>,
    gone: &BTreeSet<PackId>,
    new_pages: u64,
    new_pages_left: u64,
) -> Vec<DeltaRef> {
    let kept = base.deltas().filter(|delta| !gone.contains(&delta.pack));
    let mut by_pages: Vec<(u64, DeltaRef)> = kept.map(|delta| (count(&live[&delta.pack]), *delta)).collect();
    by_pages.sort_by_key(|(pages, delta)| (*pages, delta.lsn, delta.pack));
    let mut left = by_pages.len() + usize::from(new_pages_left > 0);
    if left <= limits::DELTAS_TARGET {
        return Vec::new();
    }
    let budget = (limits::ABSORB_FACTOR * new_pages).clamp(limits::ABSORB_PAGES_MIN, limits::ABSORB_PAGES_MAX);
    let (mut copied, mut absorbed) = (0, Vec::new());
    for (pages, delta) in by_pages {
        let affordable = left > limits::DELTAS_AFTER_ABSORB && copied + pages <= budget;
        let forced = left > limits::DELTAS_MAX;
        if !affordable && !forced {
            break;
        }
        // Without pages of the tail, the first one only makes room for the delta that it goes to.
        left -= usize::from(new_pages_left > 0 || !absorbed.is_empty());
        copied += pages;
        absorbed.push(delta);
    }
    let in_vain = new_pages_left == 0 && absorbed.len() == 1;
    if in_vain { Vec::new() } else { absorbed }
}
