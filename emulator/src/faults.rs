//! What can go wrong on purpose, and the switches for it.
//!
//! A request passes these stations; each fault strikes at one of them:
//!
//! 1. it has arrived in full: an outage answers 503 or hangs, denial answers 403;
//! 2. half of its latency has passed: the request is lost, or answered 503 or 409, before it does anything;
//!    then delays and holds keep it waiting;
//! 3. it is applied;
//! 4. the rest of its latency has passed: the answer is lost, cut, or replaced by a 500.
//!
//! Faults of station 2 leave no trace in the bucket. After those of station 4 the write *has* happened,
//! which the client cannot know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;

use crate::class::{Class, Operation};
use crate::dice::Dice;
use crate::hold::{Gate, Hold};

/// Whether the store answers at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outage {
    /// It does.
    #[default]
    None,
    /// It answers 503 to everything.
    Unavailable,
    /// It accepts connections and requests and says nothing. When the outage ends, the requests that wait
    /// are carried out, also those whose client has gone away: an abandoned write may still happen.
    Hang,
}

/// Faults that are left to chance: the probability, from 0 to 1, that each strikes a request.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Chances {
    /// The connection closes before the request is applied.
    pub lost_request: f64,
    /// 503 `SlowDown` before the request is applied.
    pub unavailable: f64,
    /// A PUT gets 409 `ConditionalRequestConflict` before it is applied.
    pub conflict: f64,
    /// 500 `InternalError` after the request was applied.
    pub failed_after: f64,
    /// The connection closes after the request was applied.
    pub lost_answer: f64,
    /// The connection closes in the middle of a GET's body.
    pub cut_answer: f64,
}

/// The faults that can strike a request, for counting how often each did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    OutageUnavailable,
    OutageHang,
    Denied,
    LostRequest,
    Unavailable,
    Conflict,
    Delayed,
    Held,
    ConditionIgnored,
    FailedAfter,
    LostAnswer,
    CutAnswer,
}

/// The switches of a running emulator. Cheap to clone; every clone controls the same emulator.
#[derive(Clone, Debug)]
pub struct Faults(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    outage: watch::Sender<Outage>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    deny: bool,
    ignore_conditions: bool,
    chances: Chances,
    delays: BTreeMap<(Operation, Class), Duration>,
    gates: Vec<Arc<Gate>>,
    /// PUTs seen, of each class and (`None`) of all.
    puts: BTreeMap<Option<Class>, u64>,
    /// The PUTs, counted the same way, whose answers are to be dropped.
    drops: BTreeSet<(Option<Class>, u64)>,
    hits: BTreeMap<Fault, u64>,
    dice: Dice,
}

/// What is to happen to one request.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Strikes instead of applying the request.
    pub before: Option<Fault>,
    pub delay: Duration,
    pub gate: Option<Arc<Gate>>,
    /// Strikes the answer.
    pub after: Option<Fault>,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        let state = State {
            deny: false,
            ignore_conditions: false,
            chances: Chances::default(),
            delays: BTreeMap::new(),
            gates: Vec::new(),
            puts: BTreeMap::new(),
            drops: BTreeSet::new(),
            hits: BTreeMap::new(),
            dice: Dice::new(seed),
        };
        let outage = watch::Sender::new(Outage::None);
        Self(Arc::new(Inner { outage, state: Mutex::new(state) }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("BUG: a fault panicked")
    }

    /// Begins or ends an outage.
    pub fn outage(&self, outage: Outage) {
        self.0.outage.send_replace(outage);
    }

    /// While on, every request is answered 403 `AccessDenied`.
    pub fn deny(&self, on: bool) {
        self.lock().deny = on;
    }

    /// While on, PUTs ignore `If-None-Match` and `If-Match` and always write, as stores do that do not
    /// know these conditions.
    pub fn ignore_conditions(&self, on: bool) {
        self.lock().ignore_conditions = on;
    }

    /// Sets the faults that are left to chance.
    pub fn chances(&self, chances: Chances) {
        self.lock().chances = chances;
    }

    /// Applies the `n`-th PUT from now on (1 is the next one) and closes its connection without an answer.
    pub fn drop_put_answer(&self, n: u64) {
        self.lock().drop_answer(None, n);
    }

    /// The same, counting only the PUTs of one class.
    pub fn drop_put_answer_of(&self, class: impl Into<Class>, n: u64) {
        self.lock().drop_answer(Some(class.into()), n);
    }

    /// Delays such requests by this much before they are applied, on top of the profile; zero ends it.
    pub fn delay(&self, operation: Operation, class: impl Into<Class>, duration: Duration) {
        let mut state = self.lock();
        if duration.is_zero() {
            state.delays.remove(&(operation, class.into()));
        } else {
            state.delays.insert((operation, class.into()), duration);
        }
    }

    /// Holds the next PUT of this class back until the [`Hold`] is released; later ones pass it.
    pub fn hold(&self, class: impl Into<Class>) -> Hold {
        self.add_gate(class.into(), true)
    }

    /// Holds all PUTs of this class back until the [`Hold`] is released.
    pub fn hold_all(&self, class: impl Into<Class>) -> Hold {
        self.add_gate(class.into(), false)
    }

    fn add_gate(&self, class: Class, once: bool) -> Hold {
        let gate = Gate::new(class, once);
        let mut state = self.lock();
        state.gates.retain(|gate| !gate.is_open());
        state.gates.push(Arc::clone(&gate));
        Hold::new(gate)
    }

    /// How often each fault struck. Those that never did are absent.
    pub fn hits(&self) -> BTreeMap<Fault, u64> {
        self.lock().hits.clone()
    }

    /// Ends all faults except holds, which end with their handle. Hit counters stay.
    pub fn clear(&self) {
        self.outage(Outage::None);
        let mut state = self.lock();
        state.deny = false;
        state.ignore_conditions = false;
        state.chances = Chances::default();
        state.delays.clear();
        state.drops.clear();
    }

    /// Station 1: the fault to answer with, if an outage or a denial strikes. Hangs as long as the outage.
    pub(crate) async fn admit(&self) -> Option<Fault> {
        if *self.0.outage.borrow() == Outage::Hang {
            self.lock().hit(Fault::OutageHang);
            // The sender lives in self, so the channel cannot be closed here.
            let _ = self.0.outage.subscribe().wait_for(|outage| *outage != Outage::Hang).await;
        }
        let unavailable = *self.0.outage.borrow() == Outage::Unavailable;
        let mut state = self.lock();
        let fault = match (unavailable, state.deny) {
            (true, _) => Fault::OutageUnavailable,
            (false, true) => Fault::Denied,
            (false, false) => return None,
        };
        state.hit(fault);
        Some(fault)
    }

    /// Decides what strikes this request at the later stations.
    pub(crate) fn decide(&self, operation: Operation, class: &Class) -> Verdict {
        self.lock().decide(operation, class)
    }

    /// Whether a condition that a PUT carries is to be ignored.
    pub(crate) fn ignores_condition(&self) -> bool {
        let mut state = self.lock();
        if state.ignore_conditions {
            state.hit(Fault::ConditionIgnored);
        }
        state.ignore_conditions
    }
}

impl State {
    fn hit(&mut self, fault: Fault) {
        *self.hits.entry(fault).or_default() += 1;
    }

    fn drop_answer(&mut self, class: Option<Class>, n: u64) {
        assert!(n > 0, "PUTs are counted from 1");
        let seen = self.puts.get(&class).copied().unwrap_or(0);
        self.drops.insert((class, seen + n));
    }

    fn decide(&mut self, operation: Operation, class: &Class) -> Verdict {
        let dropped = operation == Operation::Put && self.count_put(class);
        let before = self.strike_before(operation);
        if before.is_some() {
            return Verdict { before, ..Verdict::default() };
        }
        let delay = self.delays.get(&(operation, class.clone())).copied().unwrap_or_default();
        if !delay.is_zero() {
            self.hit(Fault::Delayed);
        }
        let gate = if operation == Operation::Put { self.gate_for(class) } else { None };
        let after = if dropped { Some(Fault::LostAnswer) } else { self.strike_after(operation) };
        after.into_iter().for_each(|fault| self.hit(fault));
        Verdict { before: None, delay, gate, after }
    }

    /// Counts a PUT, and tells whether its answer is to be dropped.
    fn count_put(&mut self, class: &Class) -> bool {
        let mut dropped = false;
        for counted in [None, Some(class.clone())] {
            let seen = self.puts.entry(counted.clone()).or_default();
            *seen += 1;
            dropped |= self.drops.remove(&(counted, *seen));
        }
        dropped
    }

    fn strike_before(&mut self, operation: Operation) -> Option<Fault> {
        let chances = self.chances;
        let fault = if self.dice.chance(chances.lost_request) {
            Fault::LostRequest
        } else if self.dice.chance(chances.unavailable) {
            Fault::Unavailable
        } else if operation == Operation::Put && self.dice.chance(chances.conflict) {
            Fault::Conflict
        } else {
            return None;
        };
        self.hit(fault);
        Some(fault)
    }

    fn strike_after(&mut self, operation: Operation) -> Option<Fault> {
        let chances = self.chances;
        if self.dice.chance(chances.failed_after) {
            Some(Fault::FailedAfter)
        } else if self.dice.chance(chances.lost_answer) {
            Some(Fault::LostAnswer)
        } else if operation == Operation::Get && self.dice.chance(chances.cut_answer) {
            Some(Fault::CutAnswer)
        } else {
            None
        }
    }

    fn gate_for(&mut self, class: &Class) -> Option<Arc<Gate>> {
        self.gates.retain(|gate| !gate.is_open());
        let gate = self.gates.iter().find(|gate| gate.catches(class)).cloned()?;
        self.hit(Fault::Held);
        Some(gate)
    }
}
