//! Real time. The emulator plays a remote party with a clock of its own, so it does not go through the
//! seam of the program under test; this module is the only one that asks.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// How late a timer fires on average: tokio rounds a deadline up to the next whole millisecond, and the wait
/// in the kernel is rounded up once more. Asking this much earlier makes the error average to nothing, so
/// that injected latencies keep their quantiles.
const TIMER_LATENESS: Duration = Duration::from_micros(900);

pub(crate) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "an object's Last-Modified is the store's own time")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// Waits until `deadline`, on average; not at all if it has passed.
pub(crate) async fn sleep_until(deadline: Instant) {
    let early = deadline.checked_sub(TIMER_LATENESS).unwrap_or(deadline);
    if early > now() {
        tokio::time::sleep_until(early).await;
    }
}

/// Waits for `duration`, on average.
pub(crate) async fn sleep(duration: Duration) {
    sleep_until(now() + duration).await;
}
