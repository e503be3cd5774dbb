//! Reading a page that is in memory, which almost every read is: nothing is awaited, and nothing allocated.
//!
//! It looks where [`super::pages::read`] looks, in the same order. What it does not find, that finds, waits for, or
//! calls missing.

use std::cell::RefCell;

use segments::cache::PageCache;
use segments::map::Source;
use segments::pack::{Frame, FrameAt};
use segments::page::{Page, PageNo};

use super::{Database, Snapshot};

/// The frame that a connection's statement read last. Its neighbours are usually wanted next, and the cache, which
/// counts and sorts what it is asked for, need not be asked for each of them.
#[derive(Default)]
pub struct LastFrame(RefCell<Option<(FrameAt, Frame)>>);

impl LastFrame {
    fn page(&self, cache: &PageCache, source: &Source) -> Option<Page> {
        let mut last = self.0.borrow_mut();
        if !matches!(&*last, Some((at, _)) if *at == source.at) {
            *last = Some((source.at, cache.frame(&source.at)?));
        }
        last.as_ref().and_then(|(_, frame)| frame.page(source.place).ok())
    }

    /// Lets go of its memory: the statement has ended.
    pub fn forget(&self) {
        self.0.take();
    }
}

/// A page as `snapshot` has it, if it is in memory.
pub fn page(database: &Database, snapshot: &Snapshot, last: &LastFrame, page_no: PageNo) -> Option<Page> {
    if let Some(page) = database.overlay_page(page_no, snapshot) {
        return Some(page);
    }
    let cache = &database.node.cache;
    let source = snapshot.base.source(cache, page_no)?;
    last.page(cache, &source)
}
