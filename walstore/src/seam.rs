//! The seam: everything that differs between two runs of the same program.
//!
//! Clock, randomness and task spawning come through [`Seam`]; the bucket comes through
//! [`Store`](crate::store::Store). Production plugs in the operating system; the simulator plugs in
//! virtual time, a seeded generator and a task set that it can crash. Nothing else in the workspace may
//! ask for the time or for entropy (`clippy.toml` bans the calls).

pub mod simulated;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// A boxed task, as handed to [`Spawn`].
pub type Task = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// Reads clocks. Never used for safety: clocks decide when to suspect a node, not what is durable.
pub trait Clock: Send + Sync {
    /// Microseconds since the Unix epoch. May jump in either direction.
    fn wall_micros(&self) -> u64;
    /// Microseconds on a clock that never jumps and counts suspended time (`CLOCK_BOOTTIME`).
    fn boot_micros(&self) -> u64;
}

/// Fills buffers with entropy.
pub trait Random: Send + Sync {
    fn fill(&self, buffer: &mut [u8]);
}

/// Starts background tasks.
pub trait Spawn: Send + Sync {
    fn spawn(&self, task: Task);
}

/// Clock, randomness and spawning of one node. Cheap to clone.
#[derive(Clone)]
pub struct Seam {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    spawn: Arc<dyn Spawn>,
}

impl Seam {
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>, spawn: Arc<dyn Spawn>) -> Self {
        Self { clock, random, spawn }
    }

    /// The operating system's clock and entropy, tasks on the tokio runtime of the caller.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn production() -> Self {
        let runtime = tokio::runtime::Handle::current();
        Self::new(Arc::new(SystemClock), Arc::new(SystemRandom), Arc::new(runtime))
    }

    pub fn wall_micros(&self) -> u64 {
        self.clock.wall_micros()
    }

    pub fn boot_micros(&self) -> u64 {
        self.clock.boot_micros()
    }

    pub fn fill(&self, buffer: &mut [u8]) {
        self.random.fill(buffer);
    }

    /// 128 random bits: ids, put ids and nonces.
    pub fn random_id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        self.fill(&mut id);
        id
    }

    pub fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Waits on tokio's clock, which the simulator advances by itself.
    #[expect(clippy::disallowed_methods, reason = "this is the replacement")]
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Runs a task in the background, on the I/O runtime.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn.spawn(Box::pin(task));
    }
}

struct SystemClock;

/// The operating system's clock, in microseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "this is the replacement")]
pub(crate) fn system_micros() -> u64 {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The operating system's `CLOCK_BOOTTIME`, in microseconds.
pub(crate) fn boot_micros() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
    u64::try_from(micros).unwrap_or(0)
}

impl Clock for SystemClock {
    fn wall_micros(&self) -> u64 {
        system_micros()
    }

    fn boot_micros(&self) -> u64 {
        boot_micros()
    }
}

struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, buffer: &mut [u8]) {
        let mut filled = 0;
        while filled < buffer.len() {
            let rest = &mut buffer[filled..];
            match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("the operating system gives no entropy: {error}"),
            }
        }
    }
}

impl Spawn for tokio::runtime::Handle {
    fn spawn(&self, task: Task) {
        tokio::runtime::Handle::spawn(self, task);
    }
}
