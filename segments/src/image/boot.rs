//! The **boot image** of a larger database: the pages through which its first query finds its way, so that whoever
//! opens it cold does not fetch them one after the other: page 1, the schema, and the upper pages of every B-tree.
//!
//! After the kind (`v` = variable-length integer):
//!
//! | bytes | what |
//! |---|---|
//! | 36 | its id, in the form of a pack's, new whenever the frame is |
//! | 8 | LSN as of which the pages are |
//! | v | number of pages, then the number of each (v), most useful first; in the frame they stand in this order |
//! | 4 | CRC-32C of the frame |
//! | … | the frame, up to the end |
//!
//! # Never a stale page
//! The pages repeat what the page map leads to. They are used with a map of exactly their LSN, and with no other
//! ([`BootImage::source`]): of that map, no source is newer. Each fold takes them along to its own LSN
//! ([`BootImage::carry`]): a page that its commits wrote is replaced, and a page that a shrink cut off is dropped,
//! even if the database has grown over it again. A writer of heads that knows nothing of this leaves an image that
//! nobody uses.

use std::sync::Arc;

use bytes::Bytes;
use walstore::envelope::{Corrupt, Reader, Writer};
use walstore::id::Lsn;

use crate::btree::{self, BtreePage};
use crate::fold::FoldInput;
use crate::id::PackId;
use crate::limits;
use crate::map::{PageMap, Source};
use crate::pack::{Frame, FrameAt, FrameRef, encode_frame};
use crate::page::{Page, PageNo};
use crate::varint;

/// See the module's documentation. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootImage {
    id: PackId,
    lsn: Lsn,
    pages: Arc<[PageNo]>,
    frame: FrameRef,
    stored: Bytes,
}

/// What becomes of a boot image in a fold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// None of its pages has changed.
    AsItIs(BootImage),
    /// The same pages, with their new content.
    Renewed(Vec<(PageNo, Page)>),
    /// Other pages may be more useful by now. These are known.
    ChooseAgain(Vec<(PageNo, Page)>),
}

impl BootImage {
    /// As many of `pages` as there is room for, from the first on. `None` without any.
    pub fn new(id: PackId, lsn: Lsn, pages: &[(PageNo, Page)]) -> Option<Self> {
        let mut count = pages.len().min(limits::BOOT_PAGES_MAX);
        while count > 0 {
            let pages = &pages[..count];
            let stored = encode_frame(pages.iter().map(|(_, page)| page));
            if stored.len() <= limits::BOOT_BYTES_MAX {
                let frame = FrameRef { offset: 0, bytes: stored.len() as u32, crc: crc32c::crc32c(&stored) };
                let pages = pages.iter().map(|(page_no, _)| *page_no).collect();
                return Some(Self { id, lsn, pages, frame, stored: stored.into() });
            }
            // Pages that compress badly: about as many as it is too long.
            count -= (count - count * limits::BOOT_BYTES_MAX / stored.len()).max(1);
        }
        None
    }

    pub(super) fn encode(&self, out: &mut Writer) {
        self.id.encode(out);
        out.u64(self.lsn.get());
        varint::put_len(out, self.pages.len());
        self.pages.iter().for_each(|page_no| varint::put(out, page_no.get().into()));
        out.u32(self.frame.crc);
        out.raw(&self.stored);
    }

    pub(super) fn decode(stored: &Bytes) -> Result<Self, Corrupt> {
        let mut reader = Reader::new(stored);
        let id = PackId::decode(&mut reader)?;
        let lsn = Lsn::new(reader.u64()?).ok_or_else(|| Corrupt::new("a boot image as of LSN 0"))?;
        let count = varint::take_count(&mut reader, 1)?;
        if count == 0 || count > limits::BOOT_PAGES_MAX {
            return Err(Corrupt::new(format!("a boot image of {count} pages")));
        }
        let mut pages: Vec<PageNo> = Vec::with_capacity(count);
        for _ in 0..count {
            let page_no = PageNo::new(varint::take_u32(&mut reader)?).filter(|page_no| !pages.contains(page_no));
            pages.push(page_no.ok_or_else(|| Corrupt::new("a boot image with a page 0, or one twice"))?);
        }
        let crc = reader.u32()?;
        let frame = stored.slice(stored.len() - reader.remaining()..);
        if frame.len() > limits::BOOT_BYTES_MAX {
            return Err(Corrupt::new(format!("a boot image of {} bytes", frame.len())));
        }
        let reference = FrameRef { offset: 0, bytes: frame.len() as u32, crc };
        Ok(Self { id, lsn, pages: pages.into(), frame: reference, stored: frame })
    }

    pub fn id(&self) -> PackId {
        self.id
    }

    /// The pages that it holds, most useful first.
    pub fn pages(&self) -> &[PageNo] {
        &self.pages
    }

    /// Where `page_no` stands in this image, if it does and `map` is of the same LSN.
    pub fn source(&self, map: &PageMap, page_no: PageNo) -> Option<Source> {
        if map.lsn() != Some(self.lsn) || page_no.get() > map.page_count() {
            return None;
        }
        let place = self.pages.iter().position(|known| *known == page_no)?;
        Some(Source { at: self.at(), place: place as u8 })
    }

    fn at(&self) -> FrameAt {
        FrameAt { pack: self.id, frame: self.frame }
    }

    pub(super) fn frame(&self, at: &FrameAt) -> Option<Result<Frame, Corrupt>> {
        (*at == self.at()).then(|| self.decode_frame())
    }

    fn decode_frame(&self) -> Result<Frame, Corrupt> {
        let frame = Frame::decode(&self.stored, &self.frame)?;
        if usize::from(frame.page_count()) != self.pages.len() {
            return Err(Corrupt::new(format!("a boot image of {} pages, not {}", frame.page_count(), self.pages.len())));
        }
        Ok(frame)
    }

    /// What becomes of the image that stands beside `map` when `input` is folded into it.
    pub fn carry(&self, map: &PageMap, input: &FoldInput) -> Result<Carried, Corrupt> {
        let Some(lsn) = input.lsn.filter(|_| map.lsn() == Some(self.lsn)) else {
            return Ok(Carried::ChooseAgain(Vec::new()));
        };
        let frame = self.decode_frame()?;
        let (mut pages, mut has_changed, mut choose_again) = (Vec::new(), false, false);
        for (place, page_no) in (0..).zip(self.pages.iter()) {
            let former = frame.page(place)?;
            match input.pages.get(page_no) {
                Some(page) => {
                    has_changed = true;
                    choose_again |= leads_elsewhere(*page_no, &former, page);
                    pages.push((*page_no, page.clone()));
                }
                None if page_no.get() > input.page_count_min => choose_again = true,
                None => pages.push((*page_no, former)),
            }
        }
        Ok(match (choose_again, has_changed) {
            (true, _) => Carried::ChooseAgain(pages),
            (false, true) => Carried::Renewed(pages),
            (false, false) => Carried::AsItIs(Self { lsn, ..self.clone() }),
        })
    }
}

/// Whether the pages to which a page leads may be others now.
fn leads_elsewhere(page_no: PageNo, former: &Page, page: &Page) -> bool {
    let is_interior = |page| BtreePage::interior(page_no, page).is_some();
    let is_other_schema = page_no == PageNo::FIRST && btree::schema_cookie(former) != btree::schema_cookie(page);
    is_other_schema || (former != page && page_no != PageNo::FIRST && (is_interior(former) || is_interior(page)))
}
