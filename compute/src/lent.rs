//! Memory that changes with every statement or commit, and what is lent for it: that follows in steps, so that cores do
//! not fight over one place.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use segments::cache::Loan;

/// What is lent is so much more than what is there, or up to twice that.
const STEP_BYTES: usize = 256 << 10;

/// A sum of bytes with a loan for them.
#[derive(Debug, Default)]
pub struct LentBytes {
    bytes: AtomicUsize,
    lent: AtomicUsize,
    /// `None`: nobody asks for one.
    loan: Option<Mutex<Loan>>,
}

impl LentBytes {
    pub fn new(loan: Option<Loan>) -> Self {
        Self { loan: loan.map(Mutex::new), ..Self::default() }
    }

    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What is lent for them.
    pub fn lent(&self) -> usize {
        self.lent.load(Ordering::Relaxed)
    }

    /// Whatever others have.
    pub fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.follow();
    }

    pub fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.follow();
    }

    /// Adds, if there is room for it.
    pub fn try_add(&self, bytes: usize) -> bool {
        if let Some(loan) = &self.loan {
            let mut loan = lock(loan);
            let all = self.bytes() + bytes;
            if all > loan.bytes() {
                if !loan.try_set(all.next_multiple_of(STEP_BYTES)) {
                    return false;
                }
                self.lent.store(loan.bytes(), Ordering::Relaxed);
            }
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    fn follow(&self) {
        let is_near = || (self.bytes()..=self.bytes() + 2 * STEP_BYTES).contains(&self.lent());
        let Some(loan) = self.loan.as_ref().filter(|_| !is_near()) else { return };
        let mut loan = lock(loan);
        loan.set(self.bytes().next_multiple_of(STEP_BYTES));
        self.lent.store(loan.bytes(), Ordering::Relaxed);
    }
}

fn lock(loan: &Mutex<Loan>) -> MutexGuard<'_, Loan> {
    loan.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use segments::cache::{Lending, PageCache};

    use super::*;

    #[test]
    fn what_is_lent_follows_in_steps_and_is_never_less() {
        let terms = Lending { free_bytes: 0, bytes_max: 4 * STEP_BYTES, ..Lending::UNBOUNDED };
        let cache = PageCache::lending(1 << 20, terms);
        let sum = LentBytes::new(Some(cache.lend()));
        sum.add(1);
        assert_eq!((sum.bytes(), sum.lent(), cache.lent_bytes()), (1, STEP_BYTES, STEP_BYTES));
        assert!(sum.try_add(3 * STEP_BYTES) && sum.try_add(STEP_BYTES - 1));
        assert!(!sum.try_add(1), "full");
        assert_eq!(cache.lent_bytes(), 4 * STEP_BYTES);
        sum.add(1);
        assert_eq!(cache.lent_bytes(), 5 * STEP_BYTES, "it had to be");
        sum.give_back(STEP_BYTES);
        assert_eq!(cache.lent_bytes(), 5 * STEP_BYTES, "not for so little");
        sum.give_back(sum.bytes());
        assert_eq!(cache.lent_bytes(), 0);
        drop(sum);
        assert_eq!(cache.lent_bytes(), 0);
        let unlent = LentBytes::new(None);
        assert!(unlent.try_add(usize::MAX / 2));
        assert_eq!((unlent.bytes(), unlent.lent()), (usize::MAX / 2, 0));
    }
}
