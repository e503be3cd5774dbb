//! A simulated world: one bucket, virtual time, machines on which nodes live and die, and clients.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use compute::core;
use compute::hrana::baton::BatonKey;
use compute::http::data::{self, DataPlane};
use compute::http::admin;
use compute::node::{Node, RunCores, Settings, StartCore};
use compute::sqlite::vfs;
use futures_util::future::{OptionFuture, join, join_all};
use segments::disk::DiskCache;
use segments::disk::file::CacheFile;
use segments::disk::file::simulated::SimulatedDisk;
use tokio::sync::watch;
use walstore::store::MemoryStore;

use crate::client::{Client, Story};
use crate::cluster::{Cluster, Server, sleep};
use crate::counts::{Counts, Run};
use crate::hits::Hits;
use crate::machine::{Machine, true_micros};
use crate::peers;
use crate::rng::Rng;

const CLIENTS: u64 = 4;
/// Makes the random numbers of connections between nodes differ from all others.
const PEERS: u64 = 0x7065_6572_7300_0000;
/// The same for the page server.
const PACKS: u64 = 0x7061_636b_7300_0000;
pub const LEASE: Duration = Duration::from_secs(3);
/// Short, so that logs are bundled and drained under those who read them.
const DRAIN_INTERVAL: Duration = Duration::from_secs(8);
/// Shorter than any life, so that nodes die in the middle of sweeps.
const SWEEP_INTERVAL: Duration = Duration::from_secs(6);
/// Small enough that regions of the disk cache are evicted now and then.
const DISK_BYTES: u64 = 4 << 20;
/// How long databases keep their history, in seconds: not at all, shorter than a world lasts, or longer.
const RETENTIONS: [u64; 6] = [0, 10, 40, 7_200, 86_400, 86_400];
/// Clients that have not finished by then are left behind.
const END: Duration = Duration::from_secs(240);

/// What all machines of a world share.
pub struct World {
    pub started: tokio::time::Instant,
    pub bucket: MemoryStore,
    pub network: Machine,
    pub cluster: Rc<Cluster>,
    pub peers: Arc<peers::Network>,
    /// Whether nodes read what others own.
    pub has_replicas: bool,
    /// Whether a page server makes the packs of their folds.
    pub has_page_server: bool,
    /// Whether nodes have so little memory that large transactions wait for it, and are refused.
    pub is_tight: bool,
    pub story: Rc<Story>,
    pub trace: Arc<Mutex<Vec<String>>>,
    pub hits: Arc<Mutex<Hits>>,
    pub counts: Arc<Mutex<Counts>>,
    /// Turns true when the clients are done.
    pub is_over: watch::Receiver<bool>,
    /// Whether the whole bucket is gone at the moment.
    pub is_out: watch::Receiver<bool>,
    /// Whether pauses of this world hide time from the boot clock.
    pub hides_time: bool,
    /// The cache disks of the machines, which outlive the nodes, and the caches of the nodes that run.
    pub disks: Vec<SimulatedDisk>,
    pub caches: RefCell<Vec<DiskCache>>,
    /// Bytes of page cache in memory. With few, the disk is asked more.
    pub cache_bytes: u64,
    /// How long databases keep their history.
    pub retention: Duration,
    /// Whether somebody travels through time.
    pub has_past: bool,
    /// After how long streams and databases that nobody uses are closed.
    pub idle_timeout: Duration,
}

/// What a node lends that has little. Large transactions are of up to 3 MB, and are there twice until they are folded.
const TIGHT_BYTES: usize = 4 << 20;

/// Runs a seed from an empty bucket to its verdict.
pub fn run(seed: u64) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let started = tokio::time::Instant::now();
        let mut rng = Rng::of_seed(seed);
        compute::sqlite::install();
        // Before the first world, for they use SQLite's randomness.
        crate::past::files::files();
        vfs::reset_randomness();
        let (over, is_over) = watch::channel(false);
        let (out, is_out) = watch::channel(false);
        let machine_count = 2 + rng.below(2) as usize;
        let network = Machine::new(&mut rng, started, 0);
        let has_past = rng.is_one_in(2);
        let world = Rc::new(World {
            started,
            bucket: MemoryStore::new(),
            peers: peers::Network::new(network.seam.clone(), Rng::of_seed(seed ^ PEERS)),
            has_replicas: seed % 2 == 1,
            has_page_server: seed % 3 == 1,
            is_tight: matches!(seed % 7, 0 | 3 | 4),
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
            has_past,
            retention: Duration::from_secs(if has_past { *rng.pick(&RETENTIONS) } else { 0 }),
        });
        world.bucket.set_clock(move || true_micros(started));
        world.story.list.borrow_mut().may_be_stale = world.hides_time;
        (world.story.past.borrow_mut().retention, world.story.past.borrow_mut().may_be_stale) = (world.retention, world.hides_time);
        if world.has_page_server {
            world.start_page_server(Rng::of_seed(seed ^ PACKS));
        }
        let slots: Vec<_> = (0..world.cluster.size()).map(|at| (at, rng.fork())).collect();
        let machines = join_all(slots.into_iter().map(|(at, rng)| world.clone().machine(at, rng)));
        let outages = outages(rng.fork(), out);
        let mut client = |number| {
            let (notes, story) = (world.clone(), world.story.clone());
            let notes = Rc::new(move |line| notes.note(line));
            Client::new(number, rng.fork(), world.cluster.clone(), story, notes)
        };
        let clients = join_all((0..CLIENTS).map(|number| client(number).run()));
        let traveller = has_past.then(|| client(CLIENTS).travel());
        let clients = join(clients, OptionFuture::from(traveller));
        let clients = async move {
            tokio::select! {
                biased;
                _ = clients => {}
                () = outages => {}
                () = sleep(END) => {}
            }
            let _ = over.send(true);
        };
        join(machines, clients).await;
        world.end(&mut rng).await
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

impl World {
    pub fn note(&self, line: String) {
        let at = self.started.elapsed().as_micros();
        self.trace.lock().unwrap().push(format!("{at} {line}"));
    }

    pub fn settings(&self, disk: Arc<dyn CacheFile>) -> Settings {
        let roomy = Settings::default();
        let tight = Settings {
            lent_bytes_max: TIGHT_BYTES,
            small_transaction_bytes: TIGHT_BYTES / 16,
            overlay_bytes_max: TIGHT_BYTES / 4,
            transaction_bytes_max: TIGHT_BYTES / 2,
            ..Settings::default()
        };
        Settings {
            lease: LEASE,
            cache_bytes: self.cache_bytes,
            // So little that the cache gives way to almost everything.
            lent_bytes_free: 256 << 10,
            disk: Some((disk, DISK_BYTES)),
            cores: 2,
            stall_timeout: Duration::from_secs(1),
            commit_timeout: Duration::from_secs(8),
            idle_transaction_timeout: Duration::from_secs(2),
            idle_stream_timeout: self.idle_timeout,
            idle_database_timeout: self.idle_timeout,
            drain_interval: DRAIN_INTERVAL,
            sweep_interval: SWEEP_INTERVAL,
            retention: self.retention,
            ..if self.is_tight { tight } else { roomy }
        }
    }

    pub fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.counts.lock().unwrap());
    }
}

/// A node as clients reach it.
pub fn server(node: &Node, machine: &Machine, create_on_first_use: bool, is_dead: watch::Receiver<bool>) -> Server {
    let plane = DataPlane {
        node: node.handle(),
        batons: BatonKey::new([7; 32]),
        default_database: None,
        create_on_first_use,
        body_bytes_max: 1 << 20,
    };
    Server {
        data: data::router(plane),
        admin: admin::router(node.handle()),
        pause: machine.pause.clone(),
        clock: machine.clock.clone(),
        context: node.context.clone(),
        is_dead,
        crash: None,
    }
}

/// Cores as tasks of the simulated node's own set, which dies with it.
pub struct LocalCores;

impl RunCores for LocalCores {
    fn prepare(&self, count: u16) -> io::Result<Vec<StartCore>> {
        let start = |number| -> StartCore {
            Box::new(move |node, inbox| drop(tokio::task::spawn_local(core::run(number, node, inbox))))
        };
        Ok((0..count).map(start).collect())
    }
}
