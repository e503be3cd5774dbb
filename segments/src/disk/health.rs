//! When a failing disk is tried again.

/// Failures of one direction: reads, or writes.
#[derive(Debug)]
pub(super) struct Health {
    /// So many in a row are a failing disk.
    patience: u32,
    failures_in_a_row: u32,
    pause_micros: u64,
    not_before: u64,
    is_reported: bool,
}

const PAUSE_MIN_MICROS: u64 = 1_000_000;
const PAUSE_MAX_MICROS: u64 = 60_000_000;

impl Health {
    pub fn new(patience: u32) -> Self {
        Self { patience, failures_in_a_row: 0, pause_micros: PAUSE_MIN_MICROS, not_before: 0, is_reported: false }
    }

    pub fn may_try(&self, now_micros: u64) -> bool {
        now_micros >= self.not_before
    }

    /// Whether this is news: the first of its row.
    pub fn failed(&mut self, now_micros: u64) -> bool {
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        if self.failures_in_a_row >= self.patience {
            self.not_before = now_micros + self.pause_micros;
            self.pause_micros = (self.pause_micros * 2).min(PAUSE_MAX_MICROS);
        }
        !std::mem::replace(&mut self.is_reported, true)
    }

    /// Whether this is news: it had failed before.
    pub fn succeeded(&mut self) -> bool {
        self.failures_in_a_row = 0;
        self.pause_micros = PAUSE_MIN_MICROS;
        std::mem::replace(&mut self.is_reported, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_fails_rests_ever_longer_and_is_reported_once() {
        let mut health = Health::new(2);
        assert!(health.failed(0) && health.may_try(0), "one failure is none");
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert!(!health.failed(now));
            let pause = (0..100).find(|seconds| health.may_try(now + seconds * 1_000_000)).expect("tried again");
            pauses.push(pause);
            now += pause * 1_000_000;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert!(health.succeeded() && !health.succeeded());
        assert!(health.failed(now) && health.may_try(now));
    }
}
