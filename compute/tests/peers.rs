//! The gRPC service between nodes, over a real socket: who follows a database is sent what is durable, and told why it
//! ends; pages at rest are those of the folded commit; packs of folds are made for the node that asks.

use std::sync::Arc;
use std::time::Duration;

use compute::core::Message;
use compute::hrana::HranaVersion;
use compute::hrana::request::{SqlSource, Stmt, StreamRequest};
use compute::http::{data, listen};
use compute::node::{CoreThreads, Node, NodeHandle, Settings};
use pageserver::fetcher::Fetcher;
use pageserver::fold::PackMaker;
use pageserver::service::client::GrpcPeers;
use pageserver::service::follow::{Ending, Notice, Peers, Start, Subscription};
use pageserver::service::packs::PackBuilder;
use pageserver::service::pages::PageReader;
use pageserver::service::server::PageServer;
use segments::cache::PageCache;
use tenant::name::Name;
use tokio::sync::{oneshot, watch};
use walstore::id::{DatabaseId, IncarnationId, Lsn};
use walstore::life::Stores;
use walstore::seam::Seam;
use walstore::store::{CountedStore, MemoryStore, Op, Store};

struct Rig {
    node: Node,
    name: Name,
    database: DatabaseId,
    address: String,
    peers: GrpcPeers,
    stop: watch::Sender<bool>,
}

impl Rig {
    async fn start() -> Self {
        Self::start_on(Arc::new(MemoryStore::new()), Settings::default()).await
    }

    async fn start_on(store: Arc<dyn Store>, settings: Settings) -> Self {
        let seam = Seam::production();
        let stores = Stores::one(store);
        let id = IncarnationId::random(&seam);
        let settings = Settings { cores: 1, ..settings };
        let node = Node::start(id, stores.clone(), seam.clone(), settings, &CoreThreads).await.expect("a node");
        let reader = PageReader::new(stores.main, seam.clone(), node.context.fetcher.clone());
        let server = PageServer::new(Some(Arc::new(node.handle())), Arc::new(reader));
        let listener = listen::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let (stop, stopped) = watch::channel(false);
        seam.spawn(listen::serve(listener, data::peers_router(server), seam.clone(), stopped));
        let name = Name::parse("app").expect("a name");
        let (reply, created) = oneshot::channel();
        node.handle().send(&name, Message::Create { name: name.clone(), reply }).expect("a node that runs");
        let database = created.await.expect("an answer").expect("created");
        Self { node, name, database, address, peers: GrpcPeers::new(seam), stop }
    }

    fn start_after(&self, after: u64) -> Start {
        let (database, name) = (self.database, self.name.clone());
        Start { database, name, incarnation: self.node.context.id, after: Lsn::new(after) }
    }

    async fn follow(&self, after: u64) -> Subscription {
        self.peers.follow(&self.address, self.start_after(after)).await.expect("a subscription")
    }

    async fn write(&self, sql: &str) {
        run(&self.node.handle(), &self.name, sql).await;
    }

    async fn release(&self) {
        let (reply, released) = oneshot::channel();
        let message = Message::Release { name: self.name.clone(), reply };
        self.node.handle().send(&self.name, message).expect("a node that runs");
        released.await.expect("an answer").expect("released");
    }
}

async fn run(node: &NodeHandle, name: &Name, sql: &str) {
    let sql = SqlSource { sql: Some(sql.to_owned()), sql_id: None };
    let results = node.run(name, move |stream| {
        let stmt = Stmt { sql, args: Vec::new(), named_args: Vec::new(), want_rows: true, replication_index: None };
        stream.pipeline(&[StreamRequest::Execute { stmt }], HranaVersion::Hrana3)
    });
    let results = results.await.expect("it runs").expect("a request that makes sense");
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

/// The next notices: LSNs of commits, until there are so many.
async fn commits(subscription: &mut Subscription, count: usize) -> Vec<u64> {
    let mut lsns = Vec::new();
    while lsns.len() < count {
        match subscription.next().await {
            Ok(Notice::Commit(commit)) => lsns.push(commit.lsn.get()),
            Ok(_) => {}
            Err(ending) => panic!("{ending} after {lsns:?}"),
        }
    }
    lsns
}

async fn ending(subscription: &mut Subscription) -> Ending {
    loop {
        if let Err(ending) = subscription.next().await {
            return ending;
        }
    }
}

#[test]
fn commits_come_when_they_are_durable_and_pages_as_they_are_folded() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let rig = Rig::start().await;
        rig.write("CREATE TABLE t(a)").await;
        rig.write("INSERT INTO t VALUES (1)").await;

        // From the log, and then as they come.
        let mut early = rig.follow(0).await;
        assert_eq!(commits(&mut early, 2).await, [1, 2]);
        let mut late = rig.follow(1).await;
        assert_eq!(commits(&mut late, 1).await, [2]);
        rig.write("INSERT INTO t VALUES (2)").await;
        assert_eq!((commits(&mut early, 1).await, commits(&mut late, 1).await), (vec![3], vec![3]));
        early.tick(77);
        assert_eq!(early.next().await, Ok(Notice::Heartbeat { tick: 77, durable: 3 }));

        // Another owner's database is not here.
        let elsewhere = Start { incarnation: IncarnationId::from_bytes([9; 16]), ..rig.start_after(0) };
        let mut refused = rig.peers.follow(&rig.address, elsewhere).await.expect("an answer");
        assert!(matches!(ending(&mut refused).await, Ending::NotHere(_)));
        // Nothing is folded, so nobody has pages.
        let nothing = rig.peers.pages(&rig.address, rig.database, 0, vec![1]).await.expect("an answer");
        assert_eq!((nothing.lsn, nothing.pages.len()), (0, 0));

        // It is folded, and then nobody's.
        rig.release().await;
        assert_eq!(early.next().await, Ok(Notice::Folded(Lsn::new(3).expect("not 0"))));
        assert!(matches!(ending(&mut early).await, Ending::Over(_)));
        let pages = rig.peers.pages(&rig.address, rig.database, 3, vec![1, 2, 99]).await.expect("pages");
        assert_eq!((pages.lsn, pages.page_count, pages.pages.len()), (3, 2, 2));
        assert!(pages.pages[0].content.starts_with(b"SQLite format 3\0"));
        let other = rig.peers.pages(&rig.address, rig.database, 2, vec![1]).await.expect_err("commit 2 is not folded");
        assert!(other.message().contains("commits 3 to 3 are folded and kept, not 2"), "{other}");
        let missing = DatabaseId::from_bytes([8; 16]);
        assert!(rig.peers.pages(&rig.address, missing, 0, vec![1]).await.is_err());

        // Taken again: what is folded is not in the log any more, and the follower is told to read the head.
        rig.write("INSERT INTO t VALUES (3)").await;
        let mut stale = rig.follow(1).await;
        assert!(matches!(ending(&mut stale).await, Ending::Folded(_)));
        let mut current = rig.follow(3).await;
        assert_eq!(commits(&mut current, 1).await, [4]);

        // A node that stops sends its followers away, and does not wait for them.
        rig.node.end_idle_streams();
        assert!(matches!(ending(&mut current).await, Ending::Over(_)));
        let _ = rig.stop.send(true);
        rig.node.shut_down(Duration::from_secs(10)).await.expect("sealed");
    });
}

/// A page server in this process, with a way to the bucket of its own. Its address.
async fn page_server(store: Arc<dyn Store>, seam: &Seam, stopped: watch::Receiver<bool>) -> String {
    let fetcher = Fetcher::new(store.clone(), seam.clone(), PageCache::new(1 << 20), 8 << 20);
    let pages = PageServer::new(None, Arc::new(PageReader::new(store.clone(), seam.clone(), fetcher.clone())));
    let server = pages.with_packs(Arc::new(PackBuilder::new(store, seam.clone(), fetcher, 64 << 20)));
    let listener = listen::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    seam.spawn(listen::serve(listener, data::peers_router(server), seam.clone(), stopped));
    address
}

fn puts(store: &CountedStore<MemoryStore>, class: &str) -> u64 {
    store.snapshot().get(&(Op::Put, class.to_owned())).map_or(0, |counter| counter.requests)
}

#[test]
fn a_page_server_makes_the_packs_of_folds_and_nothing_is_lost_when_it_goes() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        for retention in [Duration::ZERO, Duration::from_secs(3600)] {
            let memory = MemoryStore::new();
            let owners = Arc::new(CountedStore::new(memory.clone()));
            let others = Arc::new(CountedStore::new(memory));
            let rig = Rig::start_on(owners.clone(), Settings { retention, ..Settings::default() }).await;
            let (seam, (stop, stopped)) = (Seam::production(), watch::channel(false));
            let address = page_server(others.clone(), &seam, stopped).await;
            rig.node.context.has_packs_made_by(PackMaker::new(address, Arc::new(GrpcPeers::new(seam.clone())), seam));

            // Larger than one piece of an order, and than what stands in a head.
            rig.write("CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB)").await;
            rig.write("WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 600)
                       INSERT INTO t SELECT n, randomblob(5000) FROM n").await;
            for n in 0..5 {
                rig.write(&format!("UPDATE t SET body = randomblob(5000) WHERE id % 5 = {n}")).await;
            }
            rig.release().await;
            assert_eq!(puts(&owners, "pack"), 0, "{:?}", owners.snapshot());
            assert!(puts(&others, "pack") > 1, "{:?}", others.snapshot());
            assert_eq!(puts(&others, "head"), 0, "linking is the owner's");
            // A wrong sum violates the constraint.
            rig.write("CREATE TABLE sums(n CHECK (n = 3000000))").await;
            rig.write("INSERT INTO sums SELECT sum(length(body)) FROM t").await;

            // It stops: the next folds are the owner's own, and all is there.
            let _ = stop.send(true);
            let before = puts(&others, "pack");
            rig.write("UPDATE t SET body = randomblob(5000)").await;
            rig.release().await;
            assert!(puts(&owners, "pack") > 0, "{:?}", owners.snapshot());
            assert_eq!(puts(&others, "pack"), before);
            rig.write("INSERT INTO sums SELECT sum(length(body)) FROM t").await;
            let _ = rig.stop.send(true);
            rig.node.shut_down(Duration::from_secs(10)).await.expect("sealed");
        }
    });
}
