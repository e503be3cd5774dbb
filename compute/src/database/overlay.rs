//! Pages of commits that are not folded yet, by page and LSN.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use segments::page::{Page, PageNo};
use segments::tip::Tip;
use walstore::id::Lsn;

use super::overlay_space::OverlaySpace;
use crate::limits;

/// What one commit left of a page.
#[derive(Clone)]
pub struct Version {
    pub lsn: Lsn,
    pub page: Page,
    /// How many versions up to this one went into the log as patches, without a whole one between.
    pub patches_in_a_row: u8,
}

/// What changed since the fold that the oldest reader still uses.
pub struct Overlay {
    /// Versions of each page, oldest first.
    pages: BTreeMap<PageNo, Vec<Version>>,
    /// The history after each commit and the commit's length in the log, oldest first, dense.
    commits: VecDeque<(Tip, usize)>,
    bytes: usize,
    /// Where the node counts them.
    space: Arc<OverlaySpace>,
}

impl Overlay {
    pub fn new(space: Arc<OverlaySpace>) -> Self {
        Self { pages: BTreeMap::new(), commits: VecDeque::new(), bytes: 0, space }
    }

    /// Adds the commit that leads to `tip`: its pages, and whether each was logged as a patch.
    ///
    /// # Panics
    /// If it is not the one after the last.
    pub fn add(&mut self, tip: Tip, encoded_bytes: usize, pages: impl IntoIterator<Item = ((PageNo, Page), bool)>) {
        let lsn = tip.lsn.expect("BUG: a commit without an LSN");
        if let Some((last, _)) = self.commits.back() {
            assert_eq!(lsn, Lsn::after(last.lsn), "BUG: a gap in the overlay");
        }
        self.commits.push_back((tip, encoded_bytes));
        let before = self.bytes;
        for ((page_no, page), patched) in pages {
            self.bytes += segments::page::PAGE_BYTES;
            let versions = self.pages.entry(page_no).or_default();
            let before = versions.last().map_or(0, |version| version.patches_in_a_row);
            let patches_in_a_row = if patched { before.saturating_add(1) } else { 0 };
            versions.push(Version { lsn, page, patches_in_a_row });
        }
        self.account(before);
    }

    /// The newest version of a page that a snapshot at `at` sees, if the overlay has one.
    pub fn page(&self, page_no: PageNo, at: Option<Lsn>) -> Option<&Version> {
        self.pages.get(&page_no)?.iter().rev().find(|version| Some(version.lsn) <= at)
    }

    /// The history right after the commit `lsn`, if the overlay has it.
    pub fn tip(&self, lsn: Lsn) -> Option<Tip> {
        let (first, _) = self.commits.front()?;
        let index = lsn.get().checked_sub(Lsn::raw(first.lsn))?;
        self.commits.get(usize::try_from(index).ok()?).map(|(tip, _)| *tip)
    }

    fn between(&self, after: Option<Lsn>, up_to: Lsn) -> impl Iterator<Item = &(Tip, usize)> {
        self.commits.iter().filter(move |(tip, _)| tip.lsn > after && tip.lsn <= Some(up_to))
    }

    /// How much the commits `(after, up_to]` are.
    pub fn unfolded(&self, after: Option<Lsn>, up_to: Lsn) -> Unfolded {
        let encoded_bytes = self.between(after, up_to).map(|(_, encoded_bytes)| *encoded_bytes as u64).sum();
        Unfolded { encoded_bytes, page_bytes: self.bytes }
    }

    /// What a fold of the commits after `after` up to `tip` has to write: the newest version of each page
    /// within the size at `tip`, and the smallest size in between.
    pub fn changes(&self, after: Option<Lsn>, tip: Tip) -> Changes {
        let page_count = tip.page_count;
        let within = |lsn: &Lsn| Some(*lsn) > after && Some(*lsn) <= tip.lsn;
        let sizes = tip.lsn.into_iter().flat_map(|lsn| self.between(after, lsn)).map(|(tip, _)| tip.page_count);
        let page_count_min = sizes.min().unwrap_or(page_count);
        let mut pages = BTreeMap::new();
        for (page_no, versions) in &self.pages {
            let newest = versions.iter().rev().find(|version| within(&version.lsn));
            if let Some(version) = newest.filter(|_| page_no.get() <= page_count) {
                pages.insert(*page_no, version.page.clone());
            }
        }
        Changes { pages, page_count_min }
    }

    /// Forgets commits up to `lsn`: no reader needs them, because its map has them.
    pub fn forget(&mut self, lsn: Lsn) {
        let before = self.bytes;
        self.pages.retain(|_, versions| {
            let before = versions.len();
            versions.retain(|version| version.lsn > lsn);
            self.bytes -= (before - versions.len()) * segments::page::PAGE_BYTES;
            !versions.is_empty()
        });
        self.account(before);
        while self.commits.front().is_some_and(|(first, _)| first.lsn <= Some(lsn)) {
            self.commits.pop_front();
        }
    }

    /// Tells the node how its bytes have changed.
    fn account(&self, before: usize) {
        let (before, now) = (counted(before), counted(self.bytes));
        if now >= before {
            self.space.add(now - before);
        } else {
            self.space.give_back(before - now);
        }
    }

    /// Bytes of page versions held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        self.space.give_back(counted(self.bytes));
    }
}

/// What one database counts for the node: no more than what makes its own writers wait. So one huge transaction does
/// not hold the writers of all others up until it is folded.
fn counted(bytes: usize) -> usize {
    bytes.min(limits::OVERLAY_BYTES_MAX)
}

/// How much a fold has before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfolded {
    /// In the log.
    pub encoded_bytes: u64,
    /// In memory.
    pub page_bytes: usize,
}

/// See [`Overlay::changes`].
pub struct Changes {
    pub pages: BTreeMap<PageNo, Page>,
    pub page_count_min: u32,
}

#[cfg(test)]
mod tests {
    use segments::tip::ChainHash;

    use super::*;

    fn tip(lsn: u64, page_count: u32) -> Tip {
        let chain = ChainHash::from_bytes([0; 16]);
        Tip { lsn: Lsn::new(lsn), time_micros: lsn, page_count, pages_total: lsn, chain }
    }

    fn page(no: u32, byte: u8) -> ((PageNo, Page), bool) {
        ((PageNo::new(no).unwrap(), Page::copy_of(&[byte; 4096])), byte > 5)
    }

    #[test]
    fn each_snapshot_sees_its_own_version() {
        let mut overlay = Overlay::new(OverlaySpace::new(0));
        overlay.add(tip(5, 2), 10, [page(1, 5), page(2, 5)]);
        overlay.add(tip(6, 2), 10, [page(1, 6)]);
        let first = PageNo::new(1).unwrap();
        let byte = |at| overlay.page(first, Lsn::new(at)).map(|version| version.page.as_bytes()[0]);
        assert_eq!((byte(4), byte(5), byte(6), byte(9)), (None, Some(5), Some(6), Some(6)));
        assert!(overlay.page(first, None).is_none());
        assert_eq!(overlay.page(first, Lsn::new(6)).unwrap().patches_in_a_row, 1);
    }

    #[test]
    fn a_fold_knows_the_smallest_size_and_leaves_out_what_was_cut_off() {
        let mut overlay = Overlay::new(OverlaySpace::new(0));
        overlay.add(tip(1, 3), 10, [page(1, 1), page(2, 1), page(3, 1)]);
        overlay.add(tip(2, 1), 20, [page(1, 2)]);
        overlay.add(tip(3, 2), 30, [page(2, 3)]);
        let changes = overlay.changes(None, tip(3, 2));
        assert_eq!(changes.page_count_min, 1);
        let bytes: Vec<u8> = changes.pages.values().map(|page| page.as_bytes()[0]).collect();
        assert_eq!(bytes, [2, 3]);
        assert_eq!(overlay.changes(Lsn::new(2), tip(3, 2)).pages.len(), 1);
        let three = Lsn::new(3).unwrap();
        assert_eq!(overlay.unfolded(Lsn::new(1), three), Unfolded { encoded_bytes: 50, page_bytes: 5 * 4096 });
    }

    #[test]
    fn forgetting_gives_the_bytes_back_and_so_does_the_end() {
        let space = OverlaySpace::new(0);
        let mut overlay = Overlay::new(space.clone());
        overlay.add(tip(1, 1), 10, [page(1, 1)]);
        overlay.add(tip(2, 1), 10, [page(1, 2)]);
        let lsn = |lsn| Lsn::new(lsn).unwrap();
        overlay.forget(lsn(1));
        assert_eq!((overlay.bytes(), space.bytes()), (4096, 4096));
        assert_eq!(overlay.tip(lsn(2)), Some(tip(2, 1)));
        assert_eq!(overlay.tip(lsn(1)), None);
        overlay.forget(lsn(2));
        assert_eq!((overlay.bytes(), space.bytes()), (0, 0));
        overlay.add(tip(3, 1), 10, [page(1, 3)]);
        assert_eq!(space.bytes(), 4096);
        drop(overlay);
        assert_eq!(space.bytes(), 0);
    }
}
