//! Real time: what a benchmark measures.

use std::time::{Duration, Instant};

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "a benchmark waits for other processes")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Runs `work` and tells for how long, in milliseconds.
pub fn millis<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let from = now();
    let result = work();
    (result, from.elapsed().as_secs_f64() * 1000.0)
}

/// CPU time that this thread has had.
pub fn thread_cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
