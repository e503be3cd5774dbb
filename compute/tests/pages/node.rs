//! A node with one database and no server: production's log, lease, VFS, overlay, folds and recovery, called as a core
//! calls them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use compute::core::recover;
use compute::database::pages::{self, Base};
use compute::database::{Database, Snapshot, file};
use compute::hrana::request::SqlSource;
use compute::node::{NodeContext, Settings};
use compute::session::connection::SqlConnection;
use compute::session::execute::Failure;
use compute::sqlite::coroutine::{self, Wait, Wake};
use compute::sqlite::stack::SqlStack;
use pageserver::base::{base_of, stored_base};
use pageserver::fetcher::Fetcher;
use pageserver::fold::{FoldJob, FoldPin, Folder, PinAt, keeps_past};
use pageserver::history::{self, Located, Moment};
use pageserver::service::messages::PagesReply;
use pageserver::service::pages::PageReader;
use pageserver::{collect, garbage};
use pageserver::tail::{Tail, keeps_commits};
use segments::base::BaseRef;
use segments::fold::FoldInput;
use segments::page::{Page, PageNo};
use tenant::head::{Head, PackRef};
use tenant::name::Name;
use tenant::{lifecycle, registry};
use walstore::id::{DatabaseId, IncarnationId, Lsn, PutId, Slot};
use walstore::life::{Incarnation, Stores};
use walstore::log::{self, Acknowledged, LogSink};
use walstore::recovery::{self, Access};
use walstore::register::{Patience, Swap, Versioned};
use walstore::seal;
use walstore::store::MemoryStore;

use crate::machine::Machine;

const LEASE: Duration = Duration::from_secs(3);
/// Steps after which compacting does not seem to end: the databases here have a few hundred segments at most.
const COMPACTIONS_MAX: u64 = 200;
pub const NAME: &str = "app";

#[derive(Default)]
struct Sink(Mutex<Vec<Acknowledged>>);

impl LogSink for Sink {
    fn durable(&self, commits: Vec<Acknowledged>) {
        self.0.lock().unwrap().extend(commits);
    }

    fn fenced(&self, _: &str) {}
}

pub struct Node {
    pub machine: Machine,
    pub context: Arc<NodeContext>,
    incarnation: Incarnation,
    sink: Arc<Sink>,
    /// What it answers to other nodes, which remembers where pages of former commits are.
    served: PageReader,
}

/// The database, open.
pub struct Open {
    // Closed before what it runs on.
    connection: Rc<SqlConnection>,
    reader: Rc<file::Connection>,
    pub database: Rc<Database>,
    head: Versioned<Head>,
    own_after: Option<Lsn>,
    /// Where this node's log holds what is not folded.
    slots: Vec<(Lsn, Slot)>,
    folds: u32,
    deleted: Vec<PackRef>,
    /// Where forks begin that were pinned by this owner.
    pub forks: Vec<(Lsn, BaseRef)>,
}

impl Node {
    pub async fn start(machine: Machine, bucket: &MemoryStore) -> Self {
        let stores = Stores::one(Arc::new(bucket.clone()));
        let (seam, id) = (machine.seam.clone(), IncarnationId::random(&machine.seam));
        let (handle, inbox) = log::channel();
        // So small that pages are fetched again and again.
        let settings = Settings { lease: LEASE, cache_bytes: 256 << 10, ..Settings::default() };
        let context = NodeContext::new(id, stores.clone(), seam.clone(), handle.clone(), settings);
        let sink = Arc::new(Sink::default());
        let incarnation = Incarnation::start(id, stores, seam.clone(), LEASE, (handle, inbox), sink.clone()).await;
        let incarnation = incarnation.expect("nothing fails here");
        context.registered(incarnation.lease.clone());
        compute::sqlite::vfs::set_thread_seam(seam);
        compute::sqlite::temp::set_thread_directory(context.settings.temp_directory.clone());
        let served = PageReader::new(context.stores.main.clone(), context.seam.clone(), context.fetcher.clone());
        Self { machine, context: Arc::new(context), incarnation, sink, served }
    }

    pub fn id(&self) -> IncarnationId {
        self.incarnation.id
    }

    /// From here on nothing of it runs.
    pub fn die(&self) {
        self.machine.kill();
    }

    pub async fn create(&self, retention_secs: u32) -> Open {
        let (store, seam) = (&*self.context.stores.main, &self.context.seam);
        let settings = tenant::settings::Settings { retention_secs, ..tenant::settings::Settings::new(seam.wall_micros()) };
        let name = Name::parse(NAME).expect("a name");
        let head = registry::create_database(store, seam, &name, self.id(), settings, Patience::endless()).await;
        self.load(head.expect("nothing fails here"), &[]).await.expect("an empty database")
    }

    async fn head(&self, id: DatabaseId) -> Versioned<Head> {
        let head = registry::read_head(&*self.context.stores.main, &self.context.seam, id, Patience::endless()).await;
        head.expect("nothing fails here").expect("heads stay")
    }

    /// Takes the database over from a node that is dead, or from nobody.
    pub async fn take_over(&self, id: DatabaseId) -> Result<Open, String> {
        let head = self.head(id).await;
        let (store, seam) = (&*self.context.stores.main, &self.context.seam);
        if let Some(owner) = head.value.owner {
            let sealed = seal::seal(&self.context.stores, seam, owner, Patience::endless()).await;
            sealed.map_err(|error| format!("I1: {error}"))?;
        }
        let next = lifecycle::acquire(&head.value, self.id(), PutId::random(seam));
        match registry::swap_head(store, seam, &head, next, Patience::endless()).await {
            Ok(Swap::Won(head)) => self.load(head, &[]).await,
            other => Err(format!("I6: the head changes though nobody else is there: {other:?}")),
        }
    }

    /// Opens it again, as after an eviction: `slots` of this node's own log hold what is not folded.
    pub async fn open_again(&self, id: DatabaseId, slots: &[(Lsn, Slot)]) -> Result<Open, String> {
        self.load(self.head(id).await, slots).await
    }

    /// What is folded, then the tail out of sealed logs, then what is in this node's own log.
    async fn load(&self, head: Versioned<Head>, slots: &[(Lsn, Slot)]) -> Result<Open, String> {
        let context = &self.context;
        let access = Access { stores: &context.stores, seam: &context.seam, patience: Patience::endless() };
        let base = base_of(&context.fetcher, &head.value).await.map_err(|error| format!("I6: {error}"))?;
        let base = Base::of_parts(base);
        let identity = (head.value.database, head.value.name.clone(), head.value.epoch);
        let database = Rc::new(Database::new(identity, context.clone(), 0, 0, base));
        database.keep_commits(keeps_commits(&head.value));
        let id = head.value.database;
        for entry in head.value.tail.iter().filter(|entry| entry.incarnation != self.id()) {
            let commits = context.logged_commits(entry.incarnation, id, database.newest().lsn).await;
            for commit in commits.map_err(|error| format!("I1: {error}"))? {
                let is_next = Some(commit.lsn) > database.newest().lsn;
                if is_next && entry.holds(entry.incarnation, commit.epoch, commit.lsn) {
                    recover(&database, &commit, entry.incarnation).await.map_err(|error| format!("I2: {error:?}"))?;
                }
            }
        }
        let own_after = database.newest().lsn;
        for (lsn, slot) in slots {
            let commits = recovery::read_own(access, self.id(), vec![*slot], id, head.value.epoch).await;
            for commit in commits.map_err(|error| format!("I1: {error}"))? {
                if commit.lsn == *lsn {
                    recover(&database, &commit, self.id()).await.map_err(|error| format!("I2: {error:?}"))?;
                }
            }
        }
        let of = database.clone();
        let connection = in_coroutine(&database, move || SqlConnection::open(&of)).await;
        let connection = Rc::new(connection.map_err(|error| format!("I16: no connection: {error}"))?);
        let reader = file::Connection::new(database.clone());
        let slots = slots.to_vec();
        let (folds, deleted, forks) = (head.value.fold_seq, Vec::new(), Vec::new());
        Ok(Open { connection, reader, database, head, own_after, slots, folds, deleted, forks })
    }

    /// Waits until everything is durable, and tells the database so.
    pub async fn settle(&self, open: &mut Open) {
        self.context.log.drain().await;
        self.hear(open);
    }

    /// Tells the database what the log has reported so far.
    pub fn hear(&self, open: &mut Open) {
        for commit in self.sink.0.lock().unwrap().drain(..) {
            if (commit.database, commit.epoch) == (open.database.id, open.database.epoch) {
                open.database.on_durable(commit.lsn);
                open.slots.push((commit.lsn, commit.slot));
            }
        }
    }

    /// One fold of what is durable, and then what is dead is deleted if no snapshot needs it. Returns whether it merged:
    /// there are not more deltas than before, though something was folded.
    ///
    /// With `child` a fork of what is folded then is pinned in the same write; its base goes to [`Open::forks`].
    pub async fn fold(&self, open: &mut Open, child: Option<DatabaseId>) -> Result<bool, String> {
        let (store, seam) = (&*self.context.stores.main, &self.context.seam);
        let (input, tip) = open.database.fold_input(usize::MAX);
        open.folds += 1;
        let job = FoldJob {
            head: open.head.clone(),
            map: open.database.base().map(),
            input,
            tip,
            own_after: open.own_after,
            seq: open.folds,
            deleted: std::mem::take(&mut open.deleted),
            release: false,
            pin: child.map(|child| FoldPin { child, at: PinAt::Folded }),
        };
        let folder = Folder { store, seam, fetcher: &self.context.fetcher };
        let linked = folder.fold(job).await.map_err(|error| format!("I10: a fold fails: {error}"))?;
        let before = open.database.base();
        let has_merged = tip.lsn > before.tip.lsn && linked.map.deltas().count() <= before.map().deltas().count();
        drop(before);
        let (folded, durable) = (linked.head.value.folded.lsn, open.database.gate.durable());
        if Lsn::raw(folded) > durable {
            return Err(format!("I3: LSN {folded:?} is folded, but only {durable} are durable"));
        }
        open.head = linked.head;
        open.forks.extend(linked.pinned);
        open.database.rebase(Base::new(tip, linked.map, linked.image));
        open.slots.retain(|(lsn, _)| Some(*lsn) > tip.lsn);
        if let Some(lsn) = tip.lsn {
            self.context.log.folded(open.database.id, lsn);
        }
        self.collect(open).await;
        Ok(has_merged)
    }

    /// Gives dead space back until there is little. Returns the number of steps.
    pub async fn compact(&self, open: &mut Open) -> Result<u64, String> {
        let (store, seam) = (&*self.context.stores.main, &self.context.seam);
        let folder = Folder { store, seam, fetcher: &self.context.fetcher };
        for steps in 0..COMPACTIONS_MAX {
            let base = open.database.base();
            let (map, tip) = (base.map(), base.tip);
            drop(base);
            open.folds += 1;
            let job = FoldJob {
                head: open.head.clone(),
                input: FoldInput::new(open.database.id, &map),
                map,
                tip,
                own_after: open.own_after,
                seq: open.folds,
                deleted: std::mem::take(&mut open.deleted),
                release: false,
                pin: None,
            };
            let deleted = job.deleted.clone();
            let linked = folder.compact(job).await.map_err(|error| format!("I10: compacting fails: {error}"))?;
            let Some(linked) = linked else {
                open.deleted = deleted;
                return Ok(steps);
            };
            open.head = linked.head;
            open.database.rebase(Base::new(tip, linked.map, linked.image));
            self.collect(open).await;
        }
        Err(format!("compacting does not end: {COMPACTIONS_MAX} steps, of a few pages"))
    }

    /// Deletes what the head lists as dead, if no snapshot is older than it.
    pub async fn collect(&self, open: &mut Open) -> usize {
        open.database.forget_folded();
        if open.database.has_old_readers() {
            return 0;
        }
        let dead = open.head.value.dead.iter().filter(|it| !open.deleted.contains(it)).cloned().collect();
        let store = &*self.context.stores.main;
        let gone = garbage::delete(store, dead).await;
        open.deleted.extend(gone.clone());
        if !keeps_past(&open.head.value) {
            return gone.len();
        }
        let collected = collect::collect(store, &self.context.seam, &self.context.fetcher, &open.head.value).await;
        gone.len() + collected.map_or(0, |collected| collected.deleted)
    }
}

impl Node {
    /// The state after commit `lsn`, made from what the bucket keeps of the past.
    pub async fn past(&self, open: &Open, lsn: u64) -> Result<Tail, String> {
        let past = history::materialise(&self.context.fetcher, &open.head.value, lsn, &history::Unbounded).await;
        past.map_err(|error| format!("I9: commit {lsn} lies in the window and cannot be restored: {error}"))
    }

    /// Pages of commit `lsn` as another node gets them, and the size of the database then.
    pub async fn serve(&self, open: &Open, lsn: u64, numbers: &[u32]) -> Result<PagesReply, String> {
        let reply = self.served.read(open.database.id, lsn, numbers).await;
        reply.map_err(|error| format!("I9: pages of commit {lsn}, which lies in the window, are not served: {error}"))
    }

    /// What a fork begins with.
    pub async fn fork(&self, open: &Open, base: &BaseRef) -> Result<Tail, String> {
        let read = stored_base(&self.context.fetcher, open.database.id, base).await;
        let base = read.map_err(|error| format!("I8: the base of a fork is gone: {error}"))?;
        Ok(Tail::of_base(open.database.id, base.parts().expect("it was checked as it was read")))
    }

    /// The commit that a moment leads to, if it is folded.
    pub async fn locate(&self, open: &Open, micros: u64) -> Result<Located, String> {
        let now = self.context.seam.wall_micros();
        let located = history::locate(&self.context.fetcher, &open.head.value, Moment::Time(micros), now).await;
        located.map_err(|error| format!("I9: a time of the window is not found: {error}"))
    }

    pub fn fetcher(&self) -> &Fetcher {
        &self.context.fetcher
    }
}

impl Open {
    /// The oldest and the newest commit that can be restored, as far as they are folded.
    pub fn window(&self) -> (u64, u64) {
        (Lsn::raw(self.head.value.horizon), Lsn::raw(self.head.value.folded.lsn))
    }

    pub async fn run(&self, sql: &str) -> Result<(), String> {
        let (connection, sql) = (self.connection.clone(), sql.to_owned());
        in_coroutine(&self.database, move || {
            let source = SqlSource { sql: Some(sql), sql_id: None };
            connection.sequence(&source, &BTreeMap::new()).map_err(|failure| match failure {
                Failure::Statement(error) => error.message,
                Failure::Protocol(error) => error.to_string(),
            })
        })
        .await
    }

    pub fn slots(&self) -> Vec<(Lsn, Slot)> {
        self.slots.clone()
    }

    /// These pages as a snapshot has them, each through the path that `xRead` takes.
    pub async fn pages(&self, snapshot: &Rc<Snapshot>, numbers: Vec<u32>) -> Result<Vec<Page>, String> {
        let (reader, snapshot) = (self.reader.clone(), snapshot.clone());
        in_coroutine(&self.database, move || {
            let page = |number| pages::read(&reader, &snapshot, PageNo::new(number).expect("from 1"));
            numbers.into_iter().map(|number| page(number).map_err(|error| format!("{error:?}"))).collect()
        })
        .await
    }
}

/// Runs SQLite, or what it calls, as a core does. There is one writer, so nobody waits for a turn.
async fn in_coroutine<T: 'static>(database: &Rc<Database>, body: impl FnOnce() -> T + 'static) -> T {
    thread_local! {
        static STACK: RefCell<Option<SqlStack>> = const { RefCell::new(None) };
    }
    let stack = STACK.take().unwrap_or_else(|| SqlStack::map().expect("a stack"));
    let serve = |wait: Wait| {
        let node = database.node.clone();
        async move {
            match wait {
                Wait::Yield => Wake::Ready,
                Wait::Fetch(fetch) => pages::fetch(&node.fetcher, fetch).await.map_or_else(Wake::Failed, |()| Wake::Ready),
                Wait::Turn | Wait::Memory | Wait::Send(_) => Wake::Abandon,
            }
        }
    };
    let (result, stack) = coroutine::run(stack, &database.meter, body, serve).await;
    STACK.set(Some(stack));
    result.unwrap_or_else(|panicked| panic!("{}", panicked.0))
}
