//! A finished transaction becomes a commit: encoded, visible to later writers, and on its way into the log.
//!
//! A large one is in memory once or twice, and never more often: its pages are parts of its encoding, if that is not
//! half as long, and the side object in which it goes to the bucket is made around the encoding.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use segments::cache::Loan;
use segments::commit::{self, Commit, CommitTooLarge, Encoded, Front};
use segments::page::{PAGE_BYTES, Page, PageNo};
use segments::tip::Tip;
use walstore::fragment::Entry;
use walstore::id::Lsn;
use walstore::log;
use walstore::side::{self, SideId};

use super::Database;
use super::overlay::{Encoding, Version};

impl Database {
    /// Gives a finished transaction its place in history: visible to later writers at once, queued for
    /// the log, durable later. The caller holds the turn, and has borrowed memory for the pages and what comes of them.
    pub fn publish(&self, pages: BTreeMap<PageNo, Page>, page_count: u32, loan: Loan) -> Result<Lsn, CommitTooLarge> {
        let before = self.newest.get();
        let now_micros = self.node.now_micros().max(self.created_micros.get());
        let mut commit = Commit::new(&before, now_micros, page_count, pages)?;
        let (encoded, side) = self.encode(&commit, &before);
        let lsn = commit.lsn;
        let shared_pages = encoded.share_pages(&mut commit);
        let kept = self.keeps_commits.get().then(|| encoded.bytes.clone());
        let set_aside = self.set_aside(loan, &commit, &encoded, shared_pages);
        let encoding = Encoding { bytes: encoded.bytes.len(), kept, shared_pages, set_aside };
        self.add(commit, encoded.tip, encoded.patched, encoding);
        self.feed.published(lsn, encoded.bytes.clone());
        let entry = Entry { database: self.id, epoch: self.epoch, lsn, bytes: encoded.bytes.into() };
        self.node.log.append(log::Commit { entry, window_micros: self.window_micros, home: self.home, side });
        Ok(lsn)
    }

    /// Encodes a commit, and if it is large makes its side object in the same memory.
    fn encode(&self, commit: &Commit, before: &Tip) -> (Encoded, Option<side::Made>) {
        let id = SideId { incarnation: self.node.id, database: self.id, epoch: self.epoch, lsn: commit.lsn };
        let nonce = OnceCell::new();
        let write = |front: &mut [u8], encoded: &[u8]| {
            let nonce = *nonce.get_or_init(|| self.node.seam.random_id());
            side::write_front(front, encoded, id, nonce);
        };
        let front = Front { bytes: side::FRONT_BYTES, write: &write };
        let mut encoded = commit::encode_behind(commit, before, &|page_no| self.patch_base(page_no), front);
        let object = encoded.behind_front.take();
        let side = nonce.get().copied().zip(object).map(|(nonce, object)| side::Made { nonce, object });
        (encoded, side)
    }

    /// The newest version of a page, if it is in memory: what a patch may build on.
    fn patch_base(&self, page_no: PageNo) -> Option<commit::Base> {
        let overlay = self.overlay.borrow();
        if let Some(version) = overlay.page(page_no, self.newest.get().lsn) {
            let Version { lsn, patches_in_a_row, .. } = *version;
            return Some(commit::Base { lsn, page: version.page.clone(), patches_in_a_row });
        }
        let base = self.base();
        let page = base.resident_page(&self.node.cache, page_no)?;
        Some(commit::Base { lsn: base.tip.lsn?, page, patches_in_a_row: 0 })
    }

    /// What of the memory that was lent for a transaction is kept until it is folded: enough for the pack of its pages, and
    /// then for that of the commit itself. The pages are the overlay's from here on. Nothing for a small one.
    fn set_aside(&self, mut loan: Loan, commit: &Commit, encoded: &Encoded, shared_pages: usize) -> Option<Loan> {
        let page_bytes = commit.pages.len() * PAGE_BYTES;
        if page_bytes <= self.node.settings.small_transaction_bytes {
            return None;
        }
        // What does not compress as a commit does not in a pack; what does, does there about as well.
        loan.set(if shared_pages > 0 { page_bytes } else { page_bytes.min(encoded.bytes.len() * 3 / 2) });
        Some(loan)
    }
}
