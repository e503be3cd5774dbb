//! Random numbers from a seed (SplitMix64), so that a failing run can be tried again.

use std::ops::Range;

#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Dice of its own for the `number`-th part of a test.
    pub fn split(&self, number: u64) -> Self {
        let mut dice = Self(self.0 ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        Self(dice.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of a range that is not empty.
    pub fn between(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// True once in `n`.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.between(0..n) == 0
    }

    /// Bytes that no compression makes smaller.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let words = (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes());
        words.take(length).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_throws_the_same_and_another_does_not() {
        let throw = |seed| Dice::new(seed).split(3).bytes(20);
        assert_eq!(throw(7), throw(7));
        assert_ne!(throw(7), throw(8));
        assert_ne!(throw(7), Dice::new(7).split(4).bytes(20));
        assert_eq!(throw(7).len(), 20);
    }

    #[test]
    fn every_number_of_a_range_comes_up_and_no_other() {
        let mut dice = Dice::new(1);
        let thrown: std::collections::BTreeSet<u64> = (0..200).map(|_| dice.between(5..9)).collect();
        assert_eq!(thrown.into_iter().collect::<Vec<_>>(), [5, 6, 7, 8]);
    }
}
