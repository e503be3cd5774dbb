//! A core: one thread (one task, in the simulator) that runs the SQL of the databases it is home to.
//!
//! HTTP handlers send a [`Job`] and wait for its reply; the log reports durable commits; the node ends it.
//! Everything below is single-threaded, so databases, connections and streams need no locks.

mod claim;
mod configure;
mod databases;
mod deadlines;
mod downloads;
mod eviction;
mod expiry;
mod folding;
mod forking;
mod jobs;
mod names;
mod open_database;
mod opening;
mod parking;
mod past;
mod publishing;
mod release;
mod replacing;
mod replicas;
mod running;
mod streams;
mod tidying;
mod unfolded;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use pageserver::service::follow::{Publisher, Start};
use pageserver::service::owners::Owned;
use segments::page::PageNo;
use tenant::head::Head;
use tenant::name::Name;
use tenant::settings::Settings;
use tokio::sync::{mpsc, oneshot};
use walstore::id::{DatabaseId, Lsn};
use walstore::log::Acknowledged;
use walstore::register::Versioned;

pub(crate) use self::past::lineage::Lineage;
pub use self::configure::Configure;
pub use self::databases::{Deleted, OpenError};
pub use self::downloads::DownloadReply;
pub use self::forking::{Change, Changed};
pub use self::opening::recover;
pub use self::replacing::Lent;
pub use self::unfolded::PagesAnswer;

use self::databases::Databases;
use self::past::Pasts;
use self::replicas::Replicas;
use self::streams::Streams;
use crate::error::ServerError;
use crate::hrana::HranaVersion;
use crate::hrana::baton::Baton;
use crate::hrana::error::{HranaError, ProtocolError};
use crate::hrana::request::{Batch, StreamRequest};
use crate::hrana::response::StreamResponse;
use crate::context::{BodyLoan, NodeContext};
use crate::moment::Moment;
use crate::session::download::Download;
use crate::session::stream::Stream;
use crate::sqlite::stack::StackPool;

/// Sent to a core.
pub enum Message {
    Job(Job),
    Durable(Vec<Acknowledged>),
    /// Close what is idle; if the log has become too long, fold the tails that keep it so.
    Sweep,
    /// The overlays of all databases take too much memory: look who has to fold.
    LookAtFolds,
    /// There is no memory for another moment of the past: close those that nobody uses.
    ClosePasts,
    Fenced(String),
    Create { name: Name, reply: oneshot::Sender<Result<DatabaseId, ServerError>> },
    /// Delete the database of a name that somebody wants, if its time is up. Answers whether the name has become free.
    FreeIfOver { name: Name, reply: oneshot::Sender<Result<bool, ServerError>> },
    Delete { name: Name, reply: oneshot::Sender<Result<Deleted, OpenError>> },
    /// Give a database up, so that another node can take it at once.
    Release { name: Name, reply: oneshot::Sender<Result<(), OpenError>> },
    /// Change what a database was promised.
    Configure { name: Name, configure: Configure, reply: oneshot::Sender<Result<Settings, OpenError>> },
    /// The head of a database, with all folded that was committed before.
    FoldedHead { name: Name, reply: oneshot::Sender<Result<Versioned<Head>, OpenError>> },
    /// Fork a database, or restore it.
    Change { name: Name, change: Change, reply: oneshot::Sender<Result<Changed, OpenError>> },
    /// Have a database end, for another one to take its place.
    Lend { name: Name, reply: oneshot::Sender<Result<Lent, OpenError>> },
    /// Put the present state of the database `name` into the place of one that was lent. Also answers the new head.
    Replace {
        name: Name,
        replaced: Box<Versioned<Head>>,
        last: Option<Lsn>,
        reply: oneshot::Sender<Result<(Changed, Versioned<Head>), OpenError>>,
    },
    /// A sweep has met a database of this node that has forks, some of which may have ended, or whose own time is up.
    Tidy { name: Name },
    /// Another node wants to follow a database of this one.
    Follow { start: Start, publisher: Publisher },
    /// Another process wants pages of a database of this one, as of a commit that is not folded.
    Pages { of: Owned, lsn: Lsn, numbers: Vec<PageNo>, reply: PagesAnswer },
    /// The node is about to stop. Roll back what no request is running for, now and from now on, and send followers
    /// away.
    EndIdleStreams,
    /// Finish: roll back, fold nothing, close everything.
    Stop { done: oneshot::Sender<()> },
}

/// One request of a client.
pub struct Job {
    pub database: Name,
    /// Show what it was at this moment.
    pub at: Option<Moment>,
    /// Create the database if it does not exist (development only).
    pub create: bool,
    pub baton: Option<Baton>,
    pub version: HranaVersion,
    /// The last commit (raw) that the client has seen and wants to see again. A replica waits for it.
    pub min_lsn: u64,
    pub work: Work,
    /// What the work takes, until it is done, whether or not anybody waits for it.
    pub loan: Option<Arc<BodyLoan>>,
}

pub enum Work {
    Pipeline { requests: Vec<StreamRequest>, reply: oneshot::Sender<Result<PipelineReply, JobError>> },
    /// `head` carries the baton once it is known, or the failure before the first line.
    Cursor { batch: Batch, head: oneshot::Sender<Result<CursorReply, JobError>> },
    /// The database as a whole.
    Download { download: Download, head: oneshot::Sender<Result<DownloadReply, JobError>> },
    /// Code of this process, see [`crate::node::NodeHandle::run`].
    Local { body: LocalWork, done: oneshot::Sender<Result<(), JobError>> },
}

/// What runs with a stream of its own, where a client's requests run.
pub type LocalWork = Box<dyn FnOnce(&mut Stream) + Send>;

/// What a pipeline comes to. The baton is not sealed yet.
pub struct PipelineReply {
    pub baton: Option<Baton>,
    pub results: Vec<Result<StreamResponse, HranaError>>,
    pub shown: Shown,
}

/// What state an answer shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The last commit (raw) that it shows. A cursor's answer shows this or a later one.
    pub lsn: u64,
    /// How old that may be at most; `None`: nothing is newer, or it is the past on purpose.
    pub staleness: Option<Duration>,
    pub role: Role,
}

/// As what a node answers for a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    #[default]
    Owner,
    Replica,
    /// It shows one moment of the past.
    Past,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Replica => "replica",
            Self::Past => "past",
        }
    }
}

/// A cursor's answer so far: the baton that goes on after it, and the pieces as they come.
pub struct CursorReply {
    pub baton: Option<Baton>,
    pub pieces: mpsc::Receiver<Bytes>,
    pub shown: Shown,
}

/// Why a request as a whole has no result.
#[derive(Debug)]
pub enum JobError {
    Server(ServerError),
    Protocol(ProtocolError),
    NoSuchDatabase(Name),
}

impl From<ServerError> for JobError {
    fn from(error: ServerError) -> Self {
        Self::Server(error)
    }
}

impl From<ProtocolError> for JobError {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

impl From<OpenError> for JobError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::NoSuchDatabase(name) => Self::NoSuchDatabase(name),
            OpenError::Server(error) => Self::Server(error),
        }
    }
}

/// Shared by all tasks of one core.
struct Core {
    number: u16,
    node: Arc<NodeContext>,
    databases: Databases,
    replicas: Replicas,
    pasts: Pasts,
    streams: Streams,
    stacks: RefCell<StackPool>,
    /// Why the log has ended, if it has: what is opened from then on is lost at once.
    fenced: RefCell<Option<String>>,
    /// When the forks of a database were looked at, in the last hour.
    tidied: RefCell<BTreeMap<DatabaseId, u64>>,
    /// Whether the node is about to stop. Nobody can come back to a stream then, and a transaction that is
    /// parked nevertheless would keep its turn from requests that the stop waits for. No more followers are taken.
    is_stopping: Cell<bool>,
}

/// Runs a core until it is stopped. Must be polled inside a `LocalSet`.
pub fn run(
    number: u16,
    node: Arc<NodeContext>,
    inbox: mpsc::UnboundedReceiver<Message>,
) -> LocalBoxFuture<'static, ()> {
    Box::pin(run_until_stopped(number, node, inbox))
}

async fn run_until_stopped(number: u16, node: Arc<NodeContext>, mut inbox: mpsc::UnboundedReceiver<Message>) {
    crate::sqlite::vfs::set_thread_seam(node.seam.clone());
    crate::sqlite::temp::set_thread_directory(node.settings.temp_directory.clone());
    let core = Rc::new(Core {
        number,
        databases: Databases::default(),
        replicas: Replicas::default(),
        pasts: Pasts::default(),
        streams: Streams::default(),
        stacks: RefCell::default(),
        fenced: RefCell::default(),
        tidied: RefCell::default(),
        is_stopping: Cell::new(false),
        node,
    });
    spawn_local(core.clone().watch_idle_streams());
    while let Some(message) = inbox.recv().await {
        match message {
            Message::Job(job) => core.clone().start(job),
            Message::Durable(commits) => core.on_durable(&commits),
            Message::LookAtFolds => core.look_at_folds(),
            Message::ClosePasts => core.evict_pasts(0, Duration::ZERO),
            Message::Sweep => core.sweep(),
            Message::Fenced(reason) => core.on_fenced(&reason).await,
            Message::Create { name, reply } => {
                let core = core.clone();
                spawn_local(async move { drop(reply.send(core.create(name).await)) });
            }
            Message::FreeIfOver { name, reply } => {
                let core = core.clone();
                spawn_local(async move { drop(reply.send(core.free_if_over(&name).await)) });
            }
            Message::Delete { name, reply } => {
                let core = core.clone();
                spawn_local(async move { drop(reply.send(core.delete(name).await)) });
            }
            Message::Release { name, reply } => {
                let core = core.clone();
                spawn_local(async move { drop(reply.send(core.release(name).await)) });
            }
            Message::Configure { name, configure, reply } => {
                let core = core.clone();
                spawn_local(async move { drop(reply.send(core.configure(name, configure).await)) });
            }
            Message::FoldedHead { name, reply } => {
                let core = core.clone();
                spawn_local(async move { drop(reply.send(core.folded_head(&name).await)) });
            }
            Message::Change { name, change, reply } => {
                let core = core.clone();
                spawn_local(async move { drop(reply.send(core.change(name, change).await)) });
            }
            Message::Lend { name, reply } => {
                let core = core.clone();
                spawn_local(async move { core.lend(&name, reply).await });
            }
            Message::Replace { name, replaced, last, reply } => {
                let core = core.clone();
                spawn_local(async move { drop(reply.send(core.take_the_place_of(&name, *replaced, last).await)) });
            }
            Message::Tidy { name } => {
                let core = core.clone();
                spawn_local(async move { core.tidy(&name).await });
            }
            Message::Follow { start, publisher } => core.publish(start, publisher),
            Message::Pages { of, lsn, numbers, reply } => core.serve_pages(of, lsn, numbers, reply),
            Message::EndIdleStreams => {
                core.is_stopping.set(true);
                core.send_followers_away();
                core.close_streams().await;
            }
            Message::Stop { done } => {
                core.close_streams().await;
                let _ = done.send(());
                return;
            }
        }
    }
}

/// Starts a task on this core's thread.
fn spawn_local(task: impl Future<Output = ()> + 'static) {
    tokio::task::spawn_local(task);
}

impl Core {
    fn on_durable(&self, commits: &[Acknowledged]) {
        for commit in commits {
            if let Some(open) = self.databases.by_id(commit.database)
                && open.database.epoch == commit.epoch
            {
                open.on_durable(commit.lsn, commit.slot);
            }
        }
    }

    /// The log has ended: nothing of this epoch is shown any more, and every stream is closed.
    async fn on_fenced(self: &Rc<Self>, reason: &str) {
        *self.fenced.borrow_mut() = Some(reason.to_owned());
        for open in self.databases.all() {
            open.database.lose(reason);
            open.pool.clear();
        }
        self.close_replicas(reason);
        self.close_pasts(reason);
        self.close_streams().await;
    }
}

