//! Segments that are read one after the other: how far ahead of them to read.
//!
//! A **stream** is a run of segments, each right after the one before. The third one in a row that is not in memory
//! starts reading ahead: one segment, then 2, 4, … up to [`WINDOW_MAX`]. From then on the next ones are asked for when
//! a quarter of the window is used up, so a steady reader never waits. Something else read in between (the inner pages of a
//! tree, another table) does not end a stream: a few are followed at the same time, and the longest unused gives way.
//! A stream that breaks off is not followed any further: what was read ahead for it is at most one window.
//!
//! Who has read [many leaves in a row](super::run) is scanning: that starts reading ahead at the second segment, with a
//! window of [`RUN_FACTOR`] times what was read so far. Each doubling would otherwise cost another round trip.
//!
//! Pure: numbers in, numbers out.

use std::ops::Range;

use segments::page::SEGMENT_PAGES;

/// Segments that one stream is ahead at most: 64 MiB, which at 80 ms for the slowest request of a window is 800 MB/s.
/// What there is [room](pageserver::fetcher::Fetcher::room_ahead) for is less on most nodes.
pub const WINDOW_MAX: u32 = 512;

/// Steps of a stream from one segment to the next before anything is read ahead for it. With fewer, a point query whose
/// pages happen to be neighbours would read what it does not need.
const STEPS_MIN: u32 = 2;

/// Leaves in a row that no look-up of single rows reads.
const RUN_MIN: u32 = 16;

/// What a scan has read ahead in vain when it ends early, at most, against what it has read.
const RUN_FACTOR: u32 = 32;

const STREAMS: usize = 4;

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Streams {
    streams: [Option<Stream>; STREAMS],
    clock: u64,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    last: u32,
    steps: u32,
    window: u32,
    /// The first segment that was not asked for.
    ahead: u32,
    used: u64,
}

impl Streams {
    /// A reader has come to `segment`, of a database of `count` segments. Answers which segments to read ahead, at most
    /// `room`. Nothing is, as long as all that is read is in memory.
    /// The reader has read `run` leaves in a row.
    pub fn enter(
        &mut self,
        segment: u32,
        is_miss: bool,
        run: u32,
        count: u32,
        room: impl FnOnce() -> u32,
    ) -> Range<u32> {
        self.clock += 1;
        let now = self.clock;
        let Some(stream) = self.stream_at(segment) else {
            self.begin(segment);
            return 0..0;
        };
        stream.used = now;
        if segment > stream.last {
            stream.last = segment;
            stream.steps += 1;
        }
        stream.extend(is_miss, run, count, room)
    }

    /// Of what the latest answer said, nothing is read ahead from `segment` on: there is no room. The next ones are asked
    /// for when there is again room for some.
    pub fn stop_at(&mut self, segment: u32) {
        if let Some(latest) = self.streams.iter_mut().flatten().max_by_key(|stream| stream.used) {
            latest.ahead = latest.ahead.min(segment);
            latest.window = latest.window.min(latest.ahead.saturating_sub(latest.last + 1)).max(1);
        }
    }

    /// The stream that has come to `segment`. Of several, as when a scan comes by where it has read an inner page before,
    /// the one that is furthest ahead goes on alone: two would each read ahead for the same reader.
    fn stream_at(&mut self, segment: u32) -> Option<&mut Stream> {
        let reaches = |stream: &Option<Stream>| stream.is_some_and(|stream| stream.reaches(segment));
        let ahead = |at: &usize| self.streams[*at].map(|stream| stream.ahead);
        let furthest = (0..STREAMS).filter(|at| reaches(&self.streams[*at])).max_by_key(ahead)?;
        for (at, stream) in self.streams.iter_mut().enumerate() {
            if at != furthest && reaches(stream) {
                *stream = None;
            }
        }
        self.streams[furthest].as_mut()
    }

    fn begin(&mut self, segment: u32) {
        let oldest = self.streams.iter_mut().min_by_key(|stream| stream.map_or(0, |stream| stream.used));
        let oldest = oldest.expect("BUG: there is room for streams");
        *oldest = Some(Stream { last: segment, steps: 0, window: 0, ahead: segment + 1, used: self.clock });
    }
}

impl Stream {
    /// Whether `segment` is where it is, the next one, or one that was read ahead for it.
    fn reaches(&self, segment: u32) -> bool {
        (self.last..=self.ahead.max(self.last + 1)).contains(&segment)
    }

    fn extend(&mut self, is_miss: bool, run: u32, count: u32, room: impl FnOnce() -> u32) -> Range<u32> {
        let next = self.last + 1;
        let left = self.ahead.saturating_sub(next);
        let of_run = if run < RUN_MIN || self.steps == 0 { 0 } else { run.saturating_mul(RUN_FACTOR) / SEGMENT_PAGES };
        let begins = self.window == 0 && is_miss && (self.steps >= STEPS_MIN || of_run > 0);
        let goes_on = self.window > 0 && left <= self.window - self.window / 4;
        let room = if begins || goes_on { room() } else { 0 };
        if room == 0 {
            return 0..0;
        }
        self.window = (2 * self.window).max(of_run).clamp(1, WINDOW_MAX);
        let from = self.ahead.max(next);
        let upto = (next + self.window).min(from.saturating_add(room)).min(count);
        self.ahead = upto.max(from);
        from..self.ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads these segments; those that were read ahead are in memory. Answers what was waited for and what was read
    /// ahead, in order.
    fn read(segments: impl Iterator<Item = u32>, room: u32) -> (Vec<u32>, Vec<u32>) {
        let mut streams = Streams::default();
        let (mut missed, mut ahead) = (Vec::new(), Vec::new());
        for segment in segments {
            let is_miss = !ahead.contains(&segment);
            if is_miss {
                missed.push(segment);
            }
            ahead.extend(streams.enter(segment, is_miss, 1, 1_000, || room));
        }
        (missed, ahead)
    }

    #[test]
    fn a_scan_waits_three_times_and_reads_every_segment_once() {
        let (missed, ahead) = read(0..1_000, 1_000);
        assert_eq!(missed, [0, 1, 2]);
        assert_eq!(ahead, (3..1_000).collect::<Vec<_>>());
    }

    #[test]
    fn windows_grow_and_are_bounded() {
        let mut streams = Streams::default();
        let windows: Vec<u32> = (0..1_000).map(|at| streams.enter(at, at < 3, 1, 1_000, || 1_000).len() as u32).collect();
        let first: Vec<u32> = windows.iter().copied().filter(|asked| *asked > 0).take(4).collect();
        assert_eq!(first, [1, 2, 3, 5]);
        let most = (0..900).map(|at| windows[..=at].iter().sum::<u32>() as usize + 3 - at).max();
        assert!(most <= Some(WINDOW_MAX as usize + 1), "{most:?}");
    }

    #[test]
    fn a_scan_of_leaves_waits_twice_and_has_its_whole_window_soon() {
        let mut streams = Streams::default();
        let mut asked = 0;
        let ahead: Vec<u32> = (0..1_000)
            .map(|at| {
                let range = streams.enter(at, at >= asked, 32 * at, 10_000, || 10_000);
                asked = asked.max(at + 1).max(range.end);
                asked - at - 1
            })
            .collect();
        assert_eq!(ahead[..3], [0, 32, 31]);
        assert_eq!(ahead[9], 9 * RUN_FACTOR);
        assert!(ahead[100..].iter().all(|ahead| (WINDOW_MAX / 4 * 3..=WINDOW_MAX).contains(ahead)), "{ahead:?}");
        // A few rows in a row are no scan.
        let mut streams = Streams::default();
        assert!((0..2).all(|at| streams.enter(at, true, RUN_MIN - 1, 1_000, || 1_000).is_empty()));
    }

    #[test]
    fn a_scan_that_comes_by_another_stream_is_followed_once() {
        let mut streams = Streams::default();
        assert!(streams.enter(10, true, 0, 1_000, || 1_000).is_empty());
        let mut asked = Vec::new();
        for at in 0..100 {
            let is_miss = !asked.contains(&at);
            asked.extend(streams.enter(at, is_miss, 1, 1_000, || 1_000));
        }
        assert!(asked.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{asked:?}");
    }

    #[test]
    fn what_there_is_no_room_for_is_asked_for_again() {
        let mut streams = Streams::default();
        assert!(streams.enter(0, true, 0, 1_000, || 1_000).is_empty());
        assert_eq!(streams.enter(1, true, 32, 1_000, || 1_000), 2..34);
        streams.stop_at(10);
        assert!(streams.enter(2, false, 0, 1_000, || 1_000).is_empty(), "until there is room for a few");
        assert_eq!(streams.enter(3, false, 0, 1_000, || 1_000), 10..20);
    }

    #[test]
    fn points_read_nothing_ahead() {
        let points = [0, 700, 3, 4, 500, 90, 91, 20, 300, 10, 0, 1, 800];
        let (missed, ahead) = read(points.into_iter(), 1_000);
        assert_eq!((missed.len(), ahead), (points.len(), vec![]));
        let backwards = read((0..100).rev(), 1_000).1;
        assert!(backwards.is_empty());
    }

    #[test]
    fn what_is_in_memory_reads_nothing_ahead() {
        let mut streams = Streams::default();
        assert!((0..1_000).all(|at| streams.enter(at, false, 32, 1_000, || 1_000).is_empty()));
    }

    #[test]
    fn a_stream_survives_what_is_read_in_between_and_ends_where_it_breaks_off() {
        let mixed = (0..200).flat_map(|at| if at % 16 == 0 { vec![at, 900 - at] } else { vec![at] });
        let (missed, ahead) = read(mixed, 1_000);
        assert!(missed.iter().filter(|at| **at < 200).count() <= 3, "{missed:?}");
        assert!(ahead.iter().all(|at| *at < 200 + WINDOW_MAX + 1));
        let broken = (0..100).chain([500, 700, 600]);
        assert!(read(broken, 1_000).1.iter().all(|at| *at < 100 + WINDOW_MAX + 1));
    }

    #[test]
    fn without_room_it_waits_and_goes_on_later() {
        assert!(read(0..50, 0).1.is_empty());
        let (missed, ahead) = read(0..300, 4);
        assert_eq!(missed, [0, 1, 2]);
        assert_eq!(ahead, (3..ahead.len() as u32 + 3).collect::<Vec<_>>());
    }
}
