//! A delta as the page map knows it.
//!
//! Encoded (`v` = variable-length integer):
//!
//! | bytes | what |
//! |---|---|
//! | 36 | pack |
//! | 8 | LSN as of which the pages are |
//! | 12 | the index in the pack: offset, length, CRC-32C |
//! | 4 | pages in it |
//! | 4 | stored length of its frames together |
//! | 4 | valid up to this page |
//! | v, n | length of the index's copy, 0 for none; the copy |

use std::sync::Arc;

use walstore::envelope::{Corrupt, Reader, Writer};
use walstore::id::Lsn;
use walstore::mutant::{self, Mutant};

use super::Indexes;
use crate::id::{ID_BYTES, PackId};
use crate::limits;
use crate::mask::PageMask;
use crate::pack::{FrameIndex, Pack, Section};
use crate::page::{PageNo, SegmentNo};
use crate::varint;

const FIELDS_BYTES: usize = ID_BYTES + 32;
pub const ENCODED_BYTES_MIN: usize = FIELDS_BYTES + 1;

/// Refers to the delta of one pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeltaRef {
    pub pack: PackId,
    /// As of this commit.
    pub lsn: Lsn,
    /// Where the index is.
    pub index: Section,
    pub page_count: u32,
    pub frames_bytes: u32,
    /// The smallest size that the database had since: pages beyond are not valid any more.
    pub valid_upto: u32,
}

impl DeltaRef {
    /// Checks and decodes what a ranged GET of [`index`](Self::index) returned.
    pub fn decode_index(&self, stored: &[u8]) -> Result<FrameIndex, Corrupt> {
        self.index.check(stored)?;
        let index = FrameIndex::decode(stored)?;
        if index.page_count() != u64::from(self.page_count) {
            return Err(Corrupt::new(format!("an index of {} pages, not {}", index.page_count(), self.page_count)));
        }
        Ok(index)
    }

    /// The positions of `segment` for which this delta may speak.
    pub(crate) fn valid(&self, segment: SegmentNo) -> PageMask {
        let upto = if mutant::is_on(Mutant::IgnoreValidUpto) { u32::MAX } else { self.valid_upto };
        PageMask::first(segment.pages_within(upto))
    }
}

/// A delta, with its index if that is small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    pub reference: DeltaRef,
    inline: Option<Inline>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inline {
    encoded: Arc<[u8]>,
    index: Arc<FrameIndex>,
}

impl Delta {
    /// The delta of a new pack.
    pub fn of_pack(pack: &Pack) -> Option<Self> {
        let parts = pack.delta.as_ref()?;
        let reference = DeltaRef {
            pack: pack.id,
            lsn: pack.lsn,
            index: parts.section,
            page_count: u32::try_from(parts.index.page_count()).expect("BUG: over 2^32 pages in a pack"),
            frames_bytes: u32::try_from(parts.index.frames_bytes()).expect("BUG: a pack over 4 GiB"),
            valid_upto: pack.page_count,
        };
        let encoded = parts.index.encode();
        let small = encoded.len() <= limits::INDEX_INLINE_BYTES_MAX;
        let inline = small.then(|| Inline { encoded: encoded.into(), index: Arc::new(parts.index.clone()) });
        Some(Self { reference, inline })
    }

    /// The index, if it is in memory.
    pub fn index(&self, indexes: Indexes<'_>) -> Option<Arc<FrameIndex>> {
        self.inline.as_ref().map(|inline| inline.index.clone()).or_else(|| indexes(&self.reference))
    }

    pub fn truncated(&self, page_count: u32) -> Self {
        let mut truncated = self.clone();
        truncated.reference.valid_upto = self.reference.valid_upto.min(page_count);
        truncated
    }

    /// Whether it may hold `page`.
    pub fn reaches(&self, page: PageNo) -> bool {
        page.get() <= self.reference.valid_upto || mutant::is_on(Mutant::IgnoreValidUpto)
    }

    pub fn encode(&self, out: &mut Writer) {
        let DeltaRef { pack, lsn, index, page_count, frames_bytes, valid_upto } = &self.reference;
        pack.encode(out);
        out.u64(lsn.get());
        for field in [index.offset, index.bytes, index.crc, *page_count, *frames_bytes, *valid_upto] {
            out.u32(field);
        }
        let inline: &[u8] = self.inline.as_ref().map_or(&[], |inline| &inline.encoded);
        varint::put_len(out, inline.len());
        out.raw(inline);
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let pack = PackId::decode(reader)?;
        let lsn = Lsn::new(reader.u64()?).ok_or_else(|| Corrupt::new("a delta as of LSN 0"))?;
        let index = Section { offset: reader.u32()?, bytes: reader.u32()?, crc: reader.u32()? };
        let (page_count, frames_bytes, valid_upto) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let reference = DeltaRef { pack, lsn, index, page_count, frames_bytes, valid_upto };
        if index.bytes as usize > limits::INDEX_BYTES_MAX {
            return Err(Corrupt::new(format!("a frame index of {} bytes", index.bytes)));
        }
        let inline = match varint::take_count(reader, 1)? {
            0 => None,
            length => {
                let encoded = reader.raw(length)?;
                let index = Arc::new(reference.decode_index(encoded)?);
                Some(Inline { encoded: encoded.into(), index })
            }
        };
        Ok(Self { reference, inline })
    }
}
