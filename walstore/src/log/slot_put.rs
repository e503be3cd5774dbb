//! The PUT of one slot: the same bytes to the same key, until the slot says what became of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tracing::warn;

use super::Shared;
use super::core::PutOutcome;
use crate::mutant::{self, Mutant};
use crate::register::Backoff;
use crate::seam::Seam;
use crate::store::{Condition, Key, Put, Store, StoreError, StoreErrorKind};

type Answer = Result<Put, StoreError>;
/// Requests of one slot that are not answered yet.
type Sent<'a> = FuturesUnordered<Pin<Box<dyn Future<Output = Answer> + Send + 'a>>>;

pub struct SlotPut {
    pub store: Arc<dyn Store>,
    pub seam: Seam,
    pub shared: Arc<Shared>,
    pub key: Key,
    pub object: Bytes,
}

impl SlotPut {
    /// Sends until the store decides, and tells it once. Time-outs, resets, 409, 429, 5xx and even 403 or a
    /// missing bucket prove nothing about this PUT, and a batch never moves to another slot; only the content
    /// of the slot decides.
    pub async fn run(&self, decided: impl FnOnce(PutOutcome) + Send) {
        let mut backoff = Backoff::default();
        let mut sent = Sent::new();
        let mut tries = 0u32;
        let outcome = loop {
            tries += 1;
            if let Some(outcome) = self.one_try(&mut sent, tries).await {
                break outcome;
            }
            backoff.pause(&self.seam).await;
        };
        decided(outcome);
        // The slower of two requests decides nothing any more, but to drop it would cut its connection.
        while let Some(answer) = sent.next().await {
            if answer.is_err() {
                self.shared.hedging.on_error();
            }
        }
    }

    /// One request, and perhaps its hedge. The first answer that decides counts; `None` if none did.
    async fn one_try<'a>(&'a self, sent: &mut Sent<'a>, tries: u32) -> Option<PutOutcome> {
        let hedging = &self.shared.hedging;
        let started = self.seam.boot_micros();
        let hedge_after = hedging.on_request(self.object.len());
        let timer = self.seam.sleep(hedge_after.unwrap_or_default());
        tokio::pin!(timer);
        let mut may_hedge = hedge_after.is_some();
        sent.push(self.send());
        loop {
            tokio::select! {
                biased;
                answer = sent.next() => {
                    let outcome = self.judge(answer?, tries).await;
                    if outcome.is_some() {
                        hedging.on_answer(self.object.len(), self.seam.boot_micros().saturating_sub(started));
                        return outcome;
                    }
                }
                () = &mut timer, if may_hedge => {
                    may_hedge = false;
                    if hedging.may_send() {
                        sent.push(self.send());
                    }
                }
            }
        }
    }

    fn send(&self) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        Box::pin(async { self.store.put(&self.key, self.object.clone(), &Condition::Absent).await })
    }

    /// What an answer says about the slot, if it says anything. A refusal may be owed to an earlier try or to
    /// the hedge: then the slot holds our own bytes, and their put id.
    async fn judge(&self, answer: Answer, tries: u32) -> Option<PutOutcome> {
        let key = &self.key;
        match &answer {
            Ok(_) => self.shared.refusals.on_answer(),
            Err(error) => self.shared.refusals.on_error(error, self.seam.boot_micros()),
        }
        match answer {
            Ok(Put::Done(_)) => return Some(PutOutcome::Stored),
            Ok(Put::Refused) if mutant::is_on(Mutant::OwnRefusalIsFence) => return Some(PutOutcome::Fenced),
            Ok(Put::Refused) => match self.store.get(key).await {
                Ok(Some(found)) if found.bytes == self.object => return Some(PutOutcome::Stored),
                Ok(Some(_)) => return Some(PutOutcome::Fenced),
                // Damaged, so nobody can read it as ours.
                Err(error) if error.kind == StoreErrorKind::Corrupt => return Some(PutOutcome::Fenced),
                Ok(None) => warn!(%key, "refused as present, but not there to read; asking again"),
                Err(error) => warn!(%error, "cannot read back a slot that is taken; asking again"),
            },
            Err(error) => {
                self.shared.hedging.on_error();
                #[cfg(feature = "mutants")]
                if mutant::is_on(Mutant::MissingIsNotWritten) && matches!(self.store.get(key).await, Ok(None)) {
                    return Some(PutOutcome::Missing);
                }
                if tries.is_power_of_two() {
                    warn!(%error, tries, "the store has not taken a fragment yet; sending it again");
                }
            }
        }
        None
    }
}

#[cfg(test)]
#[path = "slot_put_tests.rs"]
mod tests;
