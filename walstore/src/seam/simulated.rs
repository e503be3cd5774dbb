//! Time and randomness of tests and simulations: tokio's clock, which may be paused, and numbers that follow from a seed.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Clock, Random, Seam};

/// November 2026.
const EPOCH_MICROS: u64 = 1_795_000_000_000_000;

/// The next number of the SplitMix64 generator: the same ones from the same seed on every machine.
pub fn split_mix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Tokio's time from now on, and randomness out of `seed`; tasks run on the tokio runtime of the caller.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn seam(seed: u64) -> Seam {
    let clock = TokioTime(tokio::time::Instant::now());
    Seam::new(Arc::new(clock), Arc::new(Seeded(Mutex::new(seed))), Arc::new(tokio::runtime::Handle::current()))
}

struct TokioTime(tokio::time::Instant);

impl Clock for TokioTime {
    fn wall_micros(&self) -> u64 {
        EPOCH_MICROS + self.boot_micros()
    }

    fn boot_micros(&self) -> u64 {
        // Never 0, which stands for "never" in some places.
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX - 1) + 1
    }
}

struct Seeded(Mutex<u64>);

impl Random for Seeded {
    fn fill(&self, buffer: &mut [u8]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&split_mix64(&mut state).to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_its_published_numbers() {
        let mut state = 1_234_567;
        let numbers: Vec<u64> = (0..3).map(|_| split_mix64(&mut state)).collect();
        assert_eq!(
            numbers,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }
}
