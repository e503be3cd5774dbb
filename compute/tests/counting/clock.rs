//! Real time, which these tests only use to wait and to give up.

use std::time::{Duration, Instant};

/// How long anything may take before a test calls it stuck.
pub const PATIENCE: Duration = Duration::from_secs(120);

#[expect(clippy::disallowed_methods, reason = "another process runs in real time")]
pub fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "another process runs in real time")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
