//! A chunk of the history's index: its older entries, as an object of their own.
//!
//! Key: [`crate::keys::page_map`]. Body, inside the [envelope](walstore::envelope) (kind `History`), compressed where that
//! helps:
//!
//! | bytes | what |
//! |---|---|
//! | 36 | the chunk's own id |
//! | 8 | LSN after which it starts, 0 for the first commit |
//! | … | number of entries, and each, as in the index (module `codec`) |
//!
//! The index refers to it with (`v` = variable-length integer):
//!
//! | bytes | what |
//! |---|---|
//! | 36, 4, 4 | id, length and CRC-32C of the object |
//! | v | number of entries |
//! | v | number of commits |
//! | v | time of the last commit |
//! | v | 0: no base is among the entries; else 1 + commits after the last base |

use bytes::Bytes;
use walstore::envelope::{self, Corrupt, Kind, Reader, Writer};
use walstore::id::Lsn;

use super::{Entry, codec};
use crate::id::{ID_BYTES, MapChunkId};
use crate::limits;
use crate::varint;

const VERSION: u8 = 1;

/// Refers to a chunk, and says what of it one must know to leave it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryChunkRef {
    pub id: MapChunkId,
    /// Length of the object.
    pub bytes: u32,
    /// CRC-32C of the object.
    pub crc: u32,
    pub entry_count: u32,
    /// The commit after which it starts.
    pub start: Option<Lsn>,
    /// Its last commit.
    pub end: Lsn,
    pub last_micros: u64,
    /// Where the last base in it is.
    pub last_base: Option<Lsn>,
}

/// A chunk that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryChunk {
    pub start: Option<Lsn>,
    pub entries: Vec<Entry>,
}

impl HistoryChunk {
    /// The chunk as an object.
    ///
    /// # Panics
    /// If it has no run.
    pub(super) fn seal(&self, id: MapChunkId) -> (HistoryChunkRef, Bytes) {
        assert!(self.entries.len() <= limits::HISTORY_CHUNK_ENTRIES_MAX, "BUG: {} entries", self.entries.len());
        let mut body = Writer::new();
        id.encode(&mut body);
        body.u64(Lsn::raw(self.start));
        codec::encode_entries(self.start, &self.entries, &mut body);
        let object = envelope::seal_compressed(Kind::History, VERSION, &body.finish());
        let reference = self.reference(id, &object).expect("BUG: a chunk of a history without commits");
        (reference, object)
    }

    fn reference(&self, id: MapChunkId, object: &Bytes) -> Option<HistoryChunkRef> {
        let last = self.entries.iter().rev().find_map(Entry::run)?;
        Some(HistoryChunkRef {
            id,
            bytes: u32::try_from(object.len()).ok()?,
            crc: crc32c::crc32c(object),
            entry_count: self.entries.len() as u32,
            start: self.start,
            end: last.last,
            last_micros: last.last_micros,
            last_base: self.entries.iter().rev().find_map(Entry::base).map(|(lsn, _)| lsn),
        })
    }

    /// Checks and decodes the object that `reference` names.
    pub fn open(object: &Bytes, reference: &HistoryChunkRef) -> Result<Self, Corrupt> {
        if object.len() != reference.bytes as usize || crc32c::crc32c(object) != reference.crc {
            return Err(Corrupt::new("not the chunk of the history that the head refers to"));
        }
        let body = envelope::open_as(object, Kind::History, VERSION, limits::HISTORY_CHUNK_BYTES_MAX)?;
        let mut reader = Reader::new(&body);
        let (id, start) = (MapChunkId::decode(&mut reader)?, Lsn::new(reader.u64()?));
        let entries = codec::decode_entries(&mut reader, start, limits::HISTORY_CHUNK_ENTRIES_MAX)?;
        reader.end()?;
        let chunk = Self { start, entries };
        if chunk.reference(id, object) != Some(*reference) {
            return Err(Corrupt::new(format!("holds another part of a history, as {id}")));
        }
        Ok(chunk)
    }
}

impl HistoryChunkRef {
    pub(super) const ENCODED_BYTES_MIN: usize = ID_BYTES + 8 + 4;

    pub(super) fn encode(&self, end: Option<Lsn>, out: &mut Writer) {
        assert_eq!(self.start, end, "BUG: a gap in a history");
        self.id.encode(out);
        out.u32(self.bytes);
        out.u32(self.crc);
        varint::put(out, self.entry_count.into());
        varint::put(out, self.end.get() - Lsn::raw(self.start));
        varint::put(out, self.last_micros);
        varint::put(out, self.last_base.map_or(0, |base| 1 + self.end.get() - base.get()));
    }

    pub(super) fn decode(reader: &mut Reader<'_>, start: Option<Lsn>) -> Result<Self, Corrupt> {
        let (id, bytes, crc) = (MapChunkId::decode(reader)?, reader.u32()?, reader.u32()?);
        let entry_count = varint::take_u32(reader)?;
        let end = codec::advance(start, varint::take(reader)?)?;
        let last_micros = varint::take(reader)?;
        let last_base = match varint::take(reader)?.checked_sub(1) {
            None => None,
            Some(after) => {
                let lsn = end.get().checked_sub(after).and_then(Lsn::new).filter(|lsn| Some(*lsn) >= start);
                Some(lsn.ok_or_else(|| Corrupt::new("a chunk of a history with a base before it"))?)
            }
        };
        Ok(Self { id, bytes, crc, entry_count, start, end, last_micros, last_base })
    }
}
