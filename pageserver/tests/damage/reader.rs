//! Opens a database as a node does that takes it over: name, head, tail, and then every page. And goes back to moments of
//! its past.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pageserver::fetcher::Fetcher;
use pageserver::history;
use pageserver::tail::Tail;
use segments::cache::PageCache;
use segments::page::{Page, PageNo};
use tenant::name::Name;
use tenant::registry;
use walstore::id::{DatabaseId, IncarnationId};
use walstore::life::Stores;
use walstore::recovery::{Access, SealedLog};
use walstore::register::Patience;
use walstore::seam::Seam;
use walstore::store::Store;

/// Every page of a database.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Content(pub BTreeMap<PageNo, Page>);

/// `None`: there is no such database. The store is written to, as an opener would.
pub async fn read(store: &(impl Store + Clone), seam: &Seam, name: &Name) -> Result<Option<Content>, String> {
    let stores = Stores::one(Arc::new(store.clone()) as Arc<dyn Store>);
    let patience = Patience::for_duration(seam, Duration::from_secs(1));
    let access = Access { stores: &stores, seam, patience };
    let me = IncarnationId::from_bytes([0xEE; 16]);
    let head = registry::resolve_head(store, seam, name, me, patience).await.map_err(|error| error.to_string())?;
    let Some(head) = head.map(|head| head.value) else { return Ok(None) };
    let fetcher = Fetcher::new(stores.main.clone(), seam.clone(), PageCache::new(1 << 20), 8 << 20);
    let mut tail = Tail::of_head(&fetcher, &head).await.map_err(|error| error.to_string())?;
    for entry in &head.tail {
        // The head may be the reader's own by now, made for a name without one.
        if entry.incarnation == me {
            continue;
        }
        let log = SealedLog::open(access, entry.incarnation).await.map_err(|error| error.to_string())?;
        let commits = log.commits(access, head.database, tail.tip.lsn).await.map_err(|error| error.to_string())?;
        for commit in commits {
            if Some(commit.lsn) > tail.tip.lsn && entry.holds(entry.incarnation, commit.epoch, commit.lsn) {
                tail.add(&fetcher, &commit, entry.incarnation).await.map_err(|error| error.to_string())?;
            }
        }
    }
    every_page(&fetcher, &mut tail).await.map(Some)
}

/// The state after a commit that is folded, by the head and not by the name: what ended is read as well. `None`: it has no
/// head.
pub async fn read_past(
    store: &(impl Store + Clone),
    seam: &Seam,
    database: DatabaseId,
    lsn: u64,
) -> Result<Option<Content>, String> {
    let patience = Patience::for_duration(seam, Duration::from_secs(1));
    let head = registry::read_head(store, seam, database, patience).await.map_err(|error| error.to_string())?;
    let Some(head) = head else { return Ok(None) };
    let store = Arc::new(store.clone()) as Arc<dyn Store>;
    let fetcher = Fetcher::new(store, seam.clone(), PageCache::new(1 << 20), 8 << 20);
    let state = history::materialise(&fetcher, &head.value, lsn, &history::Unbounded).await;
    every_page(&fetcher, &mut state.map_err(|error| error.to_string())?).await.map(Some)
}

async fn every_page(fetcher: &Fetcher, tail: &mut Tail) -> Result<Content, String> {
    let mut content = Content::default();
    for number in (1..=tail.tip.page_count).filter_map(PageNo::new) {
        let page = tail.page(fetcher, number).await.map_err(|error| error.to_string())?;
        content.0.insert(number, page);
    }
    Ok(content)
}
