//! Pages as of any commit that is folded and kept, out of caches of one's own; later ones are the owner's to show.
//!
//! ```text
//!   LSN:  1 … horizon … folded … durable … newest
//!             └── kept ───┘└ owner's ┘
//! ```
//!
//! The last folded commit is always kept, and with a history so are those back to the horizon: these are read from the
//! bucket, whoever owns the database, and nothing has to be kept alive for anybody. What follows, up to the last durable
//! commit, its owner has in memory, and is asked for it ([`super::owners`]). Whoever asks for pages as of another commit
//! is told which there are. What is answered is always of the very commit that was asked for; LSN 0 asks for the last
//! one that is folded, so that this answer needs no owner and can be had while nobody owns the database.
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
use walstore::clock;
use walstore::id::{DatabaseId, Lsn};
use walstore::register::{Patience, RecordError};
use walstore::seam::Seam;
use walstore::store::Store;

use super::messages::{self, PagesReply};
use super::owners::{Owned, Owners, Unserved};
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
    #[error("{}; ask for one of these, or a later one that is durable", folded(kept, *asked))]
    NotKept { kept: Window, asked: u64 },
    /// Its owner has no such commit, and says which it has.
    #[error("{}; of later ones its owner says: {why}", folded(kept, *asked))]
    NotDurable { kept: Window, asked: u64, why: String },
    /// It may be durable: its owner knows, who cannot be asked from here.
    #[error("{}; later ones only its owner has: {why}", folded(kept, *asked))]
    Elsewhere { kept: Window, asked: u64, why: String },
    #[error("{0}")]
    Damaged(String),
    #[error("commit {lsn} differs from what is stored beside it by {pages} pages and more: {max} at most", max = limits::VIEW_PAGES_MAX)]
    NoRoom { lsn: u64, pages: usize },
    #[error(transparent)]
    Record(#[from] RecordError),
}

fn folded(kept: &Window, asked: u64) -> String {
    format!("commits {} to {} are folded and kept, not {asked}", kept.oldest.lsn, kept.newest.lsn)
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

/// What a look at the head comes to.
enum Looked {
    /// At the commit of this (raw) LSN.
    View(u64, Arc<View>),
    /// What is asked for is not folded, and only the owner knows more.
    Later(Box<Head>, Owned),
}

/// Who was asked for what was not folded when everything up to this (raw) LSN was.
struct Asked {
    of: Owned,
    folded: u64,
}

/// Reads pages of any database.
pub struct PageReader {
    store: Arc<dyn Store>,
    seam: Seam,
    fetcher: Fetcher,
    /// The way to what is not folded. `None`: there is none from here.
    owners: Option<Arc<dyn Owners>>,
    /// Owners that had an answer lately: they are asked again without a look at the head.
    asked: Mutex<BTreeMap<DatabaseId, Asked>>,
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
        let (asked, views, replaying) = Default::default();
        Self { store, seam, fetcher, owners: None, asked, views, replaying }
    }

    /// The same, and it asks owners for what is not folded.
    pub fn asking(self, owners: Arc<dyn Owners>) -> Self {
        Self { owners: Some(owners), ..self }
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
        if let Some(of) = self.asked_before(database, lsn) {
            match self.ask(&of, lsn, &numbers).await {
                Ok(reply) => return Ok(reply),
                // The head says who it is by now.
                Err(_) => drop(self.asked().remove(&database)),
            }
        }
        match self.look_and_read(database, lsn, &numbers).await {
            // The same, if the head is another one by now.
            Err(PagesError::Record(RecordError::Corrupt(_))) => self.look_and_read(database, lsn, &numbers).await,
            result => result,
        }
    }

    async fn look_and_read(&self, database: DatabaseId, lsn: u64, numbers: &[PageNo]) -> Result<PagesReply, PagesError> {
        let (found, view) = match self.look(database, lsn).await? {
            Looked::View(found, view) => (found, view),
            Looked::Later(head, of) => match self.ask_and_remember(&head, of, lsn, numbers).await {
                Ok(reply) => return Ok(reply),
                // So the head has it that is read now.
                Err(folded @ Unserved::Folded(_)) => match self.look(database, lsn).await? {
                    Looked::View(found, view) => (found, view),
                    Looked::Later(head, _) => return Err(self.refused(&head, lsn, folded).await),
                },
                Err(why) => return Err(self.refused(&head, lsn, why).await),
            },
        };
        let reply = self.pages(database, found, &view, numbers).await;
        if let Err(RecordError::Corrupt(_)) = &reply {
            self.views().remove((database, found));
        }
        Ok(reply?)
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<DatabaseId, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who has probably still what was not folded lately.
    fn asked_before(&self, database: DatabaseId, lsn: u64) -> Option<Owned> {
        let asked = self.asked();
        asked.get(&database).filter(|asked| lsn > asked.folded).map(|asked| asked.of.clone())
    }

    async fn ask(&self, of: &Owned, lsn: u64, numbers: &[PageNo]) -> Result<PagesReply, Unserved> {
        let none = || Unserved::Elsewhere(format!("{} owns it, and this process asks no owners", of.incarnation));
        let owners = self.owners.as_ref().ok_or_else(none)?;
        owners.pages(of, Lsn::new(lsn).expect("BUG: 0 is folded"), numbers).await
    }

    async fn ask_and_remember(&self, head: &Head, of: Owned, lsn: u64, numbers: &[PageNo]) -> Result<PagesReply, Unserved> {
        let reply = self.ask(&of, lsn, numbers).await?;
        let mut asked = self.asked();
        if asked.len() >= limits::OWNERS_MAX {
            asked.clear();
        }
        asked.insert(head.database, Asked { of, folded: Lsn::raw(head.folded.lsn) });
        Ok(reply)
    }

    /// What to tell whoever asked for what is not folded.
    async fn refused(&self, head: &Head, asked: u64, why: Unserved) -> PagesError {
        let kept = match history::window(&self.fetcher, head).await {
            Ok(kept) => kept,
            Err(error) => return error.into(),
        };
        match why {
            Unserved::NotDurable(why) => PagesError::NotDurable { kept, asked, why },
            Unserved::Damaged(text) => PagesError::Damaged(text),
            Unserved::Folded(_) | Unserved::Elsewhere(_) => PagesError::Elsewhere { kept, asked, why: why.to_string() },
        }
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
        if is_old || seen.settings.is_expired(self.now_micros()) {
            *seen = self.head(database).await?.1;
        }
        Ok(Some(view))
    }

    fn now_micros(&self) -> u64 {
        clock::now_micros(&self.seam, &*self.store)
    }

    fn views(&self) -> MutexGuard<'_, Views> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the head of a database, which is forgotten if it is over.
    async fn head(&self, database: DatabaseId) -> Result<(Head, Seen), PagesError> {
        let boot_micros = self.seam.boot_micros();
        let patience = Patience::for_duration(&self.seam, limits::FETCH_PATIENCE);
        let head = registry::read_head(&*self.store, &self.seam, database, patience).await?.map(|head| head.value);
        let is_over = |head: &Head| head.state.is_final() || head.settings.is_expired(self.now_micros());
        let Some(head) = head.filter(|head| !is_over(head)) else {
            self.views().remove_all(database);
            return Err(PagesError::NoSuchDatabase(database));
        };
        let seen = Seen { boot_micros, settings: head.settings };
        Ok((head, seen))
    }

    /// Makes a view, if the commit is folded.
    async fn look(&self, database: DatabaseId, lsn: u64) -> Result<Looked, PagesError> {
        let (mut head, mut seen) = self.head(database).await?;
        let found = if lsn == 0 { Lsn::raw(head.folded.lsn) } else { lsn };
        if let Some(of) = Owned::of(&head).filter(|_| found > Lsn::raw(head.folded.lsn)) {
            return Ok(Looked::Later(Box::new(head), of));
        }
        let mut _one = None;
        if head.folded.lsn != Lsn::new(found) {
            _one = Some(self.replaying.lock().await);
            if let Some(view) = self.shown(database, found).await? {
                return Ok(Looked::View(found, view));
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
        Ok(Looked::View(found, view))
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
