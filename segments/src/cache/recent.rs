//! The frames that came last, and those that were read ahead.
//!
//! A full cache prefers what is asked for often, and may drop what has just come. A statement that reads a segment page
//! by page would then fetch it for every page, and what is read ahead, which nobody has asked for yet, would never
//! stay. So a part of the memory keeps whatever came last. When it drops a frame that was used meanwhile, the cache is
//! asked once more whether it wants it.
//!
//! **A floor for each database.** What goes is the longest unused frame of the database that has the most here; of
//! several, of the one that has used its oldest least lately. So a flood of one pushes out its own, and a database keeps
//! what it has used last, as long as that is no more than an equal share. (Frames that forks share count as those of the
//! database that wrote them.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use walstore::id::DatabaseId;

use super::Place;
use crate::pack::Frame;

/// See the module documentation.
pub struct Recent {
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<Place, Entry>,
    databases: BTreeMap<DatabaseId, Share>,
    /// Who has how much, the most last.
    sizes: BTreeSet<Size>,
    clock: u64,
    bytes: usize,
    unread_bytes: usize,
}

struct Entry {
    frame: Frame,
    /// Read ahead, and not asked for yet.
    is_unread: bool,
    used: u64,
}

/// What one database has.
#[derive(Default)]
struct Share {
    /// The longest unused first.
    order: BTreeMap<u64, Place>,
    bytes: usize,
}

/// In the order in which databases give something up, the next one last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Size {
    bytes: usize,
    /// Larger the longer its oldest has not been used.
    age: u64,
    database: DatabaseId,
}

/// What was found.
pub struct Found {
    pub frame: Frame,
    /// It was read ahead, and this is the first time that somebody asks for it.
    pub is_first: bool,
}

impl Recent {
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, state: Mutex::default() }
    }

    pub fn get(&self, place: &Place) -> Option<Found> {
        let mut state = self.state();
        let now = state.tick();
        let State { entries, unread_bytes, .. } = &mut *state;
        let entry = entries.get_mut(place)?;
        let before = std::mem::replace(&mut entry.used, now);
        let is_first = std::mem::take(&mut entry.is_unread);
        if is_first {
            *unread_bytes -= entry.frame.weight_bytes();
        }
        let frame = entry.frame.clone();
        state.change(place.pack.owner, |share| {
            share.order.remove(&before);
            share.order.insert(now, *place);
        });
        Some(Found { frame, is_first })
    }

    pub fn contains(&self, place: &Place) -> bool {
        self.state().entries.contains_key(place)
    }

    /// Adds a frame and answers those that went for it and had been used.
    pub fn add(&self, place: Place, frame: Frame, is_unread: bool) -> Vec<(Place, Frame)> {
        let mut state = self.state();
        state.remove(&place);
        let used = state.tick();
        let bytes = frame.weight_bytes();
        state.bytes += bytes;
        state.unread_bytes += if is_unread { bytes } else { 0 };
        state.entries.insert(place, Entry { frame, is_unread, used });
        state.change(place.pack.owner, |share| {
            share.order.insert(used, place);
            share.bytes += bytes;
        });
        let mut gone = Vec::new();
        while state.bytes > self.bytes_max {
            let Some(place) = state.next_to_go() else { break };
            if let Some(entry) = state.remove(&place)
                && !entry.is_unread
            {
                gone.push((place, entry.frame));
            }
        }
        gone
    }

    /// Bytes that may still be read ahead, so that it does not push itself out before it is read: three quarters of all.
    pub fn room_ahead(&self) -> usize {
        (self.bytes_max / 4 * 3).saturating_sub(self.state().unread_bytes)
    }

    pub fn bytes(&self) -> usize {
        self.state().bytes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn next_to_go(&self) -> Option<Place> {
        let most = self.sizes.last()?;
        self.databases.get(&most.database)?.order.values().next().copied()
    }

    fn remove(&mut self, place: &Place) -> Option<Entry> {
        let entry = self.entries.remove(place)?;
        let bytes = entry.frame.weight_bytes();
        self.bytes -= bytes;
        self.unread_bytes -= if entry.is_unread { bytes } else { 0 };
        self.change(place.pack.owner, |share| {
            share.order.remove(&entry.used);
            share.bytes -= bytes;
        });
        Some(entry)
    }

    /// Changes what a database has, and where it stands among the others.
    fn change(&mut self, database: DatabaseId, change: impl FnOnce(&mut Share)) {
        let share = self.databases.entry(database).or_default();
        if let Some(size) = share.size(database) {
            self.sizes.remove(&size);
        }
        change(share);
        match share.size(database) {
            Some(size) => drop(self.sizes.insert(size)),
            None => drop(self.databases.remove(&database)),
        }
    }
}

impl Share {
    /// `None` if it is empty.
    fn size(&self, database: DatabaseId) -> Option<Size> {
        let (oldest, _) = self.order.first_key_value()?;
        Some(Size { bytes: self.bytes, age: u64::MAX - oldest, database })
    }
}
