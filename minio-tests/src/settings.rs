//! What the person who runs a test chooses through the environment.

use crate::{announce, clock};

/// The number that a variable of the environment holds.
///
/// # Panics
/// If it holds something else.
pub fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not `{text}`")))
}

/// The seed of a test's choices: `SHOAL_SEED`, else a fresh one. Says which, so that it can be tried again.
pub fn seed(test: &str) -> u64 {
    let seed = number_from("SHOAL_SEED").unwrap_or_else(clock::fresh_seed);
    announce(&format!("{test}: SHOAL_SEED={seed}"));
    seed
}
