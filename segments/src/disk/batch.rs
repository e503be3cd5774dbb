//! A batch: entries that are written together. It begins and ends at a multiple of [`PAGE`] in its region.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | magic `SHcb` |
//! | 4 | version, 1 |
//! | 4 | length of a region, so that a file of another division is not read |
//! | 4 | number of the region |
//! | 8 | sequence number of this filling of the region: higher is newer, in the whole file |
//! | 4 | offset of the batch in its region |
//! | 4 | length of the batch |
//! | 4 | number of entries |
//! | 4 | CRC-32C of the directory |
//! | 4 | CRC-32C of the bytes before |
//! | … | [slots](super::slot), from byte 48 on |
//! | … | the directory, at the end: for each entry the hash of its key (8) and the offset of its slot in the region (4) |

use std::sync::Arc;

use bytes::Bytes;
use walstore::envelope::{Reader, Writer};

use super::key::CacheKey;
use super::slot;

/// What writes are aligned to.
pub(super) const PAGE: usize = 4096;
pub(super) const HEADER_BYTES: usize = 48;
const DIRECTORY_ENTRY_BYTES: usize = 12;
const MAGIC: [u8; 4] = *b"SHcb";
const VERSION: u32 = 1;

/// Where a batch stands, and which filling of its region it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchAt {
    pub region_bytes: u32,
    pub region: u32,
    pub seq: u64,
    pub offset: u32,
}

/// What a directory says of one entry. Only a hint: the slot has the last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DirectoryEntry {
    pub hash: u64,
    pub offset: u32,
}

/// A batch that is being filled.
pub(super) struct OpenBatch {
    pub at: BatchAt,
    buffer: Vec<u8>,
    directory: Vec<DirectoryEntry>,
}

/// A batch as it is written.
#[derive(Clone)]
pub(super) struct Batch {
    pub at: BatchAt,
    pub bytes: Bytes,
    pub directory: Arc<[DirectoryEntry]>,
}

/// Length of a batch with slots of so many bytes, aligned, and so many entries.
fn whole_bytes(slots_end: usize, entries: usize) -> usize {
    (slots_end + entries * DIRECTORY_ENTRY_BYTES).next_multiple_of(PAGE)
}

/// Length of a batch that holds nothing but this entry.
pub(super) fn bytes_alone(key: &CacheKey) -> usize {
    whole_bytes(HEADER_BYTES + slot::slot_bytes(key).next_multiple_of(slot::ALIGNMENT), 1)
}

impl OpenBatch {
    /// A batch that will have about so many bytes.
    pub fn new(at: BatchAt, bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(bytes);
        buffer.resize(HEADER_BYTES, 0);
        Self { at, buffer, directory: Vec::new() }
    }

    /// Length as it would be written with one entry more.
    pub fn bytes_with(&self, key: &CacheKey) -> usize {
        let slots_end = self.buffer.len() + slot::slot_bytes(key).next_multiple_of(slot::ALIGNMENT);
        whole_bytes(slots_end, self.directory.len() + 1)
    }

    /// Appends an entry and answers where its slot is in the region.
    pub fn append(&mut self, hash: u64, key: &CacheKey, stored: &[u8]) -> u32 {
        let offset = self.at.offset + self.buffer.len() as u32;
        slot::append(&mut self.buffer, key, stored);
        self.directory.push(DirectoryEntry { hash, offset });
        offset
    }

    /// A copy of part of it, by the offset in the region.
    pub fn read(&self, offset: u32, bytes: usize) -> Option<Bytes> {
        let start = offset.checked_sub(self.at.offset)? as usize;
        self.buffer.get(start..start.checked_add(bytes)?).map(Bytes::copy_from_slice)
    }

    pub fn memory_bytes(&self) -> usize {
        self.buffer.capacity() + self.directory.capacity() * size_of::<DirectoryEntry>()
    }

    /// The batch as it is written.
    pub fn seal(mut self) -> Batch {
        let whole = whole_bytes(self.buffer.len(), self.directory.len());
        let directory = encode_directory(&self.directory);
        self.buffer.resize(whole - directory.len(), 0);
        self.buffer.extend_from_slice(&directory);
        let header = Header {
            at: self.at,
            bytes: whole as u32,
            entries: self.directory.len() as u32,
            directory_crc: crc32c::crc32c(&directory),
        };
        self.buffer[..HEADER_BYTES].copy_from_slice(&header.encode());
        Batch { at: self.at, bytes: self.buffer.into(), directory: self.directory.into() }
    }
}

impl Batch {
    /// Part of it, by the offset in the region.
    pub fn read(&self, offset: u32, bytes: usize) -> Option<Bytes> {
        let start = offset.checked_sub(self.at.offset)? as usize;
        let end = start.checked_add(bytes)?;
        (end <= self.bytes.len()).then(|| self.bytes.slice(start..end))
    }

    pub fn end(&self) -> u32 {
        self.at.offset + self.bytes.len() as u32
    }
}

/// The first bytes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub at: BatchAt,
    pub bytes: u32,
    pub entries: u32,
    directory_crc: u32,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = Writer::new();
        out.raw(&MAGIC);
        out.u32(VERSION);
        out.u32(self.at.region_bytes);
        out.u32(self.at.region);
        out.u64(self.at.seq);
        out.u32(self.at.offset);
        out.u32(self.bytes);
        out.u32(self.entries);
        out.u32(self.directory_crc);
        let fields = out.finish();
        let mut header = [0; HEADER_BYTES];
        header[..fields.len()].copy_from_slice(&fields);
        header[fields.len()..fields.len() + 4].copy_from_slice(&crc32c::crc32c(&fields).to_le_bytes());
        header
    }

    /// The header at this place, if it is one, and lies inside of its region. Any filling of the region will do.
    pub fn decode(bytes: &[u8], region_bytes: u32, region: u32, offset: u32) -> Option<Self> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let mut reader = Reader::new(bytes);
        if reader.array().ok()? != MAGIC || reader.u32().ok()? != VERSION {
            return None;
        }
        let found_bytes = reader.u32().ok()?;
        let found = (found_bytes, reader.u32().ok()?);
        let seq = reader.u64().ok()?;
        let found_offset = reader.u32().ok()?;
        let header = Self {
            at: BatchAt { region_bytes, region, seq, offset },
            bytes: reader.u32().ok()?,
            entries: reader.u32().ok()?,
            directory_crc: reader.u32().ok()?,
        };
        let is_here = found == (region_bytes, region) && found_offset == offset;
        (is_here && header.encode() == bytes && header.is_possible()).then_some(header)
    }

    fn is_possible(&self) -> bool {
        let room = self.at.region_bytes - self.at.offset.min(self.at.region_bytes);
        let bytes = self.bytes as usize;
        // So many fillings take longer than any disk lasts; counting on must not overflow.
        let is_counted = self.at.seq < u64::MAX / 2;
        let fits = is_counted && self.bytes <= room && bytes.is_multiple_of(PAGE) && bytes >= HEADER_BYTES;
        fits && (self.entries as usize).saturating_mul(DIRECTORY_ENTRY_BYTES) <= bytes - HEADER_BYTES
    }

    /// Where the directory begins in the region; it ends with the batch.
    pub fn directory_offset(&self) -> u32 {
        self.at.offset + self.bytes - self.entries * DIRECTORY_ENTRY_BYTES as u32
    }

    /// The directory, if it is whole and every place in it possible.
    pub fn decode_directory(&self, bytes: &[u8]) -> Option<Vec<DirectoryEntry>> {
        if bytes.len() != self.entries as usize * DIRECTORY_ENTRY_BYTES || crc32c::crc32c(bytes) != self.directory_crc {
            return None;
        }
        let entries = bytes.chunks_exact(DIRECTORY_ENTRY_BYTES).map(|entry| {
            let (hash, offset) = entry.split_at(8);
            DirectoryEntry {
                hash: u64::from_le_bytes(hash.try_into().expect("BUG: split at 8")),
                offset: u32::from_le_bytes(offset.try_into().expect("BUG: 12 - 8")),
            }
        });
        let entries: Vec<_> = entries.collect();
        let inside = self.at.offset..self.at.offset + self.bytes;
        let is_possible = |entry: &DirectoryEntry| {
            inside.contains(&entry.offset) && (entry.offset as usize).is_multiple_of(slot::ALIGNMENT)
        };
        entries.iter().all(is_possible).then_some(entries)
    }
}

fn encode_directory(directory: &[DirectoryEntry]) -> Vec<u8> {
    let mut out = Writer::new();
    for entry in directory {
        out.u64(entry.hash);
        out.u32(entry.offset);
    }
    out.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::PackId;
    use crate::keys::Object;
    use walstore::id::DatabaseId;

    const AT: BatchAt = BatchAt { region_bytes: 1 << 20, region: 3, seq: 9, offset: 8192 };

    fn entry(number: u32, bytes: usize) -> (CacheKey, Vec<u8>) {
        let stored = vec![number as u8; bytes];
        let owner = DatabaseId::from_bytes([7; 16]);
        let object = Object::Pack(PackId { owner, epoch: 1, seq: number, nonce: 2 });
        (CacheKey { object, offset: 16, bytes: bytes as u32, crc: crc32c::crc32c(&stored) }, stored)
    }

    #[test]
    fn a_batch_is_read_back_by_its_header_and_its_directory() {
        let mut open = OpenBatch::new(AT, 4096);
        let entries: Vec<_> = [0, 1, 15, 16, 4_000, 100_000].into_iter().zip(0..).map(|(n, at)| entry(at, n)).collect();
        let mut expected = Vec::new();
        for (key, stored) in &entries {
            let whole = open.bytes_with(key);
            let offset = open.append(key.hash(), key, stored);
            expected.push(DirectoryEntry { hash: key.hash(), offset });
            let slot = open.read(offset, slot::slot_bytes(key)).expect("inside");
            assert_eq!(slot::open(&slot, key).expect("whole"), stored);
            assert!(whole >= (offset - AT.offset) as usize + slot::slot_bytes(key));
        }
        let batch = open.seal();
        assert_eq!(*batch.directory, *expected);
        assert!(batch.bytes.len().is_multiple_of(PAGE));
        let header = Header::decode(&batch.bytes, AT.region_bytes, AT.region, AT.offset).expect("a header");
        assert_eq!((header.at, header.at.offset + header.bytes), (AT, batch.end()));
        let directory = &batch.bytes[(header.directory_offset() - AT.offset) as usize..];
        assert_eq!(header.decode_directory(directory), Some(expected.clone()));
        for ((key, stored), place) in entries.iter().zip(expected) {
            let slot = batch.read(place.offset, slot::slot_bytes(key)).expect("inside");
            assert_eq!(slot::open(&slot, key).expect("whole"), stored);
        }
        for (region_bytes, region, offset) in [(1 << 19, 3, 8192), (1 << 20, 2, 8192), (1 << 20, 3, 4096)] {
            assert_eq!(Header::decode(&batch.bytes, region_bytes, region, offset), None);
        }
    }

    #[test]
    fn a_flipped_bit_of_a_header_a_directory_or_a_slot_is_seen() {
        let (key, stored) = entry(1, 100);
        let mut open = OpenBatch::new(AT, 4096);
        let place = open.append(key.hash(), &key, &stored);
        let batch = open.seal();
        let whole = Header::decode(&batch.bytes, AT.region_bytes, AT.region, AT.offset).expect("a header");
        let (from, directory) = ((place - AT.offset) as usize, (whole.directory_offset() - AT.offset) as usize);
        for bit in 0..batch.bytes.len() * 8 {
            let mut bytes = batch.bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let header = Header::decode(&bytes, AT.region_bytes, AT.region, AT.offset);
            let slot = Bytes::copy_from_slice(&bytes[from..from + slot::slot_bytes(&key)]);
            let is_seen = header != Some(whole)
                || whole.decode_directory(&bytes[directory..]).is_none()
                || slot::open(&slot, &key).is_none();
            let is_padding = bit / 8 >= from + slot::slot_bytes(&key) && bit / 8 < directory;
            assert!(is_seen || is_padding, "bit {bit}");
        }
    }

    proptest! {
        /// Even a header with a right checksum leads nowhere outside of its region.
        #[test]
        fn no_header_leads_astray(
            seq in any::<u64>(), offset in any::<u32>(), bytes in any::<u32>(), entries in any::<u32>(),
            small in any::<bool>(), directory in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let (bytes, offset) = if small { (bytes % (1 << 21), offset % (1 << 21)) } else { (bytes, offset) };
            let at = BatchAt { seq, offset, ..AT };
            let header = Header { at, bytes, entries, directory_crc: crc32c::crc32c(&directory) };
            if let Some(found) = Header::decode(&header.encode(), AT.region_bytes, AT.region, offset) {
                prop_assert!(found.directory_offset() >= offset && offset + bytes <= AT.region_bytes);
                prop_assert!(seq.checked_add(1 << 40).is_some());
                let inside = |entry: &DirectoryEntry| entry.offset >= offset && entry.offset < offset + bytes;
                prop_assert!(found.decode_directory(&directory).unwrap_or_default().iter().all(inside));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Header::decode(&bytes, AT.region_bytes, AT.region, AT.offset), None);
            prop_assert_eq!(slot::read_key(&bytes), None);
            let _ = CacheKey::decode(&bytes);
        }
    }
}
