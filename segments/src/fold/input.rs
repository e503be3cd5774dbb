//! What a fold takes out of the log.

use std::collections::BTreeMap;

use bytes::Bytes;
use walstore::id::{DatabaseId, Lsn};

use crate::limits;
use crate::map::PageMap;
use crate::mask::PageMask;
use crate::page::{PAGE_BYTES, Page, PageNo, SegmentNo};

/// The durable commits after those that a page map covers, summed up: the newest version of each page.
#[derive(Clone, Debug)]
pub struct FoldInput {
    pub database: DatabaseId,
    /// The last commit to fold, or that of the map if there is none.
    pub lsn: Option<Lsn>,
    /// Size of the database after it.
    pub page_count: u32,
    /// The smallest size that the database had after any of these commits, or in the map.
    pub page_count_min: u32,
    /// Pages inside of the database as of `lsn`.
    pub pages: BTreeMap<PageNo, Page>,
    /// The commits as the log has them, if the pack is to keep them: all after those of the map, or none.
    pub commits: Vec<Bytes>,
    /// Segments that may be merged, at most: so much is read, and is in memory until the pack is made.
    pub merge_segments_max: usize,
    /// Memory that was set aside for this fold before its commits were acknowledged.
    pub set_aside_bytes: usize,
}

impl FoldInput {
    /// Nothing yet on top of `map`.
    pub fn new(database: DatabaseId, map: &PageMap) -> Self {
        let (lsn, page_count) = (map.lsn(), map.page_count());
        Self {
            database,
            lsn,
            page_count,
            page_count_min: page_count,
            pages: BTreeMap::new(),
            commits: Vec::new(),
            merge_segments_max: limits::MERGE_SEGMENTS_MAX,
            set_aside_bytes: 0,
        }
    }

    /// Adds the next commit.
    ///
    /// # Panics
    /// If `lsn` is not the one after the last.
    pub fn add(&mut self, lsn: Lsn, page_count: u32, pages: impl IntoIterator<Item = (PageNo, Page)>) {
        assert_eq!(lsn, Lsn::after(self.lsn), "BUG: commits of a fold are not dense");
        if let Some(first_outside) = page_count.checked_add(1).and_then(PageNo::new) {
            self.pages.split_off(&first_outside);
        }
        let inside = |page: PageNo| page.get() <= page_count && page != PageNo::LOCK_PAGE;
        self.pages.extend(pages.into_iter().filter(|(page, _)| inside(*page)));
        self.lsn = Some(lsn);
        self.page_count = page_count;
        self.page_count_min = self.page_count_min.min(page_count);
    }

    /// Whether another commit of `pages` pages still fits. The first one always does.
    pub fn has_room_for(&self, pages: usize) -> bool {
        self.pages.is_empty() || self.pages.len() + pages <= limits::FOLD_PAGES_MAX
    }

    /// Which pages changed, by segment.
    pub(super) fn masks(&self) -> BTreeMap<SegmentNo, PageMask> {
        let mut masks: BTreeMap<SegmentNo, PageMask> = BTreeMap::new();
        for page in self.pages.keys() {
            let mask = masks.entry(page.segment()).or_default();
            *mask = mask.or(PageMask::one(page.position()));
        }
        masks
    }
}

/// Whether a database of `page_count` pages wants its tail of `tail_bytes` (encoded) folded because of its
/// size. Age and the number of incarnations in the tail are other reasons, which the caller knows.
pub fn fold_is_due(tail_bytes: u64, page_count: u32) -> bool {
    let quarter = u64::from(page_count) * PAGE_BYTES as u64 / 4;
    tail_bytes >= quarter.clamp(limits::FOLD_TAIL_BYTES_MIN, limits::FOLD_TAIL_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_are_due_at_a_quarter_of_the_database_within_bounds() {
        assert!(!fold_is_due((64 << 10) - 1, 1) && fold_is_due(64 << 10, 1));
        assert!(!fold_is_due(128 << 10, 256) && fold_is_due(256 << 10, 256));
        assert!(!fold_is_due((1 << 20) - 1, u32::MAX) && fold_is_due(1 << 20, u32::MAX));
    }

    #[test]
    fn the_newest_version_counts_and_a_shrink_is_remembered() {
        let page = |page| PageNo::new(page).unwrap();
        let content = |byte| Page::copy_of(&[byte; PAGE_BYTES]);
        let mut input = FoldInput::new(DatabaseId::from_bytes([1; 16]), &PageMap::empty());
        input.add(Lsn::new(1).unwrap(), 3, (1..=3).map(|no| (page(no), content(1))));
        input.add(Lsn::new(2).unwrap(), 2, [(page(1), content(2))]);
        input.add(Lsn::new(3).unwrap(), 3, [(page(3), content(3))]);
        let bytes: Vec<u8> = input.pages.values().map(|page| page.as_bytes()[0]).collect();
        assert_eq!((bytes, input.page_count_min, input.page_count), (vec![2, 1, 3], 0, 3));
    }
}
