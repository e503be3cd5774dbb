//! Plan and pages → pack and page map.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use walstore::envelope::Corrupt;
use walstore::id::Lsn;

use super::plan::Origin;
use super::{FoldError, FoldInput, FoldPlan};
use crate::id::PackId;
use crate::map::{Lookup, PageMap};
use crate::pack::history::History;
use crate::pack::{Frame, FrameAt, Pack, PackWriter};
use crate::page::{Page, PageNo, SegmentNo};

/// What a fold made. The pack goes to the bucket first; then the head may refer to the map.
#[derive(Clone, Debug)]
pub struct Folded {
    /// `None` if the fold changed nothing but sizes.
    pub pack: Option<Pack>,
    pub map: PageMap,
    /// Packs that the old map referred to and the new one does not. They are garbage once the new map is linked,
    /// unless history or a fork holds them. It is empty where chunks of the map are not in memory; then
    /// only a collector that reads them all can tell.
    pub dead: Vec<PackId>,
}

/// What is to be written where.
pub(super) struct Layout<'a> {
    pub lsn: Lsn,
    pub page_count: u32,
    pub segments: &'a BTreeMap<SegmentNo, Vec<(PageNo, Origin)>>,
    pub delta: &'a BTreeMap<PageNo, Origin>,
}

/// Carries out `plan`, which was made for `input`, with the frames that it asked for.
pub fn build_fold(
    plan: &FoldPlan,
    input: &FoldInput,
    frames: &BTreeMap<FrameAt, Frame>,
    id: PackId,
) -> Result<Folded, FoldError> {
    assert_eq!(input.lsn, Some(plan.lsn), "BUG: the plan of another fold");
    let FoldPlan { lsn, page_count, segments, delta, .. } = plan;
    let layout = Layout { lsn: *lsn, page_count: *page_count, segments, delta };
    let pack = write_pack(&layout, &input.pages, &input.commits, frames, id)?;
    Ok(fold_with(plan, input, pack))
}

/// The fold of `plan` whose pack is there: [made](build_fold) here, or elsewhere and [checked](FoldPlan::check).
pub fn fold_with(plan: &FoldPlan, input: &FoldInput, pack: Option<Pack>) -> Folded {
    let map = plan.base.with_fold(plan.lsn, plan.page_count, pack.as_ref(), &plan.gone);
    check_new_pages(&map, input, pack.as_ref());
    let dead = dead_packs(&plan.old, &map);
    Folded { pack, map, dead }
}

/// `None` if there is nothing to write.
pub(super) fn write_pack(
    layout: &Layout<'_>,
    tail: &BTreeMap<PageNo, Page>,
    commits: &[Bytes],
    frames: &BTreeMap<FrameAt, Frame>,
    id: PackId,
) -> Result<Option<Pack>, FoldError> {
    let mut writer = PackWriter::new(id, layout.lsn, layout.page_count);
    for (segment, origins) in layout.segments {
        let pages = origins.iter().map(|(page, origin)| match origin {
            Origin::Tail => Ok(tail[page].clone()),
            origin => stored_page(origin, frames),
        });
        writer.add_segment(*segment, pages.collect::<Result<_, _>>()?);
    }
    for (page, origin) in layout.delta {
        let content = match origin {
            Origin::Tail => tail[page].clone(),
            origin => stored_page(origin, frames)?,
        };
        writer.add_page(*page, content);
    }
    if let Some(history) = History::of_fold(commits, layout.lsn) {
        writer.set_history(history);
    }
    Ok(if writer.is_empty() { None } else { Some(writer.finish()?) })
}

fn stored_page(origin: &Origin, frames: &BTreeMap<FrameAt, Frame>) -> Result<Page, FoldError> {
    let Origin::Stored(source) = origin else { return Ok(Page::zeroed()) };
    let frame = frames.get(&source.at).ok_or(FoldError::NotRead(source.at))?;
    Ok(frame.page(source.place).map_err(|corrupt: Corrupt| corrupt.at(crate::keys::pack(&source.at.pack)))?)
}

/// Before anything is written: each page of the tail is found in the new pack and nowhere else.
fn check_new_pages(map: &PageMap, input: &FoldInput, pack: Option<&Pack>) {
    let delta = pack.and_then(|pack| pack.delta.as_ref()).map(|parts| std::sync::Arc::new(parts.index.clone()));
    let id = pack.map(|pack| pack.id);
    let indexes = |wanted: &crate::map::DeltaRef| delta.clone().filter(|_| Some(wanted.pack) == id);
    for page in input.pages.keys() {
        match map.lookup(*page, &indexes) {
            Lookup::Found(source) if Some(source.at.pack) == id => {}
            // Its segment was not touched as a whole, so its chunk may be absent: the delta is newer.
            Lookup::NeedChunk(_) => {}
            other => panic!("BUG: after the fold, page {page} is {other:?}"),
        }
    }
}

fn dead_packs(old: &PageMap, new: &PageMap) -> Vec<PackId> {
    let packs = |map: &PageMap| map.packs().unwrap_or_default();
    let (old, new): (BTreeSet<PackId>, Option<BTreeSet<PackId>>) = (packs(old), new.packs());
    new.map_or_else(Vec::new, |new| old.difference(&new).copied().collect())
}
