//! A **pack**: one immutable object with what one fold produced. Key: [`crate::keys::pack`].
//!
//! It stands in the [envelope](walstore::envelope) (kind `Pack`, never compressed as a whole), so that a
//! ranged GET reads one frame. Offsets count from the start of the object.
//!
//! | bytes | what |
//! |---|---|
//! | 16 | envelope |
//! | 36 | the pack's own id |
//! | … | segment frames: one for each segment written whole, all its pages |
//! | … | delta frames: one for each segment of which only some pages changed, these pages |
//! | … | delta index: where the delta frames are ([`FrameIndex`]) |
//! | … | segment table: where the segment frames are, in the same form |
//! | … | history: the folded commits, if they are kept (module [`history`]) |
//! | 52 | footer |
//!
//! A **frame** is codec (1: 0 as is, 1 zstd), number of pages (1), then the pages one after the other. Its
//! checksum stands with the reference to it.
//!
//! The footer:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | LSN as of which the pages are |
//! | 4 | size of the database as of it, in pages |
//! | 3 × 12 | offset, length and CRC-32C of delta index, segment table, history; all zero if absent |
//! | 4 | CRC-32C of the footer before this field |
//!
//! Readers of single frames need neither footer nor segment table, because the page map says where
//! everything is. They make a pack complete in itself, for checks and repair.

mod footer;
mod frame;
pub mod history;
mod index;
mod reader;
mod writer;

pub use footer::{FOOTER_BYTES, Footer, Section};
pub(crate) use frame::encode_frame;
pub use frame::{Frame, FrameAt, FrameRef, StoredFrame};
pub use index::{FrameIndex, IndexEntry};
pub use reader::{PackContents, read_pack};
pub use writer::{DeltaParts, Pack, PackTooLarge, PackWriter};

pub(crate) const VERSION: u8 = 1;

/// The most that a pack of nothing but `segments` whole segments has besides their frames.
pub fn around_bytes_max(segments: usize) -> u64 {
    let fixed = walstore::envelope::HEADER_BYTES + crate::id::ID_BYTES + FOOTER_BYTES + index::FIXED_BYTES_MAX;
    (fixed + segments * index::ENTRY_BYTES_MAX) as u64
}

#[cfg(test)]
mod tests;
