//! How bad a life's bucket and disk are.

use std::time::Duration;

use segments::disk::file::simulated::DiskFaults;
use walstore::store::{Faults, Latency};

use crate::rng::Rng;

/// Requests that go wrong, in a million.
pub fn of_bucket(rng: &mut Rng) -> Faults {
    let millis = Duration::from_millis;
    let mut rate = |max| u32::try_from(rng.below(max)).unwrap();
    Faults {
        lost: rate(12_000),
        answer_lost: rate(12_000),
        late: rate(12_000),
        duplicated: rate(10_000),
        unavailable: rate(20_000),
        slow: rate(20_000),
        repeated: rate(8_000),
        throttled: rate(10_000),
        failed_applied: rate(10_000),
        reset: rate(10_000),
        conflict: rate(10_000),
        conflict_applied: rate(10_000),
        own_refusal: rate(10_000),
        truncated: rate(10_000),
        stale_list: rate(200_000),
        disordered_list: rate(100_000),
        black_hole: rate(600),
        latency: Latency::uniform(millis(1), millis(20)),
        slow_time: Latency::uniform(millis(20), millis(900)),
        late_time: Latency::uniform(millis(1), millis(30_000)),
        repeat_time: Latency::uniform(millis(1), millis(60_000)),
        repeat_count: 3,
        black_hole_time: Latency::uniform(millis(100), millis(4_000)),
        patience: millis(1_500),
    }
}

pub fn of_disk(rng: &mut Rng) -> DiskFaults {
    let is_well = rng.is_one_in(2);
    let mut rate = |max| if is_well { 0 } else { u32::try_from(rng.below(max)).unwrap() };
    DiskFaults {
        failed: rate(100_000),
        cut: rate(50_000),
        flipped: rate(100_000),
        misplaced: rate(50_000),
        full: rate(200_000),
        torn: rate(200_000),
        lost: rate(200_000),
        slow: rate(20_000),
        latency_max: Duration::from_millis(3),
    }
}
