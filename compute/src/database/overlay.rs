//! Pages of commits that are not folded yet, by page and LSN.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use segments::cache::Loan;
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
    /// What is known of each commit, oldest first, dense.
    commits: VecDeque<Logged>,
    bytes: usize,
    /// Where the node counts them.
    space: Arc<OverlaySpace>,
}

/// A commit as the log has it.
struct Logged {
    /// The history after it.
    tip: Tip,
    /// Its length.
    bytes: usize,
    /// Itself, if the fold is to keep it.
    kept: Option<Bytes>,
    /// What it takes in memory beside its pages.
    own_bytes: usize,
    /// Memory for its fold.
    set_aside: Option<Loan>,
}

/// How a commit is in memory, beside its pages.
#[derive(Default)]
pub struct Encoding {
    /// Its length in the log.
    pub bytes: usize,
    /// Itself, if the fold is to keep it.
    pub kept: Option<Bytes>,
    /// How many of its pages are parts of it.
    pub shared_pages: usize,
    /// Memory that is kept for its fold.
    pub set_aside: Option<Loan>,
}

impl Encoding {
    /// What it takes in memory, the pages left out that are parts of it.
    fn own_bytes(&self) -> usize {
        let is_there = self.kept.is_some() || self.shared_pages > 0;
        if is_there { self.bytes - self.shared_pages * segments::page::PAGE_BYTES } else { 0 }
    }
}

impl Overlay {
    pub fn new(space: Arc<OverlaySpace>) -> Self {
        Self { pages: BTreeMap::new(), commits: VecDeque::new(), bytes: 0, space }
    }

    /// Adds the commit that leads to `tip`: its pages, and whether each was logged as a patch.
    ///
    /// # Panics
    /// If it is not the one after the last.
    pub fn add(
        &mut self,
        tip: Tip,
        encoding: Encoding,
        pages: impl IntoIterator<Item = ((PageNo, Page), bool)>,
    ) {
        let lsn = tip.lsn.expect("BUG: a commit without an LSN");
        if let Some(last) = self.commits.back() {
            assert_eq!(lsn, Lsn::after(last.tip.lsn), "BUG: a gap in the overlay");
        }
        let own_bytes = encoding.own_bytes();
        let Encoding { bytes, kept, set_aside, .. } = encoding;
        let logged = Logged { tip, bytes, kept, own_bytes, set_aside };
        let before = self.bytes;
        self.bytes += own_bytes;
        self.commits.push_back(logged);
        for ((page_no, page), patched) in pages {
            self.bytes += segments::page::PAGE_BYTES;
            // Most have one, and a vector that grows by itself begins with four.
            let versions = self.pages.entry(page_no).or_insert_with(|| Vec::with_capacity(1));
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
        let first = self.commits.front()?.tip;
        let index = lsn.get().checked_sub(Lsn::raw(first.lsn))?;
        self.commits.get(usize::try_from(index).ok()?).map(|logged| logged.tip)
    }

    /// The last commit of a time or before it.
    pub fn last_at(&self, micros: u64) -> Option<Tip> {
        let until = self.commits.partition_point(|logged| logged.tip.time_micros <= micros);
        Some(self.commits.get(until.checked_sub(1)?)?.tip)
    }

    fn between(&self, after: Option<Lsn>, up_to: Lsn) -> impl Iterator<Item = &Logged> {
        self.commits.iter().filter(move |logged| logged.tip.lsn > after && logged.tip.lsn <= Some(up_to))
    }

    /// The commits `(after, up_to]` as the log has them; `None` unless all of them were kept.
    pub fn kept(&self, after: Option<Lsn>, up_to: Lsn) -> Option<Vec<Bytes>> {
        self.between(after, up_to).map(|logged| logged.kept.clone()).collect()
    }

    /// Memory that is kept for the fold of the commits `(after, up_to]`.
    pub fn set_aside(&self, after: Option<Lsn>, up_to: Lsn) -> usize {
        self.between(after, up_to).filter_map(|logged| logged.set_aside.as_ref()).map(Loan::bytes).sum()
    }

    /// How much the commits `(after, up_to]` are.
    pub fn unfolded(&self, after: Option<Lsn>, up_to: Lsn) -> Unfolded {
        let encoded_bytes = self.between(after, up_to).map(|logged| logged.bytes as u64).sum();
        Unfolded { encoded_bytes, page_bytes: self.bytes }
    }

    /// What a fold of the commits after `after` up to `tip` has to write: the newest version of each page
    /// within the size at `tip`, and the smallest size in between.
    pub fn changes(&self, after: Option<Lsn>, tip: Tip) -> Changes {
        let page_count = tip.page_count;
        let within = |lsn: &Lsn| Some(*lsn) > after && Some(*lsn) <= tip.lsn;
        let sizes = tip.lsn.into_iter().flat_map(|lsn| self.between(after, lsn)).map(|logged| logged.tip.page_count);
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

    /// Commits up to `lsn` are folded: what was set aside for that is given back, whoever still reads them.
    pub fn folded(&mut self, lsn: Lsn) {
        let folded = self.commits.iter_mut().take_while(|logged| logged.tip.lsn <= Some(lsn));
        folded.for_each(|logged| drop(logged.set_aside.take()));
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
        while let Some(first) = self.commits.pop_front_if(|first| first.tip.lsn <= Some(lsn)) {
            self.bytes -= first.own_bytes;
        }
        self.account(before);
    }

    /// Tells the node how its bytes have changed.
    fn account(&self, before: usize) {
        self.space.change((counted(before), counted(self.bytes)), (before, self.bytes));
    }

    /// Bytes of page versions and commits held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        self.space.change((counted(self.bytes), 0), (self.bytes, 0));
    }
}

/// What one database counts for the writers of others: no more than what makes its own wait. So one huge transaction
/// does not hold the writers of all others up until it is folded.
fn counted(bytes: usize) -> usize {
    bytes.min(limits::OVERLAY_BYTES_MAX)
}

/// How much a fold has before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfolded {
    /// In the log.
    pub encoded_bytes: u64,
    /// In memory, kept commits included.
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

    fn logged(bytes: usize) -> Encoding {
        Encoding { bytes, ..Encoding::default() }
    }

    fn page(no: u32, byte: u8) -> ((PageNo, Page), bool) {
        ((PageNo::new(no).unwrap(), Page::copy_of(&[byte; 4096])), byte > 5)
    }

    #[test]
    fn each_snapshot_sees_its_own_version() {
        let mut overlay = Overlay::new(OverlaySpace::new(0));
        overlay.add(tip(5, 2), logged(10), [page(1, 5), page(2, 5)]);
        overlay.add(tip(6, 2), logged(10), [page(1, 6)]);
        let first = PageNo::new(1).unwrap();
        let byte = |at| overlay.page(first, Lsn::new(at)).map(|version| version.page.as_bytes()[0]);
        assert_eq!((byte(4), byte(5), byte(6), byte(9)), (None, Some(5), Some(6), Some(6)));
        assert!(overlay.page(first, None).is_none());
        assert_eq!(overlay.page(first, Lsn::new(6)).unwrap().patches_in_a_row, 1);
    }

    #[test]
    fn a_fold_knows_the_smallest_size_and_leaves_out_what_was_cut_off() {
        let mut overlay = Overlay::new(OverlaySpace::new(0));
        overlay.add(tip(1, 3), logged(10), [page(1, 1), page(2, 1), page(3, 1)]);
        overlay.add(tip(2, 1), logged(20), [page(1, 2)]);
        overlay.add(tip(3, 2), logged(30), [page(2, 3)]);
        let changes = overlay.changes(None, tip(3, 2));
        assert_eq!(changes.page_count_min, 1);
        let bytes: Vec<u8> = changes.pages.values().map(|page| page.as_bytes()[0]).collect();
        assert_eq!(bytes, [2, 3]);
        assert_eq!(overlay.changes(Lsn::new(2), tip(3, 2)).pages.len(), 1);
        let three = Lsn::new(3).unwrap();
        assert_eq!(overlay.unfolded(Lsn::new(1), three), Unfolded { encoded_bytes: 50, page_bytes: 5 * 4096 });
    }

    #[test]
    fn commits_are_kept_until_they_are_folded_and_only_all_of_them_are_of_use() {
        let space = OverlaySpace::new(0);
        let mut overlay = Overlay::new(space.clone());
        let commit = |byte| Some(Bytes::copy_from_slice(&[byte; 100]));
        overlay.add(tip(1, 1), logged(100), [page(1, 1)]);
        overlay.add(tip(2, 1), Encoding { kept: commit(2), ..logged(100) }, [page(1, 2)]);
        overlay.add(tip(3, 1), Encoding { kept: commit(3), ..logged(100) }, [page(1, 3)]);
        let lsn = |lsn| Lsn::new(lsn).unwrap();
        assert_eq!(overlay.kept(None, lsn(3)), None);
        assert_eq!(overlay.kept(Lsn::new(1), lsn(3)), Some(vec![commit(2).unwrap(), commit(3).unwrap()]));
        assert_eq!(space.bytes(), 3 * 4096 + 200);
        overlay.forget(lsn(2));
        assert_eq!((overlay.bytes(), space.bytes()), (4096 + 100, 4096 + 100));
    }

    #[test]
    fn pages_that_are_parts_of_their_commit_count_once_and_what_is_set_aside_goes_with_it() {
        let cache = segments::cache::PageCache::new(1 << 20);
        let mut set_aside = cache.lend();
        set_aside.set(5000);
        let space = OverlaySpace::new(0);
        let mut overlay = Overlay::new(space.clone());
        let encoding = Encoding { shared_pages: 2, set_aside: Some(set_aside), ..logged(2 * 4096 + 70) };
        overlay.add(tip(1, 3), encoding, [page(1, 1), page(2, 1), page(3, 1)]);
        overlay.add(tip(2, 3), logged(10), [page(1, 2)]);
        assert_eq!((overlay.bytes(), space.all_bytes()), (4 * 4096 + 70, 4 * 4096 + 70));
        let lsn = |lsn| Lsn::new(lsn).unwrap();
        assert_eq!((overlay.set_aside(None, lsn(2)), overlay.set_aside(Lsn::new(1), lsn(2))), (5000, 0));
        overlay.folded(lsn(1));
        assert_eq!((overlay.bytes(), cache.lent_bytes()), (4 * 4096 + 70, 0), "somebody reads it");
        overlay.forget(lsn(1));
        assert_eq!(overlay.bytes(), 4096);
    }

    #[test]
    fn what_one_database_has_beyond_its_own_bound_is_known_and_not_counted() {
        let space = OverlaySpace::new(0);
        let mut overlay = Overlay::new(space.clone());
        let kept = Some(Bytes::from(vec![0; limits::OVERLAY_BYTES_MAX]));
        overlay.add(tip(1, 1), Encoding { kept, ..logged(limits::OVERLAY_BYTES_MAX) }, [page(1, 1)]);
        assert_eq!((space.bytes(), space.all_bytes()), (limits::OVERLAY_BYTES_MAX, limits::OVERLAY_BYTES_MAX + 4096));
        drop(overlay);
        assert_eq!((space.bytes(), space.all_bytes()), (0, 0));
    }

    #[test]
    fn forgetting_gives_the_bytes_back_and_so_does_the_end() {
        let space = OverlaySpace::new(0);
        let mut overlay = Overlay::new(space.clone());
        overlay.add(tip(1, 1), logged(10), [page(1, 1)]);
        overlay.add(tip(2, 1), logged(10), [page(1, 2)]);
        let lsn = |lsn| Lsn::new(lsn).unwrap();
        overlay.forget(lsn(1));
        assert_eq!((overlay.bytes(), space.bytes()), (4096, 4096));
        assert_eq!(overlay.tip(lsn(2)), Some(tip(2, 1)));
        assert_eq!(overlay.tip(lsn(1)), None);
        overlay.forget(lsn(2));
        assert_eq!((overlay.bytes(), space.bytes()), (0, 0));
        overlay.add(tip(3, 1), logged(10), [page(1, 3)]);
        assert_eq!(space.bytes(), 4096);
        drop(overlay);
        assert_eq!(space.bytes(), 0);
    }
}
