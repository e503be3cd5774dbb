//! Sound buckets with a past: what folds that keep their commits write, forks, restores, an import and a sweep. No node has
//! a log here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pageserver::fold::Folder;
use pageserver::import::{Import, Source};
use pageserver::sweep::Sweeper;
use segments::page::PageNo;
use tenant::head::HeadState;
use tenant::name::Name;
use tenant::registry;
use walstore::id::{DatabaseId, Lsn};
use walstore::life::Stores;
use walstore::register::Patience;

use crate::bucket::{Bucket, Database, Kind, Moment, cut_chunk};
use crate::forest::{Forest, ME, OTHER, RETENTION_SECS, State, page};
use crate::held::Held;
use crate::reader::Content;

/// Too many pages for a head, in whole segments.
const PAGES: u32 = 64;
/// More folds than entries of the history stand in the head.
const FOLDS: usize = segments::limits::HISTORY_ENTRIES_TARGET + 12;
/// More forks than pins stand in the head.
const FORKS: usize = tenant::limits::PINS_MAX + 2;

fn all(pages: u32) -> Vec<u32> {
    (1..=pages).collect()
}

impl Bucket {
    /// Histories short and long, what forks of several moments begin with, and databases that can be brought back.
    pub async fn past() -> Self {
        let mut forest = Forest::new();
        let long = forest.create(RETENTION_SECS).await;
        for _ in 0..FOLDS {
            forest.commit(long, &[2], 3).await;
            forest.fold(long).await;
        }
        let grown = forest.create(RETENTION_SECS).await;
        for _ in 0..8 {
            forest.commit(grown, &all(PAGES), PAGES).await;
            forest.fold(grown).await;
        }
        cut_chunk(&forest.memory, forest.all[grown].id).await;
        // The fork keeps a base that leads to the chunk, whatever becomes of the map.
        let last = forest.all[grown].last();
        forest.fork(grown, last).await;
        forest.fork(grown, 3).await;
        dies_forking(&mut forest, grown).await;
        forest.commit(grown, &[1, 9], PAGES).await;
        for deleted in [true, false] {
            let at = forest.create(RETENTION_SECS).await;
            for _ in 0..3 {
                forest.commit(at, &all(PAGES), PAGES).await;
                forest.fold(at).await;
            }
            forest.commit(at, &[7], PAGES).await;
            if deleted {
                forest.delete(at).await;
            } else {
                let new = forest.restore(at, at, 2).await;
                forest.commit(new, &[8], PAGES).await;
            }
        }
        let imported = import(&mut forest).await;
        forest.fork(imported, 1).await;
        forest.commit(imported, &[3], PAGES).await;
        let bucket = Self::of_forest(forest).await;
        let kinds = [Kind::Sweep, Kind::Ended, Kind::Pack, Kind::Commits, Kind::MapChunk, Kind::Base, Kind::HistoryChunk];
        assert!(kinds.iter().all(|kind| bucket.kinds().contains(kind)), "{:?}", bucket.kinds());
        bucket
    }

    /// A database with many forks.
    pub async fn family() -> Self {
        let mut forest = Forest::new();
        let root = forest.create(0).await;
        forest.commit(root, &[1, 2], 2).await;
        for _ in 0..FORKS {
            forest.fork(root, 1).await;
        }
        Self::of_forest(forest).await
    }

    /// Everybody gives up what he has, and then somebody sweeps.
    async fn of_forest(mut forest: Forest) -> Self {
        for at in 0..forest.all.len() {
            if forest.head(at).await.value.owner.is_some() {
                forest.release(at).await;
            }
        }
        sweep(&forest).await;
        let (mut databases, mut moments) = (Vec::new(), Vec::new());
        for (at, known) in forest.all.iter().enumerate() {
            let head = forest.head(at).await.value;
            let kept = Lsn::raw(head.horizon)..=Lsn::raw(head.folded.lsn);
            moments.extend(known.states.range(kept).map(|(lsn, (_, state))| {
                Moment { database: known.id, lsn: *lsn, content: content_of(state) }
            }));
            let (_, (_, newest)) = known.states.last_key_value().expect("one state at least");
            let content = match head.state {
                HeadState::Live => Some(content_of(newest)),
                HeadState::Deleted { .. } => None,
                // The name leads to another one.
                _ => continue,
            };
            databases.push(Database { name: known.name.clone(), id: known.id, content });
        }
        Self::with(&forest.memory, &forest.seam, (databases, moments), None).await
    }
}

fn content_of(state: &State) -> Content {
    Content(state.iter().map(|(number, content)| (PageNo::new(*number).expect("from 1"), page(*content))).collect())
}

/// A fork whose name and pin are written, and then its node dies.
async fn dies_forking(forest: &mut Forest, at: usize) {
    let dying = Held::dying_after(&forest.memory, "/head");
    let last = forest.all[at].last();
    assert!(forest.try_fork(Arc::new(dying), at, last, "unfinished").await.is_err());
}

/// A database of one pack that came from outside.
async fn import(forest: &mut Forest) -> usize {
    let (id, name) = (DatabaseId::random(&forest.seam), Name::parse("imported").expect("a name"));
    let (memory, seam, settings) = (&forest.memory, &forest.seam, forest.settings(RETENTION_SECS));
    let begun = registry::begin_import(memory, seam, &name, id, ME, Patience::endless()).await;
    begun.expect("a new name");
    let state: State = all(PAGES).into_iter().map(|number| (number, 1_000_000 + u64::from(number))).collect();
    let store = forest.store();
    let fetcher = forest.fetcher(&store);
    let folder = Folder { store: &*store, seam, fetcher: &fetcher };
    let time_micros = seam.wall_micros();
    let source = Source { name: name.clone(), database: id, settings, page_count: PAGES, hash: [5; 32], time_micros };
    let mut import = Import::new(folder, source);
    import.add(state.values().map(|content| page(*content)).collect()).await.expect("a store that works");
    let head = import.finish().await.expect("a store that works");
    let finished = registry::finish_import(memory, seam, head, ME, Patience::endless()).await;
    finished.expect("nobody else has the name");
    let at = forest.grow(0, 0, id, name);
    forest.all[at].states = BTreeMap::from([(1, (time_micros, state))]);
    forest.settle(at).await;
    at
}

/// One walk, by whoever is the first to look. It occupies the place of the fork that was not finished.
async fn sweep(forest: &Forest) {
    let stores = Stores::one(forest.store());
    let sweeper = Sweeper::new(OTHER, stores.clone(), forest.seam.clone(), &forest.fetcher(&stores.main));
    let interval = Duration::from_secs(600);
    let swept = tokio::time::timeout(interval, sweeper.run(interval)).await;
    assert!(swept.is_err(), "it never ends");
}
