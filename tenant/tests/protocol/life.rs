//! A node's clock, randomness and tasks, so that it can be crashed and paused between any two polls.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use walstore::seam::simulated::split_mix64;
use walstore::seam::{Clock, Random, Seam, Spawn, Task};

use crate::watch::Watch;

/// November 2026.
const EPOCH_MICROS: u64 = 1_795_000_000_000_000;

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        split_mix64(&mut self.0)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

/// A machine's clocks: virtual time, bent.
pub struct Bent {
    started: tokio::time::Instant,
    state: Mutex<Bend>,
}

#[derive(Clone, Copy)]
struct Bend {
    /// Since this moment of virtual time, the boot clock has shown `boot` and more.
    since: u64,
    boot: u64,
    /// How fast the boot clock runs, in thousandths; 0 is frozen.
    rate: u64,
    wall_offset: u64,
}

impl Bent {
    pub fn new(started: tokio::time::Instant, boot: u64, wall_offset: u64) -> Arc<Self> {
        let bend = Bend { since: 0, boot, rate: 1000, wall_offset };
        Arc::new(Self { started, state: Mutex::new(bend) })
    }

    fn virtual_micros(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap() + 1
    }

    pub fn set_rate(&self, rate: u64) {
        let boot = self.boot_micros();
        let mut bend = self.state.lock().unwrap();
        (bend.since, bend.boot, bend.rate) = (self.virtual_micros(), boot, rate);
    }

    /// The boot clock jumps forward or back; it never shows 0.
    pub fn jump_boot(&self, micros: i64) {
        let boot = self.boot_micros().saturating_add_signed(micros).max(1);
        let mut bend = self.state.lock().unwrap();
        (bend.since, bend.boot) = (self.virtual_micros(), boot);
    }

    pub fn jump_wall(&self, micros: i64) {
        let mut bend = self.state.lock().unwrap();
        bend.wall_offset = bend.wall_offset.saturating_add_signed(micros);
    }
}

impl Clock for Bent {
    fn wall_micros(&self) -> u64 {
        let offset = self.state.lock().unwrap().wall_offset;
        EPOCH_MICROS + offset + self.virtual_micros()
    }

    fn boot_micros(&self) -> u64 {
        let bend = *self.state.lock().unwrap();
        bend.boot + (self.virtual_micros() - bend.since) * bend.rate / 1000
    }
}

struct Seeded(Mutex<Rng>);

impl Random for Seeded {
    fn fill(&self, buffer: &mut [u8]) {
        let mut rng = self.0.lock().unwrap();
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&rng.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Whether the tasks of one process run.
pub struct Life {
    is_dead: AtomicBool,
    is_paused: AtomicBool,
    polls: AtomicU64,
    /// The poll after which it is dead.
    dies_at: AtomicU64,
    paused: Mutex<Vec<Waker>>,
    watch: Watch,
}

impl Life {
    pub fn new(watch: &Watch) -> Arc<Self> {
        Arc::new(Self {
            is_dead: AtomicBool::new(false),
            is_paused: AtomicBool::new(false),
            polls: AtomicU64::new(0),
            dies_at: AtomicU64::new(u64::MAX),
            paused: Mutex::default(),
            watch: watch.clone(),
        })
    }

    pub fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Relaxed)
    }

    pub fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Relaxed)
    }

    pub fn die(&self) {
        self.is_dead.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// It dies after so many more polls of its tasks: between two awaits, wherever that is.
    pub fn die_after(&self, polls: u64) {
        self.dies_at.store(self.polls.load(Ordering::Relaxed) + polls, Ordering::Relaxed);
    }

    pub fn pause(&self) {
        self.is_paused.store(true, Ordering::Relaxed);
    }

    pub fn resume(&self) {
        self.is_paused.store(false, Ordering::Relaxed);
        self.wake();
    }

    fn wake(&self) {
        for waker in self.paused.lock().unwrap().drain(..) {
            waker.wake();
        }
    }
}

/// A task that runs as its process does. What it has sent is the network's and goes on.
struct Living {
    task: Option<Task>,
    life: Arc<Life>,
}

impl Future for Living {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.life.is_dead() {
            self.task = None;
            return Poll::Ready(());
        }
        if self.life.is_paused() {
            self.life.paused.lock().unwrap().push(context.waker().clone());
            return Poll::Pending;
        }
        let polls = self.life.polls.fetch_add(1, Ordering::Relaxed);
        let task = self.task.as_mut().expect("a finished task is not polled again");
        let Ok(polled) = catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context))) else {
            self.life.watch.broken("BUG: a task has panicked; its message stands above".into());
            self.life.die();
            return Poll::Ready(());
        };
        if polls >= self.life.dies_at.load(Ordering::Relaxed) {
            self.life.die();
        }
        polled
    }
}

struct Tasks(Arc<Life>);

impl Spawn for Tasks {
    #[expect(clippy::disallowed_methods, reason = "this is what a simulated crash stops")]
    fn spawn(&self, task: Task) {
        tokio::spawn(Living { task: Some(task), life: self.0.clone() });
    }
}

pub fn seam(clock: &Arc<Bent>, seed: u64, life: &Arc<Life>) -> Seam {
    Seam::new(clock.clone(), Arc::new(Seeded(Mutex::new(Rng(seed)))), Arc::new(Tasks(life.clone())))
}
