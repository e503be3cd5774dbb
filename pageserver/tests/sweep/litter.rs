//! A bucket in which many things were left lying about.

use segments::id::{MapChunkId, PackId};
use segments::pack::PackWriter;
use tenant::registry;
use walstore::fragment;
use walstore::id::{IncarnationId, Lsn, PutId, Slot};
use walstore::incarnation::{IncarnationRecord, State};
use walstore::keys;
use walstore::life::Incarnation;
use walstore::register::{Patience, Record};
use walstore::store::{Condition, Key, Store};
use walstore::{envelope, seal};

use crate::world::{World, content, page_no};

/// Given up by a dead owner, with packs on the dead list.
const UNLINKED: usize = 0;
pub const DELETED: usize = 1;
/// Its owner is alive, and has a tail.
pub const LIVING: usize = 2;
/// Its owner is the same, and has written nothing.
const IDLE: usize = 3;

pub struct Litter {
    pub world: World,
    pub living: Incarnation,
    pub dead: Vec<Key>,
    pub in_flight: Vec<Key>,
}

impl Litter {
    pub async fn new() -> Self {
        let mut world = World::new();
        put_cluster(&world).await;
        let first = world.node().await;
        for database in [UNLINKED, DELETED, LIVING, IDLE] {
            world.create(&first).await;
            let pages: Vec<u32> = (1..=40).collect();
            world.commit(&first, database, &pages, 40);
        }
        seal_now(&world, &first).await;
        for database in [UNLINKED, DELETED, LIVING, IDLE] {
            world.fold(database).await;
        }
        let living = world.node().await;
        for database in [UNLINKED, DELETED, LIVING, IDLE] {
            world.acquire(database, &living).await;
        }
        let head = world.head(DELETED).await;
        registry::delete_database(&world.memory, &world.seam, &head, living.id, Patience::endless()).await.unwrap();
        let second = unlinks_and_dies(&mut world, &living).await;
        world.commit(&living, LIVING, &[1, 7], 40);
        living.log.drain().await;

        let mut litter = Self { world, living, dead: Vec::new(), in_flight: Vec::new() };
        litter.of_databases().await;
        litter.of_logs(&first, &second).await;
        litter.in_flight.sort();
        litter
    }

    /// Packs and chunks of terms that are over, and of one that is not.
    async fn of_databases(&mut self) {
        let head = self.world.head(LIVING).await.value;
        for epoch in [1, head.epoch - 1] {
            let id = PackId { owner: head.database, epoch, seq: 9, nonce: 1 };
            self.dead.push(put_pack(&self.world, id).await);
        }
        let chunk = MapChunkId { owner: head.database, epoch: 1, seq: 9, nonce: 1 };
        let key = segments::keys::page_map(&chunk);
        put(&self.world, &key, envelope::seal(envelope::Kind::PageMap, 1, b"never linked")).await;
        self.dead.push(key);
        for head in [head, self.world.head(IDLE).await.value] {
            let id = PackId { owner: head.database, epoch: head.epoch, seq: 9, nonce: 1 };
            self.in_flight.push(put_pack(&self.world, id).await);
        }
        let unlinked = self.world.head(UNLINKED).await.value;
        assert!(unlinked.owner.is_none() && !unlinked.dead.is_empty(), "{unlinked:?}");
        self.dead.extend(unlinked.dead.iter().map(|dead| pageserver::garbage::key_of(dead).unwrap()));
    }

    /// Late slots, side objects and bundles.
    async fn of_logs(&mut self, first: &Incarnation, second: &Incarnation) {
        for node in [first, second] {
            let record = self.world.record(node.id);
            let State::Sealed { end } = record.state else { panic!("not sealed") };
            self.dead.push(put_slot(&self.world, node.id, Slot(end.0 + 2)).await);
        }
        // Drained, and then a late duplicate of everything.
        let drained = IncarnationId::random(&self.world.seam);
        let mut record = IncarnationRecord::new(drained, PutId::random(&self.world.seam), 1, String::new());
        (record.state, record.low, record.hint) = (State::Sealed { end: Slot(3) }, Slot(3), Slot(3));
        put(&self.world, &keys::incarnation(drained), record.encode()).await;
        let tombstone = fragment::encode_tombstone(drained, Slot(3), PutId::random(&self.world.seam));
        put(&self.world, &keys::fragment(drained, Slot(3)), tombstone).await;
        self.dead.push(put_slot(&self.world, drained, Slot(1)).await);
        for key in [keys::side(drained, [5; 16]), keys::bundle(drained, 4, [6; 16])] {
            put(&self.world, &key, envelope::seal(envelope::Kind::SideObject, 1, b"late")).await;
            self.dead.push(key);
        }
        let key = keys::side(self.living.id, [5; 16]);
        put(&self.world, &key, envelope::seal(envelope::Kind::SideObject, 1, b"its slot comes")).await;
        self.in_flight.push(key);
    }

    /// The living node dies too, is sealed, and everything that nodes do about the dead is done.
    pub async fn everybody_dies(&self) {
        seal_now(&self.world, &self.living).await;
        let mut drainer = pageserver::drain::Drainer::new(
            IncarnationId::random(&self.world.seam),
            self.world.stores(),
            self.world.seam.clone(),
            &self.world.fetcher(),
        );
        for _ in 0..3 {
            drainer.sweep().await.unwrap();
        }
    }
}

/// A node that folds, so that packs are unlinked, gives the database up, and dies.
async fn unlinks_and_dies(world: &mut World, former: &Incarnation) -> Incarnation {
    let node = world.node().await;
    world.hand_over(UNLINKED, former, &node).await;
    // All segments anew: then nothing refers to the first pack any more.
    world.commit(&node, UNLINKED, &(1..=40).collect::<Vec<u32>>(), 40);
    seal_now(world, &node).await;
    world.fold_and_release(UNLINKED).await;
    node
}

pub async fn seal_now(world: &World, node: &Incarnation) {
    world.dies(node).await;
    seal::seal(&world.stores(), &world.seam, node.id, Patience::endless()).await.unwrap();
}

pub async fn put(world: &World, key: &Key, object: bytes::Bytes) {
    world.memory.put(key, object, &Condition::None).await.unwrap();
}

pub async fn put_pack(world: &World, id: PackId) -> Key {
    let mut writer = PackWriter::new(id, Lsn::FIRST, 2);
    writer.add_page(page_no(2), content(id.epoch));
    let key = segments::keys::pack(&id);
    put(world, &key, writer.finish().unwrap().bytes).await;
    key
}

async fn put_slot(world: &World, id: IncarnationId, slot: Slot) -> Key {
    let key = keys::fragment(id, slot);
    put(world, &key, fragment::encode(id, slot, PutId::random(&world.seam), &[])).await;
    key
}

pub async fn put_cluster(world: &World) {
    let mut body = envelope::Writer::new();
    body.raw(&[7; 16]);
    body.u32(1);
    put(world, &keys::cluster(), envelope::seal(envelope::Kind::Cluster, 1, &body.finish())).await;
}
