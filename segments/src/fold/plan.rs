//! What a fold will write, and what it has to read for that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use walstore::id::Lsn;

use super::merge::{self, Merge};
use super::{FoldError, FoldInput};
use crate::id::PackId;
use crate::map::{DeltaRef, Indexes, Lookup, MapChunkRef, PageMap, Source};
use crate::mask::PageMask;
use crate::pack::FrameAt;
use crate::page::{MissingPage, PAGE_BYTES, PageNo, SEGMENT_BYTES, SegmentNo};

/// How many times longer than stored a frame is taken to be, up to a segment.
const UNPACKED: usize = 4;

/// The result of planning.
#[derive(Clone, Debug)]
pub enum Planned {
    /// There is nothing to fold and nothing to merge.
    Nothing,
    /// Read these and plan again. Planning asks a few times at most.
    Needs {
        chunks: Vec<MapChunkRef>,
        indexes: Vec<DeltaRef>,
    },
    Ready(FoldPlan),
}

/// A fold as it will be.
#[derive(Clone, Debug)]
pub struct FoldPlan {
    pub(super) lsn: Lsn,
    pub(super) page_count: u32,
    /// The map that this fold goes on from.
    pub(super) old: PageMap,
    /// The same, cut to the smallest size of the database since.
    pub(super) base: PageMap,
    /// Segments to write whole.
    pub(super) segments: BTreeMap<SegmentNo, Vec<(PageNo, Origin)>>,
    /// Pages to write one by one.
    pub(super) delta: BTreeMap<PageNo, Origin>,
    /// Deltas that the new map does without.
    pub(super) gone: BTreeSet<PackId>,
}

/// Where the content of a page comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Tail,
    Stored(Source),
    LockPage,
}

impl FoldPlan {
    /// The frames that [`super::build_fold`] wants, in order of pack and offset.
    pub fn reads(&self) -> BTreeSet<FrameAt> {
        let origins = self.segments.values().flatten().map(|(_, origin)| origin).chain(self.delta.values());
        let stored = origins.filter_map(|origin| match origin {
            Origin::Stored(source) => Some(source.at),
            Origin::Tail | Origin::LockPage => None,
        });
        stored.collect()
    }

    /// About how much memory it takes to make the pack, besides what is there already: the pack, as if nothing of it
    /// became smaller, and the frames that are read.
    pub fn memory_bytes(&self) -> usize {
        let pages = self.segments.values().map(Vec::len).sum::<usize>() + self.delta.len();
        let frame = |at: FrameAt| (at.frame.bytes as usize * UNPACKED).min(SEGMENT_BYTES);
        pages * PAGE_BYTES + self.reads().into_iter().map(frame).sum::<usize>()
    }

    /// How many segments are written whole.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// How many pages go to the delta.
    pub fn delta_page_count(&self) -> usize {
        self.delta.len()
    }
}

/// What planning lacks.
#[derive(Debug, Default)]
pub(super) struct Needs {
    chunks: BTreeMap<u32, MapChunkRef>,
    indexes: BTreeMap<PackId, DeltaRef>,
}

impl Needs {
    pub fn chunk(&mut self, chunk: MapChunkRef) {
        self.chunks.insert(chunk.number, chunk);
    }

    pub fn index(&mut self, delta: DeltaRef) {
        self.indexes.insert(delta.pack, delta);
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.indexes.is_empty()
    }

    pub fn into_planned(self) -> Planned {
        Planned::Needs { chunks: self.chunks.into_values().collect(), indexes: self.indexes.into_values().collect() }
    }
}

/// Plans the fold of `input` into `map`. `indexes` gives the delta indexes that are in memory.
pub fn plan_fold(map: &PageMap, input: &FoldInput, indexes: Indexes<'_>) -> Result<Planned, FoldError> {
    let Some(lsn) = input.lsn else { return Ok(Planned::Nothing) };
    assert!(Some(lsn) >= map.lsn(), "BUG: a fold back to LSN {lsn}");
    check_growth(map, input)?;
    let base = match map.truncate(input.page_count_min) {
        Ok(base) => base,
        Err(chunk) => return Ok(Planned::Needs { chunks: vec![chunk], indexes: Vec::new() }),
    };
    let masks = input.masks();
    let (covered, partial): (BTreeMap<_, _>, BTreeMap<_, _>) =
        masks.into_iter().partition(|(segment, mask)| mask.covers(segment.used(input.page_count)));
    let mut needs = Needs::default();
    let merge = merge::plan(&base, &covered, &partial, input, indexes, &mut needs);
    if !needs.is_empty() {
        return Ok(needs.into_planned());
    }
    if Some(lsn) == map.lsn() && merge.is_nothing() {
        return Ok(Planned::Nothing);
    }
    let mut plan = FoldPlan {
        lsn,
        page_count: input.page_count,
        old: map.clone(),
        base,
        segments: BTreeMap::new(),
        delta: BTreeMap::new(),
        gone: merge.gone.clone(),
    };
    plan.add_segments(input, covered.keys().chain(&merge.segments), indexes, &mut needs)?;
    plan.add_delta(&partial, &merge, indexes, &mut needs);
    Ok(if needs.is_empty() { Planned::Ready(plan) } else { needs.into_planned() })
}

/// Every page that the database grew by since its smallest size must be in the tail.
pub(super) fn check_growth(map: &PageMap, input: &FoldInput) -> Result<(), FoldError> {
    let start = input.page_count_min.min(map.page_count());
    let mut hole = PageNo::grown(start, input.page_count.max(start)).filter(|page| !input.pages.contains_key(page));
    hole.next().map_or(Ok(()), |page| Err(FoldError::Hole { page, page_count: input.page_count }))
}

impl FoldPlan {
    pub(super) fn add_segments<'a>(
        &mut self,
        input: &FoldInput,
        segments: impl Iterator<Item = &'a SegmentNo>,
        indexes: Indexes<'_>,
        needs: &mut Needs,
    ) -> Result<(), FoldError> {
        for segment in segments {
            if let Err(chunk) = self.base.segment(*segment) {
                needs.chunk(chunk);
                continue;
            }
            let pages = (0..segment.pages_within(self.page_count)).filter_map(|position| segment.page(position));
            let mut origins = Vec::new();
            for page in pages {
                if let Some(origin) = self.origin(input, page, indexes, needs)? {
                    origins.push((page, origin));
                }
            }
            self.segments.insert(*segment, origins);
        }
        Ok(())
    }

    fn origin(
        &self,
        input: &FoldInput,
        page: PageNo,
        indexes: Indexes<'_>,
        needs: &mut Needs,
    ) -> Result<Option<Origin>, FoldError> {
        if input.pages.contains_key(&page) {
            return Ok(Some(Origin::Tail));
        }
        match self.base.lookup(page, indexes) {
            Lookup::Found(source) => return Ok(Some(Origin::Stored(source))),
            Lookup::LockPage => return Ok(Some(Origin::LockPage)),
            Lookup::NeedChunk(chunk) => needs.chunk(chunk),
            Lookup::NeedIndexes(deltas) => deltas.into_iter().for_each(|delta| needs.index(delta)),
            Lookup::Outside | Lookup::Missing => {
                return Err(MissingPage { database: input.database, page, lsn: self.base.lsn() }.into());
            }
        }
        Ok(None)
    }

    fn add_delta(
        &mut self,
        partial: &BTreeMap<SegmentNo, PageMask>,
        merge: &Merge,
        indexes: Indexes<'_>,
        needs: &mut Needs,
    ) {
        let new = partial.iter().filter(|(segment, _)| !merge.segments.contains(segment));
        let new = new.flat_map(|(segment, mask)| pages_of(*segment, *mask));
        self.delta.extend(new.map(|page| (page, Origin::Tail)));
        for absorbed in &merge.absorbed {
            let Some(index) = self.index_of(absorbed, indexes) else {
                needs.index(*absorbed);
                continue;
            };
            for (segment, mask) in merge.live_in(absorbed) {
                let stored = pages_of(*segment, *mask).filter_map(|page| {
                    let (frame, place) = index.find(page)?;
                    let at = FrameAt { pack: absorbed.pack, frame };
                    Some((page, Origin::Stored(Source { at, place })))
                });
                self.delta.extend(stored);
            }
        }
    }

    fn index_of(&self, delta: &DeltaRef, indexes: Indexes<'_>) -> Option<Arc<crate::pack::FrameIndex>> {
        self.base.delta_list().iter().find(|known| known.reference.pack == delta.pack)?.index(indexes)
    }
}

fn pages_of(segment: SegmentNo, mask: PageMask) -> impl Iterator<Item = PageNo> {
    mask.positions().filter_map(move |position| segment.page(position))
}
