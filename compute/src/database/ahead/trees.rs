//! Children of an inner page that are read one after the other: which of their siblings to read ahead.
//!
//! The leaves of a tree that was not written in the order of its keys are all over the file, so their numbers say
//! nothing; their parent does. When the third child in a row of the same inner page is read, the next ones are read
//! ahead: those in one segment that is not in memory, then in 2, 4, … up to [`WINDOW_MAX`], again when half of them are
//! used up. A parent that is read to its end hands its pace to the next one that is read from its beginning.
//!
//! Pure: what is in memory is asked of the caller.

use std::collections::BTreeSet;

use segments::page::PageNo;

/// Segments that a descent is ahead at most: of each perhaps one page is wanted.
pub const WINDOW_MAX: usize = 32;

const STEPS_MIN: u32 = 2;
const DESCENTS: usize = 4;

/// Children that may be passed over between two that are looked at, because their pages are in memory.
const PASSED_MAX: usize = 128;

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Trees {
    /// The latest first.
    parents: [Option<PageNo>; DESCENTS],
    descents: [Option<Descent>; DESCENTS],
    /// The window of a parent that was read to its end.
    handed_on: Option<usize>,
    clock: u64,
}

#[derive(Clone, Copy, Debug)]
struct Descent {
    parent: PageNo,
    /// Which child was read last.
    index: usize,
    steps: u32,
    window: usize,
    /// The first child that was not asked for.
    ahead: usize,
    /// The child at which the next ones are to be read ahead.
    trigger: Option<PageNo>,
    used: u64,
}

impl Trees {
    /// An inner page was read.
    pub fn saw_inner(&mut self, parent: PageNo) {
        if let Some(known) = self.parents.iter().position(|it| *it == Some(parent)) {
            self.parents[..=known].rotate_right(1);
        } else {
            self.parents.rotate_right(1);
            self.parents[0] = Some(parent);
        }
    }

    /// Inner pages that may be the parent of what is read next, the likeliest first.
    pub fn parents(&self) -> impl Iterator<Item = PageNo> {
        self.parents.into_iter().flatten()
    }

    /// What is read next has nothing to do with what was read before.
    pub fn end_statement(&mut self) {
        self.handed_on = None;
    }

    /// Whether it is time to look at a page that is in memory.
    pub fn is_trigger(&self, page: PageNo) -> bool {
        self.descents.iter().flatten().any(|descent| descent.trigger == Some(page))
    }

    /// The child at `index` of `parent` is read: what to read ahead, in order, in at most `room` segments.
    pub fn descend(
        &mut self,
        parent: PageNo,
        children: &[PageNo],
        index: usize,
        room: usize,
        is_in_memory: &dyn Fn(PageNo) -> bool,
    ) -> Vec<PageNo> {
        self.clock += 1;
        let descent = self.descent(parent, children, index, is_in_memory);
        if descent.steps < STEPS_MIN || room == 0 {
            return Vec::new();
        }
        descent.window = (2 * descent.window).clamp(1, WINDOW_MAX).min(room);
        let pages = descent.plan(children, is_in_memory);
        let (window, is_at_end) = (descent.window, descent.ahead >= children.len());
        if is_at_end {
            self.handed_on = Some(window);
        }
        pages
    }

    /// The descent of this parent, at this child.
    fn descent(
        &mut self,
        parent: PageNo,
        children: &[PageNo],
        index: usize,
        is_in_memory: &dyn Fn(PageNo) -> bool,
    ) -> &mut Descent {
        let clock = self.clock;
        let known = self.descents.iter().position(|it| it.is_some_and(|it| it.parent == parent));
        let place = known.unwrap_or_else(|| {
            let age = |place: &usize| self.descents[*place].map_or(0, |descent| descent.used);
            (0..DESCENTS).min_by_key(age).expect("BUG: there is room for descents")
        });
        let handed_on = if known.is_none() && index == 0 { self.handed_on.take() } else { None };
        let steps = if handed_on.is_some() { STEPS_MIN } else { 0 };
        let fresh = Descent { parent, index, steps, window: handed_on.unwrap_or(0), ahead: 0, trigger: None, used: clock };
        let descent = self.descents[place].get_or_insert(fresh);
        if known.is_none() || !descent.goes_on_to(index, children, is_in_memory) {
            *descent = fresh;
        } else if index > descent.index {
            descent.steps += 1;
        }
        descent.index = index;
        descent.used = clock;
        descent
    }
}

impl Descent {
    /// Whether a scan that was at the last child can be at `index` now: what is between was in memory.
    fn goes_on_to(&self, index: usize, children: &[PageNo], is_in_memory: &dyn Fn(PageNo) -> bool) -> bool {
        let passed = children.get(self.index + 1..index);
        let was_in_memory = |passed: &[PageNo]| passed.iter().all(|child| is_in_memory(*child));
        index == self.index || passed.is_some_and(|passed| passed.len() <= PASSED_MAX && was_in_memory(passed))
    }

    fn plan(&mut self, children: &[PageNo], is_in_memory: &dyn Fn(PageNo) -> bool) -> Vec<PageNo> {
        let from = self.ahead.max(self.index + 1).min(children.len());
        let own = children[self.index].segment();
        let mut segments = BTreeSet::new();
        // The first page in each segment: reading that is coming to it.
        let mut firsts = Vec::new();
        let mut pages = Vec::new();
        self.ahead = children.len();
        for (at, child) in children.iter().enumerate().skip(from) {
            if child.segment() == own || is_in_memory(*child) {
                continue;
            }
            if !segments.contains(&child.segment()) && segments.len() == self.window {
                self.ahead = at;
                break;
            }
            if segments.insert(child.segment()) {
                firsts.push(*child);
            }
            pages.push(*child);
        }
        self.trigger = firsts.get(firsts.len() / 2).copied();
        pages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: PageNo = PageNo::FIRST;

    /// Children each in a segment of its own, in no order.
    fn scattered(count: u32) -> Vec<PageNo> {
        (0..count).map(|at| PageNo::new(at * 7 % count * 32 + 100).unwrap()).collect()
    }

    /// Reads these children; each brings its segment into memory, as does what is read ahead. Answers how many were
    /// waited for, and how many segments came.
    fn read(trees: &mut Trees, parent: PageNo, children: &[PageNo], indexes: impl Iterator<Item = usize>) -> (usize, usize) {
        let mut memory = BTreeSet::new();
        let mut waited = 0;
        for index in indexes {
            let child = children[index];
            let is_miss = !memory.contains(&child.segment());
            if is_miss || trees.is_trigger(child) {
                let ahead = trees.descend(parent, children, index, 100, &|page| memory.contains(&page.segment()));
                memory.extend(ahead.into_iter().map(PageNo::segment));
            }
            waited += usize::from(is_miss);
            memory.insert(child.segment());
        }
        (waited, memory.len())
    }

    #[test]
    fn a_scan_of_a_scattered_tree_waits_three_times_and_reads_nothing_else() {
        let children = scattered(400);
        assert_eq!(read(&mut Trees::default(), PARENT, &children, 0..400), (3, 400));
    }

    #[test]
    fn a_scan_that_ends_early_has_read_one_window_too_much_at_most() {
        let children = scattered(400);
        let (_, segments) = read(&mut Trees::default(), PARENT, &children, 0..100);
        assert!(segments <= 100 + WINDOW_MAX + WINDOW_MAX / 2, "{segments}");
    }

    #[test]
    fn points_read_nothing_ahead() {
        let children = scattered(400);
        let points = [5, 300, 7, 8, 200, 100, 101, 99, 0, 1, 399];
        assert_eq!(read(&mut Trees::default(), PARENT, &children, points.into_iter()), (11, 11));
        assert_eq!(read(&mut Trees::default(), PARENT, &children, (0..400).rev()), (400, 400));
    }

    #[test]
    fn leaves_that_share_segments_count_by_segment() {
        // As after a load in order: 32 leaves to a segment. A miss comes with every 32nd.
        let children: Vec<PageNo> = (0..400).map(|at| PageNo::new(at + 33).unwrap()).collect();
        let (waited, segments) = read(&mut Trees::default(), PARENT, &children, 0..400);
        assert_eq!((waited, segments), (3, 13));
    }

    #[test]
    fn the_next_parent_goes_on_at_the_same_pace() {
        let mut trees = Trees::default();
        let children = scattered(200);
        read(&mut trees, PARENT, &children, 0..200);
        let others: Vec<PageNo> = children.iter().map(|child| PageNo::new(child.get() + 100_000).unwrap()).collect();
        let (waited, _) = read(&mut trees, PageNo::new(2).unwrap(), &others, 0..200);
        assert_eq!(waited, 1);
    }

    #[test]
    fn the_latest_inner_pages_are_known() {
        let mut trees = Trees::default();
        (1..=6).for_each(|page| trees.saw_inner(PageNo::new(page).unwrap()));
        trees.saw_inner(PageNo::new(4).unwrap());
        assert_eq!(trees.parents().map(PageNo::get).collect::<Vec<_>>(), [4, 6, 5, 3]);
    }
}
