//! A model of databases and their forks: every state that any of them ever had, page by page, beside the bucket that is
//! to hold them. What is not as it must be is told by the name of the rule.
//!
//! Owners keep their commits in memory here; logs and takeovers have tests of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use pageserver::fetcher::Fetcher;
use pageserver::fold::{FoldJob, Folder, PackMaker};
use pageserver::fork::{ForkFailure, Forked, Forker, Restore, Restored};
use pageserver::history::{self, PastError};
use pageserver::sweep::{Collected, Sweeper};
use pageserver::tail::{Added, Tail};
use segments::cache::PageCache;
use segments::commit::{self, Base, Commit};
use segments::page::{PAGE_BYTES, Page, PageNo};
use segments::tip::Tip;
use tenant::due::{DueKind, DueMarker};
use tenant::head::{Head, HeadState};
use tenant::lifecycle;
use tenant::name::Name;
use tenant::registry::{self, GivenUp};
use tenant::settings::Settings;
use walstore::id::{DatabaseId, IncarnationId, Lsn, PutId};
use walstore::life::Stores;
use walstore::recovery::LoggedCommit;
use walstore::register::{Patience, Swap, Versioned};
use walstore::seam::Seam;
use walstore::store::{MemoryStore, Store};

pub const ME: IncarnationId = IncarnationId::from_bytes([0xa; 16]);
pub const OTHER: IncarnationId = IncarnationId::from_bytes([0xb; 16]);
pub const RETENTION_SECS: u32 = 3600;

/// Which page has which content: a number stands for one.
pub type State = BTreeMap<u32, u64>;

/// A database as its clients know it.
#[derive(Clone)]
pub struct Known {
    pub id: DatabaseId,
    pub name: Name,
    pub tip: Tip,
    pages: BTreeMap<PageNo, (Page, Lsn, u8)>,
    /// Commits that no pack has yet.
    pub unfolded: Vec<LoggedCommit>,
    /// Every state it had, its parent's before it among them, and when.
    pub states: BTreeMap<u64, (u64, State)>,
    /// What it was made from, and the commit that it began with.
    pub parent: Option<usize>,
    pub begins: u64,
    /// When it was deleted, or something else took its place.
    pub ended_micros: Option<u64>,
}

impl Known {
    fn new(id: DatabaseId, name: Name, states: BTreeMap<u64, (u64, State)>) -> Self {
        let (tip, pages, unfolded) = (Tip::before_first(id), BTreeMap::new(), Vec::new());
        Self { id, name, tip, pages, unfolded, states, parent: None, begins: 0, ended_micros: None }
    }

    pub fn last(&self) -> u64 {
        Lsn::raw(self.tip.lsn)
    }

    pub fn is_over(&self) -> bool {
        self.ended_micros.is_some()
    }

    /// The newest commit that is not later than `micros`.
    pub fn at_time(&self, micros: u64) -> u64 {
        self.states.iter().rev().find(|(_, (time, _))| *time <= micros).map_or(0, |(lsn, _)| *lsn)
    }
}

pub struct Forest {
    pub memory: MemoryStore,
    pub seam: Seam,
    pub all: Vec<Known>,
    pub given_up: GivenUp,
    contents: u64,
}

fn page_no(number: u32) -> PageNo {
    PageNo::new(number).expect("page numbers count from 1")
}

/// A fork has no owner and no log, whatever its parent has.
pub fn check_alone(fork: &Head) {
    let is_alone = fork.owner.is_none() && fork.tail.is_empty() && fork.epoch == 1;
    assert!(is_alone, "I2: a fork begins at epoch {} with {:?} and {:?}", fork.epoch, fork.owner, fork.tail);
}

/// Compresses badly, so that packs have some size.
pub fn page(content: u64) -> Page {
    let mut bytes = [0; PAGE_BYTES];
    let mut state = content;
    for chunk in bytes.chunks_mut(8).take(100) {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        chunk.copy_from_slice(&state.to_le_bytes());
    }
    bytes[PAGE_BYTES - 8..].copy_from_slice(&content.to_le_bytes());
    Page::copy_of(&bytes)
}

impl Forest {
    pub fn new() -> Self {
        let (memory, seam) = (MemoryStore::new(), crate::held::virtual_seam());
        let clock = seam.clone();
        memory.set_clock(move || clock.wall_micros());
        Self { memory, seam, all: Vec::new(), given_up: GivenUp::default(), contents: 0 }
    }

    pub fn fetcher(&self, store: &Arc<dyn Store>) -> Fetcher {
        Fetcher::new(store.clone(), self.seam.clone(), PageCache::new(1 << 20), 8 << 20)
    }

    pub fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.memory.clone())
    }

    pub fn settings(&self, retention_secs: u32) -> Settings {
        Settings { retention_secs, ..Settings::new(self.seam.wall_micros()) }
    }

    pub async fn create(&mut self, retention_secs: u32) -> usize {
        let name = Name::parse(&format!("root-{}", self.all.len())).expect("a name");
        let settings = self.settings(retention_secs);
        let created = registry::create_database(&self.memory, &self.seam, &name, ME, settings, Patience::endless());
        let id = created.await.expect("a new name").value.database;
        let states = BTreeMap::from([(0, (0, State::new()))]);
        self.add(Known::new(id, name, states))
    }

    fn add(&mut self, known: Known) -> usize {
        self.all.push(known);
        self.all.len() - 1
    }

    pub async fn head(&self, at: usize) -> Versioned<Head> {
        let read = registry::read_head(&self.memory, &self.seam, self.all[at].id, Patience::endless()).await;
        read.expect("it can be read").expect("heads are never deleted")
    }

    pub async fn swap(&self, before: &Versioned<Head>, next: Head) -> Versioned<Head> {
        let swap = registry::swap_head(&self.memory, &self.seam, before, next, Patience::endless()).await;
        match swap.expect("a valid head") {
            Swap::Won(head) => head,
            Swap::Lost(_) => panic!("nobody else writes heads here"),
        }
    }

    /// The head, owned by this node.
    pub async fn owned(&self, at: usize) -> Versioned<Head> {
        let head = self.head(at).await;
        if head.value.owner.is_some() || head.value.state.is_final() {
            return head;
        }
        let next = lifecycle::acquire(&head.value, ME, PutId::random(&self.seam));
        self.swap(&head, next).await
    }

    /// Writes new content to these pages; the database has this size then.
    pub async fn commit(&mut self, at: usize, pages: &[u32], page_count: u32) {
        tokio::time::advance(std::time::Duration::from_millis(1 + self.contents % 977)).await;
        let epoch = self.owned(at).await.value.epoch;
        let now = self.seam.wall_micros();
        let known = &mut self.all[at];
        let mut state = known.states.last_key_value().map(|(_, (_, state))| state.clone()).unwrap_or_default();
        state.retain(|number, _| *number <= page_count);
        let mut changed = BTreeMap::new();
        let grown = (state.len() as u32 + 1..=page_count).filter(|number| !pages.contains(number));
        for number in pages.iter().copied().chain(grown).filter(|number| *number <= page_count) {
            self.contents += 1;
            state.insert(number, self.contents);
            changed.insert(page_no(number), page(self.contents));
        }
        let commit = Commit::new(&known.tip, now, page_count, changed).expect("a commit");
        let base = |number: PageNo| {
            let (page, lsn, patches_in_a_row) = known.pages.get(&number)?.clone();
            Some(Base { lsn, page, patches_in_a_row })
        };
        let lsn = commit.lsn;
        let encoded = commit::encode(&commit, &known.tip, &base);
        known.pages.retain(|number, _| number.get() <= page_count);
        for ((number, page), patched) in commit.pages.into_iter().zip(encoded.patched) {
            let before = known.pages.get(&number).map_or(0, |(_, _, count)| *count);
            known.pages.insert(number, (page, lsn, if patched { before + 1 } else { 0 }));
        }
        known.tip = encoded.tip;
        known.unfolded.push(LoggedCommit { epoch, lsn, bytes: encoded.bytes });
        known.states.insert(lsn.get(), (encoded.tip.time_micros, state));
    }

    /// Everything that is folded, and then what is not.
    pub async fn tail(&self, at: usize, fetcher: &Fetcher) -> Tail {
        let head = self.head(at).await.value;
        let tail = Tail::of_head(fetcher, &head).await;
        let mut tail = tail.unwrap_or_else(|error| panic!("I8: what is folded of database {at}: {error}"));
        for commit in &self.all[at].unfolded {
            let added = tail.add(fetcher, commit, ME).await;
            let added = added.unwrap_or_else(|error| panic!("I8: the next commit of database {at}: {error}"));
            assert_eq!(added, Added::Yes);
        }
        tail
    }

    /// Folds everything.
    pub async fn fold(&mut self, at: usize) -> Versioned<Head> {
        let store = self.store();
        let fetcher = self.fetcher(&store);
        self.fold_by(at, &*store, &fetcher, None).await
    }

    /// Folds everything through a store of the owner's own; a page server may make the pack.
    pub async fn fold_by(
        &mut self,
        at: usize,
        store: &dyn Store,
        fetcher: &Fetcher,
        maker: Option<&PackMaker>,
    ) -> Versioned<Head> {
        let head = self.owned(at).await;
        let Tail { map, input, tip, .. } = self.tail(at, fetcher).await;
        let seq = head.value.fold_seq + 1;
        let job = FoldJob { head, map, input, tip, own_after: None, seq, deleted: Vec::new(), release: false, pin: None };
        let linked = Folder { store, seam: &self.seam, fetcher }.fold_by(job, maker).await;
        let linked = linked.unwrap_or_else(|failure| panic!("I8: a fold of database {at}: {failure}"));
        self.all[at].unfolded.clear();
        linked.head
    }

    pub async fn release(&mut self, at: usize) {
        let head = self.fold(at).await;
        let next = lifecycle::release(&head.value, head.value.folded.lsn, PutId::random(&self.seam));
        self.swap(&head, next.expect("all is folded")).await;
        self.rest(at);
    }

    /// After a release nobody has the pages in memory, so the next commits build on what is in the bucket.
    fn rest(&mut self, at: usize) {
        self.all[at].pages.clear();
    }

    pub fn forker<'a>(&'a self, store: &'a dyn Store, fetcher: &'a Fetcher) -> Forker<'a> {
        let (seam, given_up, room) = (&self.seam, &self.given_up, &history::Unbounded);
        Forker { store, seam, fetcher, given_up, me: ME, patience: Patience::endless(), room }
    }

    /// Forks `at` as it was after `lsn`, through `store`.
    pub async fn try_fork(
        &mut self,
        store: Arc<dyn Store>,
        at: usize,
        lsn: u64,
        name: &str,
    ) -> Result<usize, ForkFailure> {
        let parent = self.owned(at).await;
        let fetcher = self.fetcher(&store);
        let name = Name::parse(name).expect("a name");
        let settings = self.settings(parent.value.settings.retention_secs);
        let forked = self.forker(&*store, &fetcher).fork(parent, Lsn::new(lsn), &name, settings).await;
        let Forked { child, .. } = forked?;
        check_alone(&child.value);
        Ok(self.grow(at, lsn, child.value.database, name))
    }

    pub async fn fork(&mut self, at: usize, lsn: u64) -> usize {
        if !self.head(at).await.value.state.is_final() && lsn > Lsn::raw(self.head(at).await.value.folded.lsn) {
            self.fold(at).await;
        }
        let name = format!("fork-{}", self.all.len());
        let forked = self.try_fork(self.store(), at, lsn, &name).await;
        let fork = forked.unwrap_or_else(|failure| panic!("R19: a fork of database {at} at {lsn}: {failure}"));
        self.settle(fork).await;
        fork
    }

    /// A fork that is to be deleted after so many seconds, whether or not its owner could mark when.
    pub async fn fork_until(&mut self, at: usize, lsn: u64, secs: u64, is_marked: bool) -> usize {
        let fork = self.fork(at, lsn).await;
        let head = self.owned(fork).await;
        let expires_micros = self.seam.wall_micros() + secs * 1_000_000;
        let marker = DueMarker { database: head.value.database, kind: DueKind::Expire, due_micros: expires_micros, other: None };
        if is_marked {
            registry::put_due(&self.memory, &self.seam, &marker, Patience::endless()).await.expect("a marker");
        }
        let settings = Settings { expires_micros, ..head.value.settings };
        let head = self.swap(&head, lifecycle::with_settings(&head.value, settings, PutId::random(&self.seam))).await;
        let next = lifecycle::release(&head.value, head.value.folded.lsn, PutId::random(&self.seam));
        self.swap(&head, next.expect("all is folded")).await;
        fork
    }

    /// The model's part of a fork.
    pub fn grow(&mut self, at: usize, lsn: u64, id: DatabaseId, name: Name) -> usize {
        let states: BTreeMap<_, _> = self.all[at].states.range(..=lsn).map(|(lsn, state)| (*lsn, state.clone())).collect();
        self.add(Known { parent: Some(at), begins: lsn, ..Known::new(id, name, states) })
    }

    /// A fork's tip is what its head says.
    pub async fn settle(&mut self, at: usize) {
        let store = self.store();
        let fetcher = self.fetcher(&store);
        self.all[at].tip = self.tail(at, &fetcher).await.tip;
    }

    /// Restores a database in place, to what `source` was after `lsn`.
    pub async fn restore(&mut self, at: usize, source: usize, lsn: u64) -> usize {
        let head = self.fold(at).await;
        let store = self.store();
        let fetcher = self.fetcher(&store);
        let (source_head, replaced) = match source == at {
            true => (head.clone(), None),
            false => (self.head(source).await, Some(head.clone())),
        };
        let last = self.all[at].tip.lsn;
        let settings = self.settings(head.value.settings.retention_secs);
        let forker = self.forker(&*store, &fetcher);
        let restore = Restore { source: source_head, at: Lsn::new(lsn), replaced, last, settings, record: None };
        let restored = forker.restore(restore).await;
        let failed = |failure| panic!("R19: a restore of database {at} to {lsn}: {failure}");
        let Restored { new, old, .. } = restored.unwrap_or_else(failed);
        assert_eq!(old.value.state, HeadState::Moved { new: new.value.database });
        check_alone(&new.value);
        self.all[at].ended_micros = Some(self.seam.wall_micros());
        let name = self.all[at].name.clone();
        let new = self.grow(source, lsn, new.value.database, name);
        self.settle(new).await;
        new
    }

    pub async fn delete(&mut self, at: usize) {
        let head = self.fold(at).await;
        let deleted = registry::delete_database(&self.memory, &self.seam, &head, ME, Patience::endless()).await;
        deleted.expect("it is mine");
        self.all[at].ended_micros = Some(self.seam.wall_micros());
    }

    pub async fn sweep(&self) -> Collected {
        let stores = Stores::one(self.store());
        let fetcher = self.fetcher(&stores.main);
        let sweeper = Sweeper::new(OTHER, stores, self.seam.clone(), &fetcher);
        let collected = sweeper.sweep().await.expect("a sweep");
        assert!(collected.skipped == 0, "I6: a sweep meets what is damaged: {collected:?}");
        collected
    }

    /// Reads all pages of a living database, with nothing cached.
    pub async fn check(&self, at: usize) {
        let store = self.store();
        let fetcher = self.fetcher(&store);
        let mut tail = self.tail(at, &fetcher).await;
        let (lsn, (_, state)) = self.all[at].states.last_key_value().expect("one state at least");
        assert_eq!(Lsn::raw(tail.tip.lsn), *lsn, "database {at}");
        assert_state(&mut tail, &fetcher, state, &format!("database {at} at {lsn}")).await;
    }

    /// Goes back to a moment, and answers what it found.
    pub async fn check_past(&self, at: usize, lsn: u64) -> Result<(), PastError> {
        let store = self.store();
        let fetcher = self.fetcher(&store);
        let head = self.head(at).await.value;
        let mut tail = history::materialise(&fetcher, &head, lsn, &history::Unbounded).await?;
        let (_, state) = &self.all[at].states[&lsn];
        assert_state(&mut tail, &fetcher, state, &format!("database {at} as of {lsn}")).await;
        Ok(())
    }

    /// Packs and all other objects of databases but their heads.
    pub fn objects(&self) -> Vec<String> {
        let keys = self.memory.keys();
        let keys = keys.iter().map(|key| key.as_str().to_owned());
        keys.filter(|key| key.starts_with("t/") && !key.ends_with("/head")).collect()
    }
}

async fn assert_state(tail: &mut Tail, fetcher: &Fetcher, state: &State, what: &str) {
    assert!(tail.tip.page_count as usize == state.len(), "I9: {what} has {} pages", tail.tip.page_count);
    for (number, content) in state {
        let found = tail.page(fetcher, page_no(*number)).await;
        let found = found.unwrap_or_else(|error| panic!("I8: {what}, page {number}: {error}"));
        assert!(found.as_bytes() == page(*content).as_bytes(), "I9: {what}, page {number}");
    }
}
