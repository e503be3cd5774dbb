//! All pages of a segment → where they are: a look-up for whoever reads neighbours.

use super::{Indexes, PageMap, Source};
use crate::mask::PageMask;
use crate::pack::FrameAt;
use crate::page::{PageNo, SegmentNo};

/// Where the pages of one segment are, as far as what says so is in memory.
#[derive(Clone, Debug)]
pub struct SegmentSources {
    segment: SegmentNo,
    /// They share no page.
    parts: Vec<Part>,
}

/// Pages that stand in one frame.
#[derive(Clone, Copy, Debug)]
struct Part {
    at: FrameAt,
    pages: PageMask,
    /// All pages in the frame, also those for which it does not speak.
    in_frame: PageMask,
}

impl SegmentSources {
    pub fn segment(&self) -> SegmentNo {
        self.segment
    }

    /// Where a page of this segment is, and a small number that equals that of other pages in the same frame. `None` if
    /// it is nowhere, or cannot be told from what was in memory: then [`PageMap::lookup`] says why.
    pub fn find(&self, page: PageNo) -> Option<(usize, Source)> {
        if page.segment() != self.segment {
            return None;
        }
        let position = page.position();
        let number = self.parts.iter().position(|part| part.pages.contains(position))?;
        let part = self.parts[number];
        Some((number, Source { at: part.at, place: part.in_frame.rank(position) }))
    }

    /// The frames that have them.
    pub fn frames(&self) -> impl Iterator<Item = FrameAt> {
        self.parts.iter().filter(|part| !part.pages.is_empty()).map(|part| part.at)
    }
}

impl PageMap {
    /// What [`lookup`](Self::lookup) would find for each page of `segment`.
    pub fn sources(&self, segment: SegmentNo, indexes: Indexes<'_>) -> SegmentSources {
        let mut sources = SegmentSources { segment, parts: Vec::new() };
        let Ok(whole) = self.segment(segment) else { return sources };
        let valid = whole.map_or(PageMask::NONE, |whole| whole.valid());
        let mut open = segment.used(self.page_count);
        for delta in self.deltas.iter() {
            let mut may_speak = open.and(delta.reference.valid(segment));
            if whole.is_some_and(|whole| whole.lsn >= delta.reference.lsn) {
                may_speak = may_speak.without(valid);
            }
            if may_speak.is_empty() {
                continue;
            }
            // What it may say, no older source may say.
            let Some(index) = delta.index(indexes) else {
                open = open.without(may_speak);
                continue;
            };
            if let Some(entry) = index.entry(segment) {
                let at = FrameAt { pack: delta.reference.pack, frame: entry.frame };
                let pages = may_speak.and(entry.pages);
                sources.parts.push(Part { at, pages, in_frame: entry.pages });
                open = open.without(pages);
            }
        }
        if let Some(whole) = whole {
            sources.parts.push(Part { at: whole.at, pages: open.and(valid), in_frame: PageMask::first(u8::MAX) });
        }
        sources
    }
}
