//! The life of one incarnation: from its record's creation to the seal of its own log.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tracing::{info, warn};

use crate::id::{IncarnationId, PutId};
use crate::incarnation::{self, IncarnationRecord};
use crate::keys;
use crate::lease::{Keeper, Lease};
use crate::log::{self, LogHandle, LogInbox, LogSink};
use crate::register::{self, Patience, RecordError, Swap};
use crate::seal::{self, SealError, Sealed};
use crate::seam::Seam;
use crate::store::{Condition, Store, StoreError};

/// How long a start keeps asking a store that does not answer.
const START_PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot register this node in the bucket: {0}")]
    Record(#[from] RecordError),
    #[error("the random id of this incarnation is taken; start again")]
    Taken,
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        Self::Record(error.into())
    }
}

/// The stores of a node: the log may live in a second, faster bucket.
#[derive(Clone)]
pub struct Stores {
    pub main: Arc<dyn Store>,
    pub log: Arc<dyn Store>,
}

impl Stores {
    /// Everything in one store.
    pub fn one(store: Arc<dyn Store>) -> Self {
        Self { main: store.clone(), log: store }
    }
}

/// A running incarnation.
pub struct Incarnation {
    pub id: IncarnationId,
    pub log: LogHandle,
    pub lease: Arc<Lease>,
    stores: Stores,
    seam: Seam,
}

impl Incarnation {
    /// Registers `id` and starts its log and its lease. `inbox` and `log` are the two ends of
    /// [`log::channel`], made before so that the sink's owner can hold the handle.
    pub async fn start(
        id: IncarnationId,
        stores: Stores,
        seam: Seam,
        lease: Duration,
        ends: (LogHandle, LogInbox),
        sink: Arc<dyn LogSink>,
    ) -> Result<Self, StartError> {
        Self::start_at(String::new(), id, stores, seam, lease, ends, sink).await
    }

    /// Like [`start`](Self::start), telling others where they reach this node.
    pub fn start_at(
        address: String,
        id: IncarnationId,
        stores: Stores,
        seam: Seam,
        lease: Duration,
        ends: (LogHandle, LogInbox),
        sink: Arc<dyn LogSink>,
    ) -> BoxFuture<'static, Result<Self, StartError>> {
        Box::pin(Self::register(address, id, stores, seam, lease, ends, sink))
    }

    async fn register(
        address: String,
        id: IncarnationId,
        stores: Stores,
        seam: Seam,
        lease: Duration,
        (log, inbox): (LogHandle, LogInbox),
        sink: Arc<dyn LogSink>,
    ) -> Result<Self, StartError> {
        let patience = Patience::for_duration(&seam, START_PATIENCE);
        put_live_marker(&*stores.main, &seam, id, patience).await?;
        let lease_micros = u64::try_from(lease.as_micros()).unwrap_or(u64::MAX);
        let record = IncarnationRecord::new(id, PutId::random(&seam), lease_micros, address);
        let sent = seam.boot_micros();
        let key = keys::incarnation(id);
        let record = match register::create(&*stores.main, &seam, &key, record, patience).await? {
            Swap::Won(record) => record,
            Swap::Lost(_) => return Err(StartError::Taken),
        };
        seam.spawn(log::run(id, inbox, stores.clone(), seam.clone(), sink));
        let both = (stores.main.clone(), stores.log.clone());
        let keeper = Keeper::new(id, both, seam.clone(), log.clone(), record, sent);
        let lease = keeper.lease.clone();
        seam.spawn(keeper.run());
        info!(incarnation = %id, "registered in the bucket");
        Ok(Self { id, log, lease, stores, seam })
    }

    /// Waits until everything that was appended is durable, then seals the log, so that a successor finds
    /// its end recorded and no lease to wait for. What is not durable after half of the time, because the store
    /// does not take it, stays indefinite: the seal is worth more, since all databases wait for it.
    pub async fn shut_down(&self, within: Duration) -> Result<Sealed, SealError> {
        let patience = Patience::for_duration(&self.seam, within);
        tokio::select! {
            biased;
            () = self.log.drain() => {}
            () = self.seam.sleep(within / 2) => {
                warn!(incarnation = %self.id, bytes = self.log.backlog_bytes(), "sealing without commits that the store has not taken");
                self.log.fence("this node is shutting down, and the store has not taken every commit");
            }
        }
        self.lease.stop();
        seal::seal(&self.stores, &self.seam, self.id, patience).await
    }
}

impl Incarnation {
    /// After the log was given up: seals it, as anybody would, as soon as the store lets this node. Asks without end,
    /// since the store may let nobody else either; meanwhile nothing is served.
    pub async fn seal_given_up(&self) -> Result<Sealed, SealError> {
        self.lease.stop();
        let mut backoff = register::Backoff::default();
        let mut tries = 0u32;
        loop {
            match seal::seal(&self.stores, &self.seam, self.id, Patience::for_duration(&self.seam, START_PATIENCE)).await {
                Err(SealError::Record(RecordError::Store(error))) => {
                    tries += 1;
                    if tries.is_power_of_two() {
                        warn!(incarnation = %self.id, %error, tries, "cannot seal the log that was given up; trying again");
                    }
                    backoff.pause(&self.seam).await;
                }
                result => return result,
            }
        }
    }
}

async fn put_live_marker(
    store: &dyn Store,
    seam: &Seam,
    id: IncarnationId,
    patience: Patience,
) -> Result<(), StoreError> {
    let mut backoff = register::Backoff::default();
    loop {
        match store.put(&keys::live(id), incarnation::encode_live(id), &Condition::None).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_permanent() || patience.has_ended(seam) => return Err(error),
            Err(_) => backoff.pause(seam).await,
        }
    }
}
