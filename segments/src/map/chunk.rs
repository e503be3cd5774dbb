//! A chunk of the segment map: up to [`limits::CHUNK_SEGMENTS`] consecutive segments.
//!
//! Encoded (`v` = variable-length integer):
//!
//! | bytes | what |
//! |---|---|
//! | v | number of packs, then for each: |
//! | 36, 8, 4 | pack, LSN as of which its segments are, length of its object |
//! | v | number of segments, then for each, in order from the chunk's first: |
//! | v | 0: nowhere whole; 2*p* + 1: in pack number *p*, all 32 pages; 2*p* + 2: in pack *p*, fewer |
//! | 1 | *if fewer:* how many pages are valid |
//! | v | offset − end of the previous segment of this chunk in the same pack (at first 0), signed |
//! | v | stored length of the frame |
//! | 4 | CRC-32C of the frame |
//!
//! An object that holds a chunk stands in the envelope (kind `PageMap`): its own id (36), the number of the
//! chunk in its map (4), and the chunk.

use bytes::Bytes;
use walstore::envelope::{self, Corrupt, Kind, Reader, Writer};
use walstore::id::Lsn;

use crate::id::{ID_BYTES, MapChunkId, PackId};
use crate::limits;
use crate::mask::PageMask;
use crate::pack::{FrameAt, FrameRef};
use crate::page::{SEGMENT_PAGES, SegmentNo};
use crate::varint;

const VERSION: u8 = 2;
const PACK_BYTES: usize = ID_BYTES + 8 + 4;

/// Where a segment stands whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentRef {
    pub at: FrameAt,
    /// Length of that pack's object, of which this may be the last part that is used.
    pub pack_bytes: u32,
    /// As of this commit.
    pub lsn: Lsn,
    /// How many of its first pages are valid: the frame may hold more, which a shrink cut off.
    pub pages: u8,
}

impl SegmentRef {
    pub(crate) fn valid(&self) -> PageMask {
        PageMask::first(self.pages)
    }
}

/// Refers to the object of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MapChunkRef {
    pub id: MapChunkId,
    /// Place of the chunk in its map.
    pub number: u32,
    /// Length of the object.
    pub bytes: u32,
    /// CRC-32C of the object.
    pub crc: u32,
}

/// Segments in a compact form: a table of packs, and 16 bytes for each segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    packs: Vec<PackInUse>,
    segments: Vec<Option<Entry>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PackInUse {
    id: PackId,
    lsn: Lsn,
    bytes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    pack: u16,
    pages: u8,
    frame: FrameRef,
}

impl Chunk {
    pub fn new(segments: &[Option<SegmentRef>]) -> Self {
        assert!(segments.len() <= limits::CHUNK_SEGMENTS as usize, "BUG: {} segments in a chunk", segments.len());
        let pack_of = |s: &SegmentRef| PackInUse { id: s.at.pack, lsn: s.lsn, bytes: s.pack_bytes };
        let mut packs: Vec<PackInUse> = segments.iter().flatten().map(pack_of).collect();
        packs.sort_unstable();
        packs.dedup();
        let number = |segment: &SegmentRef| packs.binary_search(&pack_of(segment));
        let entry = |segment: &SegmentRef| Entry {
            pack: number(segment).expect("BUG: gathered above") as u16,
            pages: segment.pages,
            frame: segment.at.frame,
        };
        let used = segments.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        let segments = segments[..used].iter().map(|segment| segment.as_ref().map(entry)).collect();
        Self { packs, segments }
    }

    pub fn get(&self, segment: SegmentNo) -> Option<SegmentRef> {
        let entry = self.segments.get((segment.get() % limits::CHUNK_SEGMENTS) as usize)?;
        entry.as_ref().map(|entry| self.expand(entry))
    }

    /// All segments, in order from the chunk's first.
    pub fn to_segments(&self) -> Vec<Option<SegmentRef>> {
        self.segments.iter().map(|entry| entry.as_ref().map(|entry| self.expand(entry))).collect()
    }

    fn expand(&self, entry: &Entry) -> SegmentRef {
        let PackInUse { id, lsn, bytes } = self.packs[usize::from(entry.pack)];
        SegmentRef { at: FrameAt { pack: id, frame: entry.frame }, pack_bytes: bytes, lsn, pages: entry.pages }
    }

    pub fn packs(&self) -> impl Iterator<Item = PackId> {
        self.packs.iter().map(|pack| pack.id)
    }

    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    pub fn encode(&self, out: &mut Writer) {
        varint::put_len(out, self.packs.len());
        for PackInUse { id, lsn, bytes } in &self.packs {
            id.encode(out);
            out.u64(lsn.get());
            out.u32(*bytes);
        }
        varint::put_len(out, self.segments.len());
        let mut ends = vec![0; self.packs.len()];
        for entry in &self.segments {
            match entry {
                None => out.u8(0),
                Some(entry) => entry.encode(&mut ends, out),
            }
        }
    }

    /// Reads chunk `number` of a map as of `lsn` with `page_count` pages.
    pub fn decode(reader: &mut Reader<'_>, number: u32, lsn: Lsn, page_count: u32) -> Result<Self, Corrupt> {
        let count = varint::take_count(reader, PACK_BYTES)?;
        let mut packs = Vec::with_capacity(count.min(limits::CHUNK_SEGMENTS as usize));
        for _ in 0..count {
            let (id, as_of, bytes) = (PackId::decode(reader)?, Lsn::new(reader.u64()?), reader.u32()?);
            let Some(as_of) = as_of else { return Err(Corrupt::new("segments as of LSN 0")) };
            if as_of > lsn {
                return Err(Corrupt::new(format!("segments as of LSN {as_of} in a page map as of {lsn}")));
            }
            packs.push(PackInUse { id, lsn: as_of, bytes });
        }
        let count = varint::take_count(reader, 1)?;
        if packs.len().max(count) > limits::CHUNK_SEGMENTS as usize {
            return Err(Corrupt::new(format!("{} packs and {count} segments in one chunk", packs.len())));
        }
        let mut ends = vec![0; packs.len()];
        let mut segments = Vec::with_capacity(count);
        for at in 0..count as u32 {
            let segment = number.checked_mul(limits::CHUNK_SEGMENTS).and_then(|first| SegmentNo::new(first + at));
            let entry = Entry::decode(reader, &mut ends)?;
            let pages_max = segment.map_or(0, |segment| segment.pages_within(page_count));
            if entry.is_some_and(|entry| entry.pages > pages_max) {
                return Err(Corrupt::new(format!("segment {at} of chunk {number} is outside of the database")));
            }
            let is_in_pack = |entry: Entry| entry.frame.range().end <= u64::from(packs[usize::from(entry.pack)].bytes);
            if !entry.is_none_or(is_in_pack) {
                return Err(Corrupt::new(format!("segment {at} of chunk {number} reaches past the end of its pack")));
            }
            segments.push(entry);
        }
        Ok(Self { packs, segments })
    }

    /// The chunk as an object of its own.
    pub fn seal(&self, id: MapChunkId, number: u32) -> (MapChunkRef, Bytes) {
        let mut body = Writer::new();
        id.encode(&mut body);
        body.u32(number);
        self.encode(&mut body);
        let object = envelope::seal(Kind::PageMap, VERSION, &body.finish());
        let bytes = u32::try_from(object.len()).expect("BUG: a chunk over 4 GiB");
        (MapChunkRef { id, number, bytes, crc: crc32c::crc32c(&object) }, object)
    }

    /// Checks and decodes the object that `reference` names.
    pub fn open(object: &Bytes, reference: &MapChunkRef, lsn: Lsn, page_count: u32) -> Result<Self, Corrupt> {
        if object.len() != reference.bytes as usize || crc32c::crc32c(object) != reference.crc {
            return Err(Corrupt::new("not the page map chunk that the head refers to"));
        }
        let body = envelope::open_as(object, Kind::PageMap, VERSION, limits::CHUNK_BYTES_MAX)?;
        let mut reader = Reader::new(&body);
        let (id, number) = (MapChunkId::decode(&mut reader)?, reader.u32()?);
        if (id, number) != (reference.id, reference.number) {
            return Err(Corrupt::new(format!("holds chunk {number} as {id}")));
        }
        let chunk = Self::decode(&mut reader, number, lsn, page_count)?;
        reader.end()?;
        Ok(chunk)
    }
}

impl Entry {
    fn encode(&self, ends: &mut [u64], out: &mut Writer) {
        let Entry { pack, pages, frame } = *self;
        let short = u64::from(u32::from(pages) < SEGMENT_PAGES);
        varint::put(out, 2 * u64::from(pack) + 1 + short);
        if short == 1 {
            out.u8(pages);
        }
        let end = &mut ends[usize::from(pack)];
        varint::put_signed(out, i64::from(frame.offset) - *end as i64);
        *end = frame.range().end;
        varint::put(out, frame.bytes.into());
        out.u32(frame.crc);
    }

    fn decode(reader: &mut Reader<'_>, ends: &mut [u64]) -> Result<Option<Self>, Corrupt> {
        let tag = varint::take(reader)?;
        let Some(tag) = tag.checked_sub(1) else { return Ok(None) };
        let (pack, short) = (tag / 2, tag % 2 == 1);
        let end = usize::try_from(pack).ok().and_then(|pack| ends.get_mut(pack));
        let end = end.ok_or_else(|| Corrupt::new(format!("a segment in pack number {pack}")))?;
        let pages = if short { reader.u8()? } else { SEGMENT_PAGES as u8 };
        if pages == 0 || u32::from(pages) > SEGMENT_PAGES || (short && u32::from(pages) == SEGMENT_PAGES) {
            return Err(Corrupt::new(format!("a segment of {pages} pages")));
        }
        let offset = (*end as i64).checked_add(varint::take_signed(reader)?);
        let offset = offset.and_then(|offset| u32::try_from(offset).ok());
        let offset = offset.ok_or_else(|| Corrupt::new("a segment outside of its pack"))?;
        let bytes = varint::take_u32(reader)?;
        if bytes as usize > limits::FRAME_BYTES_MAX {
            return Err(Corrupt::new(format!("a frame of {bytes} bytes")));
        }
        let frame = FrameRef { offset, bytes, crc: reader.u32()? };
        *end = frame.range().end;
        Ok(Some(Entry { pack: pack as u16, pages, frame }))
    }
}
