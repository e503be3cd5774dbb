//! What time it is, for what is written down for others to read: when a commit was made, when a database ended.
//!
//! Clocks of nodes jump, and such a time outlives its node. One that is years early would let a history be trimmed whose
//! commits are minutes old; one that is years late would keep it for years. So a node whose clock is not that of the
//! store takes the store's: it heard of it with its last renewal, a few seconds ago. Where the store tells no date, it has
//! its own clock alone, and then nothing is given up because of a time. Nor is a store believed that has the
//! node's own clock, once that has jumped ([`SteadyClock`]).

mod steady;

pub(crate) use self::steady::SteadyClock;
use crate::limits::CLOCKS_APART_MICROS_MAX;
use crate::seam::Seam;
use crate::store::Store;

/// In microseconds since the Unix epoch.
pub fn now_micros(seam: &Seam, store: &dyn Store) -> u64 {
    of_two(seam.wall_micros(), store.date_micros())
}

fn of_two(node: u64, store: Option<u64>) -> u64 {
    store.filter(|store| store.abs_diff(node) > CLOCKS_APART_MICROS_MAX).unwrap_or(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_far_off_tells_nothing() {
        let (now, far) = (10 * CLOCKS_APART_MICROS_MAX, CLOCKS_APART_MICROS_MAX + 1);
        assert_eq!(of_two(now, None), now);
        assert_eq!(of_two(now, Some(now + far - 1)), now);
        assert_eq!(of_two(now, Some(now - far + 1)), now);
        assert_eq!(of_two(now, Some(now + far)), now + far);
        assert_eq!(of_two(now, Some(now - far)), now - far);
    }
}
