//! The frame index: which pages of which segments stand in which frames of a pack.
//!
//! With `v` for a variable-length integer:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version, 1 |
//! | v | number of frames |
//! | v | offset of the first; the others follow without a gap |
//! | | then for each frame, in ascending order of segment, at most one for a segment: |
//! | v | segment number − previous − 1 (the first: its number) |
//! | 4 | which pages of the segment, bit 0 the first; in the frame they stand in this order |
//! | v | stored length |
//! | 4 | CRC-32C of the stored bytes |

use walstore::envelope::{Corrupt, Reader, Writer};

use super::frame::{FRAME_HEADER_BYTES, FrameRef};
use crate::limits;
use crate::mask::PageMask;
use crate::page::{PageNo, SegmentNo};
use crate::varint;

const VERSION: u8 = 1;
const ENTRY_BYTES_MIN: usize = 10;
pub(super) const ENTRY_BYTES_MAX: usize = 18;
/// Of the fields before the entries.
pub(super) const FIXED_BYTES_MAX: usize = 11;

/// One frame and the pages in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    pub segment: SegmentNo,
    pub pages: PageMask,
    pub frame: FrameRef,
}

/// The frames of one section of a pack, in ascending order of segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameIndex {
    entries: Vec<IndexEntry>,
}

impl FrameIndex {
    /// `entries` in ascending order of segment, their frames adjacent in the pack.
    pub(super) fn new(entries: Vec<IndexEntry>) -> Self {
        assert!(entries.is_sorted_by(|a, b| a.segment < b.segment), "BUG: frames in disorder");
        Self { entries }
    }

    /// The frame that holds `page`, and the page's place in it.
    pub fn find(&self, page: PageNo) -> Option<(FrameRef, u8)> {
        let entry = self.entry(page.segment())?;
        let place = entry.pages.rank(page.position());
        entry.pages.contains(page.position()).then_some((entry.frame, place))
    }

    pub fn entry(&self, segment: SegmentNo) -> Option<&IndexEntry> {
        let at = self.entries.binary_search_by_key(&segment, |entry| entry.segment).ok()?;
        Some(&self.entries[at])
    }

    pub fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    pub fn page_count(&self) -> u64 {
        self.entries.iter().map(|entry| u64::from(entry.pages.count())).sum()
    }

    /// Stored length of all frames together. They are adjacent, from the first entry's offset on.
    pub fn frames_bytes(&self) -> u64 {
        self.entries.iter().map(|entry| u64::from(entry.frame.bytes)).sum()
    }

    /// Bytes of memory that it takes.
    pub fn weight_bytes(&self) -> usize {
        size_of::<Self>() + self.entries.capacity() * size_of::<IndexEntry>()
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(VERSION);
        varint::put_len(&mut out, self.entries.len());
        varint::put(&mut out, self.entries.first().map_or(0, |entry| entry.frame.offset.into()));
        let mut next = 0;
        for IndexEntry { segment, pages, frame } in &self.entries {
            varint::put(&mut out, u64::from(segment.get() - next));
            out.u32(pages.bits());
            varint::put(&mut out, frame.bytes.into());
            out.u32(frame.crc);
            next = segment.get() + 1;
        }
        out.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(Corrupt::new(format!("frame index version {version}; this build reads {VERSION}")));
        }
        let count = varint::take_count(&mut reader, ENTRY_BYTES_MIN)?;
        let mut offset = varint::take_u32(&mut reader)?;
        let mut entries = Vec::with_capacity(count);
        let mut next = 0;
        for _ in 0..count {
            let entry = decode_entry(&mut reader, next, offset)?;
            next = entry.segment.get() + 1;
            let end = offset.checked_add(entry.frame.bytes);
            offset = end.ok_or_else(|| Corrupt::new("a frame index beyond 4 GiB"))?;
            entries.push(entry);
        }
        reader.end()?;
        Ok(Self { entries })
    }
}

fn decode_entry(reader: &mut Reader<'_>, next: u32, offset: u32) -> Result<IndexEntry, Corrupt> {
    let segment = next.checked_add(varint::take_u32(reader)?).and_then(SegmentNo::new);
    let segment = segment.ok_or_else(|| Corrupt::new("a segment number beyond every database"))?;
    let pages = PageMask::from_bits(reader.u32()?);
    let frame = FrameRef { offset, bytes: varint::take_u32(reader)?, crc: reader.u32()? };
    let last = pages.positions().last().and_then(|position| segment.page(position));
    if last.is_none() || frame.bytes as usize <= FRAME_HEADER_BYTES || frame.bytes as usize > limits::FRAME_BYTES_MAX {
        return Err(Corrupt::new(format!("an impossible frame of segment {segment}")));
    }
    Ok(IndexEntry { segment, pages, frame })
}
