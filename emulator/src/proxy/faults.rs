//! What a proxy can do to the requests that pass through it, and the switches for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::class::Operation;
use crate::clock;
use crate::dice::Dice;

/// What can happen to one request. Never more than one of them does, except that whatever arrives during a
/// black hole is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProxyFault {
    /// The connection closes, and the store never hears of the request.
    LostRequest,
    /// The same, with a reset.
    ResetBefore,
    /// A PUT gets 409 `ConditionalRequestConflict`, and the store never hears of it.
    Conflict,
    /// 429, and the store never hears of it.
    Throttled,
    /// 503 `SlowDown`, and the store never hears of it.
    Unavailable,
    /// Silence for everybody, for a while. Half of the requests that it swallowed are then carried out.
    BlackHole,
    /// The request waits before the store hears of it, or its answer on the way back.
    Slow,
    /// A PUT is sent twice, and its client gets the second answer: with a condition, a 412 of its own making.
    SentTwice,
    /// A PUT is answered, and sent once more a good while later.
    SentAgainLater,
    /// 500 `InternalError`, after the store has carried it out.
    FailedAfter,
    /// The connection closes, after the store has carried it out.
    LostAnswer,
    /// The same, with a reset.
    ResetAfter,
    /// The body of a GET breaks off in the middle.
    CutAnswer,
    /// A listing is what it was the last time that the same was asked.
    StaleList,
}

impl ProxyFault {
    pub const ALL: [Self; 14] = [
        Self::LostRequest,
        Self::ResetBefore,
        Self::Conflict,
        Self::Throttled,
        Self::Unavailable,
        Self::BlackHole,
        Self::Slow,
        Self::SentTwice,
        Self::SentAgainLater,
        Self::FailedAfter,
        Self::LostAnswer,
        Self::ResetAfter,
        Self::CutAnswer,
        Self::StaleList,
    ];

    fn can_strike(self, operation: Operation) -> bool {
        match self {
            Self::Conflict | Self::SentTwice | Self::SentAgainLater => operation == Operation::Put,
            Self::CutAnswer => operation == Operation::Get,
            Self::StaleList => operation == Operation::List,
            _ => true,
        }
    }
}

/// The switches of a running proxy. Cheap to clone; every clone controls the same proxy.
#[derive(Clone, Debug)]
pub struct ProxyFaults(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// The probability of each fault.
    chances: BTreeMap<ProxyFault, f64>,
    /// How long a black hole lasts.
    hole: Duration,
    hole_ends: Option<Instant>,
    /// The longest wait of a slow request.
    slow_max: Duration,
    requests: u64,
    puts: u64,
    /// The PUTs, by number, whose answers are to be dropped.
    drops: BTreeSet<u64>,
    hits: BTreeMap<ProxyFault, u64>,
    dice: Dice,
}

/// What is to happen to one request.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// The end of the black hole that the request is in.
    pub hole_ends: Option<Instant>,
    pub fault: Option<ProxyFault>,
    /// For faults that take time: how long.
    pub delay: Duration,
    /// For faults that can strike on either side of the store: which.
    pub is_before: bool,
}

impl ProxyFaults {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            chances: BTreeMap::new(),
            hole: Duration::from_secs(1),
            hole_ends: None,
            slow_max: Duration::from_millis(200),
            requests: 0,
            puts: 0,
            drops: BTreeSet::new(),
            hits: BTreeMap::new(),
            dice: Dice::new(seed),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("BUG: a fault panicked")
    }

    /// Sets the probability, from 0 to 1, that a fault strikes a request that it can strike.
    pub fn chance(&self, fault: ProxyFault, probability: f64) {
        self.lock().chances.insert(fault, probability);
    }

    /// How long black holes last from now on.
    pub fn hole(&self, duration: Duration) {
        self.lock().hole = duration;
    }

    /// Opens a black hole now.
    pub fn open_hole(&self) {
        let mut state = self.lock();
        state.hole_ends = Some(clock::now() + state.hole);
    }

    /// The longest wait of slow requests, and of PUTs that are sent again later, from now on.
    pub fn slow_max(&self, duration: Duration) {
        self.lock().slow_max = duration;
    }

    /// The `n`-th PUT from now on (1 is the next one) is carried out, and its connection closes.
    pub fn drop_put_answer(&self, n: u64) {
        assert!(n > 0, "PUTs are counted from 1");
        let mut state = self.lock();
        let number = state.puts + n;
        state.drops.insert(number);
    }

    /// How many PUTs are still to come whose answers will be dropped.
    pub fn drops_pending(&self) -> usize {
        self.lock().drops.len()
    }

    /// Ends all faults; a black hole ends when its time is over. Counters stay.
    pub fn clear(&self) {
        let mut state = self.lock();
        state.chances.clear();
        state.drops.clear();
    }

    /// How often each fault struck. Those that never did are absent.
    pub fn hits(&self) -> BTreeMap<ProxyFault, u64> {
        self.lock().hits.clone()
    }

    /// Requests that have arrived.
    pub fn requests(&self) -> u64 {
        self.lock().requests
    }

    /// PUTs that have arrived.
    pub fn puts(&self) -> u64 {
        self.lock().puts
    }

    /// Decides what becomes of a request. `has_earlier` tells whether there is an earlier answer to serve.
    pub(super) fn decide(&self, operation: Operation, has_earlier: bool) -> Verdict {
        self.lock().decide(operation, has_earlier)
    }
}

impl State {
    fn hit(&mut self, fault: ProxyFault) {
        *self.hits.entry(fault).or_default() += 1;
    }

    fn decide(&mut self, operation: Operation, has_earlier: bool) -> Verdict {
        self.requests += 1;
        let is_dropped = operation == Operation::Put && {
            self.puts += 1;
            self.drops.remove(&self.puts)
        };
        if is_dropped {
            self.hit(ProxyFault::LostAnswer);
            return Verdict { fault: Some(ProxyFault::LostAnswer), ..Verdict::default() };
        }
        let now = clock::now();
        let is_before = self.dice.chance(0.5);
        if let Some(ends) = self.hole_ends.filter(|ends| *ends > now) {
            self.hit(ProxyFault::BlackHole);
            return Verdict { hole_ends: Some(ends), is_before, ..Verdict::default() };
        }
        let can_strike = |fault: &ProxyFault| fault.can_strike(operation);
        let possible = ProxyFault::ALL.into_iter().filter(can_strike);
        let mut possible = possible.filter(|fault| has_earlier || *fault != ProxyFault::StaleList);
        let struck = possible.find(|fault| self.dice.chance(self.chances.get(fault).copied().unwrap_or(0.0)));
        let Some(fault) = struck else { return Verdict::default() };
        self.hit(fault);
        if fault == ProxyFault::BlackHole {
            let ends = now + self.hole;
            self.hole_ends = Some(ends);
            return Verdict { hole_ends: Some(ends), is_before, ..Verdict::default() };
        }
        let delay = self.slow_max.mul_f64(self.dice.unit());
        Verdict { hole_ends: None, fault: Some(fault), delay, is_before }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_strikes_only_what_it_can() {
        let faults = ProxyFaults::new(1);
        ProxyFault::ALL.into_iter().for_each(|fault| faults.chance(fault, 0.2));
        faults.hole(Duration::ZERO);
        for _ in 0..1000 {
            for (operation, never) in [
                (Operation::Get, vec![ProxyFault::Conflict, ProxyFault::SentTwice, ProxyFault::StaleList]),
                (Operation::Put, vec![ProxyFault::CutAnswer, ProxyFault::StaleList]),
                (Operation::List, vec![ProxyFault::CutAnswer, ProxyFault::SentAgainLater]),
            ] {
                let fault = faults.decide(operation, true).fault;
                assert!(fault.is_none_or(|fault| !never.contains(&fault)), "{operation}: {fault:?}");
            }
        }
        assert_eq!(faults.hits().len(), ProxyFault::ALL.len(), "each of them struck");
        assert_eq!((faults.requests(), faults.puts()), (3000, 1000));
    }

    #[test]
    fn the_nth_put_from_now_loses_its_answer_and_no_other() {
        let faults = ProxyFaults::new(1);
        faults.decide(Operation::Put, false);
        faults.drop_put_answer(2);
        let struck = |operation| faults.decide(operation, false).fault;
        assert_eq!(struck(Operation::Put), None);
        assert_eq!(struck(Operation::Get), None);
        assert_eq!(faults.drops_pending(), 1);
        assert_eq!(struck(Operation::Put), Some(ProxyFault::LostAnswer));
        assert_eq!(struck(Operation::Put), None);
        assert_eq!(faults.drops_pending(), 0);
    }

    #[test]
    fn whatever_arrives_during_a_black_hole_is_in_it() {
        let faults = ProxyFaults::new(1);
        faults.open_hole();
        faults.hole(Duration::from_secs(1000));
        faults.open_hole();
        let ends = faults.decide(Operation::Get, false).hole_ends;
        assert!(ends.is_some());
        faults.clear();
        assert_eq!(faults.decide(Operation::Put, false).hole_ends, ends);
        assert_eq!(faults.hits()[&ProxyFault::BlackHole], 2);
    }
}
