//! **Fold**: the tail of the log becomes a pack and a new page map. **Merge**: older deltas become segments.
//! Both happen in one step, planned here without any input or output:
//!
//! ```text
//!   FoldInput ──plan_fold──▶ Needs(chunks, indexes) ──(read them)──▶ plan_fold again
//!                   │
//!                   └──▶ FoldPlan ──(read plan.reads())──▶ build_fold ──▶ pack, new map, dead packs
//!                                                             │
//!                      (caller) PUT pack, PUT map chunks, CAS head, then forget the dead
//! ```
//!
//! # What is written
//! - A segment all of whose pages are in the tail is written whole. Other pages go to the pack's delta, one
//!   frame for each touched segment: never 128 KB for one dirty page.
//! - **Merge** when all deltas together would weigh more than half of the database or
//!   [`limits::DELTA_PAGES_MAX`]: the segments with the most delta pages are read and written whole. Their
//!   number is bounded by about the number of pages that the fold writes anyway, so that a small fold
//!   stays small and a large one pays its debt.
//! - **Absorb** when there would be more than [`limits::DELTAS_TARGET`] deltas: the live pages of the smallest
//!   are copied into the new delta. Smallest first makes their sizes grow geometrically, so a page is copied
//!   a logarithmic number of times. What is copied is bounded by four times what the fold writes anyway; then
//!   there can be a few more deltas for a while, but never more than [`limits::DELTAS_MAX`].
//! - A delta none of whose pages is the newest version any more is dropped.
//!
//! A fold without commits ([`FoldInput::new`] and nothing added) merges if there is something to merge.
//!
//! # Elsewhere
//! Only [`build_fold`] takes time and reads what is merged. It can be left to another process: the plan becomes an
//! [order](PackOrder), and the pack that comes of it is [checked](FoldPlan::check) and goes on as if it was made here
//! ([`fold_with`]). The plan, and the map that follows from it, stay with the owner.
//!
//! # Small databases
//! A database of which an [image](crate::image) fits into its head is written whole by every fold, and nothing of it
//! goes into the bucket ([`wants_image`], [`plan_whole`]). One that outgrows it becomes a pack in the very same way.
//!
//! # Shrink and regrow
//! The old map is first cut to the *smallest* size that the database had in the tail. Every page beyond it
//! that exists now was written since (see [`crate::commit`]), so it stands in the tail.

mod build;
mod check;
mod compact;
mod input;
mod merge;
mod order;
mod plan;
mod whole;

pub use build::{Folded, build_fold, fold_with};
pub use compact::{plan_compaction, plan_own_compaction};
pub use input::{FoldInput, fold_is_due};
pub use order::PackOrder;
pub use plan::{FoldPlan, Planned, plan_fold};
pub use whole::{plan_whole, wants_image};
use walstore::envelope::Corrupt;

#[cfg(any(doc, test))]
use crate::limits;
use crate::pack::{FrameAt, PackTooLarge};
use crate::page::{MissingPage, PageNo};

/// Why a fold cannot be made. Nothing has been written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    #[error(transparent)]
    Missing(#[from] MissingPage),
    /// The tail grows the database without giving it this page.
    #[error("the tail leaves page {page} undefined in a database of {page_count} pages")]
    Hole { page: PageNo, page_count: u32 },
    #[error(transparent)]
    TooLarge(#[from] PackTooLarge),
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// The plan asked for this frame and did not get it.
    #[error("frame at {} of pack {} was not read", .0.frame.offset, .0.pack)]
    NotRead(FrameAt),
}

#[cfg(test)]
mod order_tests;
#[cfg(test)]
mod tests;
