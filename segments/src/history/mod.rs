//! The **history index**: from which objects the state after any commit of the retention window can be made.
//!
//! ```text
//!   LSN   start ──run──run──base──run──run──run──base──run──▶ end = the folded point
//!         └── chunk objects ──┘└────── entries in the head ───┘
//! ```
//!
//! - A [`Run`]: the commits that one fold folded, as they were in the log. They lie in the history section of that fold's
//!   pack ([`crate::pack::history`]).
//! - A **base** ([`crate::base`]): a folded state. The state after commit L is the newest base at or before L and the
//!   commits of the runs after it. A history that starts before the first commit begins with the empty database.
//!
//! Entries follow one another without a gap: that is so by their encoding, which holds only how many commits each has.
//! The newest stand in the head; older ones are in **chunks**, immutable objects (module `chunk`).
//!
//! Bases at which forks begin are **pinned**: they are listed beside the entries, and stay when history has been trimmed.
//!
//! Everything here is pure. Objects are read and written by the caller, who gives fresh ids and what he has read.

mod chunk;
mod codec;
mod find;
mod index;

use walstore::id::Lsn;

pub use chunk::{HistoryChunk, HistoryChunkRef};
pub use find::{AtTime, Path, Start};
pub use index::HistoryIndex;

use crate::base::BaseRef;
use crate::id::PackId;
use crate::pack::Section;

/// The commits that one fold folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub pack: PackId,
    /// Where in the pack they are.
    pub section: Section,
    pub first: Lsn,
    pub last: Lsn,
    /// Time of the last one, in microseconds since the Unix epoch.
    pub last_micros: u64,
}

/// One step of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    Base { lsn: Lsn, base: BaseRef },
    Run(Run),
}

impl Entry {
    /// The commit up to which this entry leads.
    pub fn end(&self) -> Lsn {
        match self {
            Self::Base { lsn, .. } => *lsn,
            Self::Run(run) => run.last,
        }
    }

    pub(crate) fn base(&self) -> Option<(Lsn, BaseRef)> {
        match self {
            Self::Base { lsn, base } => Some((*lsn, *base)),
            Self::Run(_) => None,
        }
    }

    pub(crate) fn run(&self) -> Option<&Run> {
        match self {
            Self::Run(run) => Some(run),
            Self::Base { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
