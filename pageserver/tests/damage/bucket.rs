//! A sound bucket with an object of every kind, and what its databases hold.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use pageserver::garbage;
use segments::id::MapChunkId;
use segments::keys::Object;
use segments::pack::history::History;
use segments::pack::{Frame, PackWriter, read_pack};
use segments::page::{PageNo, SegmentNo};
use tenant::head::{Head, MapField};
use tenant::name::Name;
use tenant::registry;
use walstore::bundling;
use walstore::envelope::{self, Writer};
use walstore::fragment::TOMBSTONE_BYTES;
use walstore::id::{DatabaseId, Slot};
use walstore::incarnation::IncarnationRecord;
use walstore::life::Incarnation;
use walstore::recovery::{Access, SealedLog};
use walstore::register::{Patience, Record};
use walstore::seam::Seam;
use walstore::store::{Condition, Key, MemoryStore, Store};
use walstore::{keys, seal};

use crate::inflict::store_of;
use crate::reader::Content;
use crate::world::World;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Cluster,
    Probed,
    Incarnation,
    Live,
    Slot,
    Tombstone,
    Bundle,
    Side,
    Name,
    Head,
    Pack,
    MapChunk,
    Due,
}

impl Kind {
    pub const ALL: [Self; 13] = [
        Self::Cluster,
        Self::Probed,
        Self::Incarnation,
        Self::Live,
        Self::Slot,
        Self::Tombstone,
        Self::Bundle,
        Self::Side,
        Self::Name,
        Self::Head,
        Self::Pack,
        Self::MapChunk,
        Self::Due,
    ];
}

pub struct Database {
    pub name: Name,
    /// `None`: it was deleted.
    pub content: Option<Content>,
}

pub struct Bucket {
    pub objects: BTreeMap<Key, Bytes>,
    pub databases: Vec<Database>,
    pub seam: Seam,
    /// The log that is still open, and from where on nothing is promised of it.
    hint: Slot,
    pub open: walstore::id::IncarnationId,
}

/// Folded twice, and a tail in two logs. The database after it is in the log of the first node only.
const FOLDED: usize = 0;
/// Its last commit is in a bundle.
const BUNDLED: usize = 2;
/// With a chunk of the page map as an object of its own, and history in its pack.
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
        add_history(&world, CHUNKED, &first).await;
        cut_chunk(&world, CHUNKED).await;

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
        put_meta(&world.memory).await;
        let mut databases = Vec::new();
        for (at, known) in world.databases.iter().enumerate() {
            let is_deleted = world.head(at).await.value.state.is_final();
            let pages = known.pages.iter().map(|(number, (page, ..))| (*number, page.clone()));
            let content = (!is_deleted).then(|| Content(pages.collect()));
            databases.push(Database { name: Name::parse(&format!("db-{at}")).unwrap(), content });
        }
        let objects = world.memory.snapshot();
        let record = IncarnationRecord::decode(&objects[&keys::incarnation(last.id)]).unwrap();
        Self { objects, databases, seam: world.seam.clone(), hint: record.hint, open: last.id }
    }

    pub async fn store(&self) -> MemoryStore {
        store_of(&self.objects).await
    }

    pub fn kinds(&self) -> Vec<Kind> {
        Kind::ALL.into_iter().filter(|kind| self.objects.keys().any(|key| self.kind_of(key) == *kind)).collect()
    }

    pub fn kind_of(&self, key: &Key) -> Kind {
        match keys::parse(key) {
            Some(keys::Object::Incarnation(_)) => return Kind::Incarnation,
            Some(keys::Object::Live(_)) => return Kind::Live,
            Some(keys::Object::Side(..)) => return Kind::Side,
            Some(keys::Object::Bundle { .. }) => return Kind::Bundle,
            Some(keys::Object::Fragment(..)) => {
                return if self.objects[key].len() == TOMBSTONE_BYTES { Kind::Tombstone } else { Kind::Slot };
            }
            None => {}
        }
        match segments::keys::parse(key.as_str()) {
            Some(Object::Pack(_)) => return Kind::Pack,
            Some(Object::MapChunk(_)) => return Kind::MapChunk,
            None => {}
        }
        match key.as_str() {
            "meta/cluster" => Kind::Cluster,
            "meta/probed" => Kind::Probed,
            name if name.starts_with("n/") => Kind::Name,
            due if due.starts_with("due/") => Kind::Due,
            head if head.ends_with("/head") => Kind::Head,
            other => panic!("{other} is of no kind"),
        }
    }

    /// The head of a living database that has not folded anything: it is in logs only, if anywhere.
    pub fn is_not_folded(&self, key: &Key) -> bool {
        let Some(id) = tenant::keys::parse_database(key) else { return false };
        let Ok(head) = Head::decode(&self.objects[&tenant::keys::head(id)]) else { return false };
        *key == tenant::keys::head(id) && !head.state.is_final() && !head.has_folded()
    }

    /// The head of a live database that has commits.
    pub fn is_logged(&self, key: &Key) -> bool {
        let Some(id) = tenant::keys::parse_database(key) else { return false };
        let head = Head::decode(&self.objects[&tenant::keys::head(id)]).unwrap();
        let known = self.databases.iter().find(|database| database.name == head.name);
        known.and_then(|database| database.content.as_ref()).is_some_and(|content| !content.0.is_empty())
    }

    pub fn is_above_hint(&self, key: &Key) -> bool {
        matches!(keys::parse(key), Some(keys::Object::Fragment(id, slot)) if id == self.open && slot >= self.hint)
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

fn rewritten(head: &Head, map: Vec<u8>) -> Head {
    Head { map: MapField::Inline(map.into()), ..head.clone() }
}

/// Moves the first chunk of an inline map into an object of its own, as a larger map would have it.
async fn cut_chunk(world: &World, database: usize) {
    let head = world.head(database).await.value;
    let MapField::Inline(root) = &head.map else { panic!("no map") };
    // Version, LSN, pages, no deltas; then a chunk that is here.
    const START: usize = 1 + 8 + 4;
    assert_eq!(root[START..START + 2], [0, 1], "all segments were folded whole");
    let id = MapChunkId { owner: head.database, epoch: head.epoch, seq: 1, nonce: 77 };
    let mut body = Writer::new();
    id.encode(&mut body);
    body.u32(0);
    body.raw(&root[START + 2..]);
    let object = envelope::seal(envelope::Kind::PageMap, 2, &body.finish());
    let mut map = Writer::new();
    map.raw(&root[..=START]);
    map.u8(2);
    id.encode(&mut map);
    map.u32(object.len() as u32);
    map.u32(crc32c::crc32c(&object));
    put(&world.memory, &segments::keys::page_map(&id), object).await;
    put(&world.memory, &tenant::keys::head(head.database), rewritten(&head, map.finish()).encode()).await;
}

/// Gives the pack of a database the commits that it folded, as folds with a retention do.
async fn add_history(world: &World, database: usize, node: &Incarnation) {
    let head = world.head(database).await.value;
    let key = pack_of(world, head.database);
    let Some(Object::Pack(id)) = segments::keys::parse(key.as_str()) else { panic!("not a pack") };
    let object = world.memory.get(&key).await.unwrap().unwrap().bytes;
    let contents = read_pack(&object, &id).unwrap();
    let mut writer = PackWriter::new(id, contents.footer.lsn, contents.footer.page_count);
    let frame = |at: &segments::pack::FrameRef| {
        Frame::decode(&object.slice(at.range().start as usize..at.range().end as usize), at).unwrap()
    };
    for entry in contents.segments.entries() {
        let pages = (0..entry.pages.count() as u8).map(|place| frame(&entry.frame).page(place).unwrap());
        writer.add_segment(entry.segment, pages.collect());
    }
    for entry in contents.delta.entries() {
        for (place, position) in (0..).zip(entry.pages.positions()) {
            let page: PageNo = SegmentNo::page(entry.segment, position).unwrap();
            writer.add_page(page, frame(&entry.frame).page(place).unwrap());
        }
    }
    let stores = world.stores();
    let access = Access { stores: &stores, seam: &world.seam, patience: Patience::endless() };
    let log = SealedLog::open(access, node.id).await.unwrap();
    let commits = log.commits(access, head.database, None).await.unwrap();
    let first = commits[0].lsn;
    writer.set_history(History { first, commits: commits.into_iter().map(|commit| commit.bytes).collect() });
    put(&world.memory, &key, writer.finish().unwrap().bytes).await;
}

fn pack_of(world: &World, database: DatabaseId) -> Key {
    let prefix = segments::keys::packs_prefix(database);
    world.memory.keys().into_iter().find(|key| key.as_str().starts_with(&prefix)).unwrap()
}
