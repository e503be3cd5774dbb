//! Folds that write a small database whole.

use crate::limits;
use crate::map::{Indexes, PageMap};
use crate::page::SegmentNo;

use super::plan::{FoldPlan, Needs, Planned, check_growth};
use super::{FoldError, FoldInput};

/// How large the pack of a fold by [`plan_whole`] may be to stand in the head; `None` if the fold should not be tried
/// that way. `in_head` says that the database stands there now: then it is always written whole, because pages that
/// are nowhere else must not be left behind.
pub fn wants_image(map: &PageMap, input: &FoldInput, in_head: bool) -> Option<usize> {
    if input.lsn == map.lsn() || input.page_count == 0 {
        return None;
    }
    if in_head {
        return Some(limits::IMAGE_BYTES_MAX);
    }
    if input.page_count > limits::IMAGE_PAGES_MAX {
        return None;
    }
    if map.lsn().is_none() {
        return Some(limits::IMAGE_BYTES_MAX);
    }
    // Deltas hold old versions too, so this may be too much. Later merges correct it.
    let masks = input.masks();
    let is_covered =
        |segment: SegmentNo| masks.get(&segment).is_some_and(|mask| mask.covers(segment.used(input.page_count)));
    let is_left = |segment: SegmentNo| segment.pages_within(input.page_count_min) > 0 && !is_covered(segment);
    let bytes = map.stored_bytes(&|segment| !is_left(segment))?;
    (bytes <= limits::IMAGE_BACK_BYTES_MAX as u64).then_some(limits::IMAGE_BACK_BYTES_MAX)
}

/// Plans the fold of `input` into `map` as [`plan_fold`](super::plan_fold) does, but every page of the database is
/// written, in whole segments: the new pack is all that the new map refers to.
pub fn plan_whole(map: &PageMap, input: &FoldInput, indexes: Indexes<'_>) -> Result<Planned, FoldError> {
    let Some(lsn) = input.lsn.filter(|lsn| Some(*lsn) != map.lsn()) else { return Ok(Planned::Nothing) };
    assert!(Some(lsn) > map.lsn(), "BUG: a fold back to LSN {lsn}");
    check_growth(map, input)?;
    let base = match map.truncate(input.page_count_min) {
        Ok(base) => base,
        Err(chunk) => return Ok(Planned::Needs { chunks: vec![chunk], indexes: Vec::new() }),
    };
    let mut needs = Needs::default();
    let mut plan = FoldPlan {
        lsn,
        page_count: input.page_count,
        old: map.clone(),
        gone: base.deltas().map(|delta| delta.pack).collect(),
        base,
        segments: Default::default(),
        delta: Default::default(),
    };
    let segments: Vec<SegmentNo> = (0..SegmentNo::count_of(input.page_count)).filter_map(SegmentNo::new).collect();
    plan.add_segments(input, segments.iter(), indexes, &mut needs)?;
    Ok(if needs.is_empty() { Planned::Ready(plan) } else { needs.into_planned() })
}
