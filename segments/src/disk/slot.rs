//! One entry in a region.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | magic `SHcs` |
//! | 49 | the [key](super::key) |
//! | 4 | CRC-32C of the bytes before |
//! | … | the stored bytes; their checksum and length stand in the key |
//!
//! A slot begins at a multiple of [`ALIGNMENT`] in its region.

use bytes::Bytes;
use walstore::mutant::{self, Mutant};

use super::key::{CacheKey, KEY_BYTES};

const MAGIC: [u8; 4] = *b"SHcs";
const CRC_AT: usize = MAGIC.len() + KEY_BYTES;
pub(super) const HEADER_BYTES: usize = CRC_AT + 4;
/// What a place in the index counts in.
pub(super) const ALIGNMENT: usize = 16;

/// Length of the slot of `key`, without what aligns the next one.
pub(super) fn slot_bytes(key: &CacheKey) -> usize {
    HEADER_BYTES + key.bytes as usize
}

/// Appends a slot and aligns what follows. The bytes fit the key.
pub(super) fn append(out: &mut Vec<u8>, key: &CacheKey, stored: &[u8]) {
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&key.encode());
    let crc = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(stored);
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
}

/// The stored bytes, if this slot holds what `key` asks for, whole.
pub(super) fn open(slot: &Bytes, key: &CacheKey) -> Option<Bytes> {
    if mutant::is_on(Mutant::SkipSlotCheck) {
        return (slot.len() == slot_bytes(key)).then(|| slot.slice(HEADER_BYTES..));
    }
    let holds_it = slot.len() >= HEADER_BYTES && read_key(slot) == Some(*key);
    let stored = holds_it.then(|| slot.slice(HEADER_BYTES..))?;
    key.fits(&stored).then_some(stored)
}

/// The key at the start of a slot, if the header is whole.
pub(super) fn read_key(slot: &[u8]) -> Option<CacheKey> {
    let header = slot.get(..HEADER_BYTES)?;
    let (fields, crc) = header.split_at(CRC_AT);
    let is_whole = fields[..MAGIC.len()] == MAGIC && crc32c::crc32c(fields).to_le_bytes() == crc;
    is_whole.then(|| CacheKey::decode(&fields[MAGIC.len()..]).ok())?
}
