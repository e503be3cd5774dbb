//! By when each parked stream is to be back. One timer serves all of a core's.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tokio::sync::Notify;

/// What is to happen at a time, at most one thing for each id. Times are in microseconds of the seam's boot clock.
pub struct Deadlines<T> {
    times: RefCell<Times<T>>,
    /// Signalled when the earliest time has changed.
    pub changed: Notify,
}

struct Times<T> {
    in_order: BTreeMap<(u64, u64), T>,
    of_id: BTreeMap<u64, u64>,
}

impl<T> Default for Deadlines<T> {
    fn default() -> Self {
        let times = RefCell::new(Times { in_order: BTreeMap::new(), of_id: BTreeMap::new() });
        Self { times, changed: Notify::new() }
    }
}

impl<T> Deadlines<T> {
    /// `what` is to happen to `id` at a time, instead of what was to happen before.
    pub fn set(&self, id: u64, at_micros: u64, what: T) {
        self.change(|times| {
            times.remove(id);
            times.of_id.insert(id, at_micros);
            times.in_order.insert((at_micros, id), what);
        });
    }

    /// Nothing is to happen to `id`.
    pub fn forget(&self, id: u64) {
        self.change(|times| times.remove(id));
    }

    fn change(&self, change: impl FnOnce(&mut Times<T>)) {
        let mut times = self.times.borrow_mut();
        let before = times.earliest();
        change(&mut times);
        if times.earliest() != before {
            self.changed.notify_one();
        }
    }

    /// When something is to happen next.
    pub fn earliest(&self) -> Option<u64> {
        self.times.borrow().earliest()
    }

    /// Takes out the first thing that should have happened by `now_micros`.
    pub fn take_due(&self, now_micros: u64) -> Option<(u64, T)> {
        let mut times = self.times.borrow_mut();
        times.earliest().filter(|at| *at <= now_micros)?;
        let ((_, id), what) = times.in_order.pop_first()?;
        times.of_id.remove(&id);
        Some((id, what))
    }
}

impl<T> Times<T> {
    fn earliest(&self) -> Option<u64> {
        self.in_order.keys().next().map(|(at, _)| *at)
    }

    fn remove(&mut self, id: u64) {
        if let Some(at) = self.of_id.remove(&id) {
            self.in_order.remove(&(at, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn things_come_due_in_their_order_and_only_the_last_word_counts() {
        let deadlines = Deadlines::default();
        assert_eq!((deadlines.earliest(), deadlines.take_due(u64::MAX)), (None, None));
        for (id, at, what) in [(1, 50, "a"), (2, 30, "b"), (3, 30, "c"), (1, 20, "d"), (4, 10, "e")] {
            deadlines.set(id, at, what);
        }
        deadlines.forget(4);
        deadlines.forget(9);
        assert_eq!(deadlines.earliest(), Some(20));
        assert_eq!(deadlines.take_due(19), None);
        let due: Vec<_> = std::iter::from_fn(|| deadlines.take_due(30)).collect();
        assert_eq!(due, [(1, "d"), (2, "b"), (3, "c")]);
        assert_eq!(deadlines.earliest(), None, "nothing is left to wait for");
    }

    #[test]
    fn whoever_waits_is_told_when_the_earliest_time_changes_and_only_then() {
        let deadlines = Deadlines::default();
        let is_told = || {
            let mut changed = Box::pin(deadlines.changed.notified());
            changed.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
        };
        deadlines.set(1, 50, ());
        assert!(is_told());
        deadlines.set(2, 60, ());
        deadlines.forget(2);
        assert!(!is_told());
        deadlines.forget(1);
        assert!(is_told(), "there is nothing to wait for");
    }
}
