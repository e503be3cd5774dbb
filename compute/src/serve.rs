//! `shoal dev` and `shoal serve`: from a configuration to a running node and back down.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::LocalBoxFuture;
use pageserver::fold::PackMaker;
use pageserver::service::client::GrpcPeers;
use pageserver::service::pages::PageReader;
use pageserver::service::server::PageServer;
use segments::disk::Geometry;
use segments::disk::file::{CacheFile, DiskIo};
use segments::limits::MERGE_SEGMENTS_MAX;
use segments::page::SEGMENT_BYTES;
use tenant::name::Name;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};
use walstore::id::IncarnationId;
use walstore::life::Stores;
use walstore::register::Patience;
use walstore::seal;
use walstore::seam::Seam;
use walstore::store::{self, StoreUrl};

use crate::cli::config::{Limits, ServeConfig};
use crate::cli::settings::CacheIo;
use crate::cli::units::ByteSize;
use crate::hrana::baton::BatonKey;
use crate::http::{admin, data, listen};
use crate::limits;
use crate::node::{CacheDir, CoreThreads, Node, Settings};

/// How long a shutdown waits for the bucket.
const SHUTDOWN: Duration = Duration::from_secs(20);
/// How long a start waits for the log of a predecessor to be sealed.
const SEAL_PREDECESSOR: Duration = Duration::from_secs(30);

/// What comes after a server.
pub enum Ended {
    Exit(ExitCode),
    /// Its log was given up and is sealed: a new incarnation can serve.
    StartAgain,
}

/// Serves until the process is to end. A log that had to be given up is followed by a new incarnation, at the same
/// addresses.
pub fn serve(mut config: ServeConfig, mut server: Server) -> LocalBoxFuture<'static, anyhow::Result<ExitCode>> {
    Box::pin(async move {
        loop {
            (config.http_listen_addr, config.admin_listen_addr) = (server.http_addr, server.admin_addr);
            match server.run().await {
                Ended::Exit(code) => return Ok(code),
                Ended::StartAgain => server = Server::start(&config).await?,
            }
        }
    })
}

/// A server with both of its planes listening.
pub struct Server {
    node: Node,
    seam: Seam,
    pub http_addr: SocketAddr,
    pub admin_addr: SocketAddr,
    stop: watch::Sender<bool>,
    planes: Vec<tokio::task::JoinHandle<()>>,
    signals: Signals,
    _cache_dir: CacheDir,
}

impl Server {
    /// Starts a node and its listeners. Errors say what to change.
    pub fn start(config: &ServeConfig) -> LocalBoxFuture<'_, anyhow::Result<Self>> {
        Box::pin(Self::start_now(config))
    }

    async fn start_now(config: &ServeConfig) -> anyhow::Result<Self> {
        let seam = Seam::production();
        let http = listen::bind(config.http_listen_addr).await?;
        let admin_listener = listen::bind(config.admin_listen_addr).await?;
        let cache_dir = CacheDir::lock(&config.cache_dir)?;
        let store_url = StoreUrl::parse(&config.store)?;
        let store = store::open(&store_url, config.create_on_first_use).await.context("cannot open the store")?;
        crate::cluster::prepare(&*store, &seam).await.context("cannot use the store")?;
        let stores = Stores::one(store.clone());
        let address = match &config.advertise_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => reachable_at(http.local_addr()?),
        };
        let node = start_node(config, &cache_dir, stores, &seam, address).await?;
        let others = Arc::new(GrpcPeers::new(seam.clone()));
        if let Some(url) = &config.page_server {
            node.context.has_packs_made_by(PackMaker::new(url, others.clone(), seam.clone()));
        }
        node.context.reaches_others_by(others);
        let owner = Arc::new(node.handle());
        let pages = PageReader::new(store.clone(), seam.clone(), node.context.fetcher.clone()).asking(owner.clone());
        let peers = data::peers_router(PageServer::new(Some(owner), Arc::new(pages)));
        let (stop, stopped) = watch::channel(false);
        let plane = data::DataPlane {
            node: node.handle(),
            batons: BatonKey::new(random_key(&seam)),
            default_database: config.default_database.as_deref().map(Name::parse).transpose()?,
            create_on_first_use: config.create_on_first_use,
            body_bytes_max: config.limits.max_body_size.as_usize(),
        };
        let (http_addr, admin_addr) = (http.local_addr()?, admin_listener.local_addr()?);
        let signals = Signals::listen();
        let planes = vec![
            spawn(listen::serve(http, peers.merge(data::router(plane)), seam.clone(), stopped.clone())),
            spawn(listen::serve(admin_listener, admin::router(node.handle()), seam.clone(), stopped)),
        ];
        info!(%http_addr, %admin_addr, store = store.describe(), "serving");
        Ok(Self { node, seam, http_addr, admin_addr, stop, planes, signals, _cache_dir: cache_dir })
    }

    /// Serves until a signal comes or the incarnation is over, then goes down in order.
    pub async fn run(mut self) -> Ended {
        let ended = tokio::select! {
            () = self.signals.received() => {
                info!("stopping: no new requests; flushing and sealing the log");
                Ended::Exit(ExitCode::SUCCESS)
            }
            reason = self.node.over() => self.after(&reason).await,
        };
        self.stop().await;
        ended
    }

    /// What follows an incarnation that is over. Meanwhile its listeners refuse every request.
    async fn after(&mut self, reason: &str) -> Ended {
        if !self.node.has_given_up() {
            error!(reason, "this node was fenced; start it again to serve");
            return Ended::Exit(ExitCode::FAILURE);
        }
        error!(reason, "given up: nothing is served until the store answers; then this log is sealed and a new one begun");
        tokio::select! {
            () = self.signals.received() => Ended::Exit(ExitCode::FAILURE),
            sealed = self.node.seal_given_up() => match sealed {
                Ok(sealed) => {
                    info!(end = %sealed.end, "the store answers again; the log that was given up is sealed");
                    Ended::StartAgain
                }
                Err(error) => {
                    error!(%error, "cannot seal the log that was given up");
                    Ended::Exit(ExitCode::FAILURE)
                }
            },
        }
    }

    /// Ends open requests, makes every commit durable, seals the log.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        self.node.end_idle_streams();
        for plane in self.planes {
            let _ = plane.await;
        }
        let shut_down = self.node.shut_down(SHUTDOWN);
        tokio::select! {
            _ = shut_down => {}
            () = self.seam.sleep(SHUTDOWN) => error!("the bucket did not answer in time; unconfirmed commits have an unknown outcome"),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the server joins its planes when it stops")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
    tokio::spawn(task)
}

fn random_key(seam: &Seam) -> [u8; 32] {
    let mut key = [0; 32];
    seam.fill(&mut key);
    key
}

/// What of `--memory` is for what. The page cache has the rest: half of it, or more if it is large. What others need
/// beyond their share the cache lends them, and there is a bound for all of it.
struct Shares {
    /// Pages of commits that are not folded yet.
    overlays: usize,
    /// Requests for pages on their way.
    fetches: usize,
    /// What SQLite holds: its own page caches, schemas and statements.
    sqlite: usize,
    cache: usize,
    /// What overlays, SQLite, large transactions and folds may take together.
    lent: usize,
}

/// The part that requests for pages may take while they are on their way, up to [`limits::FETCH_BYTES_MAX`].
pub(crate) const FETCH_SHARE: usize = 8;

impl Shares {
    fn of(memory: usize) -> Self {
        let (overlays, sqlite) = (memory / 4, memory / 8);
        let fetches = (memory / FETCH_SHARE).min(limits::FETCH_BYTES_MAX);
        let cache = memory - overlays - fetches - sqlite;
        // The cache keeps an eighth in any case.
        Self { overlays, fetches, sqlite, cache, lent: overlays + sqlite + cache - cache.div_ceil(8) }
    }

    /// A fold that merges is not to need more than a small part of it for that.
    fn merge_segments_max(&self) -> usize {
        (self.lent / 16 / SEGMENT_BYTES).clamp(MERGE_SEGMENTS_MIN, MERGE_SEGMENTS_MAX)
    }
}

/// However little memory there is, folds must not fall behind.
const MERGE_SEGMENTS_MIN: usize = 32;

/// What other nodes are told, unless it would mean nothing to them.
fn reachable_at(listening: SocketAddr) -> String {
    if listening.ip().is_unspecified() { String::new() } else { format!("http://{listening}") }
}

async fn start_node(
    config: &ServeConfig,
    cache_dir: &CacheDir,
    stores: Stores,
    seam: &Seam,
    address: String,
) -> anyhow::Result<Node> {
    let id = IncarnationId::random(seam);
    if let Some(predecessor) = cache_dir.predecessor() {
        let patience = Patience::for_duration(seam, SEAL_PREDECESSOR);
        let sealed = seal::seal(&stores, seam, predecessor, patience).await;
        let sealed = sealed.context("cannot seal the log of this cache directory's former process")?;
        info!(incarnation = %predecessor, end = %sealed.end, "sealed the log of the former process");
    }
    cache_dir.claim(id)?;
    let cache_bytes = cache_bytes(config.cache_size, cache_dir);
    let temp_bytes = cache_bytes / limits::TEMP_PART;
    let bounds = &config.limits;
    let shares = Shares::of(config.memory.as_usize());
    let (transaction, usual) = (bounds.max_transaction_size, Limits::transaction_size_within(config.memory));
    if transaction > usual {
        let memory = config.memory;
        warn!(
            %transaction, %memory, %usual,
            "--max-transaction-size is more than a quarter of --memory: a transaction of that size takes more memory, \
             and while it does others wait or are refused"
        );
    }
    let settings = Settings {
        lease: config.lease.as_duration(),
        sweep_interval: config.sweep_interval.as_duration(),
        retention: config.retention.as_duration(),
        cores: u16::try_from(config.cores.get()).context("--cores is too large")?,
        cache_bytes: shares.cache as u64,
        lent_bytes_free: shares.overlays + shares.sqlite,
        lent_bytes_max: shares.lent,
        merge_segments_max: shares.merge_segments_max(),
        fetch_bytes_max: shares.fetches,
        overlay_bytes_max: shares.overlays,
        sql_bytes_max: shares.sqlite,
        transaction_bytes_max: bounds.max_transaction_size.as_usize(),
        response_bytes_max: bounds.max_response_size.as_usize(),
        statement_timeout: bounds.statement_timeout.as_duration(),
        idle_transaction_timeout: bounds.idle_transaction_timeout.as_duration(),
        commit_timeout: bounds.commit_timeout.as_duration(),
        window: config.window.as_duration(),
        temp_directory: cache_dir.temp_directory(),
        temp_bytes_max: temp_bytes,
        disk: open_disk(config, cache_dir, cache_bytes - temp_bytes)?,
        read_replicas: config.read_replicas,
        address,
        ..Settings::default()
    };
    Ok(Node::start(id, stores, seam.clone(), settings, &CoreThreads).await?)
}

/// What `--cache-size` comes to. On a smaller disk pages would take all there is, and sorts would find it full.
fn cache_bytes(given: ByteSize, dir: &CacheDir) -> u64 {
    match dir.room() {
        Ok(room) if room < given.as_bytes() => {
            let room = ByteSize::bytes(room >> 20 << 20);
            warn!(%given, %room, "there is less room on the disk of --cache-dir than --cache-size says; using what there is");
            room.as_bytes()
        }
        _ => given.as_bytes(),
    }
}

/// A disk that does not work is no reason not to serve. What was asked for by name and can't be had is.
fn open_disk(config: &ServeConfig, dir: &CacheDir, bytes: u64) -> anyhow::Result<Option<(Arc<dyn CacheFile>, u64)>> {
    let io = match config.disk_io {
        CacheIo::Auto => DiskIo::Auto,
        CacheIo::IoUring => DiskIo::IoUring,
        CacheIo::Plain => DiskIo::Plain,
    };
    if Geometry::of_capacity(bytes).is_none() {
        let (given, least) = (config.cache_size, ByteSize::bytes(limits::CACHE_BYTES_MIN));
        warn!(%given, "--cache-size is too small to keep pages on disk, so reads go to the bucket; write {least} or more");
        return Ok(None);
    }
    match dir.open_pages(bytes, io) {
        Ok(file) => Ok(Some((file, bytes))),
        Err(error) if io == DiskIo::IoUring => {
            Err(error).context("--disk-io is io-uring, which does not work here; write --disk-io auto or plain")
        }
        Err(error) => {
            warn!(%error, "there is no disk cache: its file in --cache-dir cannot be opened; reads go to the bucket");
            Ok(None)
        }
    }
}

/// SIGTERM and SIGINT; nothing if there can be no handlers: then either ends the process at once, as by default.
pub(crate) struct Signals(Option<(Signal, Signal)>);

impl Signals {
    /// From here on neither ends the process by itself. So it comes before anybody can know that this one serves, and
    /// after what may take long.
    pub fn listen() -> Self {
        let handlers = signal(SignalKind::terminate()).and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?)));
        Self(handlers.ok())
    }

    /// Returns at the first that has come since.
    pub async fn received(&mut self) {
        let Some((terminate, interrupt)) = &mut self.0 else { return std::future::pending().await };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_cache_size_that_is_told_is_the_least_that_keeps_pages() {
        let for_pages = |cache_size: u64| cache_size - cache_size / limits::TEMP_PART;
        assert!(Geometry::of_capacity(for_pages(limits::CACHE_BYTES_MIN)).is_some());
        assert!(Geometry::of_capacity(for_pages(limits::CACHE_BYTES_MIN - 2)).is_none());
        let help = <crate::cli::args::Cli as clap::CommandFactory>::command();
        let serve = help.find_subcommand("serve").unwrap().clone().render_long_help().to_string();
        let serve = serve.split_whitespace().collect::<Vec<_>>().join(" ");
        let least = ByteSize::bytes(limits::CACHE_BYTES_MIN);
        assert!(serve.contains(&format!("Below {least} no pages")), "{serve}");
        assert!(serve.contains(&format!("at most {}", limits::CORES_MAX)), "{serve}");
    }
}
