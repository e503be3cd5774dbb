//! A store that fails as networks and real stores do, the same way for the same seed.
//!
//! Every request is carried by a task of its own on the seam given to [`FaultyStore::new`]. That should be
//! the *network's* seam and not the node's: what a node has sent goes on to the store after the node has
//! crashed, and so must a simulated request.
//!
//! ```text
//! caller ── request_time ──▶ store (takes effect, one trace line) ── answer_time ──▶ caller
//!             lost ✗                                         answer lost ✗
//! ```
//!
//! What a fault looks like to its caller is what [`S3Store`](super::S3Store) makes of it: a 409, a 429, a 5xx
//! or a broken connection leaves a write [`Indefinite`](StoreErrorKind::Indefinite), a body that was cut off
//! is an error and never a short object.

mod plan;
mod request;
mod trace;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Condition, Key, Object, Put, Store, StoreError, StoreErrorKind};
use crate::seam::Seam;
pub use plan::{Fault, Faults, Latency};
use plan::{Plan, Shape, SplitMix};
use request::{Answer, Request};
pub use trace::{Effect, Trace, TraceLine};

/// One node's connection to a store. A node that starts again gets a new one.
pub struct FaultyStore<S> {
    network: Arc<Network<S>>,
}

struct Network<S> {
    inner: S,
    seam: Seam,
    trace: Option<Trace>,
    is_out: AtomicBool,
    is_denied: AtomicBool,
    is_crashed: AtomicBool,
    state: Mutex<State>,
}

struct State {
    random: SplitMix,
    faults: Faults,
    request_count: u64,
    fault_counts: BTreeMap<Fault, u64>,
    /// Nothing arrives before this moment, as `boot_micros`.
    black_hole_until: u64,
}

impl<S: Store> FaultyStore<S> {
    pub fn new(inner: S, seam: Seam, seed: u64, faults: Faults, trace: Option<Trace>) -> Self {
        let random = SplitMix(seed);
        let state = State { random, faults, request_count: 0, fault_counts: BTreeMap::new(), black_hole_until: 0 };
        let network = Network {
            inner,
            seam,
            trace,
            is_out: AtomicBool::new(false),
            is_denied: AtomicBool::new(false),
            is_crashed: AtomicBool::new(false),
            state: Mutex::new(state),
        };
        Self { network: Arc::new(network) }
    }

    /// Replaces the faults for the requests to come, and ends a black hole.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.network.state();
        state.faults = faults;
        state.black_hole_until = 0;
    }

    /// While the store is out, requests that arrive do nothing and are answered 503.
    pub fn set_outage(&self, is_out: bool) {
        self.network.is_out.store(is_out, Ordering::SeqCst);
    }

    /// While access is denied, requests that arrive do nothing and are answered 403.
    pub fn set_denied(&self, is_denied: bool) {
        self.network.is_denied.store(is_denied, Ordering::SeqCst);
    }

    /// From here on nothing is sent and no answer arrives: every call waits for ever. What was sent before
    /// still takes effect.
    pub fn crash(&self) {
        self.network.is_crashed.store(true, Ordering::SeqCst);
    }

    /// How often each fault has happened.
    pub fn fault_counts(&self) -> BTreeMap<Fault, u64> {
        self.network.state().fault_counts.clone()
    }

    pub fn inner(&self) -> &S {
        &self.network.inner
    }

    async fn request(&self, request: Request) -> Result<Answer, StoreError> {
        self.network.wait_if_crashed().await;
        let (number, plan) = self.network.plan(&request);
        let (sender, receiver) = oneshot::channel();
        self.network.seam.spawn(Arc::clone(&self.network).carry(number, plan, request, sender));
        let Ok(answer) = receiver.await else {
            // The network's tasks were dropped: the simulated world has ended.
            std::future::pending().await
        };
        self.network.wait_if_crashed().await;
        answer
    }
}

impl<S: Store> Network<S> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("BUG: a panic while a fault was drawn")
    }

    async fn wait_if_crashed(&self) {
        if self.is_crashed.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }

    fn plan(&self, request: &Request) -> (u64, Plan) {
        let now = self.seam.boot_micros();
        let state = &mut *self.state();
        let number = state.request_count;
        state.request_count += 1;
        let mut plan = Plan::draw(&state.faults, request.shape(), &mut state.random);
        if now < state.black_hole_until {
            plan.fault = Some(Fault::BlackHole);
        } else if plan.fault == Some(Fault::BlackHole) {
            let micros = u64::try_from(plan.black_hole_time.as_micros()).unwrap_or(u64::MAX);
            state.black_hole_until = now.saturating_add(micros);
        }
        (number, plan)
    }

    /// Why the store does nothing at all at the moment, if so.
    fn off(&self) -> Option<Fault> {
        let is_out = self.is_out.load(Ordering::SeqCst).then_some(Fault::Outage);
        is_out.or_else(|| self.is_denied.load(Ordering::SeqCst).then_some(Fault::Denied))
    }

    /// The way of one request to the store and of its answer back.
    async fn carry(
        self: Arc<Self>,
        number: u64,
        plan: Plan,
        request: Request,
        answer: oneshot::Sender<Result<Answer, StoreError>>,
    ) {
        if plan.fault == Some(Fault::Reset) {
            answer.send(Err(request.failure("connection reset"))).ok();
            self.wait(plan.request_time).await;
            self.count(Fault::Reset);
            if self.off().is_none() {
                self.apply(number, &request, plan.fault).await.ok();
            }
            return;
        }
        self.wait(plan.request_time).await;
        let fault = self.off().or(plan.fault);
        if let Some(fault) = fault {
            self.count(fault);
        }
        let told = self.arrive(number, &plan, &request, fault).await;
        let is_silent = matches!(fault, Some(Fault::AnswerLost | Fault::Late | Fault::Lost | Fault::BlackHole));
        self.wait(if is_silent { plan.patience } else { plan.answer_time }).await;
        // Nobody may be waiting any more: a failed send means only that.
        answer.send(told).ok();
        let (copies, pause) = match fault {
            Some(Fault::Duplicated | Fault::Late) => (1, plan.late_time),
            Some(Fault::Repeated) => (plan.repeat_count, plan.repeat_time),
            _ => (0, Duration::ZERO),
        };
        for _ in 0..copies {
            self.wait(pause).await;
            self.apply(number, &request, fault).await.ok();
        }
    }

    /// What happens at the store, and what the caller is to hear of it.
    async fn arrive(
        &self,
        number: u64,
        plan: &Plan,
        request: &Request,
        fault: Option<Fault>,
    ) -> Result<Answer, StoreError> {
        let Some(fault) = fault else { return self.apply(number, request, None).await };
        let turned_away = |message| {
            self.tell(number, request, Effect::None, Some(fault));
            Err(request.failure(message))
        };
        match fault {
            Fault::Slow | Fault::Duplicated | Fault::Repeated => self.apply(number, request, Some(fault)).await,
            Fault::StaleList => Ok(self.apply(number, request, Some(fault)).await?.stale(plan.dice)),
            Fault::OwnRefusal => {
                self.apply(number, request, Some(fault)).await.ok();
                self.apply(number, request, Some(fault)).await
            }
            Fault::AnswerLost => {
                self.apply(number, request, Some(fault)).await.ok();
                Err(request.failure("no answer came"))
            }
            Fault::FailedApplied | Fault::Reset => {
                self.apply(number, request, Some(fault)).await.ok();
                Err(request.failure("500 InternalError"))
            }
            Fault::ConflictApplied => {
                self.apply(number, request, Some(fault)).await.ok();
                Err(request.failure("409 ConditionalRequestConflict"))
            }
            Fault::Truncated if request.body().is_none() => {
                self.apply(number, request, Some(fault)).await?;
                Err(request.failure("the answer was cut off"))
            }
            Fault::Truncated => turned_away("400 IncompleteBody"),
            Fault::DisorderedList => {
                self.tell(number, request, Effect::None, Some(fault));
                let message = "broke S3's rules: its listing is not in ascending order";
                Err(StoreError::new(StoreErrorKind::Invalid, request.key(), message))
            }
            // It takes effect only after its caller has given up.
            Fault::Late => Err(request.failure("no answer came")),
            Fault::Lost | Fault::BlackHole => turned_away("no answer came"),
            Fault::Unavailable | Fault::Outage => turned_away("503 ServiceUnavailable"),
            Fault::Denied => {
                self.tell(number, request, Effect::None, Some(fault));
                Err(StoreError::new(StoreErrorKind::Denied, request.key(), "403 AccessDenied"))
            }
            Fault::Throttled => turned_away("429 SlowDown"),
            Fault::Conflict => turned_away("409 ConditionalRequestConflict"),
        }
    }

    fn count(&self, fault: Fault) {
        *self.state().fault_counts.entry(fault).or_default() += 1;
    }

    async fn wait(&self, time: Duration) {
        if !time.is_zero() {
            self.seam.sleep(time).await;
        }
    }

    async fn apply(
        &self,
        number: u64,
        request: &Request,
        fault: Option<Fault>,
    ) -> Result<Answer, StoreError> {
        let inner = &self.inner;
        let result = match request {
            Request::Get(key) => inner.get(key).await.map(Answer::Object),
            Request::GetRange(key, range) => {
                inner.get_range(key, range.clone()).await.map(Answer::Object)
            }
            Request::Put(key, bytes, condition) => {
                inner.put(key, bytes.clone(), condition).await.map(Answer::Put)
            }
            Request::Delete(key) => inner.delete(key).await.map(|()| Answer::Deleted),
            Request::List { prefix, after, limit } => {
                inner.list(prefix, after.as_deref(), *limit).await.map(Answer::Keys)
            }
        };
        self.tell(number, request, Effect::of(&result), fault);
        result
    }

    fn tell(&self, number: u64, request: &Request, effect: Effect, fault: Option<Fault>) {
        let Some(trace) = &self.trace else { return };
        let at_boot_micros = self.seam.boot_micros();
        let (op, key) = (request.op(), request.key().to_owned());
        let body = request.body().cloned();
        trace(&TraceLine { at_boot_micros, request: number, op, key, body, effect, fault });
    }
}

#[async_trait]
impl<S: Store> Store for FaultyStore<S> {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.request(Request::Get(key.clone())).await.map(Answer::object)
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Object>, StoreError> {
        self.request(Request::GetRange(key.clone(), range)).await.map(Answer::object)
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: &Condition) -> Result<Put, StoreError> {
        match self.request(Request::Put(key.clone(), bytes, condition.clone())).await? {
            Answer::Put(put) => Ok(put),
            other => unreachable!("BUG: {other:?} answers a write"),
        }
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.request(Request::Delete(key.clone())).await.map(|_| ())
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        match self.request(Request::List { prefix, after, limit }).await? {
            Answer::Keys(keys) => Ok(keys),
            other => unreachable!("BUG: {other:?} answers a listing"),
        }
    }

    fn date_micros(&self) -> Option<u64> {
        self.network.inner.date_micros()
    }

    fn describe(&self) -> String {
        self.network.inner.describe()
    }
}

#[cfg(test)]
mod tests;
