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

mod plan;
mod trace;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Condition, Key, Object, Op, Put, Store, StoreError, StoreErrorKind};
use crate::seam::Seam;
pub use plan::{Fault, Faults, Latency};
use plan::{Plan, SplitMix};
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
    is_crashed: AtomicBool,
    state: Mutex<State>,
}

struct State {
    random: SplitMix,
    faults: Faults,
    request_count: u64,
    fault_counts: BTreeMap<Fault, u64>,
}

#[derive(Clone, Debug)]
enum Request {
    Get(Key),
    GetRange(Key, Range<u64>),
    Put(Key, Bytes, Condition),
    Delete(Key),
    List { prefix: String, after: Option<String>, limit: usize },
}

#[derive(Clone, Debug)]
enum Answer {
    Object(Option<Object>),
    Put(Put),
    Deleted,
    Keys(Vec<Key>),
}

impl<S: Store> FaultyStore<S> {
    pub fn new(inner: S, seam: Seam, seed: u64, faults: Faults, trace: Option<Trace>) -> Self {
        let random = SplitMix(seed);
        let state = State { random, faults, request_count: 0, fault_counts: BTreeMap::new() };
        let network = Network {
            inner,
            seam,
            trace,
            is_out: AtomicBool::new(false),
            is_crashed: AtomicBool::new(false),
            state: Mutex::new(state),
        };
        Self { network: Arc::new(network) }
    }

    /// Replaces the faults for the requests to come.
    pub fn set_faults(&self, faults: Faults) {
        self.network.state().faults = faults;
    }

    /// While the store is out, requests that arrive do nothing and are answered 503.
    pub fn set_outage(&self, is_out: bool) {
        self.network.is_out.store(is_out, Ordering::SeqCst);
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
        let state = &mut *self.state();
        let number = state.request_count;
        state.request_count += 1;
        (number, Plan::draw(&state.faults, request.is_read(), &mut state.random))
    }

    /// The way of one request to the store and of its answer back.
    async fn carry(
        self: Arc<Self>,
        number: u64,
        plan: Plan,
        request: Request,
        answer: oneshot::Sender<Result<Answer, StoreError>>,
    ) {
        self.wait(plan.request_time).await;
        let is_out = self.is_out.load(Ordering::SeqCst);
        let fault = if is_out { Some(Fault::Outage) } else { plan.fault };
        if let Some(fault) = fault {
            *self.state().fault_counts.entry(fault).or_default() += 1;
        }
        // Nobody may be waiting any more: a failed send means only that.
        match fault {
            None | Some(Fault::Slow | Fault::Duplicated) => {
                let result =
                    self.apply(number, &request, fault.filter(|f| *f == Fault::Slow)).await;
                self.wait(plan.answer_time).await;
                answer.send(result).ok();
                if fault == Some(Fault::Duplicated) {
                    self.wait(plan.late_time).await;
                    self.apply(number, &request, fault).await.ok();
                }
            }
            Some(Fault::AnswerLost) => {
                self.apply(number, &request, fault).await.ok();
                self.wait(plan.patience).await;
                answer.send(Err(request.failure("no answer came"))).ok();
            }
            Some(Fault::Late) => {
                self.wait(plan.patience).await;
                answer.send(Err(request.failure("no answer came"))).ok();
                self.wait(plan.late_time).await;
                self.apply(number, &request, fault).await.ok();
            }
            Some(Fault::Lost) => {
                self.tell(number, &request, Effect::None, fault);
                self.wait(plan.patience).await;
                answer.send(Err(request.failure("no answer came"))).ok();
            }
            Some(Fault::Unavailable | Fault::Outage) => {
                self.tell(number, &request, Effect::None, fault);
                self.wait(plan.answer_time).await;
                answer.send(Err(request.failure("503 ServiceUnavailable"))).ok();
            }
        }
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
        trace(&TraceLine { at_boot_micros, request: number, op, key, effect, fault });
    }
}

impl Request {
    fn op(&self) -> Op {
        match self {
            Self::Get(_) => Op::Get,
            Self::GetRange(..) => Op::GetRange,
            Self::Put(..) => Op::Put,
            Self::Delete(_) => Op::Delete,
            Self::List { .. } => Op::List,
        }
    }

    fn is_read(&self) -> bool {
        matches!(self, Self::Get(_) | Self::GetRange(..) | Self::List { .. })
    }

    fn key(&self) -> &str {
        match self {
            Self::Get(key) | Self::GetRange(key, _) | Self::Put(key, ..) | Self::Delete(key) => {
                key.as_str()
            }
            Self::List { prefix, .. } => prefix,
        }
    }

    fn failure(&self, message: &str) -> StoreError {
        let kind = match self {
            Self::Put(..) => StoreErrorKind::Indefinite,
            _ => StoreErrorKind::Retry,
        };
        StoreError::new(kind, self.key(), message)
    }
}

impl Answer {
    fn object(self) -> Option<Object> {
        match self {
            Self::Object(object) => object,
            other => unreachable!("BUG: {other:?} answers a read"),
        }
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

    fn describe(&self) -> String {
        self.network.inner.describe()
    }
}

#[cfg(test)]
mod tests;
