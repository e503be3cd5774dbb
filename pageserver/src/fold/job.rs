//! What a fold is given, and what comes of it.

use segments::base::BaseRef;
use segments::fold::{FoldError, FoldInput};
use segments::image::Image;
use segments::map::PageMap;
use segments::tip::Tip;
use tenant::head::{Head, PackRef};
use tenant::lifecycle::{ForkRefused, NotFolded};
use tenant::record::NameRecord;
use tenant::registry::{ResolveError, SwapHeadError};
use walstore::id::{DatabaseId, Lsn};
use walstore::register::{RecordError, Versioned};
use walstore::store::StoreError;

/// What is folded, into what.
pub struct FoldJob {
    pub head: Versioned<Head>,
    pub map: PageMap,
    /// The tail, summed up.
    pub input: FoldInput,
    /// The history after the last commit of `input`.
    pub tip: Tip,
    /// The last commit before this owner's first one.
    pub own_after: Option<Lsn>,
    /// Counts this owner's folds up: makes pack ids of one epoch distinct.
    pub seq: u32,
    /// Entries of the dead list that have been deleted since.
    pub deleted: Vec<PackRef>,
    /// Give the database up in the same CAS; only if nothing is left unfolded.
    pub release: bool,
    /// Add a fork in the same CAS.
    pub pin: Option<FoldPin>,
}

/// A fork that begins in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoldPin {
    pub child: DatabaseId,
    pub at: PinAt,
}

/// Where a fork begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinAt {
    /// At the point that this fold folds up to, of which it stores a base if there is none yet.
    Folded,
    /// At an earlier commit, for which the child replays what comes after this base of the history; none is the empty
    /// database.
    Past { lsn: Option<Lsn>, base: Option<(Lsn, BaseRef)> },
}

/// A linked fold.
pub struct Linked {
    pub head: Versioned<Head>,
    pub map: PageMap,
    pub image: Option<Image>,
    /// The base of the fork that was pinned; none of an empty database.
    pub pinned: Option<(Lsn, BaseRef)>,
    /// Something may be unlinked that is on no dead list: [`crate::collect`] finds it.
    pub has_unlinked: bool,
    /// The record of the database's name, if the fold has asked for it.
    pub record: Option<Versioned<NameRecord>>,
}

#[derive(Debug, thiserror::Error)]
pub enum FoldFailure {
    #[error(transparent)]
    Plan(#[from] FoldError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Swap(#[from] SwapHeadError),
    #[error(transparent)]
    NotFolded(#[from] NotFolded),
    /// The name record does not say yet that the database was made. The head was not written.
    #[error(transparent)]
    Name(#[from] ResolveError),
    #[error("planning a fold asks for more and more")]
    Endless,
    #[error("forks of this database begin at too many different commits")]
    TooManyForks,
    #[error(transparent)]
    Fork(#[from] ForkRefused),
    /// It ended without saying how: whether it was linked is unknown.
    #[error("the fold was cut off")]
    CutOff,
    /// The head belongs to somebody else by now, or has ended. The work is discarded.
    #[error("the head has changed: epoch {}, owner {:?}", .0.value.epoch, .0.value.owner)]
    Lost(Box<Versioned<Head>>),
}

impl FoldFailure {
    /// Whether the fork that was to be pinned is refused: trying again does not help.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::TooManyForks | Self::Fork(_))
    }
}

impl From<StoreError> for FoldFailure {
    fn from(error: StoreError) -> Self {
        Self::Record(error.into())
    }
}
