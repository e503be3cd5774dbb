//! A sound bucket with an object of every kind that nodes with logs write, and what its databases hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use pageserver::garbage;
use pageserver::verify::Options;
use segments::id::MapChunkId;
use segments::keys::Object;
use segments::map::PageMap;
use segments::pack::read_pack;
use tenant::head::{Head, MapField};
use tenant::name::Name;
use tenant::registry;
use walstore::bundling;
use walstore::envelope::{self, Writer};
use walstore::fragment::TOMBSTONE_BYTES;
use walstore::id::{DatabaseId, IncarnationId, Slot};
use walstore::life::Incarnation;
use walstore::recovery::Access;
use walstore::register::{Patience, Record};
use walstore::seam::Seam;
use walstore::store::{Condition, Key, MemoryStore, Store};
use walstore::{keys, seal};

use crate::inflict::store_of;
use crate::reader::Content;
use crate::witness::verify;
use crate::world::World;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Cluster,
    Probed,
    Sweep,
    Incarnation,
    Live,
    Slot,
    Tombstone,
    Bundle,
    Side,
    Name,
    Head,
    /// A head that was deleted, or replaced by a restore, or that never lived.
    Ended,
    Pack,
    /// A pack with nothing but the commits of a fold.
    Commits,
    MapChunk,
    Base,
    HistoryChunk,
    Pins,
    Due,
}

impl Kind {
    pub const ALL: [Self; 19] = [
        Self::Cluster,
        Self::Probed,
        Self::Sweep,
        Self::Incarnation,
        Self::Live,
        Self::Slot,
        Self::Tombstone,
        Self::Bundle,
        Self::Side,
        Self::Name,
        Self::Head,
        Self::Ended,
        Self::Pack,
        Self::Commits,
        Self::MapChunk,
        Self::Base,
        Self::HistoryChunk,
        Self::Pins,
        Self::Due,
    ];

    fn of(key: &Key, object: &Bytes) -> Self {
        match keys::parse(key) {
            Some(keys::Object::Incarnation(_)) => return Self::Incarnation,
            Some(keys::Object::Live(_)) => return Self::Live,
            Some(keys::Object::Side(..)) => return Self::Side,
            Some(keys::Object::Bundle { .. }) => return Self::Bundle,
            Some(keys::Object::Fragment(..)) if object.len() == TOMBSTONE_BYTES => return Self::Tombstone,
            Some(keys::Object::Fragment(..)) => return Self::Slot,
            None => {}
        }
        match segments::keys::parse(key.as_str()) {
            Some(Object::Pack(id)) => {
                let contents = read_pack(object, &id).expect("a sound pack");
                let is_empty = contents.segments.entries().is_empty() && contents.delta.entries().is_empty();
                return if is_empty { Self::Commits } else { Self::Pack };
            }
            // They have keys of the same form.
            Some(Object::MapChunk(_)) => {
                let kinds = [
                    (envelope::Kind::PageMap, Self::MapChunk),
                    (envelope::Kind::Base, Self::Base),
                    (envelope::Kind::History, Self::HistoryChunk),
                ];
                return kinds.into_iter().find(|(kind, _)| *kind as u8 == object[4]).expect("a kind of object").1;
            }
            None => {}
        }
        match key.as_str() {
            "meta/cluster" => Self::Cluster,
            "meta/probed" => Self::Probed,
            "meta/sweep" => Self::Sweep,
            name if name.starts_with("n/") => Self::Name,
            due if due.starts_with("due/") => Self::Due,
            head if head.ends_with("/head") => {
                let head = Head::decode(object).expect("a sound head");
                if head.state.is_final() { Self::Ended } else { Self::Head }
            }
            _ if tenant::keys::parse_pins(key).is_some() => Self::Pins,
            other => panic!("{other} is of no kind"),
        }
    }
}

/// What a name leads to.
pub struct Database {
    pub name: Name,
    pub id: DatabaseId,
    /// `None`: it was deleted.
    pub content: Option<Content>,
}

/// A moment that can be gone back to.
pub struct Moment {
    pub database: DatabaseId,
    pub lsn: u64,
    pub content: Content,
}

/// A log that is still open.
pub struct OpenLog {
    pub id: IncarnationId,
    /// From where on nothing is promised of it.
    hint: Slot,
}

pub struct Bucket {
    pub objects: BTreeMap<Key, Bytes>,
    kinds: BTreeMap<Key, Kind>,
    /// What nothing refers to, as `verify` has it.
    pub orphans: BTreeSet<Key>,
    pub databases: Vec<Database>,
    pub moments: Vec<Moment>,
    pub seam: Seam,
    pub open: Option<OpenLog>,
}

/// Folded twice, and a tail in two logs. The database after it is in the log of the first node only.
const FOLDED: usize = 0;
/// Its last commit is in a bundle.
const BUNDLED: usize = 2;
/// With a chunk of the page map as an object of its own.
const CHUNKED: usize = 3;
const DELETED: usize = 4;
/// Never written.
const EMPTY: usize = 5;
/// Goes on in the log that is open.
const OPEN: usize = 6;
/// Folded, and small: its head is all that there is.
const SMALL: usize = 7;
const COUNT: usize = 8;

impl Bucket {
    /// Without a side object, because those are large.
    pub async fn new() -> Self {
        let mut world = World::new();
        let first = world.node().await;
        for database in 0..COUNT {
            world.create(&first).await;
            if database != EMPTY {
                world.commit(&first, database, &[1, 2, 3], 3);
                world.commit(&first, database, &[2], 3);
                first.log.drain().await;
            }
        }
        world.commit(&first, FOLDED, &[1, 40, 70], 70);
        world.commit(&first, CHUNKED, &(1..=64).collect::<Vec<u32>>(), 64);
        dies(&world, &first).await;
        let head = world.head(DELETED).await;
        registry::delete_database(&world.memory, &world.seam, &head, first.id, Patience::endless()).await.unwrap();
        world.fold(FOLDED).await;
        world.fold(CHUNKED).await;
        world.fold(SMALL).await;
        cut_chunk(&world.memory, world.databases[CHUNKED].id).await;

        let second = world.node().await;
        for database in [FOLDED, BUNDLED] {
            world.acquire(database, &second).await;
            // A shrink and a regrowth, and patches.
            world.commit(&second, database, &[1, 2], 2);
            world.commit(&second, database, &[1, 3, 4], 4);
            second.log.drain().await;
        }
        dies(&world, &second).await;
        let stores = world.stores();
        let access = Access { stores: &stores, seam: &world.seam, patience: Patience::endless() };
        bundling::bundle(access, second.id).await.unwrap();
        world.fold(FOLDED).await;

        let third = world.node().await;
        for database in [FOLDED, OPEN] {
            world.acquire(database, &third).await;
            world.commit(&third, database, &[1, 2], 4);
            third.log.drain().await;
        }
        // Long enough for the hint to be written, and then some more.
        world.seam.sleep(Duration::from_secs(5)).await;
        world.commit(&third, OPEN, &[1, 5], 5);
        third.log.drain().await;
        for database in [FOLDED, CHUNKED] {
            garbage::delete(&world.memory, world.head(database).await.value.dead).await;
        }
        let bucket = Self::of(&world, &third).await;
        third.lease.stop();
        bucket
    }

    /// One database with a side object.
    pub async fn large() -> Self {
        let mut world = World::new();
        let node = world.node().await;
        world.create(&node).await;
        world.commit(&node, 0, &(1..=270).collect::<Vec<u32>>(), 270);
        world.commit(&node, 0, &[3], 270);
        dies(&world, &node).await;
        Self::of(&world, &node).await
    }

    async fn of(world: &World, last: &Incarnation) -> Self {
        let mut databases = Vec::new();
        for (at, known) in world.databases.iter().enumerate() {
            let is_deleted = world.head(at).await.value.state.is_final();
            let pages = known.pages.iter().map(|(number, (page, ..))| (*number, page.clone()));
            let content = (!is_deleted).then(|| Content(pages.collect()));
            databases.push(Database { name: Name::parse(&format!("db-{at}")).unwrap(), id: known.id, content });
        }
        let hint = world.record(last.id).hint;
        let open = Some(OpenLog { id: last.id, hint });
        Self::with(&world.memory, &world.seam, (databases, Vec::new()), open).await
    }

    /// What the store holds now, and the records of the bucket itself.
    pub async fn with(
        memory: &MemoryStore,
        seam: &Seam,
        (databases, moments): (Vec<Database>, Vec<Moment>),
        open: Option<OpenLog>,
    ) -> Self {
        put_meta(memory).await;
        let objects = memory.snapshot();
        let kinds = objects.iter().map(|(key, object)| (key.clone(), Kind::of(key, object))).collect();
        let (found, _) = verify(memory, seam, &Options::default()).await;
        let orphans = found.orphans.into_iter().map(|orphan| orphan.key).collect();
        Self { objects, kinds, orphans, databases, moments, seam: seam.clone(), open }
    }

    pub async fn store(&self) -> MemoryStore {
        store_of(&self.objects).await
    }

    pub async fn store_without_orphans(&self) -> MemoryStore {
        let mut objects = self.objects.clone();
        objects.retain(|key, _| !self.orphans.contains(key));
        store_of(&objects).await
    }

    pub fn kinds(&self) -> Vec<Kind> {
        Kind::ALL.into_iter().filter(|kind| self.kinds.values().any(|of| of == kind)).collect()
    }

    /// The head of the database that an object is of.
    pub fn head_of(&self, key: &Key) -> Key {
        tenant::keys::head(tenant::keys::parse_database(key).expect("an object of a database"))
    }

    pub fn kind_of(&self, key: &Key) -> Kind {
        self.kinds[key]
    }

    /// How many databases there ever were.
    pub fn heads(&self) -> usize {
        self.kinds.values().filter(|kind| matches!(kind, Kind::Head | Kind::Ended)).count()
    }

    /// Whether `key` is of this database, or its name.
    pub fn concerns(key: &Key, database: DatabaseId, name: Option<&Name>) -> bool {
        tenant::keys::parse_database(key) == Some(database) || name.is_some_and(|name| *key == tenant::keys::name(name))
    }

    /// A name that leads to no database, and never did.
    pub fn is_nobodys_name(&self, key: &Key) -> bool {
        self.kind_of(key) == Kind::Name && !self.databases.iter().any(|known| *key == tenant::keys::name(&known.name))
    }

    /// The head of a fork or an import that was not finished: it says that there is nothing.
    pub fn is_aborted(&self, key: &Key) -> bool {
        let head = (self.kind_of(key) == Kind::Ended).then(|| Head::decode(&self.objects[key]).unwrap());
        head.is_some_and(|head| head.state == tenant::head::HeadState::Aborted)
    }

    /// The head of a living database that has not folded anything: it is in logs only, if anywhere.
    pub fn is_not_folded(&self, key: &Key) -> bool {
        let Some(id) = tenant::keys::parse_database(key) else { return false };
        let Ok(head) = Head::decode(&self.objects[&tenant::keys::head(id)]) else { return false };
        *key == tenant::keys::head(id) && !head.state.is_final() && !head.has_folded()
    }

    /// The head of a live database that has commits in a log.
    pub fn is_logged(&self, key: &Key) -> bool {
        let Some(id) = tenant::keys::parse_database(key) else { return false };
        let head = Head::decode(&self.objects[&tenant::keys::head(id)]).unwrap();
        let known = self.databases.iter().find(|database| database.id == id);
        let has_pages = known.and_then(|known| known.content.as_ref()).is_some_and(|content| !content.0.is_empty());
        has_pages && !head.tail.is_empty()
    }

    pub fn is_above_hint(&self, key: &Key) -> bool {
        matches!(keys::parse(key), Some(keys::Object::Fragment(id, slot)) if self.open.as_ref().is_some_and(|open| open.id == id && slot >= open.hint))
    }
}

async fn dies(world: &World, node: &Incarnation) {
    world.dies(node).await;
    let sealed = seal::seal(&world.stores(), &world.seam, node.id, Patience::endless()).await.unwrap();
    assert!(sealed.end > Slot::ZERO);
}

async fn put(memory: &MemoryStore, key: &Key, object: Bytes) {
    memory.put(key, object, &Condition::None).await.unwrap();
}

async fn put_meta(memory: &MemoryStore) {
    let mut body = Writer::new();
    body.raw(&[7; 16]);
    body.u32(1);
    put(memory, &keys::cluster(), envelope::seal(envelope::Kind::Cluster, 1, &body.finish())).await;
    let probed = envelope::seal(envelope::Kind::Cluster, 1, b"format 1 on some store");
    put(memory, &keys::probed(), probed).await;
}

/// Stores the page map of a database as that of a large one is stored: with an object for each chunk.
pub async fn cut_chunk(memory: &MemoryStore, database: DatabaseId) {
    let key = tenant::keys::head(database);
    let head = Head::decode(&memory.snapshot()[&key]).unwrap();
    let MapField::Inline(root) = &head.map else { panic!("no map") };
    let mut id = || MapChunkId { owner: database, epoch: head.epoch, seq: 1, nonce: 77 };
    let stored = PageMap::decode(root).unwrap().store_within(0, &mut id);
    assert_eq!(stored.objects.len(), 1, "segments that stand whole, and one chunk of them");
    for (id, object) in stored.objects {
        put(memory, &segments::keys::page_map(&id), object).await;
    }
    put(memory, &key, Head { map: MapField::Inline(stored.root), ..head.clone() }.encode()).await;
}
