//! A simulated world: one bucket, virtual time, and nodes that live and die one after the other.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use compute::core::{self, Message};
use compute::hrana::baton::BatonKey;
use compute::http::data::{self, DataPlane};
use compute::node::{Node, NodeContext, RunCores, Settings};
use compute::sqlite::vfs;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};
use walstore::id::IncarnationId;
use walstore::life::Stores;
use walstore::register::Patience;
use walstore::seal;
use walstore::seam::{Clock, Random, Seam, Spawn, Task};
use walstore::store::{Faults, FaultyStore, Latency, MemoryStore, Trace};

use crate::client::Client;
use crate::oracle::Oracle;

pub const DATABASES: [&str; 2] = ["checking", "savings"];
const CLIENTS: u64 = 4;
const LEASE: Duration = Duration::from_secs(3);

/// What one run of a seed came to.
pub struct Run {
    pub verdict: Result<(), String>,
    pub trace: Vec<String>,
    pub bucket: BTreeMap<String, Bytes>,
    pub fault_counts: BTreeMap<String, u64>,
    pub takeovers: u64,
    pub acknowledged: u64,
    pub unknown: u64,
}

pub struct World {
    pub rng: Rng,
    pub trace: Arc<Mutex<Vec<String>>>,
    bucket: MemoryStore,
    network: Seam,
    started: tokio::time::Instant,
    fault_counts: BTreeMap<String, u64>,
    last: Option<IncarnationId>,
    takeovers: u64,
}

impl World {
    /// Runs a seed from an empty bucket to its verdict.
    pub fn run(seed: u64) -> Run {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let started = tokio::time::Instant::now();
            let tasks = Arc::new(Tasks::default());
            let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5EED);
            let network = seam(&mut rng, started, 0, &tasks);
            let trace = Arc::default();
            let bucket = MemoryStore::new();
            let mut world =
                World { rng, trace, bucket, network, started, fault_counts: BTreeMap::new(), last: None, takeovers: 0 };
            let mut oracle = Oracle::default();
            let lives = 2 + world.rng.below(3);
            for life in 0..lives {
                world.life(life, false, &mut oracle).await;
            }
            world.life(lives, true, &mut oracle).await;
            world.finish(oracle)
        })
    }

    fn finish(self, oracle: Oracle) -> Run {
        let bucket = self.bucket.snapshot();
        Run {
            verdict: oracle.verdict(),
            trace: self.trace.lock().unwrap().clone(),
            bucket: bucket.into_iter().map(|(key, bytes)| (key.to_string(), bytes)).collect(),
            fault_counts: self.fault_counts,
            takeovers: self.takeovers,
            acknowledged: oracle.acknowledged(),
            unknown: oracle.unknown(),
        }
    }

    fn note(&self, line: String) {
        self.trace.lock().unwrap().push(line);
    }

    /// One life of a node: it serves clients until it dies at a moment that the seed chose. The last life
    /// has no faults and answers what the oracle asks.
    async fn life(&mut self, life: u64, is_last: bool, oracle: &mut Oracle) {
        let tasks = Arc::new(Tasks::default());
        // Wall clocks of different machines differ by hours; safety must not care.
        let skew = self.rng.below(4 * 3_600_000_000);
        let seam = seam(&mut self.rng, self.started, skew, &tasks);
        let trace = self.trace.clone();
        let line: Trace = Arc::new(move |line| trace.lock().unwrap().push(line.to_string()));
        let faults = if is_last { Faults::default() } else { self.draw_faults() };
        let seed = self.rng.next();
        let store = Arc::new(FaultyStore::new(self.bucket.clone(), self.network.clone(), seed, faults, Some(line)));
        let stores = Stores::one(store.clone());
        let id = IncarnationId::random(&seam);
        let knows_predecessor = self.rng.below(2) == 0;
        self.note(format!("life {life}: incarnation {id}, seals its predecessor itself: {knows_predecessor}"));
        let local = LocalSet::new();
        local.run_until(self.serve(id, knows_predecessor, is_last, seam, stores, oracle)).await;
        store.crash();
        // First what runs on the I/O runtime stops, then the core's coroutines end with errors.
        tasks.0.lock().unwrap().abort_all();
        drop(local);
        for (fault, count) in store.fault_counts() {
            *self.fault_counts.entry(format!("{fault:?}")).or_default() += count;
        }
        self.last = Some(id);
    }

    async fn serve(
        &mut self,
        id: IncarnationId,
        knows_predecessor: bool,
        is_last: bool,
        seam: Seam,
        stores: Stores,
        oracle: &mut Oracle,
    ) {
        vfs::set_thread_seam(seam.clone());
        compute::sqlite::install();
        vfs::reset_randomness();
        if let Some(predecessor) = self.last.filter(|_| knows_predecessor) {
            // Like a process that holds the lock of its predecessor's cache directory.
            let _ = seal::seal(&stores, &seam, predecessor, Patience::for_duration(&seam, LEASE)).await;
        } else if self.last.is_some() {
            self.takeovers += 1;
        }
        let settings = Settings {
            lease: LEASE,
            cores: 2,
            commit_timeout: Duration::from_secs(8),
            idle_transaction_timeout: Duration::from_secs(2),
            ..Settings::default()
        };
        let Ok(node) = Node::start(id, stores, seam.clone(), settings, &LocalCores).await else {
            return self.note("the node could not start".into());
        };
        let plane = DataPlane {
            node: node.handle(),
            batons: BatonKey::new([7; 32]),
            default_database: None,
            create_on_first_use: true,
            body_bytes_max: 1 << 20,
        };
        let router = data::router(plane);
        if is_last {
            oracle.examine(&seam, &router).await;
            return;
        }
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let rng = Rng(self.rng.next());
            clients.push(Client::new(id, number, rng, router.clone(), self.trace.clone()));
        }
        let dies_after = Duration::from_micros(2_000_000 + self.rng.below(20_000_000));
        let stories: Vec<_> = clients.iter().map(|client| client.story.clone()).collect();
        let work = futures_util::future::join_all(clients.into_iter().map(Client::run));
        tokio::select! {
            biased;
            _ = work => self.note("the clients are done".into()),
            () = seam.sleep(dies_after) => self.note("the node dies".into()),
        }
        for story in stories {
            oracle.add(Rc::unwrap_or_clone(story).into_inner());
        }
    }

    fn draw_faults(&mut self) -> Faults {
        let millis = Duration::from_millis;
        let mut rate = |max| u32::try_from(self.rng.below(max)).unwrap();
        Faults {
            lost: rate(15_000),
            answer_lost: rate(15_000),
            late: rate(15_000),
            duplicated: rate(15_000),
            unavailable: rate(30_000),
            slow: rate(20_000),
            latency: Latency::uniform(millis(1), millis(20)),
            slow_time: Latency::uniform(millis(20), millis(900)),
            late_time: Latency::uniform(millis(1), millis(30_000)),
            patience: millis(1_500),
            ..Faults::default()
        }
    }
}

/// SplitMix64.
#[derive(Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

fn seam(rng: &mut Rng, started: tokio::time::Instant, skew_micros: u64, tasks: &Arc<Tasks>) -> Seam {
    let clock = VirtualClock { started, skew_micros };
    Seam::new(Arc::new(clock), Arc::new(SeededRandom(Mutex::new(Rng(rng.next())))), tasks.clone())
}

struct VirtualClock {
    started: tokio::time::Instant,
    skew_micros: u64,
}

/// November 2026.
const EPOCH_MICROS: u64 = 1_795_000_000_000_000;

impl Clock for VirtualClock {
    fn wall_micros(&self) -> u64 {
        EPOCH_MICROS + self.skew_micros + self.boot_micros()
    }

    fn boot_micros(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap() + 1
    }
}

struct SeededRandom(Mutex<Rng>);

impl Random for SeededRandom {
    fn fill(&self, buffer: &mut [u8]) {
        let mut rng = self.0.lock().unwrap();
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&rng.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// The tasks of one node, or of the network, so that a crash can stop them.
#[derive(Default)]
struct Tasks(Mutex<JoinSet<()>>);

impl Spawn for Tasks {
    fn spawn(&self, task: Task) {
        self.0.lock().unwrap().spawn(task);
    }
}

/// Cores as tasks of the simulated node's own set, which dies with it.
struct LocalCores;

impl RunCores for LocalCores {
    fn run_core(&self, number: u16, node: Arc<NodeContext>, inbox: mpsc::UnboundedReceiver<Message>) {
        tokio::task::spawn_local(core::run(number, node, inbox));
    }
}
