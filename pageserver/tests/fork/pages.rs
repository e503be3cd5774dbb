//! What a page reader remembers, and for how long: counted in requests.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pageserver::limits::{VIEW_AGE_MAX, VIEW_PAGES_MAX, VIEWS_MAX};
use pageserver::service::pages::{PageReader, PagesError};
use tenant::lifecycle;
use tenant::settings::Settings;
use walstore::id::{DatabaseId, PutId};
use walstore::store::{Condition, CountedStore, Key, MemoryStore, Object, Op, Put, Store, StoreError};

use crate::forest::{Forest, RETENTION_SECS, page};

/// A reader of pages with a way to the bucket of its own.
struct Reader {
    counted: Arc<CountedStore<StaleOnce>>,
    stale: StaleOnce,
    pages: PageReader,
}

impl Reader {
    fn of(forest: &Forest) -> Self {
        let stale = StaleOnce { memory: forest.memory.clone(), next: Arc::default() };
        let counted = Arc::new(CountedStore::new(stale.clone()));
        let store: Arc<dyn Store> = counted.clone();
        let pages = PageReader::new(store.clone(), forest.seam.clone(), forest.fetcher(&store));
        Self { counted, stale, pages }
    }

    /// How often heads, and how often packs were asked for since the last answer.
    fn taken(&self) -> (u64, u64) {
        let taken = self.counted.take();
        let of = |class: &str| {
            [Op::Get, Op::GetRange].iter().filter_map(|op| taken.get(&(*op, class.to_owned()))).map(|it| it.requests).sum()
        };
        (of("head"), of("pack"))
    }

    /// Reads pages of a commit, which must be those of the model, and answers how often the head was asked for.
    async fn check(&self, forest: &Forest, at: usize, lsn: u64, numbers: &[u32]) -> u64 {
        let reply = self.pages.read(forest.all[at].id, lsn, numbers).await;
        let reply = reply.unwrap_or_else(|error| panic!("pages of {at} as of {lsn}: {error}"));
        let (_, state) = &forest.all[at].states[&reply.lsn];
        assert!(lsn == 0 || reply.lsn == lsn);
        assert_eq!(reply.pages.len(), numbers.iter().filter(|number| state.contains_key(number)).count());
        for found in &reply.pages {
            assert!(found.content == page(state[&found.page_no]).as_bytes()[..], "page {} of {lsn}", found.page_no);
        }
        self.taken().0
    }

    /// The error, and how often head and packs were asked for.
    async fn refused(&self, database: DatabaseId, lsn: u64) -> (PagesError, (u64, u64)) {
        let reply = self.pages.read(database, lsn, &[40]).await.map(|reply| reply.lsn);
        (reply.expect_err("there is nothing to be shown"), self.taken())
    }
}

/// Answers one read of a head with what stood there before: somebody replaces it while that answer is on its way.
#[derive(Clone)]
struct StaleOnce {
    memory: MemoryStore,
    next: Arc<Mutex<Option<Object>>>,
}

impl StaleOnce {
    async fn answer_next(&self, forest: &Forest, at: usize) {
        let head = self.memory.get(&tenant::keys::head(forest.all[at].id)).await.unwrap();
        *self.next.lock().unwrap() = head;
    }
}

#[async_trait]
impl Store for StaleOnce {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        let stale = if key.as_str().ends_with("/head") { self.next.lock().unwrap().take() } else { None };
        if stale.is_some() { Ok(stale) } else { self.memory.get(key).await }
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Object>, StoreError> {
        self.memory.get_range(key, range).await
    }

    async fn put(&self, _: &Key, _: Bytes, _: &Condition) -> Result<Put, StoreError> {
        panic!("a reader writes nothing")
    }

    async fn delete(&self, _: &Key) -> Result<(), StoreError> {
        panic!("a reader deletes nothing")
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Key>, StoreError> {
        self.memory.list(prefix, after, limit).await
    }

    fn describe(&self) -> String {
        self.memory.describe()
    }
}

async fn is_old() {
    tokio::time::advance(VIEW_AGE_MAX).await;
}

/// Commits of 60 pages, each folded: too many for a head, so their pages stand in packs.
async fn grown(forest: &mut Forest, retention_secs: u32, commits: u32) -> usize {
    let at = forest.create(retention_secs).await;
    for _ in 0..commits {
        forest.commit(at, &(1..=60).collect::<Vec<_>>(), 60).await;
        forest.fold(at).await;
    }
    at
}

/// Bug: what was known of a commit was answered without a look at the head, for as long as its objects were there.
/// Damage: pages of databases that had been deleted, or whose time was up.
#[tokio::test(start_paused = true)]
async fn a_database_that_is_over_is_not_shown_for_longer_than_a_view_is_believed() {
    let mut forest = Forest::new();
    let (deleted, expired) = (grown(&mut forest, RETENTION_SECS, 1).await, grown(&mut forest, 0, 1).await);
    let reader = Reader::of(&forest);
    reader.check(&forest, deleted, 1, &[1]).await;
    forest.delete(deleted).await;
    assert_eq!(reader.check(&forest, deleted, 1, &[1]).await, 0, "it need not look so soon");
    is_old().await;
    for _ in 0..2 {
        let (refused, (heads, packs)) = reader.refused(forest.all[deleted].id, 1).await;
        assert!(matches!(refused, PagesError::NoSuchDatabase(_)), "{refused}");
        assert_eq!((heads, packs), (1, 0));
    }

    // A time that is known in advance needs no look.
    let head = forest.owned(expired).await;
    let expires_micros = forest.seam.wall_micros() + 1_000_000;
    let settings = Settings { expires_micros, ..head.value.settings };
    let head = forest.swap(&head, lifecycle::with_settings(&head.value, settings, PutId::random(&forest.seam))).await;
    reader.check(&forest, expired, 1, &[1]).await;
    assert_eq!(reader.check(&forest, expired, 1, &[1]).await, 0);
    tokio::time::advance(Duration::from_secs(1)).await;
    let (refused, _) = reader.refused(forest.all[expired].id, 1).await;
    assert!(matches!(refused, PagesError::NoSuchDatabase(_)), "{refused}");
    // And what is given more time is shown again.
    let settings = Settings { expires_micros: 0, ..head.value.settings };
    forest.swap(&head, lifecycle::with_settings(&head.value, settings, PutId::random(&forest.seam))).await;
    reader.check(&forest, expired, 1, &[1]).await;
}

#[tokio::test(start_paused = true)]
async fn a_head_is_looked_at_once_for_all_views_of_a_database_and_each_time_they_are_old() {
    let mut forest = Forest::new();
    let (root, other) = (grown(&mut forest, RETENTION_SECS, 3).await, grown(&mut forest, 0, 1).await);
    let reader = Reader::of(&forest);
    for lsn in 1..=3 {
        reader.check(&forest, root, lsn, &[1, 60]).await;
    }
    reader.check(&forest, other, 1, &[1]).await;
    for _ in 0..4 {
        is_old().await;
        let id = forest.all[root].id;
        let all = [1, 2, 3, 3, 2, 1].map(|lsn| reader.pages.read(id, lsn, &[7]));
        let answers = futures_util::future::join_all(all).await;
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(reader.taken().0, 1, "they wait for the one who looks");
        for lsn in 1..=3 {
            assert_eq!(reader.check(&forest, root, lsn, &[8]).await, 0);
        }
    }
    assert_eq!(reader.check(&forest, other, 1, &[1]).await, 1, "another database is another head");
}

#[tokio::test(start_paused = true)]
async fn the_longest_unused_of_many_views_is_forgotten() {
    let mut forest = Forest::new();
    let last = VIEWS_MAX as u64 + 1;
    let root = grown(&mut forest, RETENTION_SECS, last as u32).await;
    let reader = Reader::of(&forest);
    for lsn in 1..last {
        assert_ne!(reader.check(&forest, root, lsn, &[1]).await, 0, "commit {lsn} was not known");
    }
    assert_eq!(reader.check(&forest, root, 1, &[1]).await, 0, "as many as there may be");
    reader.check(&forest, root, last, &[1]).await;
    for lsn in [1, 3, last] {
        assert_eq!(reader.check(&forest, root, lsn, &[1]).await, 0, "commit {lsn} was used later than the second");
    }
    assert_ne!(reader.check(&forest, root, 2, &[1]).await, 0, "the second had to go");
}

#[tokio::test(start_paused = true)]
async fn views_that_differ_much_from_their_bases_are_fewer() {
    let mut forest = Forest::new();
    let count = VIEW_PAGES_MAX as u32 / 3 + 1;
    let (root, all) = (forest.create(RETENTION_SECS).await, (1..=count).collect::<Vec<_>>());
    forest.commit(root, &all, count).await;
    for _ in 0..3 {
        forest.fold(root).await;
        for _ in 0..2 {
            forest.commit(root, &all, count).await;
        }
    }
    forest.fold(root).await;
    let reader = Reader::of(&forest);
    for lsn in [2, 4, 6] {
        assert_eq!(forest.pages_to_go_back(root, lsn).await, all.len(), "commit {lsn}");
    }
    for (lsn, is_known) in [(2, false), (4, false), (2, true), (6, false), (2, true), (4, false), (6, false)] {
        let heads = reader.check(&forest, root, lsn, &[1, count]).await;
        assert_eq!(heads == 0, is_known, "commit {lsn}: two of these are as much as there may be");
    }
}

/// Bug: views of former folds stayed though what they led to was deleted. Damage: each request for one asked for the
/// missing pack first.
#[tokio::test(start_paused = true)]
async fn a_view_whose_pages_are_gone_is_forgotten_and_the_head_decides() {
    let mut forest = Forest::new();
    let root = grown(&mut forest, 0, 1).await;
    let reader = Reader::of(&forest);
    reader.check(&forest, root, 1, &[2]).await;
    let before = forest.objects();
    forest.commit(root, &(1..=60).collect::<Vec<_>>(), 60).await;
    forest.fold(root).await;
    for key in before {
        forest.memory.delete(&Key::new(key)).await.unwrap();
    }
    let id = forest.all[root].id;
    let (refused, (heads, packs)) = reader.refused(id, 1).await;
    assert!(matches!(refused, PagesError::NotKept { asked: 1, .. }), "{refused}");
    assert!(heads > 0 && packs > 0, "the view was tried, and then the head looked at: {heads}, {packs}");
    let (refused, (_, packs)) = reader.refused(id, 1).await;
    assert!(matches!(refused, PagesError::NotKept { asked: 1, .. }), "{refused}");
    assert_eq!(packs, 0, "nobody looks for what is gone again");
    reader.check(&forest, root, 0, &[1]).await;
}

#[tokio::test(start_paused = true)]
async fn what_looks_damaged_by_a_head_that_is_old_is_looked_at_again_and_only_once() {
    let mut forest = Forest::new();
    let root = grown(&mut forest, 0, 1).await;
    let reader = Reader::of(&forest);
    reader.stale.answer_next(&forest, root).await;
    let before = forest.objects();
    forest.commit(root, &(1..=60).collect::<Vec<_>>(), 60).await;
    forest.fold(root).await;
    for key in before {
        forest.memory.delete(&Key::new(key)).await.unwrap();
    }
    assert_eq!(reader.check(&forest, root, 0, &[1]).await, 2, "the old head, and the one that has replaced it");

    // Damage that is there by every head is reported, and what was made of it is not believed again.
    let packs = forest.objects();
    let whole = forest.memory.snapshot();
    for key in &packs {
        forest.memory.delete(&Key::new(key.as_str())).await.unwrap();
    }
    let reader = Reader::of(&forest);
    for _ in 0..2 {
        let (refused, (heads, _)) = reader.refused(forest.all[root].id, 2).await;
        assert!(matches!(refused, PagesError::Record(_)) && refused.to_string().contains("/p/"), "{refused}");
        assert_eq!(heads, 2, "looked at again, and once");
    }
    for key in packs {
        let key = Key::new(key);
        forest.memory.put(&key, whole[&key].clone(), &Condition::Absent).await.unwrap();
    }
    reader.check(&forest, root, 2, &[1]).await;
}
