//! **Compacting** gives dead space back. A pack stays whole as long as one of its frames is used, and a delta stands
//! beside the segments whose pages it replaces. Folds put up with both, up to about half of a database, because they must
//! stay small. A database that rests is compacted instead, step by step: a fold without commits writes segments anew
//! until the packs and deltas behind them are not needed any more.
//!
//! Each step writes segments with pages in deltas, most such pages first, and those in packs with much dead space, the
//! emptiest first. What it has written has no dead space, so the steps come to an end: what every pack has around its
//! frames does not count, for a database of next to nothing has more of that than of frames.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::merge::{self, Masks};
use super::plan::{FoldPlan, Needs, Planned};
use super::{FoldError, FoldInput};
use crate::id::PackId;
use crate::limits;
use crate::map::{Indexes, PageMap};
use crate::pack;
use crate::page::SegmentNo;

/// What a map uses of a pack.
#[derive(Debug, Default)]
struct Use {
    bytes: u64,
    used: u64,
    segments: Vec<SegmentNo>,
}

impl Use {
    fn dead(&self) -> u64 {
        self.bytes.saturating_sub(self.used + pack::around_bytes_max(self.segments.len()))
    }
}

/// Plans one step of compacting a database that is folded up to the LSN of `map`; `input` has no commits.
/// [`Planned::Nothing`]: there is little dead space.
pub fn plan_compaction(map: &PageMap, input: &FoldInput, indexes: Indexes<'_>) -> Result<Planned, FoldError> {
    let Some(lsn) = map.lsn().filter(|lsn| input.lsn == Some(*lsn)) else { return Ok(Planned::Nothing) };
    let mut needs = Needs::default();
    let Some(packs) = uses(map, &mut needs) else { return Ok(needs.into_planned()) };
    let in_segments: u64 = packs.values().map(|pack| pack.used).sum();
    let in_deltas: u64 = map.deltas().map(|delta| u64::from(delta.frames_bytes)).sum();
    let dead: u64 = packs.values().map(Use::dead).sum();
    // What deltas replace is about as long as they are, so all that they hold is one time too much.
    if (dead + in_deltas) * 100 <= in_segments * limits::COMPACT_WASTE_PERCENT {
        return Ok(Planned::Nothing);
    }
    let nothing = Masks::new();
    let Some(mut live) = merge::live_pages(map, &nothing, &nothing, indexes, &mut needs) else {
        return Ok(needs.into_planned());
    };
    let segments = choose(&live, packs);
    for masks in live.values_mut() {
        masks.retain(|segment, _| !segments.contains(segment));
    }
    let gone: BTreeSet<PackId> = live.iter().filter(|(_, masks)| masks.is_empty()).map(|(pack, _)| *pack).collect();
    if segments.is_empty() && gone.is_empty() {
        return Ok(Planned::Nothing);
    }
    let mut plan = FoldPlan {
        lsn,
        page_count: map.page_count(),
        old: map.clone(),
        base: map.clone(),
        segments: BTreeMap::new(),
        delta: BTreeMap::new(),
        gone,
    };
    plan.add_segments(input, segments.iter(), indexes, &mut needs)?;
    Ok(if needs.is_empty() { Planned::Ready(plan) } else { needs.into_planned() })
}

/// The same for a database that nobody has asked for. One that has packs of other databases, a fork, is left as it is:
/// their dead space is not its own, and to copy what it shares would cost more than it gives back.
pub fn plan_own_compaction(map: &PageMap, input: &FoldInput, indexes: Indexes<'_>) -> Result<Planned, FoldError> {
    if let Some(packs) = map.packs()
        && packs.iter().any(|pack| pack.owner != input.database)
    {
        return Ok(Planned::Nothing);
    }
    plan_compaction(map, input, indexes)
}

/// The packs that hold segments, and what is used of them.
fn uses(map: &PageMap, needs: &mut Needs) -> Option<BTreeMap<PackId, Use>> {
    let mut packs: BTreeMap<PackId, Use> = BTreeMap::new();
    for number in (0..SegmentNo::count_of(map.page_count())).filter_map(SegmentNo::new) {
        match map.segment(number) {
            Ok(Some(segment)) => {
                let pack = packs.entry(segment.at.pack).or_default();
                pack.bytes = u64::from(segment.pack_bytes);
                pack.used += u64::from(segment.at.frame.bytes);
                pack.segments.push(number);
            }
            Ok(None) => {}
            Err(chunk) => needs.chunk(chunk),
        }
    }
    for delta in map.deltas() {
        if let Some(pack) = packs.get_mut(&delta.pack) {
            pack.used += u64::from(delta.frames_bytes) + u64::from(delta.index.bytes);
        }
    }
    needs.is_empty().then_some(packs)
}

fn choose(live: &BTreeMap<PackId, Masks>, packs: BTreeMap<PackId, Use>) -> BTreeSet<SegmentNo> {
    let mut pages: BTreeMap<SegmentNo, u32> = BTreeMap::new();
    for (segment, mask) in live.values().flatten() {
        *pages.entry(*segment).or_default() += mask.count();
    }
    let mut by_pages: Vec<(Reverse<u32>, SegmentNo)> = pages.into_iter().map(|(no, pages)| (Reverse(pages), no)).collect();
    by_pages.sort_unstable();
    let with_deltas = by_pages.into_iter().map(|(_, segment)| segment);
    let is_wasteful = |pack: &Use| pack.dead() * 100 > pack.bytes * limits::COMPACT_PACK_PERCENT;
    let mut wasteful: Vec<Use> = packs.into_values().filter(is_wasteful).collect();
    wasteful.sort_by_key(|pack| (Reverse(pack.dead() * 1000 / pack.bytes.max(1)), pack.segments[0]));
    let in_wasteful = wasteful.into_iter().flat_map(|pack| pack.segments);
    let mut chosen = BTreeSet::new();
    for segment in with_deltas.chain(in_wasteful) {
        if chosen.len() == limits::COMPACT_SEGMENTS_MAX {
            break;
        }
        chosen.insert(segment);
    }
    chosen
}
