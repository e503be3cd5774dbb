//! Logs of incarnations that are over, read to recover databases from them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OnceCell;
use tracing::info;
use walstore::fragment::Run;
use walstore::id::{DatabaseId, IncarnationId, Lsn};
use walstore::life::Stores;
use walstore::register::Patience;
use walstore::seal::{self, SealError, Sealed};
use walstore::seam::Seam;

/// How long a recovery keeps asking the store.
const PATIENCE: Duration = Duration::from_secs(20);

/// One commit of a sealed log.
#[derive(Clone, Debug)]
pub struct LoggedCommit {
    pub epoch: u64,
    pub lsn: Lsn,
    pub bytes: Bytes,
}

impl LoggedCommit {
    /// The commits of one database in one slot.
    pub fn of_run(run: Run) -> impl Iterator<Item = Self> {
        let lsns = std::iter::successors(Some(run.first), |lsn| Some(Lsn::after(Some(*lsn))));
        lsns.zip(run.commits).map(move |(lsn, bytes)| Self { epoch: run.epoch, lsn, bytes })
    }
}

/// The content of a sealed log, by database.
#[derive(Default)]
pub struct SealedLog {
    commits: BTreeMap<DatabaseId, Vec<LoggedCommit>>,
}

impl SealedLog {
    /// The commits of a database, in the order of the log.
    pub fn commits(&self, database: DatabaseId) -> &[LoggedCommit] {
        self.commits.get(&database).map_or(&[], Vec::as_slice)
    }

    /// Every database that has commits here.
    pub fn databases(&self) -> impl Iterator<Item = DatabaseId> {
        self.commits.keys().copied()
    }
}

/// A sealed log in use. While one exists, others that need the same log share it.
pub struct LogHold {
    log: Arc<SealedLog>,
    _shared: Arc<OnceCell<Arc<SealedLog>>>,
}

impl std::ops::Deref for LogHold {
    type Target = SealedLog;

    fn deref(&self) -> &SealedLog {
        &self.log
    }
}

/// Sealed logs that were read, shared by all databases of the node that recover from them.
pub struct SealedLogs {
    stores: Stores,
    seam: Seam,
    /// Read logs, for as long as somebody recovers from them.
    logs: Mutex<BTreeMap<IncarnationId, Weak<OnceCell<Arc<SealedLog>>>>>,
    /// The log that was read last. After a takeover many databases need it, one after the other.
    last: Mutex<Option<Arc<OnceCell<Arc<SealedLog>>>>>,
}

impl SealedLogs {
    pub fn new(stores: Stores, seam: Seam) -> Self {
        Self { stores, seam, logs: Mutex::default(), last: Mutex::default() }
    }

    /// The content of a sealed log. Read once, at 128 requests at a time, however many databases ask while
    /// it is held.
    ///
    /// `sealed` is where it ends, if that is known; else it is looked up.
    pub async fn log(&self, id: IncarnationId, sealed: Option<Sealed>) -> Result<LogHold, SealError> {
        let cell = {
            let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
            logs.retain(|_, log| log.strong_count() > 0);
            let held = logs.get(&id).and_then(Weak::upgrade);
            held.unwrap_or_else(|| {
                let cell = Arc::default();
                logs.insert(id, Arc::downgrade(&cell));
                cell
            })
        };
        let log = cell.get_or_try_init(|| self.read(id, sealed)).await?.clone();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(cell.clone());
        Ok(LogHold { log, _shared: cell })
    }

    async fn read(&self, id: IncarnationId, sealed: Option<Sealed>) -> Result<Arc<SealedLog>, SealError> {
        let patience = Patience::for_duration(&self.seam, PATIENCE);
        let sealed = match sealed {
            Some(sealed) => sealed,
            None => seal::seal(&self.stores, &self.seam, id, patience).await?,
        };
        let fragments = seal::read_log(&self.stores, &self.seam, id, sealed, patience).await?;
        let mut log = SealedLog::default();
        for fragment in fragments {
            for run in fragment.runs {
                log.commits.entry(run.database).or_default().extend(LoggedCommit::of_run(run));
            }
        }
        info!(incarnation = %id, slots = sealed.end.0 - sealed.low.0, databases = log.commits.len(), "read its log");
        Ok(Arc::new(log))
    }
}
