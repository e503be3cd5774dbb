//! A set of positions in one segment.

use crate::page::SEGMENT_PAGES;

/// Which pages of a segment: bit *n* stands for the page at position *n*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageMask(u32);

impl PageMask {
    pub const NONE: Self = Self(0);

    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The first `count` positions.
    pub const fn first(count: u8) -> Self {
        if count as u32 >= SEGMENT_PAGES { Self(u32::MAX) } else { Self((1 << count) - 1) }
    }

    pub const fn one(position: u8) -> Self {
        Self(1 << position)
    }

    pub const fn contains(self, position: u8) -> bool {
        self.0 >> position & 1 == 1
    }

    pub const fn covers(self, other: Self) -> bool {
        other.without(self).is_empty()
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// How many members stand before `position`: a page's place among the pages of a frame.
    pub const fn rank(self, position: u8) -> u8 {
        self.and(Self::first(position)).count() as u8
    }

    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub fn positions(self) -> impl Iterator<Item = u8> {
        (0..SEGMENT_PAGES as u8).filter(move |position| self.contains(*position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_sets() {
        let mask = PageMask::one(3).or(PageMask::one(31));
        assert_eq!(mask.positions().collect::<Vec<_>>(), [3, 31]);
        assert_eq!((mask.rank(3), mask.rank(4), mask.rank(31), mask.count()), (0, 1, 1, 2));
        assert!(PageMask::first(32).covers(mask) && !PageMask::first(31).covers(mask));
        assert_eq!(PageMask::first(0), PageMask::NONE);
        assert_eq!(mask.without(PageMask::first(8)), PageMask::one(31));
    }
}
