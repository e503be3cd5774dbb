//! Reading a page that is in memory, which almost every read is: nothing is awaited.
//!
//! It looks where [`super::pages::read`] looks, in the same order. What it does not find, that finds, waits for, or
//! calls missing.

use std::cell::RefCell;
use std::rc::Rc;

use segments::cache::PageCache;
use segments::map::SegmentSources;
use segments::pack::Frame;
use segments::page::{Page, PageNo};

use super::Snapshot;
use super::file::Connection;
use super::pages::Base;

/// The segment that a connection's statement read last. Its neighbours are usually wanted next: then neither the page
/// map nor the cache, which counts and sorts what it is asked for, is asked again.
#[derive(Default)]
pub struct LastSegment(RefCell<Option<Known>>);

struct Known {
    base: Rc<Base>,
    sources: SegmentSources,
    /// By the number that `sources` has for it.
    frames: Vec<Option<Frame>>,
}

impl LastSegment {
    /// Lets go of its memory, as the statement has ended, or reads another snapshot from here on.
    pub fn forget(&self) {
        self.0.take();
    }

    /// The page, and whether it is in another segment than the last one.
    fn page(&self, cache: &PageCache, base: &Rc<Base>, page_no: PageNo) -> Option<(Page, bool)> {
        let mut last = self.0.borrow_mut();
        let is_known = |known: &Known| known.sources.segment() == page_no.segment() && Rc::ptr_eq(&known.base, base);
        let is_other = !last.as_ref().is_some_and(is_known);
        if is_other {
            let sources = base.sources(cache, page_no.segment());
            *last = Some(Known { base: base.clone(), sources, frames: Vec::new() });
        }
        let page = last.as_mut().and_then(|known| known.page(cache, page_no));
        if page.is_none() {
            // Whoever reads it now puts more into memory.
            *last = None;
        }
        page.map(|page| (page, is_other))
    }
}

impl Known {
    fn page(&mut self, cache: &PageCache, page_no: PageNo) -> Option<Page> {
        let (number, source) = self.sources.find(page_no)?;
        if self.frames.len() <= number {
            self.frames.resize(number + 1, None);
        }
        let frame = match &mut self.frames[number] {
            Some(frame) => frame,
            none => none.insert(cache.frame(&source.at)?),
        };
        frame.page(source.place).ok()
    }
}

/// A page as the pinned `snapshot` of a connection has it, if it is in memory.
pub fn page(connection: &Connection, snapshot: &Snapshot, page_no: PageNo) -> Option<Page> {
    let Connection { database, last_segment, ahead, .. } = connection;
    if let Some(page) = database.overlay_page(page_no, snapshot) {
        return Some(page);
    }
    if let Some(page) = snapshot.base.page_in_head(&database.node.cache, page_no) {
        return Some(page);
    }
    let (page, is_other) = last_segment.page(&database.node.cache, &snapshot.base, page_no)?;
    if is_other {
        ahead.enter(database, snapshot, page_no, false);
    }
    Some(page)
}
