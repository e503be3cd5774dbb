//! Pages and segments → pack.

use std::collections::BTreeMap;

use bytes::Bytes;
use walstore::envelope::{self, HEADER_BYTES, Kind, Writer};
use walstore::id::Lsn;

use super::footer::{FOOTER_BYTES, Footer, Section};
use super::frame::{FrameEncoder, FrameRef};
use super::history::History;
use super::index::{FrameIndex, IndexEntry};
use crate::id::PackId;
use crate::limits;
use crate::mask::PageMask;
use crate::page::{Page, PageNo, SegmentNo};

/// Collects what goes into one pack.
pub struct PackWriter {
    id: PackId,
    lsn: Lsn,
    page_count: u32,
    segments: BTreeMap<SegmentNo, Vec<Page>>,
    delta: BTreeMap<SegmentNo, BTreeMap<u8, Page>>,
    history: Option<History>,
}

/// The delta of a finished pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeltaParts {
    pub index: FrameIndex,
    pub section: Section,
}

/// A finished pack, to be put under [`crate::keys::pack`] of its id.
#[derive(Clone, Debug)]
pub struct Pack {
    pub id: PackId,
    pub lsn: Lsn,
    pub page_count: u32,
    pub bytes: Bytes,
    /// Segments that stand in it whole.
    pub segments: FrameIndex,
    /// Single pages.
    pub delta: Option<DeltaParts>,
    pub history: Option<Section>,
}

/// More than one pack may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pack of {bytes} bytes, more than {}", limits::PACK_BYTES_MAX)]
pub struct PackTooLarge {
    pub bytes: usize,
}

impl PackWriter {
    /// A pack of pages as of `lsn`, when the database had `page_count` pages.
    pub fn new(id: PackId, lsn: Lsn, page_count: u32) -> Self {
        Self { id, lsn, page_count, segments: BTreeMap::new(), delta: BTreeMap::new(), history: None }
    }

    /// Adds a segment as a whole: all pages that the database has of it, zeros for the lock page.
    pub fn add_segment(&mut self, segment: SegmentNo, pages: Vec<Page>) {
        assert_eq!(pages.len(), usize::from(segment.pages_within(self.page_count)), "BUG: part of segment {segment}");
        assert!(!pages.is_empty() && !self.delta.contains_key(&segment), "BUG: segment {segment} twice");
        assert!(self.segments.insert(segment, pages).is_none(), "BUG: segment {segment} twice");
    }

    /// Adds a single page to the delta.
    pub fn add_page(&mut self, page: PageNo, content: Page) {
        let segment = page.segment();
        assert!(segment.used(self.page_count).contains(page.position()), "BUG: page {page} is outside");
        assert!(!self.segments.contains_key(&segment), "BUG: page {page} twice");
        let twice = self.delta.entry(segment).or_default().insert(page.position(), content);
        assert!(twice.is_none(), "BUG: page {page} twice");
    }

    /// Keeps the folded commits.
    pub fn set_history(&mut self, history: History) {
        self.history = Some(history);
    }

    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.delta.is_empty() && self.history.is_none()
    }

    pub fn finish(self) -> Result<Pack, PackTooLarge> {
        let mut body = Body::new(&self.id);
        let mut encoder = FrameEncoder::new();
        let whole = self
            .segments
            .iter()
            .map(|(segment, pages)| (*segment, PageMask::first(pages.len() as u8), encoder.encode(pages.iter())));
        let segments = body.frames(whole)?;
        let sparse = self.delta.iter().map(|(segment, pages)| {
            let mask = pages.keys().fold(PageMask::NONE, |mask, position| mask.or(PageMask::one(*position)));
            (*segment, mask, encoder.encode(pages.values()))
        });
        let delta = body.frames(sparse)?;
        let index_section = |body: &mut Body, index: &FrameIndex| match index.entries() {
            [] => Ok(None),
            _ => body.section(&index.encode()).map(Some),
        };
        let delta_index = index_section(&mut body, &delta)?;
        let segment_table = index_section(&mut body, &segments)?;
        let history = self.history.map(|history| history.with_parts(|parts| body.section_in_parts(parts))).transpose()?;
        let Self { id, lsn, page_count, .. } = self;
        let footer = Footer { lsn, page_count, delta_index, segment_table, history };
        let delta = delta_index.map(|section| DeltaParts { index: delta, section });
        Ok(Pack { id, lsn, page_count, bytes: body.finish(&footer), segments, delta, history })
    }
}

/// The object as it grows, behind an envelope that is written at the end: a large one is never copied.
struct Body(Vec<u8>);

impl Body {
    fn new(id: &PackId) -> Self {
        let mut start = Writer::new();
        start.raw(&[0; HEADER_BYTES]);
        id.encode(&mut start);
        Self(start.finish())
    }

    /// Appends one frame after the other.
    fn frames(
        &mut self,
        frames: impl Iterator<Item = (SegmentNo, PageMask, Vec<u8>)>,
    ) -> Result<FrameIndex, PackTooLarge> {
        let entries = frames.map(|(segment, pages, stored)| {
            let Section { offset, bytes, crc } = self.section(&stored)?;
            Ok(IndexEntry { segment, pages, frame: FrameRef { offset, bytes, crc } })
        });
        Ok(FrameIndex::new(entries.collect::<Result<_, _>>()?))
    }

    fn section(&mut self, stored: &[u8]) -> Result<Section, PackTooLarge> {
        self.section_in_parts(&[stored])
    }

    fn section_in_parts(&mut self, parts: &[&[u8]]) -> Result<Section, PackTooLarge> {
        let offset = self.0.len();
        let section_bytes: usize = parts.iter().map(|part| part.len()).sum();
        let bytes = offset + section_bytes + FOOTER_BYTES;
        if bytes > limits::PACK_BYTES_MAX {
            return Err(PackTooLarge { bytes });
        }
        let mut crc = 0;
        for part in parts {
            self.0.extend_from_slice(part);
            crc = crc32c::crc32c_append(crc, part);
        }
        Ok(Section { offset: offset as u32, bytes: section_bytes as u32, crc })
    }

    fn finish(mut self, footer: &Footer) -> Bytes {
        self.0.extend_from_slice(&footer.encode());
        envelope::seal_in_place(Kind::Pack, super::VERSION, self.0)
    }
}
