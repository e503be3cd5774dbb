//! The write turn of one database: first come, first served.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::sync::oneshot;

/// Writers of one database take turns. Lives on the database's core.
#[derive(Default)]
pub struct Turn {
    taken: Cell<bool>,
    waiting: RefCell<VecDeque<oneshot::Sender<TurnGuard>>>,
}

/// The turn, held. Dropping it passes it on to whoever has waited longest.
pub struct TurnGuard(Option<Rc<Turn>>);

impl Turn {
    /// Takes the turn if nobody has it and nobody waits.
    pub fn try_take(self: &Rc<Self>) -> Option<TurnGuard> {
        let free = !self.taken.get();
        free.then(|| self.grant())
    }

    /// Waits for the turn. Dropping the future gives the place in the queue up.
    pub async fn take(self: &Rc<Self>) -> TurnGuard {
        if let Some(guard) = self.try_take() {
            return guard;
        }
        self.enqueue().await.expect("BUG: a turn queue that forgot a waiter")
    }

    fn enqueue(&self) -> oneshot::Receiver<TurnGuard> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() == waiting.capacity() {
            // Those who have given up go before the queue would have to grow.
            waiting.retain(|sender| !sender.is_closed());
        }
        waiting.push_back(sender);
        receiver
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.borrow().iter().filter(|sender| !sender.is_closed()).count()
    }

    fn grant(self: &Rc<Self>) -> TurnGuard {
        self.taken.set(true);
        TurnGuard(Some(self.clone()))
    }

    fn pass_on(self: Rc<Self>) {
        self.taken.set(false);
        loop {
            let Some(next) = self.waiting.borrow_mut().pop_front() else { return };
            match next.send(self.grant()) {
                Ok(()) => return,
                // Whoever waited has gone. Its guard must not pass the turn on a second time.
                Err(mut guard) => {
                    guard.0 = None;
                    self.taken.set(false);
                }
            }
        }
    }
}

impl Drop for TurnGuard {
    fn drop(&mut self) {
        if let Some(turn) = self.0.take() {
            turn.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn the_turn_goes_round_in_order_and_skips_who_has_left() {
        let turn = Rc::new(Turn::default());
        let held = turn.try_take().unwrap();
        assert!(turn.try_take().is_none());
        let mut context = Context::from_waker(Waker::noop());
        let mut first = Box::pin(turn.take());
        let mut second = Box::pin(turn.take());
        let mut third = Box::pin(turn.take());
        for waiter in [&mut first, &mut second, &mut third] {
            assert!(waiter.as_mut().poll(&mut context).is_pending());
        }
        drop(first);
        drop(held);
        let Poll::Ready(guard) = second.as_mut().poll(&mut context) else { panic!("the second is next") };
        assert!(third.as_mut().poll(&mut context).is_pending());
        drop(guard);
        let Poll::Ready(guard) = third.as_mut().poll(&mut context) else { panic!("then the third") };
        drop(guard);
        assert!(turn.try_take().is_some());
    }
}
