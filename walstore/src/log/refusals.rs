//! When a log stops hoping for a store that refuses it.
//!
//! A 403 or a missing bucket proves nothing about a PUT that was sent, and access often comes back: a policy that is
//! being changed, credentials that are being renewed. So a slot is asked for as long as with any other failure. But
//! once that has gone on for longer than any client waits and than the lease lasts, nobody is served by waiting on: the
//! log is given up, as if another node had ended it, and its node seals it when it can.
//!
//! Only refusals of slots count, and only while nothing else is heard: any slot that the store takes or answers about
//! ends the count. Failures that pass by themselves neither begin nor end it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::limits;
use crate::store::{StoreError, StoreErrorKind};

pub struct Refusals {
    /// `boot_micros` of the first refusal since the store last took something; 0 if there is none.
    since: AtomicU64,
    bound_micros: AtomicU64,
    /// What the store said last, once that has gone on for too long.
    last: Mutex<Option<String>>,
    is_over: AtomicBool,
    over: Notify,
}

impl Default for Refusals {
    fn default() -> Self {
        let refusals = Self {
            since: AtomicU64::new(0),
            bound_micros: AtomicU64::new(0),
            last: Mutex::default(),
            is_over: AtomicBool::new(false),
            over: Notify::new(),
        };
        refusals.bound(limits::REFUSED_MAX);
        refusals
    }
}

impl Refusals {
    /// How long refusals may go on.
    pub fn bound(&self, bound: Duration) {
        self.bound_micros.store(u64::try_from(bound.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The store has answered as it should.
    pub fn on_answer(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    pub fn on_error(&self, error: &StoreError, now_micros: u64) {
        if !matches!(error.kind, StoreErrorKind::Denied | StoreErrorKind::Missing) {
            return;
        }
        let since = match self.since.compare_exchange(0, now_micros, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => now_micros,
            Err(since) => since,
        };
        let lasted = now_micros.saturating_sub(since);
        if lasted >= self.bound_micros.load(Ordering::Relaxed) && !self.is_over.swap(true, Ordering::Relaxed) {
            let lasted = lasted / 1_000_000;
            let reason = format!(
                "the store has refused its commits for {lasted} s ({error}). Look at the bucket, at the credentials and at \
                 what they may do; commits that were not confirmed have an unknown outcome"
            );
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
            self.over.notify_one();
        }
    }

    /// Whether the log has been given up.
    pub fn are_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Returns, once, with the reason to give the log up.
    pub async fn over(&self) -> String {
        loop {
            self.over.notified().await;
            if let Some(reason) = self.last.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return reason;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: u64 = 10_000_000;

    fn refusals() -> Refusals {
        let refusals = Refusals::default();
        refusals.bound(Duration::from_micros(BOUND));
        refusals
    }

    fn error(kind: StoreErrorKind) -> StoreError {
        StoreError::new(kind, "w/0", "AccessDenied")
    }

    #[tokio::test]
    async fn refusals_for_longer_than_the_bound_end_a_log() {
        let refusals = refusals();
        refusals.on_error(&error(StoreErrorKind::Denied), 5);
        refusals.on_error(&error(StoreErrorKind::Indefinite), 5 + 2 * BOUND);
        assert!(!refusals.are_over(), "what passes by itself does not end it");
        refusals.on_error(&error(StoreErrorKind::Missing), 4 + BOUND);
        assert!(!refusals.are_over());
        refusals.on_error(&error(StoreErrorKind::Missing), 5 + BOUND);
        assert!(refusals.are_over());
        let reason = refusals.over().await;
        assert!(reason.contains("refused its commits for 10 s") && reason.contains("AccessDenied"), "{reason}");
    }

    #[test]
    fn any_answer_in_between_begins_the_count_anew() {
        let refusals = refusals();
        refusals.on_error(&error(StoreErrorKind::Denied), 5);
        refusals.on_answer();
        refusals.on_error(&error(StoreErrorKind::Denied), 5 + BOUND);
        assert!(!refusals.are_over());
    }
}
