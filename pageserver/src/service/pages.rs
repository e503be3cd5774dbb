//! Pages as of what is folded, out of caches of one's own.
//!
//! A database has one folded point at a time. Whoever asks for pages as of another commit is told which it is, and
//! asks again. So nothing here has to be kept alive for anybody, and nothing is ever older than asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use segments::base::BaseParts;
use segments::image::Image;
use segments::map::PageMap;
use segments::page::{Page, PageNo};
use tenant::registry;
use walstore::id::{DatabaseId, Lsn};
use walstore::register::{Patience, RecordError};
use walstore::seam::Seam;
use walstore::store::Store;

use super::messages::{self, PagesReply};
use crate::at_rest;
use crate::base::base_of;
use crate::fetcher::Fetcher;
use crate::limits;

#[derive(Debug, thiserror::Error)]
pub enum PagesError {
    #[error("there is no database {0}")]
    NoSuchDatabase(DatabaseId),
    #[error("{0} pages at once are too many: {max} at most", max = limits::PAGES_AT_ONCE_MAX)]
    TooMany(usize),
    #[error("page numbers begin with 1")]
    NoPage,
    #[error("commit {folded} is folded, not {asked}; ask for that one")]
    NotFolded { folded: u64, asked: u64 },
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// A database as of its folded point. The map learns chunks as they are read.
struct View {
    lsn: u64,
    page_count: u32,
    map: Mutex<PageMap>,
    image: Option<Image>,
}

impl View {
    fn map(&self) -> PageMap {
        self.map.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Reads pages at rest of any database.
pub struct PageReader {
    store: Arc<dyn Store>,
    seam: Seam,
    fetcher: Fetcher,
    views: Mutex<BTreeMap<DatabaseId, Arc<View>>>,
}

impl PageReader {
    pub fn new(store: Arc<dyn Store>, seam: Seam, fetcher: Fetcher) -> Self {
        Self { store, seam, fetcher, views: Mutex::default() }
    }

    /// These pages as of commit `lsn`, or of the last folded one if that is 0.
    pub async fn read(&self, database: DatabaseId, lsn: u64, numbers: &[u32]) -> Result<PagesReply, PagesError> {
        if numbers.len() > limits::PAGES_AT_ONCE_MAX {
            return Err(PagesError::TooMany(numbers.len()));
        }
        let numbers: Option<Vec<PageNo>> = numbers.iter().map(|number| PageNo::new(*number)).collect();
        let numbers = numbers.ok_or(PagesError::NoPage)?;
        let view = match self.known(database).filter(|view| view.lsn == lsn && lsn != 0) {
            Some(view) => view,
            None => self.look(database).await?,
        };
        if lsn != 0 && view.lsn != lsn {
            return Err(PagesError::NotFolded { folded: view.lsn, asked: lsn });
        }
        match self.pages(database, &view, numbers).await {
            Err(RecordError::Corrupt(corrupt)) => {
                // What it was read from may have been replaced, and deleted, meanwhile.
                let now = self.look(database).await?;
                if now.lsn != view.lsn {
                    return Err(PagesError::NotFolded { folded: now.lsn, asked: view.lsn });
                }
                Err(RecordError::Corrupt(corrupt).into())
            }
            result => Ok(result?),
        }
    }

    fn known(&self, database: DatabaseId) -> Option<Arc<View>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner).get(&database).cloned()
    }

    async fn look(&self, database: DatabaseId) -> Result<Arc<View>, PagesError> {
        let patience = Patience::for_duration(&self.seam, limits::FETCH_PATIENCE);
        let head = registry::read_head(&*self.store, &self.seam, database, patience).await?;
        let head = head.filter(|head| !head.value.state.is_final()).ok_or(PagesError::NoSuchDatabase(database))?;
        let BaseParts { tip, map, image } = base_of(&self.fetcher, &head.value).await?;
        let view = Arc::new(View { lsn: Lsn::raw(tip.lsn), page_count: tip.page_count, map: Mutex::new(map), image });
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        if views.len() >= limits::VIEWS_MAX {
            // A view costs one GET to have again: which of them goes hardly matters.
            views.pop_first();
        }
        views.insert(database, view.clone());
        Ok(view)
    }

    async fn pages(&self, database: DatabaseId, view: &View, numbers: Vec<PageNo>) -> Result<PagesReply, RecordError> {
        let mut reply = PagesReply { lsn: view.lsn, page_count: view.page_count, pages: Vec::new() };
        let mut map = view.map();
        for number in numbers.into_iter().filter(|number| number.get() <= view.page_count) {
            let page = at_rest::page(&self.fetcher, database, &mut map, view.image.as_ref(), number).await?;
            reply.pages.push(message(number, &page));
        }
        *view.map.lock().unwrap_or_else(PoisonError::into_inner) = map;
        Ok(reply)
    }
}

fn message(number: PageNo, page: &Page) -> messages::Page {
    messages::Page { page_no: number.get(), content: Bytes::copy_from_slice(page.as_bytes()) }
}
