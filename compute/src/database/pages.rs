//! The page path below the overlay: a base's page map, the cache, the bucket.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::try_join;
use pageserver::fetcher::Fetcher;
use segments::base::BaseParts;
use segments::cache::PageCache;
use segments::image::Image;
use segments::map::{DeltaRef, Indexes, Lookup, MapChunkRef, PageMap, SegmentSources, Source};
use segments::pack::{Frame, FrameAt, FrameIndex};
use segments::page::{MissingPage, Page, PageNo, SegmentNo};
use segments::tip::Tip;
use walstore::envelope::Corrupt;
use walstore::id::DatabaseId;
use walstore::mutant::{self, Mutant};

use super::file::Connection;
use super::{Database, Snapshot};
use crate::error::{Fault, ServerError};
use crate::sqlite::coroutine::{Wait, Wake, suspend};

/// What is folded: the state after one commit, and where each of its pages is.
pub struct Base {
    pub tip: Tip,
    /// Learns chunks as they are read; says the same all the time.
    map: RefCell<PageMap>,
    /// Pages that stand in the head.
    image: Option<Image>,
}

/// Bytes of the bucket that a read waits for. What came is held here until the read has used it, whatever
/// the cache does meanwhile.
#[derive(Clone)]
pub struct Fetch {
    of: DatabaseId,
    wanted: Wanted,
    base: Rc<Base>,
    held: Rc<RefCell<Held>>,
}

#[derive(Clone)]
enum Wanted {
    /// A chunk, and the indexes that the look-up will want next.
    Chunk(MapChunkRef, Vec<DeltaRef>),
    Indexes(Vec<DeltaRef>),
    Frame(FrameAt),
}

#[derive(Default)]
struct Held {
    indexes: Vec<(DeltaRef, Arc<FrameIndex>)>,
    frame: Option<(FrameAt, Frame)>,
}

impl Held {
    fn index(&self, delta: &DeltaRef) -> Option<Arc<FrameIndex>> {
        self.indexes.iter().find(|(known, _)| known == delta).map(|(_, index)| index.clone())
    }
}

impl Base {
    /// What is folded.
    pub fn of_parts(parts: BaseParts) -> Self {
        Self::new(parts.tip, parts.map, parts.image)
    }

    pub fn new(tip: Tip, map: PageMap, image: Option<Image>) -> Self {
        Self { tip, map: RefCell::new(map), image }
    }

    /// Takes chunks over that were read meanwhile. `map` is the same map.
    pub fn learn(&self, map: PageMap) {
        *self.map.borrow_mut() = map;
    }

    pub fn map(&self) -> PageMap {
        self.map.borrow().clone()
    }

    /// A page that is in memory already.
    pub fn resident_page(&self, cache: &PageCache, page_no: PageNo) -> Option<Page> {
        match self.locate(cache, page_no) {
            Lookup::Found(source) => self.resident_frame(cache, &source.at)?.ok()?.page(source.place).ok(),
            _ => None,
        }
    }

    /// Where a page is, as far as what says so is in memory.
    pub fn locate(&self, cache: &PageCache, page_no: PageNo) -> Lookup {
        self.lookup(page_no, &|delta| cache.index(delta))
    }

    /// Whether a page is in memory. Unlike reading it, this does not count as being asked for.
    pub fn is_resident(&self, cache: &PageCache, page_no: PageNo) -> bool {
        let is_here = |at: &FrameAt| self.is_in_head(at) || cache.has_frame(at);
        matches!(self.locate(cache, page_no), Lookup::Found(source) if is_here(&source.at))
    }

    /// Whether a frame stands in the head: there is nothing to fetch then.
    pub fn is_in_head(&self, at: &FrameAt) -> bool {
        self.image.as_ref().is_some_and(|image| image.is_pack(&at.pack))
    }

    /// Where the pages of a segment are, as far as what says so is in memory.
    pub fn sources(&self, cache: &PageCache, segment: SegmentNo) -> SegmentSources {
        self.map.borrow().sources(segment, &|delta| cache.index(delta))
    }
}

impl Base {
    /// A page that stands in the head besides the packs, if its frame is in the cache.
    pub fn page_in_head(&self, cache: &PageCache, page_no: PageNo) -> Option<Page> {
        let source = self.image.as_ref()?.source(&self.map.borrow(), page_no)?;
        cache.page(&source)?.ok()
    }

    /// Where a page is: in the head, or where the page map says.
    fn lookup(&self, page_no: PageNo, indexes: Indexes<'_>) -> Lookup {
        let map = self.map.borrow();
        let in_head = self.image.as_ref().and_then(|image| image.source(&map, page_no));
        in_head.map_or_else(|| map.lookup(page_no, indexes), Lookup::Found)
    }

    /// A frame that is in memory, in the cache or in the head.
    fn resident_frame(&self, cache: &PageCache, at: &FrameAt) -> Option<Result<Frame, Corrupt>> {
        if let Some(frame) = cache.frame(at) {
            return Some(Ok(frame));
        }
        let frame = self.image.as_ref()?.frame(at)?;
        if let Ok(frame) = &frame {
            cache.insert_frame(at, frame.clone());
        }
        Some(frame)
    }
}

impl Fetch {
    /// Whose map led to it.
    pub fn base(&self) -> &Rc<Base> {
        &self.base
    }
}

/// What a look-up comes to with what is in memory.
enum Step {
    Page(Page),
    Fetch(Wanted),
}

fn step(base: &Base, cache: &PageCache, held: &Held, database: DatabaseId, page_no: PageNo) -> Result<Step, ServerError> {
    let indexes = |delta: &DeltaRef| held.index(delta).or_else(|| cache.index(delta));
    match base.lookup(page_no, &indexes) {
        Lookup::Found(source) => page_of(base, cache, held, &source),
        Lookup::NeedChunk(chunk) => {
            Ok(Step::Fetch(Wanted::Chunk(chunk, base.map.borrow().missing_indexes(&indexes))))
        }
        Lookup::NeedIndexes(deltas) => Ok(Step::Fetch(Wanted::Indexes(deltas))),
        Lookup::LockPage => Ok(Step::Page(Page::zeroed())),
        Lookup::Outside | Lookup::Missing if mutant::is_on(Mutant::ZerosForMissing) => Ok(Step::Page(Page::zeroed())),
        Lookup::Outside | Lookup::Missing => {
            let missing = MissingPage { database, page: page_no, lsn: base.tip.lsn };
            Err(ServerError::new(Fault::Corrupt, missing.to_string()))
        }
    }
}

fn page_of(base: &Base, cache: &PageCache, held: &Held, source: &Source) -> Result<Step, ServerError> {
    let at_pack = |corrupt: Corrupt| corrupt.at(segments::keys::pack(&source.at.pack));
    let frame = match &held.frame {
        Some((at, frame)) if *at == source.at => Some(Ok(frame.clone())),
        _ => base.resident_frame(cache, &source.at),
    };
    let Some(frame) = frame.transpose().map_err(at_pack)? else { return Ok(Step::Fetch(Wanted::Frame(source.at))) };
    let page = frame.page(source.place).map_err(at_pack);
    page.map(Step::Page).map_err(ServerError::from)
}

/// Reads a page that the running transaction has not written. Suspends until it is there.
pub fn read(connection: &Connection, snapshot: &Snapshot, page_no: PageNo) -> Result<Page, ServerError> {
    let database = &connection.database;
    if let Some(page) = database.overlay_page(page_no, snapshot) {
        return Ok(page);
    }
    let held = Rc::new(RefCell::new(Held::default()));
    loop {
        let step = step(&snapshot.base, &database.node.cache, &held.borrow(), database.id, page_no)?;
        let wanted = match step {
            Step::Page(page) => return Ok(page),
            Step::Fetch(wanted) => wanted,
        };
        if matches!(wanted, Wanted::Frame(_)) {
            connection.ahead.enter(database, snapshot, page_no, true);
        }
        let fetch = Fetch { of: database.id, wanted, base: snapshot.base.clone(), held: held.clone() };
        match suspend(Wait::Fetch(fetch)) {
            Wake::Ready => {}
            Wake::Failed(error) => return Err(error),
            Wake::Abandon => return Err(connection.abandoned()),
        }
    }
}

impl Database {
    /// The newest version of a page, outside of any coroutine.
    pub async fn page_for_recovery(&self, page_no: PageNo) -> Result<Page, ServerError> {
        self.page_at(&self.newest_snapshot(), page_no).await
    }

    /// A page as a snapshot sees it, outside of any coroutine.
    pub async fn page_at(&self, snapshot: &Snapshot, page_no: PageNo) -> Result<Page, ServerError> {
        if let Some(page) = self.overlay_page(page_no, snapshot) {
            return Ok(page);
        }
        let held = Rc::new(RefCell::new(Held::default()));
        loop {
            let step = step(&snapshot.base, &self.node.cache, &held.borrow(), self.id, page_no)?;
            match step {
                Step::Page(page) => return Ok(page),
                Step::Fetch(wanted) => {
                    let (of, base, held) = (self.id, snapshot.base.clone(), held.clone());
                    fetch(&self.node.fetcher, Fetch { of, wanted, base, held }).await?;
                }
            }
        }
    }
}

/// Serves a fetch: the requests run on the I/O runtime, the result is put where its reader looks.
pub async fn fetch(fetcher: &Fetcher, fetch: Fetch) -> Result<(), ServerError> {
    let Fetch { of, wanted, base, held } = fetch;
    match wanted {
        Wanted::Chunk(reference, deltas) => {
            let (object, read) = try_join(fetcher.chunk(of, &reference), fetcher.indexes(of, &deltas)).await?;
            let with = base.map.borrow().with_chunk(&reference, &object);
            let with = with.map_err(|corrupt| corrupt.at(segments::keys::page_map(&reference.id)));
            *base.map.borrow_mut() = with?;
            held.borrow_mut().indexes.extend(read);
        }
        Wanted::Indexes(deltas) => {
            let read = fetcher.indexes(of, &deltas).await?;
            held.borrow_mut().indexes.extend(read);
        }
        Wanted::Frame(at) => {
            let frame = fetcher.frame(of, &at).await?;
            held.borrow_mut().frame = Some((at, frame));
        }
    }
    Ok(())
}
