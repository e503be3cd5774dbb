//! A simulated world: one bucket, virtual time, machines on which nodes live and die, and clients.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use compute::core::{self, Message};
use compute::hrana::baton::BatonKey;
use compute::http::admin;
use compute::http::data::{self, DataPlane};
use compute::node::{Node, NodeContext, RunCores, Settings};
use compute::sqlite::vfs;
use futures_util::future::join_all;
use pageserver::fetcher::Fetcher;
use pageserver::fold::PackMaker;
use pageserver::service::packs::PackBuilder;
use segments::cache::PageCache;
use segments::disk::DiskCache;
use segments::disk::file::CacheFile;
use segments::disk::file::simulated::{Damage, DiskFaults, SimulatedDisk};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use walstore::id::IncarnationId;
use walstore::life::Stores;
use walstore::register::Patience;
use walstore::seal;
use walstore::store::{Effect, Faults, FaultyStore, Latency, MemoryStore, Op, Trace};

use crate::audit;
use crate::client::{Client, Outcome, Story};
use crate::cluster::{Cluster, Server, sleep};
use crate::hits::{self, Hits};
use crate::machine::Machine;
use crate::oracle;
use crate::peers;
use crate::rng::Rng;

const CLIENTS: u64 = 4;
/// Makes the random numbers of connections between nodes differ from all others.
const PEERS: u64 = 0x7065_6572_7300_0000;
/// The same for the page server.
const PACKS: u64 = 0x7061_636b_7300_0000;
/// Memory for orders: the largest databases of these worlds are too much for it.
const ORDER_BYTES_MAX: usize = 1 << 20;
const LEASE: Duration = Duration::from_secs(3);
/// Short, so that logs are bundled and drained under those who read them.
const DRAIN_INTERVAL: Duration = Duration::from_secs(8);
/// Shorter than any life, so that nodes die in the middle of sweeps.
const SWEEP_INTERVAL: Duration = Duration::from_secs(6);
/// Small enough that regions of the disk cache are evicted now and then.
const DISK_BYTES: u64 = 4 << 20;
/// Clients that have not finished by then are left behind.
const END: Duration = Duration::from_secs(240);

/// What one run of a seed came to.
#[derive(Default)]
pub struct Run {
    /// What is wrong, each with the invariant's name in front.
    pub broken: Vec<String>,
    pub trace: Vec<String>,
    pub bucket: BTreeMap<String, Bytes>,
    pub hits: Hits,
    pub counts: Counts,
}

/// What happened in a run, to see that it was worth something.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub events: u64,
    pub lives: u64,
    pub crashes: u64,
    pub pauses: u64,
    pub shutdowns: u64,
    pub fenced: u64,
    /// Of these, logs that were given up because the store refused them.
    pub given_up: u64,
    /// Logs that were sealed by another node than their own.
    pub takeovers: u64,
    pub acknowledged: u64,
    pub unknown: u64,
    pub appends: u64,
    pub reads: u64,
    pub deletions: u64,
    pub replica_reads: u64,
    /// Packs of folds that a page server made.
    pub packs_made: u64,
    /// Reads that a disk cache answered.
    pub disk_hits: u64,
    /// Entries of a disk cache that were found damaged.
    pub disk_damaged: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.events += more.events;
        self.lives += more.lives;
        self.crashes += more.crashes;
        self.pauses += more.pauses;
        self.shutdowns += more.shutdowns;
        self.fenced += more.fenced;
        self.given_up += more.given_up;
        self.takeovers += more.takeovers;
        self.acknowledged += more.acknowledged;
        self.unknown += more.unknown;
        self.appends += more.appends;
        self.reads += more.reads;
        self.deletions += more.deletions;
        self.replica_reads += more.replica_reads;
        self.packs_made += more.packs_made;
        self.disk_hits += more.disk_hits;
        self.disk_damaged += more.disk_damaged;
    }
}

/// What all machines of a world share.
struct World {
    started: tokio::time::Instant,
    bucket: MemoryStore,
    network: Machine,
    cluster: Rc<Cluster>,
    peers: Arc<peers::Network>,
    /// Whether nodes read what others own.
    has_replicas: bool,
    /// Whether a page server makes the packs of their folds.
    has_page_server: bool,
    story: Rc<Story>,
    trace: Arc<Mutex<Vec<String>>>,
    hits: Arc<Mutex<Hits>>,
    counts: Arc<Mutex<Counts>>,
    /// Turns true when the clients are done.
    is_over: watch::Receiver<bool>,
    /// Whether the whole bucket is gone at the moment.
    is_out: watch::Receiver<bool>,
    /// Whether pauses of this world hide time from the boot clock.
    hides_time: bool,
    /// The cache disks of the machines, which outlive the nodes, and the caches of the nodes that run.
    disks: Vec<SimulatedDisk>,
    caches: RefCell<Vec<DiskCache>>,
    /// Bytes of page cache in memory. With few, the disk is asked more.
    cache_bytes: u64,
    /// After how long streams and databases that nobody uses are closed.
    idle_timeout: Duration,
}

/// Runs a seed from an empty bucket to its verdict.
pub fn run(seed: u64) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let started = tokio::time::Instant::now();
        let mut rng = Rng::of_seed(seed);
        compute::sqlite::install();
        vfs::reset_randomness();
        let (over, is_over) = watch::channel(false);
        let (out, is_out) = watch::channel(false);
        let machine_count = 2 + rng.below(2) as usize;
        let network = Machine::new(&mut rng, started, 0);
        let world = Rc::new(World {
            started,
            bucket: MemoryStore::new(),
            peers: peers::Network::new(network.seam.clone(), Rng::of_seed(seed ^ PEERS)),
            has_replicas: seed % 2 == 1,
            has_page_server: seed % 3 == 1,
            network,
            cluster: Rc::new(Cluster::new(machine_count)),
            story: Rc::new(Story::new(started)),
            trace: Arc::default(),
            hits: Arc::default(),
            counts: Arc::default(),
            is_over,
            is_out,
            hides_time: rng.is_one_in(8),
            disks: (0..machine_count).map(|_| SimulatedDisk::new(rng.next())).collect(),
            caches: RefCell::new(vec![DiskCache::absent(); machine_count]),
            cache_bytes: *rng.pick(&[16 << 10, 1 << 20, 256 << 20]),
            idle_timeout: Duration::from_millis(*rng.pick(&[300, 1_500, 10_000, 60_000])),
        });
        world.story.list.borrow_mut().may_be_stale = world.hides_time;
        if world.has_page_server {
            world.start_page_server(Rng::of_seed(seed ^ PACKS));
        }
        let slots: Vec<_> = (0..world.cluster.size()).map(|at| (at, rng.fork())).collect();
        let machines = join_all(slots.into_iter().map(|(at, rng)| world.clone().machine(at, rng)));
        let outages = outages(rng.fork(), out);
        let clients = join_all((0..CLIENTS).map(|number| {
            let (notes, story) = (world.clone(), world.story.clone());
            let notes = Rc::new(move |line| notes.note(line));
            Client::new(number, rng.fork(), world.cluster.clone(), story, notes).run()
        }));
        let clients = async move {
            tokio::select! {
                biased;
                _ = clients => {}
                () = outages => {}
                () = sleep(END) => {}
            }
            let _ = over.send(true);
        };
        futures_util::future::join(machines, clients).await;
        world.last_life(&mut rng).await
    })
}

/// Now and then the whole bucket is gone for a while. Never ends.
async fn outages(mut rng: Rng, out: watch::Sender<bool>) {
    let is_stable = !rng.is_one_in(4);
    loop {
        if is_stable {
            std::future::pending::<()>().await;
        }
        sleep(Duration::from_millis(rng.between(2_000, 20_000))).await;
        let _ = out.send(true);
        sleep(Duration::from_millis(rng.between(200, 12_000))).await;
        let _ = out.send(false);
    }
}

/// How a life ends, unless the clients are done before.
enum End {
    CrashAfter(Duration),
    /// At the very moment when this request takes effect, before its answer arrives.
    CrashAtRequest(u64),
    ShutDownAfter(Duration),
}

impl World {
    fn note(&self, line: String) {
        let at = self.started.elapsed().as_micros();
        self.trace.lock().unwrap().push(format!("{at} {line}"));
    }

    fn settings(&self, disk: Arc<dyn CacheFile>) -> Settings {
        Settings {
            lease: LEASE,
            cache_bytes: self.cache_bytes,
            disk: Some((disk, DISK_BYTES)),
            cores: 2,
            stall_timeout: Duration::from_secs(1),
            commit_timeout: Duration::from_secs(8),
            idle_transaction_timeout: Duration::from_secs(2),
            idle_stream_timeout: self.idle_timeout,
            idle_database_timeout: self.idle_timeout,
            drain_interval: DRAIN_INTERVAL,
            sweep_interval: SWEEP_INTERVAL,
            ..Settings::default()
        }
    }

    fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.counts.lock().unwrap());
    }

    /// One machine: nodes run on it, one after the other.
    async fn machine(self: Rc<Self>, at: usize, mut rng: Rng) {
        let mut last = None;
        let mut is_over = self.is_over.clone();
        loop {
            let downtime = Duration::from_millis(rng.below(if last.is_none() { 100 } else { 6_000 }));
            tokio::select! {
                biased;
                _ = is_over.wait_for(|is_over| *is_over) => return,
                () = sleep(downtime) => {}
            }
            last = Some(self.life(at, &mut rng, last).await);
        }
    }

    async fn life(self: &Rc<Self>, at: usize, rng: &mut Rng, last: Option<IncarnationId>) -> IncarnationId {
        // Wall clocks of different machines differ by hours; safety must not care.
        let machine = Machine::new(rng, self.started, rng.clone().below(8 * 3_600_000_000) as i64 - 4 * 3_600_000_000);
        let id = IncarnationId::random(&machine.seam);
        let end = match rng.below(5) {
            0 => End::ShutDownAfter(Duration::from_micros(rng.between(1_000_000, 15_000_000))),
            1 | 2 => End::CrashAtRequest(rng.below(400)),
            _ => End::CrashAfter(Duration::from_micros(rng.between(500_000, 20_000_000))),
        };
        let (crash, mut crashes) = mpsc::unbounded_channel();
        let at_request = if let End::CrashAtRequest(number) = end { Some((number, crash.clone())) } else { None };
        let faults = draw_faults(rng);
        let store = self.store(id, rng, faults, at_request);
        let predecessor = last.filter(|_| rng.is_one_in(2));
        let disk = self.disk(at, &machine, rng);
        self.note(format!("machine {at}: incarnation {id} starts, seals its predecessor itself: {}", predecessor.is_some()));
        self.count(|counts| counts.lives += 1);
        let (death, is_dead) = watch::channel(false);
        let local = LocalSet::new();
        let serve = self.serve(at, id, predecessor, &machine, Stores::one(store.clone()), disk, &end, is_dead);
        let mut is_over = self.is_over.clone();
        let crash_after = if let End::CrashAfter(time) = end { time } else { Duration::MAX / 2 };
        tokio::select! {
            biased;
            _ = is_over.wait_for(|is_over| *is_over) => {}
            _ = crashes.recv() => self.crashed(at),
            () = sleep(crash_after) => self.crashed(at),
            () = machine.pause.clone().obeyed_by(local.run_until(serve)) => {}
            () = self.disturb(at, &machine, &store, rng.fork()) => {}
        }
        self.cluster.set(at, None);
        self.peers.disconnect(&format!("http://{id}"));
        self.count_disk(at);
        let _ = death.send(true);
        store.crash();
        // First what runs on the I/O runtime stops, then the core's coroutines end with errors.
        machine.kill();
        drop(local);
        id
    }

    fn crashed(&self, at: usize) {
        self.note(format!("machine {at}: the node dies"));
        self.count(|counts| counts.crashes += 1);
    }

    fn store(
        &self,
        id: IncarnationId,
        rng: &mut Rng,
        faults: Faults,
        crash_at: Option<(u64, mpsc::UnboundedSender<()>)>,
    ) -> Arc<FaultyStore<MemoryStore>> {
        let (trace, hits, counts) = (self.trace.clone(), self.hits.clone(), self.counts.clone());
        let (own, sealed) = (format!("inc/{id}"), Mutex::new(BTreeSet::new()));
        let line: Trace = Arc::new(move |line| {
            trace.lock().unwrap().push(line.to_string());
            counts.lock().unwrap().events += 1;
            if let Some(fault) = line.fault {
                *hits.lock().unwrap().entry((hits::purpose(line), format!("{fault:?}"))).or_default() += 1;
            }
            let is_seal = line.op == Op::Put && line.key.starts_with("inc/") && line.key != own;
            if is_seal && line.effect == Effect::Written && sealed.lock().unwrap().insert(line.key.clone()) {
                counts.lock().unwrap().takeovers += 1;
            }
            if let Some((_, crash)) = crash_at.as_ref().filter(|(number, _)| *number == line.request) {
                let _ = crash.send(());
            }
        });
        let network = self.network.seam.clone();
        Arc::new(FaultyStore::new(self.bucket.clone(), network, rng.next(), faults, Some(line)))
    }

    /// One for the whole world, with a way to the bucket that is no better than others'.
    fn start_page_server(&self, mut rng: Rng) {
        let faults = draw_faults(&mut rng);
        let store = self.store(IncarnationId::from_bytes([0x70; 16]), &mut rng, faults, None);
        let seam = self.network.seam.clone();
        let fetcher = Fetcher::new(store.clone(), seam.clone(), PageCache::new(64 << 10), ORDER_BYTES_MAX);
        self.peers.has_page_server(PackBuilder::new(store, seam, fetcher, ORDER_BYTES_MAX));
    }

    /// The machine's cache disk for its next node: as the last one left it, or damaged meanwhile, or a new one.
    fn disk(&self, at: usize, machine: &Machine, rng: &mut Rng) -> Arc<dyn CacheFile> {
        let disk = &self.disks[at];
        let damages = match rng.below(4) {
            0 | 1 => vec![Damage::Deleted],
            2 => (0..rng.below(4)).map(|_| *rng.pick(&Damage::ALL)).collect(),
            _ => Vec::new(),
        };
        for damage in &damages {
            disk.damage(*damage);
        }
        self.note(format!("machine {at}: its cache disk: {damages:?}"));
        let (trace, hits, started) = (self.trace.clone(), self.hits.clone(), self.started);
        let on_fault = move |is_read, fault| {
            let (request, at_micros) = (if is_read { "read" } else { "write" }, started.elapsed().as_micros());
            trace.lock().unwrap().push(format!("{at_micros} machine {at}: cache disk: {request}: {fault:?}"));
            *hits.lock().unwrap().entry((format!("cache disk: {request}"), format!("{fault:?}"))).or_default() += 1;
        };
        disk.open(&machine.seam, draw_disk_faults(rng), Arc::new(on_fault))
    }

    fn count_disk(&self, at: usize) {
        let cache = std::mem::replace(&mut self.caches.borrow_mut()[at], DiskCache::absent());
        let counters = cache.counters();
        self.note(format!("machine {at}: {counters:?}"));
        self.count(|counts| {
            counts.disk_hits += counters.hits;
            counts.disk_damaged += counters.damaged;
        });
    }

    /// What happens to a machine while it runs: it stands still, its clocks jump, its bucket is gone. Never ends.
    async fn disturb(&self, at: usize, machine: &Machine, store: &FaultyStore<MemoryStore>, mut rng: Rng) {
        let mut is_out = self.is_out.clone();
        store.set_outage(*is_out.borrow_and_update());
        let is_calm = rng.is_one_in(2);
        loop {
            let calm = Duration::from_millis(if is_calm { u64::MAX / 4 } else { rng.between(500, 12_000) });
            tokio::select! {
                biased;
                Ok(()) = is_out.changed() => {
                    store.set_outage(*is_out.borrow_and_update());
                    continue;
                }
                () = sleep(calm) => {}
            }
            if rng.is_one_in(2) {
                const HOUR: i64 = 3_600_000_000;
                let jump = *rng.pick(&[HOUR, -HOUR, 87_600 * HOUR, -87_600 * HOUR]);
                self.note(format!("machine {at}: the wall clock jumps by {} h", jump / HOUR));
                machine.clock.jump(jump);
                continue;
            }
            if rng.is_one_in(4) {
                let denial = Duration::from_millis(rng.between(500, 20_000));
                self.note(format!("machine {at}: is denied access for {denial:?}"));
                store.set_denied(true);
                sleep(denial).await;
                store.set_denied(false);
                continue;
            }
            let pause = Duration::from_millis(rng.between(50, 9_000));
            self.note(format!("machine {at}: stands still for {pause:?}"));
            self.count(|counts| counts.pauses += 1);
            machine.pause.begin();
            sleep(pause).await;
            if self.hides_time {
                machine.clock.hide(pause.as_micros() as u64);
            }
            machine.pause.end();
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what makes up a life")]
    async fn serve(
        &self,
        at: usize,
        id: IncarnationId,
        predecessor: Option<IncarnationId>,
        machine: &Machine,
        stores: Stores,
        disk: Arc<dyn CacheFile>,
        end: &End,
        is_dead: watch::Receiver<bool>,
    ) {
        let seam = machine.seam.clone();
        if let Some(predecessor) = predecessor {
            // Like a process that holds the lock of its predecessor's cache directory.
            let _ = seal::seal(&stores, &seam, predecessor, Patience::for_duration(&seam, LEASE)).await;
        }
        let address = format!("http://{id}");
        let settings = Settings { address: address.clone(), read_replicas: self.has_replicas, ..self.settings(disk) };
        let Ok(mut node) = Node::start(id, stores, seam.clone(), settings, &LocalCores).await else {
            return self.note(format!("machine {at}: the node could not start"));
        };
        node.context.reaches_others_by(self.peers.clone());
        if self.has_page_server {
            node.context.has_packs_made_by(PackMaker::new("http://page-server", self.peers.clone(), seam.clone()));
        }
        self.peers.connect(address, node.handle());
        self.caches.borrow_mut()[at] = node.context.disk.clone();
        let plane = plane(&node, false);
        let server = Server {
            data: data::router(plane),
            admin: admin::router(node.handle()),
            pause: machine.pause.clone(),
            is_dead,
        };
        self.cluster.set(at, Some(server));
        let shutdown = if let End::ShutDownAfter(time) = end { *time } else { Duration::MAX / 2 };
        tokio::select! {
            biased;
            reason = node.over() => {
                self.note(format!("machine {at}: its incarnation is over: {reason}"));
                self.count(|counts| counts.fenced += 1);
                if node.has_given_up() {
                    self.count(|counts| counts.given_up += 1);
                    let _ = node.seal_given_up().await;
                }
                // Requests in progress hear of it, as they do before a process ends.
                seam.sleep(Duration::from_millis(100)).await;
            }
            () = seam.sleep(shutdown) => {
                self.note(format!("machine {at}: shuts down"));
                self.count(|counts| counts.shutdowns += 1);
                let _ = node.shut_down(Duration::from_secs(5)).await;
            }
        }
    }

    /// A node without faults answers what the oracle asks.
    async fn last_life(self: Rc<Self>, rng: &mut Rng) -> Run {
        let machine = Machine::new(rng, self.started, 0);
        let id = IncarnationId::random(&machine.seam);
        let store = self.store(id, rng, Faults::default(), None);
        let (_death, is_dead) = watch::channel(false);
        let local = LocalSet::new();
        let broken = local
            .run_until(async {
                let stores = Stores::one(store.clone());
                let disk = self.disks[0].open(&machine.seam, DiskFaults::default(), Arc::new(|_, _| {}));
                let node = Node::start(id, stores, machine.seam.clone(), self.settings(disk), &LocalCores).await;
                let Ok(node) = node else { return vec!["I16: a node without faults cannot start".into()] };
                let data = data::router(plane(&node, true));
                let admin = admin::router(node.handle());
                self.cluster.set(0, Some(Server { data, admin, pause: machine.pause.clone(), is_dead }));
                oracle::examine(&self.cluster, &self.story).await
            })
            .await;
        self.cluster.set(0, None);
        store.crash();
        machine.kill();
        drop(local);
        self.network.kill();
        let mut broken = broken;
        broken.extend(audit::audit(&self.bucket, &Machine::new(rng, self.started, 0)).await);
        self.finish(broken)
    }

    fn finish(&self, broken: Vec<String>) -> Run {
        let story = &self.story;
        self.count(|counts| {
            counts.acknowledged += story.bank.borrow().count(Outcome::Acknowledged);
            counts.unknown += story.bank.borrow().count(Outcome::Unknown);
            counts.appends += story.list.borrow().appends.len() as u64;
            counts.reads += story.list.borrow().reads.len() as u64;
            counts.deletions += story.scratch.borrow().deletions;
            counts.packs_made += self.peers.packs_made();
            counts.replica_reads += story.list.borrow().reads.iter().filter(|read| read.staleness.is_some()).count() as u64;
        });
        let bucket = self.bucket.snapshot();
        Run {
            broken,
            trace: std::mem::take(&mut self.trace.lock().unwrap()),
            bucket: bucket.into_iter().map(|(key, bytes)| (key.to_string(), bytes)).collect(),
            hits: std::mem::take(&mut self.hits.lock().unwrap()),
            counts: *self.counts.lock().unwrap(),
        }
    }
}

pub fn plane(node: &Node, create_on_first_use: bool) -> DataPlane {
    DataPlane {
        node: node.handle(),
        batons: BatonKey::new([7; 32]),
        default_database: None,
        create_on_first_use,
        body_bytes_max: 1 << 20,
    }
}

fn draw_faults(rng: &mut Rng) -> Faults {
    let millis = Duration::from_millis;
    let mut rate = |max| u32::try_from(rng.below(max)).unwrap();
    Faults {
        lost: rate(12_000),
        answer_lost: rate(12_000),
        late: rate(12_000),
        duplicated: rate(10_000),
        unavailable: rate(20_000),
        slow: rate(20_000),
        repeated: rate(8_000),
        throttled: rate(10_000),
        failed_applied: rate(10_000),
        reset: rate(10_000),
        conflict: rate(10_000),
        conflict_applied: rate(10_000),
        own_refusal: rate(10_000),
        truncated: rate(10_000),
        stale_list: rate(200_000),
        disordered_list: rate(100_000),
        black_hole: rate(600),
        latency: Latency::uniform(millis(1), millis(20)),
        slow_time: Latency::uniform(millis(20), millis(900)),
        late_time: Latency::uniform(millis(1), millis(30_000)),
        repeat_time: Latency::uniform(millis(1), millis(60_000)),
        repeat_count: 3,
        black_hole_time: Latency::uniform(millis(100), millis(4_000)),
        patience: millis(1_500),
    }
}

fn draw_disk_faults(rng: &mut Rng) -> DiskFaults {
    let is_well = rng.is_one_in(2);
    let mut rate = |max| if is_well { 0 } else { u32::try_from(rng.below(max)).unwrap() };
    DiskFaults {
        failed: rate(100_000),
        cut: rate(50_000),
        flipped: rate(100_000),
        misplaced: rate(50_000),
        full: rate(200_000),
        torn: rate(200_000),
        lost: rate(200_000),
        slow: rate(20_000),
        latency_max: Duration::from_millis(3),
    }
}

/// Cores as tasks of the simulated node's own set, which dies with it.
pub struct LocalCores;

impl RunCores for LocalCores {
    fn run_core(&self, number: u16, node: Arc<NodeContext>, inbox: mpsc::UnboundedReceiver<Message>) {
        tokio::task::spawn_local(core::run(number, node, inbox));
    }
}
