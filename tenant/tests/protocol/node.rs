//! One node: production's incarnation, log, seal, registry and lifecycle, called as `compute` calls them, with
//! the toy in place of SQLite.

mod draining;
mod opening;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use tenant::name::Name;
use walstore::id::{DatabaseId, IncarnationId, Slot};
use walstore::life::{Incarnation, Stores};
use walstore::log::{self, Acknowledged, LogHandle, LogSink};
use walstore::register::{Patience, RecordError};
use walstore::seal::SealError;
use walstore::seam::Seam;

use crate::database::{Database, Standing};
use crate::life::Life;
use crate::sealed::Others;
use crate::toy::Tip;
use crate::watch::Watch;

const PATIENCE: Duration = Duration::from_secs(5);

/// How long the store may refuse the log. Rather short, so that it happens.
const GIVE_UP_AFTER: Duration = Duration::from_millis(1200);

/// Opened once, however many ask for it.
type Opening = Arc<tokio::sync::Mutex<Option<Arc<Database>>>>;

pub struct Node {
    pub id: IncarnationId,
    pub seam: Seam,
    pub life: Arc<Life>,
    pub stores: Stores,
    pub log: LogHandle,
    pub watch: Watch,
    pub others: Others,
    pub incarnation: OnceLock<Incarnation>,
    pub is_draining: AtomicBool,
    openings: Mutex<BTreeMap<Name, Opening>>,
    by_id: Mutex<BTreeMap<DatabaseId, Arc<Database>>>,
    /// Ended here with commits that only this log has.
    ended: Mutex<BTreeSet<DatabaseId>>,
    /// Closed while nobody used them, with commits that only this log has.
    asleep: Mutex<BTreeMap<DatabaseId, Asleep>>,
    /// Terms that this node has given up, with the history's end: what a straggler would append to.
    pub past_terms: Mutex<Vec<(DatabaseId, u64, Tip)>>,
}

/// An evicted database: its epoch, its history's end, and the slots of what is not folded.
struct Asleep {
    epoch: u64,
    tip: Tip,
    slots: Vec<Slot>,
}

/// Why a database cannot be served here now.
#[derive(Debug)]
pub struct NotOpen(pub String);

fn not_open(reason: impl std::fmt::Display) -> NotOpen {
    NotOpen(reason.to_string())
}

struct Sink {
    id: IncarnationId,
    node: Weak<Node>,
    watch: Watch,
}

impl LogSink for Sink {
    fn durable(&self, commits: Vec<Acknowledged>) {
        self.watch.check(|known| known.acknowledged(self.id, &commits));
        let Some(node) = self.node.upgrade() else { return };
        let by_id = node.by_id.lock().unwrap();
        for commit in commits {
            if let Some(database) = by_id.get(&commit.database).filter(|it| it.epoch == commit.epoch) {
                let mut state = database.state();
                state.durable = Some(commit.lsn);
                state.slots.push((commit.lsn, commit.slot));
            }
        }
    }

    fn fenced(&self, reason: &str) {
        self.watch.check(|known| known.fenced(self.id, reason));
        let Some(node) = self.node.upgrade() else { return };
        for database in node.by_id.lock().unwrap().values() {
            database.state().standing = Standing::Lost;
        }
        // Production ends the process; the next one starts with a new incarnation.
        node.is_draining.store(true, Ordering::Relaxed);
        if node.log.has_given_up() {
            self.watch.known().given_up += 1;
            node.seam.clone().spawn(async move { node.give_up().await });
        }
    }
}

impl Node {
    /// Registers a new incarnation. `predecessor` is one whose death is certain: its cache directory is ours.
    pub fn start(
        id: IncarnationId,
        (seam, life): (Seam, Arc<Life>),
        stores: Stores,
        watch: Watch,
        lease: Duration,
        predecessor: Option<IncarnationId>,
    ) -> Arc<Self> {
        let (log, inbox) = log::channel();
        log.give_up_after(GIVE_UP_AFTER);
        let node = Arc::new(Self {
            id,
            others: Others::new(stores.clone(), seam.clone()),
            seam,
            life,
            stores,
            log: log.clone(),
            watch,
            incarnation: OnceLock::new(),
            is_draining: AtomicBool::new(false),
            openings: Mutex::default(),
            by_id: Mutex::default(),
            ended: Mutex::default(),
            asleep: Mutex::default(),
            past_terms: Mutex::default(),
        });
        node.watch.known().nodes.insert(id, Arc::downgrade(&node));
        let starting = node.clone();
        node.seam.spawn(async move {
            let node = starting;
            if let Some(predecessor) = predecessor {
                let sealed = node.others.seal_dead(predecessor).await;
                sealed.unwrap_or_else(|error| node.examine_seal(&error));
            }
            let sink = Arc::new(Sink { id, node: Arc::downgrade(&node), watch: node.watch.clone() });
            let ends = (log, inbox);
            match Incarnation::start(id, node.stores.clone(), node.seam.clone(), lease, ends, sink).await {
                Ok(incarnation) => drop(node.incarnation.set(incarnation)),
                Err(_) => node.life.die(),
            }
        });
        node
    }

    /// Seals its own log once the store lets it; then the process is gone.
    async fn give_up(self: Arc<Self>) {
        // The log may be running a moment before it is registered here.
        while !self.has_started() {
            self.seam.sleep(Duration::from_millis(100)).await;
        }
        let incarnation = self.incarnation.get().expect("it has started");
        let sealed = incarnation.seal_given_up().await;
        sealed.map(|_| ()).unwrap_or_else(|error| self.examine_seal(&error));
        self.watch.known().sealed_given_up += 1;
        self.life.die();
    }

    pub fn has_started(&self) -> bool {
        self.incarnation.get().is_some()
    }

    /// Whether this node may begin writes and serve reads.
    pub fn may_serve(&self) -> bool {
        let is_valid = |it: &Incarnation| it.lease.is_valid(self.seam.boot_micros());
        self.incarnation.get().is_some_and(is_valid) && !self.is_draining.load(Ordering::Relaxed)
    }

    pub fn patience(&self) -> Patience {
        Patience::for_duration(&self.seam, PATIENCE)
    }

    /// Nothing damages the bucket here, so whatever is missing or unreadable is the protocol's fault.
    pub fn examine_seal(&self, error: &SealError) {
        match error {
            SealError::Hole(_) => self.watch.broken(format!("I3: {error}")),
            SealError::Record(error) => self.examine(error),
            // Read too late: it was bundled or drained meanwhile.
            SealError::Stale(_) => {}
        }
    }

    pub fn examine(&self, error: &RecordError) {
        if let RecordError::Corrupt(corrupt) = error {
            self.watch.broken(format!("I10: {corrupt}"));
        }
    }

    /// The databases that are open here, by name.
    pub fn all(&self) -> Vec<Arc<Database>> {
        self.by_id.lock().unwrap().values().cloned().collect()
    }
}
