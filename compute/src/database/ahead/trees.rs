//! Children of an inner page that are read one after the other, up or down: which of their siblings to read ahead.
//!
//! The leaves of a tree that was not written in the order of its keys are all over the file, so their numbers say
//! nothing; their parent does. When the third child in a row of the same inner page is read, the next ones are read
//! ahead: those in one segment that is not in memory, then in 2, 4, … up to [`WINDOW_MAX`], again when half of them are
//! used up. A parent that is read to its end hands its pace to the next one that is read from where it begins that way.
//!
//! Pure: what is in memory is asked of the caller.

use std::borrow::Cow;
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
    /// The window of a parent that was read to its end, and which way.
    handed_on: Option<(Way, usize)>,
    clock: u64,
}

/// The order in which children are read. Their indexes in a [`Descent`] count in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Way {
    /// By ascending keys.
    #[default]
    Up,
    Down,
}

#[derive(Clone, Copy, Debug)]
struct Descent {
    parent: PageNo,
    /// As long as there were no steps, only a guess.
    way: Way,
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

impl Way {
    fn order(self, children: &[PageNo]) -> Cow<'_, [PageNo]> {
        match self {
            Self::Up => children.into(),
            Self::Down => children.iter().rev().copied().collect::<Vec<_>>().into(),
        }
    }

    /// Where a child is that has `index` by ascending keys, and the other way round.
    fn index(self, index: usize, count: usize) -> Option<usize> {
        match self {
            Self::Up => Some(index),
            Self::Down => count.checked_sub(index + 1),
        }
    }
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
        let known = self.descents.iter().position(|it| it.is_some_and(|it| it.parent == parent));
        let place = known.unwrap_or_else(|| {
            let age = |place: &usize| self.descents[*place].map_or(0, |descent| descent.used);
            (0..DESCENTS).min_by_key(age).expect("BUG: there is room for descents")
        });
        let followed = known.and_then(|place| self.descents[place]?.step_to(index, children, is_in_memory));
        let mut descent = followed.unwrap_or_else(|| self.begin(parent, index, children.len(), known.is_none()));
        descent.used = self.clock;
        let mut pages = Vec::new();
        if descent.steps >= STEPS_MIN && room > 0 {
            descent.window = (2 * descent.window).clamp(1, WINDOW_MAX).min(room);
            pages = descent.plan(children, is_in_memory);
            if descent.ahead >= children.len() {
                self.handed_on = Some((descent.way, descent.window));
            }
        }
        self.descents[place] = Some(descent);
        pages
    }

    /// A descent that begins at this child; `is_new`: of a parent that was not read lately.
    fn begin(&mut self, parent: PageNo, index: usize, count: usize, is_new: bool) -> Descent {
        let goes_on = |(way, _): &(Way, usize)| is_new && way.index(index, count) == Some(0);
        let (way, steps, window) = match self.handed_on.take_if(|handed_on| goes_on(handed_on)) {
            Some((way, window)) => (way, STEPS_MIN, window),
            None => (Way::Up, 0, 0),
        };
        let index = way.index(index, count).unwrap_or(index);
        Descent { parent, way, index, steps, window, ahead: 0, trigger: None, used: 0 }
    }
}

impl Descent {
    /// A scan that was at the last child is at the one with this index (by ascending keys), if it can be: what is between
    /// was in memory.
    fn step_to(self, index: usize, children: &[PageNo], is_in_memory: &dyn Fn(PageNo) -> bool) -> Option<Self> {
        let count = children.len();
        let last = self.way.index(self.index, count)?;
        if last == index {
            return Some(self);
        }
        let way = if self.steps > 0 {
            self.way
        } else if index > last {
            Way::Up
        } else {
            Way::Down
        };
        let (from, to) = (way.index(last, count)?, way.index(index, count)?);
        let order = way.order(children);
        let passed = order.get(from + 1..to)?;
        let goes_on = passed.len() <= PASSED_MAX && passed.iter().all(|child| is_in_memory(*child));
        goes_on.then_some(Self { way, index: to, steps: self.steps + 1, ..self })
    }

    fn plan(&mut self, children: &[PageNo], is_in_memory: &dyn Fn(PageNo) -> bool) -> Vec<PageNo> {
        let children = self.way.order(children);
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
        assert_eq!(read(&mut Trees::default(), PARENT, &children, (0..400).rev()), (3, 400));
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
        let points = [5, 300, 7, 8, 200, 100, 101, 99, 0, 1, 399, 50, 49, 51, 48];
        assert_eq!(read(&mut Trees::default(), PARENT, &children, points.into_iter()), (15, 15));
    }

    #[test]
    fn leaves_that_share_segments_count_by_segment() {
        // As after a load in order: 32 leaves to a segment. A miss comes with every 32nd.
        let children: Vec<PageNo> = (0..400).map(|at| PageNo::new(at + 33).unwrap()).collect();
        assert_eq!(read(&mut Trees::default(), PARENT, &children, 0..400), (3, 13));
        assert_eq!(read(&mut Trees::default(), PARENT, &children, (0..400).rev()), (3, 13));
    }

    #[test]
    fn the_next_parent_goes_on_at_the_same_pace_the_same_way() {
        let children = scattered(200);
        let others: Vec<PageNo> = children.iter().map(|child| PageNo::new(child.get() + 100_000).unwrap()).collect();
        let (up, down) = (|| (0..200).collect::<Vec<usize>>(), || (0..200).rev().collect());
        for (first, then, expected) in [(up(), up(), 1), (down(), down(), 1), (up(), down(), 3)] {
            let mut trees = Trees::default();
            read(&mut trees, PARENT, &children, first.into_iter());
            let (waited, _) = read(&mut trees, PageNo::new(2).unwrap(), &others, then.into_iter());
            assert_eq!(waited, expected);
        }
    }

    #[test]
    fn the_latest_inner_pages_are_known() {
        let mut trees = Trees::default();
        (1..=6).for_each(|page| trees.saw_inner(PageNo::new(page).unwrap()));
        trees.saw_inner(PageNo::new(4).unwrap());
        assert_eq!(trees.parents().map(PageNo::get).collect::<Vec<_>>(), [4, 6, 5, 3]);
    }
}
