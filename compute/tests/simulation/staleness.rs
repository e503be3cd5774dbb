//! How old a replica's answers are while nothing fails: in virtual time, where the bucket and the connections take the
//! time that is drawn for them and nothing else takes any.
//!
//! One node owns a database and is written to without rest, so that it folds, too. Another reads it as a replica. For
//! each answer of the replica, with times by the one clock of this world:
//!
//! - what was acknowledged a second before it was asked is in it, and it does not claim to be older;
//! - what was acknowledged longer before its end than the staleness that it states is in it;
//! - nothing is in it that was not durable when it was given: now and then PUTs take seconds, in which commits stand in
//!   the owner's memory, and that is where the replica must not have them from.
//!
//! And each is an answer. A read may have begun before the last commit of a fold that then replaces and deletes what it is
//! about to fetch: the replica's new base is later than its snapshot. Once in these seeds (in the second) that happens, and
//! the node runs the request again.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use compute::node::{Node, Settings};
use futures_util::future::join3;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::LocalSet;
use walstore::id::IncarnationId;
use walstore::life::Stores;
use walstore::store::{Effect, Faults, FaultyStore, Latency, MemoryStore, Op, Trace};

use crate::client::rows;
use crate::cluster::{Answer, Cluster, sleep};
use crate::machine::Machine;
use crate::peers::Network;
use crate::rng::Rng;
use crate::world::{LocalCores, server};

const SEEDS: u64 = 6;
const LASTS: Duration = Duration::from_secs(20);
/// What replicas promise on a machine with nothing else to do.
const STALENESS_MAX: Duration = Duration::from_secs(1);
/// A PUT of the owner while commits are held back.
const HELD_BACK: Duration = Duration::from_secs(3);

const OWNER: usize = 0;
const REPLICA: usize = 1;

struct World {
    started: tokio::time::Instant,
    cluster: Cluster,
    /// The owner's way to the bucket.
    store: Arc<FaultyStore<MemoryStore>>,
    /// Slots of the owner's log that are in the bucket.
    slots: Arc<AtomicUsize>,
    /// When each row was acknowledged.
    acknowledged: RefCell<Vec<Duration>>,
    is_over: Cell<bool>,
    _nodes: Vec<(Node, Machine, watch::Sender<bool>)>,
    _network: Machine,
}

/// What the replica answered.
struct Seen {
    asked: Duration,
    answered: Duration,
    rows: usize,
    staleness: Duration,
}

/// What a story came to.
#[derive(Debug, Default)]
struct Tally {
    rows: usize,
    folds: usize,
    reads: usize,
    /// Reads whose pages the owner has replaced and deleted meanwhile, and whose clients are told to try again.
    too_old: usize,
    /// Reads while the owner had a commit that was not durable yet.
    reads_beside_a_commit: usize,
    stalest_millis: u128,
}

fn latency(from: Duration, to: Duration) -> Faults {
    Faults { latency: Latency::uniform(from, to), ..Faults::default() }
}

fn usual() -> Faults {
    latency(Duration::from_millis(1), Duration::from_millis(20))
}

impl World {
    async fn new(seed: u64) -> Self {
        let started = tokio::time::Instant::now();
        let mut rng = Rng::of_seed(seed);
        let (bucket, cluster) = (MemoryStore::new(), Cluster::new(2));
        let network = Machine::new(&mut rng, started, 0);
        let peers = Network::without_faults(network.seam.clone(), rng.fork());
        let (slots, mut nodes, mut stores) = (Arc::<AtomicUsize>::default(), Vec::new(), Vec::new());
        for at in [OWNER, REPLICA] {
            // Clocks of different machines differ, and staleness must not care.
            let ahead = rng.below(3_600_000_000) as i64;
            let machine = Machine::new(&mut rng, started, ahead);
            let counted = slots.clone();
            let trace: Trace = Arc::new(move |line| {
                if line.op == Op::Put && line.key.starts_with("w/") && line.effect == Effect::Written {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            });
            let store = FaultyStore::new(bucket.clone(), network.seam.clone(), rng.next(), usual(), Some(trace));
            let store = Arc::new(store);
            let id = IncarnationId::random(&machine.seam);
            let address = format!("http://{id}");
            let settings = Settings { read_replicas: at == REPLICA, address: address.clone(), ..Settings::default() };
            let started = Node::start(id, Stores::one(store.clone()), machine.seam.clone(), settings, &LocalCores);
            let node = started.await.expect("a node");
            node.context.reaches_others_by(peers.clone());
            peers.connect(address, node.handle());
            let (death, is_dead) = watch::channel(false);
            cluster.set(at, Some(server(&node, &machine, false, is_dead)));
            nodes.push((node, machine, death));
            stores.push(store);
        }
        let (store, is_over) = (stores.swap_remove(OWNER), Cell::new(false));
        let acknowledged = RefCell::default();
        Self { started, cluster, store, slots, acknowledged, is_over, _nodes: nodes, _network: network }
    }

    async fn ask(&self, at: usize, sql: &str) -> Value {
        let requests = json!([{"type": "execute", "stmt": {"sql": sql}}]);
        match self.cluster.pipeline(at, "app", None, &requests).await {
            Answer::Done(body) => body,
            other => panic!("{sql}: {other:?}"),
        }
    }

    /// One row after the other, of a size that has the tail folded every few dozen of them.
    async fn write(&self) {
        while self.started.elapsed() < LASTS {
            self.ask(OWNER, "INSERT INTO t VALUES (randomblob(9000))").await;
            self.acknowledged.borrow_mut().push(self.started.elapsed());
        }
        self.is_over.set(true);
    }

    /// Now and then PUTs take long.
    async fn hold_back(&self, mut rng: Rng) {
        while !self.is_over.get() {
            sleep(Duration::from_millis(rng.between(1_000, 5_000))).await;
            self.store.set_faults(latency(HELD_BACK, HELD_BACK));
            sleep(HELD_BACK).await;
            self.store.set_faults(usual());
        }
    }

    async fn read(&self, mut rng: Rng, tally: &mut Tally) {
        while !self.is_over.get() {
            let asked = self.started.elapsed();
            let body = self.ask(REPLICA, "SELECT count(*) FROM t").await;
            let answered = self.started.elapsed();
            if body.to_string().contains("snapshot too old") {
                tally.too_old += 1;
                continue;
            }
            let rows = rows(&body, 0).unwrap_or_else(|| panic!("{body}")).concat().concat().parse().expect("a number");
            let staleness = body["staleness_millis"].as_u64().unwrap_or_else(|| panic!("a replica says how old its answer may be: {body}"));
            self.judge(&Seen { asked, answered, rows, staleness: Duration::from_millis(staleness) }, tally);
            sleep(Duration::from_millis(rng.between(1, 40))).await;
        }
    }

    fn judge(&self, seen: &Seen, tally: &mut Tally) {
        let acknowledged = self.acknowledged.borrow();
        let before = |time: Duration| acknowledged.partition_point(|row| *row < time);
        let Seen { asked, answered, rows, staleness } = *seen;
        assert!(staleness <= STALENESS_MAX, "at {answered:?} the replica says that it is {staleness:?} behind");
        if let Some(promised) = asked.checked_sub(STALENESS_MAX) {
            assert!(rows >= before(promised), "at {answered:?}: {rows} rows, but {} a second before", before(promised));
        }
        // It is told in whole milliseconds.
        let stated = answered.saturating_sub(staleness + Duration::from_millis(1));
        assert!(rows >= before(stated), "at {answered:?}: {rows} rows, but {} as of {stated:?}", before(stated));
        // The first slot is that of the table.
        let durable = self.slots.load(Ordering::Relaxed) - 1;
        assert!(rows <= durable, "I5: at {answered:?} the replica shows {rows} rows, and {durable} are durable");
        tally.reads += 1;
        tally.reads_beside_a_commit += usize::from(durable == acknowledged.len());
        tally.stalest_millis = tally.stalest_millis.max(staleness.as_millis());
    }

    async fn story(self, seed: u64) -> Tally {
        let created = self.cluster.admin(OWNER, "POST", "/v1/namespaces/app/create".into()).await;
        assert!(matches!(created, Answer::Done(_)), "{created:?}");
        self.ask(OWNER, "CREATE TABLE t(body BLOB)").await;
        // The first answer comes when the replica is open and has heard of its owner.
        self.ask(REPLICA, "SELECT count(*) FROM t").await;
        let mut tally = Tally::default();
        let mut rng = Rng::of_seed(seed ^ 0x7374_616C);
        let (hold_back, read) = (rng.fork(), rng.fork());
        join3(self.write(), self.hold_back(hold_back), self.read(read, &mut tally)).await;
        tally.rows = self.acknowledged.borrow().len();
        tally.folds = self.store.inner().keys().iter().filter(|key| key.as_str().contains("/p/")).count();
        tally
    }
}

#[test]
fn a_replica_is_less_than_a_second_behind_and_never_ahead_of_what_is_durable() {
    let _alone = crate::ONE_WORLD.lock();
    compute::sqlite::install();
    for seed in 0..SEEDS {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        compute::sqlite::vfs::reset_randomness();
        let tally = runtime.block_on(LocalSet::new().run_until(async { World::new(seed).await.story(seed).await }));
        println!("seed {seed}: {tally:?}");
        assert!(tally.rows >= 50 && tally.reads >= 100 && tally.folds > 0, "seed {seed} did too little: {tally:?}");
        assert_eq!(tally.too_old, 0, "seed {seed}: {tally:?}");
        assert!(tally.reads_beside_a_commit >= 20, "seed {seed}: nothing was held back: {tally:?}");
    }
}
