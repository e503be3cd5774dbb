//! A byte bucket for each database: who sends more than its share for long waits, and nobody else does.
//!
//! A bucket holds [`limits::DATABASE_BURST_BYTES`] and fills at [`limits::DATABASE_BYTES_PER_SECOND`]. What is
//! kept of one is a single number, when it will be full again, in microseconds of the node's boot clock; a full
//! bucket is not kept at all, so a quiet database costs nothing. The last commit out of a bucket may overdraw it.

use std::collections::BTreeMap;

use crate::id::DatabaseId;
use crate::limits;

const BURST_MICROS: u64 = micros_of(limits::DATABASE_BURST_BYTES as u64);
/// A bucket that was empty is used again when it has a fragment's worth.
const RESUME_MICROS: u64 = micros_of(limits::FRAGMENT_BYTES_TARGET as u64);

#[derive(Clone, Default)]
pub struct Buckets {
    full_at_micros: BTreeMap<DatabaseId, u64>,
    kept_after_sweep: usize,
}

impl Buckets {
    /// Takes `bytes` out of the bucket of `database`. If that empties it: until when the database has to wait.
    pub fn take(&mut self, database: DatabaseId, bytes: usize, now_micros: u64) -> Option<u64> {
        self.sweep(now_micros);
        // One huge commit must not keep those behind it waiting until their clients give up.
        let latest = empty_at(now_micros).saturating_add(limits::DATABASE_DEBT_MICROS_MAX);
        let full_at = self.full_at_micros.entry(database).or_default();
        *full_at = (*full_at).max(now_micros).saturating_add(micros_of(bytes as u64)).min(latest);
        self.wait(database, now_micros)
    }

    /// If the bucket of `database` is empty: until when it has to wait.
    pub fn wait(&self, database: DatabaseId, now_micros: u64) -> Option<u64> {
        let full_at = *self.full_at_micros.get(&database)?;
        let debt = full_at.checked_sub(empty_at(now_micros))?;
        Some(now_micros.saturating_add(debt).saturating_add(RESUME_MICROS))
    }

    /// Forgets buckets that are full, now and then: often enough that most of those kept are not.
    fn sweep(&mut self, now_micros: u64) {
        if self.full_at_micros.len() >= 2 * self.kept_after_sweep + 64 {
            self.full_at_micros.retain(|_, full_at| *full_at > now_micros);
            self.kept_after_sweep = self.full_at_micros.len();
        }
    }
}

/// When a bucket is full again that is empty now.
fn empty_at(now_micros: u64) -> u64 {
    now_micros.saturating_add(BURST_MICROS)
}

/// How long a bucket takes to gain so many bytes.
const fn micros_of(bytes: u64) -> u64 {
    bytes.saturating_mul(1_000_000).div_ceil(limits::DATABASE_BYTES_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOODER: DatabaseId = DatabaseId::from_bytes([1; 16]);
    const PART: usize = 64 << 10;

    #[test]
    fn a_burst_passes_and_then_the_rate_does() {
        let mut buckets = Buckets::default();
        let mut now = 5_000_000;
        let mut sent = 0;
        while now < 65_000_000 {
            sent += PART as u64;
            now = buckets.take(FLOODER, PART, now).unwrap_or(now);
        }
        let allowed = limits::DATABASE_BURST_BYTES as u64 + 60 * limits::DATABASE_BYTES_PER_SECOND;
        assert!((allowed - (1 << 20)..=allowed + (1 << 20)).contains(&sent), "{sent} bytes");
    }

    #[test]
    fn a_huge_commit_is_waited_for_no_longer_than_stated() {
        let mut buckets = Buckets::default();
        let until = buckets.take(FLOODER, limits::COMMIT_BYTES_MAX, 0).expect("it empties the bucket");
        assert_eq!(until, limits::DATABASE_DEBT_MICROS_MAX + RESUME_MICROS);
        assert_eq!(buckets.take(FLOODER, 100, until), None);
    }

    #[test]
    fn buckets_that_are_full_are_forgotten() {
        let mut buckets = Buckets::default();
        for n in 0..10_000u128 {
            let database = DatabaseId::from_bytes(n.to_be_bytes());
            assert_eq!(buckets.take(database, 600, n as u64 * 1_000), None);
        }
        assert!(buckets.full_at_micros.len() < 200, "{} are kept", buckets.full_at_micros.len());
    }
}
