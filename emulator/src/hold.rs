//! Holding a PUT back until the test says so.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::class::Class;

/// A gate that PUTs of one class wait at, before they are applied. Dropping it lets them go, so that a
/// failed test does not hang.
#[derive(Debug)]
#[must_use = "dropping a hold releases it"]
pub struct Hold {
    gate: Arc<Gate>,
}

impl Hold {
    pub(crate) fn new(gate: Arc<Gate>) -> Self {
        Self { gate }
    }

    /// How many PUTs came to the gate so far.
    pub fn caught(&self) -> u64 {
        *self.gate.lock_caught()
    }

    /// Waits until a PUT is at the gate.
    pub async fn wait(&self) {
        let mut arrivals = self.gate.arrivals.subscribe();
        // The gate owns the sender, so the channel cannot be closed here.
        let _ = arrivals.wait_for(|caught| *caught > 0).await;
    }

    /// Blocks the thread until a PUT is at the gate, or until the patience is over (false).
    #[must_use = "false means that nothing was caught"]
    pub fn wait_blocking(&self, patience: Duration) -> bool {
        let caught = self.gate.lock_caught();
        let waited = self.gate.arrived.wait_timeout_while(caught, patience, |caught| *caught == 0);
        *waited.expect("BUG: a hold panicked").0 > 0
    }

    /// Lets the PUTs go on.
    pub fn release(self) {}
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.gate.open.send_replace(true);
    }
}

#[derive(Debug)]
pub(crate) struct Gate {
    class: Class,
    /// Whether the gate catches one PUT only and lets the next ones pass.
    once: bool,
    open: watch::Sender<bool>,
    arrivals: watch::Sender<u64>,
    caught: Mutex<u64>,
    arrived: Condvar,
}

impl Gate {
    pub(crate) fn new(class: Class, once: bool) -> Arc<Self> {
        Arc::new(Self {
            class,
            once,
            open: watch::Sender::new(false),
            arrivals: watch::Sender::new(0),
            caught: Mutex::new(0),
            arrived: Condvar::new(),
        })
    }

    fn lock_caught(&self) -> std::sync::MutexGuard<'_, u64> {
        self.caught.lock().expect("BUG: a hold panicked")
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    /// Whether a PUT of this class has to wait here. If so, it counts as caught.
    pub(crate) fn catches(&self, class: &Class) -> bool {
        let mut caught = self.lock_caught();
        let catches = !self.is_open() && self.class == *class && !(self.once && *caught > 0);
        if catches {
            *caught += 1;
            self.arrivals.send_replace(*caught);
            self.arrived.notify_all();
        }
        catches
    }

    pub(crate) async fn wait_open(&self) {
        // The sender lives in self, so the channel cannot be closed here.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }
}
