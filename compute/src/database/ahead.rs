//! Reading ahead for a connection: what it reads says what it will read next.
//!
//! [`streams`] sees segments that follow each other, [`trees`] children of the same inner page. Both plan only; the
//! node's fetcher reads, as far as there is room ([`pageserver::fetcher::Fetcher::room_ahead`]). As long as everything
//! that is read is in memory, nothing is planned.

mod run;
mod streams;
mod trees;

use std::cell::RefCell;
use std::ops::Range;

use segments::btree::BtreePage;
use segments::map::Lookup;
use segments::pack::FrameAt;
use segments::page::{Page, PageNo, SEGMENT_BYTES, SegmentNo};

use self::run::Run;
use self::streams::Streams;
use self::trees::Trees;
use super::{Database, Snapshot};

/// Segments that are compressed better than this are read ahead in smaller windows.
const STORED_BYTES_MIN: usize = 4 << 10;

/// What one connection has read lately.
#[derive(Default)]
pub struct ReadAhead(RefCell<State>);

#[derive(Default)]
struct State {
    run: Run,
    streams: Streams,
    trees: Trees,
}

impl ReadAhead {
    /// A page was read.
    pub fn saw(&self, database: &Database, page_no: PageNo, page: &Page) {
        let page = BtreePage::parse(page_no, page);
        let is_interior = page.is_some_and(|page| page.is_interior());
        let mut state = self.0.borrow_mut();
        if !is_interior {
            state.run.saw(page_no, page.is_some());
        } else {
            state.trees.saw_inner(page_no);
            let mut hot = database.hot.get();
            hot.note(page_no.segment());
            database.hot.set(hot);
        }
    }

    pub fn end_statement(&self) {
        let mut state = self.0.borrow_mut();
        state.trees.end_statement();
        state.run = Run::default();
    }

    /// The connection has come to another segment than before, or to one that is not in memory.
    pub fn enter(&self, database: &Database, snapshot: &Snapshot, page_no: PageNo, is_miss: bool) {
        let state = &mut *self.0.borrow_mut();
        let fetcher = &database.node.fetcher;
        let count = SegmentNo::count_of(snapshot.base.tip.page_count);
        // As many segments as there may be room for; how many there is depends on how well they are compressed.
        let room = || u32::try_from(fetcher.room_ahead() / STORED_BYTES_MIN).unwrap_or(u32::MAX);
        let segments = state.streams.enter(page_no.segment().get(), is_miss, state.run.leaves(), count, room);
        if !segments.is_empty() {
            state.read_segments(database, snapshot, segments);
        }
        fetcher.decode_ahead();
        if is_miss || state.trees.is_trigger(page_no) {
            state.look_at_siblings(database, snapshot, page_no);
        }
    }
}

impl Database {
    /// It is open again: what it had in use when it was closed is read ahead. Only as far as its page map is in memory.
    pub fn warm_up(&self) {
        let (base, fetcher) = (self.base(), &self.node.fetcher);
        let hot = self.node.hot.of(self.id);
        let sources = hot.iter().map(|segment| base.sources(fetcher.cache(), segment));
        let frames = sources.flat_map(|sources| sources.frames().collect::<Vec<_>>());
        fetcher.read_ahead(self.id, frames.filter(|at| !base.is_in_head(at)));
        self.hot.set(hot);
    }
}

impl State {
    fn read_segments(&mut self, database: &Database, snapshot: &Snapshot, segments: Range<u32>) {
        let fetcher = &database.node.fetcher;
        let mut room = fetcher.room_ahead();
        let mut frames = Vec::new();
        for segment in segments.filter_map(SegmentNo::new) {
            let sources = snapshot.base.sources(fetcher.cache(), segment);
            let is_missing = |at: &FrameAt| !snapshot.base.is_in_head(at) && !fetcher.cache().has_frame(at);
            let missing: Vec<FrameAt> = sources.frames().filter(is_missing).collect();
            let Some(left) = room.checked_sub(missing.iter().map(|at| at.frame.bytes as usize).sum()) else {
                self.streams.stop_at(segment.get());
                break;
            };
            room = left;
            frames.extend(missing);
        }
        fetcher.read_ahead(database.id, frames.into_iter());
    }

    fn look_at_siblings(&mut self, database: &Database, snapshot: &Snapshot, page_no: PageNo) {
        let fetcher = &database.node.fetcher;
        let is_in_memory = |page_no: PageNo| {
            database.overlay_page(page_no, snapshot).is_some() || snapshot.base.is_resident(fetcher.cache(), page_no)
        };
        let mut found = None;
        for parent in self.trees.parents() {
            let page = database.overlay_page(parent, snapshot);
            let page = page.or_else(|| snapshot.base.resident_page(fetcher.cache(), parent));
            let children = page.and_then(|page| Some(BtreePage::interior(parent, &page)?.children()));
            let Some(children) = children else { continue };
            if let Some(index) = children.iter().position(|child| *child == page_no) {
                found = Some((parent, children, index));
                break;
            }
        }
        let Some((parent, children, index)) = found else { return };
        let room = fetcher.room_ahead() / SEGMENT_BYTES;
        let ahead = self.trees.descend(parent, &children, index, room, &is_in_memory);
        let frames = ahead.into_iter().filter_map(|page_no| match snapshot.base.locate(fetcher.cache(), page_no) {
            Lookup::Found(source) if !snapshot.base.is_in_head(&source.at) => Some(source.at),
            _ => None,
        });
        fetcher.read_ahead(database.id, frames);
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::OpenFlags;

    use super::*;

    #[test]
    fn the_trees_that_sqlite_writes_are_read_right() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tree.db");
        // SQLite's own VFS, whichever is the default by now.
        let connection = rusqlite::Connection::open_with_flags_and_vfs(&path, OpenFlags::default(), "unix").unwrap();
        connection.execute_batch(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT);
             WITH RECURSIVE ids(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids WHERE id < 5000)
             INSERT INTO t SELECT id, hex(randomblob(100)) FROM ids",
        )
        .unwrap();
        let root: u32 = connection.query_row("SELECT rootpage FROM sqlite_schema", [], |row| row.get(0)).unwrap();
        let image = std::fs::read(&path).unwrap();
        let page = |page_no: PageNo| {
            let start = (page_no.get() as usize - 1) * segments::page::PAGE_BYTES;
            Page::copy_of(image[start..].first_chunk().unwrap())
        };
        let schema = page(PageNo::FIRST);
        let roots = BtreePage::parse(PageNo::FIRST, &schema).unwrap().schema_roots();
        assert_eq!(roots.iter().map(|root| root.get()).collect::<Vec<_>>(), [root]);
        let leaves = BtreePage::interior(roots[0], &page(roots[0])).unwrap().children();
        assert!(leaves.len() > 100);
        // Every leaf of a table begins with its type.
        assert!(leaves.iter().all(|leaf| page(*leaf).as_bytes()[0] == 13));
    }
}
