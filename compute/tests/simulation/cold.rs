//! Cold opens in virtual time: every request to the bucket takes one second and nothing else takes any, so the
//! seconds that a client waits are the round trips that waited for each other.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use compute::node::{Node, Settings};
use futures_util::future::join;
use serde_json::json;
use tenant::lifecycle;
use tenant::name::Name;
use tenant::record::NameRecord;
use tenant::registry;
use tokio::sync::watch;
use tokio::task::LocalSet;
use walstore::id::{DatabaseId, IncarnationId, PutId};
use walstore::life::Stores;
use walstore::register::{self, Patience, Swap};
use walstore::store::{Faults, FaultyStore, Latency, MemoryStore, Op, Trace};

use crate::client::rows;
use crate::cluster::{Answer, Cluster, sleep};
use crate::machine::Machine;
use crate::rng::Rng;
use crate::world::{LocalCores, server};

const ROUND_TRIP: Duration = Duration::from_secs(1);
/// So long that no renewal falls into a measurement.
const LEASE: Duration = Duration::from_secs(3600);

/// Rows of a table whose upper pages are larger than a boot image, one to a page.
const ROWS: u64 = 16_000;
/// Bytes that are never lent, so that the page cache gives way only to [`World::evict`].
const NEVER_LENT: usize = 1 << 40;

/// One bucket, and the nodes that run on it one after the other.
struct World {
    started: tokio::time::Instant,
    bucket: MemoryStore,
    network: Machine,
    rng: Rng,
    cluster: Cluster,
    requests: Arc<Mutex<Vec<(Op, String)>>>,
    running: Option<(Node, Machine, watch::Sender<bool>)>,
    store: Option<Arc<FaultyStore<MemoryStore>>>,
    /// Of page cache, of each node.
    cache_bytes: u64,
}

/// What a query cost.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    round_trips: u64,
    /// Packs and parts of the page map.
    page_gets: usize,
}

impl World {
    fn new() -> Self {
        let started = tokio::time::Instant::now();
        let mut rng = Rng::of_seed(1);
        let network = Machine::new(&mut rng, started, 0);
        let (bucket, cluster) = (MemoryStore::new(), Cluster::new(1));
        let cache_bytes = Settings::default().cache_bytes;
        let (requests, running, store) = (Arc::default(), None, None);
        Self { started, bucket, network, rng, cluster, requests, running, store, cache_bytes }
    }

    /// Ends the node that runs, in order, and starts another that has never seen the bucket.
    async fn next_node(&mut self) {
        if let Some((node, machine, death)) = self.running.take() {
            let _ = node.shut_down(Duration::from_secs(60)).await;
            self.cluster.set(0, None);
            drop(death);
            machine.kill();
        }
        let machine = Machine::new(&mut self.rng, self.started, 0);
        let requests = self.requests.clone();
        let trace: Trace = Arc::new(move |line| {
            requests.lock().unwrap().push((line.op, line.key.clone()));
        });
        let network = self.network.seam.clone();
        let store = FaultyStore::new(self.bucket.clone(), network, 1, Faults::default(), Some(trace));
        let store = Arc::new(store);
        let settings = Settings {
            lease: LEASE,
            idle_database_timeout: Duration::from_secs(60),
            drain_interval: Duration::ZERO,
            cache_bytes: self.cache_bytes,
            lent_bytes_free: NEVER_LENT,
            ..Settings::default()
        };
        let id = IncarnationId::random(&machine.seam);
        let started = Node::start(id, Stores::one(store.clone()), machine.seam.clone(), settings, &LocalCores).await;
        let node = started.expect("a node starts");
        let (death, is_dead) = watch::channel(false);
        self.cluster.set(0, Some(server(&node, &machine, false, is_dead)));
        self.running = Some((node, machine, death));
        self.store = Some(store);
    }

    /// Somebody needs the memory of the page cache for a moment, and an eighth of it is what is left.
    fn evict(&self) {
        let (node, ..) = self.running.as_ref().expect("a node runs");
        node.context.fetcher.lend().set(2 * NEVER_LENT);
    }

    /// A table of [`ROWS`], which nobody owns.
    async fn fill(&self) {
        const ROWS_PER_TRANSACTION: u64 = 2_000;
        self.admin("/v1/namespaces/app/create").await;
        self.query("app", "CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)").await;
        for first in (1..=ROWS).step_by(ROWS_PER_TRANSACTION as usize) {
            let last = first + ROWS_PER_TRANSACTION - 1;
            let sql = format!(
                "WITH RECURSIVE n(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM n WHERE n < {last})
                 INSERT INTO t SELECT n, zeroblob(3900) FROM n"
            );
            self.query("app", &sql).await;
        }
        self.admin("/v1/namespaces/app/release").await;
    }

    async fn admin(&self, path: &str) {
        let answer = self.cluster.admin(0, "POST", path.to_owned()).await;
        assert!(matches!(answer, Answer::Done(_)), "{path}: {answer:?}");
    }

    async fn fork(&self, of: &str, to: &str) {
        let answer = self.cluster.admin_with(0, "POST", format!("/v1/namespaces/{of}/fork/{to}"), &json!({})).await;
        assert!(matches!(answer, Answer::Done(_)), "{of} to {to}: {answer:?}");
    }

    /// Gives a name the hint that another one has, as if it were out of date.
    async fn mislead(&self, name: &str, like: &str) {
        let [name, like] = [name, like].map(|name| Name::parse(name).expect("a name"));
        let (seam, patience) = (&self.network.seam, Patience::endless());
        let read = async |name| registry::read_name(&self.bucket, seam, name, patience).await.unwrap().unwrap();
        let (record, base) = (read(&name).await, read(&like).await.value.base);
        assert!(record.value.base.is_none() && base.is_some(), "its first fold has taken it away");
        let misled = NameRecord { base, put_id: PutId::random(seam), version: record.value.version + 1, ..record.value };
        let key = tenant::keys::name(&name);
        let swap = register::replace(&self.bucket, seam, &key, &record.etag, misled, patience).await.unwrap();
        assert!(matches!(swap, Swap::Won(_)), "{swap:?}");
    }

    async fn query(&self, database: &str, sql: &str) -> String {
        let requests = json!([{"type": "execute", "stmt": {"sql": sql}}]);
        match self.cluster.pipeline(0, database, None, &requests).await {
            Answer::Done(body) => rows(&body, 0).unwrap_or_else(|| panic!("{sql}: {body}")).concat().concat(),
            other => panic!("{sql}: {other:?}"),
        }
    }

    /// What a query costs whose answer is `expected`.
    async fn cost(&self, database: &str, sql: &str, expected: &str) -> Cost {
        // What was asked for before is over.
        sleep(ROUND_TRIP).await;
        self.requests.lock().unwrap().clear();
        let store = self.store.as_ref().expect("a node runs");
        store.set_faults(Faults { latency: Latency::uniform(ROUND_TRIP, ROUND_TRIP), ..Faults::default() });
        let before = self.started.elapsed();
        assert_eq!(self.query(database, sql).await, expected);
        let waited = self.started.elapsed() - before;
        store.set_faults(Faults::default());
        // The runtime's clock ticks in milliseconds.
        let round_trips = (waited + Duration::from_millis(200)).as_secs();
        assert!(waited.as_millis() < u128::from(round_trips) * 1000 + 200, "{waited:?}");
        let requests = self.requests.lock().unwrap();
        let is_of_pages = |(op, key): &&(Op, String)| {
            matches!(op, Op::Get | Op::GetRange) && (key.contains("/p/") || key.contains("/m/"))
        };
        Cost { round_trips, page_gets: requests.iter().filter(is_of_pages).count() }
    }
}

/// Runs a story in virtual time.
fn run<F: Future<Output = ()>>(story: impl FnOnce(World) -> F) {
    let _alone = crate::ONE_WORLD.lock();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    compute::sqlite::install();
    compute::sqlite::vfs::reset_randomness();
    runtime.block_on(async { LocalSet::new().run_until(story(World::new())).await });
}

/// Deletes the only database, as a node does that has just taken it.
async fn delete(world: &World) {
    let keys = world.bucket.keys();
    let id = keys.iter().find_map(|key| key.as_str().strip_suffix("/head")?.rsplit_once('/'));
    let id = id.and_then(|(_, id)| DatabaseId::parse(id)).expect("there is a database");
    let seam = &world.network.seam;
    let head = registry::read_head(&world.bucket, seam, id, Patience::endless()).await.unwrap().unwrap();
    let owned = lifecycle::acquire(&head.value, IncarnationId::random(seam), PutId::random(seam));
    let deleted = lifecycle::delete(&owned, 1, PutId::random(seam));
    let mut head = head;
    for next in [owned, deleted] {
        match registry::swap_head(&world.bucket, seam, &head, next, Patience::endless()).await.unwrap() {
            Swap::Won(won) => head = won,
            Swap::Lost(found) => panic!("nobody else writes it: {found:?}"),
        }
    }
}

#[test]
fn nothing_is_shown_or_written_when_another_node_was_faster() {
    run(|mut world| async move {
        world.next_node().await;
        world.admin("/v1/namespaces/app/create").await;
        world.query("app", "CREATE TABLE t(id INTEGER PRIMARY KEY)").await;
        world.admin("/v1/namespaces/app/release").await;

        world.next_node().await;
        let store = world.store.clone().expect("a node runs");
        store.set_faults(Faults { latency: Latency::uniform(ROUND_TRIP, ROUND_TRIP), ..Faults::default() });
        let ask = |sql: &'static str| {
            let requests = json!([{"type": "execute", "stmt": {"sql": sql}}]);
            let cluster = &world.cluster;
            async move { cluster.pipeline(0, "app", None, &requests).await }
        };
        // Name and head take a second each; the CAS arrives after another half.
        let meanwhile = async {
            sleep(ROUND_TRIP * 2 + ROUND_TRIP / 4).await;
            delete(&world).await;
        };
        let before = world.bucket.keys().len();
        let asked = join(ask("SELECT count(*) FROM t"), ask("INSERT INTO t VALUES (1)"));
        let ((read, written), ()) = join(asked, meanwhile).await;
        for answer in [read, written] {
            let told = format!("{answer:?}");
            assert!(told.contains("SHOAL_NO_SUCH_DATABASE") && !told.contains("rows"), "{told}");
        }
        assert_eq!(world.bucket.keys().len(), before, "nothing was logged");
    });
}

#[test]
fn a_point_query_in_a_larger_database_fetches_two_segments_one_after_the_other() {
    run(|mut world| async move {
        world.next_node().await;
        world.fill().await;
        for id in [1, ROWS / 2, ROWS] {
            world.next_node().await;
            let cost = world.cost("app", &format!("SELECT length(body) FROM t WHERE id = {id}"), "3900").await;
            let expected = Cost { round_trips: 4, page_gets: 2 };
            assert_eq!(cost, expected, "row {id}: name, head, then two segments, the first beside the CAS");
            world.admin("/v1/namespaces/app/release").await;
        }
        // A change of the upper pages is in the head with the next fold.
        world.next_node().await;
        world.query("app", &format!("INSERT INTO t VALUES ({}, zeroblob(3900))", ROWS + 1)).await;
        world.query("app", "CREATE TABLE other(x)").await;
        world.admin("/v1/namespaces/app/release").await;
        world.next_node().await;
        let cost = world.cost("app", "SELECT count(*) FROM other", "0").await;
        assert_eq!(cost, Cost { round_trips: 3, page_gets: 0 }, "the new table's page stands in the head");
    });
}

/// A query goes from one inner page to its leaf, and then from the other one to its. Who opens the database knows both
/// inner pages, if they were in use when it was closed, and reads the second one beside the first.
#[test]
fn what_was_in_use_last_time_is_read_at_once_when_a_database_is_opened_again() {
    run(|mut world| async move {
        // An eighth of it has no room for a segment; all of it has, for what is read ahead.
        world.cache_bytes = 1 << 20;
        world.next_node().await;
        world.fill().await;
        world.next_node().await;
        let read = async |ids: [u64; 2], round_trips: u64, page_gets: usize, why: &str| {
            let sql = format!("SELECT sum(length(body)) FROM t WHERE id IN ({}, {})", ids[0], ids[1]);
            let cost = world.cost("app", &sql, "7800").await;
            assert_eq!(cost, Cost { round_trips, page_gets }, "{why}");
            // It is closed, and nothing that it has read is in memory any more.
            sleep(LEASE).await;
            world.evict();
        };
        // None is in the segment of its inner page, nor in the last one, which is so short that it might stay.
        let [some, others] = [[3_000, 7_000], [11_500, 15_500]];
        read(some, 6, 4, "name, head, and four segments one after the other, the first beside the CAS").await;
        read(others, 5, 6, "head, four segments, and two that were in use and are no help").await;
        read(others, 4, 4, "head, two inner pages at once, a leaf, the other leaf").await;
    });
}

/// Leaves all over the file: only their parents say which ones come next, up and down.
#[test]
fn a_scan_of_a_scattered_table_waits_a_few_times_in_either_direction() {
    const ROWS: usize = 8_000;
    run(|mut world| async move {
        world.next_node().await;
        world.admin("/v1/namespaces/app/create").await;
        world.query("app", "CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)").await;
        // 7,919 has no factor in common with 8,000, so each key comes once.
        let rows = format!("WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < {ROWS} - 1)");
        world.query("app", &format!("{rows} INSERT INTO t SELECT n * 7919 % {ROWS}, randomblob(1000) FROM n")).await;
        world.admin("/v1/namespaces/app/release").await;
        for order in ["ASC", "DESC"] {
            world.next_node().await;
            let sql = format!("SELECT sum(length(body)) FROM (SELECT body FROM t ORDER BY id {order} LIMIT {ROWS})");
            let cost = world.cost("app", &sql, &(ROWS * 1000).to_string()).await;
            println!("a scattered scan, {order}: {cost:?}");
            // It has 84 segments, of which it would wait for each.
            assert!(cost.round_trips <= 20 && cost.page_gets <= 100, "{order}: {cost:?}");
            world.admin("/v1/namespaces/app/release").await;
        }
    });
}

/// What a fork begins with is read beside its head: its name says where that is.
#[test]
fn a_fork_of_a_fork_of_a_fork_opens_in_as_many_round_trips_as_its_root() {
    const DEPTH: usize = 20;
    run(|mut world| async move {
        let name = |depth: usize| if depth == 0 { "app".to_owned() } else { format!("fork-{depth}") };
        world.next_node().await;
        world.admin("/v1/namespaces/app/create").await;
        world.query("app", "CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)").await;
        let rows = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 2000)";
        world.query("app", &format!("{rows} INSERT INTO t SELECT n, zeroblob(3900) FROM n")).await;
        world.fork("app", "with-a-tail").await;
        for depth in 0..DEPTH {
            world.fork(&name(depth), &name(depth + 1)).await;
        }
        for depth in 0..=DEPTH {
            world.admin(&format!("/v1/namespaces/{}/release", name(depth))).await;
        }
        let query = "SELECT length(body) FROM t WHERE id = 700";
        let mut costs = Vec::new();
        for database in [name(0), name(1), name(DEPTH), "with-a-tail".to_owned()] {
            world.next_node().await;
            costs.push(world.cost(&database, query, "3900").await);
            sleep(LEASE).await;
            let again = world.cost(&database, query, "3900").await.round_trips;
            assert_eq!(again, 1, "{database}, closed, name known, ours: the head, and the base beside it");
            world.admin(&format!("/v1/namespaces/{database}/release")).await;
        }
        let (root, forks) = costs.split_first().expect("a root");
        assert_eq!(*root, Cost { round_trips: 3, page_gets: 1 }, "name, head, a segment beside the CAS");
        for fork in forks {
            assert_eq!(*fork, Cost { page_gets: 2, ..*root }, "and the base");
        }

        // The base that the name tells of is not that of the head: a request in vain, and nothing else.
        world.next_node().await;
        world.query("fork-1", "INSERT INTO t VALUES (-1, 'new')").await;
        world.admin("/v1/namespaces/fork-1/release").await;
        world.mislead("fork-1", &name(DEPTH)).await;
        world.next_node().await;
        assert_eq!(world.cost("fork-1", "SELECT body FROM t WHERE id = -1", "new").await.round_trips, root.round_trips);
    });
}

#[test]
fn the_first_query_of_a_small_database_takes_as_few_round_trips_as_can_be() {
    run(|mut world| async move {
        let expect = |round_trips| Cost { round_trips, page_gets: 0 };
        world.next_node().await;
        world.admin("/v1/namespaces/app/create").await;
        world.query("app", "CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)").await;
        world
            .query(
                "app",
                "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 25)
                 INSERT INTO t SELECT n, randomblob(1000) FROM n",
            )
            .await;
        world.admin("/v1/namespaces/app/release").await;

        world.next_node().await;
        let count = "SELECT count(*) FROM t";
        let cost = world.cost("app", count, "25").await;
        assert_eq!(cost, expect(3), "nobody's: name, head, CAS");

        sleep(LEASE).await;
        assert_eq!(world.cost("app", count, "25").await, expect(1), "closed, name known, ours: head");

        world.admin("/v1/namespaces/new/create").await;
        let cost = world.cost("new", "SELECT count(*) FROM sqlite_schema", "0").await;
        assert_eq!(cost, expect(2), "ours, but its name was not asked for: name, head");

        world.query("app", "INSERT INTO t VALUES (99, NULL)").await;
        world.next_node().await;
        let cost = world.cost("app", count, "26").await;
        assert_eq!(cost, expect(4), "another's that is over: name, head, its record, CAS beside its log");
    });
}
