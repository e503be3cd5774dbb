//! The output gate of one database: replies wait here until what they saw is durable.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use tokio::sync::oneshot;

/// The commits that a reply depends on were lost to a fence. The text says how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost(pub String);

type Waiter = oneshot::Sender<Result<(), Lost>>;

/// Raw LSNs (0 for none) are compared: the gate does not care for more.
#[derive(Default)]
pub struct Gate {
    durable: Cell<u64>,
    lost: RefCell<Option<Lost>>,
    /// By (LSN, arrival).
    waiting: RefCell<BTreeMap<(u64, u64), Waiter>>,
    arrivals: Cell<u64>,
}

impl Gate {
    pub fn opened_up_to(durable: u64) -> Self {
        Self { durable: Cell::new(durable), ..Self::default() }
    }

    /// The newest durable LSN.
    pub fn durable(&self) -> u64 {
        self.durable.get()
    }

    /// Lets pass whoever saw nothing above `durable`.
    pub fn open_up_to(&self, durable: u64) {
        if durable <= self.durable.get() || self.lost.borrow().is_some() {
            return;
        }
        self.durable.set(durable);
        let mut waiting = self.waiting.borrow_mut();
        let later = waiting.split_off(&(durable + 1, 0));
        for (_, waiter) in std::mem::replace(&mut *waiting, later) {
            let _ = waiter.send(Ok(()));
        }
    }

    /// Ends the history that this gate guards: what is not durable by now never will be shown.
    pub fn lose(&self, reason: &str) {
        let lost = self.lost.borrow_mut().get_or_insert_with(|| Lost(reason.to_owned())).clone();
        for (_, waiter) in std::mem::take(&mut *self.waiting.borrow_mut()) {
            let _ = waiter.send(Err(lost.clone()));
        }
    }

    /// Returns when `lsn` is durable, or known to be lost.
    pub async fn pass(&self, lsn: u64) -> Result<(), Lost> {
        if lsn <= self.durable.get() {
            return Ok(());
        }
        if let Some(lost) = &*self.lost.borrow() {
            return Err(lost.clone());
        }
        let (sender, receiver) = oneshot::channel();
        let arrival = self.arrivals.get();
        self.arrivals.set(arrival + 1);
        self.waiting.borrow_mut().insert((lsn, arrival), sender);
        receiver.await.unwrap_or_else(|_| Err(Lost("the database was closed".into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn a_reply_waits_for_exactly_what_it_saw() {
        let gate = Gate::opened_up_to(3);
        let mut context = Context::from_waker(Waker::noop());
        let mut old = Box::pin(gate.pass(3));
        assert_eq!(old.as_mut().poll(&mut context), Poll::Ready(Ok(())));
        let mut fourth = Box::pin(gate.pass(4));
        let mut fifth = Box::pin(gate.pass(5));
        assert!(fourth.as_mut().poll(&mut context).is_pending());
        assert!(fifth.as_mut().poll(&mut context).is_pending());
        gate.open_up_to(4);
        assert_eq!(fourth.as_mut().poll(&mut context), Poll::Ready(Ok(())));
        assert!(fifth.as_mut().poll(&mut context).is_pending());
        gate.lose("fenced");
        gate.open_up_to(9);
        assert_eq!(fifth.as_mut().poll(&mut context), Poll::Ready(Err(Lost("fenced".into()))));
        assert_eq!(gate.durable(), 4, "nothing becomes durable after the end");
    }
}
