//! What time it is for a store that has this machine's clock: a directory, or a MinIO beside the node.
//!
//! Were that its date, the clocks of node and store would be one, and agree on every time that it jumps to. So the date goes
//! on by `CLOCK_BOOTTIME`, which does not jump, from the last time that the clock was where that expected it:
//! - in the first hour after a jump the date is as if there had been none, and so are times of commits;
//! - then a clock that is ahead is believed to have been set right, or wrong for good. There is no date any more, so what is
//!   written down has the node's time, and nothing is given up because of it ([`crate::clock`]) until the store is opened
//!   again, or the clock jumps back;
//! - one that is behind is never believed: what it says would be given up too early once it is right.
//!
//! When the store is opened, there is nothing to compare the clock with; but there is no date before there was Shoal, as on
//! a machine that knows no time until the network tells it, and none before the times of a directory's files.

use std::sync::Mutex;

use tracing::warn;

use crate::limits::{CLOCKS_APART_MICROS_MAX, CLOCK_STEADY_MICROS};

/// 2026-01-01T00:00:00Z: what says that it is earlier has never been set.
const FIRST_MICROS: u64 = 1_767_225_600_000_000;

/// A clock that is believed as long as it does not jump.
#[derive(Debug)]
pub(crate) struct SteadyClock {
    /// No clock that says that it is earlier is believed.
    first_micros: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the clock was last believed: by itself, and since boot.
    believed: Option<(u64, u64)>,
    jump: Option<Jump>,
}

#[derive(Clone, Copy, Debug)]
struct Jump {
    /// How far the clock is from where it should be.
    by_micros: i128,
    /// On the clock since boot.
    seen_micros: u64,
}

impl SteadyClock {
    /// Of a store of which something was written at `newest_micros`; 0 if that is not known.
    pub fn new(newest_micros: u64) -> Self {
        let first_micros = newest_micros.saturating_sub(CLOCKS_APART_MICROS_MAX).max(FIRST_MICROS);
        Self { first_micros, state: Mutex::default() }
    }

    /// The date, if the clock says that it is `wall`, so long after this machine was booted.
    pub fn date_micros(&self, wall: u64, boot: u64) -> Option<u64> {
        let mut state = self.state.lock().expect("BUG: a panic while the clock was read");
        let Some((wall_then, boot_then)) = state.believed else {
            state.believed = (wall >= self.first_micros).then_some((wall, boot));
            return state.believed.map(|(wall, _)| wall);
        };
        let expected = wall_then.saturating_add(boot.saturating_sub(boot_then));
        if wall.abs_diff(expected) <= CLOCKS_APART_MICROS_MAX {
            *state = State { believed: Some((wall, boot)), jump: None };
            return Some(wall);
        }
        let by_micros = i128::from(wall) - i128::from(expected);
        let is_same = |jump: &Jump| jump.by_micros.abs_diff(by_micros) <= u128::from(CLOCKS_APART_MICROS_MAX);
        let jump = state.jump.filter(is_same).unwrap_or_else(|| {
            warn!(
                seconds = %(by_micros / 1_000_000),
                "this machine's clock has jumped: no history is trimmed and nothing expires until it jumps back or this \
                 process is started again, and for an hour times of commits are as if it had not, or as long as it is behind"
            );
            Jump { by_micros, seen_micros: boot }
        });
        state.jump = Some(jump);
        let is_early_or_new = wall < expected || boot.saturating_sub(jump.seen_micros) < CLOCK_STEADY_MICROS;
        is_early_or_new.then_some(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = FIRST_MICROS + 1_000_000_000_000;
    const MINUTE: u64 = 60_000_000;
    const HOUR: u64 = 60 * MINUTE;
    const YEAR: u64 = 365 * 24 * HOUR;

    /// Of a store that was opened at `NOW`, when the machine had been up for an hour.
    fn opened() -> SteadyClock {
        let date = SteadyClock::new(0);
        assert_eq!(date.date_micros(NOW, HOUR), Some(NOW));
        date
    }

    #[test]
    fn a_clock_that_goes_its_way_is_the_date_however_far_it_drifts() {
        let date = opened();
        for hours in 1..100 {
            // A minute in an hour, of which each is within what is allowed, and all are not.
            let wall = NOW + hours * (HOUR + MINUTE);
            assert_eq!(date.date_micros(wall, HOUR + hours * HOUR), Some(wall));
        }
    }

    #[test]
    fn a_jump_there_and_back_is_as_if_it_had_not_been() {
        for jumped in [NOW + 10 * YEAR, NOW + HOUR, NOW - HOUR, 0] {
            let date = opened();
            assert_eq!(date.date_micros(jumped, HOUR + MINUTE), Some(NOW + MINUTE));
            assert_eq!(date.date_micros(jumped + MINUTE, HOUR + 2 * MINUTE), Some(NOW + 2 * MINUTE));
            assert_eq!(date.date_micros(NOW + 3 * MINUTE, HOUR + 3 * MINUTE), Some(NOW + 3 * MINUTE));
        }
    }

    #[test]
    fn a_jump_that_lasts_leaves_no_date_until_it_is_taken_back() {
        let date = opened();
        let jumped = NOW + YEAR;
        assert_eq!(date.date_micros(jumped, HOUR), Some(NOW));
        assert_eq!(date.date_micros(jumped + HOUR, 2 * HOUR), None);
        // Another one begins another hour.
        assert_eq!(date.date_micros(jumped + YEAR, 2 * HOUR), Some(NOW + HOUR));
        assert_eq!(date.date_micros(jumped + YEAR + HOUR, 3 * HOUR), None);
        assert_eq!(date.date_micros(NOW + 3 * HOUR, 4 * HOUR), Some(NOW + 3 * HOUR));
    }

    /// Bug: an hour later what was written had a time that was long over once the clock was right.
    #[test]
    fn a_clock_that_was_put_back_is_never_believed() {
        let date = opened();
        for hours in [1, 2, 100] {
            assert_eq!(date.date_micros(NOW - YEAR + hours * HOUR, HOUR + hours * HOUR), Some(NOW + hours * HOUR));
        }
    }

    #[test]
    fn a_clock_behind_what_was_written_is_not_believed_before_it_is_right() {
        let date = SteadyClock::new(NOW + CLOCKS_APART_MICROS_MAX);
        assert_eq!(date.date_micros(1_000, 1_000), None);
        assert_eq!(date.date_micros(NOW - 1, MINUTE), None);
        assert_eq!(date.date_micros(NOW + MINUTE, 2 * MINUTE), Some(NOW + MINUTE));
    }
}
