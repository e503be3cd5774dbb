//! How a seed's network and store misbehave.

use std::time::Duration;

use walstore::store::{Faults, Latency};

use crate::life::Rng;

/// Some seeds are harsh, some mild, and each has its own favourites.
pub fn draw(rng: &mut Rng) -> Faults {
    let millis = Duration::from_millis;
    let scale = *rng.pick(&[3_000, 12_000, 30_000]);
    let mut rate = || if rng.one_in(3) { 0 } else { u32::try_from(rng.below(scale)).unwrap() };
    Faults {
        lost: rate(),
        answer_lost: rate(),
        late: rate(),
        duplicated: rate(),
        unavailable: rate(),
        slow: rate(),
        repeated: rate(),
        throttled: rate(),
        failed_applied: rate(),
        reset: rate(),
        conflict: rate(),
        conflict_applied: rate(),
        own_refusal: rate(),
        truncated: rate(),
        stale_list: 150_000,
        disordered_list: 50_000,
        black_hole: rate() / 10,
        latency: Latency::uniform(millis(1), millis(15)),
        slow_time: Latency::uniform(millis(20), millis(2_000)),
        late_time: Latency::uniform(millis(1), millis(30_000)),
        repeat_time: Latency::uniform(millis(100), millis(200_000)),
        repeat_count: 3,
        black_hole_time: Latency::uniform(millis(100), millis(4_000)),
        patience: millis(500),
    }
}
