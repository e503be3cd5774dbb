//! Hedged PUTs of a whole log, in virtual time, over a store whose next request can be made slow or lost.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use crate::fragment::{self, Entry};
use crate::id::{DatabaseId, IncarnationId, Lsn, PutId, Slot};
use crate::keys;
use crate::limits;
use crate::log::{self, Acknowledged, Commit, LogHandle, LogSink};
use crate::seam::{Seam, simulated};
use crate::store::{Condition, Effect, Faults, FaultyStore, Latency, MemoryStore, Op, Store, Trace, TraceLine};

const INC: IncarnationId = IncarnationId::from_bytes([1; 16]);
const ALWAYS: u32 = 1_000_000;
const USUAL: Duration = Duration::from_millis(30);

#[derive(Default)]
struct Told {
    durable: Mutex<Vec<u64>>,
    fenced: Mutex<u32>,
}

impl LogSink for Told {
    fn durable(&self, commits: Vec<Acknowledged>) {
        self.durable.lock().unwrap().extend(commits.iter().map(|commit| commit.lsn.get()));
    }

    fn fenced(&self, _: &str) {
        *self.fenced.lock().unwrap() += 1;
    }
}

struct World {
    seam: Seam,
    store: Arc<FaultyStore<MemoryStore>>,
    log: LogHandle,
    told: Arc<Told>,
    /// PUTs that reached the store, and what became of them.
    puts: Arc<Mutex<Vec<Effect>>>,
    lsn: u64,
}

fn steady(latency: Duration) -> Faults {
    Faults { latency: Latency::uniform(latency, latency), patience: 20 * USUAL, ..Faults::default() }
}

impl World {
    fn new() -> Self {
        let seam = simulated::seam(7);
        let puts: Arc<Mutex<Vec<Effect>>> = Arc::default();
        let seen = puts.clone();
        let trace: Trace = Arc::new(move |line: &TraceLine| {
            if line.op == Op::Put {
                seen.lock().unwrap().push(line.effect);
            }
        });
        let store = Arc::new(FaultyStore::new(MemoryStore::new(), seam.clone(), 1, steady(USUAL), Some(trace)));
        let (log, inbox) = log::channel();
        let told = Arc::new(Told::default());
        seam.spawn(log::run(INC, inbox, crate::life::Stores::one(store.clone()), seam.clone(), told.clone()));
        Self { seam, store, log, told, puts, lsn: 0 }
    }

    /// A log that has seen enough of its store to tell a slow PUT.
    async fn warm() -> Self {
        let mut world = Self::new();
        for _ in 0..limits::HEDGE_SAMPLES {
            world.append();
            world.sleep(2 * USUAL).await;
        }
        assert_eq!(world.acknowledged(), world.lsn);
        assert_eq!(world.log.hedges(), 0);
        world.puts.lock().unwrap().clear();
        world
    }

    fn append(&mut self) {
        self.lsn += 1;
        let (database, lsn) = (DatabaseId::from_bytes([1; 16]), Lsn::new(self.lsn).unwrap());
        let entry = Entry { database, epoch: 1, lsn, bytes: Bytes::from_static(b"commit").into() };
        self.log.append(Commit { entry, window_micros: 0, home: 0, side: None });
    }

    /// Appends a commit whose PUT meets these faults. Requests sent later meet none.
    async fn append_with(&mut self, faults: Faults) {
        self.store.set_faults(faults);
        self.append();
        self.sleep(Duration::from_millis(2)).await;
        self.store.set_faults(steady(USUAL));
    }

    async fn sleep(&self, time: Duration) {
        self.seam.sleep(time).await;
    }

    /// How many commits were acknowledged: each once, in order.
    fn acknowledged(&self) -> u64 {
        let durable = self.told.durable.lock().unwrap();
        let count = durable.len() as u64;
        assert_eq!(*durable, (1..=count).collect::<Vec<_>>());
        count
    }

    fn puts(&self) -> usize {
        self.puts.lock().unwrap().len()
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(test)
}

#[test]
fn a_slow_put_is_overtaken_by_its_hedge_and_acknowledged_once() {
    run(async {
        let mut world = World::warm().await;
        world.append_with(steady(Duration::from_secs(10))).await;
        world.append();
        // The 95th percentile and a hedge's own time later, long before the first request arrives.
        world.sleep(3 * USUAL).await;
        assert_eq!(world.log.hedges(), 1);
        assert_eq!(world.acknowledged(), world.lsn, "and the commit behind it as well");
        world.sleep(Duration::from_secs(30)).await;
        assert_eq!(world.acknowledged(), world.lsn);
        assert_eq!(world.puts(), 3, "the slow one is refused in the end");
        assert_eq!(*world.told.fenced.lock().unwrap(), 0);
    });
}

#[test]
fn a_hedge_that_is_refused_for_the_first_request_s_sake_is_a_success() {
    run(async {
        let mut world = World::warm().await;
        // It lands, but its answer is lost.
        world.append_with(Faults { answer_lost: ALWAYS, ..steady(USUAL) }).await;
        world.sleep(4 * USUAL).await;
        assert_eq!(world.log.hedges(), 1);
        assert_eq!(world.acknowledged(), world.lsn);
        assert_eq!(*world.told.fenced.lock().unwrap(), 0);
    });
}

#[test]
fn a_hedge_that_meets_a_tombstone_is_a_fence() {
    run(async {
        let mut world = World::warm().await;
        let slot = Slot(world.lsn);
        world.append_with(steady(Duration::from_secs(10))).await;
        let tombstone = fragment::encode_tombstone(INC, slot, PutId::from_bytes([5; 16]));
        world.store.inner().put(&keys::fragment(INC, slot), tombstone, &Condition::Absent).await.unwrap();
        world.sleep(Duration::from_secs(30)).await;
        assert_eq!(world.log.hedges(), 1);
        assert_eq!(world.acknowledged(), world.lsn - 1);
        assert_eq!(*world.told.fenced.lock().unwrap(), 1, "told once, by whichever request was answered first");
    });
}

#[test]
fn a_steady_store_sees_one_put_for_each_batch() {
    run(async {
        let mut world = World::warm().await;
        for _ in 0..200 {
            world.append();
            world.sleep(2 * USUAL).await;
        }
        assert_eq!((world.puts(), world.log.hedges()), (200, 0));
    });
}

#[test]
fn a_store_in_trouble_is_not_hedged() {
    run(async {
        let mut world = World::warm().await;
        world.append_with(Faults { unavailable: ALWAYS, ..steady(USUAL) }).await;
        world.sleep(4 * USUAL).await;
        assert_eq!((world.acknowledged(), world.puts()), (world.lsn, 2), "refused for now, and sent again");
        world.append_with(steady(Duration::from_secs(1))).await;
        world.sleep(Duration::from_secs(2)).await;
        assert_eq!((world.acknowledged(), world.log.hedges()), (world.lsn, 0));
    });
}

#[test]
fn a_store_that_turns_slow_is_sent_a_tenth_more() {
    run(async {
        let mut world = World::warm().await;
        world.store.set_faults(steady(Duration::from_millis(500)));
        for _ in 0..100 {
            world.append();
            world.sleep(Duration::from_secs(1)).await;
        }
        // What was saved up, and what these earned until slow was usual.
        let hedges = world.log.hedges();
        let max = u64::from(limits::HEDGES_SAVED_MAX) + 100 / u64::from(limits::HEDGE_ONE_IN);
        assert!((1..=max).contains(&hedges), "{hedges} hedges");
        assert_eq!(world.puts() as u64, 100 + hedges);
        assert_eq!(world.acknowledged(), world.lsn);
    });
}
