//! Opening databases: name, head, ownership, and the commits that are only in logs.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use pageserver::warm::Cold;
use pageserver::fold::FoldJob;
use segments::commit::UncheckedCommit;
use segments::fold::FoldInput;
use segments::map::PageMap;
use segments::page::Page;
use tenant::head::{Head, MapField, PackRef};
use tenant::lifecycle::{self, OpenPlan, OwnerState};
use tenant::name::Name;
use tenant::registry::{self, CreateError, DeleteError};
use tenant::settings::Settings;
use tokio::sync::{Mutex, OnceCell, oneshot};
use tracing::{info, warn};
use walstore::id::{DatabaseId, Lsn, PutId, Slot};
use walstore::register::{Backoff, Patience, Swap, Versioned};

use super::claim::Claim;
use super::eviction::Sleepers;
use super::names::KnownNames;
use super::{Core, spawn_local};
use crate::context::LoggedCommit;
use crate::database::Database;
use crate::database::pages::{self, Base, Fetch};
use crate::error::{Fault, ServerError};
use crate::limits;
use crate::session::pool::Pool;

/// How long opening, creating or deleting keeps asking the store.
const PATIENCE: Duration = Duration::from_secs(15);
/// Rounds of reading head and owner again before a client is told to come back.
const ROUNDS_MAX: usize = 64;

/// Claims that are lost to other nodes before a caller is told to come back.
const CLAIMS_MAX: usize = 8;

/// Why a database cannot be opened.
#[derive(Clone, Debug)]
pub enum OpenError {
    NoSuchDatabase(Name),
    Server(ServerError),
}

impl From<ServerError> for OpenError {
    fn from(error: ServerError) -> Self {
        Self::Server(error)
    }
}

/// An open database with everything that belongs to it on this core.
pub struct OpenDatabase {
    pub database: Rc<Database>,
    pub pool: Rc<Pool>,
    pub head: RefCell<Versioned<Head>>,
    /// Whether the head is this node's yet.
    pub claim: Claim,
    /// The last commit before this node's first one.
    pub own_after: Option<Lsn>,
    /// Entries of the head's dead list that are deleted already.
    pub deleted: RefCell<Vec<PackRef>>,
    /// When it was last used, by the boot clock.
    pub used_micros: Cell<u64>,
    /// Held by whoever folds.
    pub folding: Mutex<()>,
    /// About to be closed because nobody uses it.
    pub is_idle: Cell<bool>,
    /// Closed because nobody used it.
    pub is_closed: Cell<bool>,
    /// Where this log holds commits that are not folded, oldest first.
    unfolded: RefCell<VecDeque<(Lsn, Slot)>>,
    folds: Cell<u32>,
    /// There was little dead space in its packs when it was last looked for, and no fold since.
    pub is_compact: Cell<bool>,
    /// How many folds there had been then.
    compacted: Cell<u32>,
}

impl OpenDatabase {
    /// A replica: nothing of it is in this node's log, and this node never folds it.
    pub fn of_replica(database: Rc<Database>, head: Versioned<Head>) -> Self {
        Self {
            used_micros: Cell::new(database.node.seam.boot_micros()),
            database,
            pool: Rc::default(),
            head: RefCell::new(head),
            claim: Claim::won(),
            own_after: None,
            deleted: RefCell::default(),
            folding: Mutex::new(()),
            is_idle: Cell::new(false),
            is_closed: Cell::new(false),
            unfolded: RefCell::default(),
            folds: Cell::new(0),
            is_compact: Cell::new(true),
            compacted: Cell::new(0),
        }
    }

    pub fn on_durable(&self, lsn: Lsn, slot: Slot) {
        self.unfolded.borrow_mut().push_back((lsn, slot));
        self.database.on_durable(lsn);
    }

    /// Waits for bytes of the bucket.
    pub async fn fetch(&self, fetch: Fetch) -> Result<(), ServerError> {
        pages::fetch(&self.database.node.fetcher, fetch).await
    }

    /// How many dead objects the head lists that are not deleted yet.
    pub fn dead_count(&self) -> usize {
        self.head.borrow().value.dead.len().saturating_sub(self.deleted.borrow().len())
    }

    /// Whether dead space is to be looked for: while nobody uses the database, and now and then if somebody always does.
    pub fn compaction_is_due(&self) -> bool {
        let since = self.folds.get() - self.compacted.get();
        !self.is_compact.get() && (self.is_idle.get() || since >= limits::FOLDS_WITHOUT_COMPACTION_MAX)
    }

    /// There is little dead space, or it can wait.
    pub fn has_been_compacted(&self) {
        self.is_compact.set(true);
        self.compacted.set(self.folds.get());
    }

    /// A fold of nothing, to be filled in.
    pub fn job_without_commits(&self) -> FoldJob {
        let base = self.database.base();
        let map = base.map();
        FoldJob {
            input: FoldInput::new(self.database.id, &map),
            map,
            head: self.head.borrow().clone(),
            tip: base.tip,
            own_after: self.own_after,
            seq: self.next_fold(),
            deleted: Vec::new(),
            release: false,
        }
    }

    /// Counts this owner's folds.
    pub fn next_fold(&self) -> u32 {
        let fold = self.folds.get() + 1;
        self.folds.set(fold);
        fold
    }

    /// Where this log holds commits that are not folded.
    pub fn unfolded_slots(&self) -> VecDeque<(Lsn, Slot)> {
        self.unfolded.borrow().clone()
    }

    /// Whether slots of the log below `slot` cannot be deleted because of this database.
    pub fn holds_slots_below(&self, slot: Slot) -> bool {
        self.unfolded.borrow().front().is_some_and(|(_, oldest)| *oldest < slot)
    }

    /// Everything up to `lsn` is folded.
    pub fn forget_slots(&self, lsn: Lsn) {
        let mut unfolded = self.unfolded.borrow_mut();
        while unfolded.front().is_some_and(|(oldest, _)| *oldest <= lsn) {
            unfolded.pop_front();
        }
    }
}

/// What stands between a head and serving its database.
enum Acquired {
    Owned(Versioned<Head>),
    /// It is nobody's, or a dead owner's whose log is sealed.
    Claimable(Versioned<Head>),
}

/// Parts of a page map that are being read.
struct Warm {
    /// The map, as the head has it.
    root: MapField,
    read: oneshot::Receiver<Option<PageMap>>,
}

/// A database that is open, or on the way to be.
#[derive(Default)]
struct Opening {
    cell: OnceCell<Rc<OpenDatabase>>,
    /// When the latest try ended in vain, and how.
    failed: RefCell<Option<(u64, OpenError)>>,
}

impl Opening {
    /// Whoever waited while the bucket was asked in vain doesn't ask it all over again: else many would wait for each
    /// other's tries to end, one after the other. Only who may create the database finds out by himself that it
    /// isn't there.
    fn failed_since(&self, arrived: u64, create: bool) -> Result<(), OpenError> {
        match &*self.failed.borrow() {
            Some((_, OpenError::NoSuchDatabase(_))) if create => Ok(()),
            Some((at, error)) if *at >= arrived => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

/// The open databases of one core.
#[derive(Default)]
pub struct Databases {
    by_name: RefCell<BTreeMap<Name, Rc<Opening>>>,
    by_id: RefCell<BTreeMap<DatabaseId, Rc<OpenDatabase>>>,
    /// Ended on this node with commits that only its own log has. That log can be read back once it is
    /// sealed, so this incarnation must not serve them again.
    ended: RefCell<BTreeSet<DatabaseId>>,
    /// Closed while nobody used them, with commits that only this log has.
    pub sleepers: RefCell<Sleepers>,
    names: RefCell<KnownNames>,
}

impl Databases {
    fn opening(&self, name: &Name) -> Rc<Opening> {
        self.by_name.borrow_mut().entry(name.clone()).or_default().clone()
    }

    /// Whether this node serves a database of this name, or is about to.
    pub fn is_open(&self, name: &Name) -> bool {
        self.by_name.borrow().get(name).is_some_and(|opening| opening.cell.initialized())
    }

    /// Forgets a database that has ended on this node.
    pub fn forget(&self, open: &OpenDatabase) {
        if open.database.newest().lsn > open.database.base().tip.lsn {
            self.ended.borrow_mut().insert(open.database.id);
        }
        self.close(open);
    }

    /// Whether nobody is on the way to this open database.
    pub fn nobody_waits_for(&self, open: &Rc<OpenDatabase>) -> bool {
        self.by_name.borrow().get(&open.database.name).is_some_and(|opening| {
            Rc::strong_count(opening) == 1 && opening.cell.get().is_some_and(|it| Rc::ptr_eq(it, open))
        })
    }

    /// Whether somebody is on the way to open it.
    pub fn is_being_opened(&self, name: &Name) -> bool {
        self.by_name.borrow().get(name).is_some_and(|opening| !opening.cell.initialized())
    }

    /// Takes a database out, so that its next use opens it anew.
    pub fn close(&self, open: &OpenDatabase) {
        // By identity: another database may have the name by now.
        let mut by_name = self.by_name.borrow_mut();
        if by_name.get(&open.database.name).and_then(|it| it.cell.get()).is_some_and(|it| std::ptr::eq(&**it, open)) {
            by_name.remove(&open.database.name);
        }
        let mut by_id = self.by_id.borrow_mut();
        if by_id.get(&open.database.id).is_some_and(|it| std::ptr::eq(&**it, open)) {
            by_id.remove(&open.database.id);
        }
    }

    pub fn by_id(&self, id: DatabaseId) -> Option<Rc<OpenDatabase>> {
        self.by_id.borrow().get(&id).cloned()
    }

    pub fn len(&self) -> usize {
        self.by_id.borrow().len()
    }

    pub fn all(&self) -> Vec<Rc<OpenDatabase>> {
        self.by_id.borrow().values().cloned().collect()
    }
}

impl Core {
    /// The database of this name, which this node owns.
    pub(super) async fn open(self: &Rc<Self>, name: &Name, create: bool) -> Result<Rc<OpenDatabase>, OpenError> {
        let mut rounds = 0;
        loop {
            rounds += 1;
            let open = self.open_to_read(name, create).await?;
            match open.claim.settled().await {
                Ok(()) => return Ok(open),
                Err(why) if why.overtaken && rounds < CLAIMS_MAX => {}
                Err(why) => return Err(why.error.into()),
            }
        }
    }

    /// The database of this name, opened if need be. Many may ask at once; it is opened once. It may be that this node
    /// does not own it yet: until its claim is settled nothing that is read may be shown, and nobody gets its turn.
    pub(super) async fn open_to_read(self: &Rc<Self>, name: &Name, create: bool) -> Result<Rc<OpenDatabase>, OpenError> {
        let (opening, arrived) = (self.databases.opening(name), self.node.seam.boot_micros());
        let open = || async {
            opening.failed_since(arrived, create)?;
            let opened = self.open_cold(name, create).await;
            let failed = opened.as_ref().err().map(|error| (self.node.seam.boot_micros(), error.clone()));
            *opening.failed.borrow_mut() = failed;
            opened
        };
        let opened = opening.cell.get_or_try_init(open).await;
        if opened.is_err() && !opening.cell.initialized() {
            // Nothing is remembered of a failed try, not even that the name was asked for.
            let mut by_name = self.databases.by_name.borrow_mut();
            if by_name.get(name).is_some_and(|now| Rc::ptr_eq(now, &opening) && Rc::strong_count(&opening) <= 2) {
                by_name.remove(name);
            }
        }
        opened.cloned()
    }

    async fn open_cold(self: &Rc<Self>, name: &Name, create: bool) -> Result<Rc<OpenDatabase>, OpenError> {
        // Room for one more; what is in use stays.
        self.evict(limits::OPEN_DATABASES_MAX, Duration::ZERO);
        let head = match self.resolve(name).await? {
            Some(head) => head,
            None if create => match self.create_head(name).await? {
                Ok(head) => head,
                Err(CreateError::AlreadyExists { .. }) => {
                    self.resolve(name).await?.ok_or_else(|| OpenError::NoSuchDatabase(name.clone()))?
                }
                Err(error) => return Err(ServerError::from(error).into()),
            },
            None => return Err(OpenError::NoSuchDatabase(name.clone())),
        };
        self.check_not_ended(&head.value)?;
        let mut acquired = self.acquire(name, head).await?;
        for _ in 0..ROUNDS_MAX {
            match acquired {
                Acquired::Owned(head) => {
                    self.close_replica_of(name, "this node owns the database by now").await;
                    let warm = self.warm(&head.value);
                    let open = self.load(head, warm, Claim::won()).await?;
                    self.register(&open);
                    self.begin_to_serve(&open);
                    return Ok(open);
                }
                Acquired::Claimable(head) => {
                    self.close_replica_of(name, "this node claims the database").await;
                    if let Some(open) = self.open_claimed(head).await? {
                        return Ok(open);
                    }
                    let head = self.resolve(name).await?.ok_or_else(|| OpenError::NoSuchDatabase(name.clone()))?;
                    acquired = self.acquire(name, head).await?;
                }
            }
        }
        Err(ownership_keeps_changing(name).into())
    }

    /// Opens a database while the CAS that makes it this node's is on its way. `None`: the head is not the latest one.
    async fn open_claimed(self: &Rc<Self>, before: Versioned<Head>) -> Result<Option<Rc<OpenDatabase>>, OpenError> {
        self.read_ahead(&before.value);
        let warm = self.warm(&before.value);
        let sent = self.send_claim(before);
        let (claim, answer) = Claim::pending();
        let open = match self.load(sent.head.clone(), warm, claim).await {
            Ok(open) => open,
            // An old head does not fit the logs of today: only with the claim won is what was read to be believed.
            Err(error) => return if sent.wins().await? { Err(error.into()) } else { Ok(None) },
        };
        self.register(&open);
        let turn = open.database.turn.try_take().expect("BUG: a writer before the database is open");
        spawn_local(self.clone().settle(open.clone(), sent, turn, answer));
        Ok(Some(open))
    }

    /// It is this node's.
    pub(super) fn begin_to_serve(self: &Rc<Self>, open: &Rc<OpenDatabase>) {
        let database = &open.database;
        info!(database = %database.name, epoch = database.epoch, lsn = Lsn::raw(database.newest().lsn), "open");
        self.start_folding(open);
    }

    fn register(&self, open: &Rc<OpenDatabase>) {
        self.databases.sleepers.borrow_mut().remove(&open.database.id);
        self.databases.by_id.borrow_mut().insert(open.database.id, open.clone());
        if let Some(reason) = &*self.fenced.borrow() {
            open.database.lose(reason);
        }
    }

    pub(super) fn patience(&self) -> Patience {
        Patience::for_duration(&self.node.seam, PATIENCE)
    }

    /// The head of the database that has this name. It is not looked up where it is known.
    async fn resolve(&self, name: &Name) -> Result<Option<Versioned<Head>>, ServerError> {
        let names = &self.databases.names;
        let (wanted, patience) = (name.clone(), self.patience());
        let known = names.borrow_mut().get(name);
        if let Some(id) = known {
            let head = self.node.io(move |node| async move {
                registry::read_head(&*node.stores.main, &node.seam, id, patience).await
            });
            let head = head.await?.map_err(ServerError::from)?;
            if head.as_ref().is_some_and(|head| !head.value.state.is_final() && head.value.name == *name) {
                return Ok(head);
            }
            names.borrow_mut().forget(name);
        }
        let resolved = self.node.io(move |node| async move {
            registry::resolve_head(&*node.stores.main, &node.seam, &wanted, node.id, patience).await
        });
        let head = resolved.await?.map_err(ServerError::from)?;
        if let Some(head) = &head {
            names.borrow_mut().learn(name, head.value.database);
        }
        Ok(head)
    }

    async fn create_head(&self, name: &Name) -> Result<Result<Versioned<Head>, CreateError>, ServerError> {
        let node = &self.node;
        let mut settings = Settings::new(node.seam.wall_micros());
        settings.window_millis = u16::try_from(node.settings.window.as_millis()).unwrap_or(u16::MAX);
        let (name, patience) = (name.clone(), self.patience());
        let created = node.io(move |node| async move {
            registry::create_database(&*node.stores.main, &node.seam, &name, node.id, settings, patience).await
        });
        created.await
    }

    /// Finds out whether this node owns the database or may claim it, sealing the log of an owner that is gone.
    async fn acquire(&self, name: &Name, mut head: Versioned<Head>) -> Result<Acquired, OpenError> {
        let node = &self.node;
        let mut watched = None;
        for _ in 0..ROUNDS_MAX {
            let owner = match head.value.owner {
                None => OwnerState::None,
                Some(owner) if owner == node.id => OwnerState::Me,
                Some(owner) => {
                    let probe = node.io(move |node| async move { node.others.probe(owner).await });
                    let probe = probe.await?.map_err(ServerError::from)?;
                    let is_alive = matches!(probe.state, OwnerState::Alive { .. });
                    // A renewal while we watch proves that it lives; until then it may be dead.
                    let renewals = (owner, probe.renewed);
                    if is_alive && *watched.get_or_insert(renewals) == renewals {
                        node.seam.sleep(probe.ask_again).await;
                        continue;
                    }
                    probe.state
                }
            };
            match lifecycle::plan_open(&head.value, node.id, owner) {
                OpenPlan::Serve => return Ok(Acquired::Owned(head)),
                OpenPlan::Acquire => return Ok(Acquired::Claimable(head)),
                OpenPlan::Confirm => {
                    let next = lifecycle::confirm(&head.value, PutId::random(&node.seam));
                    let (before, patience) = (head.clone(), self.patience());
                    let swap = node.io(move |node| async move {
                        registry::swap_head(&*node.stores.main, &node.seam, &before, next, patience).await
                    });
                    match swap.await?.map_err(ServerError::from)? {
                        Swap::Won(won) => return Ok(Acquired::Owned(won)),
                        Swap::Lost(Some(found)) => head = found,
                        Swap::Lost(None) => return Err(OpenError::NoSuchDatabase(name.clone())),
                    }
                }
                OpenPlan::SealFirst(owner) => {
                    let sealed = node.io(move |node| async move { node.others.seal(owner).await });
                    sealed.await?.map_err(ServerError::from)?;
                }
                OpenPlan::DrainFirst => return Err(self.tail_is_full(&head.value).into()),
                OpenPlan::OwnedElsewhere { incarnation, address } => return Err(owned_elsewhere(name, incarnation, &address).into()),
                OpenPlan::Fenced => {
                    let text = format!("another node has taken `{name}` over from this one, which is over; ask there");
                    return Err(ServerError::new(Fault::Fenced, text).into());
                }
                OpenPlan::Gone(state) => {
                    info!(database = %name, ?state, "its head is final; reading the name again");
                    head = self.resolve(name).await?.ok_or_else(|| OpenError::NoSuchDatabase(name.clone()))?;
                }
                OpenPlan::ReadAgain => {
                    head = self.resolve(name).await?.ok_or_else(|| OpenError::NoSuchDatabase(name.clone()))?;
                }
            }
        }
        Err(ownership_keeps_changing(name).into())
    }

    /// Reads the log of the former owner, which this node will need, while it makes itself the owner.
    fn read_ahead(&self, head: &Head) {
        let node = self.node.clone();
        if let Some(owner) = head.owner.filter(|owner| *owner != node.id) {
            self.node.seam.spawn(async move { node.read_ahead(owner).await });
        }
    }

    /// Begins to read the parts of the page map that are not in the head. What cannot be read is left to the query
    /// that wants it.
    fn warm(&self, head: &Head) -> Option<Warm> {
        let (_, map) = pageserver::base::base_of(head).ok()?;
        let cold = Cold::of(&map, &self.node.cache)?;
        let (sender, read) = oneshot::channel();
        let (fetcher, of) = (self.node.fetcher.clone(), head.database);
        self.node.seam.spawn(async move { drop(sender.send(cold.read(&fetcher, of, map).await.ok())) });
        Some(Warm { root: head.map.clone(), read })
    }

    fn tail_is_full(&self, head: &Head) -> ServerError {
        let text = format!("`{}` changed hands {} times without a fold; drain it first", head.name, head.tail.len());
        ServerError::new(Fault::Retry, text)
    }

    /// A database that has ended here with commits that only this node's log has can be served again only by
    /// another node, or by the next one: from the log, once that is sealed.
    fn check_not_ended(&self, head: &Head) -> Result<(), ServerError> {
        if self.databases.ended.borrow().contains(&head.database) || self.databases.by_id(head.database).is_some() {
            let text = format!("`{}` has ended on this node; restart the node to serve it again", head.name);
            return Err(ServerError::new(Fault::Fenced, text));
        }
        Ok(())
    }

    /// Builds the open database: what is folded, and then the tail of commits out of sealed logs.
    async fn load(
        &self,
        head: Versioned<Head>,
        warm: Option<Warm>,
        claim: Claim,
    ) -> Result<Rc<OpenDatabase>, ServerError> {
        let node = &self.node;
        let id = head.value.database;
        // It may have ended while it was acquired.
        self.check_not_ended(&head.value)?;
        let base = Base::of_head(&head.value).map_err(|corrupt| {
            let key = tenant::keys::head(head.value.database);
            ServerError::new(Fault::Corrupt, corrupt.at(key).to_string())
        })?;
        if let Some(warm) = warm.filter(|warm| warm.root == head.value.map)
            && let Ok(Some(map)) = warm.read.await
        {
            base.learn(map);
        }
        let window_micros = u64::from(head.value.settings.window_millis) * 1000;
        let identity = (head.value.database, head.value.name.clone(), head.value.epoch);
        let database = Rc::new(Database::new(identity, node.clone(), self.number, window_micros, base));
        for entry in &head.value.tail {
            if entry.incarnation != node.id {
                let incarnation = entry.incarnation;
                let after = database.newest().lsn;
                let commits = node.io(move |node| async move { node.logged_commits(incarnation, id, after).await });
                for commit in &commits.await?.map_err(ServerError::from)? {
                    let is_next = Some(commit.lsn) > database.newest().lsn;
                    if is_next && entry.holds(entry.incarnation, commit.epoch, commit.lsn) {
                        recover(&database, commit, entry.incarnation).await?;
                    }
                }
            }
        }
        let own_after = database.newest().lsn;
        let unfolded = self.wake(&database).await?;
        database.warm_up();
        Ok(Rc::new(OpenDatabase {
            own_after,
            database,
            pool: Rc::default(),
            head: RefCell::new(head),
            claim,
            deleted: RefCell::default(),
            used_micros: Cell::new(node.seam.boot_micros()),
            folding: Mutex::new(()),
            is_idle: Cell::new(false),
            is_closed: Cell::new(false),
            unfolded: RefCell::new(unfolded),
            folds: Cell::new(0),
            is_compact: Cell::new(true),
            compacted: Cell::new(0),
        }))
    }

    /// Creates a database; it is open afterwards.
    pub(super) async fn create(self: &Rc<Self>, name: Name) -> Result<DatabaseId, ServerError> {
        match self.create_head(&name).await? {
            Ok(head) => Ok(head.value.database),
            Err(error @ CreateError::AlreadyExists { .. }) => Err(ServerError::new(Fault::Conflict, error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes a database: its head becomes final first, then its name is free. Once begun it is carried
    /// through, however often the store fails: a database that is half deleted must not be served.
    pub(super) async fn delete(self: &Rc<Self>, name: Name) -> Result<(), OpenError> {
        let open = self.open(&name, false).await?;
        open.database.lose("the database was deleted");
        open.pool.clear();
        let node = &self.node;
        let mut head = open.head.borrow().clone();
        let mut backoff = Backoff::default();
        loop {
            let before = head.clone();
            let deleted = node.io(move |node| async move {
                registry::delete_database(&*node.stores.main, &node.seam, &before, node.id, Patience::endless()).await
            });
            match deleted.await? {
                Ok(_) => break,
                // Our own delete had landed, or somebody else's.
                Err(DeleteError::Conflict { found }) if found.value.state.is_final() => break,
                Err(DeleteError::Conflict { found }) if found.value.owner == Some(node.id) => head = *found,
                Err(error @ (DeleteError::Conflict { .. } | DeleteError::NotOwner { .. })) => {
                    self.databases.forget(&open);
                    return Err(ServerError::new(Fault::Fenced, error.to_string()).into());
                }
                Err(error) => {
                    warn!(database = %name, %error, "cannot delete it yet; trying again");
                    backoff.pause(&node.seam).await;
                }
            }
        }
        if let Some(last) = open.database.newest().lsn {
            node.log.folded(open.database.id, last);
        }
        self.databases.forget(&open);
        self.end_streams_of(&open).await;
        Ok(())
    }
}

/// Applies one commit of a sealed log. Patches want the page as it was just before.
pub async fn recover(
    database: &Rc<Database>,
    logged: &LoggedCommit,
    incarnation: walstore::id::IncarnationId,
) -> Result<(), ServerError> {
    let corrupt = |what: &dyn std::fmt::Display| {
        let text = format!("a commit of {} in the log of {incarnation}: {what}", database.id);
        ServerError::new(Fault::Corrupt, text)
    };
    let unchecked = UncheckedCommit::decode(&logged.bytes).map_err(|error| corrupt(&error))?;
    let commit = unchecked.check(&database.newest()).map_err(|error| corrupt(&error))?;
    let wanted: Vec<_> = commit.bases().map(|(page_no, _)| page_no).collect();
    let reads = stream::iter(wanted).map(|page_no| async move {
        Ok::<_, ServerError>((page_no, database.page_for_recovery(page_no).await?))
    });
    let mut bases: BTreeMap<_, Page> = reads.buffer_unordered(limits::BASES_AT_ONCE).try_collect().await?;
    let tip = commit.tip();
    let commit = commit.apply(|page_no, _| bases.remove(&page_no).ok_or("the page was not read"));
    database.recover(commit.map_err(|error| corrupt(&error))?, tip, logged.bytes.len());
    Ok(())
}

fn ownership_keeps_changing(name: &Name) -> ServerError {
    ServerError::new(Fault::Retry, format!("the ownership of `{name}` keeps changing; try again"))
}

fn owned_elsewhere(name: &Name, incarnation: walstore::id::IncarnationId, address: &str) -> ServerError {
    let at = if address.is_empty() { String::new() } else { format!(" at {address}") };
    let text = format!("`{name}` is served by another node ({incarnation}{at}); ask there, or try again when it is gone");
    ServerError::new(Fault::Retry, text)
}
