//! **Forks** and restores in place: new databases that begin with a state of another one, and share its packs.
//!
//! ```text
//!  fork:     [pack, base] ─▶ name record ─▶ [base] ─▶ parent's head: pin ─▶ head of the child
//!  restore:                 [base] ─▶ parent's head: pin ─▶ head of the child ─▶ old head: moved ─▶ name record
//! ```
//!
//! However large the parent is, a fork writes these small objects and nothing else: the child's head refers to a stored
//! base, and that to the parent's packs. The base is written only if the state has none yet; a database that is itself
//! a fork and has folded nothing since hands on the one it began with.
//!
//! A fork of a past state begins with the newest base before it, which is pinned; the commits from there on are replayed
//! and folded into a pack of its own.
//!
//! The name record says which base the child will begin with, as a hint for whoever opens it. So what a fold has yet to
//! store comes before it.
//!
//! What a crash leaves is undone by whoever meets it: a claimed name by [`tenant::registry::resolve_head`], a pin
//! without a child and a child without a name by the [sweep](crate::sweep).
//!
//! The caller owns the parent, has folded all that is to be shared, and writes nothing else of its head meanwhile. A
//! parent that has ended may be forked by anybody.

mod beginning;
mod restore;

use futures_util::future::BoxFuture;
use segments::base::BaseRef;
use segments::id::MapChunkId;
use segments::keys;
use tenant::head::{ChunkRef, ForkPoint, Head, TailEntry};
use tenant::keys::Written;
use tenant::lifecycle::{self, Beginning, ForkRefused, NotFolded};
use tenant::name::Name;
use tenant::record::NameRecord;
use tenant::registry::{self, ChildError, CreateError, GivenUp, ResolveError, SwapHeadError};
use tenant::settings::Settings;
use tracing::warn;
use walstore::id::{DatabaseId, IncarnationId, Lsn, PutId};
use walstore::mutant::{self, Mutant};
use walstore::register::{self, Patience, RecordError, Swap, Versioned};
use walstore::seam::Seam;
use walstore::store::{Store, StoreError};

use self::beginning::Source;
pub use self::restore::{Restore, Restored};
use crate::fetcher::Fetcher;
use crate::fold::{FoldFailure, FoldJob, FoldPin, Folder, Linked, PinAt};
use crate::history::{PastError, Room, index_of};
use crate::limits;

/// Who forks, and where.
pub struct Forker<'a> {
    pub store: &'a dyn Store,
    pub seam: &'a Seam,
    pub fetcher: &'a Fetcher,
    /// Learns of forks whose names may come to lead to them although they will never be.
    pub given_up: &'a GivenUp,
    pub me: IncarnationId,
    pub patience: Patience,
    /// For the pages of a state that lies between two bases.
    pub room: &'a dyn Room,
}

/// A fork that lives.
#[derive(Debug)]
pub struct Forked {
    pub child: Versioned<Head>,
    /// The parent, as it is now.
    pub parent: Versioned<Head>,
}

#[derive(Debug, thiserror::Error)]
pub enum ForkFailure {
    #[error(transparent)]
    Refused(#[from] ForkRefused),
    /// Forks of one database begin at a bounded number of points, however many there are at each.
    #[error("forks of the database {0} begin at too many different points; delete some")]
    TooManyPoints(DatabaseId),
    #[error(transparent)]
    Past(#[from] PastError),
    #[error(transparent)]
    Fold(#[from] FoldFailure),
    #[error(transparent)]
    Name(#[from] CreateError),
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Swap(#[from] SwapHeadError),
    #[error(transparent)]
    NotFolded(#[from] NotFolded),
    /// The database is restored, but its name leads to the old one still. Whoever meets it swings it.
    #[error("it is restored, and will be seen when its name can be led there: {0}")]
    NotSwung(#[from] ResolveError),
    /// The parent belongs to somebody else by now, or has ended, or was folded.
    #[error("the head has changed: epoch {}, owner {:?}", .0.value.epoch, .0.value.owner)]
    Lost(Box<Versioned<Head>>),
    #[error("the head of the parent changes under every try")]
    Restless,
}

impl From<StoreError> for ForkFailure {
    fn from(error: StoreError) -> Self {
        Self::Record(error.into())
    }
}

impl From<walstore::envelope::Corrupt> for ForkFailure {
    fn from(corrupt: walstore::envelope::Corrupt) -> Self {
        Self::Record(corrupt.into())
    }
}

impl Forker<'_> {
    /// Makes the fork `name` of `parent` as it was after `at`.
    pub fn fork<'a>(
        &'a self,
        parent: Versioned<Head>,
        at: Option<Lsn>,
        name: &'a Name,
        settings: Settings,
    ) -> BoxFuture<'a, Result<Forked, ForkFailure>> {
        Box::pin(self.claim_and_make(parent, at, name, settings))
    }

    async fn claim_and_make(
        &self,
        parent: Versioned<Head>,
        at: Option<Lsn>,
        name: &Name,
        settings: Settings,
    ) -> Result<Forked, ForkFailure> {
        self.check_owner(&parent)?;
        lifecycle::check_fork(&parent.value, at)?;
        let child = DatabaseId::random(self.seam);
        let point = ForkPoint { parent: parent.value.database, lsn: at };
        // Whoever opens the fork finds in its name where to begin. Of the newest state that is known without a request.
        let source = if parent.value.folded.lsn == at { Some(self.source(&parent.value, at).await?) } else { None };
        let base = match &source {
            Some(source) => source.base().map(|(_, base)| base),
            None => at.map(|lsn| Ok::<_, ForkFailure>(index_of(&parent.value)?.base_at(lsn))).transpose()?.flatten(),
        };
        let claimed = self.claim(name, child, point, base).await?;
        let made = self.make(parent, at, (name, child), settings, source).await;
        if made.is_err() {
            self.give_up(&claimed).await;
        }
        made
    }

    /// The same for the newest state, of which `job` is to fold the tail: all in one write of the parent. Answers what
    /// the fold came to, whatever became of the child: the caller's database goes on from there.
    pub async fn fork_folding(
        &self,
        job: FoldJob,
        name: &Name,
        settings: Settings,
    ) -> Result<(Linked, Result<Versioned<Head>, ForkFailure>), ForkFailure> {
        let child = DatabaseId::random(self.seam);
        let point = ForkPoint { parent: job.head.value.database, lsn: job.tip.lsn };
        let job = FoldJob { pin: Some(FoldPin { child, at: PinAt::Folded }), ..job };
        let folder = Folder { store: self.store, seam: self.seam, fetcher: self.fetcher };
        let prepared = folder.prepare(job).await?;
        let claimed = match self.claim(name, child, point, prepared.base()).await {
            Ok(claimed) => claimed,
            Err(failure) => {
                folder.discard(prepared).await;
                return Err(failure);
            }
        };
        let linked = match folder.link_prepared(prepared).await {
            Ok(linked) => linked,
            Err(failure) => {
                self.give_up(&claimed).await;
                return Err(failure.into());
            }
        };
        let beginning = beginning::of_fold(&linked);
        let made = self.bear(&linked.head.value, (name, child), beginning, settings).await;
        if made.is_err() {
            self.give_up(&claimed).await;
        }
        Ok((linked, made))
    }

    /// Claims the name, which is to lead to a fork that begins with `base`.
    async fn claim(
        &self,
        name: &Name,
        child: DatabaseId,
        point: ForkPoint,
        base: Option<BaseRef>,
    ) -> Result<Versioned<NameRecord>, ForkFailure> {
        let (store, seam, patience) = (self.store, self.seam, self.patience);
        let base = base.map(|base| ChunkRef(base.to_bytes()));
        let claimed = registry::claim_fork(store, seam, (name, child), point, base, self.me, patience).await;
        Ok(claimed.inspect_err(|error| self.given_up.add_if_unknown(child, error))?)
    }

    /// Only who owns a living parent knows that nothing else of its head is being written.
    fn check_owner(&self, parent: &Versioned<Head>) -> Result<(), ForkFailure> {
        match parent.value.state.is_final() || parent.value.owner == Some(self.me) {
            true => Ok(()),
            false => Err(ForkFailure::Lost(Box::new(parent.clone()))),
        }
    }

    /// Gives the name back. If that fails, whoever wants the name on this node does it.
    async fn give_up(&self, claimed: &Versioned<NameRecord>) {
        let abandoned = registry::abandon_fork(self.store, self.seam, claimed, self.patience).await;
        if let Err(error) = abandoned {
            warn!(%error, name = %claimed.value.name, "cannot give the name of an unfinished fork back yet");
            self.given_up.add(claimed.value.database());
        }
    }

    /// Pins what the child begins with, and brings it to life. `source` is that of `parent` as it is, if it is known.
    async fn make(
        &self,
        mut parent: Versioned<Head>,
        at: Option<Lsn>,
        (name, child): (&Name, DatabaseId),
        settings: Settings,
        mut source: Option<Source>,
    ) -> Result<Forked, ForkFailure> {
        for round in 0..limits::FORK_ROUNDS_MAX {
            if round == 0 || !mutant::is_on(Mutant::OldHorizon) {
                lifecycle::check_fork(&parent.value, at)?;
            }
            let begins = match source.take() {
                Some(source) => source,
                None => self.source(&parent.value, at).await?,
            };
            let pinned = match &begins {
                // Nothing of the parent's is needed, and nothing is written before the child.
                Source::Empty => Ok(parent.clone()),
                Source::Shared { .. } | Source::Past { .. } => self.pin(&parent, child, at, &begins).await?,
            };
            match pinned {
                Ok(parent) => {
                    let beginning = self.beginning(&parent.value, name, child, begins).await?;
                    let child = self.bear(&parent.value, (name, child), beginning, settings).await?;
                    return Ok(Forked { child, parent });
                }
                Err(found) if is_same_state(&parent.value, &found.value) => {
                    parent = *found;
                    source = Some(begins).filter(|_| mutant::is_on(Mutant::OldHorizon));
                }
                Err(found) => return Err(ForkFailure::Lost(found)),
            }
        }
        Err(ForkFailure::Restless)
    }

    async fn bear(
        &self,
        parent: &Head,
        (name, child): (&Name, DatabaseId),
        beginning: Beginning,
        settings: Settings,
    ) -> Result<Versioned<Head>, ForkFailure> {
        let head = lifecycle::child_head(name, child, beginning, settings, PutId::random(self.seam));
        let head = if mutant::is_on(Mutant::ForeignTail) { with_tail_of(parent, head) } else { head };
        Ok(registry::create_child(self.store, self.seam, head, self.patience).await?)
    }

    /// One write of the parent: the pin, and the base that it keeps. `Err`: the head that is there instead.
    async fn pin(
        &self,
        parent: &Versioned<Head>,
        child: DatabaseId,
        at: Option<Lsn>,
        source: &Source,
    ) -> Result<Result<Versioned<Head>, Box<Versioned<Head>>>, ForkFailure> {
        let mut next = parent.value.successor(PutId::random(self.seam));
        let (seq, mut has_written) = (next.fold_seq + 1, false);
        let base = source.base();
        if let Some((lsn, base)) = base {
            let mut history = index_of(&next)?;
            if !history.pin(lsn, base) {
                return Err(ForkFailure::TooManyPoints(next.database));
            }
            next.history = history.encode();
            if let Some(object) = source.object() {
                register::put(self.store, self.seam, &keys::page_map(&base.id), object.clone(), self.patience).await?;
                has_written = true;
            }
        }
        let written = Written { epoch: next.epoch, seq, nonce: self.seam.random_u64() };
        let key = tenant::keys::pins(next.database, written);
        if let Some(chunk) = lifecycle::spill_pins(&mut next, &key)? {
            register::put(self.store, self.seam, &key, chunk.encode(), self.patience).await?;
            has_written = true;
        }
        if has_written {
            next.fold_seq = seq;
        }
        lifecycle::pin(&mut next, child, base.map(|(lsn, _)| lsn), at)?;
        self.swap(parent, next).await
    }

    /// Whether it was written must be known before anything goes on, so it is asked for without end.
    pub(super) async fn swap(
        &self,
        before: &Versioned<Head>,
        next: Head,
    ) -> Result<Result<Versioned<Head>, Box<Versioned<Head>>>, ForkFailure> {
        match registry::swap_head(self.store, self.seam, before, next, Patience::endless()).await? {
            Swap::Won(head) => Ok(Ok(head)),
            Swap::Lost(Some(found)) => Ok(Err(Box::new(found))),
            Swap::Lost(None) => unreachable!("BUG: swap_head reports a missing head as an error"),
        }
    }

    /// The id of an object that the next write of `head` links.
    fn next_id(&self, head: &Head) -> MapChunkId {
        let (owner, epoch) = (head.database, head.epoch);
        MapChunkId { owner, epoch, seq: head.fold_seq + 1, nonce: self.seam.random_u64() }
    }
}

/// A fork as [`Mutant::ForeignTail`] has it.
fn with_tail_of(parent: &Head, fork: Head) -> Head {
    let after = |entry: &TailEntry| entry.after.min(fork.folded.lsn);
    let tail = parent.tail.iter().map(|entry| TailEntry { after: after(entry), ..*entry }).collect();
    Head { owner: parent.owner, epoch: parent.epoch, tail, ..fork }
}

/// Whether nothing has come between but pins and settings. A fold or a compaction of the owner's own, whose answer was an
/// error, may have: then what its caller holds in memory is not what this head says, and the caller has to know.
fn is_same_state(before: &Head, found: &Head) -> bool {
    let is_same_term = before.owner == found.owner && before.epoch == found.epoch && before.state == found.state;
    is_same_term && before.folded == found.folded && before.map == found.map
}
