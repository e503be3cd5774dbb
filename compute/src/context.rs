//! What every part of a node shares: its settings, the bucket, the log's handle, and what it knows of others.

mod body_loan;
mod hot;
mod log_age;
mod others;
mod sealed;
mod unfinished;

use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use pageserver::fetcher::Fetcher;
use pageserver::fold::PackMaker;
use pageserver::service::follow::Peers;
use segments::cache::{Lending, Loan, PageCache};
use segments::disk::DiskCache;
use segments::disk::file::CacheFile;
use tenant::registry::GivenUp;
use tokio::sync::{Semaphore, oneshot};
use tracing::warn;
use walstore::clock;
use walstore::id::{DatabaseId, IncarnationId, Lsn, Slot};
use walstore::lease::Lease;
use walstore::life::Stores;
use walstore::log::LogHandle;
use walstore::seal::SealError;
use walstore::seam::Seam;

pub use self::body_loan::BodyLoan;
pub use self::hot::{HotSegments, HotSets};
pub use self::log_age::LogAge;
pub use self::others::{OwnerProbe, Others};
pub use self::sealed::{LoggedCommit, SealedLogs};
pub use self::unfinished::LookedUp;

use crate::database::overlay_space::OverlaySpace;
use crate::error::{Fault, ServerError};
use crate::limits;
use crate::sqlite::memory;
use crate::sqlite::sql_space::SqlSpace;
use crate::sqlite::temp_space::TempSpace;

/// What an operator decides about a node. Times and sizes are limits that clients may meet.
#[derive(Clone, Debug)]
pub struct Settings {
    pub lease: Duration,
    pub cores: u16,
    /// Bytes of page cache in memory, shared by all databases.
    pub cache_bytes: u64,
    /// Bytes that everything else but `fetch_bytes_max` may take beside it: overlays, SQLite, large transactions,
    /// folds. Beyond it the cache gives way.
    pub lent_bytes_free: usize,
    /// Bytes that it may take in all: then transactions wait, and large statements are refused.
    pub lent_bytes_max: usize,
    /// What a transaction may write without asking whether the node has memory for it.
    pub small_transaction_bytes: usize,
    /// Segments that one fold merges at most.
    pub merge_segments_max: usize,
    /// Bytes of memory that requests for pages take at most while they are on their way.
    pub fetch_bytes_max: usize,
    /// Bytes of pages in memory that are not folded yet, of all databases, beyond which writers wait for folds.
    pub overlay_bytes_max: usize,
    /// Bytes that SQLite holds for all databases, beyond which no idle connection is kept.
    pub sql_bytes_max: usize,
    /// Bytes that SQLite may hold for one database.
    pub memory_per_database: usize,
    pub transaction_bytes_max: usize,
    pub response_bytes_max: usize,
    pub statement_timeout: Duration,
    pub idle_transaction_timeout: Duration,
    pub idle_stream_timeout: Duration,
    /// How long a large body may take beyond what its size allows.
    pub large_body_patience: Duration,
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
    /// Where stored bytes are kept that came from the bucket, and how many.
    pub disk: Option<(Arc<dyn CacheFile>, u64)>,
    /// How often the node looks for logs of incarnations that are over; zero is never.
    pub drain_interval: Duration,
    /// How often somebody of the fleet sweeps the whole bucket; zero is never.
    pub sweep_interval: Duration,
    /// How long a commit may stay unfolded, however few there are.
    pub fold_age: Duration,
    /// How long new databases keep their history, in whole seconds; zero keeps none.
    pub retention: Duration,
    /// Bytes of temporary files on disk, of all databases.
    pub temp_bytes_max: u64,
    /// Whether what another node owns is read here.
    pub read_replicas: bool,
    /// Where other nodes reach this one, as `http://host:port`; empty if they cannot.
    pub address: String,
}

impl Settings {
    /// What a database that is created at this time is promised.
    pub fn of_new_database(&self, created_micros: u64) -> tenant::settings::Settings {
        let mut settings = tenant::settings::Settings::new(created_micros);
        settings.window_millis = u16::try_from(self.window.as_millis()).unwrap_or(u16::MAX);
        settings.retention_secs = u32::try_from(self.retention.as_secs()).unwrap_or(u32::MAX);
        settings
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10),
            cores: 2,
            cache_bytes: 256 << 20,
            lent_bytes_free: usize::MAX,
            lent_bytes_max: usize::MAX,
            small_transaction_bytes: limits::SMALL_TRANSACTION_BYTES,
            merge_segments_max: segments::limits::MERGE_SEGMENTS_MAX,
            fetch_bytes_max: limits::FETCH_BYTES_MAX,
            overlay_bytes_max: 64 << 20,
            sql_bytes_max: 32 << 20,
            memory_per_database: 256 << 20,
            transaction_bytes_max: 64 << 20,
            response_bytes_max: 10 << 20,
            statement_timeout: Duration::from_secs(60),
            idle_transaction_timeout: Duration::from_secs(5),
            idle_stream_timeout: Duration::from_secs(60),
            large_body_patience: Duration::from_secs(10),
            idle_database_timeout: Duration::from_secs(60),
            busy_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(5),
            commit_timeout: Duration::from_secs(20),
            window: Duration::ZERO,
            temp_directory: std::env::temp_dir(),
            disk: None,
            drain_interval: Duration::from_secs(300),
            sweep_interval: Duration::from_secs(86_400),
            fold_age: Duration::from_secs(86_400),
            retention: Duration::ZERO,
            temp_bytes_max: 1 << 30,
            read_replicas: false,
            address: String::new(),
        }
    }
}

/// Bytes of memory. See [`NodeContext::memory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub cache: usize,
    pub overlays: usize,
    pub fetches: usize,
    pub sqlite: usize,
    /// What says where the disk cache has its slots, and slots that are not written yet.
    pub disk: usize,
    /// Transactions that are being written, and folds.
    pub large: usize,
}

/// What every part of a node shares.
pub struct NodeContext {
    pub id: IncarnationId,
    pub seam: Seam,
    pub settings: Settings,
    pub stores: Stores,
    pub log: LogHandle,
    pub cache: PageCache,
    /// Reads what is not in `cache`.
    pub fetcher: Fetcher,
    pub disk: DiskCache,
    disk_loan: Mutex<Loan>,
    pub overlays: Arc<OverlaySpace>,
    /// The same for replicas and for moments of the past. Nothing that this node folds makes room there, so its writers do
    /// not wait for it.
    pub replica_overlays: Arc<OverlaySpace>,
    /// Turns of forks and restores of former states, which hold these in memory.
    pub past_forks: Semaphore,
    /// What large bodies of requests take in memory.
    pub body_bytes: AtomicUsize,
    pub temp: Arc<TempSpace>,
    pub sql: Arc<SqlSpace>,
    pub hot: HotSets,
    pub others: Others,
    pub given_up: GivenUp,
    pub sealed: SealedLogs,
    pub log_age: LogAge,
    lease: OnceLock<Arc<Lease>>,
    peers: OnceLock<Arc<dyn Peers>>,
    pack_maker: OnceLock<PackMaker>,
}

impl NodeContext {
    /// Of an incarnation that is about to be registered: until [`NodeContext::registered`] it may serve nothing.
    pub fn new(id: IncarnationId, stores: Stores, seam: Seam, log: LogHandle, settings: Settings) -> Self {
        let lending = Lending {
            free_bytes: settings.lent_bytes_free,
            bytes_max: settings.lent_bytes_max,
            // See `database/file/commit.rs`.
            largest_bytes: settings.transaction_bytes_max.saturating_mul(2),
            beside_each_bytes: limits::SQL_SMALL_BYTES,
            give_back: memory::give_back,
        };
        let cache = PageCache::lending(settings.cache_bytes, lending);
        let disk = settings.disk.as_ref();
        let disk = disk.map_or_else(DiskCache::absent, |(file, bytes)| DiskCache::open(&seam, file.clone(), *bytes));
        let (store, fetch_bytes_max) = (stores.main.clone(), settings.fetch_bytes_max);
        Self {
            id,
            fetcher: Fetcher::with_disk(store, seam.clone(), cache.clone(), disk.clone(), fetch_bytes_max),
            disk,
            disk_loan: Mutex::new(cache.lend()),
            overlays: OverlaySpace::lent(settings.overlay_bytes_max, Some(cache.lend())),
            replica_overlays: OverlaySpace::lent(settings.overlay_bytes_max, Some(cache.lend())),
            sql: SqlSpace::new(settings.sql_bytes_max, Some(cache.clone())),
            cache,
            past_forks: Semaphore::new(limits::PAST_FORKS_AT_ONCE),
            body_bytes: AtomicUsize::new(0),
            peers: OnceLock::new(),
            pack_maker: OnceLock::new(),
            temp: TempSpace::new(settings.temp_bytes_max),
            hot: HotSets::default(),
            given_up: GivenUp::default(),
            others: Others::new(stores.clone(), seam.clone()),
            sealed: SealedLogs::new(stores.clone(), seam.clone()),
            log_age: LogAge::new(settings.fold_age),
            lease: OnceLock::new(),
            seam,
            stores,
            log,
            settings,
        }
    }

    /// Its incarnation is in the bucket and has this lease.
    pub fn registered(&self, lease: Arc<Lease>) {
        let _ = self.lease.set(lease);
    }

    /// How this node reaches others.
    pub fn reaches_others_by(&self, peers: Arc<dyn Peers>) {
        let _ = self.peers.set(peers);
    }

    pub fn peers(&self) -> Option<Arc<dyn Peers>> {
        self.peers.get().cloned()
    }

    /// The time that is written down for others.
    pub fn now_micros(&self) -> u64 {
        clock::now_micros(&self.seam, &*self.stores.main)
    }

    /// Who makes the packs of this node's folds.
    pub fn has_packs_made_by(&self, maker: PackMaker) {
        let _ = self.pack_maker.set(maker);
    }

    /// `None`: this node itself.
    pub fn pack_maker(&self) -> Option<&PackMaker> {
        self.pack_maker.get()
    }

    /// Whether this node may serve reads and begin writes.
    pub fn lease_is_valid(&self) -> bool {
        self.lease.get().is_some_and(|lease| lease.is_valid(self.seam.boot_micros()))
    }

    /// Lends the disk cache what it takes of the memory, up to a part of it: others need some, too. It grows slowly, so
    /// from time to time is enough.
    pub fn lend_to_disk(&self) {
        let (bytes, bytes_max) = (self.disk.memory_bytes(), self.cache.lent_bytes_max() / limits::DISK_INDEX_PART);
        let mut loan = self.disk_loan.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes > bytes_max && loan.bytes() < bytes_max {
            warn!(
                bytes, bytes_max,
                "the index of the disk cache takes more memory than it may: choose a smaller --cache-size or a larger --memory"
            );
        }
        loan.set(bytes.min(bytes_max));
    }

    /// What counts towards `--memory`, by what it is for.
    pub fn memory(&self) -> Memory {
        let disk_lent = self.disk_loan.lock().unwrap_or_else(PoisonError::into_inner).bytes();
        let of_others = self.overlays.lent_bytes() + self.replica_overlays.lent_bytes() + self.sql.lent() + disk_lent;
        Memory {
            cache: usize::try_from(self.cache.weight_bytes()).unwrap_or(usize::MAX),
            overlays: self.overlays.all_bytes() + self.replica_overlays.all_bytes(),
            fetches: self.fetcher.bytes_in_flight(),
            sqlite: self.sql.bytes(),
            disk: self.disk.memory_bytes(),
            large: self.cache.lent_bytes().saturating_sub(of_others),
        }
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

    /// The same of one that writes: what was cut off may have been done.
    pub async fn io_that_writes<T, F>(
        self: &Arc<Self>,
        request: impl FnOnce(Arc<Self>) -> F,
    ) -> Result<T, ServerError>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        self.io(request).await.map_err(|error| {
            let text = format!("{}; it is not known whether this was done: look before you ask for it again", error.message);
            ServerError::new(Fault::Indefinite, text)
        })
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

    /// Slots below this one are to be emptied by folds: they are old, or the log is longer than it should be.
    pub fn fold_below(&self) -> Slot {
        self.too_many_below().max(self.log_age.old_below(self.seam.boot_micros()))
    }

    /// The log is longer than it should be by the slots below this one.
    pub fn too_many_below(&self) -> Slot {
        let (low, end) = (self.log.low(), self.log.durable_end());
        if end.0 - low.0.min(end.0) <= limits::LOG_SLOTS_MAX { Slot::ZERO } else { Slot(end.0 - limits::LOG_SLOTS_MAX / 2) }
    }
}
