//! Page map ↔ bytes.
//!
//! The **root** is a part of the head, whose checksum covers it (`v` = variable-length integer):
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version, 2 |
//! | 8 | LSN as of which the map is, 0 before the first fold |
//! | 4 | size of the database as of it, in pages |
//! | v | number of deltas, then each, newest first (module `delta`) |
//! | | then, for each 1024 segments of the database, in order: |
//! | 1 | 0: none of them stands anywhere whole; 1: here; 2: in an object of its own |
//! | … | *here:* the chunk (module `chunk`) |
//! | 36, 4, 4 | *own object:* its id, length and CRC-32C |

use std::sync::Arc;

use bytes::Bytes;
use walstore::envelope::{Corrupt, Reader, Writer};
use walstore::id::Lsn;

use super::chunk::{Chunk, MapChunkRef};
use super::delta::{self, Delta};
use super::{ChunkSlot, PageMap, chunk_count};
use crate::id::MapChunkId;
use crate::limits;
use crate::varint;

const VERSION: u8 = 2;
const NOWHERE: u8 = 0;
const HERE: u8 = 1;
const OBJECT: u8 = 2;

/// A page map, ready to be linked.
#[derive(Clone, Debug)]
pub struct StoredMap {
    /// For the head.
    pub root: Bytes,
    /// New objects, which must be in the bucket before the head refers to them: [`crate::keys::page_map`].
    pub objects: Vec<(MapChunkId, Bytes)>,
    /// The same map, which now knows its objects. Go on with this one.
    pub map: PageMap,
}

impl PageMap {
    /// Encodes the map. If it is too large for the head, each chunk that changed becomes an object, with a fresh
    /// id from `next_id`.
    pub fn store(&self, next_id: &mut dyn FnMut() -> MapChunkId) -> StoredMap {
        self.store_within(limits::MAP_INLINE_BYTES_MAX, next_id)
    }

    /// The same with another bound on what stands in the head, which no reader looks at: below the usual one a small map
    /// is stored as a large one would be.
    pub fn store_within(&self, inline_bytes_max: usize, next_id: &mut dyn FnMut() -> MapChunkId) -> StoredMap {
        if let Some(root) = self.encode_inline(inline_bytes_max) {
            return StoredMap { root, objects: Vec::new(), map: self.without_objects() };
        }
        let mut objects = Vec::new();
        let chunks = self.chunks.iter().zip(0..).map(|(slot, number)| match slot {
            ChunkSlot::Resident { chunk, stored: None } if !chunk.is_empty() => {
                let (reference, object) = chunk.seal(next_id(), number);
                objects.push((reference.id, object));
                ChunkSlot::Resident { chunk: chunk.clone(), stored: Some(reference) }
            }
            slot => slot.clone(),
        });
        let map = Self { chunks: chunks.collect(), ..self.clone() };
        let mut root = map.encode_start();
        for slot in map.chunks.iter() {
            match slot {
                ChunkSlot::Stored(reference) | ChunkSlot::Resident { stored: Some(reference), .. } => {
                    root.u8(OBJECT);
                    reference.id.encode(&mut root);
                    root.u32(reference.bytes);
                    root.u32(reference.crc);
                }
                ChunkSlot::Resident { stored: None, .. } => root.u8(NOWHERE),
            }
        }
        StoredMap { root: root.finish().into(), objects, map }
    }

    fn without_objects(&self) -> Self {
        let chunks = self.chunks.iter().map(|slot| match slot {
            ChunkSlot::Resident { chunk, .. } => ChunkSlot::Resident { chunk: chunk.clone(), stored: None },
            slot => slot.clone(),
        });
        Self { chunks: chunks.collect(), ..self.clone() }
    }

    /// The root with all chunks in it, if that is small enough and all are in memory.
    fn encode_inline(&self, bytes_max: usize) -> Option<Bytes> {
        let mut root = self.encode_start();
        for slot in self.chunks.iter() {
            match slot {
                ChunkSlot::Resident { chunk, .. } if chunk.is_empty() => root.u8(NOWHERE),
                ChunkSlot::Resident { chunk, .. } => {
                    root.u8(HERE);
                    chunk.encode(&mut root);
                }
                ChunkSlot::Stored(_) => return None,
            }
            if root.len() > bytes_max {
                return None;
            }
        }
        Some(root.finish().into())
    }

    fn encode_start(&self) -> Writer {
        let mut root = Writer::new();
        root.u8(VERSION);
        root.u64(Lsn::raw(self.lsn));
        root.u32(self.page_count);
        varint::put_len(&mut root, self.deltas.len());
        self.deltas.iter().for_each(|delta| delta.encode(&mut root));
        root
    }

    /// Reads a root.
    pub fn decode(root: &[u8]) -> Result<Self, Corrupt> {
        let mut reader = Reader::new(root);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(Corrupt::new(format!("page map version {version}; this build reads {VERSION}")));
        }
        let (lsn, page_count) = (Lsn::new(reader.u64()?), reader.u32()?);
        let deltas = decode_deltas(&mut reader, lsn, page_count)?;
        let count = chunk_count(page_count);
        if count > reader.remaining() {
            return Err(Corrupt::new(format!("a page map without segments for {page_count} pages")));
        }
        let chunks = (0..count as u32).map(|number| decode_slot(&mut reader, number, lsn, page_count));
        let chunks = chunks.collect::<Result<_, _>>()?;
        reader.end()?;
        Ok(Self { lsn, page_count, deltas, chunks })
    }
}

fn decode_deltas(reader: &mut Reader<'_>, lsn: Option<Lsn>, page_count: u32) -> Result<Arc<[Delta]>, Corrupt> {
    let count = varint::take_count(reader, delta::ENCODED_BYTES_MIN)?;
    if count > limits::DELTAS_MAX {
        return Err(Corrupt::new(format!("a page map with {count} deltas")));
    }
    let deltas = (0..count).map(|_| Delta::decode(reader)).collect::<Result<Vec<_>, _>>()?;
    let as_of = |delta: &Delta| delta.reference.lsn;
    let ordered = deltas.is_sorted_by(|newer, older| as_of(newer) >= as_of(older));
    let fits = |delta: &Delta| Some(as_of(delta)) <= lsn && delta.reference.valid_upto <= page_count;
    if !ordered || !deltas.iter().all(fits) {
        return Err(Corrupt::new("a page map with deltas that it cannot have"));
    }
    Ok(deltas.into())
}

fn decode_slot(reader: &mut Reader<'_>, number: u32, lsn: Option<Lsn>, page_count: u32) -> Result<ChunkSlot, Corrupt> {
    let kind = reader.u8()?;
    if kind == NOWHERE {
        return Ok(ChunkSlot::Resident { chunk: Arc::default(), stored: None });
    }
    let lsn = lsn.ok_or_else(|| Corrupt::new("a page map with segments and no LSN"))?;
    match kind {
        HERE => {
            let chunk = Arc::new(Chunk::decode(reader, number, lsn, page_count)?);
            Ok(ChunkSlot::Resident { chunk, stored: None })
        }
        OBJECT => {
            let (id, bytes, crc) = (MapChunkId::decode(reader)?, reader.u32()?, reader.u32()?);
            Ok(ChunkSlot::Stored(MapChunkRef { id, number, bytes, crc }))
        }
        kind => Err(Corrupt::new(format!("unknown kind of page map chunk {kind}"))),
    }
}
