//! **Verify**: walks a bucket and says what is wrong in it, by object key. It changes nothing, unless it is asked to
//! delete what is provably dead.
//!
//! ```text
//!  meta/ ─▶ logs (inc/, w/, b/, x/, live/) ─▶ databases (t/: head, map, packs, tail) ─▶ names (n/) ─▶ markers (due/)
//! ```
//!
//! What is checked of a database: the head; every chunk of its page map and every pack that the map names, whole, each
//! checksum in it; that every page has a source, and that this source holds it; each commit after the folded point, in
//! whose log it ought to be, by the chain of hashes; and, by a [`PageSink`] that knows SQL, the database as a whole.
//! The same of one that was deleted, or that a restore has replaced, until its retention is over: what an undelete or an
//! undo would bring back. And of the past: the index, every run, and every base with its packs.
//!
//! What nothing of that leads to is an [`Orphan`]: an upload that was not linked, or what later folds have replaced and
//! nobody has collected yet. It is named as such, and its content is not looked at, for nobody reads it.
//!
//! Nodes may be at work meanwhile. So damage counts only if what was read still counts: the head is read again, and the
//! record of a log, and if they have moved, the database or the log is looked at again. One that changes in every round
//! is [`Witness::note`]d as not settled, which is no damage.
//!
//! Damage does not end the walk. An error does: a store that does not answer, or a sink that cannot write.

mod database;
mod history;
mod logs;
mod pages;
mod walk;

use std::io;
use std::ops::AddAssign;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use segments::cache::PageCache;
use segments::page::{Page, PageNo};
use tenant::name::Name;
use walstore::envelope::Corrupt;
use walstore::id::DatabaseId;
use walstore::life::Stores;
use walstore::recovery::Access;
use walstore::register::{self, RecordError};
use walstore::seam::Seam;
use walstore::store::{Key, Store, StoreError};

use self::walk::Walk;
use crate::fetcher::Fetcher;
use crate::limits;
use crate::orphan::Standing;

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Damage {
    /// The object's key.
    pub key: String,
    pub what: String,
    /// The database that was looked at, if it was one.
    pub name: Option<Name>,
}

/// An object that nothing refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    pub key: Key,
    pub bytes: u64,
    pub standing: Standing,
    /// Whether this walk has deleted it.
    pub is_deleted: bool,
}

/// Objects and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub objects: u64,
    pub bytes: u64,
}

impl Tally {
    fn add(&mut self, bytes: u64) {
        *self += Self { objects: 1, bytes };
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.objects += other.objects;
        self.bytes += other.bytes;
    }
}

/// What a walk came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Databases that were checked, those that have ended included.
    pub databases: u64,
    pub logs: u64,
    /// Packs and chunks of page maps.
    pub packs: Tally,
    /// Commits of tails, and of the past.
    pub commits: u64,
    pub damages: u64,
    /// Databases and logs that changed under every look.
    pub unsettled: u64,
    /// Orphans that are provably dead.
    pub dead: Tally,
    /// Orphans that may belong to something in flight.
    pub waiting: Tally,
    pub deleted: Tally,
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        let Self { databases, logs, packs, commits, damages, unsettled, dead, waiting, deleted } = other;
        self.databases += databases;
        self.logs += logs;
        self.packs += packs;
        self.commits += commits;
        self.damages += damages;
        self.unsettled += unsettled;
        self.dead += dead;
        self.waiting += waiting;
        self.deleted += deleted;
    }
}

/// Takes the pages of one database after the other, to look at it as a whole.
pub trait PageSink: Send + Sync {
    /// A database of so many pages follows. What came before is void.
    fn begin(&mut self, page_count: u32) -> io::Result<()>;
    /// A page, in any order. Those that do not come (the lock page) are zeros.
    fn page(&mut self, number: PageNo, page: &Page) -> io::Result<()>;
    /// All pages have come: what is wrong with them together.
    fn finish(&mut self) -> io::Result<Vec<String>>;
}

/// Is told what a walk finds, as it finds it.
pub trait Witness: Send + Sync {
    fn damage(&mut self, damage: &Damage);
    fn orphan(&mut self, orphan: &Orphan);
    /// Not wrong, but worth knowing.
    fn note(&mut self, key: &str, what: &str);
    /// So far.
    fn progress(&mut self, summary: &Summary);
    /// Where pages go, if anybody wants them.
    fn pages(&mut self) -> Option<&mut dyn PageSink>;
}

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot put the database together: {0}")]
    Pages(#[from] io::Error),
    #[error("there is no database `{0}`")]
    NoSuchDatabase(Name),
}

/// What to look at.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only these databases, with the logs of their tails; none for everything.
    pub names: Vec<Name>,
    /// Delete orphans that are provably dead.
    pub deletes_dead: bool,
}

/// Whether there is anything of Shoal's in the bucket.
pub async fn has_anything(store: &dyn Store) -> Result<bool, StoreError> {
    for prefix in [walstore::keys::META_PREFIX, tenant::keys::NAME_PREFIX, tenant::keys::DATABASES_PREFIX] {
        if !store.list(prefix, None, 1).await?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Walks the bucket.
pub fn verify<'a>(
    stores: &'a Stores,
    seam: &'a Seam,
    options: &'a Options,
    witness: &'a mut dyn Witness,
) -> BoxFuture<'a, Result<Summary, VerifyError>> {
    Box::pin(walk(stores, seam, options, witness))
}

async fn walk(
    stores: &Stores,
    seam: &Seam,
    options: &Options,
    witness: &mut dyn Witness,
) -> Result<Summary, VerifyError> {
    let cache = PageCache::new(limits::VERIFY_CACHE_BYTES);
    let fetcher = Fetcher::new(stores.main.clone(), seam.clone(), cache, limits::VERIFY_FETCH_BYTES_MAX);
    let mut walk = Walk::new(stores, seam, fetcher, options.deletes_dead, witness);
    if options.names.is_empty() {
        walk.everything().await?;
    } else {
        for name in &options.names {
            walk.named(name).await?;
        }
    }
    Ok(walk.summary)
}

/// Looks at what one database, alive or not, has at rest: up to its folded point, and what its head leads to.
pub async fn verify_at_rest(
    stores: &Stores,
    seam: &Seam,
    fetcher: &Fetcher,
    database: DatabaseId,
    witness: &mut dyn Witness,
) -> Result<Summary, VerifyError> {
    let mut walk = Walk::new(stores, seam, fetcher.clone(), false, witness);
    walk.reads_logs = false;
    walk.database(database, Vec::new()).await?;
    Ok(walk.summary)
}

/// Reads an object whole, if the store says that it is one.
async fn object_at(
    store: &dyn Store,
    access: Access<'_>,
    key: &Key,
) -> Result<Result<Option<Bytes>, Corrupt>, VerifyError> {
    match register::get(store, access.seam, key, access.patience).await {
        Ok(found) => Ok(Ok(found.map(|(object, _)| object))),
        Err(error) => damage_of(error.into()).map(Err),
    }
}

/// What was read is damaged, or the store gives no answer.
fn damage_of(error: RecordError) -> Result<Corrupt, VerifyError> {
    match error {
        RecordError::Corrupt(corrupt) => Ok(corrupt),
        RecordError::Store(error) => Err(error.into()),
    }
}
