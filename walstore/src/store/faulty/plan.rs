//! What a seed decides about one request: how long it travels and what goes wrong.

use std::time::Duration;

use crate::seam::simulated::split_mix64;

/// How often, in a million requests, each fault happens, and how long things take.
///
/// At most one fault hits a request; they are drawn in the order of the fields. A fault that cannot hit a
/// kind of request (a 409 on a read) leaves it alone. The default has no faults and no latency.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Never reaches the store. The caller learns nothing until its patience ends.
    pub lost: u32,
    /// Takes effect, but the answer never arrives.
    pub answer_lost: u32,
    /// Given up by its caller first, and takes effect after that. Reads are lost instead.
    pub late: u32,
    /// Takes effect and is answered, and is delivered once more later. Reads are not repeated.
    pub duplicated: u32,
    /// The store answers 503 and does nothing.
    pub unavailable: u32,
    /// Takes [`slow_time`](Self::slow_time) more.
    pub slow: u32,
    /// Takes effect and is answered, and is delivered again [`repeat_count`](Self::repeat_count) times, each
    /// [`repeat_time`](Self::repeat_time) after the one before, whatever has become of its sender. Reads are
    /// not repeated.
    pub repeated: u32,
    /// The store answers 429 and does nothing.
    pub throttled: u32,
    /// The store answers 500 to a write that it has carried out. Reads are answered 503.
    pub failed_applied: u32,
    /// The connection breaks: the caller hears of it at once, and the request takes effect after that.
    pub reset: u32,
    /// A conditional write is answered 409 and does nothing.
    pub conflict: u32,
    /// A conditional write is answered 409 though it took effect.
    pub conflict_applied: u32,
    /// A conditional write is delivered twice and the second answer is what the caller gets: a 412 that its
    /// own write has caused.
    pub own_refusal: u32,
    /// The body of a read is cut off on its way, or that of a write, which then does nothing.
    pub truncated: u32,
    /// A listing leaves out keys, as if they had been written just now.
    pub stale_list: u32,
    /// A listing is not in order, which is an answer against the store's own rules.
    pub disordered_list: u32,
    /// From this request on nothing reaches the store for [`black_hole_time`](Self::black_hole_time).
    pub black_hole: u32,
    /// How long a request and its answer travel together.
    pub latency: Latency,
    pub slow_time: Latency,
    /// How long after its caller's patience a late request takes effect, or after its answer a duplicate.
    pub late_time: Latency,
    pub repeat_time: Latency,
    pub repeat_count: u32,
    pub black_hole_time: Latency,
    /// How long a caller waits for an answer.
    pub patience: Duration,
}

/// A time drawn evenly from `min..=max`, in whole microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency {
    pub min: Duration,
    pub max: Duration,
}

impl Latency {
    pub fn uniform(min: Duration, max: Duration) -> Self {
        Self { min, max }
    }

    fn draw(self, random: &mut SplitMix) -> Duration {
        let min = u64::try_from(self.min.as_micros()).expect("a latency fits 64 bits");
        let max = u64::try_from(self.max.as_micros()).expect("a latency fits 64 bits");
        Duration::from_micros(min + random.below(max.saturating_sub(min) + 1))
    }
}

/// A way for a request to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Lost,
    AnswerLost,
    Late,
    Duplicated,
    Unavailable,
    Slow,
    Repeated,
    Throttled,
    FailedApplied,
    Reset,
    Conflict,
    ConflictApplied,
    OwnRefusal,
    Truncated,
    StaleList,
    DisorderedList,
    BlackHole,
    /// The whole store is switched off.
    Outage,
    /// The store refuses everybody.
    Denied,
}

/// What can go wrong with a request depends on its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Get,
    List,
    Put,
    ConditionalPut,
    Delete,
}

impl Fault {
    /// What this fault is for a request of such a shape.
    fn on(self, shape: Shape) -> Option<Self> {
        let is_read = matches!(shape, Shape::Get | Shape::List);
        match self {
            Self::Late if is_read => Some(Self::Lost),
            Self::FailedApplied if is_read => Some(Self::Unavailable),
            Self::Duplicated | Self::Repeated if is_read => None,
            Self::Conflict | Self::ConflictApplied | Self::OwnRefusal if shape != Shape::ConditionalPut => None,
            Self::Truncated if shape == Shape::Delete => None,
            Self::StaleList | Self::DisorderedList if shape != Shape::List => None,
            fault => Some(fault),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub fault: Option<Fault>,
    /// From the caller to the store.
    pub request_time: Duration,
    /// From the store to the caller.
    pub answer_time: Duration,
    pub late_time: Duration,
    pub repeat_time: Duration,
    pub repeat_count: u32,
    pub black_hole_time: Duration,
    pub patience: Duration,
    /// Decides which keys a stale listing lacks.
    pub dice: u64,
}

impl Plan {
    /// Draws the same number of values for every request, so that a changed rate changes only those
    /// requests that it hits.
    pub fn draw(faults: &Faults, shape: Shape, random: &mut SplitMix) -> Self {
        let fault = faults.draw(random).and_then(|fault| fault.on(shape));
        let latency = faults.latency.draw(random);
        let slow_time = faults.slow_time.draw(random);
        let late_time = faults.late_time.draw(random);
        let repeat_time = faults.repeat_time.draw(random);
        let black_hole_time = faults.black_hole_time.draw(random);
        let dice = random.next();
        let total = if fault == Some(Fault::Slow) { latency + slow_time } else { latency };
        let request_time = total / 2;
        let answer_time = total - request_time;
        let (repeat_count, patience) = (faults.repeat_count, faults.patience);
        Self { fault, request_time, answer_time, late_time, repeat_time, repeat_count, black_hole_time, patience, dice }
    }
}

impl Faults {
    fn draw(&self, random: &mut SplitMix) -> Option<Fault> {
        let mut rest = random.below(1_000_000);
        let rates = [
            (Fault::Lost, self.lost),
            (Fault::AnswerLost, self.answer_lost),
            (Fault::Late, self.late),
            (Fault::Duplicated, self.duplicated),
            (Fault::Unavailable, self.unavailable),
            (Fault::Slow, self.slow),
            (Fault::Repeated, self.repeated),
            (Fault::Throttled, self.throttled),
            (Fault::FailedApplied, self.failed_applied),
            (Fault::Reset, self.reset),
            (Fault::Conflict, self.conflict),
            (Fault::ConflictApplied, self.conflict_applied),
            (Fault::OwnRefusal, self.own_refusal),
            (Fault::Truncated, self.truncated),
            (Fault::StaleList, self.stale_list),
            (Fault::DisorderedList, self.disordered_list),
            (Fault::BlackHole, self.black_hole),
        ];
        for (fault, rate) in rates {
            if rest < u64::from(rate) {
                return Some(fault);
            }
            rest -= u64::from(rate);
        }
        None
    }
}

/// Draws from the SplitMix64 generator.
pub(super) struct SplitMix(pub u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        split_mix64(&mut self.0)
    }

    /// Evenly from `0..bound`, but for a bias of `bound / 2^64`.
    fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.next()) * u128::from(bound);
        u64::try_from(product >> 64).expect("the upper half of 128 bits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_comes_about_as_often_as_asked_for() {
        let faults = Faults { lost: 100_000, late: 200_000, ..Faults::default() };
        let mut random = SplitMix(7);
        let drawn: Vec<_> = (0..10_000).map(|_| faults.draw(&mut random)).collect();
        let count = |fault| drawn.iter().filter(|drawn| **drawn == fault).count();
        assert!((900..1100).contains(&count(Some(Fault::Lost))));
        assert!((1850..2150).contains(&count(Some(Fault::Late))));
        assert_eq!(count(Some(Fault::Slow)), 0);
    }
}
