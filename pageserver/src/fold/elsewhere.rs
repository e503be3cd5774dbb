//! Folds whose packs a page server makes: this node plans them, links them and has the last word.
//!
//! ```text
//!   owner                                                page server
//!   plan_fold ─▶ PackOrder (tail's pages, origins) ────▶ reads frames that are merged, compresses
//!                                                        PUT pack, if absent
//!   GET pack, FoldPlan::check ◀──────────────────────── done
//!   map, history, CAS head, as for a pack of its own
//! ```
//!
//! The order carries the pack's id, nonce and all. So an answer cannot be taken for another's, and whatever becomes of
//! the order, its only trace is one object, under a key of the owner's epoch and of a fold that is linked no earlier
//! than now: a [collection](crate::collect) or a sweep deletes it like any pack that a fold of the owner's left
//! unlinked. What is read back is compared with what was ordered before anything refers to it, and is in the page cache
//! then, as after a fold of one's own.
//!
//! If no good pack comes of it in [`limits::ORDER_PATIENCE`], for whatever reason, the fold goes on as if there was no
//! page server, and after a failure that one is left alone for a while, which doubles as long as it fails.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use segments::fold::{FoldPlan, Folded, PackOrder, fold_with};
use segments::id::PackId;
use segments::keys;
use segments::pack::Pack;
use segments::page::PAGE_BYTES;
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};
use walstore::envelope::Corrupt;
use walstore::register::{Backoff, Patience};
use walstore::seam::Seam;
use walstore::store::Key;

use super::{FoldJob, Folder};
use crate::heavy::heavy;
use crate::limits;
use crate::service::packs::{MakePacks, OrderRefused};

/// The page server that makes packs for this node. One for all of its databases.
pub struct PackMaker {
    address: String,
    peers: Arc<dyn MakePacks>,
    seam: Seam,
    rest: Mutex<Rest>,
    /// Orders at the same time: each is a copy of a tail.
    room: Semaphore,
}

/// Until when nothing is ordered, and for how long after the next failure.
#[derive(Debug)]
struct Rest {
    until_micros: u64,
    next: Duration,
}

const NO_REST: Rest = Rest { until_micros: 0, next: limits::ORDER_REST_MIN };

/// Why a pack has to be made here.
#[derive(Debug, thiserror::Error)]
enum NotMade {
    #[error(transparent)]
    Refused(#[from] OrderRefused),
    #[error("no pack after {:?}", limits::ORDER_PATIENCE)]
    TooSlow,
    #[error("it says that it is done, but there is no {0}")]
    NotThere(String),
    #[error(transparent)]
    Wrong(#[from] Corrupt),
}

impl PackMaker {
    /// At `http://host:port`.
    pub fn new(address: impl Into<String>, peers: Arc<dyn MakePacks>, seam: Seam) -> Self {
        let room = Semaphore::new(limits::ORDERS_AT_ONCE);
        Self { address: address.into(), peers, seam, rest: Mutex::new(NO_REST), room }
    }

    fn is_resting(&self) -> bool {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner).until_micros > self.seam.boot_micros()
    }

    fn succeeded(&self) {
        let former = std::mem::replace(&mut *self.rest.lock().unwrap_or_else(PoisonError::into_inner), NO_REST);
        if former.until_micros > 0 {
            info!(address = self.address, "the page server makes packs again");
        }
    }

    fn failed(&self, why: &NotMade) {
        if matches!(why, NotMade::Refused(OrderRefused::Busy)) {
            debug!(address = self.address, "the page server is busy; this fold's pack is made here");
            return;
        }
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = rest.next;
        let until_micros = self.seam.boot_micros().saturating_add(pause.as_micros() as u64);
        *rest = Rest { until_micros, next: (pause * 2).min(limits::ORDER_REST_MAX) };
        warn!(address = self.address, %why, ?pause, "the page server makes no packs; folds are done here for a while");
    }
}

impl Folder<'_> {
    /// Has the pack of a plan made by a page server. `None`: it has to be made here.
    pub(super) async fn made_elsewhere(&self, maker: &PackMaker, job: &FoldJob, plan: &FoldPlan) -> Option<Folded> {
        let head = &job.head.value;
        // Who would have to wait makes the pack himself.
        let _room = maker.room.try_acquire().ok()?;
        let id = PackId { owner: head.database, epoch: head.epoch, seq: job.seq, nonce: self.seam.random_u64() };
        let order = plan.order(&job.input, id).filter(|_| !maker.is_resting())?;
        let made = tokio::select! {
            biased;
            made = self.order(maker, job, plan, order) => made,
            () = self.seam.sleep(limits::ORDER_PATIENCE) => Err(NotMade::TooSlow),
        };
        match made {
            Ok(pack) => {
                maker.succeeded();
                Some(fold_with(plan, &job.input, Some(pack)))
            }
            Err(why) => {
                maker.failed(&why);
                if let NotMade::Wrong(_) = why
                    && let Err(error) = self.store.delete(&keys::pack(&id)).await
                {
                    // Nobody can link it, and a collection finds it.
                    debug!(%error, "cannot delete a wrong pack");
                }
                None
            }
        }
    }

    async fn order(
        &self,
        maker: &PackMaker,
        job: &FoldJob,
        plan: &FoldPlan,
        order: PackOrder,
    ) -> Result<Pack, NotMade> {
        let (id, pages) = (order.id, order.pages_in_pack());
        let encoded = heavy(|| order.encode()).await;
        drop(order);
        maker.peers.make_pack(&maker.address, encoded, pages).await?;
        let key = keys::pack(&id);
        // A longer one is not what was ordered, and then this is only its beginning, which is noticed.
        let commits: usize = job.input.commits.iter().map(|commit| commit.len() + limits::PACK_ENTRY_BYTES_MAX).sum();
        let bytes_max = pages * (PAGE_BYTES + limits::PACK_ENTRY_BYTES_MAX) + commits + limits::PACK_REST_BYTES_MAX;
        let object = self.read_back(&key, bytes_max as u64).await?;
        let known = |at: &_| self.fetcher.cache().frame(at);
        heavy(|| plan.check(&job.input, id, &object, &known)).await.map_err(|corrupt| corrupt.at(key).into())
    }

    async fn read_back(&self, key: &Key, bytes_max: u64) -> Result<Bytes, NotMade> {
        let patience = Patience::for_duration(self.seam, limits::ORDER_PATIENCE);
        let mut backoff = Backoff::default();
        loop {
            match self.store.get_range(key, 0..bytes_max).await {
                Ok(Some(object)) => return Ok(object.bytes),
                Ok(None) => return Err(NotMade::NotThere(key.to_string())),
                Err(error) if error.is_permanent() || patience.has_ended(self.seam) => {
                    return Err(OrderRefused::Failed(format!("{key} cannot be read back: {error}")).into());
                }
                Err(_) => backoff.pause(self.seam).await,
            }
        }
    }
}
