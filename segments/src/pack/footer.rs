//! The last bytes of a pack: where its sections are.

use std::ops::Range;

use walstore::envelope::{Corrupt, Reader, Writer};
use walstore::id::Lsn;

/// Length of the footer. A ranged GET of a pack's last bytes reads it.
pub const FOOTER_BYTES: usize = 52;

/// A stretch of a pack with its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Section {
    pub offset: u32,
    pub bytes: u32,
    pub crc: u32,
}

impl Section {
    /// What to ask a ranged GET for.
    pub fn range(&self) -> Range<u64> {
        let start = u64::from(self.offset);
        start..start + u64::from(self.bytes)
    }

    /// Checks what a ranged GET returned.
    pub fn check(&self, stored: &[u8]) -> Result<(), Corrupt> {
        if stored.len() != self.bytes as usize {
            return Err(Corrupt::new(format!("{} bytes of a section of {}", stored.len(), self.bytes)));
        }
        if crc32c::crc32c(stored) != self.crc {
            return Err(Corrupt::new(format!("checksum mismatch in the section at {}", self.offset)));
        }
        Ok(())
    }

    fn encode(section: Option<Self>, out: &mut Writer) {
        let Self { offset, bytes, crc } = section.unwrap_or(Self { offset: 0, bytes: 0, crc: 0 });
        out.u32(offset);
        out.u32(bytes);
        out.u32(crc);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Option<Self>, Corrupt> {
        let section = Self { offset: reader.u32()?, bytes: reader.u32()?, crc: reader.u32()? };
        Ok((section.offset > 0).then_some(section))
    }
}

/// See the table in [`crate::pack`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    pub lsn: Lsn,
    pub page_count: u32,
    pub delta_index: Option<Section>,
    pub segment_table: Option<Section>,
    pub history: Option<Section>,
}

impl Footer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u64(self.lsn.get());
        out.u32(self.page_count);
        for section in [self.delta_index, self.segment_table, self.history] {
            Section::encode(section, &mut out);
        }
        let mut bytes = out.finish();
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        debug_assert_eq!(bytes.len(), FOOTER_BYTES);
        bytes
    }

    /// Reads the footer from the last bytes of a pack, of which there may be more than it needs.
    pub fn decode(tail: &[u8]) -> Result<Self, Corrupt> {
        let start = tail.len().checked_sub(FOOTER_BYTES);
        let bytes = &tail[start.ok_or_else(|| Corrupt::new("a pack without a footer"))?..];
        let (fields, crc) = bytes.split_at(FOOTER_BYTES - 4);
        if crc32c::crc32c(fields).to_le_bytes() != crc {
            return Err(Corrupt::new("checksum mismatch in the footer"));
        }
        let mut reader = Reader::new(fields);
        let lsn = Lsn::new(reader.u64()?).ok_or_else(|| Corrupt::new("a pack as of LSN 0"))?;
        let page_count = reader.u32()?;
        let (delta_index, segment_table) = (Section::decode(&mut reader)?, Section::decode(&mut reader)?);
        let history = Section::decode(&mut reader)?;
        Ok(Self { lsn, page_count, delta_index, segment_table, history })
    }
}
