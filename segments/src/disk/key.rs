//! What an entry of the disk cache is.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | kind of the object: 1 pack, 2 page map chunk |
//! | 36 | its id |
//! | 4 | offset in it |
//! | 4 | length |
//! | 4 | CRC-32C of the bytes as they are in the bucket |

use walstore::envelope::{Corrupt, Reader, Writer};

use crate::id::{ID_BYTES, MapChunkId, PackId};
use crate::keys::Object;
use crate::map::{DeltaRef, MapChunkRef};
use crate::pack::FrameAt;

pub(super) const KEY_BYTES: usize = 1 + ID_BYTES + 12;

const PACK: u8 = 1;
const MAP_CHUNK: u8 = 2;

/// A stretch of an immutable object, with the checksum that its bytes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheKey {
    pub object: Object,
    pub offset: u32,
    /// Length of the stored bytes.
    pub bytes: u32,
    /// CRC-32C of the stored bytes.
    pub crc: u32,
}

impl CacheKey {
    pub fn frame(at: &FrameAt) -> Self {
        let frame = at.frame;
        Self { object: Object::Pack(at.pack), offset: frame.offset, bytes: frame.bytes, crc: frame.crc }
    }

    /// The frame index of a delta.
    pub fn index(delta: &DeltaRef) -> Self {
        let index = delta.index;
        Self { object: Object::Pack(delta.pack), offset: index.offset, bytes: index.bytes, crc: index.crc }
    }

    /// A whole chunk of a page map.
    pub fn chunk(chunk: &MapChunkRef) -> Self {
        Self { object: Object::MapChunk(chunk.id), offset: 0, bytes: chunk.bytes, crc: chunk.crc }
    }

    /// The same, of a chunk that is about to be stored.
    pub fn chunk_object(id: &MapChunkId, object: &[u8]) -> Self {
        let bytes = u32::try_from(object.len()).expect("BUG: a chunk over 4 GiB");
        Self { object: Object::MapChunk(*id), offset: 0, bytes, crc: crc32c::crc32c(object) }
    }

    /// Whether these are the bytes that the key speaks of.
    pub fn fits(&self, stored: &[u8]) -> bool {
        stored.len() == self.bytes as usize && crc32c::crc32c(stored) == self.crc
    }

    pub(super) fn encode(&self) -> [u8; KEY_BYTES] {
        let mut out = Writer::new();
        match &self.object {
            Object::Pack(id) => {
                out.u8(PACK);
                id.encode(&mut out);
            }
            Object::MapChunk(id) => {
                out.u8(MAP_CHUNK);
                id.encode(&mut out);
            }
        }
        out.u32(self.offset);
        out.u32(self.bytes);
        out.u32(self.crc);
        out.finish().try_into().expect("BUG: a key of another length")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut reader = Reader::new(bytes);
        let object = match reader.u8()? {
            PACK => Object::Pack(PackId::decode(&mut reader)?),
            MAP_CHUNK => Object::MapChunk(MapChunkId::decode(&mut reader)?),
            kind => return Err(Corrupt::new(format!("unknown kind {kind} of an object in the cache"))),
        };
        let key = Self { object, offset: reader.u32()?, bytes: reader.u32()?, crc: reader.u32()? };
        reader.end()?;
        Ok(key)
    }

    /// Where the index files it. Two keys with one hash take each other's place.
    pub(super) fn hash(&self) -> u64 {
        let hash = blake3::hash(&self.encode());
        u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("BUG: 8 bytes of 32"))
    }
}
