//! A small database as a whole: the object of a pack, byte for byte, that was never put into the bucket. The page
//! map next to it refers to this pack and to no other.
//!
//! Each fold writes it anew, as long as it stays small; then it moves to a pack in the bucket, in the same fold
//! ([`crate::fold::wants_image`]).

use bytes::Bytes;
use walstore::envelope::{self, Corrupt, Kind, Reader};

use crate::id::PackId;
use crate::limits;
use crate::pack::{self, Frame, FrameAt, Pack};

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeImage {
    id: PackId,
    object: Bytes,
}

impl WholeImage {
    /// The image of a database that `pack` holds as a whole, if it is at most `bytes_max` long.
    pub fn of_pack(pack: &Pack, bytes_max: usize) -> Option<Self> {
        debug_assert!(bytes_max <= limits::IMAGE_BYTES_MAX);
        (pack.bytes.len() <= bytes_max).then(|| Self { id: pack.id, object: pack.bytes.clone() })
    }

    pub(super) fn open(object: Bytes) -> Result<Self, Corrupt> {
        let body = envelope::open_as(&object, Kind::Pack, pack::VERSION, limits::IMAGE_BYTES_MAX)?;
        let id = PackId::decode(&mut Reader::new(&body))?;
        Ok(Self { id, object })
    }

    pub fn id(&self) -> PackId {
        self.id
    }

    /// The pack's object.
    pub fn object(&self) -> &Bytes {
        &self.object
    }

    pub(super) fn frame(&self, at: &FrameAt) -> Option<Result<Frame, Corrupt>> {
        if at.pack != self.id {
            return None;
        }
        let range = at.frame.range();
        if range.end > self.object.len() as u64 {
            return Some(Err(Corrupt::new(format!("a frame of {} beyond the end of the image", self.id))));
        }
        Some(Frame::decode(&self.object.slice(range.start as usize..range.end as usize), &at.frame))
    }
}
