//! Pages of commits that are not folded yet, by page and LSN.

use std::collections::{BTreeMap, VecDeque};

use segments::page::{Page, PageNo};
use walstore::id::Lsn;

/// What one commit left of a page.
#[derive(Clone)]
pub struct Version {
    pub lsn: Lsn,
    pub page: Page,
    /// How many versions up to this one went into the log as patches, without a whole one between.
    pub patches_in_a_row: u8,
}

/// What changed since the fold that the oldest reader still uses.
#[derive(Default)]
pub struct Overlay {
    /// Versions of each page, oldest first.
    pages: BTreeMap<PageNo, Vec<Version>>,
    /// The size in pages after each commit, oldest first, dense.
    commits: VecDeque<(Lsn, u32)>,
    bytes: usize,
}

impl Overlay {
    /// Adds a commit: its pages, and whether each was logged as a patch. LSNs are dense.
    pub fn add(&mut self, lsn: Lsn, page_count: u32, pages: impl IntoIterator<Item = ((PageNo, Page), bool)>) {
        if let Some((last, _)) = self.commits.back() {
            assert_eq!(lsn, Lsn::after(Some(*last)), "BUG: a gap in the overlay");
        }
        self.commits.push_back((lsn, page_count));
        for ((page_no, page), patched) in pages {
            self.bytes += segments::page::PAGE_BYTES;
            let versions = self.pages.entry(page_no).or_default();
            let before = versions.last().map_or(0, |version| version.patches_in_a_row);
            let patches_in_a_row = if patched { before.saturating_add(1) } else { 0 };
            versions.push(Version { lsn, page, patches_in_a_row });
        }
    }

    /// The newest version of a page that a snapshot at `at` sees, if the overlay has one.
    pub fn page(&self, page_no: PageNo, at: Option<Lsn>) -> Option<&Version> {
        self.pages.get(&page_no)?.iter().rev().find(|version| Some(version.lsn) <= at)
    }

    /// The database's size in pages right after the commit `lsn`, if the overlay has it.
    pub fn page_count(&self, lsn: Lsn) -> Option<u32> {
        let (first, _) = self.commits.front()?;
        let index = lsn.get().checked_sub(first.get())?;
        self.commits.get(usize::try_from(index).ok()?).map(|(_, page_count)| *page_count)
    }

    /// What a fold of the commits `(after, up_to]` has to write: the newest version of each page within
    /// the size after `up_to`, and the smallest size in between.
    pub fn changes(&self, after: Option<Lsn>, up_to: Lsn) -> Changes {
        let within = |lsn: &Lsn| Some(*lsn) > after && *lsn <= up_to;
        let sizes = self.commits.iter().filter(|(lsn, _)| within(lsn)).map(|(_, page_count)| *page_count);
        let page_count = self.page_count(up_to).unwrap_or_default();
        let mut pages = BTreeMap::new();
        for (page_no, versions) in &self.pages {
            let newest = versions.iter().rev().find(|version| within(&version.lsn));
            if let Some(version) = newest.filter(|_| page_no.get() <= page_count) {
                pages.insert(*page_no, version.page.clone());
            }
        }
        Changes { pages, page_count, page_count_min: sizes.min().unwrap_or(page_count) }
    }

    /// Forgets commits up to `lsn`: no reader needs them, because its map has them.
    pub fn forget(&mut self, lsn: Lsn) {
        self.pages.retain(|_, versions| {
            let before = versions.len();
            versions.retain(|version| version.lsn > lsn);
            self.bytes -= (before - versions.len()) * segments::page::PAGE_BYTES;
            !versions.is_empty()
        });
        while self.commits.front().is_some_and(|(first, _)| *first <= lsn) {
            self.commits.pop_front();
        }
    }

    /// Bytes of page versions held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of page versions above `after`: what a fold would work off.
    pub fn bytes_after(&self, after: Option<Lsn>) -> usize {
        let versions = self.pages.values().flatten().filter(|version| Some(version.lsn) > after);
        versions.count() * segments::page::PAGE_BYTES
    }
}

/// See [`Overlay::changes`].
pub struct Changes {
    pub pages: BTreeMap<PageNo, Page>,
    pub page_count: u32,
    pub page_count_min: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsn(lsn: u64) -> Lsn {
        Lsn::new(lsn).unwrap()
    }

    fn page(no: u32, byte: u8) -> ((PageNo, Page), bool) {
        ((PageNo::new(no).unwrap(), Page::copy_of(&[byte; 4096])), byte > 5)
    }

    #[test]
    fn each_snapshot_sees_its_own_version() {
        let mut overlay = Overlay::default();
        overlay.add(lsn(5), 2, [page(1, 5), page(2, 5)]);
        overlay.add(lsn(6), 2, [page(1, 6)]);
        let first = PageNo::new(1).unwrap();
        let byte = |at| overlay.page(first, Lsn::new(at)).map(|version| version.page.as_bytes()[0]);
        assert_eq!((byte(4), byte(5), byte(6), byte(9)), (None, Some(5), Some(6), Some(6)));
        assert!(overlay.page(first, None).is_none());
        assert_eq!(overlay.page(first, Lsn::new(6)).unwrap().patches_in_a_row, 1);
    }

    #[test]
    fn a_fold_knows_the_smallest_size_and_leaves_out_what_was_cut_off() {
        let mut overlay = Overlay::default();
        overlay.add(lsn(1), 3, [page(1, 1), page(2, 1), page(3, 1)]);
        overlay.add(lsn(2), 1, [page(1, 2)]);
        overlay.add(lsn(3), 2, [page(2, 3)]);
        let changes = overlay.changes(None, lsn(3));
        assert_eq!((changes.page_count, changes.page_count_min), (2, 1));
        let bytes: Vec<u8> = changes.pages.values().map(|page| page.as_bytes()[0]).collect();
        assert_eq!(bytes, [2, 3]);
        assert_eq!(overlay.changes(Lsn::new(2), lsn(3)).pages.len(), 1);
    }

    #[test]
    fn forgetting_gives_the_bytes_back() {
        let mut overlay = Overlay::default();
        overlay.add(lsn(1), 1, [page(1, 1)]);
        overlay.add(lsn(2), 1, [page(1, 2)]);
        overlay.forget(lsn(1));
        assert_eq!(overlay.bytes(), 4096);
        assert_eq!(overlay.page_count(lsn(2)), Some(1));
        assert_eq!(overlay.page_count(lsn(1)), None);
        overlay.forget(lsn(2));
        assert_eq!(overlay.bytes(), 0);
    }
}
