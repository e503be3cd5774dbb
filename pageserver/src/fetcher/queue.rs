//! What waits to be fetched: whose turn it is, and what goes into one request.
//!
//! Databases take turns, a request each, so a scan or a fold of one of them makes the others wait for one request at
//! most. What somebody waits for goes before what is read ahead, and reading ahead gets a part of the requests and
//! bytes only, so there is always room for the former.
//!
//! Frames of one pack that wait at the same time and stand next to each other go in one request, up to a size that
//! does not take much longer than a single one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use segments::page::SEGMENT_BYTES;
use walstore::id::DatabaseId;

use super::wanted::Wanted;
use crate::limits;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Somebody waits for it.
    Now,
    /// Somebody probably will.
    Ahead,
}

/// What goes in one request, in the order of the object. It takes the memory of what comes and, as what came is decoded
/// one after the other, that of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub wanted: Vec<Wanted>,
    urgency: Urgency,
    bytes: usize,
}

impl Batch {
    /// What to ask for: all from the place `from` of the batch on, and the gaps between.
    pub fn range(&self, from: usize) -> Range<u64> {
        let ranges = self.wanted[from..].iter().map(Wanted::range);
        let around = |all: Range<u64>, it: Range<u64>| all.start.min(it.start)..all.end.max(it.end);
        ranges.reduce(around).expect("BUG: an empty batch")
    }
}

/// See the module documentation.
pub struct Queue {
    bytes_max: usize,
    now: Turns,
    ahead: Turns,
    running: Load,
    running_ahead: Load,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    requests: usize,
    bytes: usize,
}

/// Databases in the order of their turns, each with what it waits for.
#[derive(Default)]
struct Turns {
    order: VecDeque<DatabaseId>,
    waiting: BTreeMap<DatabaseId, Line>,
}

#[derive(Default)]
struct Line {
    order: VecDeque<Wanted>,
    /// What of `order` still waits.
    left: BTreeSet<Wanted>,
}

impl Queue {
    /// At most `bytes_max` are fetched at the same time, unless a single thing is larger.
    pub fn new(bytes_max: usize) -> Self {
        let (now, ahead) = (Turns::default(), Turns::default());
        Self { bytes_max, now, ahead, running: Load::default(), running_ahead: Load::default() }
    }

    pub fn push(&mut self, of: DatabaseId, wanted: Wanted, urgency: Urgency) {
        match urgency {
            Urgency::Now => self.now.push(of, wanted),
            Urgency::Ahead => self.ahead.push(of, wanted),
        }
    }

    /// Takes what is read ahead for one database out of the line, if it waits still.
    pub fn take_ahead(&mut self, of: DatabaseId, wanted: &Wanted) -> bool {
        self.ahead.waiting.get_mut(&of).is_some_and(|line| line.left.remove(wanted))
    }

    /// The next request, if there is room for it. It counts as running until it is [`done`](Self::done).
    pub fn next(&mut self) -> Option<Batch> {
        let batch = self.next_of(Urgency::Now).or_else(|| self.next_of(Urgency::Ahead))?;
        self.running.add(&batch);
        if batch.urgency == Urgency::Ahead {
            self.running_ahead.add(&batch);
        }
        Some(batch)
    }

    fn next_of(&mut self, urgency: Urgency) -> Option<Batch> {
        let (turns, running, requests_max, bytes_max) = match urgency {
            Urgency::Now => (&mut self.now, self.running, limits::FETCHES_MAX, self.bytes_max),
            Urgency::Ahead => (&mut self.ahead, self.running_ahead, limits::FETCHES_AHEAD_MAX, self.bytes_max / 4 * 3),
        };
        let all_have_room = self.running.requests < limits::FETCHES_MAX && self.running.bytes < self.bytes_max;
        if !(all_have_room && running.requests < requests_max && running.bytes < bytes_max) {
            return None;
        }
        let room = (bytes_max - running.bytes).min(self.bytes_max - self.running.bytes);
        let size_max = match urgency {
            Urgency::Now => limits::FETCH_BYTES_MAX,
            Urgency::Ahead => limits::FETCH_AHEAD_BYTES_MAX,
        };
        let wanted = turns.next(room.saturating_sub(SEGMENT_BYTES), size_max, running.requests == 0)?;
        let bytes = wanted.iter().map(Wanted::memory_bytes).sum::<usize>() + SEGMENT_BYTES;
        Some(Batch { wanted, urgency, bytes })
    }

    pub fn done(&mut self, batch: &Batch) {
        self.running.remove(batch);
        if batch.urgency == Urgency::Ahead {
            self.running_ahead.remove(batch);
        }
    }

    /// Bytes of memory that running requests take at most.
    pub fn bytes(&self) -> usize {
        self.running.bytes
    }
}

impl Load {
    fn add(&mut self, batch: &Batch) {
        self.requests += 1;
        self.bytes += batch.bytes;
    }

    fn remove(&mut self, batch: &Batch) {
        self.requests -= 1;
        self.bytes -= batch.bytes;
    }
}

impl Turns {
    fn push(&mut self, of: DatabaseId, wanted: Wanted) {
        let line = self.waiting.entry(of).or_insert_with(|| {
            self.order.push_back(of);
            Line::default()
        });
        if line.left.insert(wanted) {
            line.order.push_back(wanted);
        }
    }

    /// A request of the database whose turn it is, of at most `size_max` bytes. It may be larger than `room` only if it
    /// `may_overrun`.
    fn next(&mut self, room: usize, size_max: usize, may_overrun: bool) -> Option<Vec<Wanted>> {
        while let Some(of) = self.order.front().copied() {
            let line = self.waiting.get_mut(&of).expect("BUG: a turn without a line");
            let Some(first) = line.first() else {
                self.waiting.remove(&of);
                self.order.pop_front();
                continue;
            };
            if first.memory_bytes() > room && !may_overrun {
                return None;
            }
            let batch = line.take_around(first, size_max, room);
            self.order.rotate_left(1);
            return Some(batch);
        }
        None
    }
}

impl Line {
    fn first(&mut self) -> Option<Wanted> {
        while let Some(first) = self.order.front() {
            if self.left.contains(first) {
                return Some(*first);
            }
            self.order.pop_front();
        }
        None
    }

    /// Takes `first` and what stands next to it, on either side.
    fn take_around(&mut self, first: Wanted, stored_max: usize, room: usize) -> Vec<Wanted> {
        self.left.remove(&first);
        let mut size = Size { stored: first.stored_bytes(), memory: first.memory_bytes(), stored_max, room };
        let mut batch = VecDeque::from([first]);
        let mut last = first;
        while let Some(next) = self.left.range(last..).next().copied()
            && last.is_near(&next, limits::FETCH_GAP_BYTES_MAX)
            && size.grow(&next)
        {
            self.left.remove(&next);
            batch.push_back(next);
            last = next;
        }
        last = first;
        while let Some(before) = self.left.range(..last).next_back().copied()
            && before.is_near(&last, limits::FETCH_GAP_BYTES_MAX)
            && size.grow(&before)
        {
            self.left.remove(&before);
            batch.push_front(before);
            last = before;
        }
        batch.into()
    }
}

/// How large a request is so far.
struct Size {
    stored: usize,
    memory: usize,
    stored_max: usize,
    room: usize,
}

impl Size {
    fn grow(&mut self, by: &Wanted) -> bool {
        let (stored, memory) = (self.stored + by.stored_bytes(), self.memory + by.memory_bytes());
        let fits = stored <= self.stored_max && memory <= self.room;
        if fits {
            (self.stored, self.memory) = (stored, memory);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use segments::id::PackId;
    use segments::pack::{FrameAt, FrameRef};

    use super::*;

    const FRAME: u32 = 10_000;

    fn database(number: u8) -> DatabaseId {
        DatabaseId::from_bytes([number; 16])
    }

    /// The frame at `place` of a pack whose frames are of equal length, without gaps.
    fn frame(pack: u64, place: u32) -> Wanted {
        let pack = PackId { owner: database(9), epoch: 1, seq: 1, nonce: pack };
        Wanted::Frame(FrameAt { pack, frame: FrameRef { offset: 52 + place * FRAME, bytes: FRAME, crc: 0 } })
    }

    fn queue() -> Queue {
        Queue::new(1 << 30)
    }

    #[test]
    fn databases_take_turns_whatever_each_wants() {
        let mut queue = queue();
        // Every second frame of a pack: nothing to put together, as gaps are larger than they may be.
        (0..100).for_each(|at| queue.push(database(1), frame(1, at * 20), Urgency::Now));
        queue.push(database(2), frame(2, 0), Urgency::Now);
        queue.push(database(2), frame(2, 50), Urgency::Now);
        let order: Vec<Wanted> = std::iter::from_fn(|| queue.next()).flat_map(|batch| batch.wanted).take(5).collect();
        assert_eq!(order, [frame(1, 0), frame(2, 0), frame(1, 20), frame(2, 50), frame(1, 40)]);
    }

    #[test]
    fn neighbours_go_in_one_request_up_to_its_size() {
        let mut queue = queue();
        for at in [7, 3, 4, 5, 200, 8] {
            queue.push(database(1), frame(1, at), Urgency::Now);
        }
        queue.push(database(1), frame(2, 6), Urgency::Now);
        // The gap of one frame between 5 and 7 is small enough to be read too.
        let wanted = |queue: &mut Queue| queue.next().map(|batch| batch.wanted);
        assert_eq!(wanted(&mut queue), Some([3, 4, 5, 7, 8].map(|at| frame(1, at)).into()));
        assert_eq!(wanted(&mut queue), Some(vec![frame(1, 200)]));
        assert_eq!(wanted(&mut queue), Some(vec![frame(2, 6)]), "another pack");
        assert_eq!(wanted(&mut queue), None);

        (0..1_000).for_each(|at| queue.push(database(1), frame(3, at), Urgency::Now));
        let first = queue.next().unwrap();
        assert_eq!(first.wanted.len(), limits::FETCH_BYTES_MAX / FRAME as usize);
    }

    #[test]
    fn what_runs_is_bounded_in_requests_and_in_bytes() {
        let mut queue = queue();
        (0..1_000).for_each(|pack| queue.push(database(1), frame(pack, 0), Urgency::Now));
        let running: Vec<Batch> = std::iter::from_fn(|| queue.next()).collect();
        assert_eq!(running.len(), limits::FETCHES_MAX);
        queue.done(&running[0]);
        assert!(queue.next().is_some() && queue.next().is_none());

        let bytes_max = 10 * SEGMENT_BYTES;
        let mut queue = Queue::new(bytes_max);
        (0..1_000).for_each(|at| queue.push(database(1), frame(u64::from(at / 100), at), Urgency::Now));
        let batches = std::iter::from_fn(|| queue.next()).count();
        assert!(batches > 1 && queue.bytes() <= bytes_max, "{batches} of {} bytes", queue.bytes());
    }

    #[test]
    fn something_larger_than_all_room_goes_alone() {
        let mut queue = Queue::new(1);
        queue.push(database(1), frame(1, 0), Urgency::Now);
        queue.push(database(1), frame(1, 1), Urgency::Now);
        let first = queue.next().unwrap();
        assert_eq!((first.wanted.len(), queue.next()), (1, None));
        queue.done(&first);
        assert!(queue.next().is_some());
    }

    #[test]
    fn reading_ahead_leaves_room_and_can_become_urgent() {
        let mut queue = queue();
        (0..1_000).for_each(|pack| queue.push(database(1), frame(pack, 0), Urgency::Ahead));
        let ahead = std::iter::from_fn(|| queue.next()).count();
        assert_eq!(ahead, limits::FETCHES_AHEAD_MAX);
        assert!(queue.take_ahead(database(1), &frame(500, 0)) && !queue.take_ahead(database(1), &frame(500, 0)));
        assert!(!queue.take_ahead(database(1), &frame(0, 0)), "it runs");
        queue.push(database(1), frame(500, 0), Urgency::Now);
        assert_eq!(queue.next().unwrap().wanted, [frame(500, 0)]);
        assert_eq!(queue.next(), None);
    }
}
