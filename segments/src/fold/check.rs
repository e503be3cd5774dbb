//! What another process has made of a [pack order](super::order), before a head may refer to it.
//!
//! Everything that this process can know is compared: the pack is complete, has this id, this commit and size, exactly
//! the pages of the plan where the plan has them, the tail's pages and commits byte for byte, and the merged pages as
//! far as their frames are in memory. The rest of what was merged is what its checksums say that somebody wrote.

use bytes::Bytes;
use walstore::envelope::Corrupt;

use super::plan::Origin;
use super::{FoldInput, FoldPlan};
use crate::id::PackId;
use crate::mask::PageMask;
use crate::pack::history::History;
use crate::pack::{DeltaParts, Frame, FrameAt, FrameIndex, Pack, PackContents, read_pack};
use crate::page::{Page, PageNo, SegmentNo};

impl FoldPlan {
    /// Every page that this plan writes, and where it comes from.
    pub(super) fn pages(&self) -> impl Iterator<Item = (PageNo, Origin)> {
        let whole = self.segments.values().flatten().copied();
        whole.chain(self.delta.iter().map(|(page, origin)| (*page, *origin)))
    }

    /// Checks the object that was stored for this plan, which was made for `input`. `known` gives frames that are in
    /// memory.
    pub fn check(
        &self,
        input: &FoldInput,
        id: PackId,
        object: &Bytes,
        known: &dyn Fn(&FrameAt) -> Option<Frame>,
    ) -> Result<Pack, Corrupt> {
        let PackContents { footer, segments, delta, history } = read_pack(object, &id)?;
        if (footer.lsn, footer.page_count) != (self.lsn, self.page_count) {
            let found = format!("is as of commit {} and {} pages", footer.lsn, footer.page_count);
            return Err(Corrupt::new(format!("{found}, not of {} and {}", self.lsn, self.page_count)));
        }
        if history != History::of_fold(&input.commits, self.lsn) {
            return Err(Corrupt::new("does not keep the commits that were folded"));
        }
        let whole = self.segments.iter().map(|(segment, pages)| (*segment, PageMask::first(pages.len() as u8)));
        let single = self.delta.keys().map(|page| (page.segment(), PageMask::one(page.position())));
        if !has_pages(&segments, whole) || !has_pages(&delta, single) {
            return Err(Corrupt::new("has other pages than were ordered"));
        }
        for index in [&segments, &delta] {
            self.compare(input, index, object, known)?;
        }
        let delta = footer.delta_index.map(|section| DeltaParts { index: delta, section });
        let Self { lsn, page_count, .. } = *self;
        Ok(Pack { id, lsn, page_count, bytes: object.clone(), segments, delta, history: footer.history })
    }

    fn compare(
        &self,
        input: &FoldInput,
        index: &FrameIndex,
        object: &Bytes,
        known: &dyn Fn(&FrameAt) -> Option<Frame>,
    ) -> Result<(), Corrupt> {
        for entry in index.entries() {
            let range = entry.frame.range();
            let frame = Frame::decode(&object[range.start as usize..range.end as usize], &entry.frame)?;
            for (place, position) in (0..).zip(entry.pages.positions()) {
                let page = entry.segment.page(position).expect("BUG: a page of the plan");
                let expected = match self.origin_of(page) {
                    Origin::Tail => Some(input.pages[&page].clone()),
                    Origin::LockPage => Some(Page::zeroed()),
                    Origin::Stored(source) => known(&source.at).map(|frame| frame.page(source.place)).transpose()?,
                };
                let found = frame.page(place)?;
                if expected.is_some_and(|expected| expected != found) {
                    return Err(Corrupt::new(format!("page {page} is not what was ordered")));
                }
            }
        }
        Ok(())
    }

    fn origin_of(&self, page: PageNo) -> Origin {
        let whole = self.segments.get(&page.segment()).and_then(|pages| pages.get(usize::from(page.position())));
        let origin = whole.map(|(_, origin)| origin).or_else(|| self.delta.get(&page));
        *origin.expect("BUG: compared with the plan before")
    }
}

/// Whether an index has exactly these pages, in ascending order.
fn has_pages(index: &FrameIndex, pages: impl Iterator<Item = (SegmentNo, PageMask)>) -> bool {
    let mut wanted: Vec<(SegmentNo, PageMask)> = Vec::new();
    for (segment, mask) in pages {
        match wanted.last_mut() {
            Some((last, known)) if *last == segment => *known = known.or(mask),
            _ => wanted.push((segment, mask)),
        }
    }
    index.entries().iter().map(|entry| (entry.segment, entry.pages)).eq(wanted)
}
