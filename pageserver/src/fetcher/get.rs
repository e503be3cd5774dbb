//! One ranged GET: asked for again while the store fails, and hedged while it is slow.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use segments::disk::DiskCache;
use walstore::envelope::Corrupt;
use walstore::hedge::Hedging;
use walstore::register::{Backoff, Patience, RecordError};
use walstore::seam::Seam;
use walstore::store::{Key, Object, Store, StoreError};

use super::wanted::Wanted;
use crate::limits;

/// Where GETs go, and how they did.
pub struct Source {
    pub store: Arc<dyn Store>,
    pub seam: Seam,
    pub hedging: Hedging,
    /// Asked before the store.
    pub disk: DiskCache,
}

type Answer = Result<Option<Object>, StoreError>;
type Sent<'a> = FuturesUnordered<Pin<Box<dyn Future<Output = Answer> + Send + 'a>>>;

impl Source {
    /// What the disk cache has of this, as it is stored.
    pub async fn on_disk(&self, all: &[Wanted]) -> Vec<Option<Bytes>> {
        join_all(all.iter().map(|wanted| async move { self.disk.get(&wanted.cache_key()).await })).await
    }

    /// The bytes `range` of an object that must be there: less, only if the object ends before.
    pub async fn get(&self, key: &Key, range: Range<u64>) -> Result<Bytes, RecordError> {
        let patience = Patience::for_duration(&self.seam, limits::FETCH_PATIENCE);
        let mut backoff = Backoff::default();
        loop {
            match self.one_try(key, &range).await {
                Ok(Some(object)) => return Ok(object.bytes),
                Ok(None) => return Err(Corrupt::new("referenced, but not in the bucket").at(key).into()),
                Err(error) if error.is_permanent() || patience.has_ended(&self.seam) => return Err(error.into()),
                Err(_) => backoff.pause(&self.seam).await,
            }
        }
    }

    /// One request, and perhaps its hedge. The first good answer counts, and the other request is dropped; an error
    /// only once nothing is left to wait for.
    async fn one_try(&self, key: &Key, range: &Range<u64>) -> Answer {
        let bytes = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let started = self.seam.boot_micros();
        let hedge_after = self.hedging.on_request(bytes);
        let timer = self.seam.sleep(hedge_after.unwrap_or_default());
        tokio::pin!(timer);
        let mut may_hedge = hedge_after.is_some();
        let mut sent = Sent::new();
        sent.push(self.store.get_range(key, range.clone()));
        loop {
            tokio::select! {
                biased;
                answer = sent.next() => match answer.expect("BUG: waits for no request") {
                    Ok(object) => {
                        self.hedging.on_answer(bytes, self.seam.boot_micros().saturating_sub(started));
                        return Ok(object);
                    }
                    Err(error) => {
                        self.hedging.on_error();
                        if sent.is_empty() {
                            return Err(error);
                        }
                    }
                },
                () = &mut timer, if may_hedge => {
                    may_hedge = false;
                    if self.hedging.may_send() {
                        sent.push(self.store.get_range(key, range.clone()));
                    }
                }
            }
        }
    }
}
