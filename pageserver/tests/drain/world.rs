//! A bucket with databases whose pages are known, and nodes that come and go.
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pageserver::fetcher::Fetcher;
use pageserver::fold::{FoldJob, Folder};
use pageserver::tail::{Added, Tail};
use segments::cache::PageCache;
use segments::commit::{self, Base, Commit};
use segments::page::{PAGE_BYTES, Page, PageNo};
use segments::tip::Tip;
use tenant::head::Head;
use tenant::name::Name;
use tenant::registry;
use tenant::settings::Settings;
use tenant::lifecycle;
use walstore::fragment::Entry;
use walstore::id::{DatabaseId, IncarnationId, Lsn, PutId};
use walstore::life::{Incarnation, Stores};
use walstore::log::{self, Acknowledged, LogSink};
use walstore::recovery::{Access, SealedLog};
use walstore::register::{Patience, Record, Swap, Versioned};
use walstore::seam::Seam;
use walstore::store::{MemoryStore, Store};

/// A database as a client of it would know it.
pub struct Known {
    pub id: DatabaseId,
    pub tip: Tip,
    pub epoch: u64,
    /// Each page with the commit that wrote it last and how many patches in a row that made.
    pub pages: BTreeMap<PageNo, (Page, Lsn, u8)>,
}

pub struct World {
    pub memory: MemoryStore,
    pub seam: Seam,
    pub databases: Vec<Known>,
}

struct Deaf;

impl LogSink for Deaf {
    fn durable(&self, _: Vec<Acknowledged>) {}
    fn fenced(&self, _: &str) {}
}

pub fn page_no(number: u32) -> PageNo {
    PageNo::new(number).unwrap()
}

/// A page that compresses badly, so that large commits are large.
pub fn content(seed: u64) -> Page {
    let mut bytes = [0; PAGE_BYTES];
    for (at, chunk) in bytes.chunks_mut(32).enumerate() {
        chunk.copy_from_slice(walstore_hash(&[seed.to_le_bytes(), (at as u64).to_le_bytes()].concat()).as_slice());
    }
    Page::copy_of(&bytes)
}

fn walstore_hash(bytes: &[u8]) -> [u8; 32] {
    // SplitMix64, four times: the tests need variety, not a hash function.
    let mut out = [0; 32];
    let mut state = bytes.iter().fold(7u64, |state, byte| state.wrapping_mul(0x100_0000_01B3) ^ u64::from(*byte));
    for chunk in out.chunks_mut(8) {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        chunk.copy_from_slice(&(mixed ^ (mixed >> 27)).to_le_bytes());
    }
    out
}

impl World {
    pub fn new() -> Self {
        Self { memory: MemoryStore::new(), seam: crate::held::virtual_seam(), databases: Vec::new() }
    }

    pub fn stores(&self) -> Stores {
        Stores::one(Arc::new(self.memory.clone()))
    }

    pub async fn node(&self) -> Incarnation {
        let id = IncarnationId::random(&self.seam);
        let lease = Duration::from_secs(3);
        Incarnation::start(id, self.stores(), self.seam.clone(), lease, log::channel(), Arc::new(Deaf)).await.unwrap()
    }

    /// Creates a database that `node` owns; returns its place in `databases`.
    pub async fn create(&mut self, node: &Incarnation) -> usize {
        let name = Name::parse(&format!("db-{}", self.databases.len())).unwrap();
        let settings = Settings::new(1_700_000_000_000_000);
        let created = registry::create_database(&self.memory, &self.seam, &name, node.id, settings, Patience::endless());
        let head = created.await.unwrap().value;
        let tip = Tip::before_first(head.database);
        self.databases.push(Known { id: head.database, tip, epoch: head.epoch, pages: BTreeMap::new() });
        self.databases.len() - 1
    }

    /// Commits: these pages get new content, and the database has this size then.
    pub fn commit(&mut self, node: &Incarnation, database: usize, pages: &[u32], page_count: u32) {
        let known = &self.databases[database];
        let lsn = Lsn::after(known.tip.lsn);
        let changed = pages.iter().map(|number| {
            // Half of a page changes, so that a patch pays off.
            let old = known.pages.get(&page_no(*number)).map(|(page, ..)| page.as_bytes().to_vec());
            let mut bytes = content(lsn.get() * 1000 + u64::from(*number)).as_bytes().to_vec();
            if let Some(old) = old {
                bytes[64..].copy_from_slice(&old[64..]);
            }
            (page_no(*number), Page::copy_of(bytes.first_chunk::<PAGE_BYTES>().unwrap()))
        });
        let changed = changed.collect();
        self.commit_pages(node, database, changed, page_count);
    }

    /// Commits these pages.
    pub fn commit_pages(&mut self, node: &Incarnation, database: usize, pages: BTreeMap<PageNo, Page>, page_count: u32) {
        let known = &mut self.databases[database];
        let lsn = Lsn::after(known.tip.lsn);
        let commit = Commit::new(&known.tip, 1_700_000_000_000_000, page_count, pages).unwrap();
        let base = |number: PageNo| {
            let (page, lsn, patches_in_a_row) = known.pages.get(&number)?.clone();
            Some(Base { lsn, page, patches_in_a_row })
        };
        let encoded = commit::encode(&commit, &known.tip, &base);
        known.pages.retain(|number, _| number.get() <= page_count);
        for ((number, page), patched) in commit.pages.into_iter().zip(encoded.patched) {
            let before = known.pages.get(&number).map_or(0, |(_, _, count)| *count);
            known.pages.insert(number, (page, lsn, if patched { before + 1 } else { 0 }));
        }
        known.tip = encoded.tip;
        let entry = Entry { database: known.id, epoch: known.epoch, lsn, bytes: encoded.bytes.into() };
        node.log.append(log::Commit { entry, window_micros: 0, home: 0, side: None });
    }

    pub async fn head(&self, database: usize) -> Versioned<Head> {
        let id = self.databases[database].id;
        registry::read_head(&self.memory, &self.seam, id, Patience::endless()).await.unwrap().unwrap()
    }

    /// With nothing in its cache.
    pub fn fetcher(&self) -> Fetcher {
        Fetcher::new(Arc::new(self.memory.clone()), self.seam.clone(), PageCache::new(1 << 20), 8 << 20)
    }

    /// The whole tail of a head, its logs sealed if need be, as any new owner reads it.
    pub async fn tail(&self, head: &Head, fetcher: &Fetcher) -> Tail {
        let stores = self.stores();
        let access = Access { stores: &stores, seam: &self.seam, patience: Patience::endless() };
        let mut tail = Tail::of_head(fetcher, head).await.unwrap();
        for entry in &head.tail {
            if head.owner == Some(entry.incarnation) && self.is_open(entry.incarnation) {
                continue;
            }
            let log = SealedLog::open(access, entry.incarnation).await.unwrap();
            for commit in log.commits(access, head.database, None).await.unwrap() {
                if entry.holds(entry.incarnation, commit.epoch, commit.lsn) && Some(commit.lsn) > tail.tip.lsn {
                    assert_eq!(tail.add(fetcher, &commit, entry.incarnation).await.unwrap(), Added::Yes);
                }
            }
        }
        tail
    }

    /// Whether nobody has begun to seal the log of `id`.
    pub fn is_open(&self, id: IncarnationId) -> bool {
        let record = self.memory.snapshot()[&walstore::keys::incarnation(id)].clone();
        walstore::incarnation::IncarnationRecord::decode(&record).unwrap().state == walstore::incarnation::State::Open
    }

    /// Every page of a database is what its client knows, wherever it lies now.
    pub async fn check(&self, database: usize) {
        let fetcher = self.fetcher();
        let known = &self.databases[database];
        let mut tail = self.tail(&self.head(database).await.value, &fetcher).await;
        assert_eq!(tail.tip, known.tip, "database {database}");
        for (number, (page, ..)) in &known.pages {
            let found = tail.page(&fetcher, *number).await.unwrap();
            assert!(found.as_bytes() == page.as_bytes(), "database {database}, page {number}");
        }
    }

    /// A fold by the owner: of its own commits too, if its log is sealed, else of those before.
    pub async fn fold(&self, database: usize) {
        let fetcher = self.fetcher();
        let head = self.head(database).await;
        let Tail { map, input, tip, .. } = self.tail(&head.value, &fetcher).await;
        let seq = head.value.fold_seq + 1;
        let job = FoldJob { head, map, input, tip, own_after: tip.lsn, seq, deleted: Vec::new(), release: false, pin: None };
        Folder { store: &self.memory, seam: &self.seam, fetcher: &fetcher }.fold(job).await.unwrap();
    }

    /// Makes `node` the owner of a database whose last owner is over.
    pub async fn acquire(&mut self, database: usize, node: &Incarnation) {
        let head = self.head(database).await;
        let next = lifecycle::acquire(&head.value, node.id, PutId::random(&self.seam));
        let swap = registry::swap_head(&self.memory, &self.seam, &head, next, Patience::endless()).await.unwrap();
        let Swap::Won(head) = swap else { panic!("nobody else is there") };
        self.databases[database].epoch = head.value.epoch;
    }

    /// A fold of the whole tail, whose logs have ended; then the database is nobody's.
    pub async fn fold_and_release(&self, database: usize) {
        let fetcher = self.fetcher();
        let head = self.head(database).await;
        let Tail { map, input, tip, .. } = self.tail(&head.value, &fetcher).await;
        let seq = head.value.fold_seq + 1;
        let job = FoldJob { head, map, input, tip, own_after: tip.lsn, seq, deleted: Vec::new(), release: true, pin: None };
        Folder { store: &self.memory, seam: &self.seam, fetcher: &fetcher }.fold(job).await.unwrap();
    }

    /// `from`, which has written nothing, gives a database to `to`.
    pub async fn hand_over(&mut self, database: usize, from: &Incarnation, to: &Incarnation) {
        let head = self.head(database).await;
        assert_eq!(head.value.owner, Some(from.id));
        let next = lifecycle::release(&head.value, head.value.folded.lsn, PutId::random(&self.seam)).unwrap();
        registry::swap_head(&self.memory, &self.seam, &head, next, Patience::endless()).await.unwrap();
        self.acquire(database, to).await;
    }

    pub fn record(&self, id: IncarnationId) -> walstore::incarnation::IncarnationRecord {
        let record = self.memory.snapshot()[&walstore::keys::incarnation(id)].clone();
        walstore::incarnation::IncarnationRecord::decode(&record).unwrap()
    }

    /// Everything under the prefix of a database.
    pub fn objects_of(&self, database: usize) -> Vec<walstore::store::Key> {
        let prefix = tenant::keys::database_prefix(self.databases[database].id);
        self.memory.keys().into_iter().filter(|key| key.as_str().starts_with(&prefix)).collect()
    }

    pub fn count(&self, prefix: &str) -> usize {
        self.memory.keys().iter().filter(|key| key.as_str().starts_with(prefix)).count()
    }

    /// The node dies: nothing renews its record any more.
    pub async fn dies(&self, node: &Incarnation) {
        node.log.drain().await;
        node.lease.stop();
    }

    /// Nothing of the log of `id` is left but where it ended, and nobody owns what it had.
    pub async fn assert_drained(&self, id: IncarnationId) {
        assert_eq!((self.count("live/"), self.count("b/"), self.count("x/"), self.count("w/")), (0, 0, 0, 1));
        let record = self.memory.get(&walstore::keys::incarnation(id)).await.unwrap().unwrap().bytes;
        let record = walstore::incarnation::IncarnationRecord::decode(&record).unwrap();
        let walstore::incarnation::State::Sealed { end } = record.state else { panic!("not sealed") };
        let tombstone: Option<Bytes> = self.memory.snapshot().get(&walstore::keys::fragment(id, end)).cloned();
        assert!(tombstone.is_some_and(|object| object.len() == walstore::fragment::TOMBSTONE_BYTES));
    }
}
