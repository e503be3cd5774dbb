//! Packs that this process makes for folds of other nodes ([`crate::fold::elsewhere`] is the other end).
//!
//! It needs nothing but the order: frames to merge are named in it, and read through this process's own cache. It knows
//! no head and deletes nothing, so it can be killed at any time. The pack is put only where no object is: an order
//! cannot replace anything.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use segments::fold::PackOrder;
use segments::keys;
use segments::page::PAGE_BYTES;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::debug;
use walstore::register::{Backoff, Patience};
use walstore::seam::Seam;
use walstore::store::{Condition, Put, Store};

use crate::fetcher::Fetcher;
use crate::heavy::heavy;
use crate::limits;

/// Why no pack was made. All but `Invalid` may be otherwise next time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderRefused {
    #[error("it makes as many packs as it has memory for")]
    Busy,
    #[error("the order makes no sense: {0}")]
    Invalid(String),
    #[error("{0}")]
    Failed(String),
}

/// Reaches page servers.
#[async_trait]
pub trait MakePacks: Send + Sync + 'static {
    /// Has the pack of an encoded order made, which will have so many pages, by the page server at this address. Then
    /// it is in the bucket, if that one tells the truth.
    async fn make_pack(&self, address: &str, order: Bytes, pages: usize) -> Result<(), OrderRefused>;
}

/// What comes before the bytes of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderStart {
    pub bytes: u64,
    pub crc: u32,
    /// Of the pack.
    pub pages: u64,
}

impl OrderStart {
    pub fn of(order: &[u8], pages: usize) -> Self {
        Self { bytes: order.len() as u64, crc: crc32c::crc32c(order), pages: pages as u64 }
    }
}

/// Makes packs. One for a process.
pub struct PackBuilder {
    store: Arc<dyn Store>,
    seam: Seam,
    fetcher: Fetcher,
    /// In pages of memory.
    room: Arc<Semaphore>,
}

/// An order that is on its way, and the room that is kept for it.
pub struct Incoming {
    start: OrderStart,
    bytes: BytesMut,
    _room: OwnedSemaphorePermit,
}

impl PackBuilder {
    /// Orders and what is read for them take at most about `bytes_max` of memory. Owners make larger packs themselves.
    pub fn new(store: Arc<dyn Store>, seam: Seam, fetcher: Fetcher, bytes_max: usize) -> Self {
        Self { store, seam, fetcher, room: Arc::new(Semaphore::new(bytes_max / PAGE_BYTES)) }
    }

    /// Makes room for an order, if there is any now: who has to wait is better off making the pack himself.
    pub fn admit(&self, start: OrderStart) -> Result<Incoming, OrderRefused> {
        let is_small = start.bytes <= segments::limits::ORDER_BYTES_MAX as u64
            && start.pages <= segments::limits::ORDER_PAGES_MAX as u64;
        if !is_small {
            return Err(OrderRefused::Invalid(format!("{} bytes for {} pages", start.bytes, start.pages)));
        }
        let pages = start.pages + start.bytes.div_ceil(PAGE_BYTES as u64);
        let room = self.room.clone().try_acquire_many_owned(pages as u32).map_err(|_| OrderRefused::Busy)?;
        Ok(Incoming { start, bytes: BytesMut::new(), _room: room })
    }

    /// How long an order may take to arrive, as a future.
    pub async fn patience(&self) {
        self.seam.sleep(limits::ORDER_PATIENCE).await;
    }

    /// Makes the pack of an order that has arrived, and stores it.
    pub async fn make(&self, incoming: Incoming) -> Result<(), OrderRefused> {
        let Incoming { start, bytes, _room } = incoming;
        let bytes = bytes.freeze();
        if OrderStart::of(&bytes, start.pages as usize) != start {
            return Err(OrderRefused::Invalid("its bytes are not what was announced".into()));
        }
        let invalid = |corrupt: walstore::envelope::Corrupt| OrderRefused::Invalid(corrupt.reason);
        let order = PackOrder::decode(&bytes).map_err(invalid)?;
        if order.pages_in_pack() as u64 != start.pages {
            return Err(OrderRefused::Invalid(format!("{} pages, not {}", order.pages_in_pack(), start.pages)));
        }
        tokio::select! {
            biased;
            done = self.build(&order) => done,
            () = self.patience() => Err(OrderRefused::Failed("the bucket is too slow".into())),
        }
    }

    async fn build(&self, order: &PackOrder) -> Result<(), OrderRefused> {
        let failed = |error: &dyn std::fmt::Display| OrderRefused::Failed(error.to_string());
        let frames = self.fetcher.frames_once(order.id.owner, order.reads()).await.map_err(|error| failed(&error))?;
        let pack = heavy(|| order.build(&frames.into_iter().collect())).await.map_err(|error| failed(&error))?;
        let key = keys::pack(&order.id);
        let patience = Patience::for_duration(&self.seam, limits::ORDER_PATIENCE);
        let (mut backoff, mut was_tried) = (Backoff::default(), false);
        loop {
            match self.store.put(&key, pack.bytes.clone(), &Condition::Absent).await {
                Ok(Put::Done(_)) => break,
                // An earlier try of ours; the owner looks at what is there in any case.
                Ok(Put::Refused) if was_tried => break,
                Ok(Put::Refused) => return Err(OrderRefused::Invalid(format!("there is a {key} already"))),
                Err(error) if error.is_permanent() || patience.has_ended(&self.seam) => return Err(failed(&error)),
                Err(_) => {
                    was_tried = true;
                    backoff.pause(&self.seam).await;
                }
            }
        }
        debug!(%key, bytes = pack.bytes.len(), "made for its owner");
        Ok(())
    }
}

impl Incoming {
    /// Takes the next piece.
    pub fn add(&mut self, piece: &[u8]) -> Result<(), OrderRefused> {
        if (self.bytes.len() + piece.len()) as u64 > self.start.bytes {
            return Err(OrderRefused::Invalid("more bytes than were announced".into()));
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }
}
