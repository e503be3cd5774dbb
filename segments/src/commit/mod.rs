//! What one commit carries in the log.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version, 1 |
//! | 1 | codec of the body: 0 as is, 1 zstd |
//! | 8 | LSN |
//! | 8 | time in microseconds since the Unix epoch, greater than the previous commit's |
//! | 4 | size of the database after the commit, in pages |
//! | 8 | pages in all commits of this history, this one included (repeated pages count each time) |
//! | 16 | chain hash of the previous commit |
//! | 16 | chain hash of this commit: BLAKE3 over all other bytes of its encoding |
//! | 4 | length of the body before compression |
//! | … | the body |
//!
//! The body, with `v` for a variable-length integer:
//!
//! | bytes | what |
//! |---|---|
//! | v | number of pages, then for each page in ascending order: |
//! | v | page number − previous page number (the first: its number) |
//! | 1 | kind: 0 whole, 1 zeros, 2 patch |
//! | 4096 | *whole:* the page |
//! | v | *patch:* LSN of this commit − LSN of the commit that last wrote the page |
//! | 4, 4 | CRC-32C of that version and of the result |
//! | v | number of runs, then for each run: |
//! | v, v, n | bytes skipped since the end of the previous run; n; the bytes that stand there now |
//!
//! # Rules that [`UncheckedCommit::check`] enforces
//! LSNs are dense, times rise, the chain hash is that of the history so far (invariant I2). A commit
//! that makes the database larger contains *every* page that it adds, zeros included, so that each page of a
//! database has a source (I10); [`Commit::new`] sees to that. Nobody contains the lock page. A page that
//! the previous state did not have is never a patch, so a page that a shrink cut off never comes back.

mod decode;
mod encode;
mod patch;

use std::collections::BTreeMap;

pub use decode::{ApplyError, CheckedCommit, UncheckedCommit};
pub use encode::{Base, Encoded, Front, encode, encode_behind};
use walstore::id::Lsn;
use walstore::mutant::{self, Mutant};

use crate::limits;
use crate::page::{Page, PageNo};
use crate::tip::{ChainHash, Tip};

/// Length of an encoded commit before its body.
pub const HEADER_BYTES: usize = 66;
const VERSION: u8 = 1;
const CODEC_RAW: u8 = 0;
const CODEC_ZSTD: u8 = 1;
const KIND_WHOLE: u8 = 0;
const KIND_ZERO: u8 = 1;
const KIND_PATCH: u8 = 2;
/// Where the commit's own chain hash stands in its encoding.
const CHAIN: std::ops::Range<usize> = 46..62;

/// A committed transaction, with whole pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub lsn: Lsn,
    pub time_micros: u64,
    /// Size of the database after the commit.
    pub page_count: u32,
    /// Pages in all commits of this history, this one included.
    pub pages_total: u64,
    /// In ascending order.
    pub pages: Vec<(PageNo, Page)>,
}

/// A transaction with more pages than a commit may have. It must be refused before SQLite commits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the transaction changes {pages} pages, more than {}", limits::COMMIT_PAGES_MAX)]
pub struct CommitTooLarge {
    pub pages: u64,
}

impl Commit {
    /// The commit that follows `tip` and leaves `page_count` pages, of which `pages` changed.
    ///
    /// Pages beyond the new size are left out. Pages that the database grew by and that SQLite did not
    /// write (it skips pages that are free when it commits) are added as zeros.
    pub fn new(
        tip: &Tip,
        now_micros: u64,
        page_count: u32,
        mut pages: BTreeMap<PageNo, Page>,
    ) -> Result<Self, CommitTooLarge> {
        pages.retain(|page, _| page.get() <= page_count && *page != PageNo::LOCK_PAGE);
        let grown = page_count.saturating_sub(tip.page_count);
        if grown as usize > limits::COMMIT_PAGES_MAX {
            return Err(CommitTooLarge { pages: u64::from(grown) });
        }
        for page in PageNo::grown(tip.page_count, page_count) {
            if mutant::is_on(Mutant::IgnoreValidUpto) {
                break;
            }
            pages.entry(page).or_insert_with(Page::zeroed);
        }
        if pages.len() > limits::COMMIT_PAGES_MAX {
            return Err(CommitTooLarge { pages: pages.len() as u64 });
        }
        Ok(Self {
            lsn: Lsn::after(tip.lsn),
            time_micros: now_micros.clamp(tip.time_micros + 1, limits::TIME_MICROS_MAX.max(tip.time_micros + 1)),
            page_count,
            pages_total: tip.pages_total + pages.len() as u64,
            pages: pages.into_iter().collect(),
        })
    }

    /// The state of the history after this commit, whose encoding hashes to `chain`.
    pub fn tip(&self, chain: ChainHash) -> Tip {
        Tip {
            lsn: Some(self.lsn),
            time_micros: self.time_micros,
            page_count: self.page_count,
            pages_total: self.pages_total,
            chain,
        }
    }
}

/// The chain hash of an encoded commit: over everything but itself.
fn chain_hash(encoded: &[u8]) -> ChainHash {
    ChainHash::over(&[&encoded[..CHAIN.start], &encoded[CHAIN.end..]])
}

/// What makes a commit unfit to follow `tip`, in words; `pages` in ascending order.
fn objection(
    tip: &Tip,
    lsn: Lsn,
    time_micros: u64,
    page_count: u32,
    pages_total: u64,
    pages: impl Iterator<Item = PageNo>,
) -> Option<String> {
    let (mut count, mut added) = (0u64, 0u32);
    for page in pages {
        count += 1;
        added += u32::from(page.get() > tip.page_count);
    }
    let to_add = PageNo::grown(tip.page_count, page_count.max(tip.page_count));
    if lsn.get().checked_sub(1) != Some(Lsn::raw(tip.lsn)) {
        Some(format!("LSN {lsn} after LSN {}", Lsn::raw(tip.lsn)))
    } else if time_micros <= tip.time_micros || time_micros > limits::TIME_MICROS_MAX {
        Some(format!("time {time_micros} after {}", tip.time_micros))
    } else if tip.pages_total.checked_add(count) != Some(pages_total) {
        Some(format!("{pages_total} pages in total after {} and {count} more", tip.pages_total))
    } else if page_count > limits::DATABASE_PAGES_MAX {
        Some(format!("a database of {page_count} pages"))
    } else if added as usize != to_add.take(limits::COMMIT_PAGES_MAX + 1).count() {
        Some(format!("grows from {} to {page_count} pages with {added} new ones", tip.page_count))
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
