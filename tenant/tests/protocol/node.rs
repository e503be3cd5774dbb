//! One node: production's incarnation, log, seal, registry and lifecycle, called as `compute` calls them, with
//! the toy in place of SQLite.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use tenant::head::Head;
use tenant::lifecycle::{self, OpenPlan, OwnerState};
use tenant::name::Name;
use tenant::registry::{self, CreateError};
use tenant::settings::Settings;
use walstore::id::{DatabaseId, IncarnationId, Lsn, PutId, Slot};
use walstore::life::{Incarnation, Stores};
use walstore::log::{self, Acknowledged, LogHandle, LogSink};
use walstore::mutant::{self, Mutant};
use walstore::register::{Patience, RecordError, Swap, Versioned};
use walstore::seal::{self, SealError};
use walstore::seam::Seam;

use crate::database::{Database, Standing};
use crate::life::Life;
use crate::sealed::Others;
use crate::toy::{self, Tip};
use crate::watch::{Watch, pack_of};

const PATIENCE: Duration = Duration::from_secs(5);
const ROUNDS_MAX: usize = 32;

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
        let starting = node.clone();
        node.seam.spawn(async move {
            let node = starting;
            if let Some(predecessor) = predecessor {
                let sealed = node.others.seal(predecessor).await;
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

    fn opening(&self, name: &Name) -> Opening {
        self.openings.lock().unwrap().entry(name.clone()).or_default().clone()
    }

    /// Forgets a database, so that its next use opens it anew.
    pub fn forget(&self, database: &Database) {
        if database.has_unfolded() {
            self.ended.lock().unwrap().insert(database.id);
        }
        let mut by_id = self.by_id.lock().unwrap();
        if by_id.get(&database.id).is_some_and(|it| std::ptr::eq(&**it, database)) {
            by_id.remove(&database.id);
        }
    }

    /// The database of this name, opened if need be.
    pub async fn open(self: &Arc<Self>, name: &Name, create: bool) -> Result<Arc<Database>, NotOpen> {
        let opening = self.opening(name);
        // Somebody is opening it: this client gives up rather than queue.
        let mut opening = opening.try_lock().map_err(not_open)?;
        if let Some(database) = &*opening {
            let standing = database.state().standing;
            match standing {
                Standing::Serving => return Ok(database.clone()),
                Standing::Leaving if self.confirm(database).await? => return Ok(database.clone()),
                Standing::Leaving | Standing::Lost => {
                    self.forget(database);
                    *opening = None;
                }
                Standing::Deleting => return Err(not_open("it is being deleted")),
            }
        }
        if !self.may_serve() {
            return Err(not_open("a node without a lease opens nothing"));
        }
        let database = self.open_cold(name, create).await?;
        *opening = Some(database.clone());
        self.by_id.lock().unwrap().insert(database.id, database.clone());
        if self.is_draining.load(Ordering::Relaxed) {
            database.state().standing = Standing::Lost;
            return Err(not_open("fenced"));
        }
        Ok(database)
    }

    async fn open_cold(self: &Arc<Self>, name: &Name, create: bool) -> Result<Arc<Database>, NotOpen> {
        let head = match self.resolve(name).await? {
            Some(head) => head,
            None if create => self.create(name).await?,
            None => return Err(not_open("no such database")),
        };
        let head = self.acquire(name, head).await?;
        self.load(head).await
    }

    async fn resolve(&self, name: &Name) -> Result<Option<Versioned<Head>>, NotOpen> {
        let (store, seam) = (&*self.stores.main, &self.seam);
        registry::resolve_head(store, seam, name, self.id, self.patience()).await.map_err(|error| {
            if let registry::ResolveError::Record { source, .. } = &error {
                self.examine(source);
            }
            not_open(error)
        })
    }

    async fn create(&self, name: &Name) -> Result<Versioned<Head>, NotOpen> {
        let settings = Settings::new(self.seam.wall_micros());
        let (store, seam) = (&*self.stores.main, &self.seam);
        match registry::create_database(store, seam, name, self.id, settings, self.patience()).await {
            Ok(head) => Ok(head),
            Err(CreateError::AlreadyExists { .. }) => self.resolve(name).await?.ok_or_else(|| not_open("gone again")),
            Err(CreateError::Record { source, .. }) => {
                self.examine(&source);
                Err(not_open(source))
            }
            Err(error) => Err(not_open(error)),
        }
    }

    /// Makes this node the owner, sealing the log of an owner that is gone.
    async fn acquire(&self, name: &Name, mut head: Versioned<Head>) -> Result<Versioned<Head>, NotOpen> {
        let mut watched = None;
        for _ in 0..ROUNDS_MAX {
            let owner = match head.value.owner {
                None => OwnerState::None,
                Some(owner) if owner == self.id => OwnerState::Me,
                Some(owner) => {
                    let probe = self.others.probe(owner).await;
                    let probe = probe.inspect_err(|error| self.examine(error)).map_err(not_open)?;
                    let is_alive = matches!(probe.state, OwnerState::Alive { .. });
                    let renewals = (owner, probe.renewed);
                    if is_alive && *watched.get_or_insert(renewals) == renewals {
                        self.seam.sleep(probe.ask_again).await;
                        continue;
                    }
                    probe.state
                }
            };
            match lifecycle::plan_open(&head.value, self.id, owner) {
                OpenPlan::Serve => return Ok(head),
                OpenPlan::Acquire => {
                    let next = lifecycle::acquire(&head.value, self.id, PutId::random(&self.seam));
                    match self.swap(&head, next, self.patience()).await? {
                        Swap::Won(won) => return Ok(won),
                        Swap::Lost(Some(found)) => head = found,
                        Swap::Lost(None) => return Err(not_open("its head is gone")),
                    }
                }
                OpenPlan::SealFirst(owner) => {
                    let sealed = self.others.seal(owner).await;
                    sealed.inspect_err(|error| self.examine_seal(error)).map_err(not_open)?;
                }
                OpenPlan::OwnedElsewhere { incarnation, .. } => return Err(not_open(format!("owned by {incarnation}"))),
                OpenPlan::Gone(_) | OpenPlan::ReadAgain => {
                    head = self.resolve(name).await?.ok_or_else(|| not_open("no such database"))?;
                }
                plan @ (OpenPlan::DrainFirst | OpenPlan::Confirm | OpenPlan::Fenced) => return Err(not_open(format!("{plan:?}"))),
            }
        }
        Err(not_open("its ownership keeps changing"))
    }

    pub async fn swap(&self, before: &Versioned<Head>, next: Head, patience: Patience) -> Result<Swap<Head>, NotOpen> {
        let put_id = next.put_id;
        let swap = registry::swap_head(&*self.stores.main, &self.seam, before, next, patience).await;
        if matches!(swap, Ok(Swap::Lost(_))) {
            self.watch.known().head_lost(put_id);
        }
        swap.map_err(|error| {
            match &error {
                registry::SwapHeadError::Record(error) => self.examine(error),
                registry::SwapHeadError::Gone { .. } => self.watch.broken(format!("I7: {error}")),
                registry::SwapHeadError::Invariant { .. } => self.watch.broken(format!("I6: {error}")),
            }
            not_open(error)
        })
    }

    /// After a release that was not answered: whether the database is still this node's.
    async fn confirm(&self, database: &Database) -> Result<bool, NotOpen> {
        let mut head = database.head.lock().await;
        for _ in 0..ROUNDS_MAX {
            let read = registry::read_head(&*self.stores.main, &self.seam, database.id, self.patience()).await;
            let found = read.inspect_err(|error| self.examine(error)).map_err(not_open)?;
            let found = found.ok_or_else(|| not_open("its head is gone"))?;
            let is_mine = found.value.owner == Some(self.id) && found.value.epoch == database.epoch;
            let owner = if is_mine { OwnerState::MeLeaving } else { OwnerState::Alive { address: String::new() } };
            let won = match lifecycle::plan_open(&found.value, self.id, owner) {
                OpenPlan::Confirm => {
                    let next = lifecycle::confirm(&found.value, PutId::random(&self.seam));
                    self.swap(&found, next, self.patience()).await?
                }
                OpenPlan::Serve => Swap::Won(found),
                _ => return Ok(false),
            };
            if let Swap::Won(won) = won {
                *head = won;
                let mut state = database.state();
                if state.standing == Standing::Leaving {
                    state.standing = Standing::Serving;
                }
                return Ok(state.standing == Standing::Serving);
            }
        }
        Err(not_open("its head keeps changing"))
    }

    /// What is folded, and then the tail of commits out of sealed logs.
    async fn load(self: &Arc<Self>, head: Versioned<Head>) -> Result<Arc<Database>, NotOpen> {
        let id = head.value.database;
        if self.ended.lock().unwrap().contains(&id) || self.by_id.lock().unwrap().contains_key(&id) {
            return Err(not_open("it has ended on this node"));
        }
        let mut history = self.read_pack(&head).await?;
        let mut tip = Tip::of_folded(id, &head.value.folded);
        if history.len() as u64 != Lsn::raw(tip.lsn) {
            self.watch.broken(format!("I9: {} commits folded up to {:?} of {id}", history.len(), tip.lsn));
        }
        let folded = tip;
        for entry in head.value.tail.iter().filter(|entry| entry.incarnation != self.id) {
            let log = self.others.log(entry.incarnation).await;
            let log = log.inspect_err(|error| self.examine_seal(error)).map_err(not_open)?;
            for (epoch, lsn, bytes) in log.get(&id).into_iter().flatten() {
                if Some(*lsn) > tip.lsn && entry.holds(entry.incarnation, *epoch, *lsn) {
                    let (number, next) = toy::follow(&tip, bytes).map_err(|broken| {
                        self.watch.broken(format!("I2: {broken} in the log of {} for {id}", entry.incarnation));
                        not_open(broken)
                    })?;
                    history.push(number);
                    tip = next;
                }
            }
        }
        let own_after = tip;
        let asleep = self.wake(&head.value, &mut history, &mut tip).await?;
        self.watch.check(|known| known.ledger.loaded(id, head.value.epoch, &history));
        self.asleep.lock().unwrap().remove(&id);
        Ok(Arc::new(Database::new(head, history, [folded, own_after, tip], asleep)))
    }

    /// Reads the commits back that this node logged before it evicted the database.
    async fn wake(
        &self,
        head: &Head,
        history: &mut Vec<toy::CommitNo>,
        tip: &mut Tip,
    ) -> Result<Vec<(Lsn, Slot)>, NotOpen> {
        let found = self.asleep.lock().unwrap().get(&head.database).map(|it| (it.epoch, it.tip, it.slots.clone()));
        let Some((epoch, end, slots)) = found.filter(|(epoch, ..)| *epoch == head.epoch) else { return Ok(Vec::new()) };
        let read = seal::read_slots(&self.stores, &self.seam, self.id, &slots, self.patience()).await;
        let mut unfolded = Vec::new();
        for fragment in read.inspect_err(|error| self.examine_seal(error)).map_err(not_open)? {
            for run in fragment.runs.iter().filter(|run| (run.database, run.epoch) == (head.database, epoch)) {
                for bytes in &run.commits {
                    if let Ok((number, next)) = toy::follow(tip, bytes) {
                        history.push(number);
                        *tip = next;
                        unfolded.push((next.lsn.expect("a commit has an LSN"), fragment.slot));
                    }
                }
            }
        }
        if *tip != end {
            self.watch.broken(format!("I1: {} ends at {:?} after an eviction, not at {:?}", head.database, tip.lsn, end.lsn));
        }
        Ok(unfolded)
    }

    /// Closes a database that nobody uses. What only the log has of it is remembered by its slots.
    pub fn evict(&self, name: &Name) {
        let opening = self.opening(name);
        let Ok(mut opening) = opening.try_lock() else { return };
        let Some(database) = opening.clone() else { return };
        // The maps by name and by id, and ourselves: whoever folds or releases has one more.
        if Arc::strong_count(&database) > 3 {
            return;
        }
        let state = database.state();
        if state.standing != Standing::Serving || state.durable != state.newest().lsn {
            return;
        }
        let slots: BTreeSet<Slot> = state.slots.iter().map(|(_, slot)| *slot).collect();
        if !slots.is_empty() && !mutant::is_on(Mutant::EvictAndForget) {
            let asleep = Asleep { epoch: database.epoch, tip: *state.newest(), slots: slots.into_iter().collect() };
            self.asleep.lock().unwrap().insert(database.id, asleep);
        }
        self.by_id.lock().unwrap().remove(&database.id);
        *opening = None;
    }

    async fn read_pack(&self, head: &Versioned<Head>) -> Result<Vec<toy::CommitNo>, NotOpen> {
        let Some(key) = pack_of(&head.value) else { return Ok(Vec::new()) };
        let key = walstore::store::Key::new(key);
        let read = walstore::register::get(&*self.stores.main, &self.seam, &key, self.patience()).await;
        if let Some((pack, _)) = read.map_err(not_open)? {
            return Ok(toy::decode_pack(&pack));
        }
        // Gone: an error only if the head that was won still stands.
        let now = registry::read_head(&*self.stores.main, &self.seam, head.value.database, self.patience()).await;
        let now = now.map_err(not_open)?;
        if now.is_some_and(|now| now.etag == head.etag) {
            self.watch.broken(format!("I10: {key} is gone, though the head references it"));
        }
        Err(not_open("the head has changed meanwhile"))
    }
}
