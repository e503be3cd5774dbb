//! Draining one database: its tail becomes a pack, and nobody owns it.

use segments::page::PAGE_BYTES;
use tenant::head::Head;
use tenant::{draining, registry};
use tracing::debug;
use walstore::envelope::Corrupt;
use walstore::id::{DatabaseId, IncarnationId, Lsn};
use walstore::recovery::LoggedCommit;
use walstore::register::{RecordError, Versioned};
use walstore::seal::SealError;

use super::{Drainer, LastLsns};
use crate::fold::{FoldFailure, FoldJob, Folder};
use crate::limits;
use crate::tail::{Added, Tail};

/// What draining a database came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its head needs nothing of the log.
    NotNeeded,
    Folded,
    /// Somebody who may live has it. His folds take care of it.
    Owned,
}

#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    #[error(transparent)]
    Log(#[from] SealError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Fold(#[from] FoldFailure),
    #[error("its head or its logs change under every try")]
    Restless,
}

impl From<Corrupt> for DrainError {
    fn from(corrupt: Corrupt) -> Self {
        Self::Record(corrupt.into())
    }
}

/// Somebody took a head that was lost for one that never was. The log is kept, since all of the database is there.
fn made_anew(head: &Head, id: IncarnationId, lsn: Lsn) -> Corrupt {
    let reason = format!("it knows nothing of commit {lsn}, which is in the log of {id}: it was lost, and made anew");
    Corrupt::new(reason).at(tenant::keys::head(head.database))
}

/// A commit of a tail, and in whose log it is.
type TailCommit = (IncarnationId, LoggedCommit);

impl Drainer {
    /// Drains `database`, which has commits up to `last` in the log of `id`.
    pub(super) async fn drain_database(
        &self,
        id: IncarnationId,
        database: DatabaseId,
        last: &LastLsns,
    ) -> Result<Outcome, DrainError> {
        for _ in 0..limits::DRAIN_ROUNDS_MAX {
            let patience = self.access().patience;
            let head = registry::read_head(&*self.stores.main, &self.seam, database, patience).await?;
            // Heads are never deleted, and nobody logs commits before his head is there.
            let key = tenant::keys::head(database);
            let head = head.ok_or_else(|| Corrupt::new(format!("{id} has commits of it, but it is not there")).at(key))?;
            if let Some(lsn) = draining::unknown_to(&head.value, id, last) {
                return Err(made_anew(&head.value, id, lsn).into());
            }
            if !draining::needs(&head.value, id, last) {
                return Ok(Outcome::NotNeeded);
            }
            for entry in &head.value.tail {
                if !self.is_sealed(entry.incarnation).await? {
                    return Ok(Outcome::Owned);
                }
            }
            match self.fold_tail(head).await {
                Ok(()) => return Ok(Outcome::Folded),
                // Somebody was faster: the work is discarded.
                Err(DrainError::Fold(FoldFailure::Lost(_))) => {}
                Err(DrainError::Log(SealError::Stale(key))) => debug!(%database, key, "a log changed meanwhile"),
                Err(error) => return Err(error),
            }
        }
        Err(DrainError::Restless)
    }

    pub(super) async fn release_head(&self, database: DatabaseId) -> Result<bool, DrainError> {
        let patience = self.access().patience;
        let head = registry::read_head(&*self.stores.main, &self.seam, database, patience).await?;
        let Some(head) = head.filter(|head| head.value.owner.is_some()) else { return Ok(false) };
        for entry in &head.value.tail {
            if !self.is_sealed(entry.incarnation).await? {
                return Ok(false);
            }
        }
        match self.fold_tail(head).await {
            Ok(()) => Ok(true),
            Err(DrainError::Fold(FoldFailure::Lost(_))) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// One fold takes the whole tail and gives the database up, all in one CAS. Only a tail that is too large for
    /// one fold takes several; the last of them gives it up.
    async fn fold_tail(&self, mut head: Versioned<Head>) -> Result<(), DrainError> {
        let commits = self.tail_commits(&head.value).await?;
        // In memory they are as they were logged, and as pages: a page of which little was logged is there whole.
        let mut loan = self.fetcher.lend();
        let logged_bytes = commits.iter().map(|(_, commit)| commit.bytes.len()).sum::<usize>();
        loan.set(logged_bytes);
        let own_after = draining::own_after(&head.value, commits.iter().map(|(_, commit)| (commit.epoch, commit.lsn)));
        let folder = Folder { store: &*self.stores.main, seam: &self.seam, fetcher: &self.fetcher };
        let mut rest = &commits[..];
        for seq in head.value.fold_seq + 1.. {
            let mut tail = Tail::of_head(&self.fetcher, &head.value).await?;
            while let Some(((incarnation, commit), others)) = rest.split_first() {
                if tail.add(&self.fetcher, commit, *incarnation).await? == Added::Full {
                    break;
                }
                loan.set(logged_bytes + tail.input.pages.len() * PAGE_BYTES);
                rest = others;
            }
            let release = rest.is_empty();
            let Tail { map, input, tip, .. } = tail;
            let lsn = Lsn::raw(tip.lsn);
            // The dead list stays for the next owner: he knows his readers.
            let job = FoldJob { head, map, input, tip, own_after, seq, deleted: Vec::new(), release, pin: None };
            head = folder.fold(job).await?.head;
            if release {
                debug!(database = %head.value.database, lsn, "drained");
                return Ok(());
            }
        }
        unreachable!("BUG: more folds than a tail has commits")
    }

    /// Every commit after the folded point, in order.
    async fn tail_commits(&self, head: &Head) -> Result<Vec<TailCommit>, DrainError> {
        let mut commits: Vec<TailCommit> = Vec::new();
        let mut last = head.folded.lsn;
        for entry in &head.tail {
            let incarnation = entry.incarnation;
            let log = self.log(incarnation).await?;
            let logged = log.commits(self.access(), head.database, last).await;
            if matches!(logged, Err(SealError::Stale(_))) {
                self.forget_log(incarnation);
            }
            for commit in logged? {
                if Some(commit.lsn) > last && entry.holds(incarnation, commit.epoch, commit.lsn) {
                    last = Some(commit.lsn);
                    commits.push((incarnation, commit));
                }
            }
        }
        Ok(commits)
    }
}
