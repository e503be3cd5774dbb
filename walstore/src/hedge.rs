//! When a request is sent a second time although the first may still be answered.
//!
//! The tail of a store's latency is mostly bad luck of one request, so a second one usually overtakes it. It is safe
//! by construction for what any retry would send again: the PUT of a slot (the same bytes to the same key), and any
//! GET. It costs a request, so it is bounded:
//! - one for a try at most, and one in [`limits::HEDGE_ONE_IN`] requests, with little to save up;
//! - only after the 95th percentile of the latest [`limits::HEDGE_SAMPLES`], but not before a quarter more than their
//!   median, so that a steady store is not hedged for nothing; on a fast store only after
//!   [`limits::HEDGE_FAST_AFTER_MICROS`];
//! - none until so many in a row went well: an error empties the samples, because a store in trouble needs fewer
//!   requests and not more;
//! - none for large ones, which are slow for their size.
//!
//! Times are whole microseconds on the node's boot clock, and nothing is drawn at random.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::limits;

const SAMPLES: usize = limits::HEDGE_SAMPLES;

/// What hedging knows of one kind of requests: the PUTs of a log, or the GETs of a node.
#[derive(Default)]
pub struct Hedging {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    recent: Latencies,
    /// Each request earns one; a hedge costs [`limits::HEDGE_ONE_IN`].
    credit: u32,
    sent: u64,
}

impl Hedging {
    /// A request of `bytes` is sent: how long it may go unanswered before it is worth a hedge.
    pub fn on_request(&self, bytes: usize) -> Option<Duration> {
        let mut state = self.state();
        state.credit = (state.credit + 1).min(limits::HEDGE_ONE_IN * limits::HEDGES_SAVED_MAX);
        if bytes > limits::HEDGE_BYTES_MAX {
            return None;
        }
        let slow = state.recent.slow_micros()?;
        let after = if slow < limits::HEDGE_FAST_MICROS { limits::HEDGE_FAST_AFTER_MICROS } else { slow };
        Some(Duration::from_micros(after.into()))
    }

    /// That time has passed: whether the hedge may be sent, which then counts.
    pub fn may_send(&self) -> bool {
        let mut state = self.state();
        if state.credit < limits::HEDGE_ONE_IN || !state.recent.is_full() {
            return false;
        }
        state.credit -= limits::HEDGE_ONE_IN;
        state.sent += 1;
        true
    }

    /// A try of `bytes` was answered after so long.
    pub fn on_answer(&self, bytes: usize, took_micros: u64) {
        if bytes <= limits::HEDGE_BYTES_MAX {
            self.state().recent.add(took_micros);
        }
    }

    pub fn on_error(&self) {
        self.state().recent = Latencies::default();
    }

    /// How many hedges were sent.
    pub fn sent(&self) -> u64 {
        self.state().sent
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("BUG: a panic while a latency was noted")
    }
}

/// The latest latencies, in a ring.
struct Latencies {
    micros: [u32; SAMPLES],
    count: usize,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { micros: [0; SAMPLES], count: 0 }
    }
}

impl Latencies {
    fn add(&mut self, micros: u64) {
        self.micros[self.count % SAMPLES] = u32::try_from(micros).unwrap_or(u32::MAX);
        self.count += 1;
    }

    fn is_full(&self) -> bool {
        self.count >= SAMPLES
    }

    /// Longer than this is slow; `None` while there are too few samples. The percentile is exact: at least 95 %
    /// of the samples are not above it.
    fn slow_micros(&self) -> Option<u32> {
        if !self.is_full() {
            return None;
        }
        let mut sorted = self.micros;
        sorted.sort_unstable();
        let median = sorted[SAMPLES / 2 - 1];
        Some(sorted[(SAMPLES * 95).div_ceil(100) - 1].max(median.saturating_add(median / 4)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After 64 requests of 1, 2, … 64 ms.
    fn warm() -> Hedging {
        let hedging = Hedging::default();
        for millis in 1..=64 {
            assert_eq!(hedging.on_request(100), None);
            hedging.on_answer(100, millis * 1_000);
        }
        hedging
    }

    #[test]
    fn a_hedge_waits_for_the_95th_percentile() {
        assert_eq!(warm().on_request(100), Some(Duration::from_millis(61)));
    }

    #[test]
    fn a_fast_store_is_not_hedged_early() {
        let hedging = warm();
        (0..64).for_each(|_| hedging.on_answer(100, 900));
        assert_eq!(hedging.on_request(100), Some(Duration::from_millis(100)));
        (0..64).for_each(|_| hedging.on_answer(100, 20_000));
        assert_eq!(hedging.on_request(100), Some(Duration::from_millis(25)));
    }

    #[test]
    fn hedges_are_a_tenth_of_the_requests_whatever_the_store_does() {
        let hedging = warm();
        let mut sent = 0;
        for _ in 0..1_000 {
            hedging.on_request(100);
            sent += u64::from(hedging.may_send());
            // Ever slower: each is beyond all that was seen before.
            hedging.on_answer(100, 1_000_000);
        }
        assert_eq!(sent, hedging.sent());
        let share = (64 + 1_000) / u64::from(limits::HEDGE_ONE_IN);
        assert!((share - 2..=share).contains(&sent), "{sent} hedges");
    }

    #[test]
    fn what_is_saved_up_does_not_make_a_storm() {
        let hedging = warm();
        (0..10_000).for_each(|_| assert!(hedging.on_request(100).is_some()));
        let sent = (0..100).filter(|_| hedging.may_send()).count();
        assert_eq!(sent, limits::HEDGES_SAVED_MAX as usize);
    }

    #[test]
    fn an_error_ends_hedging_until_the_store_has_done_well_again() {
        let hedging = warm();
        hedging.on_error();
        assert!(!hedging.may_send());
        for _ in 0..64 {
            assert_eq!(hedging.on_request(100), None);
            hedging.on_answer(100, 30_000);
        }
        assert_eq!(hedging.on_request(100), Some(Duration::from_micros(37_500)), "a quarter above a steady 30 ms");
        assert!(hedging.may_send());
    }

    #[test]
    fn a_large_object_is_neither_hedged_nor_measured() {
        let hedging = warm();
        let large = limits::HEDGE_BYTES_MAX + 1;
        assert_eq!(hedging.on_request(large), None);
        hedging.on_answer(large, 60_000_000);
        assert_eq!(hedging.on_request(100), Some(Duration::from_millis(61)));
    }
}
