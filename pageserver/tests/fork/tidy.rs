//! An owner lifts the pins of forks that have ended, of a database that he keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use pageserver::sweep::{SweepError, Sweeper};
use tenant::lifecycle;
use tenant::registry;
use walstore::id::{DatabaseId, PutId};
use walstore::life::Stores;
use walstore::register::Patience;
use walstore::store::{CountedStore, MemoryStore, Op, Store};

use crate::forest::{Forest, ME};
use crate::held::Held;

const ROOT: usize = 0;
const PAGES: u32 = 300;

/// A root that this node owns all the time, and forks of it.
struct Family {
    forest: Forest,
    /// Forks that need what they began with; the last two have changed a page since, and one of these has an owner.
    living: Vec<usize>,
    /// A deleted one, and one that was not finished.
    ended: [DatabaseId; 2],
}

async fn family() -> Family {
    let mut forest = Forest::new();
    assert_eq!(forest.create(0).await, ROOT);
    // Too large to stand in a head.
    for first in (0..PAGES).step_by(100) {
        let all: Vec<u32> = (first + 1..=first + 100).collect();
        forest.commit(ROOT, &all, first + 100).await;
        forest.fold(ROOT).await;
    }
    let last = forest.all[ROOT].last();
    let unused = forest.fork(ROOT, last).await;
    let owned = forest.fork(ROOT, last).await;
    forest.commit(owned, &[2], PAGES).await;
    forest.fold(owned).await;
    let deleted = forest.fork(ROOT, last).await;
    forest.delete(deleted).await;
    let changed = forest.fork(ROOT, last).await;
    forest.commit(changed, &[5], PAGES).await;
    forest.release(changed).await;
    // Its name and its pin are written, and then nothing.
    let dying = Held::dying_after(&forest.memory, "/head");
    assert!(forest.try_fork(Arc::new(dying), ROOT, last, "unfinished").await.is_err());
    let pins = forest.head(ROOT).await.value.pins;
    assert_eq!(pins.len(), 5);
    let made: Vec<DatabaseId> = forest.all.iter().map(|known| known.id).collect();
    let unfinished = pins.iter().map(|pin| pin.child).find(|child| !made.contains(child)).expect("a pin without a child");
    let ended = [forest.all[deleted].id, unfinished];
    Family { forest, living: vec![unused, owned, changed], ended }
}

impl Forest {
    /// What an owner does.
    pub async fn tidy(&self, at: usize, store: Arc<dyn Store>) -> Result<usize, SweepError> {
        let fetcher = self.fetcher(&store);
        let sweeper = Sweeper::new(ME, Stores::one(store), self.seam.clone(), &fetcher);
        let before = self.head(at).await;
        let forks = sweeper.forks_to_look_at(&before.value, 100).await?;
        sweeper.lift_own_pins(&before, &forks).await?;
        Ok(forks.len())
    }

    async fn pinned(&self) -> Vec<DatabaseId> {
        let head = self.head(ROOT).await.value;
        let pins = registry::read_pins(&self.memory, &self.seam, &head, Patience::endless()).await.expect("pins");
        pins.all().map(|pin| pin.child).collect()
    }
}

impl Family {
    async fn check(&mut self) {
        let mut all = vec![ROOT];
        all.extend(&self.living);
        for at in all {
            self.forest.check(at).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_owner_lifts_the_pins_of_forks_that_have_ended_and_of_no_others() {
    let mut family = family().await;
    let living: Vec<DatabaseId> = family.living.iter().map(|at| family.forest.all[*at].id).collect();
    // A sweep leaves it to the owner, and tells him.
    let store = family.forest.store();
    let (told, telling) = std::sync::mpsc::channel();
    let fetcher = family.forest.fetcher(&store);
    let sweeper = Sweeper::new(ME, Stores::one(store), family.forest.seam.clone(), &fetcher);
    let swept = sweeper.telling(move |head| told.send(head.database).expect("a test that runs")).sweep().await;
    assert_eq!(swept.expect("a sweep").pins, 0);
    assert_eq!(telling.iter().collect::<Vec<_>>(), [family.forest.all[ROOT].id]);
    assert_eq!(family.forest.pinned().await.len(), 5);

    let counted: Arc<CountedStore<MemoryStore>> = Arc::new(CountedStore::new(family.forest.memory.clone()));
    assert_eq!(family.forest.tidy(ROOT, counted.clone()).await.expect("a store that works"), 3);
    assert_eq!(family.forest.pinned().await, living);
    let mut taken: BTreeMap<String, u64> = BTreeMap::new();
    for ((op, _), counter) in counted.take().iter() {
        *taken.entry(format!("{op:?}")).or_default() += counter.requests;
    }
    // The key of the unfinished one, and the root's head.
    assert_eq!(taken.get(&format!("{:?}", Op::Put)), Some(&2), "{taken:?}");
    family.check().await;
    let [deleted, unfinished] = family.ended;
    let head = registry::read_head(&family.forest.memory, &family.forest.seam, deleted, Patience::endless()).await;
    assert!(head.expect("a store that works").expect("heads stay").value.is_shrunk());
    // The unfinished fork's last write comes too late.
    let beginning = lifecycle::Beginning {
        parent: family.forest.all[ROOT].id,
        folded: tenant::head::Folded::default(),
        map: tenant::head::MapField::default(),
        image: None,
        history: bytes::Bytes::new(),
    };
    let name = tenant::name::Name::parse("unfinished").expect("a name");
    let settings = family.forest.settings(0);
    let late = lifecycle::child_head(&name, unfinished, beginning, settings, PutId::random(&family.forest.seam));
    let late = registry::create_child(&family.forest.memory, &family.forest.seam, late, Patience::endless()).await;
    assert!(late.is_err(), "its place is taken");

    // A second look costs the heads of those that live, and whether one leads to objects of others.
    family.forest.tidy(ROOT, counted.clone()).await.expect("a store that works");
    let taken = counted.take();
    let mut reads = taken.keys().map(|(op, _)| op);
    assert!(reads.all(|op| matches!(op, Op::Get | Op::GetRange)), "{taken:?}");
    // It goes on folding, and being forked.
    family.forest.commit(ROOT, &[1], PAGES).await;
    family.forest.fold(ROOT).await;
    let last = family.forest.all[ROOT].last();
    let fork = family.forest.fork(ROOT, last).await;
    family.living.push(fork);
    family.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_death_at_any_request_of_it_loses_nothing_and_the_next_look_goes_on() {
    for at in 0.. {
        let mut family = family().await;
        let dying = Held::dying(&family.forest.memory, at);
        // Not through the store that dies: which head it begins with is known to an owner.
        let done = family.forest.tidy(ROOT, Arc::new(dying.clone())).await;
        let has_died = dying.request_count() > at;
        family.check().await;
        family.forest.tidy(ROOT, family.forest.store()).await.expect("a store that works");
        assert_eq!(family.forest.pinned().await.len(), 3, "died at {at}");
        family.check().await;
        family.forest.bury().await;
        family.forest.assert_nothing_leaks().await;
        if !has_died {
            assert!(done.is_ok());
            assert!(at > 8, "{at} requests are too few to be all");
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pins_that_do_not_fit_the_head_are_lifted_as_well() {
    let mut forest = Forest::new();
    forest.create(0).await;
    crate::history(&mut forest, ROOT).await;
    let last = forest.all[ROOT].last();
    for number in 0..100 {
        let fork = forest.fork(ROOT, last).await;
        if number % 2 == 0 {
            forest.delete(fork).await;
        }
    }
    assert!(!forest.head(ROOT).await.value.pin_chunks.is_empty(), "the test itself");
    let counted: Arc<CountedStore<MemoryStore>> = Arc::new(CountedStore::new(forest.memory.clone()));
    let store: Arc<dyn Store> = counted.clone();
    let fetcher = forest.fetcher(&store);
    let sweeper = Sweeper::new(ME, Stores::one(store), forest.seam.clone(), &fetcher);
    let mut looks = 0;
    while forest.pinned().await.len() > 50 {
        looks += 1;
        assert!(looks < 100, "places are drawn");
        let head = forest.head(ROOT).await;
        counted.take();
        let forks = sweeper.forks_to_look_at(&head.value, 20).await.expect("a store that works");
        let gets: u64 = counted.take().values().map(|it| it.requests).sum();
        assert!(gets <= 20 + 2, "{gets} requests for at most 20 forks, and their chunks");
        sweeper.lift_own_pins(&head, &forks).await.expect("a store that works");
    }
    for at in (2..=100).step_by(2) {
        forest.check(at).await;
    }
    forest.check(ROOT).await;
}
