//! Keeping one's own incarnation record: lease, hint and low.
//!
//! The lease bounds how long other nodes wait before they suspect this one, and how long this node may
//! serve reads without having heard from the store. It never decides whether a write is acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tracing::{debug, error, warn};

use crate::id::{IncarnationId, PutId, Slot};
use crate::incarnation::{IncarnationRecord, State};
use crate::keys;
use crate::limits;
use crate::log::{LogHandle, side};
use crate::mutant::{self, Mutant};
use crate::register::{self, Patience, Swap, Versioned};
use crate::seam::Seam;
use crate::store::Store;

/// The lease is renewed three times per term.
const RENEWALS_PER_TERM: u32 = 3;
/// Under load hint and low are written at least this often.
const HINT_INTERVAL: Duration = Duration::from_secs(1);

/// What a node knows of its own right to serve. Shared by every thread.
pub struct Lease {
    serves_until: AtomicU64,
    fenced: AtomicBool,
    stopping: AtomicBool,
    term: Duration,
}

impl Lease {
    /// Whether reads may be served at `boot_micros`.
    pub fn is_valid(&self, boot_micros: u64) -> bool {
        !self.is_fenced() && boot_micros < self.serves_until.load(Ordering::Acquire)
    }

    /// Whether the record is no longer open: this incarnation is over.
    pub fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Acquire)
    }

    pub fn term(&self) -> Duration {
        self.term
    }

    /// Ends the renewals: the node is sealing its own log.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    fn extend(&self, sent_micros: u64) {
        let term = u64::try_from(self.term.as_micros()).unwrap_or(u64::MAX);
        self.serves_until.fetch_max(sent_micros.saturating_add(term), Ordering::AcqRel);
    }
}

/// The task that renews the record of one incarnation until it is fenced or stopped.
pub struct Keeper {
    pub id: IncarnationId,
    pub store: Arc<dyn Store>,
    /// Where the log's fragments are; may be another bucket.
    pub log_store: Arc<dyn Store>,
    pub seam: Seam,
    pub log: LogHandle,
    pub lease: Arc<Lease>,
    record: Versioned<IncarnationRecord>,
    sent_micros: u64,
}

impl Keeper {
    /// `record` was created by a request that was sent at `sent_micros`.
    pub fn new(
        id: IncarnationId,
        (store, log_store): (Arc<dyn Store>, Arc<dyn Store>),
        seam: Seam,
        log: LogHandle,
        record: Versioned<IncarnationRecord>,
        sent_micros: u64,
    ) -> Self {
        let lease = Lease {
            serves_until: AtomicU64::new(0),
            fenced: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            term: Duration::from_micros(record.value.lease_micros),
        };
        lease.extend(sent_micros);
        Self { id, store, log_store, seam, log, lease: Arc::new(lease), record, sent_micros }
    }

    pub async fn run(mut self) {
        let renewal = self.lease.term / RENEWALS_PER_TERM;
        let tick = renewal.min(HINT_INTERVAL);
        loop {
            tokio::select! {
                biased;
                () = self.log.hint_lags() => {}
                () = self.seam.sleep(tick) => {}
            }
            if self.lease.stopping.load(Ordering::Acquire) {
                return;
            }
            let age = Duration::from_micros(self.seam.boot_micros().saturating_sub(self.sent_micros));
            let moved = self.next_hint() != self.record.value.hint || self.next_low() != self.record.value.low;
            // Half a tick of slack: a timer that fires a moment early must not skip a renewal.
            if (age + tick / 2 >= renewal || moved) && !self.renew().await {
                return;
            }
        }
    }

    fn next_hint(&self) -> Slot {
        let mut end = self.log.durable_end();
        if mutant::is_on(Mutant::HintPastInFlight) && self.log.waiting_since().is_some() {
            end = end.next();
        }
        end.max(self.record.value.hint)
    }

    fn next_low(&self) -> Slot {
        self.log.low().min(self.next_hint()).max(self.record.value.low)
    }

    /// One CAS. `false` when this incarnation is over.
    async fn renew(&mut self) -> bool {
        let sent = self.seam.boot_micros();
        let mut next = self.record.value.successor(PutId::random(&self.seam));
        // Low before hint: what is folded was durable before.
        next.low = self.next_low();
        next.hint = self.next_hint();
        if mutant::is_on(Mutant::DeleteAboveHint) {
            delete_slots(&*self.log_store, self.id, self.record.value.low, self.log.low()).await;
        }
        let key = keys::incarnation(self.id);
        let patience = Patience::for_duration(&self.seam, self.lease.term);
        match register::replace(&*self.store, &self.seam, &key, &self.record.etag, next, patience).await {
            Ok(Swap::Won(record)) => self.renewed(record, sent),
            Ok(Swap::Lost(Some(found))) if found.value.state == State::Open => {
                debug!("a late renewal of our own had landed; going on from it");
                self.delete_below(found.value.low);
                self.record = found;
            }
            // This node's own seal was quicker than a renewal that was on its way.
            Ok(Swap::Lost(_)) if self.lease.stopping.load(Ordering::Acquire) => return false,
            Ok(Swap::Lost(found)) => {
                self.end(match found {
                    Some(_) => "another node took it for dead, and ended its log",
                    None => "its record is gone from the bucket",
                });
                return false;
            }
            Err(error) => warn!(%error, "cannot renew the lease; reads stop when it has run out"),
        }
        true
    }

    fn renewed(&mut self, record: Versioned<IncarnationRecord>, sent_micros: u64) {
        self.delete_below(record.value.low);
        self.lease.extend(sent_micros);
        self.log.hint_written(record.value.hint);
        self.record = record;
        self.sent_micros = sent_micros;
    }

    /// Deletes what the written `low` has left behind.
    fn delete_below(&self, low: Slot) {
        let start = self.record.value.low;
        if start < low {
            let (store, log_store, id) = (self.store.clone(), self.log_store.clone(), self.id);
            let sides = self.log.take_sides_below(low);
            self.seam.spawn(async move {
                delete_slots(&*log_store, id, start, low).await;
                side::delete(&*store, id, sides).await;
            });
        }
    }

    fn end(&self, reason: &str) {
        error!(incarnation = %self.id, reason, "this incarnation is over");
        self.lease.fenced.store(true, Ordering::Release);
        self.log.fence(reason);
    }
}

/// Deletes slots below a `low` that has been written. What a failed delete leaves behind is junk that
/// nobody reads.
pub async fn delete_slots(store: &dyn Store, id: IncarnationId, start: Slot, end: Slot) {
    let deletes = stream::iter(start.0..end.0).map(|slot| async move {
        let key = keys::fragment(id, Slot(slot));
        if let Err(error) = store.delete(&key).await {
            warn!(%error, "cannot delete a folded slot");
        }
    });
    deletes.buffer_unordered(limits::DELETES_IN_FLIGHT_MAX).for_each(|()| async {}).await;
}
