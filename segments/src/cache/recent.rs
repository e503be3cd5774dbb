//! The frames that came last, and those that were read ahead.
//!
//! A full cache prefers what is asked for often, and may drop what has just come. A statement that reads a segment page
//! by page would then fetch it for every page, and what is read ahead, which nobody has asked for yet, would never
//! stay. So a part of the memory keeps whatever came last. When it drops a frame that was used meanwhile, the cache is
//! asked once more whether it wants it.
//!
//! What is read ahead is decoded as long as little of it waits, and the rest [kept as it is stored](StoredFrame): a scan
//! that is to keep up with a store that takes long has much on its way, of which it needs little at a time. It is
//! [decoded](Recent::decode_next) in the order in which it came, by whoever has time, or when it is asked for.
//!
//! While a frame waits, those before it are used, and others are read ahead, so it would be the longest unused and go just
//! before its turn. So it counts as used some time after it came ([`WAITS`]). Who gave up his scan leaves nothing behind
//! for ever.
//!
//! **A floor for each database.** What goes is the longest unused frame of the database that has the most here; of
//! several, of the one that has used its oldest least lately. So a flood of one pushes out its own, and a database keeps
//! what it has used last, as long as that is no more than an equal share. (Frames that forks share count as those of the
//! database that wrote them.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use walstore::id::DatabaseId;

use super::Place;
use crate::pack::{Frame, StoredFrame};
use crate::page::SEGMENT_BYTES;

/// How many frames come or are used before one that waits to be asked for is as old as one that was just used: twice as
/// many as one scan reads ahead.
const WAITS: u64 = 1024;

/// Frames that wait and are left to those who ask for them: they are there before somebody else has decoded them.
const LEFT_TO_READERS: usize = 3;

/// Bytes that an entry costs besides its content. It stands in three trees, whose nodes are little more than half full
/// when things come in their order; and its content is an allocation, with a count of who shares it.
pub const ENTRY_BYTES: usize = 480;

const _: () = assert!(ENTRY_BYTES >= 2 * (size_of::<(Place, Entry)>() + 2 * size_of::<(u64, Place)>()) + 48);

/// See the module documentation.
pub struct Recent {
    bytes_max: AtomicUsize,
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
    unread: Unread,
    /// What was read ahead and is to be decoded, the first to come first.
    waiting: BTreeMap<u64, Place>,
}

/// Bytes that were read ahead, and not asked for yet.
#[derive(Default)]
struct Unread {
    decoded: usize,
    stored: usize,
}

pub enum Content {
    Decoded(Frame),
    Stored(StoredFrame),
}

struct Entry {
    content: Content,
    /// Read ahead, and not asked for yet.
    is_unread: bool,
    /// When it was used, as its database orders them.
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
    /// What went because it was decoded, and had been used.
    pub gone: Vec<(Place, Frame)>,
}

impl Content {
    fn weight_bytes(&self) -> usize {
        let content = match self {
            Self::Decoded(frame) => frame.weight_bytes(),
            Self::Stored(frame) => frame.weight_bytes(),
        };
        content + ENTRY_BYTES
    }
}

impl Unread {
    fn of(&mut self, content: &Content) -> &mut usize {
        match content {
            Content::Decoded(_) => &mut self.decoded,
            Content::Stored(_) => &mut self.stored,
        }
    }
}

impl Recent {
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max: AtomicUsize::new(bytes_max), state: Mutex::default() }
    }

    fn bytes_max(&self) -> usize {
        self.bytes_max.load(Ordering::Relaxed)
    }

    /// Keeps so many bytes from now on, and answers what went for that and had been used.
    pub fn limit(&self, bytes_max: usize) -> Vec<(Place, Frame)> {
        // Who swaps after another one sees what that one saw.
        if self.bytes_max.swap(bytes_max, Ordering::AcqRel) <= bytes_max {
            return Vec::new();
        }
        self.state().shrink(bytes_max)
    }

    pub fn get(&self, place: &Place) -> Option<Found> {
        let stored = {
            let mut state = self.state();
            match &state.entries.get(place)?.content {
                Content::Decoded(_) => return state.get(place),
                Content::Stored(stored) => stored.clone(),
            }
        };
        self.decode(place, &stored)
    }

    /// Decodes an entry that is asked for, while nobody is kept from the others.
    fn decode(&self, place: &Place, stored: &StoredFrame) -> Option<Found> {
        let frame = stored.decode();
        let mut state = self.state();
        state.remove(place);
        // If it cannot be decoded, it is missing, and what is wrong with it turns out when it is fetched.
        let frame = frame.ok()?;
        let gone = state.add(*place, Content::Decoded(frame.clone()), false, self.bytes_max());
        Some(Found { frame, is_first: true, gone })
    }

    pub fn contains(&self, place: &Place) -> bool {
        self.state().entries.contains_key(place)
    }

    /// Adds a frame and answers those that went for it and had been used.
    pub fn add(&self, place: Place, content: Content, is_unread: bool) -> Vec<(Place, Frame)> {
        self.state().add(place, content, is_unread, self.bytes_max())
    }

    /// Bytes that may still be read ahead, so that it does not push itself out before it is read: three quarters of all.
    pub fn room_ahead(&self) -> usize {
        let state = self.state();
        (self.bytes_max() / 4 * 3).saturating_sub(state.unread.stored + state.unread.decoded)
    }

    /// Whether what comes next of what is read ahead is to be decoded at once.
    pub fn is_next_to_decode(&self) -> bool {
        let state = self.state();
        state.waiting.is_empty() && state.unread.decoded + SEGMENT_BYTES <= self.bytes_max() / 4
    }

    /// Whether there is so much to decode that somebody should begin with it.
    pub fn wants_decoding(&self) -> bool {
        let state = self.state();
        state.waiting.len() > LEFT_TO_READERS && state.unread.decoded <= self.bytes_max() / 8
    }

    /// Decodes the next frame that waits for it, if there is room. `None` if there is nothing to do.
    pub fn decode_next(&self) -> Option<Vec<(Place, Frame)>> {
        let (place, stored) = {
            let mut state = self.state();
            let has_room = state.unread.decoded + SEGMENT_BYTES <= self.bytes_max() / 4;
            let (at, place) = state.waiting.iter().nth(LEFT_TO_READERS).filter(|_| has_room).map(|(at, it)| (*at, *it))?;
            state.waiting.remove(&at);
            match &state.entries.get(&place)?.content {
                Content::Stored(stored) => (place, stored.clone()),
                Content::Decoded(_) => return Some(Vec::new()),
            }
        };
        match stored.decode() {
            Ok(frame) => Some(self.state().decoded(place, frame, self.bytes_max())),
            // Whoever asks for it finds out.
            Err(_) => Some(Vec::new()),
        }
    }

    pub fn bytes(&self) -> usize {
        self.state().bytes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Even, so that there are others in between for what waits.
    fn tick(&mut self) -> u64 {
        self.clock += 2;
        self.clock
    }

    /// An entry that is decoded.
    fn get(&mut self, place: &Place) -> Option<Found> {
        let now = self.tick();
        let entry = self.entries.get_mut(place)?;
        let Content::Decoded(frame) = &entry.content else { return None };
        let frame = frame.clone();
        let before = std::mem::replace(&mut entry.used, now);
        let is_first = std::mem::take(&mut entry.is_unread);
        if is_first {
            self.unread.decoded -= entry.content.weight_bytes();
        }
        self.change(place.pack.owner, |share| {
            share.order.remove(&before);
            share.order.insert(now, *place);
        });
        Some(Found { frame, is_first, gone: Vec::new() })
    }

    fn add(&mut self, place: Place, content: Content, is_unread: bool, bytes_max: usize) -> Vec<(Place, Frame)> {
        self.remove(&place);
        let used = self.tick() + if is_unread { 2 * WAITS + 1 } else { 0 };
        self.put(place, Entry { content, is_unread, used });
        self.shrink(bytes_max)
    }

    /// A frame that waits is decoded now, unless it is gone, or was decoded by who asked for it.
    fn decoded(&mut self, place: Place, frame: Frame, bytes_max: usize) -> Vec<(Place, Frame)> {
        match self.entries.get(&place) {
            Some(Entry { content: Content::Stored(_), is_unread: true, used }) => {
                let used = *used;
                self.remove(&place);
                self.put(place, Entry { content: Content::Decoded(frame), is_unread: true, used });
                self.shrink(bytes_max)
            }
            _ => Vec::new(),
        }
    }

    fn put(&mut self, place: Place, entry: Entry) {
        let (bytes, used) = (entry.content.weight_bytes(), entry.used);
        self.bytes += bytes;
        if entry.is_unread {
            *self.unread.of(&entry.content) += bytes;
            if matches!(entry.content, Content::Stored(_)) {
                self.waiting.insert(used, place);
            }
        }
        self.entries.insert(place, entry);
        self.change(place.pack.owner, |share| {
            share.order.insert(used, place);
            share.bytes += bytes;
        });
    }

    /// Answers what went and had been used.
    fn shrink(&mut self, bytes_max: usize) -> Vec<(Place, Frame)> {
        let mut gone = Vec::new();
        while self.bytes > bytes_max {
            let Some(place) = self.next_to_go() else { break };
            if let Some(Entry { content: Content::Decoded(frame), is_unread: false, .. }) = self.remove(&place) {
                gone.push((place, frame));
            }
        }
        gone
    }

    fn next_to_go(&self) -> Option<Place> {
        let most = self.sizes.last()?;
        self.databases.get(&most.database)?.order.values().next().copied()
    }

    fn remove(&mut self, place: &Place) -> Option<Entry> {
        let entry = self.entries.remove(place)?;
        let bytes = entry.content.weight_bytes();
        self.bytes -= bytes;
        self.waiting.remove(&entry.used);
        if entry.is_unread {
            *self.unread.of(&entry.content) -= bytes;
        }
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
