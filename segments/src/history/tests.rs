use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use walstore::envelope::{self, HEADER_BYTES, Kind};
use walstore::id::DatabaseId;

use super::*;
use crate::id::MapChunkId;
use crate::limits;

const OWNER: DatabaseId = DatabaseId::from_bytes([3; 16]);

fn lsn(lsn: u64) -> Lsn {
    Lsn::new(lsn).unwrap()
}

fn object_id(seq: u32) -> MapChunkId {
    MapChunkId { owner: OWNER, epoch: 1, seq, nonce: 7 }
}

fn base(at: u64) -> BaseRef {
    BaseRef { id: object_id(at as u32), bytes: 100, crc: at as u32 }
}

/// The run up to `last`; commits are a millisecond apart.
fn run(first: u64, last: u64) -> Run {
    let pack = PackId { owner: OWNER, epoch: 1, seq: last as u32, nonce: 8 };
    let section = Section { offset: 52, bytes: 64 << 10, crc: 9 };
    Run { pack, section, first: lsn(first), last: lsn(last), last_micros: last * 1000 }
}

/// A history of `commits` commits with an index, and the chunks that it has in the bucket.
#[derive(Default)]
struct World {
    index: HistoryIndex,
    objects: BTreeMap<MapChunkId, Bytes>,
    horizon: u64,
    spills: u32,
}

impl World {
    /// What a fold of the next `commits` commits does.
    fn fold(&mut self, commits: u64, page_count: u32) {
        let end = Lsn::raw(self.index.end());
        if self.index.wants_base(page_count, 2 * commits) {
            self.index.add_base(lsn(end), base(end));
        }
        self.index.add_run(run(end + 1, end + commits), 2 * commits);
        if self.index.spill_is_due() {
            let extended = self.index.chunk_to_extend().map(|reference| self.read(reference));
            self.spills += 1;
            let id = object_id(1_000_000 + self.spills);
            let object = self.index.spill(extended, id);
            self.objects.insert(id, object);
        }
    }

    fn read(&self, reference: &HistoryChunkRef) -> HistoryChunk {
        HistoryChunk::open(&self.objects[&reference.id], reference).unwrap()
    }

    fn trim(&mut self, cutoff_micros: u64) {
        if let Some(horizon) = self.index.horizon_at(cutoff_micros).filter(|found| found.get() > self.horizon) {
            assert!(horizon.get() * 1000 <= cutoff_micros);
            self.horizon = horizon.get();
            self.index.trim(horizon);
        }
    }

    fn path(&self, at: u64) -> Option<Path> {
        let chunks: Vec<_> = self.index.chunks_towards(lsn(at)).iter().map(|chunk| self.read(chunk)).collect();
        self.index.path(lsn(at), &chunks)
    }

    /// The newest commit with a time up to `micros`, as a reader finds it.
    fn at(&self, micros: u64) -> u64 {
        let run = match self.index.at_time(micros) {
            AtTime::AtEnd => return Lsn::raw(self.index.end()),
            AtTime::Run(run) => *run,
            AtTime::In(reference) => *self.read(reference).at_time(micros).expect("the reference says that it is there"),
        };
        (run.first.get()..=run.last.get()).take_while(|at| at * 1000 <= micros).last().unwrap_or(run.first.get() - 1)
    }

    fn check(&self, at: u64) {
        let path = self.path(at).unwrap_or_else(|| panic!("no path to {at}, horizon {}", self.horizon));
        let mut end = match path.start {
            Start::Empty => 0,
            Start::Stored { lsn, base: found } => {
                assert_eq!(found, base(lsn.get()));
                lsn.get()
            }
        };
        assert!(end <= at);
        for found in &path.runs {
            assert!(found.first.get() <= end + 1 && found.first.get() <= at && found.last.get() > end);
            assert_eq!(*found, run(found.first.get(), found.last.get()));
            end = found.last.get();
        }
        assert!(end >= at);
        // No more is replayed than from one base to the next.
        let weight: u64 = path.runs.iter().map(|run| u64::from(run.section.bytes)).sum();
        assert!(weight <= limits::HISTORY_BASE_BYTES_MIN + 2 * (64 << 10), "{weight} bytes to replay");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Fold { commits: u64 },
    Trim { age: u64 },
    Pin,
    /// Nothing is kept for a while.
    Pause { commits: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        200 => (1u64..5).prop_map(|commits| Step::Fold { commits }),
        4 => (0u64..900).prop_map(|age| Step::Trim { age }),
        4 => Just(Step::Pin),
        1 => (1u64..50).prop_map(|commits| Step::Pause { commits }),
    ]
}

proptest! {
    #[test]
    fn every_commit_of_the_window_has_a_path_and_every_time_its_commit(
        steps in proptest::collection::vec(step(), 1..700),
        asked in proptest::collection::vec(any::<prop::sample::Index>(), 20),
    ) {
        let mut world = World::default();
        let mut pins = Vec::new();
        for step in steps {
            let end = Lsn::raw(world.index.end());
            match step {
                Step::Fold { commits } => world.fold(commits, 10),
                Step::Trim { age } => world.trim((end * 1000).saturating_sub(age * 1000)),
                Step::Pin if end == 0 => {}
                Step::Pin => {
                    prop_assert!(world.index.pin(lsn(end), base(end)));
                    pins.push(end);
                }
                Step::Pause { commits } => {
                    world.index.begin_at(Lsn::new(end + commits));
                    world.horizon = end + commits;
                }
            }
            let bytes = world.index.encode();
            prop_assert!(bytes.len() <= limits::HISTORY_INDEX_BYTES_MAX);
            prop_assert_eq!(HistoryIndex::decode(&bytes), Ok(world.index.clone()));
        }
        // The horizon itself is the state that a base or the folded point has.
        let (first, end) = (world.horizon, Lsn::raw(world.index.end()));
        for at in asked {
            let at = first + at.index((end - first) as usize + 1) as u64;
            let is_found_elsewhere = at == end && world.index.is_empty();
            if at > 0 && !is_found_elsewhere {
                world.check(at);
            }
            for micros in [at * 1000, at * 1000 + 999] {
                prop_assert_eq!(world.at(micros.max(first * 1000)), at);
            }
        }
        for pin in pins {
            prop_assert_eq!(world.index.base_at(lsn(pin)).is_some(), true, "{}", pin);
        }
    }

    #[test]
    fn hostile_bytes_never_panic(at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
        let (index, chunk) = sample();
        let mut bytes = index.encode().to_vec();
        let position = at.index(bytes.len());
        bytes[position] = byte;
        bytes.truncate(cut.index(bytes.len() * 4));
        if let Ok(index) = HistoryIndex::decode(&bytes) {
            for at in [1, 5, 17, 18, 40, u64::MAX] {
                let _ = (index.path(lsn(at), &[]), index.chunks_towards(lsn(at)), index.horizon_at(at), index.at_time(at));
                let mut trimmed = index.clone();
                trimmed.trim(lsn(at));
            }
        }
        let reference = index.chunks()[0];
        let mut body = chunk[HEADER_BYTES..].to_vec();
        let position = at.index(body.len());
        body[position] = byte;
        let object = envelope::seal(Kind::History, 1, &body);
        let forged = HistoryChunkRef { bytes: object.len() as u32, crc: crc32c::crc32c(&object), ..reference };
        let _ = HistoryChunk::open(&object, &forged);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = HistoryIndex::decode(&bytes);
    }
}

/// An index with everything, and the object of its chunk.
fn sample() -> (HistoryIndex, Bytes) {
    let mut index = HistoryIndex::default();
    index.begin_at(Some(lsn(4)));
    index.add_base(lsn(4), base(4));
    for last in 5..=limits::HISTORY_ENTRIES_KEPT as u64 + 5 {
        index.add_run(run(last, last), 300);
    }
    let object = index.spill(None, object_id(99));
    let end = Lsn::raw(index.end());
    index.add_base(lsn(end), base(end));
    index.add_run(run(end + 1, end + 300), 200);
    assert!(index.pin(lsn(3), base(3)) && index.pin(lsn(end), base(end)));
    (index, object)
}

#[test]
fn golden_history() {
    let (index, object) = sample();
    assert_eq!((index.chunks().len(), index.chunks()[0].entry_count), (1, 2));
    let body = envelope::open_as(&object, Kind::History, 1, limits::HISTORY_CHUNK_BYTES_MAX).unwrap();
    // The reference to the chunk has a checksum of what zstd made of it.
    let mut without = index.clone();
    without.chunks[0].bytes = 1;
    without.chunks[0].crc = 2;
    let hashes = [&without.encode()[..], &body].map(|bytes| blake3::hash(bytes).to_hex()[..16].to_owned());
    assert_eq!(hashes.join("\n"), include_str!("../../golden/history.b3").trim());
}

/// What earlier builds have written.
#[test]
fn an_index_that_counts_no_pages_is_read() {
    let (index, _) = sample();
    let bytes = index.encode().to_vec();
    // Version and start take a byte each, the weight of one run three, the pages two.
    let without: Vec<u8> = [&[1], &bytes[1..5], &bytes[7..]].concat();
    assert_eq!(bytes[5..7], [200, 1]);
    assert_eq!(HistoryIndex::decode(&without), Ok(HistoryIndex { since_base_pages: 0, ..index }));
}

#[test]
fn a_base_comes_before_too_many_pages_have_to_be_replayed() {
    // A large database, whose commits are short: their weight asks for none.
    let (mut index, page_count, max) = (HistoryIndex::default(), 1 << 20, limits::HISTORY_BASE_PAGES_MAX);
    let (mut end, mut since, mut bases) = (0, 0, 0);
    for pages in [max / 2, max / 2, 1, max, 3 * max, 1, 1, max - 2, 1].repeat(3) {
        if index.wants_base(page_count, pages) {
            index.add_base(lsn(end), base(end));
            (since, bases) = (0, bases + 1);
        }
        index.add_run(run(end + 1, end + 1), pages);
        (end, since) = (end + 1, since + pages);
        assert!(since <= max || since == pages, "{since} pages after {end} commits");
    }
    assert_eq!(bases, 15);
    assert_eq!(index.since_base_bytes, 64 << 10);
}

#[test]
fn an_index_of_nothing_is_no_bytes_and_pins_outlast_history() {
    assert!(HistoryIndex::default().encode().is_empty());
    assert_eq!(HistoryIndex::decode(&[]), Ok(HistoryIndex::default()));
    let (mut index, _) = sample();
    index.clear();
    assert!(index.is_empty());
    assert_eq!(HistoryIndex::decode(&index.encode()), Ok(index.clone()));
    assert_eq!(index.base_at(lsn(3)), Some(base(3)));
    index.retain_pinned(|_| false);
    assert!(index.encode().is_empty());
}

#[test]
fn a_full_index_gives_up_its_oldest_part_rather_than_the_head() {
    let mut world = World::default();
    let mut commits = 0;
    while world.index.horizon_forced().is_none() {
        // Every chunk counts as full: so that there are many soon.
        for chunk in &mut world.index.chunks {
            chunk.entry_count = limits::HISTORY_CHUNK_ENTRIES_MAX as u32;
        }
        world.fold(1, 10);
        commits += 1;
        assert!(commits < 200_000);
    }
    let forced = world.index.horizon_forced().unwrap();
    world.index.trim(forced);
    assert!(world.index.chunks().len() < limits::HISTORY_CHUNKS_MAX * 4 / 5);
    assert!(world.index.encode().len() <= limits::HISTORY_INDEX_BYTES_MAX);
}

#[test]
fn chunks_of_other_indexes_are_refused() {
    let (index, object) = sample();
    let reference = index.chunks()[0];
    assert!(HistoryChunk::open(&object, &reference).is_ok());
    for other in [
        HistoryChunkRef { entry_count: 3, ..reference },
        HistoryChunkRef { end: lsn(6), ..reference },
        HistoryChunkRef { last_base: None, ..reference },
        HistoryChunkRef { id: object_id(98), ..reference },
    ] {
        assert!(HistoryChunk::open(&object, &other).is_err(), "{other:?}");
    }
}
