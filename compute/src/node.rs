//! A node: an incarnation with its log and lease, the cores, and the cache directory.

mod cache_dir;
mod others;
mod sealed;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pageserver::drain::Drainer;
use segments::cache::PageCache;
use tenant::name::Name;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};
use walstore::id::{DatabaseId, IncarnationId, Lsn, Slot};
use walstore::lease::Lease;
use walstore::life::{Incarnation, StartError, Stores};
use walstore::log::{self, Acknowledged, LogHandle, LogSink};
use walstore::seal::{SealError, Sealed};
use walstore::seam::Seam;

pub use self::cache_dir::{CacheDir, CacheDirError};
pub use self::others::{OwnerProbe, Others};
pub use self::sealed::{LoggedCommit, SealedLogs};

use crate::core::{self, Message};
use crate::database::overlay_space::OverlaySpace;
use crate::error::{Fault, ServerError};
use crate::limits;
use crate::sqlite::temp_space::TempSpace;

/// What an operator decides about a node. Times and sizes are limits that clients may meet.
#[derive(Clone, Debug)]
pub struct Settings {
    pub lease: Duration,
    pub cores: u16,
    /// Bytes of page cache in memory, shared by all databases.
    pub cache_bytes: u64,
    /// Bytes of pages in memory that are not folded yet, of all databases, beyond which writers wait for folds.
    pub overlay_bytes_max: usize,
    /// Bytes that SQLite may hold for one database.
    pub memory_per_database: usize,
    pub transaction_bytes_max: usize,
    pub response_bytes_max: usize,
    pub statement_timeout: Duration,
    pub idle_transaction_timeout: Duration,
    pub idle_stream_timeout: Duration,
    /// How long a database that nobody uses stays open.
    pub idle_database_timeout: Duration,
    /// How long a writer waits for its turn.
    pub busy_timeout: Duration,
    /// A bucket that has left a PUT of the log unanswered for so long makes new commits be refused at once.
    pub stall_timeout: Duration,
    /// How long a reply waits for the bucket before its outcome is called unknown.
    pub commit_timeout: Duration,
    /// The group-commit window of databases that have none of their own.
    pub window: Duration,
    pub temp_directory: PathBuf,
    /// How often the node looks for logs of incarnations that are over; zero is never.
    pub drain_interval: Duration,
    /// Bytes of temporary files on disk, of all databases.
    pub temp_bytes_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10),
            cores: 2,
            cache_bytes: 256 << 20,
            overlay_bytes_max: 64 << 20,
            memory_per_database: 256 << 20,
            transaction_bytes_max: 64 << 20,
            response_bytes_max: 10 << 20,
            statement_timeout: Duration::from_secs(60),
            idle_transaction_timeout: Duration::from_secs(5),
            idle_stream_timeout: Duration::from_secs(60),
            idle_database_timeout: Duration::from_secs(60),
            busy_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(5),
            commit_timeout: Duration::from_secs(20),
            window: Duration::ZERO,
            temp_directory: std::env::temp_dir(),
            drain_interval: Duration::from_secs(300),
            temp_bytes_max: 1 << 30,
        }
    }
}

/// What every part of a node shares.
pub struct NodeContext {
    pub id: IncarnationId,
    pub seam: Seam,
    pub settings: Settings,
    pub stores: Stores,
    pub log: LogHandle,
    pub cache: Arc<PageCache>,
    pub overlays: Arc<OverlaySpace>,
    pub temp: Arc<TempSpace>,
    pub others: Others,
    pub sealed: SealedLogs,
    lease: OnceLock<Arc<Lease>>,
}

impl NodeContext {
    /// Whether this node may serve reads and begin writes.
    pub fn lease_is_valid(&self) -> bool {
        self.lease.get().is_some_and(|lease| lease.is_valid(self.seam.boot_micros()))
    }

    /// Runs a request on the I/O runtime, so that the store's connections neither wait for a busy core nor end
    /// with it.
    pub async fn io<T, F>(self: &Arc<Self>, request: impl FnOnce(Arc<Self>) -> F) -> Result<T, ServerError>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let request = request(self.clone());
        self.seam.spawn(async move { drop(sender.send(request.await)) });
        receiver.await.map_err(|_| ServerError::new(Fault::Closed, "the node is shutting down"))
    }

    /// What the log of `id`, which is over, holds of a database after a commit.
    pub async fn logged_commits(
        &self,
        id: IncarnationId,
        of: DatabaseId,
        after: Option<Lsn>,
    ) -> Result<Vec<LoggedCommit>, SealError> {
        self.sealed.commits(id, self.others.sealed(id).await, of, after).await
    }

    /// Reads the log of `id`, which is over, for whoever asks for commits in it soon.
    pub async fn read_ahead(&self, id: IncarnationId) {
        // Whoever needs it reads it again, and is told what is wrong with it.
        let _ = self.sealed.read_ahead(id, self.others.sealed(id).await).await;
    }

    /// Slots below this one are to be emptied by folds: the log is longer than it should be.
    pub fn fold_below(&self) -> Slot {
        let (low, end) = (self.log.low(), self.log.durable_end());
        if end.0 - low.0.min(end.0) <= limits::LOG_SLOTS_MAX { Slot::ZERO } else { Slot(end.0 - limits::LOG_SLOTS_MAX / 2) }
    }
}

/// Passes what the log reports to the cores.
struct Cores {
    inboxes: Vec<mpsc::UnboundedSender<Message>>,
    /// Told when the incarnation is over.
    over: mpsc::UnboundedSender<String>,
}

impl LogSink for Cores {
    fn durable(&self, commits: Vec<Acknowledged>) {
        let mut by_core: Vec<Vec<Acknowledged>> = vec![Vec::new(); self.inboxes.len()];
        for commit in commits {
            by_core[usize::from(commit.home)].push(commit);
        }
        for (inbox, commits) in self.inboxes.iter().zip(by_core) {
            if !commits.is_empty() {
                let _ = inbox.send(Message::Durable(commits));
            }
        }
    }

    fn fenced(&self, reason: &str) {
        for inbox in &self.inboxes {
            let _ = inbox.send(Message::Fenced(reason.to_owned()));
        }
        let _ = self.over.send(reason.to_owned());
    }
}

/// How the cores of a node are run: as threads, or as tasks of the simulator.
pub trait RunCores {
    fn run_core(&self, number: u16, node: Arc<NodeContext>, inbox: mpsc::UnboundedReceiver<Message>);
}

/// One operating system thread for each core.
pub struct CoreThreads;

impl RunCores for CoreThreads {
    fn run_core(&self, number: u16, node: Arc<NodeContext>, inbox: mpsc::UnboundedReceiver<Message>) {
        let body = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a thread's runtime needs only memory");
            tokio::task::LocalSet::new().block_on(&runtime, core::run(number, node, inbox));
        };
        let thread = std::thread::Builder::new().name(format!("sql-{number}"));
        thread.spawn(body).expect("the operating system refuses a thread at start-up");
    }
}

/// As often as the lease is renewed: has idle databases closed, and old tails folded. One timer for the whole node.
async fn sweep(node: Arc<NodeContext>, cores: Vec<mpsc::UnboundedSender<Message>>) {
    while cores.iter().all(|core| !core.is_closed()) {
        node.seam.sleep(node.settings.lease / 3).await;
        node.sealed.forget_unused(node.settings.idle_database_timeout);
        for core in &cores {
            let _ = core.send(Message::Sweep);
        }
    }
}

/// Has databases fold while their overlays take too much memory together. No timer without pressure.
async fn watch_overlays(node: Arc<NodeContext>, cores: Vec<mpsc::UnboundedSender<Message>>) {
    let overlays = &node.overlays;
    loop {
        tokio::select! {
            biased;
            () = overlays.pressed() => {}
            () = cores[0].closed() => return,
        }
        let mut before = usize::MAX;
        while overlays.is_pressed() && !cores[0].is_closed() {
            overlays.lower_fold_from(before);
            before = overlays.bytes();
            for core in &cores {
                let _ = core.send(Message::LookAtFolds);
            }
            node.seam.sleep(limits::OVERLAY_ROUND).await;
        }
        overlays.reset_fold_from();
    }
}

/// A running node.
pub struct Node {
    pub context: Arc<NodeContext>,
    incarnation: Incarnation,
    cores: Vec<mpsc::UnboundedSender<Message>>,
    over: mpsc::UnboundedReceiver<String>,
}

/// Sends requests to the cores. Cheap to clone.
#[derive(Clone)]
pub struct NodeHandle {
    pub context: Arc<NodeContext>,
    cores: Vec<mpsc::UnboundedSender<Message>>,
}

impl NodeHandle {
    /// Sends to the core that is home to the database of this name. A node that is going down drops it,
    /// which closes the reply's channel.
    pub fn send(&self, name: &Name, message: Message) {
        let hash = blake3::hash(name.as_str().as_bytes());
        let home = usize::from(hash.as_bytes()[0]) % self.cores.len();
        let _ = self.cores[home].send(message);
    }
}

impl Node {
    /// Registers a new incarnation and starts its cores. SQLite is installed by then.
    pub async fn start(
        id: IncarnationId,
        stores: Stores,
        seam: Seam,
        settings: Settings,
        cores: &dyn RunCores,
    ) -> Result<Self, StartError> {
        crate::sqlite::install();
        let (log, inbox) = log::channel();
        let context = Arc::new(NodeContext {
            id,
            cache: Arc::new(PageCache::new(settings.cache_bytes)),
            overlays: OverlaySpace::new(settings.overlay_bytes_max),
            temp: TempSpace::new(settings.temp_bytes_max),
            others: Others::new(stores.clone(), seam.clone()),
            sealed: SealedLogs::new(stores.clone(), seam.clone()),
            lease: OnceLock::new(),
            seam: seam.clone(),
            stores: stores.clone(),
            log: log.clone(),
            settings,
        });
        let (over_sender, over) = mpsc::unbounded_channel();
        let (inboxes, receivers): (Vec<_>, Vec<_>) =
            (0..context.settings.cores.max(1)).map(|_| mpsc::unbounded_channel()).unzip();
        let sink = Arc::new(Cores { inboxes: inboxes.clone(), over: over_sender });
        let lease = context.settings.lease;
        let incarnation = Incarnation::start(id, stores, seam.clone(), lease, (log, inbox), sink).await?;
        let _ = context.lease.set(incarnation.lease.clone());
        for (number, inbox) in receivers.into_iter().enumerate() {
            let number = u16::try_from(number).expect("BUG: fewer than 2^16 cores");
            cores.run_core(number, context.clone(), inbox);
        }
        seam.spawn(sweep(context.clone(), inboxes.clone()));
        let drain_interval = context.settings.drain_interval;
        if !drain_interval.is_zero() {
            seam.spawn(Drainer::new(id, context.stores.clone(), seam.clone()).run(drain_interval));
        }
        seam.spawn(watch_overlays(context.clone(), inboxes.clone()));
        Ok(Self { context, incarnation, cores: inboxes, over })
    }

    pub fn handle(&self) -> NodeHandle {
        NodeHandle { context: self.context.clone(), cores: self.cores.clone() }
    }

    /// Returns when this incarnation was ended by another node, with the reason.
    pub async fn over(&mut self) -> String {
        self.over.recv().await.unwrap_or_else(|| "the log has stopped".into())
    }

    /// Rolls back the transactions that no request is running for, so that they hold nobody up.
    pub fn end_idle_streams(&self) {
        for core in &self.cores {
            let _ = core.send(Message::EndIdleStreams);
        }
    }

    /// Stops the cores, waits until every commit is durable, and seals the log.
    pub async fn shut_down(self, within: Duration) -> Result<Sealed, SealError> {
        for core in &self.cores {
            let (done, stopped) = oneshot::channel();
            if core.send(Message::Stop { done }).is_ok() {
                let _ = stopped.await;
            }
        }
        let sealed = self.incarnation.shut_down(within).await;
        match &sealed {
            Ok(sealed) => info!(end = %sealed.end, "every commit is in the bucket; the log is sealed"),
            Err(error) => warn!(%error, "could not seal the log; the next node waits for the lease to run out"),
        }
        sealed
    }
}
