//! The bundle `b/<hash(inc)>/<inc>/<number>-<nonce>`: commits of many slots of a sealed log, sorted by database.
//!
//! A log is written in the order in which commits come, so recovering one database from it means to read all of
//! it. A bundle is the same commits in the order in which they are wanted. They are cut into **blocks** of about
//! [`limits::BLOCK_BYTES_TARGET`], each a self-contained list of [runs](crate::run); all runs of a database are in
//! one block of a bundle. A **sparse index** names the first database of each block. So the commits of one
//! database cost two ranged GETs per bundle: the index, then a block.
//!
//! Body, inside the [envelope](crate::envelope), never compressed as a whole. Offsets count from the first byte
//! of the object:
//!
//! | bytes | what |
//! |---|---|
//! | 16, 4, 16 | incarnation, number, nonce |
//! | 8, 8 | first slot, and the slot after the last |
//! | … | the blocks, one after the other: each a list of runs |
//! | 4 | the index: number of blocks, then for each: |
//! | 16, 4, 4, 4 | its first database; its offset, length and CRC-32C |
//!
//! A bundle exists for a reader only if the incarnation's record refers to it ([`BundleRef`]). The reference has
//! the checksum of the index, the index those of the blocks, so a part is checked without the whole.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use crate::envelope::{self, Corrupt, Kind, Reader, Writer};
use crate::fragment::Fragment;
use crate::id::{DatabaseId, IncarnationId, Lsn, Slot};
use crate::keys;
use crate::limits;
use crate::run::{self, Run};
use crate::store::Key;

const VERSION: u8 = 1;
const INDEX_ENTRY_BYTES: usize = 28;
/// Of a [`BundleRef`] in a record.
pub const REFERENCE_BYTES: usize = 4 + 16 + 8 + 8 + SECTION_BYTES;
const SECTION_BYTES: usize = 12;

/// A part of an object and its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    pub offset: u32,
    pub bytes: u32,
    pub crc: u32,
}

/// How a record refers to a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BundleRef {
    pub number: u32,
    pub nonce: [u8; 16],
    /// Slots that it takes the place of: from this one…
    pub first: Slot,
    /// … to before this one.
    pub end: Slot,
    pub index: Section,
}

/// A block, as the index of its bundle names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRef {
    pub first: DatabaseId,
    pub section: Section,
}

impl Section {
    fn of(bytes: &[u8], offset: usize) -> Self {
        let narrow = |count| u32::try_from(count).expect("BUG: a bundle of over 4 GiB");
        Self { offset: narrow(offset), bytes: narrow(bytes.len()), crc: crc32c::crc32c(bytes) }
    }

    /// What a ranged GET asks for.
    pub fn range(&self) -> Range<u64> {
        u64::from(self.offset)..u64::from(self.offset) + u64::from(self.bytes)
    }

    fn check(&self, bytes: &[u8], what: &str) -> Result<(), Corrupt> {
        if bytes.len() != self.bytes as usize || crc32c::crc32c(bytes) != self.crc {
            return Err(Corrupt::new(format!("checksum mismatch in {what} at {}", self.offset)));
        }
        Ok(())
    }

    fn encode(&self, out: &mut Writer) {
        out.u32(self.offset);
        out.u32(self.bytes);
        out.u32(self.crc);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        Ok(Self { offset: reader.u32()?, bytes: reader.u32()?, crc: reader.u32()? })
    }
}

impl BundleRef {
    pub fn key(&self, incarnation: IncarnationId) -> Key {
        keys::bundle(incarnation, self.number, self.nonce)
    }

    pub fn encode(&self, out: &mut Writer) {
        out.u32(self.number);
        out.raw(&self.nonce);
        out.u64(self.first.0);
        out.u64(self.end.0);
        self.index.encode(out);
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        Ok(Self {
            number: reader.u32()?,
            nonce: reader.array()?,
            first: Slot(reader.u64()?),
            end: Slot(reader.u64()?),
            index: Section::decode(reader)?,
        })
    }

    /// Reads the index, from the bytes that [`index`](Self::index) describes.
    pub fn decode_index(&self, bytes: &Bytes) -> Result<Vec<BlockRef>, Corrupt> {
        self.index.check(bytes, "the index")?;
        let mut reader = Reader::new(bytes);
        let count = reader.count(INDEX_ENTRY_BYTES)?;
        let mut blocks: Vec<BlockRef> = Vec::with_capacity(count);
        for _ in 0..count {
            let first = DatabaseId::from_bytes(reader.array()?);
            let section = Section::decode(&mut reader)?;
            if blocks.last().is_some_and(|before| before.first >= first) {
                return Err(Corrupt::new("blocks out of order in the index"));
            }
            blocks.push(BlockRef { first, section });
        }
        reader.end()?;
        Ok(blocks)
    }
}

impl BundleRef {
    /// Checks the whole object, and gives its blocks and every run in them.
    pub fn open(&self, object: &Bytes, incarnation: IncarnationId) -> Result<(Vec<BlockRef>, Vec<Run>), Corrupt> {
        let body = envelope::open_as(object, Kind::Bundle, VERSION, u32::MAX as usize)?;
        let mut reader = Reader::new(&body);
        let id = (IncarnationId::from_bytes(reader.array()?), reader.u32()?, reader.array()?);
        if id != (incarnation, self.number, self.nonce) {
            return Err(Corrupt::new(format!("holds bundle {} of {}", id.1, id.0)));
        }
        let slots = (Slot(reader.u64()?), Slot(reader.u64()?));
        if slots != (self.first, self.end) {
            return Err(Corrupt::new(format!("holds slots {} to {}, not {} to {}", slots.0, slots.1, self.first, self.end)));
        }
        let blocks = self.decode_index(&part(object, &self.index)?)?;
        let mut runs = Vec::new();
        for block in &blocks {
            runs.extend(block.decode(&part(object, &block.section)?)?);
        }
        Ok((blocks, runs))
    }
}

fn part(object: &Bytes, section: &Section) -> Result<Bytes, Corrupt> {
    let range = section.range();
    if range.end > object.len() as u64 {
        return Err(Corrupt::new("a section reaches past the end"));
    }
    Ok(object.slice(range.start as usize..range.end as usize))
}

impl BlockRef {
    /// Reads a block, from the bytes that its section describes.
    pub fn decode(&self, bytes: &Bytes) -> Result<Vec<Run>, Corrupt> {
        self.section.check(bytes, "the block")?;
        let runs = run::decode(bytes)?;
        if runs.first().map(|run| run.database) != Some(self.first) {
            return Err(Corrupt::new(format!("the block at {} does not begin with {}", self.section.offset, self.first)));
        }
        Ok(runs)
    }
}

/// Which block holds the runs of `database`, if any does.
pub fn block_of(blocks: &[BlockRef], database: DatabaseId) -> Option<usize> {
    blocks.partition_point(|block| block.first <= database).checked_sub(1)
}

/// Commits of consecutive slots, gathered by database.
#[derive(Default)]
pub struct Gathered {
    /// By database, epoch and first LSN.
    runs: BTreeMap<(DatabaseId, u64, Lsn), Run>,
    slots: Option<Range<Slot>>,
    bytes: usize,
}

impl Gathered {
    /// Adds the next slot. Commits of one (database, epoch) must ascend from slot to slot.
    pub fn add(&mut self, fragment: Fragment) -> Result<(), Corrupt> {
        let slot = fragment.slot;
        self.slots = Some(self.slots.take().map_or(slot, |slots| slots.start)..slot.next());
        for run in fragment.runs {
            self.bytes += run.encoded_bytes();
            let (database, epoch, first) = (run.database, run.epoch, run.first);
            let same = (database, epoch, Lsn::FIRST)..=(database, epoch, Lsn::new(u64::MAX).unwrap_or(Lsn::FIRST));
            match self.runs.range_mut(same).next_back() {
                Some((_, before)) if before.next_lsn() == Some(first) => before.commits.extend(run.commits),
                Some((_, before)) if before.next_lsn().is_none_or(|next| next > first) => {
                    return Err(Corrupt::new(format!("commit {first} of {database} is in the log twice")));
                }
                _ => {
                    self.runs.insert((database, epoch, first), run);
                }
            }
        }
        Ok(())
    }

    /// Bytes of what was gathered so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_none()
    }

    /// The object, and what refers to it.
    ///
    /// # Panics
    /// If nothing was gathered.
    pub fn encode(self, incarnation: IncarnationId, number: u32, nonce: [u8; 16]) -> (Bytes, BundleRef) {
        let slots = self.slots.expect("BUG: a bundle of no slots");
        let mut body = Writer::new();
        body.raw(incarnation.as_bytes());
        body.u32(number);
        body.raw(&nonce);
        body.u64(slots.start.0);
        body.u64(slots.end.0);
        let mut blocks: Vec<BlockRef> = Vec::new();
        for runs in into_blocks(self.runs.into_values()) {
            let mut block = Writer::new();
            run::encode(&runs, &mut block);
            let block = block.finish();
            let section = Section::of(&block, envelope::HEADER_BYTES + body.len());
            blocks.push(BlockRef { first: runs[0].database, section });
            body.raw(&block);
        }
        let mut index = Writer::new();
        index.count(blocks.len());
        for block in &blocks {
            index.raw(block.first.as_bytes());
            block.section.encode(&mut index);
        }
        let bytes = index.finish();
        let index = Section::of(&bytes, envelope::HEADER_BYTES + body.len());
        body.raw(&bytes);
        let object = envelope::seal(Kind::Bundle, VERSION, &body.finish());
        (object, BundleRef { number, nonce, first: slots.start, end: slots.end, index })
    }
}

/// Cuts sorted runs into blocks, never inside of a database.
fn into_blocks(runs: impl Iterator<Item = Run>) -> Vec<Vec<Run>> {
    let mut blocks: Vec<Vec<Run>> = Vec::new();
    let mut bytes = 0;
    for run in runs {
        let is_same = blocks.last().and_then(|block| block.last()).is_some_and(|last| last.database == run.database);
        if blocks.is_empty() || (bytes >= limits::BLOCK_BYTES_TARGET && !is_same) {
            blocks.push(Vec::new());
            bytes = 0;
        }
        bytes += run.encoded_bytes();
        blocks.last_mut().expect("BUG: a block was just begun").push(run);
    }
    blocks
}

#[cfg(test)]
mod tests;
