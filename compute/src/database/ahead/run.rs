//! How many leaves of a tree were read one after the other, in the order of the file. Who looks up single rows reads one.
//!
//! Pages of long values are none: somebody may want one long value, and nothing after it.

use segments::page::PageNo;

/// Inner pages may stand between two leaves, and pages that SQLite has in memory.
const GAP_MAX: u32 = 4;

#[derive(Debug, Default)]
pub struct Run {
    last: u32,
    leaves: u32,
}

impl Run {
    /// A page was read that is no inner page.
    pub fn saw(&mut self, page: PageNo, is_leaf: bool) {
        let step = page.get().wrapping_sub(self.last);
        let goes_on = is_leaf && self.leaves > 0 && step <= GAP_MAX;
        self.leaves = match (goes_on, is_leaf) {
            (true, _) => self.leaves.saturating_add(u32::from(step > 0)),
            (false, is_leaf) => u32::from(is_leaf),
        };
        self.last = page.get();
    }

    pub fn leaves(&self) -> u32 {
        self.leaves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pages: impl Iterator<Item = (u32, bool)>) -> u32 {
        let mut run = Run::default();
        pages.for_each(|(page, is_leaf)| run.saw(PageNo::new(page).unwrap(), is_leaf));
        run.leaves()
    }

    #[test]
    fn leaves_in_a_row_count_and_nothing_else() {
        assert_eq!(run((10..50).map(|page| (page, true))), 40);
        assert_eq!(run((10..50).chain(53..60).map(|page| (page, true))), 47);
        assert_eq!(run((10..50).chain([90, 91]).map(|page| (page, true))), 2);
        assert_eq!(run((10..50).rev().map(|page| (page, true))), 1);
        assert_eq!(run((10..50).map(|page| (page, page < 49))), 0, "a long value");
        assert_eq!(run([7; 40].map(|page| (page, true)).into_iter()), 1, "the same again and again");
    }
}
