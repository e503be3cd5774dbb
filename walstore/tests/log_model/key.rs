//! An exact, short name of a state: two states are the same if and only if their keys are.

const WORDS: usize = 5;

/// Fields in a fixed order, each with as many bits as it needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    words: [u64; WORDS],
    bits: u16,
}

impl Key {
    pub fn push(&mut self, value: u8, bits: u16) {
        assert!(u16::from(value) < 1 << bits, "{value} does not fit {bits} bits");
        let (word, shift) = (usize::from(self.bits / 64), self.bits % 64);
        self.words[word] |= u64::from(value) << shift;
        if shift + bits > 64 {
            self.words[word + 1] |= u64::from(value) >> (64 - shift);
        }
        self.bits += bits;
    }
}
