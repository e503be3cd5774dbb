//! What becomes of a database when the bucket says nothing, says it late, or takes something no more: single stories of
//! whole nodes, in virtual time, each about one answer.

mod dead_space;
mod moved;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use compute::core::{Change, Configure, Message, OpenError};
use compute::error::{Fault, ServerError};
use compute::import::job::{self, Progress};
use compute::node::{Node, Settings};
use futures_util::future::join;
use serde_json::{Value, json};
use tenant::head::{Head, HeadState};
use tenant::name::Name;
use tenant::registry;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::LocalSet;
use walstore::id::{DatabaseId, IncarnationId, Lsn};
use walstore::life::Stores;
use walstore::register::Patience;
use walstore::store::{Condition, Key, MemoryStore, Object, Put, Store, StoreError, StoreErrorKind};

use crate::cluster::{Answer, Cluster, sleep};
use crate::machine::{Machine, true_micros};
use crate::past::files::files;
use crate::peers::Network;
use crate::rng::Rng;
use crate::world::{LocalCores, server};

/// One node's way to the bucket. Keys are told by a part of them.
#[derive(Clone, Default)]
struct Way {
    bucket: MemoryStore,
    rules: Arc<Mutex<Rules>>,
    changed: Arc<Notify>,
    caught: Arc<Notify>,
}

#[derive(Default)]
struct Rules {
    /// Writes of these take effect, and nothing of them is ever answered.
    mute: Option<&'static str>,
    /// Writes of these are refused for good.
    refused: Option<&'static str>,
    /// The next read of these is answered when it is let go, with what was there before.
    late: Option<&'static str>,
    is_held: bool,
}

impl Way {
    fn over(bucket: &MemoryStore) -> Self {
        Self { bucket: bucket.clone(), ..Self::default() }
    }

    fn rules(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.rules.lock().unwrap());
        self.changed.notify_waiters();
    }

    fn is(&self, key: &Key, of: fn(&Rules) -> Option<&'static str>) -> bool {
        of(&self.rules.lock().unwrap()).is_some_and(|part| key.as_str().contains(part))
    }

    /// Whether this read is the one that is to be late.
    fn takes_late(&self, key: &Key) -> bool {
        let is_late = self.is(key, |rules| rules.late);
        if is_late {
            self.rules(|rules| (rules.late, rules.is_held) = (None, true));
            self.caught.notify_one();
        }
        is_late
    }

    async fn until_let_go(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.rules.lock().unwrap().is_held {
                return;
            }
            changed.await;
        }
    }
}

#[async_trait]
impl Store for Way {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        if self.is(key, |rules| rules.mute) {
            return Err(StoreError::new(StoreErrorKind::Retry, key, "no answer"));
        }
        let object = self.bucket.get(key).await;
        if self.takes_late(key) {
            self.until_let_go().await;
        }
        object
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Object>, StoreError> {
        self.bucket.get_range(key, range).await
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: &Condition) -> Result<Put, StoreError> {
        if self.is(key, |rules| rules.refused) {
            return Err(StoreError::new(StoreErrorKind::Invalid, key, "such objects are not taken"));
        }
        let answer = self.bucket.put(key, bytes, condition).await;
        match self.is(key, |rules| rules.mute) {
            true => Err(StoreError::new(StoreErrorKind::Indefinite, key, "no answer")),
            false => answer,
        }
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.bucket.delete(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Key>, StoreError> {
        self.bucket.list(prefix, after, limit).await
    }

    fn date_micros(&self) -> Option<u64> {
        self.bucket.date_micros()
    }

    fn describe(&self) -> String {
        self.bucket.describe()
    }
}

struct World {
    bucket: MemoryStore,
    rng: Rng,
    started: tokio::time::Instant,
    cluster: Cluster,
    peers: Arc<Network>,
    ways: Vec<Way>,
    nodes: Vec<(Node, Machine, watch::Sender<bool>)>,
    _network: Machine,
}

impl World {
    fn new() -> Self {
        let (started, mut rng, bucket) = (tokio::time::Instant::now(), Rng::of_seed(7), MemoryStore::new());
        bucket.set_clock(move || true_micros(started));
        let network = Machine::new(&mut rng, started, 0);
        let peers = Network::without_faults(network.seam.clone(), rng.fork());
        let (ways, nodes) = (Vec::new(), Vec::new());
        Self { bucket, rng, started, cluster: Cluster::new(3), peers, ways, nodes, _network: network }
    }

    /// A node, whose clock is so far ahead.
    async fn start(&mut self, settings: Settings, ahead: Duration) -> usize {
        let at = self.nodes.len();
        let machine = Machine::new(&mut self.rng, self.started, ahead.as_micros() as i64);
        let (way, id) = (Way::over(&self.bucket), IncarnationId::random(&machine.seam));
        let address = format!("http://{id}");
        let hour = Duration::from_secs(3600);
        let settings = Settings { address: address.clone(), idle_database_timeout: hour, sweep_interval: hour, ..settings };
        let stores = Stores::one(Arc::new(way.clone()));
        let node = Node::start(id, stores, machine.seam.clone(), settings, &LocalCores).await.expect("a node");
        node.context.reaches_others_by(self.peers.clone());
        self.peers.connect(address, node.handle());
        let (death, is_dead) = watch::channel(false);
        self.cluster.set(at, Some(server(&node, &machine, false, is_dead)));
        self.nodes.push((node, machine, death));
        self.ways.push(way);
        at
    }

    fn now(&self) -> u64 {
        true_micros(self.started)
    }

    async fn ask<T>(&self, at: usize, name: &str, message: impl FnOnce(Name, oneshot::Sender<T>) -> Message) -> T {
        let name = Name::parse(name).expect("a name");
        let (reply, answer) = oneshot::channel();
        self.nodes[at].0.handle().send(&name, message(name.clone(), reply)).expect("a node that runs");
        answer.await.expect("an answer")
    }

    async fn create(&self, at: usize, name: &str) -> DatabaseId {
        self.ask(at, name, |name, reply| Message::Create { name, reply }).await.expect("a new name")
    }

    async fn configure(&self, at: usize, name: &str, configure: Configure) -> Result<(), OpenError> {
        self.ask(at, name, |name, reply| Message::Configure { name, configure, reply }).await.map(drop)
    }

    /// The head, with everything folded.
    async fn folded(&self, at: usize, name: &str) -> Head {
        self.ask(at, name, |name, reply| Message::FoldedHead { name, reply }).await.expect("it is there").value
    }

    async fn sql(&self, at: usize, name: &str, sql: &str) -> Answer {
        self.cluster.pipeline(at, name, None, &json!([{"type": "execute", "stmt": {"sql": sql}}])).await
    }

    async fn run(&self, at: usize, name: &str, sql: &str) -> Value {
        match self.sql(at, name, sql).await {
            Answer::Done(body) if !body.to_string().contains("\"error\"") => body,
            other => panic!("{sql}: {other:?}"),
        }
    }

    /// A table that takes a pack.
    async fn fill(&self, at: usize, name: &str) {
        self.run(at, name, "CREATE TABLE t(body BLOB)").await;
        let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)";
        self.run(at, name, &format!("INSERT INTO t {rows} SELECT randomblob(3000) FROM n")).await;
    }

    async fn head(&self, id: DatabaseId) -> Head {
        let seam = &self.nodes[0].1.seam;
        let head = registry::read_head(&self.bucket, seam, id, Patience::endless()).await;
        head.expect("it can be read").expect("heads stay").value
    }

    /// Packs of a database.
    fn packs(&self, id: DatabaseId) -> BTreeSet<Key> {
        let prefix = tenant::keys::database_prefix(id);
        self.bucket.keys().into_iter().filter(|key| key.as_str().starts_with(&prefix) && key.as_str().contains("/p/")).collect()
    }
}

fn tell(story: impl AsyncFnOnce(World)) {
    let _alone = crate::ONE_WORLD.lock();
    compute::sqlite::install();
    files();
    compute::sqlite::vfs::reset_randomness();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(LocalSet::new().run_until(async { story(World::new()).await }));
}

const SECOND: Duration = Duration::from_secs(1);

/// Bug: a node that was not told whether the head of its import had landed took any head that is final for its own,
/// aborted. Damage: it deleted the packs of a database that others had used, forked and deleted meanwhile.
#[test]
fn the_packs_of_an_import_that_was_used_and_deleted_before_its_maker_heard_of_it_stay() {
    tell(async |mut world| {
        let maker = world.start(Settings::default(), Duration::ZERO).await;
        let other = world.start(Settings::default(), Duration::ZERO).await;
        world.ways[maker].rules(|rules| rules.mute = Some("/head"));
        let file = files().last().expect("one with packs").clone();
        let (checked, progress, context) = (file.checked("file"), Progress::default(), &world.nodes[maker].0.context);
        let imported = job::store(context, &checked, &*file, &progress);
        let meanwhile = async {
            while !world.bucket.keys().iter().any(|key| key.as_str().ends_with("/head")) {
                sleep(SECOND).await;
            }
            // Nobody has told its maker by then, who asks whether it can be given up.
            sleep(120 * SECOND).await;
            let to = Name::parse("child").expect("a name");
            let change = Change::Fork { to, at: None, expires_micros: 0 };
            let id = world.folded(other, "file").await.database;
            world.ask(other, "file", |name, reply| Message::Change { name, change, reply }).await.expect("a fork");
            world.ask(other, "file", |name, reply| Message::Delete { name, reply }).await.expect("deleted");
            let packs = world.packs(id);
            assert!(world.head(id).await.is_pinned() && packs.len() >= 2, "{packs:?}");
            world.ways[maker].rules(|rules| rules.mute = None);
            (id, packs)
        };
        let (imported, (id, packs)) = join(imported, meanwhile).await;
        assert!(imported.is_ok(), "it had landed: {imported:?}");
        assert_eq!(world.packs(id), packs, "its fork reads them");
        let rows = world.run(maker, "child", "SELECT count(*) FROM log").await;
        assert!(rows.to_string().contains(&format!("\"{}\"", file.rows.len())), "{rows}");
    });
}

/// Bug: who deletes folds everything before, lest something be missing if it comes back. Damage: a database with an end
/// that could not be folded any more stayed for ever, though nothing of it was promised from then on.
#[test]
fn what_cannot_be_folded_goes_when_its_time_is_up_unless_it_may_be_wanted_back() {
    tell(async |mut world| {
        let at = world.start(Settings::default(), Duration::ZERO).await;
        let (gone, kept) = (world.create(at, "gone").await, world.create(at, "kept").await);
        let end = world.now() + 120_000_000;
        for (name, retention_secs) in [("gone", 0), ("kept", 3600)] {
            let configure = Configure { retention_secs: Some(retention_secs), expires_micros: Some(end) };
            world.configure(at, name, configure).await.expect("configured");
        }
        world.ways[at].rules(|rules| rules.refused = Some("/p/"));
        for name in ["gone", "kept"] {
            world.fill(at, name).await;
        }
        sleep(100 * SECOND).await;
        for id in [gone, kept] {
            let head = world.head(id).await;
            assert!(head.state == HeadState::Live && Lsn::raw(head.folded.lsn) < 2, "not folded: {:?}", head.folded);
        }
        sleep(200 * SECOND).await;
        assert!(matches!(world.head(gone).await.state, HeadState::Deleted { .. }), "its time is up");
        assert_eq!(world.head(kept).await.state, HeadState::Live, "what an undelete brings back has to be whole");
        for name in ["gone", "kept"] {
            let answer = world.sql(at, name, "SELECT count(*) FROM t").await;
            assert!(format!("{answer:?}").contains("SHOAL_NO_SUCH_DATABASE"), "{name}: {answer:?}");
        }
        world.ways[at].rules(|rules| rules.refused = None);
        sleep(200 * SECOND).await;
        let head = world.head(kept).await;
        assert!(matches!(head.state, HeadState::Deleted { .. }) && head.folded.lsn == Lsn::new(2), "{:?}", head.folded);
    });
}

/// Bug: settings that were found to be there already were taken for nothing to do. Damage: after an answer that was lost,
/// and the same request again, nobody was told of a database's end, and its commits were not kept.
#[test]
fn settings_whose_answer_was_lost_are_carried_through_when_they_are_asked_for_again() {
    tell(async |mut world| {
        let at = world.start(Settings::default(), Duration::ZERO).await;
        let id = world.create(at, "app").await;
        world.run(at, "app", "CREATE TABLE t(a)").await;
        world.folded(at, "app").await;
        let end = world.now() + 86_400_000_000;
        let configure = Configure { retention_secs: Some(3600), expires_micros: Some(end) };
        world.ways[at].rules(|rules| rules.mute = Some("/head"));
        let unknown = world.configure(at, "app", configure).await;
        assert!(matches!(&unknown, Err(OpenError::Server(ServerError { fault: Fault::Indefinite, .. }))), "{unknown:?}");
        world.ways[at].rules(|rules| rules.mute = None);
        assert_eq!(world.head(id).await.settings.expires_micros, end, "it had landed");
        world.configure(at, "app", configure).await.expect("configured");
        let markers = world.bucket.keys().into_iter().filter(|key| key.as_str().starts_with("due/")).count();
        assert_eq!(markers, 1, "it leads a sweep to the database");
        for _ in 0..2 {
            world.run(at, "app", "INSERT INTO t VALUES (1)").await;
        }
        let folded = world.folded(at, "app").await;
        assert_eq!((folded.horizon, folded.folded.lsn), (Lsn::new(1), Lsn::new(3)), "commits since then are kept");
    });
}

/// Bug: a replica took whatever head it was answered last. Damage: one that was read before its owner changed it, and came
/// late, stood for the present: a database that had been given more time was refused.
#[test]
fn a_replica_goes_by_the_newest_head_that_it_knows_whichever_answer_comes_last() {
    tell(async |mut world| {
        let owner = world.start(Settings::default(), Duration::ZERO).await;
        let replicas = Settings { read_replicas: true, ..Settings::default() };
        let replica = world.start(replicas, 10 * SECOND).await;
        world.create(owner, "app").await;
        world.run(owner, "app", "CREATE TABLE t(a)").await;
        let ends = |expires_micros| Configure { expires_micros: Some(expires_micros), retention_secs: None };
        world.configure(owner, "app", ends(world.now() + 60_000_000)).await.expect("configured");
        world.run(replica, "app", "SELECT count(*) FROM t").await;
        // For the replica its time is up, by a clock that is ahead; its owner has not come that far, and gives it more.
        sleep(55 * SECOND).await;
        world.ways[replica].rules(|rules| rules.late = Some("/head"));
        let given_more = async {
            world.ways[replica].caught.notified().await;
            world.configure(owner, "app", ends(0)).await.expect("configured");
            sleep(5 * SECOND).await;
            // Its follower, which was sent away, has read the new head by now.
            world.ways[replica].rules(|rules| rules.is_held = false);
        };
        let (answer, ()) = join(world.sql(replica, "app", "SELECT count(*) FROM t"), given_more).await;
        assert!(matches!(&answer, Answer::Done(body) if body["staleness_millis"].is_u64()), "{answer:?}");
    });
}
