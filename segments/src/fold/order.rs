//! A **pack order**: all that another process needs to make the pack of a fold that was planned here. It knows neither
//! page map nor head: what is to be merged is named by frame, and packs never change.
//!
//! With `v` for a variable-length integer:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version, 1 |
//! | 36 | the pack's id, nonce included |
//! | 8, 4 | the commit as of which it is, and the database's size then, in pages |
//! | v | number of frames to read, then for each: pack (36), offset (4), stored length (4), CRC-32C (4) |
//! | v | number of segments to write whole, then for each, in ascending order: |
//! | v | segment number − previous − 1 (the first: its number); then an origin for each page that there is of it |
//! | v | number of single pages, then for each, in ascending order: |
//! | v | page number − previous − 1 (the first: its number − 1); then its origin |
//! | v | number of commits to keep, then for each its length (v) and its bytes |
//! | 4096 each | the pages that come with the order, as origins name them, one after the other |
//!
//! An **origin** is a variable-length integer: 0 a page that comes with the order, 1 the lock page, *n* + 2 frame
//! number *n*, after which the page's place in it follows (1).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use walstore::envelope::{Corrupt, Reader, Writer};
use walstore::id::Lsn;

use super::build::{Layout, write_pack};
use super::plan::Origin;
use super::{FoldError, FoldInput, FoldPlan};
use crate::id::{ID_BYTES, PackId};
use crate::limits;
use crate::map::Source;
use crate::pack::{Frame, FrameAt, FrameRef, Pack};
use crate::page::{PAGE_BYTES, Page, PageNo, SegmentNo};
use crate::varint;

const VERSION: u8 = 1;
const FRAME_BYTES: usize = ID_BYTES + 12;
const TAIL: u64 = 0;
const LOCK_PAGE: u64 = 1;
const FRAMES_FROM: u64 = 2;

/// See the module documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackOrder {
    pub id: PackId,
    lsn: Lsn,
    page_count: u32,
    segments: BTreeMap<SegmentNo, Vec<(PageNo, Origin)>>,
    delta: BTreeMap<PageNo, Origin>,
    pages: BTreeMap<PageNo, Page>,
    commits: Vec<Bytes>,
}

impl FoldPlan {
    /// The order for the pack of this plan, which was made for `input`. `None` if there is no pack to make, or one that
    /// is larger than an order may be.
    pub fn order(&self, input: &FoldInput, id: PackId) -> Option<PackOrder> {
        let page_count = self.pages().count();
        let bytes = input.pages.len() * PAGE_BYTES + input.commits.iter().map(Bytes::len).sum::<usize>();
        let is_empty = page_count == 0 && input.commits.is_empty();
        if is_empty || page_count > limits::ORDER_PAGES_MAX || bytes > limits::ORDER_TAIL_BYTES_MAX {
            return None;
        }
        Some(PackOrder {
            id,
            lsn: self.lsn,
            page_count: self.page_count,
            segments: self.segments.clone(),
            delta: self.delta.clone(),
            pages: input.pages.clone(),
            commits: input.commits.clone(),
        })
    }
}

impl PackOrder {
    /// The frames that [`build`](Self::build) wants, in order of pack and offset.
    pub fn reads(&self) -> BTreeSet<FrameAt> {
        let stored = self.origins().filter_map(|(_, origin)| match origin {
            Origin::Stored(source) => Some(source.at),
            Origin::Tail | Origin::LockPage => None,
        });
        stored.collect()
    }

    /// How many pages the pack will have.
    pub fn pages_in_pack(&self) -> usize {
        self.origins().count()
    }

    /// Makes the pack.
    pub fn build(&self, frames: &BTreeMap<FrameAt, Frame>) -> Result<Pack, FoldError> {
        let Self { id, lsn, page_count, segments, delta, pages, commits } = self;
        let layout = Layout { lsn: *lsn, page_count: *page_count, segments, delta };
        let pack = write_pack(&layout, pages, commits, frames, *id)?;
        Ok(pack.expect("BUG: an order of nothing"))
    }

    /// In the order in which they are encoded.
    fn origins(&self) -> impl Iterator<Item = (PageNo, Origin)> {
        let whole = self.segments.values().flatten().copied();
        whole.chain(self.delta.iter().map(|(page, origin)| (*page, *origin)))
    }

    pub fn encode(&self) -> Bytes {
        let frames: Vec<FrameAt> = self.reads().into_iter().collect();
        let origin = |out: &mut Writer, origin: &Origin| match origin {
            Origin::Tail => varint::put(out, TAIL),
            Origin::LockPage => varint::put(out, LOCK_PAGE),
            Origin::Stored(source) => {
                let number = frames.binary_search(&source.at).expect("BUG: gathered above");
                varint::put(out, FRAMES_FROM + number as u64);
                out.u8(source.place);
            }
        };
        let mut out = Writer::new();
        out.u8(VERSION);
        self.id.encode(&mut out);
        out.u64(self.lsn.get());
        out.u32(self.page_count);
        varint::put_len(&mut out, frames.len());
        for FrameAt { pack, frame } in &frames {
            pack.encode(&mut out);
            out.u32(frame.offset);
            out.u32(frame.bytes);
            out.u32(frame.crc);
        }
        varint::put_len(&mut out, self.segments.len());
        let mut next = 0;
        for (segment, origins) in &self.segments {
            varint::put(&mut out, u64::from(segment.get() - next));
            next = segment.get() + 1;
            origins.iter().for_each(|(_, it)| origin(&mut out, it));
        }
        varint::put_len(&mut out, self.delta.len());
        let mut next = 1;
        for (page, it) in &self.delta {
            varint::put(&mut out, u64::from(page.get() - next));
            next = page.get() + 1;
            origin(&mut out, it);
        }
        varint::put_len(&mut out, self.commits.len());
        for commit in &self.commits {
            varint::put_len(&mut out, commit.len());
            out.raw(commit);
        }
        for (page, _) in self.origins().filter(|(_, origin)| *origin == Origin::Tail) {
            out.raw(self.pages[&page].as_ref());
        }
        out.finish().into()
    }

    /// Checks and decodes what another process has sent.
    pub fn decode(encoded: &Bytes) -> Result<Self, Corrupt> {
        let mut reader = Reader::new(encoded);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(Corrupt::new(format!("pack order version {version}; this build reads {VERSION}")));
        }
        let id = PackId::decode(&mut reader)?;
        let lsn = Lsn::new(reader.u64()?).ok_or_else(|| Corrupt::new("a pack as of LSN 0"))?;
        let page_count = reader.u32()?;
        let frames = decode_frames(&mut reader)?;
        let mut order = Self {
            id,
            lsn,
            page_count,
            segments: BTreeMap::new(),
            delta: BTreeMap::new(),
            pages: BTreeMap::new(),
            commits: Vec::new(),
        };
        order.decode_segments(&mut reader, &frames)?;
        let whole = order.pages_in_pack();
        order.decode_delta(&mut reader, &frames, limits::ORDER_PAGES_MAX - whole)?;
        for _ in 0..varint::take_count(&mut reader, 1)? {
            let length = varint::take_count(&mut reader, 1)?;
            order.commits.push(encoded.slice_ref(reader.raw(length)?));
        }
        if order.commits.len() as u64 > lsn.get() {
            return Err(Corrupt::new("more commits than LSNs"));
        }
        let sent: Vec<PageNo> =
            order.origins().filter(|(_, origin)| *origin == Origin::Tail).map(|(page, _)| page).collect();
        for page in sent {
            let content = Page::new(encoded.slice_ref(reader.raw(PAGE_BYTES)?)).expect("BUG: the length of a page");
            order.pages.insert(page, content);
        }
        reader.end()?;
        if order.pages_in_pack() == 0 && order.commits.is_empty() {
            return Err(Corrupt::new("an order of nothing"));
        }
        Ok(order)
    }

    fn decode_segments(&mut self, reader: &mut Reader<'_>, frames: &[FrameAt]) -> Result<(), Corrupt> {
        let (mut next, mut room) = (0, limits::ORDER_PAGES_MAX);
        for _ in 0..varint::take_count(reader, 2)? {
            let number = varint::take_u32(reader)?.checked_add(next).and_then(SegmentNo::new);
            let segment = number.ok_or_else(|| Corrupt::new("a segment beyond all pages"))?;
            next = segment.get() + 1;
            let pages = segment.pages_within(self.page_count);
            if pages == 0 {
                return Err(Corrupt::new(format!("segment {segment} of a database of {} pages", self.page_count)));
            }
            room = room.checked_sub(usize::from(pages)).ok_or_else(too_many)?;
            let mut origins = Vec::new();
            for page in (0..pages).filter_map(|position| segment.page(position)) {
                origins.push((page, decode_origin(reader, frames, page)?));
            }
            self.segments.insert(segment, origins);
        }
        Ok(())
    }

    fn decode_delta(&mut self, reader: &mut Reader<'_>, frames: &[FrameAt], room: usize) -> Result<(), Corrupt> {
        let (mut next, count) = (1, varint::take_count(reader, 2)?);
        if count > room {
            return Err(too_many());
        }
        for _ in 0..count {
            let number = varint::take_u32(reader)?.checked_add(next).filter(|number| *number <= self.page_count);
            let page = number.and_then(PageNo::new);
            let page = page.ok_or_else(|| Corrupt::new("a page outside of the database"))?;
            next = page.get().saturating_add(1);
            if page == PageNo::LOCK_PAGE || self.segments.contains_key(&page.segment()) {
                return Err(Corrupt::new(format!("page {page} is not to be written alone")));
            }
            self.delta.insert(page, decode_origin(reader, frames, page)?);
        }
        Ok(())
    }
}

fn too_many() -> Corrupt {
    Corrupt::new(format!("more than {} pages", limits::ORDER_PAGES_MAX))
}

fn decode_frames(reader: &mut Reader<'_>) -> Result<Vec<FrameAt>, Corrupt> {
    let mut frames = Vec::new();
    for _ in 0..varint::take_count(reader, FRAME_BYTES)? {
        let pack = PackId::decode(reader)?;
        let frame = FrameRef { offset: reader.u32()?, bytes: reader.u32()?, crc: reader.u32()? };
        if frame.bytes as usize > limits::FRAME_BYTES_MAX {
            return Err(Corrupt::new(format!("a frame of {} bytes", frame.bytes)));
        }
        frames.push(FrameAt { pack, frame });
    }
    Ok(frames)
}

fn decode_origin(reader: &mut Reader<'_>, frames: &[FrameAt], page: PageNo) -> Result<Origin, Corrupt> {
    let origin = match varint::take(reader)? {
        TAIL => Origin::Tail,
        LOCK_PAGE => Origin::LockPage,
        frame => {
            let at = usize::try_from(frame - FRAMES_FROM).ok().and_then(|number| frames.get(number));
            let at = *at.ok_or_else(|| Corrupt::new("an origin in a frame that is not listed"))?;
            Origin::Stored(Source { at, place: reader.u8()? })
        }
    };
    let is_right = (page == PageNo::LOCK_PAGE) == (origin == Origin::LockPage);
    if is_right { Ok(origin) } else { Err(Corrupt::new(format!("page {page} comes from the wrong place"))) }
}
