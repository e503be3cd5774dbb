//! Frames: the unit of a read.

use std::ops::Range;

use bytes::Bytes;
use walstore::envelope::{Corrupt, decompress_exact};
use walstore::mutant::{self, Mutant};

use crate::id::PackId;
use crate::limits;
use crate::page::{PAGE_BYTES, Page, SEGMENT_BYTES, SEGMENT_PAGES};

/// Folds run in the background, and their output is read many times.
const ZSTD_LEVEL: i32 = 3;
const CODEC_RAW: u8 = 0;
const CODEC_ZSTD: u8 = 1;
pub(super) const FRAME_HEADER_BYTES: usize = 2;

/// Where a frame stands in its pack, and its checksum as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameRef {
    pub offset: u32,
    pub bytes: u32,
    pub crc: u32,
}

impl FrameRef {
    /// What to ask a ranged GET for.
    pub fn range(&self) -> Range<u64> {
        let start = u64::from(self.offset);
        start..start + u64::from(self.bytes)
    }
}

/// A frame in the world. Frames never change, so equal places are equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameAt {
    pub pack: PackId,
    pub frame: FrameRef,
}

/// The pages of one decoded frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(Bytes);

/// A frame as it is stored, checked by its checksum and not decoded yet: it takes less memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFrame(Bytes);

impl StoredFrame {
    /// Checks the bytes that a ranged GET of `frame` returned. It shares no memory with them, so it keeps no more of it
    /// than its own.
    pub fn copy_of(stored: &[u8], frame: &FrameRef) -> Result<Self, Corrupt> {
        check(stored, frame)?;
        Ok(Self(Bytes::copy_from_slice(stored)))
    }

    pub fn decode(&self) -> Result<Frame, Corrupt> {
        Frame::of_checked(&self.0)
    }

    /// Bytes of memory that it keeps.
    pub fn weight_bytes(&self) -> usize {
        self.0.len()
    }
}

fn check(stored: &[u8], frame: &FrameRef) -> Result<(), Corrupt> {
    if stored.len() != frame.bytes as usize {
        return Err(Corrupt::new(format!("{} bytes of a frame of {}", stored.len(), frame.bytes)));
    }
    if crc32c::crc32c(stored) != frame.crc && !mutant::is_on(Mutant::SkipFrameCheck) {
        return Err(Corrupt::new(format!("checksum mismatch in the frame at {}", frame.offset)));
    }
    Ok(())
}

impl Frame {
    /// Checks and decodes the bytes that a ranged GET of `frame` returned. It shares no memory with them.
    pub fn decode(stored: &[u8], frame: &FrameRef) -> Result<Self, Corrupt> {
        check(stored, frame)?;
        Self::of_checked(stored)
    }

    fn of_checked(stored: &[u8]) -> Result<Self, Corrupt> {
        let [codec, page_count, ..] = stored[..] else {
            return Err(Corrupt::new("a frame without a header"));
        };
        if page_count == 0 || u32::from(page_count) > SEGMENT_PAGES {
            return Err(Corrupt::new(format!("a frame of {page_count} pages")));
        }
        let raw_bytes = usize::from(page_count) * PAGE_BYTES;
        let body = &stored[FRAME_HEADER_BYTES..];
        match codec {
            // A copy: the bytes may be a slice of a whole pack, or of what a connection has read.
            CODEC_RAW if body.len() == raw_bytes => Ok(Self(Bytes::copy_from_slice(body))),
            CODEC_RAW => Err(Corrupt::new(format!("a frame of {page_count} pages in {} bytes", body.len()))),
            CODEC_ZSTD => Ok(Self(decompress_exact(body, raw_bytes, SEGMENT_BYTES)?.into())),
            _ => Err(Corrupt::new(format!("unknown codec {codec} of a frame"))),
        }
    }

    pub fn page_count(&self) -> u8 {
        (self.0.len() / PAGE_BYTES) as u8
    }

    /// The page at `place`, from 0; it shares the frame's memory.
    pub fn page(&self, place: u8) -> Result<Page, Corrupt> {
        let start = usize::from(place) * PAGE_BYTES;
        let bytes = (start < self.0.len()).then(|| self.0.slice(start..start + PAGE_BYTES));
        let missing = || Corrupt::new(format!("page {place} of a frame of {} pages", self.page_count()));
        bytes.and_then(Page::new).ok_or_else(missing)
    }

    /// Bytes of memory that it keeps.
    pub fn weight_bytes(&self) -> usize {
        self.0.len()
    }
}

/// The stored form of one frame.
pub(crate) fn encode_frame<'a>(pages: impl Iterator<Item = &'a Page>) -> Vec<u8> {
    FrameEncoder::new().encode(pages)
}

/// Encodes frames one after the other with one compressor.
pub(super) struct FrameEncoder(zstd::bulk::Compressor<'static>);

impl FrameEncoder {
    pub fn new() -> Self {
        Self(zstd::bulk::Compressor::new(ZSTD_LEVEL).expect("BUG: the compression level exists"))
    }

    /// The stored form of a frame of 1 to [`SEGMENT_PAGES`] pages.
    pub fn encode<'a>(&mut self, pages: impl Iterator<Item = &'a Page>) -> Vec<u8> {
        let mut stored = vec![CODEC_RAW, 0];
        for page in pages {
            stored.extend_from_slice(page.as_ref());
        }
        let raw_bytes = stored.len() - FRAME_HEADER_BYTES;
        assert!(raw_bytes > 0 && raw_bytes <= SEGMENT_BYTES, "BUG: a frame of {raw_bytes} bytes");
        stored[1] = (raw_bytes / PAGE_BYTES) as u8;
        debug_assert!(stored.len() <= limits::FRAME_BYTES_MAX);
        match self.0.compress(&stored[FRAME_HEADER_BYTES..]) {
            Ok(packed) if packed.len() < raw_bytes => {
                stored.truncate(FRAME_HEADER_BYTES);
                stored[0] = CODEC_ZSTD;
                stored.extend_from_slice(&packed);
                stored.shrink_to_fit();
                stored
            }
            _ => stored,
        }
    }
}
