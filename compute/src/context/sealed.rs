//! Logs of incarnations that are over, read to recover databases from them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::OnceCell;
use tracing::info;
use walstore::id::{DatabaseId, IncarnationId, Lsn};
use walstore::life::Stores;
pub use walstore::recovery::LoggedCommit;
use walstore::recovery::{Access, SealedLog};
use walstore::register::Patience;
use walstore::seal::{SealError, Sealed};
use walstore::seam::Seam;

/// How long a recovery keeps asking the store.
const PATIENCE: Duration = Duration::from_secs(20);
/// Times that a log is read again because it was bundled or drained under the reader.
const ROUNDS_MAX: usize = 4;

type Shared = Arc<OnceCell<SealedLog>>;

/// Sealed logs that were read, shared by all databases of the node that recover from them.
pub struct SealedLogs {
    stores: Stores,
    seam: Seam,
    /// Read logs, for as long as somebody recovers from them.
    logs: Mutex<BTreeMap<IncarnationId, Weak<OnceCell<SealedLog>>>>,
    /// The log that was used last, and when. After a takeover many databases need it, one after the other.
    last: Mutex<Option<(Shared, u64)>>,
}

impl SealedLogs {
    pub fn new(stores: Stores, seam: Seam) -> Self {
        Self { stores, seam, logs: Mutex::default(), last: Mutex::default() }
    }

    /// The commits of a database in a sealed log, in the order of the log. The log is read once, at 128 requests at
    /// a time, however many databases ask while it is held; once it is bundled, each reads only its own part.
    ///
    /// Only those after `after` are read. `sealed` is where it ends, if that is known; else it is looked up.
    pub async fn commits(
        &self,
        id: IncarnationId,
        mut sealed: Option<Sealed>,
        database: DatabaseId,
        after: Option<Lsn>,
    ) -> Result<Vec<LoggedCommit>, SealError> {
        let access = self.access();
        let mut rounds = 0;
        loop {
            rounds += 1;
            let shared = self.shared(id);
            let log = shared.get_or_try_init(|| self.read(access, id, sealed.clone())).await?;
            self.keep(&shared);
            match log.commits(access, database, after).await {
                // Bundled or drained since it was read.
                Err(SealError::Stale(_)) if rounds < ROUNDS_MAX => {
                    sealed = None;
                    self.forget(id, &shared);
                }
                result => return result,
            }
        }
    }

    /// Reads a sealed log, if it is not there, for whoever asks for commits in it soon.
    pub async fn read_ahead(&self, id: IncarnationId, sealed: Option<Sealed>) -> Result<(), SealError> {
        let shared = self.shared(id);
        shared.get_or_try_init(|| self.read(self.access(), id, sealed)).await?;
        self.keep(&shared);
        Ok(())
    }

    fn access(&self) -> Access<'_> {
        let patience = Patience::for_duration(&self.seam, PATIENCE);
        Access { stores: &self.stores, seam: &self.seam, patience }
    }

    fn keep(&self, shared: &Shared) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((shared.clone(), self.seam.boot_micros()));
    }

    /// Frees the log that was used last, if that was more than `idle` ago.
    pub fn forget_unused(&self, idle: Duration) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = self.seam.boot_micros().saturating_sub(u64::try_from(idle.as_micros()).unwrap_or(u64::MAX));
        if last.as_ref().is_some_and(|(_, used_micros)| *used_micros < oldest) {
            *last = None;
        }
    }

    fn shared(&self, id: IncarnationId) -> Shared {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.retain(|_, log| log.strong_count() > 0);
        let held = logs.get(&id).and_then(Weak::upgrade);
        held.unwrap_or_else(|| {
            let cell = Arc::default();
            logs.insert(id, Arc::downgrade(&cell));
            cell
        })
    }

    fn forget(&self, id: IncarnationId, stale: &Shared) {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        if logs.get(&id).is_some_and(|log| log.as_ptr() == Arc::as_ptr(stale)) {
            logs.remove(&id);
        }
    }

    async fn read(
        &self,
        access: Access<'_>,
        id: IncarnationId,
        sealed: Option<Sealed>,
    ) -> Result<SealedLog, SealError> {
        let log = SealedLog::open_known(access, id, sealed).await?;
        let Sealed { low, end, bundles, .. } = log.sealed();
        let databases = log.unbundled_databases();
        info!(incarnation = %id, slots = end.0 - low.0, databases, bundles = bundles.len(), "read its log");
        Ok(log)
    }
}
