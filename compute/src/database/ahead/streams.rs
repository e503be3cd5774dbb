//! Segments that are read one after the other: how far ahead of them to read.
//!
//! A **stream** is a run of segments, each right after the one before. The third one in a row that is not in memory
//! starts reading ahead: one segment, then 2, 4, … up to [`WINDOW_MAX`]. From then on the next ones are asked for when
//! a quarter of the window is used up, so a steady reader never waits. Something else read in between (the inner pages of a
//! tree, another table) does not end a stream: a few are followed at the same time, and the longest unused gives way.
//! A stream that breaks off is not followed any further: what was read ahead for it is at most one window.
//!
//! Pure: numbers in, numbers out.

use std::ops::Range;

/// Segments that one stream is ahead at most: 24 MiB, which at 40 ms for a request is over 600 MB/s.
pub const WINDOW_MAX: u32 = 192;

/// Steps of a stream from one segment to the next before anything is read ahead for it. With fewer, a point query whose
/// pages happen to be neighbours would read what it does not need.
const STEPS_MIN: u32 = 2;

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
    pub fn enter(&mut self, segment: u32, is_miss: bool, count: u32, room: impl FnOnce() -> u32) -> Range<u32> {
        self.clock += 1;
        let Some(stream) = self.streams.iter_mut().flatten().find(|stream| stream.reaches(segment)) else {
            self.begin(segment);
            return 0..0;
        };
        stream.used = self.clock;
        if segment > stream.last {
            stream.last = segment;
            stream.steps += 1;
        }
        stream.extend(is_miss, count, room)
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

    fn extend(&mut self, is_miss: bool, count: u32, room: impl FnOnce() -> u32) -> Range<u32> {
        let next = self.last + 1;
        let left = self.ahead.saturating_sub(next);
        let begins = self.window == 0 && is_miss && self.steps >= STEPS_MIN;
        let goes_on = self.window > 0 && left <= self.window - self.window / 4;
        let room = if begins || goes_on { room() } else { 0 };
        if room == 0 {
            return 0..0;
        }
        self.window = (2 * self.window).clamp(1, WINDOW_MAX);
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
            ahead.extend(streams.enter(segment, is_miss, 1_000, || room));
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
        let windows: Vec<u32> = (0..1_000).map(|at| streams.enter(at, at < 3, 1_000, || 1_000).len() as u32).collect();
        let first: Vec<u32> = windows.iter().copied().filter(|asked| *asked > 0).take(4).collect();
        assert_eq!(first, [1, 2, 3, 5]);
        let most = (0..900).map(|at| windows[..=at].iter().sum::<u32>() as usize + 3 - at).max();
        assert!(most <= Some(WINDOW_MAX as usize + 1), "{most:?}");
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
        assert!((0..1_000).all(|at| streams.enter(at, false, 1_000, || 1_000).is_empty()));
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
