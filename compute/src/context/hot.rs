//! What databases that were closed had in use: the segments with the inner pages of their trees, which every query goes
//! through. The next opening reads them ahead, if they are not in memory any more.
//!
//! A few numbers for a database, for so many of them that it does not matter; the longest closed are forgotten first.
//! A wrong guess costs a read and nothing else.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use segments::page::SegmentNo;
use walstore::id::DatabaseId;

use crate::limits;

/// The latest segments in which inner pages were read, the latest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HotSegments([Option<SegmentNo>; limits::HOT_SEGMENTS_MAX]);

impl HotSegments {
    pub fn note(&mut self, segment: SegmentNo) {
        let known = self.0.iter().position(|it| *it == Some(segment));
        let last = known.unwrap_or(self.0.len() - 1);
        self.0[..=last].rotate_right(1);
        self.0[0] = Some(segment);
    }

    pub fn iter(&self) -> impl Iterator<Item = SegmentNo> {
        self.0.into_iter().flatten()
    }
}

/// Of the closed databases of a node.
#[derive(Default)]
pub struct HotSets(Mutex<Sets>);

#[derive(Default)]
struct Sets {
    by_database: BTreeMap<DatabaseId, HotSegments>,
    /// The longest closed first.
    order: VecDeque<DatabaseId>,
}

impl HotSets {
    /// The database is closed.
    pub fn remember(&self, database: DatabaseId, segments: HotSegments) {
        let mut sets = self.sets();
        if sets.by_database.insert(database, segments).is_none() {
            sets.order.push_back(database);
        }
        if sets.order.len() > limits::HOT_SETS_MAX
            && let Some(oldest) = sets.order.pop_front()
        {
            sets.by_database.remove(&oldest);
        }
    }

    /// The database is opened.
    pub fn of(&self, database: DatabaseId) -> HotSegments {
        self.sets().by_database.get(&database).copied().unwrap_or_default()
    }

    fn sets(&self) -> MutexGuard<'_, Sets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(number: u32) -> SegmentNo {
        SegmentNo::new(number).unwrap()
    }

    #[test]
    fn the_latest_segments_are_kept_once_each() {
        let mut hot = HotSegments::default();
        [9, 1, 2, 1, 3, 4, 1].into_iter().for_each(|number| hot.note(segment(number)));
        assert_eq!(hot.iter().map(SegmentNo::get).collect::<Vec<_>>(), [1, 4, 3, 2]);
    }

    #[test]
    fn the_longest_closed_databases_are_forgotten() {
        let sets = HotSets::default();
        let database = |number: usize| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(number as u64).to_be_bytes());
            DatabaseId::from_bytes(id)
        };
        let mut hot = HotSegments::default();
        hot.note(segment(7));
        for number in 0..limits::HOT_SETS_MAX + 10 {
            sets.remember(database(number), hot);
            sets.remember(database(number), hot);
        }
        assert_eq!(sets.sets().by_database.len(), limits::HOT_SETS_MAX);
        assert_eq!((sets.of(database(9)), sets.of(database(10))), (HotSegments::default(), hot));
    }
}
