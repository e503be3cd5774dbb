//! Where the entries are: from the hash of a key to a place in the file.
//!
//! One flat table, open addressing, at most 7/8 full; growing by a quarter, it is at least 7/10 full. So an entry takes
//! 18 to 23 bytes here, and 8 in the list of its region.

use crate::limits;

/// Where a slot is, and how often it was read since it was written (up to 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub region: u32,
    /// In bytes, a multiple of 16.
    pub offset: u32,
    pub uses: u8,
}

const USES_BITS: u32 = 2;
const OFFSET_BITS: u32 = 20;
pub(super) const USES_MAX: u8 = (1 << USES_BITS) - 1;
const REGION_BITS: u32 = 64 - 1 - USES_BITS - OFFSET_BITS;
const OFFSET_UNIT: u32 = super::slot::ALIGNMENT as u32;
const EMPTY: u64 = u64::MAX;

const _: () = assert!(limits::REGIONS_MAX as u64 <= 1 << REGION_BITS, "every region has a number");
const _: () = assert!(limits::REGION_BYTES_MAX <= OFFSET_UNIT << OFFSET_BITS, "every slot has an offset");

impl Place {
    fn pack(self) -> u64 {
        let offset = u64::from(self.offset / OFFSET_UNIT) << USES_BITS;
        u64::from(self.region) << (OFFSET_BITS + USES_BITS) | offset | u64::from(self.uses)
    }

    fn unpack(packed: u64) -> Self {
        let offset = (packed >> USES_BITS) as u32 & ((1 << OFFSET_BITS) - 1);
        Self {
            region: (packed >> (OFFSET_BITS + USES_BITS)) as u32,
            offset: offset * OFFSET_UNIT,
            uses: packed as u8 & USES_MAX,
        }
    }

    pub fn is_at(&self, region: u32, offset: u32) -> bool {
        (self.region, self.offset) == (region, offset)
    }
}

#[derive(Clone, Copy)]
struct Cell {
    hash: u64,
    place: u64,
}

const VACANT: Cell = Cell { hash: 0, place: EMPTY };

/// See the module documentation.
pub(super) struct Index {
    cells: Vec<Cell>,
    count: usize,
}

impl Index {
    pub fn new() -> Self {
        Self { cells: vec![VACANT; 64], count: 0 }
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn memory_bytes(&self) -> usize {
        self.cells.capacity() * size_of::<Cell>()
    }

    pub fn get(&self, hash: u64) -> Option<Place> {
        self.find(hash).map(|at| Place::unpack(self.cells[at].place))
    }

    /// Counts a use.
    pub fn touch(&mut self, hash: u64) {
        if let Some(at) = self.find(hash) {
            let place = Place::unpack(self.cells[at].place);
            self.cells[at].place = Place { uses: (place.uses + 1).min(USES_MAX), ..place }.pack();
        }
    }

    /// Files an entry, in place of what was filed under the hash before.
    pub fn insert(&mut self, hash: u64, place: Place) {
        if let Some(at) = self.find(hash) {
            self.cells[at].place = place.pack();
            return;
        }
        if (self.count + 1) * 8 > self.cells.len() * 7 {
            self.grow();
        }
        self.add(Cell { hash, place: place.pack() });
        self.count += 1;
    }

    pub fn remove(&mut self, hash: u64) {
        let Some(mut gap) = self.find(hash) else { return };
        self.count -= 1;
        // What stands behind moves up, unless it is at home where it is, so that no chain has a hole.
        let mut at = gap;
        loop {
            at = self.after(at);
            if self.cells[at].place == EMPTY {
                break;
            }
            let home = self.home(self.cells[at].hash);
            if self.distance(home, at) >= self.distance(gap, at) {
                self.cells[gap] = self.cells[at];
                gap = at;
            }
        }
        self.cells[gap] = VACANT;
    }

    fn find(&self, hash: u64) -> Option<usize> {
        let mut at = self.home(hash);
        loop {
            let cell = self.cells[at];
            if cell.place == EMPTY {
                return None;
            }
            if cell.hash == hash {
                return Some(at);
            }
            at = self.after(at);
        }
    }

    fn add(&mut self, cell: Cell) {
        let mut at = self.home(cell.hash);
        while self.cells[at].place != EMPTY {
            at = self.after(at);
        }
        self.cells[at] = cell;
    }

    fn grow(&mut self) {
        let larger = self.cells.len() + self.cells.len() / 4;
        let cells = std::mem::replace(&mut self.cells, vec![VACANT; larger]);
        for cell in cells.into_iter().filter(|cell| cell.place != EMPTY) {
            self.add(cell);
        }
    }

    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.cells.len() as u128) >> 64) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.cells.len() { 0 } else { at + 1 }
    }

    /// Steps from one cell on to another.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.cells.len() - from }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few distinct hashes, close together, so that chains form and wrap around the end.
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((any::<bool>(), 0_u64..400, 0_u32..1 << 20), 1..2_000)) {
            let (mut index, mut model) = (Index::new(), BTreeMap::new());
            for (is_insert, number, at) in steps {
                let hash = u64::MAX - number * (u64::MAX / 1_600);
                let place = Place { region: at, offset: (at & 0xffff) * 16, uses: 0 };
                if is_insert {
                    index.insert(hash, place);
                    model.insert(hash, place);
                } else {
                    index.remove(hash);
                    model.remove(&hash);
                }
                prop_assert_eq!(index.len(), model.len());
            }
            for number in 0..400 {
                let hash = u64::MAX - number * (u64::MAX / 1_600);
                prop_assert_eq!(index.get(hash), model.get(&hash).copied());
            }
        }
    }

    #[test]
    fn places_fill_their_bits_and_uses_are_counted_up_to_three() {
        let last = Place { region: (1 << REGION_BITS) - 1, offset: ((1 << OFFSET_BITS) - 1) * 16, uses: 2 };
        let mut index = Index::new();
        index.insert(7, last);
        index.touch(7);
        index.touch(7);
        index.touch(8);
        assert_eq!(index.get(7), Some(Place { uses: USES_MAX, ..last }));
    }

    #[test]
    fn an_entry_takes_at_most_32_bytes_with_its_region_list() {
        let mut index = Index::new();
        for number in 0..200_000_u64 {
            index.insert(number.wrapping_mul(0x9E37_79B9_7F4A_7C15), Place { region: 1, offset: 16, uses: 0 });
            if number > 1_000 {
                assert!(index.memory_bytes() <= index.len() * (32 - 8), "{number}");
            }
        }
    }
}
