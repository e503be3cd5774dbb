//! The frames that came last, and those that were read ahead.
//!
//! A full cache prefers what is asked for often, and may drop what has just come. A statement that reads a segment page
//! by page would then fetch it for every page, and what is read ahead, which nobody has asked for yet, would never
//! stay. So a small part of the memory keeps whatever came last. When it drops a frame that was used meanwhile, the
//! cache is asked once more whether it wants it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    /// The longest unused first.
    order: BTreeMap<u64, Place>,
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
        let State { entries, order, unread_bytes, .. } = &mut *state;
        let entry = entries.get_mut(place)?;
        order.remove(&entry.used);
        order.insert(now, *place);
        entry.used = now;
        let is_first = std::mem::take(&mut entry.is_unread);
        if is_first {
            *unread_bytes -= entry.frame.weight_bytes();
        }
        Some(Found { frame: entry.frame.clone(), is_first })
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
        state.order.insert(used, place);
        state.entries.insert(place, Entry { frame, is_unread, used });
        let mut gone = Vec::new();
        while state.bytes > self.bytes_max {
            let Some((_, place)) = state.order.first_key_value() else { break };
            let place = *place;
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

    fn remove(&mut self, place: &Place) -> Option<Entry> {
        let entry = self.entries.remove(place)?;
        self.order.remove(&entry.used);
        self.bytes -= entry.frame.weight_bytes();
        if entry.is_unread {
            self.unread_bytes -= entry.frame.weight_bytes();
        }
        Some(entry)
    }
}
