//! A node: an incarnation with its log and lease, the cores, and the cache directory.
//!
//! Starting and stopping it are boxed, as other large futures that other crates wait for: what is not boxed is compiled
//! once more in each of them, with all that it waits for.

mod cache_dir;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, LocalBoxFuture};
use pageserver::drain::Drainer;
use pageserver::service::follow::{Publish, Publisher, Start};
use pageserver::sweep::Sweeper;
use tenant::name::Name;
use tokio::sync::{mpsc, oneshot};
use tracing::{Level, debug, enabled, info, warn};
use walstore::id::IncarnationId;
use walstore::life::{Incarnation, StartError, Stores};
use walstore::log::{self, Acknowledged, LogSink};
use walstore::seal::{SealError, Sealed};
use walstore::seam::Seam;

pub use self::cache_dir::{CacheDir, CacheDirError};
pub use crate::context::{Memory, NodeContext, Settings};

use crate::core::{self, Job, JobError, Message, Work};
use crate::error::{Fault, ServerError};
use crate::hrana::HranaVersion;
use crate::limits;
use crate::session::stream::Stream;

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

/// Starts one core, which lacks nothing any more.
pub type StartCore = Box<dyn FnOnce(Arc<NodeContext>, mpsc::UnboundedReceiver<Message>) + Send>;

/// How the cores of a node are run: as threads, or as tasks of the simulator.
pub trait RunCores {
    /// Gets what so many cores need from the operating system. What is dropped unstarted costs nothing.
    fn prepare(&self, count: u16) -> io::Result<Vec<StartCore>>;
}

/// One operating system thread for each core.
pub struct CoreThreads;

impl RunCores for CoreThreads {
    fn prepare(&self, count: u16) -> io::Result<Vec<StartCore>> {
        (0..count).map(prepare_thread).collect()
    }
}

/// A thread with its runtime, that waits for its core or for being dropped.
fn prepare_thread(number: u16) -> io::Result<StartCore> {
    let (start, started) = std::sync::mpsc::channel();
    let (made, is_made) = std::sync::mpsc::channel();
    let body = move || {
        // In here, since a runtime must not be dropped inside of another.
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(made.send(Err(error))),
        };
        let _ = made.send(Ok(()));
        let Ok((node, inbox)) = started.recv() else { return };
        tokio::task::LocalSet::new().block_on(&runtime, core::run(number, node, inbox));
    };
    std::thread::Builder::new().name(format!("sql-{number}")).spawn(body)?;
    is_made.recv().map_err(|_| io::Error::other("the thread has ended at once"))??;
    Ok(Box::new(move |node, inbox| drop(start.send((node, inbox)))))
}

/// Why a node cannot run.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    Register(#[from] StartError),
    #[error(
        "cannot start {count} threads that run SQL: {cause}; write a smaller --cores, or allow this process more files \
         and threads (ulimit -n, ulimit -u)"
    )]
    Cores { count: u16, cause: io::Error },
}

/// As often as the lease is renewed: has idle databases closed, and old tails folded. One timer for the whole node.
async fn sweep(node: Arc<NodeContext>, cores: Vec<mpsc::UnboundedSender<Message>>) {
    while cores.iter().all(|core| !core.is_closed()) {
        node.seam.sleep(node.settings.lease / 3).await;
        node.sealed.forget_unused(node.settings.idle_database_timeout);
        node.lend_to_disk();
        node.log_age.note(node.seam.boot_micros(), node.log.durable_end());
        if enabled!(Level::DEBUG) {
            let Memory { cache, overlays, fetches, sqlite, disk, large } = node.memory();
            debug!(cache, overlays, fetches, sqlite, disk, large, "memory in use");
        }
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
            // First: there may be pressure when it closes, which nobody relieves any more.
            () = cores[0].closed() => return,
            () = overlays.pressed() => {}
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

/// Has moments of the past closed that nobody uses, when there is no memory for another one.
async fn watch_pasts(node: Arc<NodeContext>, cores: Vec<mpsc::UnboundedSender<Message>>) {
    loop {
        tokio::select! {
            biased;
            () = node.replica_overlays.room_is_asked_for() => {}
            () = cores[0].closed() => return,
        }
        for core in &cores {
            let _ = core.send(Message::ClosePasts);
        }
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
    /// Sends to the core that is home to the database of this name. A core that stops before it has answered
    /// closes the reply's channel.
    ///
    /// # Errors
    /// If the core has stopped: the message reached nobody.
    pub fn send(&self, name: &Name, message: Message) -> Result<(), ServerError> {
        let hash = blake3::hash(name.as_str().as_bytes());
        let home = usize::from(hash.as_bytes()[0]) % self.cores.len();
        let stopped = |_| ServerError::new(Fault::Closed, "this node is going down and has done nothing; ask another one");
        self.cores[home].send(message).map_err(stopped)
    }

    /// Runs code of this process with a stream of its own, where the requests of the database's clients run: on its
    /// home core, in a coroutine, with connections of its pool. Returns when all that it wrote or saw is durable.
    pub async fn run<T: Send + 'static>(
        &self,
        database: &Name,
        body: impl FnOnce(&mut Stream) -> T + Send + 'static,
    ) -> Result<T, JobError> {
        let (sender, result) = oneshot::channel();
        let (done, ran) = oneshot::channel();
        let body = Box::new(move |stream: &mut Stream| drop(sender.send(body(stream))));
        let work = Work::Local { body, done };
        let (database_name, version) = (database.clone(), HranaVersion::Hrana3);
        let job = Job { database: database_name, at: None, create: false, baton: None, version, min_lsn: 0, work, loan: None };
        self.send(database, Message::Job(job))?;
        let going_down = || ServerError::new(Fault::Closed, "the node is shutting down");
        ran.await.map_err(|_| going_down())??;
        Ok(result.await.map_err(|_| going_down())?)
    }
}

impl Publish for NodeHandle {
    fn follow(&self, start: Start, publisher: Publisher) {
        let name = start.name.clone();
        // A core that has stopped drops the publisher, which ends the subscription.
        let _ = self.send(&name, Message::Follow { start, publisher });
    }
}

impl Node {
    /// Registers a new incarnation and starts its cores. SQLite is installed by then.
    pub fn start(
        id: IncarnationId,
        stores: Stores,
        seam: Seam,
        settings: Settings,
        cores: &dyn RunCores,
    ) -> LocalBoxFuture<'_, Result<Self, NodeError>> {
        Box::pin(Self::start_now(id, stores, seam, settings, cores))
    }

    async fn start_now(
        id: IncarnationId,
        stores: Stores,
        seam: Seam,
        settings: Settings,
        cores: &dyn RunCores,
    ) -> Result<Self, NodeError> {
        // Before anything is in the bucket that others would have to wait for.
        let count = settings.cores.max(1);
        let prepared = cores.prepare(count).map_err(|cause| NodeError::Cores { count, cause })?;
        crate::sqlite::install();
        let (log, inbox) = log::channel();
        // By then every client has been told that it is unknown, and others may take the databases over.
        log.give_up_after(settings.commit_timeout + settings.lease);
        let context = Arc::new(NodeContext::new(id, stores.clone(), seam.clone(), log.clone(), settings));
        let (over_sender, over) = mpsc::unbounded_channel();
        let (inboxes, receivers): (Vec<_>, Vec<_>) =
            (0..count).map(|_| mpsc::unbounded_channel()).unzip();
        let sink = Arc::new(Cores { inboxes: inboxes.clone(), over: over_sender });
        let (lease, address) = (context.settings.lease, context.settings.address.clone());
        let incarnation = Incarnation::start_at(address, id, stores, seam.clone(), lease, (log, inbox), sink).await?;
        context.registered(incarnation.lease.clone());
        for (start, inbox) in prepared.into_iter().zip(receivers) {
            start(context.clone(), inbox);
        }
        seam.spawn(sweep(context.clone(), inboxes.clone()));
        let drain_interval = context.settings.drain_interval;
        if !drain_interval.is_zero() {
            let drainer = Drainer::new(id, context.stores.clone(), seam.clone(), &context.fetcher);
            let core = inboxes[0].clone();
            seam.spawn(async move {
                tokio::select! {
                    biased;
                    () = core.closed() => {}
                    () = drainer.run(drain_interval) => {}
                }
            });
        }
        let sweep_interval = context.settings.sweep_interval;
        if !sweep_interval.is_zero() {
            let owner = NodeHandle { context: context.clone(), cores: inboxes.clone() };
            let sweeper = Sweeper::new(id, context.stores.clone(), seam.clone(), &context.fetcher);
            let sweeper = sweeper.telling(move |head| {
                // A node that stops needs not know.
                let _ = owner.send(&head.name, Message::Tidy { name: head.name.clone() });
            });
            let core = inboxes[0].clone();
            seam.spawn(async move {
                tokio::select! {
                    biased;
                    () = core.closed() => {}
                    () = sweeper.run(sweep_interval) => {}
                }
            });
        }
        seam.spawn(watch_overlays(context.clone(), inboxes.clone()));
        seam.spawn(watch_pasts(context.clone(), inboxes.clone()));
        Ok(Self { context, incarnation, cores: inboxes, over })
    }

    pub fn handle(&self) -> NodeHandle {
        NodeHandle { context: self.context.clone(), cores: self.cores.clone() }
    }

    /// Returns when this incarnation is over, with the reason: another node has ended it, or its log was given up.
    pub async fn over(&mut self) -> String {
        self.over.recv().await.unwrap_or_else(|| "the log has stopped".into())
    }

    /// Whether it was this node itself that gave its log up, because the store refused it for too long.
    pub fn has_given_up(&self) -> bool {
        self.context.log.has_given_up()
    }

    /// Seals a log that was given up, as soon as the store lets this node.
    pub async fn seal_given_up(&self) -> Result<Sealed, SealError> {
        self.incarnation.seal_given_up().await
    }

    /// Rolls back the transactions that no request is running for, now and from now on, so that they hold nobody up.
    pub fn end_idle_streams(&self) {
        for core in &self.cores {
            let _ = core.send(Message::EndIdleStreams);
        }
    }

    /// Stops the cores, waits until every commit is durable, and seals the log.
    pub fn shut_down(self, within: Duration) -> BoxFuture<'static, Result<Sealed, SealError>> {
        Box::pin(self.shut_down_now(within))
    }

    async fn shut_down_now(self, within: Duration) -> Result<Sealed, SealError> {
        for core in &self.cores {
            let (done, stopped) = oneshot::channel();
            if core.send(Message::Stop { done }).is_ok() {
                let _ = stopped.await;
            }
        }
        let sealed = self.incarnation.shut_down(within).await;
        let disk = &self.context.disk;
        tokio::select! {
            biased;
            () = disk.settle() => {}
            () = self.context.seam.sleep(limits::DISK_AT_SHUTDOWN) => {}
        }
        info!(counters = ?disk.counters(), "the disk cache is left to the next process");
        match &sealed {
            Ok(sealed) => info!(end = %sealed.end, "every commit is in the bucket; the log is sealed"),
            Err(error) => warn!(%error, "could not seal the log; the next node waits for the lease to run out"),
        }
        sealed
    }
}

#[cfg(test)]
mod tests {
    use walstore::store::MemoryStore;

    use super::*;

    struct NoThreads;

    impl RunCores for NoThreads {
        fn prepare(&self, _: u16) -> io::Result<Vec<StartCore>> {
            Err(io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error()))
        }
    }

    #[tokio::test]
    async fn a_node_without_threads_says_so_and_leaves_nothing_in_the_bucket() {
        let (memory, seam) = (MemoryStore::new(), Seam::production());
        let stores = Stores::one(Arc::new(memory.clone()));
        let settings = Settings { cores: 256, ..Settings::default() };
        let Err(error) = Node::start(IncarnationId::random(&seam), stores, seam, settings, &NoThreads).await else {
            panic!("it started");
        };
        let text = error.to_string();
        assert!(text.starts_with("cannot start 256 threads that run SQL: Too many open files"), "{text}");
        assert!(text.contains("--cores") && text.contains("ulimit -n"), "{text}");
        assert!(memory.keys().is_empty());
    }
}
