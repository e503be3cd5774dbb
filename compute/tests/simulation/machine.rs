//! A simulated machine: its clocks, its randomness, and its tasks, which can be paused and killed.
//!
//! A paused machine is a process that was stopped, or a virtual machine that is being moved: nothing of it runs,
//! but what it has sent goes on its way, and time passes. Clocks jump only where real ones do: the wall clock in
//! either direction, the boot clock never; it may stand still during a pause whose time a hypervisor hides.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::task::JoinSet;
use walstore::seam::{Clock, Random, Seam, Spawn, Task};

use crate::rng::Rng;

/// November 2026.
pub const EPOCH_MICROS: i64 = 1_795_000_000_000_000;

/// What time it is, for the store too.
pub fn true_micros(started: tokio::time::Instant) -> u64 {
    EPOCH_MICROS.unsigned_abs() + started.elapsed().as_micros() as u64
}

pub struct Machine {
    pub seam: Seam,
    pub clock: Arc<MachineClock>,
    pub pause: Arc<Pause>,
    tasks: Arc<Tasks>,
}

impl Machine {
    pub fn new(rng: &mut Rng, started: tokio::time::Instant, wall_offset_micros: i64) -> Self {
        let pause = Arc::new(Pause::default());
        let tasks = Arc::new(Tasks { set: Mutex::default(), pause: pause.clone() });
        let clock = Arc::new(MachineClock {
            started,
            wall_offset: AtomicI64::new(wall_offset_micros),
            hidden: AtomicU64::new(0),
            jumps: AtomicU64::new(0),
        });
        let random = Arc::new(SeededRandom(Mutex::new(rng.fork())));
        let seam = Seam::new(clock.clone(), random, tasks.clone());
        Self { seam, clock, pause, tasks }
    }

    /// Ends every task where it stands.
    pub fn kill(&self) {
        self.tasks.set.lock().unwrap().abort_all();
    }
}

pub struct MachineClock {
    started: tokio::time::Instant,
    wall_offset: AtomicI64,
    /// Time that the boot clock has not counted.
    hidden: AtomicU64,
    jumps: AtomicU64,
}

/// Clocks that are further apart do not agree: then a node goes by the store's.
const APART_MICROS_MAX: u64 = 300_000_000;

/// A node's clock as it was read.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// What the node goes by, in microseconds since the Unix epoch.
    pub told: u64,
    /// What time it was.
    pub truly: u64,
    /// How often the clock had jumped.
    pub jumps: u64,
}

impl MachineClock {
    pub fn jump(&self, micros: i64) {
        self.wall_offset.fetch_add(micros, Ordering::Relaxed);
        self.jumps.fetch_add(1, Ordering::Relaxed);
    }

    /// What time it is for the node.
    pub fn read(&self) -> Reading {
        let (truly, wall) = (true_micros(self.started), self.wall_micros());
        let told = if wall.abs_diff(truly) > APART_MICROS_MAX { truly } else { wall };
        Reading { told, truly, jumps: self.jumps.load(Ordering::Relaxed) }
    }

    pub fn hide(&self, micros: u64) {
        self.hidden.fetch_add(micros, Ordering::Relaxed);
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap() + 1
    }
}

impl Clock for MachineClock {
    fn wall_micros(&self) -> u64 {
        let now = EPOCH_MICROS + self.wall_offset.load(Ordering::Relaxed) + self.elapsed() as i64;
        u64::try_from(now).unwrap_or(0)
    }

    fn boot_micros(&self) -> u64 {
        self.elapsed().saturating_sub(self.hidden.load(Ordering::Relaxed)).max(1)
    }
}

struct SeededRandom(Mutex<Rng>);

impl Random for SeededRandom {
    fn fill(&self, buffer: &mut [u8]) {
        let mut rng = self.0.lock().unwrap();
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&rng.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

struct Tasks {
    set: Mutex<JoinSet<()>>,
    pause: Arc<Pause>,
}

impl Spawn for Tasks {
    fn spawn(&self, task: Task) {
        let task = self.pause.clone().obeyed_by(task);
        self.set.lock().unwrap().spawn(task);
    }
}

/// Whether a machine stands still.
#[derive(Default)]
pub struct Pause {
    is_paused: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
}

impl Pause {
    pub fn begin(&self) {
        self.is_paused.store(true, Ordering::SeqCst);
    }

    pub fn end(&self) {
        self.is_paused.store(false, Ordering::SeqCst);
        for waker in std::mem::take(&mut *self.wakers.lock().unwrap()) {
            waker.wake();
        }
    }

    /// A future that makes no progress during a pause.
    pub fn obeyed_by<F: Future>(self: Arc<Self>, future: F) -> Obedient<F> {
        Obedient { future: Box::pin(future), pause: self }
    }
}

pub struct Obedient<F> {
    future: Pin<Box<F>>,
    pause: Arc<Pause>,
}

impl<F: Future> Future for Obedient<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.pause.is_paused.load(Ordering::SeqCst) {
            self.pause.wakers.lock().unwrap().push(context.waker().clone());
            return Poll::Pending;
        }
        self.future.as_mut().poll(context)
    }
}
