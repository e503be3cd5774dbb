//! The **image**: pages that stand in the head itself, so that whoever has read the head has them.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | 1: a whole database (module `whole`); 2: the upper pages of a larger one (module `boot`) |
//! | … | the image |
//!
//! An image is a part of the head, whose checksum covers it. Its frames have an address like those of any pack,
//! with an id that is never used again, so caches need not know where a frame came from. Readers ask the image
//! before the bucket.

mod boot;
mod choose;
mod whole;

use bytes::Bytes;
use walstore::envelope::{Corrupt, Writer};

pub use self::boot::{BootImage, Carried};
pub use self::choose::{Choice, choose};
pub use self::whole::WholeImage;
use crate::id::PackId;
use crate::map::{PageMap, Source};
use crate::pack::{Frame, FrameAt};
use crate::page::PageNo;

const WHOLE: u8 = 1;
const BOOT: u8 = 2;

/// Pages in the head. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// All of them: a small database. Its packs are this image, and nothing of it is in the bucket besides.
    Whole(WholeImage),
    /// A few that also stand in packs.
    Boot(BootImage),
}

impl Image {
    /// Reads what a head holds.
    pub fn decode(stored: &Bytes) -> Result<Self, Corrupt> {
        match stored.first() {
            Some(&WHOLE) => WholeImage::open(stored.slice(1..)).map(Self::Whole),
            Some(&BOOT) => BootImage::decode(&stored.slice(1..)).map(Self::Boot),
            Some(kind) => Err(Corrupt::new(format!("unknown kind {kind} of image"))),
            None => Err(Corrupt::new("an empty image")),
        }
    }

    /// For the head.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        match self {
            Self::Whole(image) => {
                out.u8(WHOLE);
                out.raw(image.object());
            }
            Self::Boot(image) => {
                out.u8(BOOT);
                image.encode(&mut out);
            }
        }
        out.finish().into()
    }

    /// The frame at `at`, if it stands here.
    pub fn frame(&self, at: &FrameAt) -> Option<Result<Frame, Corrupt>> {
        match self {
            Self::Whole(image) => image.frame(at),
            Self::Boot(image) => image.frame(at),
        }
    }

    /// Where a page stands that need not be looked up in `map`.
    pub fn source(&self, map: &PageMap, page_no: PageNo) -> Option<Source> {
        match self {
            Self::Whole(_) => None,
            Self::Boot(image) => image.source(map, page_no),
        }
    }

    /// Whether the frames of `pack` stand here, and not in the bucket.
    pub fn is_pack(&self, pack: &PackId) -> bool {
        match self {
            Self::Whole(image) => image.id() == *pack,
            Self::Boot(image) => image.id() == *pack,
        }
    }
}

#[cfg(test)]
mod tests;
