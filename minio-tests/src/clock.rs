//! Real time, for tests on real processes. Nothing here is simulated, so nothing here uses the seam.

use std::time::{Duration, Instant};

use crate::limits::POLL;

#[expect(clippy::disallowed_methods, reason = "these tests wait for processes, which live in real time")]
pub fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "these tests wait for processes, which live in real time")]
pub fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}

/// Asks again and again until there is an answer; `None` if there is none in time. It asks at least once.
pub fn poll<T>(within: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let started = now();
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if started.elapsed() > within {
            return None;
        }
        sleep(POLL);
    }
}

/// A seed that differs from run to run.
#[expect(clippy::disallowed_methods, reason = "a test that is run anew shall try something new")]
pub fn fresh_seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or_default())
}
