//! Pages as of any commit that is folded and kept, out of caches of one's own.
//!
//! The last folded commit is always one of these, and with a history so are those back to the horizon. Whoever asks for
//! pages as of another one is told which these are. So nothing here has to be kept alive for anybody, and what is
//! answered is always of the very commit that was asked for.
//!
//! Where the pages of a commit are is remembered ([`View`]), and what the head said of the database beside it ([`Seen`]).
//! That is believed for [`limits::VIEW_AGE_MAX`]; then the head is looked at again, once for all views of the database.
//! So a database that was deleted is shown for that long and not longer, and one whose time is up not at all. A commit that
//! has left the window meanwhile is shown as long as what it needs is there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use segments::image::Image;
use segments::map::PageMap;
use segments::page::{Page, PageNo};
use tenant::head::Head;
use tenant::registry;
use tenant::settings::Settings;
use tokio::sync::Mutex as AsyncMutex;
use walstore::id::{DatabaseId, Lsn};
use walstore::register::{Patience, RecordError};
use walstore::seam::Seam;
use walstore::store::Store;

use super::messages::{self, PagesReply};
use crate::at_rest;
use crate::fetcher::Fetcher;
use crate::history::{self, PastError, Room, Window};
use crate::limits;

#[derive(Debug, thiserror::Error)]
pub enum PagesError {
    #[error("there is no database {0}")]
    NoSuchDatabase(DatabaseId),
    #[error("{0} pages at once are too many: {max} at most", max = limits::PAGES_AT_ONCE_MAX)]
    TooMany(usize),
    #[error("page numbers begin with 1")]
    NoPage,
    #[error("commits {} to {} are folded and kept, not {asked}; ask for one of these", kept.oldest.lsn, kept.newest.lsn)]
    NotKept { kept: Window, asked: u64 },
    #[error("commit {lsn} differs from what is stored beside it by {pages} pages and more: {max} at most", max = limits::VIEW_PAGES_MAX)]
    NoRoom { lsn: u64, pages: usize },
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// A database as of one commit. The map learns chunks as they are read.
struct View {
    page_count: u32,
    map: Mutex<PageMap>,
    image: Option<Image>,
    /// What commits after the map have changed: nothing, if it is the folded one.
    changed: BTreeMap<PageNo, Page>,
}

impl View {
    fn map(&self) -> PageMap {
        self.map.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the head of a database said when it was looked at.
struct Seen {
    /// When it was asked for.
    boot_micros: u64,
    settings: Settings,
}

/// Who looks at the head again has it locked: the others wait for what he finds.
type SharedSeen = Arc<AsyncMutex<Seen>>;

/// As many pages as one view may have in memory.
struct ViewRoom;

impl Room for ViewRoom {
    fn take(&self, pages: usize) -> bool {
        pages <= limits::VIEW_PAGES_MAX
    }
}

/// Reads pages at rest of any database.
pub struct PageReader {
    store: Arc<dyn Store>,
    seam: Seam,
    fetcher: Fetcher,
    views: Mutex<Views>,
    /// One state of the past is put together at a time: each may take as much memory as all that are known.
    replaying: AsyncMutex<()>,
}

/// By database and commit.
#[derive(Default)]
struct Views {
    known: BTreeMap<(DatabaseId, u64), Known>,
    /// Of the databases that have views.
    seen: BTreeMap<DatabaseId, SharedSeen>,
    /// Rises with each use.
    clock: u64,
    /// [Changed](View::changed) pages of all.
    changed: usize,
}

struct Known {
    view: Arc<View>,
    used: u64,
}

impl Views {
    fn get(&mut self, key: (DatabaseId, u64)) -> Option<(Arc<View>, SharedSeen)> {
        self.clock += 1;
        let known = self.known.get_mut(&key)?;
        known.used = self.clock;
        let seen = self.seen.get(&key.0).expect("BUG: a view without what its head said");
        Some((known.view.clone(), seen.clone()))
    }

    fn insert(&mut self, key: (DatabaseId, u64), view: Arc<View>, seen: Seen) {
        self.remove(key);
        if self.known.len() >= limits::VIEWS_MAX {
            self.remove_oldest(|_| true);
        }
        let pages = view.changed.len();
        while pages > 0 && self.changed + pages > limits::VIEW_PAGES_MAX {
            self.remove_oldest(|view| !view.changed.is_empty());
        }
        self.changed += pages;
        self.clock += 1;
        self.known.insert(key, Known { view, used: self.clock });
        // What other views of it go by may be newer than this, and is looked at again soon enough.
        self.seen.entry(key.0).or_insert_with(|| Arc::new(AsyncMutex::new(seen)));
    }

    /// Forgets the longest unused of these.
    fn remove_oldest(&mut self, is_one: impl Fn(&View) -> bool) {
        let those = self.known.iter().filter(|(_, known)| is_one(&known.view));
        let oldest = those.min_by_key(|(_, known)| known.used).map(|(key, _)| *key);
        self.remove(oldest.expect("BUG: one view alone has more than all may have"));
    }

    fn remove(&mut self, key: (DatabaseId, u64)) {
        self.changed -= self.known.remove(&key).map_or(0, |known| known.view.changed.len());
        if self.of(key.0).next().is_none() {
            self.seen.remove(&key.0);
        }
    }

    /// The views of a database.
    fn of(&self, database: DatabaseId) -> impl Iterator<Item = (DatabaseId, u64)> {
        self.known.range((database, 0)..=(database, u64::MAX)).map(|(key, _)| *key)
    }

    fn remove_all(&mut self, database: DatabaseId) {
        let all: Vec<_> = self.of(database).collect();
        all.into_iter().for_each(|key| self.remove(key));
    }
}

impl PageReader {
    pub fn new(store: Arc<dyn Store>, seam: Seam, fetcher: Fetcher) -> Self {
        Self { store, seam, fetcher, views: Mutex::default(), replaying: AsyncMutex::default() }
    }

    /// These pages as of commit `lsn`, or of the last folded one if that is 0.
    pub async fn read(&self, database: DatabaseId, lsn: u64, numbers: &[u32]) -> Result<PagesReply, PagesError> {
        if numbers.len() > limits::PAGES_AT_ONCE_MAX {
            return Err(PagesError::TooMany(numbers.len()));
        }
        let numbers: Option<Vec<PageNo>> = numbers.iter().map(|number| PageNo::new(*number)).collect();
        let numbers = numbers.ok_or(PagesError::NoPage)?;
        if let Some(view) = self.shown(database, lsn).await? {
            match self.pages(database, lsn, &view, &numbers).await {
                // What it was read from may have been replaced, and deleted, meanwhile.
                Err(RecordError::Corrupt(_)) => self.views().remove((database, lsn)),
                result => return Ok(result?),
            }
        }
        match self.look_and_read(database, lsn, &numbers).await {
            // The same, if the head is another one by now.
            Err(PagesError::Record(RecordError::Corrupt(_))) => self.look_and_read(database, lsn, &numbers).await,
            result => result,
        }
    }

    async fn look_and_read(&self, database: DatabaseId, lsn: u64, numbers: &[PageNo]) -> Result<PagesReply, PagesError> {
        let (found, view) = self.look(database, lsn).await?;
        let reply = self.pages(database, found, &view, numbers).await;
        if let Err(RecordError::Corrupt(_)) = &reply {
            self.views().remove((database, found));
        }
        Ok(reply?)
    }

    fn known(&self, database: DatabaseId, lsn: u64) -> Option<(Arc<View>, SharedSeen)> {
        self.views().get((database, lsn))
    }

    /// The view of a commit, if it is known and may still be shown.
    async fn shown(&self, database: DatabaseId, lsn: u64) -> Result<Option<Arc<View>>, PagesError> {
        let Some((view, seen)) = self.known(database, lsn) else { return Ok(None) };
        let mut seen = seen.lock().await;
        let age_micros = self.seam.boot_micros().saturating_sub(seen.boot_micros);
        let is_old = age_micros >= limits::VIEW_AGE_MAX.as_micros() as u64;
        if is_old || seen.settings.is_expired(self.seam.wall_micros()) {
            *seen = self.head(database).await?.1;
        }
        Ok(Some(view))
    }

    fn views(&self) -> MutexGuard<'_, Views> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the head of a database, which is forgotten if it is over.
    async fn head(&self, database: DatabaseId) -> Result<(Head, Seen), PagesError> {
        let boot_micros = self.seam.boot_micros();
        let patience = Patience::for_duration(&self.seam, limits::FETCH_PATIENCE);
        let head = registry::read_head(&*self.store, &self.seam, database, patience).await?.map(|head| head.value);
        let is_over = |head: &Head| head.state.is_final() || head.settings.is_expired(self.seam.wall_micros());
        let Some(head) = head.filter(|head| !is_over(head)) else {
            self.views().remove_all(database);
            return Err(PagesError::NoSuchDatabase(database));
        };
        let seen = Seen { boot_micros, settings: head.settings };
        Ok((head, seen))
    }

    /// Makes a view, and answers which commit's it is.
    async fn look(&self, database: DatabaseId, lsn: u64) -> Result<(u64, Arc<View>), PagesError> {
        let (mut head, mut seen) = self.head(database).await?;
        let found = if lsn == 0 { Lsn::raw(head.folded.lsn) } else { lsn };
        let mut _one = None;
        if head.folded.lsn != Lsn::new(found) {
            _one = Some(self.replaying.lock().await);
            if let Some(view) = self.shown(database, found).await? {
                return Ok((found, view));
            }
            // Meanwhile what it was made of may have been collected.
            (head, seen) = self.head(database).await?;
        }
        let state = history::materialise(&self.fetcher, &head, found, &ViewRoom).await.map_err(|error| match error {
            PastError::TooOld(kept) | PastError::NotFolded(kept) | PastError::Future(kept) => {
                PagesError::NotKept { kept, asked: lsn }
            }
            PastError::NoRoom(pages) => PagesError::NoRoom { lsn, pages },
            PastError::Record(error) => error.into(),
        })?;
        let (page_count, image) = (state.tip.page_count, state.image().cloned());
        let view = View { page_count, image, map: Mutex::new(state.map), changed: state.input.pages };
        let view = Arc::new(view);
        if found != 0 {
            self.views().insert((database, found), view.clone(), seen);
        }
        Ok((found, view))
    }

    async fn pages(
        &self,
        database: DatabaseId,
        lsn: u64,
        view: &View,
        numbers: &[PageNo],
    ) -> Result<PagesReply, RecordError> {
        let mut reply = PagesReply { lsn, page_count: view.page_count, pages: Vec::new() };
        let mut map = view.map();
        for number in numbers.iter().filter(|number| number.get() <= view.page_count) {
            let page = match view.changed.get(number) {
                Some(page) => page.clone(),
                None => at_rest::page(&self.fetcher, database, &mut map, view.image.as_ref(), *number).await?,
            };
            reply.pages.push(message(*number, &page));
        }
        *view.map.lock().unwrap_or_else(PoisonError::into_inner) = map;
        Ok(reply)
    }
}

fn message(number: PageNo, page: &Page) -> messages::Page {
    messages::Page { page_no: number.get(), content: Bytes::copy_from_slice(page.as_bytes()) }
}
