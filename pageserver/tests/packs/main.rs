//! Folds whose packs a page server makes: what the owner writes and what the page server does, and that nothing is lost
//! or linked that is not right when that one dies, hangs, is busy, or makes something else than it was asked for.

#[path = "../fork/forest.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod forest;
#[path = "../../../walstore/tests/support/mod.rs"]
mod held;
#[path = "../damage/witness.rs"]
mod witness;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use forest::{Forest, RETENTION_SECS};
use held::Held;
use pageserver::fetcher::Fetcher;
use pageserver::fold::PackMaker;
use pageserver::service::packs::{MakePacks, OrderRefused, OrderStart, PackBuilder};
use pageserver::verify::Options;
use walstore::store::{CountedStore, MemoryStore, Op, Store};
use witness::verify;

/// What becomes of an order.
#[derive(Clone, Copy, Debug)]
enum Way {
    Well,
    /// Nobody answers.
    Silence,
    /// "Done", and nothing was done.
    Boast,
    /// It arrives with one page changed.
    Garbled,
    /// It is made, and the answer is lost.
    Forgotten,
}

/// The page server, in this process.
struct Wire {
    builder: PackBuilder,
    way: Mutex<Way>,
    orders: AtomicU64,
}

#[async_trait]
impl MakePacks for Wire {
    async fn make_pack(&self, _address: &str, order: Bytes, pages: usize) -> Result<(), OrderRefused> {
        self.orders.fetch_add(1, Ordering::Relaxed);
        let way = *self.way.lock().unwrap();
        let mut sent = order.to_vec();
        match way {
            Way::Silence => std::future::pending().await,
            Way::Boast => return Ok(()),
            Way::Garbled => *sent.last_mut().unwrap() ^= 1,
            Way::Well | Way::Forgotten => {}
        }
        let mut incoming = self.builder.admit(OrderStart::of(&sent, pages))?;
        for piece in sent.chunks(10_000) {
            incoming.add(piece)?;
        }
        self.builder.make(incoming).await?;
        if matches!(way, Way::Forgotten) { Err(OrderRefused::Failed("no answer".into())) } else { Ok(()) }
    }
}

/// An owner and a page server, each with a way to the bucket of its own.
struct Rig {
    forest: Forest,
    owner: Arc<CountedStore<MemoryStore>>,
    page_server: Arc<CountedStore<Held>>,
    wire: Arc<Wire>,
    maker: PackMaker,
    fetcher: Fetcher,
    at: usize,
}

impl Rig {
    async fn new(retention_secs: u32) -> Self {
        Self::with(retention_secs, 64 << 20, Held::over).await
    }

    async fn with(retention_secs: u32, room: usize, connect: impl Fn(&MemoryStore) -> Held) -> Self {
        let mut forest = Forest::new();
        let at = forest.create(retention_secs).await;
        let owner = Arc::new(CountedStore::new(forest.memory.clone()));
        let page_server = Arc::new(CountedStore::new(connect(&forest.memory)));
        let store: Arc<dyn Store> = page_server.clone();
        let builder = PackBuilder::new(store.clone(), forest.seam.clone(), forest.fetcher(&store), room);
        let wire = Arc::new(Wire { builder, way: Mutex::new(Way::Well), orders: AtomicU64::new(0) });
        let maker = PackMaker::new("http://page-server", wire.clone(), forest.seam.clone());
        let store: Arc<dyn Store> = owner.clone();
        let fetcher = forest.fetcher(&store);
        Self { forest, owner, page_server, wire, maker, fetcher, at }
    }

    fn goes(&self, way: Way) {
        *self.wire.way.lock().unwrap() = way;
    }

    fn orders(&self) -> u64 {
        self.wire.orders.load(Ordering::Relaxed)
    }

    async fn commit(&mut self, pages: impl IntoIterator<Item = u32>, page_count: u32) {
        let pages: Vec<u32> = pages.into_iter().collect();
        self.forest.commit(self.at, &pages, page_count).await;
    }

    /// A fold as the owner makes it, and what it cost: the owner's PUTs, and those of the page server. (The first fold of
    /// a database is noted in its name as well, which is not of interest here.)
    async fn fold(&mut self) -> (Puts, Puts) {
        self.owner.take();
        self.page_server.take();
        let owner = self.owner.clone();
        self.forest.fold_by(self.at, &*owner, &self.fetcher, Some(&self.maker)).await;
        let puts = |counters: walstore::store::Counters| {
            let puts = counters.iter().filter(|((op, _), counter)| *op == Op::Put && counter.requests > 0);
            let puts = puts.filter(|((_, class), _)| class != "n");
            puts.map(|((_, class), counter)| (class.clone(), counter.requests)).collect()
        };
        (puts(self.owner.take()), puts(self.page_server.take()))
    }

    /// The present state, and every one that is kept, page by page.
    async fn check(&self) {
        self.forest.check(self.at).await;
        let head = self.forest.head(self.at).await.value;
        if head.settings.retention_secs > 0 {
            for lsn in self.forest.all[self.at].states.keys() {
                self.forest.check_past(self.at, *lsn).await.unwrap_or_else(|error| panic!("commit {lsn}: {error}"));
            }
        }
    }

    /// Nothing is damaged; and once the database was given up and the bucket swept, nothing is left that it does not
    /// need.
    async fn check_the_rest(&mut self) {
        self.check().await;
        self.forest.release(self.at).await;
        self.forest.sweep().await;
        let (found, summary) = verify(&self.forest.memory, &self.forest.seam, &Options::default()).await;
        let damages: Vec<_> = found.damages.iter().filter(|damage| damage.key != "meta/cluster").collect();
        assert!(damages.is_empty(), "{damages:?}");
        assert_eq!(found.orphans.len(), 0, "{:?}, {summary:?}", found.orphans);
        self.forest.check(self.at).await;
    }
}

type Puts = Vec<(String, u64)>;

fn puts(of: &[(&str, u64)]) -> Puts {
    of.iter().map(|(class, count)| ((*class).to_owned(), *count)).collect()
}

/// A history with growth, shrinks, merges and single pages: pages of the nth commit, and the size after it.
fn step(n: u32) -> (Vec<u32>, u32) {
    let page_count = match n {
        0 => 300,
        7..=9 => 280,
        _ => 300 + 8 * n,
    };
    let pages = match n % 4 {
        0 => (1..=page_count).step_by(7).collect(),
        1 => vec![1, 40 + n, 200],
        2 => (1 + 32 * (n % 5)..=64 + 32 * (n % 5)).collect(),
        _ => vec![2 + 3 * n],
    };
    (pages, page_count)
}

#[tokio::test(start_paused = true)]
async fn the_page_server_puts_the_pack_and_the_owner_the_head_alone() {
    let mut rig = Rig::new(0).await;
    for n in 0..24 {
        let (pages, page_count) = step(n);
        rig.commit(pages, page_count).await;
        let (owner, page_server) = rig.fold().await;
        assert_eq!((owner, page_server), (puts(&[("head", 1)]), puts(&[("pack", 1)])), "fold {n}");
        rig.check().await;
    }
    assert_eq!(rig.orders(), 24);
    rig.check_the_rest().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_of_the_past_goes_into_the_same_packs() {
    let mut rig = Rig::new(RETENTION_SECS).await;
    for n in 0..16 {
        let (pages, page_count) = step(n);
        rig.commit(pages, page_count).await;
        rig.commit([1, 5 + n], page_count).await;
        let (owner, page_server) = rig.fold().await;
        assert_eq!(page_server, puts(&[("pack", 1)]), "fold {n}");
        // Its own former folded point, now and then, as a base.
        assert!(owner.iter().all(|(class, _)| class == "head" || class == "map"), "fold {n}: {owner:?}");
    }
    rig.check().await;
    rig.check_the_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_small_database_needs_nobody() {
    let mut rig = Rig::new(0).await;
    rig.commit([1, 2], 2).await;
    assert_eq!(rig.fold().await, (puts(&[("head", 1)]), puts(&[])));
    // It outgrows its head: what stood there is in no pack that another could read.
    rig.commit(3..=200, 200).await;
    assert_eq!(rig.fold().await, (puts(&[("head", 1), ("pack", 1)]), puts(&[])));
    assert_eq!(rig.orders(), 0);
    rig.commit([7], 200).await;
    assert_eq!(rig.fold().await, (puts(&[("head", 1)]), puts(&[("pack", 1)])));
    rig.check_the_rest().await;
}

#[tokio::test(start_paused = true)]
async fn whatever_a_page_server_does_wrong_the_owner_folds_and_what_is_linked_is_right() {
    for way in [Way::Silence, Way::Boast, Way::Garbled, Way::Forgotten] {
        for retention_secs in [0, RETENTION_SECS] {
            let mut rig = Rig::new(retention_secs).await;
            for n in 0..8 {
                let (pages, page_count) = step(n);
                rig.commit(pages, page_count).await;
                rig.goes(if n % 2 == 0 { Way::Well } else { way });
                // So that what has failed before is tried again.
                tokio::time::advance(Duration::from_secs(60)).await;
                let (owner, _) = rig.fold().await;
                let is_own = owner.iter().any(|(class, _)| class == "pack");
                assert_eq!(is_own, n % 2 == 1, "{way:?}, fold {n}: {owner:?}");
                rig.check().await;
            }
            assert_eq!(rig.orders(), 8, "{way:?}");
            if matches!(way, Way::Garbled) {
                let linked = rig.forest.objects().iter().filter(|key| key.contains("/p/")).count();
                assert!(linked <= 8, "packs that were refused are gone at once");
            }
            rig.check_the_rest().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_server_that_fails_is_left_alone_for_a_while() {
    let mut rig = Rig::new(0).await;
    rig.goes(Way::Silence);
    let began = tokio::time::Instant::now();
    let mut asked = Vec::new();
    // A fold a second, for five minutes.
    for n in 0..300 {
        rig.commit([1 + n % 300], 300).await;
        let before = rig.orders();
        rig.fold().await;
        if rig.orders() > before {
            asked.push(began.elapsed().as_secs());
        }
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!((4..=7).contains(&asked.len()), "{asked:?}");
    assert!(asked.windows(3).all(|three| three[2] - three[1] > three[1] - three[0]), "{asked:?}");
    rig.goes(Way::Well);
    tokio::time::advance(Duration::from_secs(300)).await;
    for n in 0..3 {
        rig.commit([1 + n], 300).await;
        assert_eq!(rig.fold().await, (puts(&[("head", 1)]), puts(&[("pack", 1)])), "it is trusted again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_page_server_is_asked_again_for_the_next_fold() {
    // Room for a few pages.
    let mut rig = Rig::with(0, 40 << 12, Held::over).await;
    for n in 0..3 {
        rig.commit(1..=300, 300).await;
        assert_eq!(rig.fold().await, (puts(&[("head", 1), ("pack", 1)]), puts(&[])), "a large one, fold {n}");
        rig.commit([5, 50], 300).await;
        assert_eq!(rig.fold().await, (puts(&[("head", 1)]), puts(&[("pack", 1)])), "a small one, fold {n}");
    }
    assert_eq!(rig.orders(), 6);
    rig.check_the_rest().await;
}

/// Its connection to the bucket dies at each request of three folds, before and after that took effect.
#[tokio::test(start_paused = true)]
async fn a_page_server_that_dies_half_way_costs_nothing_but_its_work() {
    for at in 0.. {
        let mut rig = Rig::with(RETENTION_SECS, 64 << 20, |memory| Held::dying(memory, at)).await;
        for n in 0..5 {
            let (pages, page_count) = step(n);
            rig.commit(pages, page_count).await;
            tokio::time::advance(Duration::from_secs(600)).await;
            rig.fold().await;
            rig.check().await;
        }
        let requests = rig.page_server.inner().request_count();
        rig.check_the_rest().await;
        if requests <= at {
            assert!(at > 4, "{requests} requests");
            return;
        }
    }
}
