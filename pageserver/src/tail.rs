//! The tail of a database, made of the commits in sealed logs: what a fold by somebody who is not the owner needs.
//!
//! The owner of an open database has all this in memory. A drainer builds it from the head and the logs: each
//! commit is checked against the history so far, and its patches get their bases from the commits before or from
//! the pages at rest.

use std::collections::BTreeMap;

use bytes::Bytes;
use segments::base::BaseParts;
use segments::commit::{CheckedCommit, Commit, UncheckedCommit};
use segments::fold::FoldInput;
use segments::image::Image;
use segments::map::PageMap;
use segments::page::{Page, PageNo};
use segments::tip::Tip;
use tenant::head::Head;
use walstore::envelope::Corrupt;
use walstore::id::{DatabaseId, IncarnationId, Lsn};
use walstore::recovery::LoggedCommit;
use walstore::register::RecordError;

use crate::at_rest;
use crate::base::base_of;
use crate::fetcher::Fetcher;

/// What a head says is folded, and commits after that.
pub struct Tail {
    database: DatabaseId,
    pub map: PageMap,
    image: Option<Image>,
    pub input: FoldInput,
    /// The history after the last commit that was added.
    pub tip: Tip,
    /// Whether a fold of it keeps the commits.
    keeps_commits: bool,
}

/// Whether a commit is part of a tail now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    Yes,
    /// It does not fit into the same fold any more.
    Full,
}

impl Tail {
    /// What is folded of a database.
    pub async fn of_head(fetcher: &Fetcher, head: &Head) -> Result<Self, RecordError> {
        let base = base_of(fetcher, head).await?;
        Ok(Self { keeps_commits: keeps_commits(head), ..Self::of_base(head.database, base) })
    }

    /// The state that a base has, of `database` or of an ancestor.
    pub fn of_base(database: DatabaseId, base: BaseParts) -> Self {
        let BaseParts { tip, map, image } = base;
        Self { database, input: FoldInput::new(database, &map), map, image, tip, keeps_commits: false }
    }

    /// The pages that stand in the head itself.
    pub fn image(&self) -> Option<&Image> {
        self.image.as_ref()
    }

    pub fn database(&self) -> DatabaseId {
        self.database
    }

    /// Adds the next commit, from the log of `incarnation`.
    pub async fn add(
        &mut self,
        fetcher: &Fetcher,
        logged: &LoggedCommit,
        incarnation: IncarnationId,
    ) -> Result<Added, RecordError> {
        let (commit, tip) = self.next(fetcher, &logged.bytes, &place(logged.lsn, self.database, incarnation)).await?;
        if !self.input.has_room_for(commit.pages.len()) {
            return Ok(Added::Full);
        }
        self.take(commit, tip);
        if self.keeps_commits {
            self.input.commits.push(logged.bytes.clone());
        }
        Ok(Added::Yes)
    }

    /// Adds the next commit even if it does not fit into one fold with those before.
    pub async fn replay(
        &mut self,
        fetcher: &Fetcher,
        logged: &LoggedCommit,
        incarnation: IncarnationId,
    ) -> Result<(), RecordError> {
        self.replay_bytes(fetcher, &logged.bytes, &place(logged.lsn, self.database, incarnation)).await
    }

    /// The same for a commit as it stands at `place`.
    pub(crate) async fn replay_bytes(
        &mut self,
        fetcher: &Fetcher,
        encoded: &Bytes,
        place: &str,
    ) -> Result<(), RecordError> {
        let (commit, tip) = self.next(fetcher, encoded, place).await?;
        self.take(commit, tip);
        Ok(())
    }

    /// Checks a commit against the history so far, and makes its pages whole.
    async fn next(&mut self, fetcher: &Fetcher, encoded: &Bytes, place: &str) -> Result<(Commit, Tip), RecordError> {
        let at = |corrupt: Corrupt| RecordError::from(corrupt.at(place));
        let commit = UncheckedCommit::decode(encoded).and_then(|commit| commit.check(&self.tip)).map_err(at)?;
        let mut bases = self.bases(fetcher, &commit).await?;
        let tip = commit.tip();
        let commit = commit.apply(|page_no, _| bases.remove(&page_no).ok_or("it was not read"));
        Ok((commit.map_err(|error| at(Corrupt::new(error.to_string())))?, tip))
    }

    fn take(&mut self, commit: Commit, tip: Tip) {
        self.input.add(commit.lsn, commit.page_count, commit.pages);
        self.tip = tip;
    }

    /// The pages that a commit's patches build on, as they are before it.
    async fn bases(&mut self, fetcher: &Fetcher, commit: &CheckedCommit) -> Result<BTreeMap<PageNo, Page>, RecordError> {
        let wanted: Vec<PageNo> = commit.bases().map(|(page_no, _)| page_no).collect();
        let mut bases = BTreeMap::new();
        for page_no in wanted {
            bases.insert(page_no, self.page(fetcher, page_no).await?);
        }
        Ok(bases)
    }

    /// A page as the last commit that was added left it.
    pub async fn page(&mut self, fetcher: &Fetcher, page_no: PageNo) -> Result<Page, RecordError> {
        match self.input.pages.get(&page_no) {
            Some(page) => Ok(page.clone()),
            None => self.page_at_rest(fetcher, page_no).await,
        }
    }

    async fn page_at_rest(&mut self, fetcher: &Fetcher, page_no: PageNo) -> Result<Page, RecordError> {
        at_rest::page(fetcher, self.database, &mut self.map, self.image.as_ref(), page_no).await
    }
}

/// Whether folds of a database keep the commits that they fold.
pub fn keeps_commits(head: &Head) -> bool {
    head.settings.retention_secs > 0
}

fn place(lsn: Lsn, database: DatabaseId, incarnation: IncarnationId) -> String {
    format!("commit {lsn} of {database} in the log of {incarnation}")
}
