//! The machines of a world: nodes run on them, one after the other, and are disturbed and killed.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use compute::node::{Node, Settings};
use pageserver::fetcher::Fetcher;
use pageserver::fold::PackMaker;
use pageserver::service::packs::PackBuilder;
use segments::cache::PageCache;
use segments::disk::DiskCache;
use segments::disk::file::CacheFile;
use segments::disk::file::simulated::Damage;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use walstore::id::IncarnationId;
use walstore::life::Stores;
use walstore::register::Patience;
use walstore::seal;
use walstore::store::{Effect, Faults, FaultyStore, MemoryStore, Op, Trace};

use crate::cluster::{Server, sleep};
use crate::faults;
use crate::hits;
use crate::machine::Machine;
use crate::rng::Rng;
use crate::world::{LEASE, LocalCores, World, server};

/// Memory for orders of a page server: the largest databases of these worlds are too much for it.
const ORDER_BYTES_MAX: usize = 1 << 20;

/// How a life ends, unless the clients are done before.
enum End {
    CrashAfter(Duration),
    /// At the very moment when this request takes effect, before its answer arrives.
    CrashAtRequest(u64),
    ShutDownAfter(Duration),
}

impl World {
    /// One machine: nodes run on it, one after the other.
    pub async fn machine(self: Rc<Self>, at: usize, mut rng: Rng) {
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
        // Wall clocks of different machines differ by hours; safety must not care. Of those that are about right some
        // let histories be trimmed.
        let apart: u64 = if rng.clone().is_one_in(2) { 4 * 3_600_000_000 } else { 60_000_000 };
        let machine = Machine::new(rng, self.started, rng.clone().below(2 * apart) as i64 - apart as i64);
        let id = IncarnationId::random(&machine.seam);
        let end = match rng.below(5) {
            0 => End::ShutDownAfter(Duration::from_micros(rng.between(1_000_000, 15_000_000))),
            1 | 2 => End::CrashAtRequest(rng.below(400)),
            _ => End::CrashAfter(Duration::from_micros(rng.between(500_000, 20_000_000))),
        };
        let (crash, mut crashes) = mpsc::unbounded_channel();
        let at_request = if let End::CrashAtRequest(number) = end { Some((number, crash.clone())) } else { None };
        let faults = faults::of_bucket(rng);
        let store = self.store(id, rng, faults, at_request);
        let predecessor = last.filter(|_| rng.is_one_in(2));
        let disk = self.disk(at, &machine, rng);
        self.note(format!("machine {at}: incarnation {id} starts, seals its predecessor itself: {}", predecessor.is_some()));
        self.count(|counts| counts.lives += 1);
        let (death, is_dead) = watch::channel(false);
        let local = LocalSet::new();
        let serve = self.serve(at, id, predecessor, &machine, Stores::one(store.clone()), disk, &end, is_dead, crash);
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

    pub fn store(
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
            counts.lock().unwrap().note(line);
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
    pub fn start_page_server(&self, mut rng: Rng) {
        let faults = faults::of_bucket(&mut rng);
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
        disk.open(&machine.seam, faults::of_disk(rng), Arc::new(on_fault))
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
        crash: mpsc::UnboundedSender<()>,
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
        self.cluster.set(at, Some(Server { crash: Some(crash), ..server(&node, machine, false, is_dead) }));
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
}
