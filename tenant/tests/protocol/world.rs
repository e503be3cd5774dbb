//! One seed: a few nodes on one bucket, from an empty bucket to the verdict.

mod events;
mod faults;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tenant::name::Name;
use walstore::id::IncarnationId;
use walstore::life::Stores;
use walstore::seam::Seam;
use walstore::store::{Faults, FaultyStore, Latency, MemoryStore, Trace};

use crate::hits::Hits;
use crate::ledger::Outcome;
use crate::life::{self, Bent, Life, Rng};
use crate::node::{Node, NotOpen};
use crate::watch::{Tap, Watch};

const LEASE: Duration = Duration::from_millis(1500);
const EVENTS: u64 = 130;
/// In some seeds no clock lies and nobody seals rashly, so that leases must keep their promise.
const HONEST_ONE_IN: u64 = 4;
/// Some seeds begin with a quiet time of so many writes.
const CALM_ONE_IN: u64 = 12;
const CALM_WRITES: u64 = 200;
/// In some seeds the last node drains all others.
const SWEPT_ONE_IN: u64 = 8;
/// How long the last node may take until it serves everything.
const SETTLES_WITHIN: Duration = Duration::from_secs(90);

/// What a seed did.
pub struct Run {
    pub verdict: Result<(), String>,
    /// Empty unless asked for.
    pub trace: Vec<String>,
    pub bucket: BTreeMap<String, Bytes>,
    pub hits: Hits,
    /// Changes of the bucket and things that happened to nodes.
    pub events: u64,
    pub takeovers: u64,
    pub acknowledged: u64,
    pub unknown: u64,
    /// Databases drained, logs bundled, logs forgotten.
    pub drained: [u64; 3],
    /// Logs given up, and sealed by themselves then.
    pub given_up: [u64; 2],
}

/// Where one node runs after the other.
struct Place {
    node: Option<Arc<Node>>,
    store: Option<Arc<FaultyStore<Tap>>>,
    clock: Arc<Bent>,
    last: Option<IncarnationId>,
    /// Events until it starts again, or goes on after a pause.
    idle: u64,
}

struct Shared {
    trace: Mutex<Vec<String>>,
    is_traced: bool,
    hits: Mutex<Hits>,
}

struct World {
    rng: Rng,
    shared: Arc<Shared>,
    tap: Tap,
    network: Seam,
    started: tokio::time::Instant,
    places: Vec<Place>,
    names: Vec<Name>,
    /// Where clients of each name go, mostly.
    homes: Vec<usize>,
    faults: Faults,
    events: u64,
}

/// Runs a seed from an empty bucket to its verdict.
pub fn run(seed: u64, is_traced: bool) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(seed, is_traced);
        world.play().await;
        if !world.is_broken() {
            world.settle().await;
        }
        world.finish()
    })
}

impl World {
    fn new(seed: u64, is_traced: bool) -> Self {
        let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5EED);
        let started = tokio::time::Instant::now();
        let watch = Watch::default();
        watch.known().is_honest = rng.one_in(HONEST_ONE_IN);
        let shared = Arc::new(Shared { trace: Mutex::default(), is_traced, hits: Mutex::default() });
        let network = life::seam(&Bent::new(started, 0, 0), rng.next(), &Life::new(&watch));
        let mut places = Vec::new();
        for _ in 0..2 + rng.below(4) {
            let clock = Bent::new(started, rng.below(1 << 40), rng.below(1 << 33));
            places.push(Place { node: None, store: None, clock, last: None, idle: 0 });
        }
        let names: Vec<Name> =
            ["a", "b", "c", "d"][..2 + rng.below(3) as usize].iter().map(|n| Name::parse(n).unwrap()).collect();
        let homes = names.iter().map(|_| rng.below(places.len() as u64) as usize).collect();
        let faults = faults::draw(&mut rng);
        let tap = Tap { bucket: MemoryStore::new(), watch };
        Self { rng, shared, tap, network, started, places, names, homes, faults, events: 0 }
    }

    fn is_broken(&self) -> bool {
        self.tap.watch.is_broken()
    }

    fn note(&mut self, event: &'static str, what: impl std::fmt::Display) {
        self.events += 1;
        self.shared.hits.lock().unwrap().count_event(event);
        if self.shared.is_traced {
            let at = self.started.elapsed().as_micros();
            self.shared.trace.lock().unwrap().push(format!("{at} {event}: {what}"));
        }
    }

    async fn sleep(&self, micros: u64) {
        self.network.sleep(Duration::from_micros(micros)).await;
    }

    async fn play(&mut self) {
        let is_calm = self.rng.one_in(CALM_ONE_IN);
        let rough = self.faults.clone();
        if is_calm {
            let millis = Duration::from_millis;
            let (slow_time, latency) = (Latency::uniform(millis(50), millis(900)), rough.latency);
            self.faults = Faults { slow: 40_000, slow_time, latency, patience: millis(1_000), ..Faults::default() };
        }
        for place in 0..self.places.len() {
            self.start(place, None);
        }
        if is_calm {
            self.be_calm(&rough).await;
        }
        for _ in 0..EVENTS {
            if self.is_broken() {
                return;
            }
            self.look_after_places();
            self.happen();
            let pause = if self.rng.one_in(12) { 1_200_000 } else { 60_000 };
            let pause = self.rng.below(pause);
            self.sleep(pause).await;
        }
    }

    /// Nodes that live long on a store that is only slow at times, so that logs hedge; then it gets rough.
    async fn be_calm(&mut self, rough: &Faults) {
        for _ in 0..CALM_WRITES {
            let name = self.rng.below(self.names.len() as u64) as usize;
            self.write(self.homes[name], name);
            let pause = self.rng.below(30_000);
            self.sleep(pause).await;
        }
        let hedges = self.places.iter().filter_map(|place| place.node.as_ref()).map(|node| node.log.hedges()).sum();
        for _ in 0..hedges {
            self.shared.hits.lock().unwrap().count_event("hedged log PUT");
        }
        self.faults = rough.clone();
        for store in self.places.iter().filter_map(|place| place.store.as_ref()) {
            store.set_faults(rough.clone());
        }
    }

    /// A new incarnation in a place whose former one is dead.
    fn start(&mut self, at: usize, predecessor: Option<IncarnationId>) {
        let life = Life::new(&self.tap.watch);
        let seam = life::seam(&self.places[at].clock, self.rng.next(), &life);
        let id = IncarnationId::random(&seam);
        let shared = self.shared.clone();
        let trace: Trace = Arc::new(move |line| {
            shared.hits.lock().unwrap().count(id, line);
            if shared.is_traced {
                shared.trace.lock().unwrap().push(format!("{} {line}", &id.to_string()[..4]));
            }
        });
        let seed = self.rng.next();
        let store = FaultyStore::new(self.tap.clone(), self.network.clone(), seed, self.faults.clone(), Some(trace));
        let store = Arc::new(store);
        let stores = Stores::one(store.clone());
        let watch = self.tap.watch.clone();
        let node = Node::start(id, (seam, life), stores, watch, LEASE, predecessor);
        self.places[at].node = Some(node);
        self.places[at].store = Some(store);
        self.places[at].last = Some(id);
        self.note("node starts", format_args!("{id} at {at}, seals {predecessor:?}"));
    }

    /// The dead are replaced after a while, and the paused go on.
    fn look_after_places(&mut self) {
        for at in 0..self.places.len() {
            if self.places[at].idle > 0 {
                self.places[at].idle -= 1;
                continue;
            }
            match &self.places[at].node {
                None => {
                    let predecessor = self.places[at].last.filter(|_| self.rng.one_in(3));
                    self.start(at, predecessor);
                }
                Some(node) if node.life.is_dead() => {
                    self.places[at].node = None;
                    self.places[at].idle = self.rng.below(25);
                    self.note("node is dead", at);
                }
                Some(node) if node.life.is_paused() => {
                    node.life.resume();
                    self.places[at].clock.set_rate(1000);
                    self.note("node goes on", at);
                }
                Some(_) => {}
            }
        }
    }

    /// Faults stop, every node dies, and a fresh one must serve everything there is.
    async fn settle(&mut self) {
        let latency = Latency::uniform(Duration::from_millis(1), Duration::from_millis(10));
        self.faults = Faults { latency, patience: Duration::from_secs(1), ..Faults::default() };
        for place in &self.places {
            if let Some(node) = &place.node {
                node.life.die();
            }
        }
        let clock = Bent::new(self.started, 1, 0);
        self.places.push(Place { node: None, store: None, clock, last: None, idle: 0 });
        self.start(self.places.len() - 1, None);
        let node = self.places.last().and_then(|place| place.node.clone()).expect("just started");
        let unserved: Unserved = Arc::default();
        for name in self.names.clone() {
            unserved.lock().unwrap().insert(name.clone(), "nobody has answered yet".into());
            node.seam.spawn(serve(node.clone(), name, unserved.clone()));
        }
        let mut waited = Duration::ZERO;
        let step = Duration::from_millis(500);
        while !unserved.lock().unwrap().is_empty() && waited < SETTLES_WITHIN && !self.is_broken() {
            self.network.sleep(step).await;
            waited += step;
        }
        self.sleep(1_000_000).await;
        self.examine(&node, &unserved.lock().unwrap());
        if !self.is_broken() && self.rng.one_in(SWEPT_ONE_IN) {
            self.sweep_up(&node).await;
        }
        node.life.die();
        // Whatever the network still holds arrives now, from the dead.
        self.sleep(1_000_000_000).await;
    }

    /// The last node folds everything that it serves, so it can drain everybody else.
    async fn sweep_up(&mut self, node: &Arc<Node>) {
        let swept: Arc<Mutex<usize>> = Arc::new(Mutex::new(usize::MAX));
        let (sweeping, left) = (node.clone(), swept.clone());
        node.seam.spawn(async move {
            for database in sweeping.all() {
                database.fold(&sweeping).await;
            }
            while *left.lock().unwrap() > 0 {
                let now = sweeping.clone().sweep().await;
                *left.lock().unwrap() = now;
            }
        });
        let mut waited = Duration::ZERO;
        let step = Duration::from_millis(500);
        while *swept.lock().unwrap() > 0 && waited < SETTLES_WITHIN && !self.is_broken() {
            self.network.sleep(step).await;
            waited += step;
        }
        let left = *swept.lock().unwrap();
        if left > 0 {
            self.tap.watch.broken(format!("I16: {left} logs are not drained, though nothing fails any more"));
        }
    }

    fn examine(&mut self, node: &Node, unserved: &BTreeMap<Name, String>) {
        let watch = &self.tap.watch;
        if let Some((name, why)) = unserved.first_key_value() {
            watch.broken(format!("I16: `{name}` is not served, though nothing fails any more: {why}"));
        }
        let open = node.all();
        for database in &open {
            let state = database.state();
            if state.durable != state.newest().lsn {
                watch.broken(format!("I16: a commit of `{}` is not acknowledged", database.name));
            }
            watch.check(|known| known.ledger.loaded(database.id, database.epoch, &state.history));
        }
        watch.check(|known| {
            let served: Vec<_> = open.iter().map(|database| database.id).collect();
            let is_gone = |id: &_| known.heads.get(id).is_some_and(|head| head.state.is_final());
            match known.ledger.databases().find(|id| !served.contains(id) && !is_gone(id)) {
                Some(id) => Err(format!("I1: {id} has acknowledged commits, and no name leads to it")),
                None => Ok(()),
            }
        });
    }

    fn finish(self) -> Run {
        let mut known = self.tap.watch.known();
        let bucket = if self.shared.is_traced { self.tap.bucket.snapshot() } else { BTreeMap::new() };
        Run {
            verdict: known.broken.take().map_or(Ok(()), Err),
            trace: std::mem::take(&mut self.shared.trace.lock().unwrap()),
            bucket: bucket.into_iter().map(|(key, bytes)| (key.to_string(), bytes)).collect(),
            hits: std::mem::take(&mut self.shared.hits.lock().unwrap()),
            events: self.events + known.changes,
            takeovers: known.takeovers,
            acknowledged: known.ledger.count(Outcome::Acknowledged) as u64,
            unknown: known.ledger.count(Outcome::Unknown) as u64,
            drained: [known.drained, known.bundled, known.forgotten],
            given_up: [known.given_up, known.sealed_given_up],
        }
    }
}

/// Names that the last node does not serve yet, and why not.
type Unserved = Arc<Mutex<BTreeMap<Name, String>>>;

async fn serve(node: Arc<Node>, name: Name, unserved: Unserved) {
    loop {
        let why = match node.open(&name, true).await {
            Ok(database) if database.append(&node).is_some() => {
                database.fold(&node).await;
                unserved.lock().unwrap().remove(&name);
                return;
            }
            Ok(_) => "it takes no commits".into(),
            Err(NotOpen(why)) => why,
        };
        unserved.lock().unwrap().insert(name.clone(), why);
        node.seam.sleep(Duration::from_millis(300)).await;
    }
}
