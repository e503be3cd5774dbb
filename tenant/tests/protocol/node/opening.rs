//! Opening databases: name, head, ownership, and the commits that are only in logs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tenant::head::Head;
use tenant::lifecycle::{self, OpenPlan, OwnerState};
use tenant::name::Name;
use tenant::registry::{self, CreateError};
use tenant::settings::Settings;
use walstore::id::{IncarnationId, Lsn, PutId, Slot};
use walstore::mutant::{self, Mutant};
use walstore::register::{Patience, Swap, Versioned};
use walstore::recovery::{self, Access};

use super::{Asleep, Node, NotOpen, Opening, not_open};
use crate::database::{Database, Standing};
use crate::toy::{self, Tip};
use crate::watch::pack_of;

/// Rounds of reading head and owner again before a client is told to come back.
const ROUNDS_MAX: usize = 32;

/// A history: all of it, and of the part that is not folded the tips (that of the folded point first) and epochs.
pub(super) struct Read {
    pub history: Vec<toy::CommitNo>,
    pub tips: Vec<Tip>,
    pub epochs: Vec<(u64, Lsn)>,
}

impl Node {
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
                OpenPlan::OwnedElsewhere { incarnation, .. } => {
                    return Err(not_open(format!("owned by {incarnation}")));
                }
                OpenPlan::Gone(_) | OpenPlan::ReadAgain => {
                    head = self.resolve(name).await?.ok_or_else(|| not_open("no such database"))?;
                }
                plan @ (OpenPlan::DrainFirst | OpenPlan::Confirm | OpenPlan::Fenced) => {
                    return Err(not_open(format!("{plan:?}")));
                }
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

    /// Before the first fold: notes in the name record that there is a head. `false`: that is not known to have happened.
    pub async fn note_made(&self, before: &Head, next: &Head, patience: Patience) -> bool {
        if before.has_folded() {
            return true;
        }
        let noted = registry::note_made(&*self.stores.main, &self.seam, next, patience).await;
        if let Err(registry::ResolveError::Record { source, .. }) = &noted {
            self.examine(source);
        }
        noted.is_ok()
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

    /// Lists the names. Whatever a listing leaves out, it invents nothing.
    pub async fn list(self: Arc<Self>, known: Vec<Name>) {
        let listed = registry::list(&*self.stores.main, &self.seam, "", None, 10, self.patience()).await;
        if let Some(name) = listed.ok().and_then(|page| page.names.into_iter().find(|name| !known.contains(name))) {
            self.watch.broken(format!("I2: `{name}` is listed, and nobody created it"));
        }
    }

    /// What is folded, and then the tail of commits out of sealed logs.
    async fn load(self: &Arc<Self>, head: Versioned<Head>) -> Result<Arc<Database>, NotOpen> {
        let id = head.value.database;
        if self.ended.lock().unwrap().contains(&id) || self.by_id.lock().unwrap().contains_key(&id) {
            return Err(not_open("it has ended on this node"));
        }
        let Read { mut history, tips, .. } = self.read_history(&head, Some(self.id)).await?;
        let (folded, own_after) = (tips[0], *tips.last().expect("there is always the folded point"));
        let mut tip = own_after;
        let asleep = self.wake(&head.value, &mut history, &mut tip).await?;
        self.watch.check(|known| known.loaded(id, head.value.epoch, &history));
        self.asleep.lock().unwrap().remove(&id);
        Ok(Arc::new(Database::new(head, history, [folded, own_after, tip], asleep)))
    }

    /// What packs and sealed logs have of a database, without the log of `but`.
    pub(super) async fn read_history(
        &self,
        head: &Versioned<Head>,
        but: Option<IncarnationId>,
    ) -> Result<Read, NotOpen> {
        let id = head.value.database;
        let mut history = self.read_pack(head).await?;
        let mut tip = Tip::of_folded(id, &head.value.folded);
        if history.len() as u64 != Lsn::raw(tip.lsn) {
            self.watch.broken(format!("I9: {} commits folded up to {:?} of {id}", history.len(), tip.lsn));
        }
        let (mut tips, mut epochs) = (vec![tip], Vec::new());
        for entry in head.value.tail.iter().filter(|entry| Some(entry.incarnation) != but) {
            let commits = self.others.commits(entry.incarnation, id).await;
            for commit in commits.inspect_err(|error| self.examine_seal(error)).map_err(not_open)? {
                if Some(commit.lsn) > tip.lsn && entry.holds(entry.incarnation, commit.epoch, commit.lsn) {
                    let (number, next) = match toy::follow(&tip, &commit.bytes) {
                        Ok(followed) => followed,
                        Err(broken) => {
                            let what = format!("I2: {broken} in the log of {} for {id}", entry.incarnation);
                            return Err(self.broken_unless_moved(head, what).await);
                        }
                    };
                    history.push(number);
                    epochs.push((commit.epoch, commit.lsn));
                    tips.push(next);
                    tip = next;
                }
            }
        }
        Ok(Read { history, tips, epochs })
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
        let access = Access { stores: &self.stores, seam: &self.seam, patience: self.patience() };
        let mut unfolded = Vec::new();
        for slot in slots {
            let read = recovery::read_own(access, self.id, vec![slot], head.database, epoch).await;
            for commit in read.inspect_err(|error| self.examine_seal(error)).map_err(not_open)? {
                if let Ok((number, next)) = toy::follow(tip, &commit.bytes) {
                    history.push(number);
                    *tip = next;
                    unfolded.push((commit.lsn, slot));
                }
            }
        }
        if *tip != end {
            self.watch
                .broken(format!("I1: {} ends at {:?} after an eviction, not at {:?}", head.database, tip.lsn, end.lsn));
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
        Err(self.broken_unless_moved(head, format!("I10: {key} is gone, though the head references it")).await)
    }

    /// What does not fit a head is an error only if that still stands: logs are forgotten once a fold was linked.
    async fn broken_unless_moved(&self, head: &Versioned<Head>, what: String) -> NotOpen {
        let now = registry::read_head(&*self.stores.main, &self.seam, head.value.database, self.patience()).await;
        match now {
            Ok(Some(now)) if now.etag != head.etag => not_open("the head has changed meanwhile"),
            Err(error) => not_open(error),
            Ok(_) => {
                self.watch.broken(what.clone());
                not_open(what)
            }
        }
    }
}
