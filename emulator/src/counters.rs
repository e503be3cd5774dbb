//! Counts of requests and of object bytes, by operation and key class.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard};

use crate::class::{Class, Operation};

/// How many requests, and how many bytes of bodies with them.
///
/// Bytes are those that a PUT brought and those that the answer to any other request carried; bodies of
/// error answers do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    pub requests: u64,
    pub bytes: u64,
}

impl Counter {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
    }
}

/// A reading of all counters at one moment. Classes that no request touched are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<(Operation, Class), Counter>);

impl Counters {
    /// What was counted for one operation on one class.
    pub fn get(&self, operation: Operation, class: impl Into<Class>) -> Counter {
        self.0.get(&(operation, class.into())).copied().unwrap_or_default()
    }

    /// All classes of one operation together.
    pub fn of_operation(&self, operation: Operation) -> Counter {
        self.sum(|(key, _)| *key == operation)
    }

    /// All operations on one class together.
    pub fn of_class(&self, class: impl Into<Class>) -> Counter {
        let class = class.into();
        self.sum(|(_, key)| *key == class)
    }

    /// Everything together.
    pub fn total(&self) -> Counter {
        self.sum(|_| true)
    }

    fn sum(&self, wanted: impl Fn(&(Operation, Class)) -> bool) -> Counter {
        let mut sum = Counter::default();
        self.0.iter().filter(|(key, _)| wanted(key)).for_each(|(_, counter)| sum.add(*counter));
        sum
    }

    /// What came on top since an earlier reading. A reset in between makes the difference begin there.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut rest = BTreeMap::new();
        for ((operation, class), now) in &self.0 {
            let before = earlier.get(*operation, class.clone());
            let added = Counter {
                requests: now.requests.checked_sub(before.requests).unwrap_or(now.requests),
                bytes: now.bytes.checked_sub(before.bytes).unwrap_or(now.bytes),
            };
            if added != Counter::default() {
                rest.insert((*operation, class.clone()), added);
            }
        }
        Self(rest)
    }

    /// The counters as a map.
    pub fn as_map(&self) -> &BTreeMap<(Operation, Class), Counter> {
        &self.0
    }

    pub fn iter(&self) -> impl Iterator<Item = (Operation, &Class, Counter)> {
        self.0.iter().map(|((operation, class), counter)| (*operation, class, *counter))
    }
}

/// A table, one line per operation and class.
impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<8}{:<12}{:>12}{:>16}", "request", "class", "count", "bytes")?;
        for (operation, class, counter) in self.iter() {
            writeln!(f, "{operation:<8}{class:<12}{:>12}{:>16}", counter.requests, counter.bytes)?;
        }
        let total = self.total();
        write!(f, "{:<8}{:<12}{:>12}{:>16}", "all", "", total.requests, total.bytes)
    }
}

/// The running counts of an emulator.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    counters: Counters,
    /// Per operation: requests being answered now, and the most that ever were at once.
    in_flight: BTreeMap<Operation, (u64, u64)>,
}

impl Tally {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("BUG: a counter panicked")
    }

    /// Counts a request; it is in flight until the returned guard drops.
    pub(crate) fn arrive(&self, operation: Operation, class: &Class, bytes: u64) -> InFlight<'_> {
        let mut state = self.lock();
        state.add(operation, class, Counter { requests: 1, bytes });
        let (now, most) = state.in_flight.entry(operation).or_default();
        *now += 1;
        *most = (*most).max(*now);
        InFlight { tally: self, operation }
    }

    /// Counts the body of an answer.
    pub(crate) fn send(&self, operation: Operation, class: &Class, bytes: u64) {
        if bytes > 0 {
            self.lock().add(operation, class, Counter { requests: 0, bytes });
        }
    }

    pub(crate) fn read(&self) -> Counters {
        self.lock().counters.clone()
    }

    pub(crate) fn in_flight_max(&self, operation: Operation) -> u64 {
        self.lock().in_flight.get(&operation).map_or(0, |(_, most)| *most)
    }

    /// Forgets the counts. The high-water mark falls to what is in flight.
    pub(crate) fn reset(&self) {
        let mut state = self.lock();
        state.counters = Counters::default();
        state.in_flight.values_mut().for_each(|(now, most)| *most = *now);
    }
}

impl State {
    fn add(&mut self, operation: Operation, class: &Class, counter: Counter) {
        self.counters.0.entry((operation, class.clone())).or_default().add(counter);
    }
}

/// A request that is being answered.
pub(crate) struct InFlight<'t> {
    tally: &'t Tally,
    operation: Operation,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some((now, _)) = self.tally.lock().in_flight.get_mut(&self.operation) {
            *now -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_holds_only_what_came_on_top() {
        let tally = Tally::default();
        let log = Class::from("w");
        drop(tally.arrive(Operation::Put, &log, 10));
        drop(tally.arrive(Operation::Get, &Class::from("head"), 0));
        let before = tally.read();
        drop(tally.arrive(Operation::Put, &log, 5));
        let added = tally.read().since(&before);
        assert_eq!(added.get(Operation::Put, "w"), Counter { requests: 1, bytes: 5 });
        assert_eq!(added.total(), Counter { requests: 1, bytes: 5 });
        assert_eq!(added.iter().count(), 1, "the untouched class is absent");
    }

    #[test]
    fn the_high_water_mark_outlives_the_flights_but_not_a_reset() {
        let tally = Tally::default();
        let log = Class::from("w");
        let first = tally.arrive(Operation::Put, &log, 0);
        let second = tally.arrive(Operation::Put, &log, 0);
        drop(second);
        assert_eq!(tally.in_flight_max(Operation::Put), 2);
        tally.reset();
        assert_eq!(tally.in_flight_max(Operation::Put), 1, "one is still in flight");
        drop(first);
        assert_eq!(tally.read().total(), Counter::default());
    }
}
