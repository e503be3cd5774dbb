//! The open databases of one core, and the way from a name to one of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use pageserver::base::Ahead;
use tenant::head::{Head, HeadState};
use tenant::name::Name;
use tenant::registry::{self, CreateError, DeleteError};
use tokio::sync::OnceCell;
use tracing::warn;
use walstore::id::{DatabaseId, Lsn};
use walstore::register::{Backoff, Patience, Versioned};

use super::Core;
use super::eviction::{Sleepers, Wasteful};
use super::names::{Known, KnownNames, KnownRecords};
use super::open_database::OpenDatabase;
use crate::context::LookedUp;
use crate::error::ServerError;

/// How long opening, creating or deleting keeps asking the store.
const PATIENCE: Duration = Duration::from_secs(15);

/// Claims that are lost to other nodes before a caller is told to come back.
const CLAIMS_MAX: usize = 8;

/// A head, and what is being read because it will probably be needed.
pub type FoundHead = (Versioned<Head>, Option<Ahead>);

/// A database that was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    pub database: DatabaseId,
    /// Its last commit (raw). None, if it kept no history: then nothing can be brought back.
    pub last: Option<u64>,
}

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
    pub ended: RefCell<BTreeSet<DatabaseId>>,
    /// Closed while nobody used them, with commits that only this log has.
    pub sleepers: RefCell<Sleepers>,
    /// Sleepers that were woken to be folded a short while ago, and when.
    pub woken: RefCell<BTreeMap<DatabaseId, u64>>,
    /// Closed before their dead space was given back.
    pub wasteful: RefCell<BTreeMap<DatabaseId, Wasteful>>,
    pub names: RefCell<KnownNames>,
    pub records: RefCell<KnownRecords>,
}

impl Databases {
    fn opening(&self, name: &Name) -> Rc<Opening> {
        self.by_name.borrow_mut().entry(name.clone()).or_default().clone()
    }

    /// Whether this node serves a database of this name, or is about to.
    pub fn is_open(&self, name: &Name) -> bool {
        self.by_name.borrow().get(name).is_some_and(|opening| opening.cell.initialized())
    }

    /// The open database of this name.
    pub fn opened(&self, name: &Name) -> Option<Rc<OpenDatabase>> {
        self.by_name.borrow().get(name).and_then(|opening| opening.cell.get().cloned())
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

    pub(super) fn register(&self, open: &Rc<OpenDatabase>) {
        self.databases.sleepers.borrow_mut().remove(&open.database.id);
        if self.databases.wasteful.borrow_mut().remove(&open.database.id).is_some() {
            open.is_compact.set(false);
        }
        self.databases.by_id.borrow_mut().insert(open.database.id, open.clone());
        if let Some(reason) = &*self.fenced.borrow() {
            open.database.lose(reason);
        }
    }

    pub(super) fn patience(&self) -> Patience {
        Patience::for_duration(&self.node.seam, PATIENCE)
    }

    /// The head of the database that has this name. It is not looked up where it is known.
    pub(super) async fn resolve(&self, name: &Name) -> Result<Option<Versioned<Head>>, ServerError> {
        Ok(self.find_head(name, false).await?.map(|(head, _)| head))
    }

    /// The same, for somebody who will read what is folded. If that probably does not stand in the head, it is being read
    /// beside the head.
    pub(super) async fn resolve_to_open(&self, name: &Name) -> Result<Option<FoundHead>, ServerError> {
        self.find_head(name, true).await
    }

    async fn find_head(&self, name: &Name, reads_ahead: bool) -> Result<Option<FoundHead>, ServerError> {
        let names = &self.databases.names;
        let patience = self.patience();
        let known = names.borrow_mut().get(name);
        if let Some(known) = known {
            let found = self.node.io(move |node| async move {
                let base = known.base.filter(|_| reads_ahead);
                let ahead = base.map(|base| Ahead::read(&node.fetcher, &node.seam, known.id, base));
                let head = registry::read_head(&*node.stores.main, &node.seam, known.id, patience).await;
                head.map(|head| head.map(|head| (head, ahead)))
            });
            let found = found.await?.map_err(ServerError::from)?;
            if let Some((head, ahead)) = found.filter(|(head, _)| !head.value.state.is_final() && head.value.name == *name) {
                names.borrow_mut().learn(name, Known::of(&head.value));
                return Ok(Some((head, ahead)));
            }
            names.borrow_mut().forget(name);
        }
        let wanted = name.clone();
        let found = self.node.io(move |node| async move { node.look_up(&wanted, reads_ahead, patience).await });
        let Some(LookedUp { head, record, ahead }) = found.await?? else { return Ok(None) };
        names.borrow_mut().learn(name, Known::of(&head.value));
        self.databases.records.borrow_mut().learn(name, record);
        Ok(Some((head, ahead)))
    }

    pub(super) async fn create_head(&self, name: &Name) -> Result<Result<Versioned<Head>, CreateError>, ServerError> {
        let node = &self.node;
        let settings = node.settings.of_new_database(node.now_micros());
        let (name, patience) = (name.clone(), self.patience());
        let created = node.io_that_writes(move |node| async move {
            let try_once = || {
                registry::create_database(&*node.stores.main, &node.seam, &name, node.id, settings, patience)
            };
            match try_once().await {
                Err(CreateError::Resolve(error)) if node.end_unfinished(&error).await? => Ok(try_once().await),
                created => Ok(created),
            }
        });
        created.await?
    }

    /// Creates a database; it is open afterwards.
    pub(super) async fn create(self: &Rc<Self>, name: Name) -> Result<DatabaseId, ServerError> {
        let created = match self.create_head(&name).await? {
            // The time of what has the name may be up.
            Err(CreateError::AlreadyExists { .. }) if self.free_if_over(&name).await? => self.create_head(&name).await?,
            created => created,
        };
        created.map(|head| head.value.database).map_err(ServerError::from)
    }

    /// Deletes a database: its head becomes final first, then its name is free. Once begun it is carried
    /// through, however often the store fails: a database that is half deleted must not be served.
    pub(super) async fn delete(self: &Rc<Self>, name: Name) -> Result<Deleted, OpenError> {
        let open = self.open(&name, false).await?;
        let head = self.delete_if(&open, |_| true).await?.expect("BUG: it is to go whatever its head says");
        let last = Some(Lsn::raw(head.folded.lsn)).filter(|_| head.settings.retention_secs > 0);
        Ok(Deleted { database: head.database, last })
    }

    /// The same, if the head says so to the last: until its writers have stopped, and whenever another one is found.
    /// Returns the final head, or nothing if it stays.
    pub(super) async fn delete_if(
        self: &Rc<Self>,
        open: &Rc<OpenDatabase>,
        is_to_go: impl Fn(&Head) -> bool,
    ) -> Result<Option<Head>, OpenError> {
        let (name, settings) = (open.database.name.clone(), open.head.borrow().value.settings);
        // What an undelete brings back has to be all that was acknowledged, and what stays after all is opened anew.
        let folds = settings.retention_secs > 0 || settings.expires_micros > 0;
        let stopped = match folds {
            true => self.end_after_folding(open, "the database was deleted").await.map(Some),
            false => Ok(None),
        };
        let turn = match stopped {
            Ok(Some(turn)) => Some(turn),
            // One that cannot be folded any more must not stay for ever: from here on it goes, whatever is found.
            Err(error) if settings.retention_secs > 0 || !is_to_go(&open.head.borrow().value) => return Err(error.into()),
            Ok(None) | Err(_) => {
                open.database.lose("the database was deleted");
                None
            }
        };
        open.pool.clear();
        let node = &self.node;
        let mut head = open.head.borrow().clone();
        let mut backoff = Backoff::default();
        let ended = loop {
            if !is_to_go(&head.value) {
                match turn {
                    Some(_) => self.after_replacing(open, None).await,
                    // Its writers are lost already: it is opened anew, with what its log holds.
                    None => self.leave(open, "the database was to end, and stays").await,
                }
                return Ok(None);
            }
            let before = head.clone();
            let deleted = node.io_that_writes(move |node| async move {
                registry::delete_database(&*node.stores.main, &node.seam, &before, node.id, Patience::endless()).await
            });
            let deleted = match deleted.await {
                Ok(deleted) => deleted,
                // Cut off, and perhaps still under way: nothing is committed before it is void.
                Err(error) => {
                    self.make_void(open).await;
                    self.leave(open, "what became of its deletion is not known").await;
                    return Err(error.into());
                }
            };
            match deleted {
                Ok(deleted) => break deleted.value,
                // Our own delete had landed, or somebody else's. One that was restored in place lives, elsewhere.
                Err(DeleteError::Conflict { found }) if matches!(found.value.state, HeadState::Deleted { .. }) => {
                    break found.value;
                }
                Err(DeleteError::Conflict { found }) if found.value.owner == Some(node.id) => head = *found,
                Err(error @ (DeleteError::Conflict { .. } | DeleteError::NotOwner { .. })) => {
                    self.databases.forget(open);
                    return Err(ServerError::from(error).into());
                }
                Err(error) => {
                    warn!(database = %name, %error, "cannot delete it yet; trying again");
                    backoff.pause(&node.seam).await;
                }
            }
        };
        if let Some(last) = open.database.newest().lsn {
            node.log.folded(open.database.id, last);
        }
        self.databases.forget(open);
        self.end_streams_of(open).await;
        self.end_pasts_of(&name, "the database was deleted").await;
        Ok(Some(ended))
    }
}
