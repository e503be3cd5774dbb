//! Databases that end by themselves: when, as far as their client knows.
//!
//! A node goes by its own clock as long as that agrees with the store's, and else by the store's. It deletes a database
//! only when both say that its time is up. So whether a node may still show it depends on what its clock told when it was
//! asked, and whether it may say that there is none, on what it tells, or the time really is, when it answers.

use crate::machine::Reading;

/// The times, in microseconds since the Unix epoch, of which one is a database's end. 0 is never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends(Vec<u64>);

impl Default for Ends {
    fn default() -> Self {
        Self(vec![0])
    }
}

impl Ends {
    pub fn at(micros: u64) -> Self {
        Self(vec![micros])
    }

    /// It may have been changed to this.
    pub fn or(&mut self, micros: u64) {
        if !self.0.contains(&micros) {
            self.0.push(micros);
        }
    }

    pub fn is_never(&self) -> bool {
        self.0 == [0]
    }

    /// Whether it may be over.
    pub fn may_be_over(&self, now_micros: u64) -> bool {
        self.0.iter().any(|end| *end != 0 && *end <= now_micros)
    }

    /// Whether it may live.
    pub fn may_live(&self, now_micros: u64) -> bool {
        self.0.iter().any(|end| *end == 0 || *end > now_micros)
    }
}

/// What a node's clock told when it was asked, and when the answer came.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    pub began: Reading,
    pub ended: Reading,
}

impl Clocks {
    /// Whether a node may say that there is no such database.
    pub fn allow_the_end(&self, ends: &Ends) -> bool {
        !self.are_steady() || ends.may_be_over(self.ended.told.max(self.ended.truly))
    }

    /// Whether a node may show it.
    pub fn allow_life(&self, ends: &Ends) -> bool {
        !self.are_steady() || ends.may_live(self.began.told)
    }

    /// A clock that jumps meanwhile may have told anything.
    fn are_steady(&self) -> bool {
        self.began.jumps == self.ended.jumps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clocks(began: (u64, u64), ended: (u64, u64)) -> Clocks {
        let reading = |(told, truly)| Reading { told, truly, jumps: 0 };
        Clocks { began: reading(began), ended: reading(ended) }
    }

    #[test]
    fn an_end_is_judged_by_the_clock_of_who_was_asked() {
        let ends = Ends::at(100);
        for (asked, may_end, may_live) in [
            (clocks((98, 98), (99, 99)), false, true),
            (clocks((98, 98), (100, 100)), true, true),
            (clocks((100, 100), (101, 101)), true, false),
            // Its clock is late: it may show it, or have met somebody's deletion.
            (clocks((90, 100), (91, 101)), true, true),
            // Its clock is early.
            (clocks((100, 90), (101, 91)), true, false),
        ] {
            assert_eq!((asked.allow_the_end(&ends), asked.allow_life(&ends)), (may_end, may_live), "{asked:?}");
        }
        let never = clocks((u64::MAX, u64::MAX), (u64::MAX, u64::MAX));
        assert!(!never.allow_the_end(&Ends::default()) && never.allow_life(&Ends::default()));
        let mut either = ends.clone();
        either.or(0);
        assert!(never.allow_the_end(&either) && never.allow_life(&either));
    }
}
