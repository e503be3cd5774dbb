//! Pages and their numbers.
//!
//! A database is pages 1 to `page_count`, of [`PAGE_BYTES`] each. [`SEGMENT_PAGES`] consecutive pages are
//! one **segment**: the unit of fetch and cache. A page's index in its segment is called its *position*.

use std::fmt;
use std::num::NonZeroU32;

use bytes::Bytes;
use walstore::id::{DatabaseId, Lsn};

use crate::mask::PageMask;

pub const PAGE_BYTES: usize = 4096;
pub const SEGMENT_PAGES: u32 = 32;
pub const SEGMENT_BYTES: usize = SEGMENT_PAGES as usize * PAGE_BYTES;

/// Number of a page in its database, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageNo(NonZeroU32);

impl PageNo {
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// The page that holds byte 2^30, where SQLite's file locks are. SQLite never uses it: no commit, delta
    /// or look-up contains it, and it reads as zeros.
    pub const LOCK_PAGE: Self = match Self::new((1 << 30) / PAGE_BYTES as u32 + 1) {
        Some(page) => page,
        None => unreachable!(),
    };

    /// `None` for 0.
    pub const fn new(page: u32) -> Option<Self> {
        match NonZeroU32::new(page) {
            Some(page) => Some(Self(page)),
            None => None,
        }
    }

    pub const fn get(self) -> u32 {
        self.0.get()
    }

    pub const fn segment(self) -> SegmentNo {
        SegmentNo((self.get() - 1) / SEGMENT_PAGES)
    }

    /// Index of this page in its segment, below [`SEGMENT_PAGES`].
    pub const fn position(self) -> u8 {
        ((self.get() - 1) % SEGMENT_PAGES) as u8
    }

    /// The pages after the first `count`, up to and with the page `upto`, without the lock page: what a
    /// database that grows from `count` to `upto` pages must be given.
    pub fn grown(count: u32, upto: u32) -> impl Iterator<Item = Self> {
        (count..upto).map(|page| Self(NonZeroU32::MIN.saturating_add(page))).filter(|page| *page != Self::LOCK_PAGE)
    }
}

impl fmt::Display for PageNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for PageNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Number of a segment in its database, from 0: segment 0 is pages 1 to 32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNo(u32);

impl SegmentNo {
    /// `None` for what no page number reaches.
    pub const fn new(segment: u32) -> Option<Self> {
        if segment <= u32::MAX / SEGMENT_PAGES { Some(Self(segment)) } else { None }
    }

    pub const fn get(self) -> u32 {
        self.0
    }

    /// How many segments a database of `page_count` pages has.
    pub const fn count_of(page_count: u32) -> u32 {
        page_count.div_ceil(SEGMENT_PAGES)
    }

    /// The page at `position`; `None` beyond the largest page number.
    pub fn page(self, position: u8) -> Option<PageNo> {
        PageNo::new(self.pages_before().checked_add(u32::from(position))?.checked_add(1)?)
    }

    /// How many pages of this segment a database of `page_count` pages has.
    pub fn pages_within(self, page_count: u32) -> u8 {
        page_count.saturating_sub(self.pages_before()).min(SEGMENT_PAGES) as u8
    }

    /// The positions that a database of `page_count` pages uses here: all but the lock page.
    pub fn used(self, page_count: u32) -> PageMask {
        let all = PageMask::first(self.pages_within(page_count));
        if self == PageNo::LOCK_PAGE.segment() { all.without(PageMask::one(PageNo::LOCK_PAGE.position())) } else { all }
    }

    fn pages_before(self) -> u32 {
        self.0 * SEGMENT_PAGES
    }
}

impl fmt::Display for SegmentNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for SegmentNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The content of one page: [`PAGE_BYTES`] that never change. Cloning is cheap.
#[derive(Clone, PartialEq, Eq)]
pub struct Page(Bytes);

impl Page {
    /// `None` unless `bytes` are exactly one page.
    pub fn new(bytes: Bytes) -> Option<Self> {
        (bytes.len() == PAGE_BYTES).then_some(Self(bytes))
    }

    pub fn copy_of(bytes: &[u8; PAGE_BYTES]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }

    /// All zeros, shared by everybody who asks.
    pub fn zeroed() -> Self {
        static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
        Self(Bytes::from_static(&ZEROS))
    }

    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    pub fn crc32c(&self) -> u32 {
        crc32c::crc32c(&self.0)
    }

    pub fn as_bytes(&self) -> &[u8; PAGE_BYTES] {
        self.0.first_chunk().expect("BUG: a page has PAGE_BYTES")
    }

    /// A copy that shares memory with nothing. A page out of the cache keeps its whole segment in memory;
    /// whoever holds single pages for long detaches them.
    pub fn detached(&self) -> Self {
        Self::copy_of(self.as_bytes())
    }
}

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Page(crc32c {:08x})", self.crc32c())
    }
}

/// A page inside the database that no pack holds: data is lost, and zeros would hide it (invariant I10).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "page {page} of database {database} has no source as of LSN {}: a pack reference is lost; the database is corrupt",
    Lsn::raw(*lsn)
)]
pub struct MissingPage {
    pub database: DatabaseId,
    pub page: PageNo,
    pub lsn: Option<Lsn>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_segments_count_as_the_format_says() {
        let page = |page| PageNo::new(page).unwrap();
        assert_eq!((page(1).segment().get(), page(1).position()), (0, 0));
        assert_eq!((page(32).segment().get(), page(32).position()), (0, 31));
        assert_eq!((page(33).segment().get(), page(33).position()), (1, 0));
        assert_eq!(page(u32::MAX).segment().page(page(u32::MAX).position()), Some(page(u32::MAX)));
        assert_eq!(page(u32::MAX).segment().page(31), None);
        assert_eq!([0, 1, 32, 33].map(SegmentNo::count_of), [0, 1, 1, 2]);
        assert_eq!([0, 32, 33, 70].map(|count| page(33).segment().pages_within(count)), [0, 0, 1, 32]);
    }

    #[test]
    fn the_lock_page_is_where_sqlite_has_it_and_nobody_uses_it() {
        assert_eq!(PageNo::LOCK_PAGE.get(), 262_145);
        let segment = PageNo::LOCK_PAGE.segment();
        assert_eq!(segment.used(300_000).count(), 31);
        let grown: Vec<u32> = PageNo::grown(262_143, 262_147).map(PageNo::get).collect();
        assert_eq!(grown, [262_144, 262_146, 262_147]);
    }

    #[test]
    fn a_page_has_exactly_its_size() {
        assert!(Page::new(Bytes::from(vec![1; PAGE_BYTES - 1])).is_none());
        let page = Page::new(Bytes::from(vec![1; PAGE_BYTES])).unwrap();
        assert!(!page.is_zero() && Page::zeroed().is_zero());
        assert_eq!(page.detached(), page);
    }
}
