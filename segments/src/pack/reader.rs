//! A whole pack → its parts, everything checked. Reads of single pages go by [`Frame::decode`] instead.

use bytes::Bytes;
use walstore::envelope::{self, Corrupt, Kind, Reader};

use super::footer::{Footer, Section};
use super::frame::Frame;
use super::history::History;
use super::index::FrameIndex;
use crate::id::PackId;
use crate::limits;
use crate::mask::PageMask;

/// All that a pack holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackContents {
    pub footer: Footer,
    pub segments: FrameIndex,
    pub delta: FrameIndex,
    pub history: Option<History>,
}

/// Checks the object that the key of `id` holds: every checksum, every frame.
pub fn read_pack(object: &Bytes, id: &PackId) -> Result<PackContents, Corrupt> {
    let body = envelope::open_as(object, Kind::Pack, super::VERSION, limits::PACK_BYTES_MAX)?;
    let found = PackId::decode(&mut Reader::new(&body))?;
    if found != *id {
        return Err(Corrupt::new(format!("holds pack {found}")));
    }
    let footer = Footer::decode(&body)?;
    let index = |section: Option<Section>| match section {
        None => Ok(FrameIndex::default()),
        Some(section) => FrameIndex::decode(&checked(object, &section)?),
    };
    let (segments, delta) = (index(footer.segment_table)?, index(footer.delta_index)?);
    for entry in segments.entries().iter().chain(delta.entries()) {
        let frame = Frame::decode(&slice(object, entry.frame.range())?, &entry.frame)?;
        let used = PageMask::first(entry.segment.pages_within(footer.page_count));
        if u32::from(frame.page_count()) != entry.pages.count() || !used.covers(entry.pages) {
            return Err(Corrupt::new(format!("the frame of segment {} does not fit", entry.segment)));
        }
    }
    let history = footer.history.map(|section| History::decode(&checked(object, &section)?)).transpose()?;
    Ok(PackContents { footer, segments, delta, history })
}

fn checked(object: &Bytes, section: &Section) -> Result<Bytes, Corrupt> {
    let bytes = slice(object, section.range())?;
    section.check(&bytes)?;
    Ok(bytes)
}

fn slice(object: &Bytes, range: std::ops::Range<u64>) -> Result<Bytes, Corrupt> {
    let outside = range.end > object.len() as u64;
    if outside {
        Err(Corrupt::new("reaches past its end"))
    } else {
        Ok(object.slice(range.start as usize..range.end as usize))
    }
}
