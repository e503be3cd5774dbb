//! Which slots of a node's own log have been there for so long that nothing unfolded should be left in them.
//!
//! Databases with small tails would keep slots for ever: a log of a few commits a day never becomes too long.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use walstore::id::Slot;

use crate::limits;

/// Where the log ended at some moments of the past.
pub struct LogAge {
    old: Duration,
    ends: Mutex<VecDeque<End>>,
}

#[derive(Clone, Copy)]
struct End {
    boot_micros: u64,
    slot: Slot,
}

impl LogAge {
    /// `old`: how long commits may stay unfolded.
    pub fn new(old: Duration) -> Self {
        Self { old, ends: Mutex::default() }
    }

    /// Notes where the log ends now. Not each time: what is asked for is known to a [`limits::LOG_AGES`]th of `old`.
    pub fn note(&self, boot_micros: u64, end: Slot) {
        let old_micros = u64::try_from(self.old.as_micros()).unwrap_or(u64::MAX);
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        if ends.back().is_none_or(|last| boot_micros.saturating_sub(last.boot_micros) >= old_micros / limits::LOG_AGES) {
            ends.push_back(End { boot_micros, slot: end });
        }
        // The first one that is old stays, as the answer; those before it say less.
        while ends.get(1).is_some_and(|next| boot_micros.saturating_sub(next.boot_micros) >= old_micros) {
            ends.pop_front();
        }
    }

    /// All slots below are old.
    pub fn old_below(&self, boot_micros: u64) -> Slot {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |end: &&End| Duration::from_micros(boot_micros.saturating_sub(end.boot_micros)) >= self.old;
        ends.front().filter(is_old).map_or(Slot::ZERO, |end| end.slot)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// `steps`: minutes until the next look, and slots that were written meanwhile.
        #[test]
        fn what_is_old_is_known_to_a_part_of_the_time(steps in prop::collection::vec((0u64..300, 0u64..9), 1..400)) {
            const MINUTE: u64 = 60_000_000;
            let old = 24 * 60 * MINUTE;
            let age = LogAge::new(Duration::from_micros(old));
            let (mut now, mut end, mut written) = (0, 0, Vec::new());
            for (minutes, slots) in steps {
                now += minutes * MINUTE;
                written.extend(std::iter::repeat_n(now, slots as usize));
                end += slots;
                age.note(now, Slot(end));
                let below = age.old_below(now);
                for (slot, at) in (0u64..).zip(&written) {
                    let is_old = Slot(slot) < below;
                    prop_assert!(!is_old || now - at >= old, "slot {slot} is {} minutes old", (now - at) / MINUTE);
                    // A look every 300 minutes at the latest finds out that much later.
                    let late = old + old / limits::LOG_AGES + 2 * 300 * MINUTE;
                    prop_assert!(is_old || now - at < late, "slot {slot} is {} minutes old", (now - at) / MINUTE);
                }
                prop_assert!(age.ends.lock().unwrap().len() <= limits::LOG_AGES as usize + 2);
            }
        }
    }
}
