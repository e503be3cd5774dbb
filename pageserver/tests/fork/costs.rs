//! What forks and restores cost, in requests: the same for every size of the parent, and for every depth of a tree.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pageserver::fold::FoldJob;
use pageserver::fork::Restore;
use pageserver::history::{self, index_of};
use pageserver::tail::Tail;
use tenant::head::Head;
use tenant::name::Name;
use tenant::registry;
use walstore::register::Patience;
use walstore::store::{CountedStore, MemoryStore, Op};

use crate::forest::{Forest, RETENTION_SECS};

/// As much room as it takes, and how much that was.
#[derive(Default)]
struct Most(AtomicUsize);

impl history::Room for Most {
    fn take(&self, pages: usize) -> bool {
        self.0.fetch_max(pages, Ordering::Relaxed);
        true
    }
}

impl Forest {
    /// How many pages are in memory to go back to a moment.
    pub async fn pages_to_go_back(&self, at: usize, lsn: u64) -> usize {
        let store = self.store();
        let head = self.head(at).await.value;
        let most = Most::default();
        history::materialise(&self.fetcher(&store), &head, lsn, &most).await.expect("a moment of the window");
        most.0.into_inner()
    }
}

/// Requests by kind.
fn taken(store: &CountedStore<MemoryStore>) -> BTreeMap<String, u64> {
    let mut taken = BTreeMap::new();
    for ((op, _), counter) in store.take().iter() {
        *taken.entry(format!("{op:?}")).or_default() += counter.requests;
    }
    taken
}

fn count(taken: &BTreeMap<String, u64>, op: Op) -> u64 {
    taken.get(&format!("{op:?}")).copied().unwrap_or(0)
}

async fn grown(pages: u32) -> (Forest, usize) {
    let mut forest = Forest::new();
    let root = forest.create(0).await;
    for first in 0..pages / 50 {
        let all: Vec<u32> = (1..=50).map(|page| first * 50 + page).collect();
        forest.commit(root, &all, (first + 1) * 50).await;
        forest.fold(root).await;
    }
    (forest, root)
}

#[tokio::test(start_paused = true)]
async fn a_fork_takes_four_puts_whatever_the_size_of_its_parent() {
    let mut seen = Vec::new();
    for pages in [50, 3000] {
        let (mut forest, root) = grown(pages).await;
        let counted = CountedStore::new(forest.memory.clone());
        let last = forest.all[root].last();
        let counted = Arc::new(counted);
        let fork = forest.try_fork(counted.clone(), root, last, "fork").await.unwrap();
        let requests = taken(&counted);
        assert_eq!((count(&requests, Op::Put), requests.len()), (4, 1), "{requests:?}");
        seen.push(requests);
        forest.settle(fork).await;
        forest.check(fork).await;
        // The state has a base now, and a fork of a fork hands it on.
        forest.try_fork(counted.clone(), root, last, "second").await.unwrap();
        forest.try_fork(counted.clone(), fork, last, "third").await.unwrap();
        assert_eq!(count(&taken(&counted), Op::Put), 3 + 3);
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test(start_paused = true)]
async fn a_tail_costs_one_put_more() {
    let (mut forest, root) = grown(3000).await;
    let all: Vec<u32> = (1..=200).collect();
    forest.commit(root, &all, 3000).await;
    let counted: Arc<CountedStore<MemoryStore>> = Arc::new(CountedStore::new(forest.memory.clone()));
    let store: Arc<dyn walstore::store::Store> = counted.clone();
    let fetcher = forest.fetcher(&store);
    let head = forest.head(root).await;
    let Tail { map, input, tip, .. } = forest.tail(root, &fetcher).await;
    let seq = head.value.fold_seq + 1;
    let job = FoldJob { head, map, input, tip, own_after: None, seq, deleted: Vec::new(), release: false, pin: None };
    counted.take();
    let (name, settings) = (Name::parse("fork").unwrap(), forest.settings(0));
    let forked = forest.forker(&*store, &fetcher).fork_folding(job, &name, settings).await;
    let (linked, child) = forked.unwrap();
    let requests = taken(&counted);
    assert_eq!(count(&requests, Op::Put), 5, "{requests:?}");
    let child = child.unwrap().value;
    let record = registry::read_name(&*store, &forest.seam, &name, Patience::endless()).await.unwrap().unwrap().value;
    assert_eq!((record.base.as_ref(), record.base.is_some()), (child.shared(), true), "the name tells where it begins");
    assert_eq!(child.folded, linked.head.value.folded);
    let fork = forest.grow(root, tip.lsn.unwrap().get(), child.database, name);
    forest.settle(fork).await;
    forest.check(fork).await;
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_a_hundred_forks_opens_as_its_root_does() {
    let (mut forest, root) = grown(500).await;
    let mut at = root;
    for _ in 0..100 {
        let last = forest.all[at].last();
        at = forest.fork(at, last).await;
    }
    let mut costs = Vec::new();
    for fork in [root + 1, at] {
        let counted: Arc<CountedStore<MemoryStore>> = Arc::new(CountedStore::new(forest.memory.clone()));
        let store: Arc<dyn walstore::store::Store> = counted.clone();
        let fetcher = forest.fetcher(&store);
        let head = forest.head(fork).await.value;
        Tail::of_head(&fetcher, &head).await.unwrap();
        costs.push(taken(&counted));
    }
    assert_eq!(costs[0], costs[1]);
    assert_eq!(count(&costs[0], Op::Get) + count(&costs[0], Op::GetRange), 1, "the base; {costs:?}");
    forest.check(at).await;
}

/// Commits that are short in the log change many pages of a large database.
#[tokio::test(start_paused = true)]
async fn to_go_back_takes_bounded_memory_and_few_bases() {
    let mut forest = Forest::new();
    let root = forest.create(RETENTION_SECS).await;
    let bases = |head: &Head| index_of(head).expect("an index").bases().count();
    for first in (0..12_000).step_by(3_000) {
        let all: Vec<u32> = (first + 1..=first + 3_000).collect();
        forest.commit(root, &all, first + 3_000).await;
        forest.fold(root).await;
    }
    let before = bases(&forest.head(root).await.value);
    for round in 0..8 {
        for half in 0..2 {
            let some: Vec<u32> = (1..=750).map(|number| number * 16 - 2 * round - half).collect();
            forest.commit(root, &some, 12_000).await;
        }
        forest.fold(root).await;
    }
    assert_eq!(bases(&forest.head(root).await.value) - before, 4, "one for every other fold");
    let mut most = 0;
    for lsn in 1..=forest.all[root].last() {
        most = most.max(forest.pages_to_go_back(root, lsn).await);
    }
    // A fold and a half after a base; after two there is the next.
    assert_eq!(most, 2_250, "of {}", segments::limits::HISTORY_BASE_PAGES_MAX);
    forest.check_past(root, 10).await.expect("a moment of the window");
}

#[tokio::test(start_paused = true)]
async fn a_restore_in_place_takes_six_requests_and_the_way_back() {
    let mut forest = Forest::new();
    let root = forest.create(RETENTION_SECS).await;
    crate::history(&mut forest, root).await;
    let head = forest.head(root).await;
    let counted: Arc<CountedStore<MemoryStore>> = Arc::new(CountedStore::new(forest.memory.clone()));
    let store: Arc<dyn walstore::store::Store> = counted.clone();
    let fetcher = forest.fetcher(&store);
    let (last, settings) = (head.value.folded.lsn, forest.settings(RETENTION_SECS));
    let forker = forest.forker(&*store, &fetcher);
    let restored = forker.restore(Restore { source: head, at: last, replaced: None, last, settings, record: None }).await;
    restored.unwrap();
    let requests = taken(&counted);
    assert_eq!(requests.values().sum::<u64>(), 6, "base, pin, child, moved, and the name, read and written: {requests:?}");
}
