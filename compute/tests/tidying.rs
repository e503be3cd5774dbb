//! A node that keeps a database does not keep what deleted forks of it needed, nor one whose time is up, nor commits in its
//! log for ever.

use std::sync::Arc;
use std::time::Duration;

use compute::core::{Change, Job, Message, PipelineReply, Work};
use compute::hrana::HranaVersion;
use compute::hrana::json::WriteJson;
use compute::hrana::request::{SqlSource, Stmt, StreamRequest};
use compute::node::{CoreThreads, Node, NodeHandle, Settings};
use tenant::head::Head;
use tenant::name::Name;
use tenant::registry;
use tokio::sync::oneshot;
use walstore::id::{DatabaseId, IncarnationId, Lsn};
use walstore::life::Stores;
use walstore::register::Patience;
use walstore::seam::Seam;
use walstore::store::{CountedStore, MemoryStore};

/// Rows that do not fit a head.
const ROWS: u32 = 500;
const FORKS: usize = 6;
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

async fn run(node: &NodeHandle, name: &Name, sql: &str) -> PipelineReply {
    let sql_text = Some(sql.to_owned());
    let sql_source = SqlSource { sql: sql_text, sql_id: None };
    let stmt = Stmt { sql: sql_source, args: Vec::new(), named_args: Vec::new(), want_rows: true, replication_index: None };
    let (reply, answer) = oneshot::channel();
    let work = Work::Pipeline { requests: vec![StreamRequest::Execute { stmt }], reply };
    let version = HranaVersion::Hrana3;
    let job = Job { database: name.clone(), at: None, create: true, baton: None, version, min_lsn: 0, work, loan: None };
    node.send(name, Message::Job(job)).expect("a node that runs");
    let reply = answer.await.expect("an answer").unwrap_or_else(|error| panic!("{name}: {sql}: {error:?}"));
    assert!(reply.results[0].is_ok(), "{name}: {sql}: {:?}", reply.results[0]);
    reply
}

async fn fork(node: &NodeHandle, of: &Name, to: &Name, expires_micros: u64) -> DatabaseId {
    let (reply, answer) = oneshot::channel();
    let change = Change::Fork { to: to.clone(), at: None, expires_micros };
    node.send(of, Message::Change { name: of.clone(), change, reply }).expect("a node that runs");
    answer.await.expect("an answer").unwrap_or_else(|error| panic!("{of} to {to}: {error:?}")).database
}

async fn head(node: &NodeHandle, name: &Name) -> Head {
    let node = &node.context;
    let patience = Patience::for_duration(&node.seam, PATIENCE);
    let head = registry::resolve_head(&*node.stores.main, &node.seam, name, node.id, patience).await;
    head.expect("a store that works").expect("a database").value
}

#[expect(clippy::disallowed_methods, reason = "waits for a node in real time")]
async fn until_pinned_by(node: &NodeHandle, name: &Name, forks: &[DatabaseId]) -> Head {
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        let head = head(node, name).await;
        let pinned: Vec<DatabaseId> = head.pins.iter().map(|pin| pin.child).collect();
        if pinned == forks {
            return head;
        }
        assert!(std::time::Instant::now() < until, "still pinned by {pinned:?}, not {forks:?}");
        tokio::time::sleep(POLL).await;
    }
}

#[test]
fn an_owner_lets_go_of_deleted_forks_when_a_database_is_idle_and_keeps_it() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let seam = Seam::production();
        let store: Arc<CountedStore<MemoryStore>> = Arc::new(CountedStore::new(MemoryStore::new()));
        let idle_database_timeout = Duration::from_secs(5);
        let lease = Duration::from_millis(1500);
        // No sweep of the bucket has anything to do with it.
        let settings = Settings { lease, idle_database_timeout, sweep_interval: Duration::ZERO, ..Settings::default() };
        let me = IncarnationId::random(&seam);
        let node = Node::start(me, Stores::one(store), seam, settings, &CoreThreads).await.expect("a node");
        let (handle, app) = (node.handle(), name("app"));
        run(&handle, &app, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)").await;
        let fill = format!(
            "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
             SELECT i, randomblob(1000) FROM n"
        );
        run(&handle, &app, &fill).await;
        let names: Vec<Name> = (0..FORKS).map(|number| name(&format!("fork-{number}"))).collect();
        let mut forks = Vec::new();
        for to in &names {
            forks.push(fork(&handle, &app, to, 0).await);
        }
        // It is in use until all of this is done, or it would be idle too early for the test.
        for deleted in &names[1..] {
            run(&handle, &app, "UPDATE t SET b = randomblob(1000) WHERE a % 100 = 1").await;
            let (reply, answer) = oneshot::channel();
            handle.send(deleted, Message::Delete { name: deleted.clone(), reply }).expect("a node that runs");
            answer.await.expect("an answer").unwrap_or_else(|error| panic!("{deleted}: {error:?}"));
        }
        let head = until_pinned_by(&handle, &app, &forks[..1]).await;
        assert_eq!(head.owner, Some(me), "it keeps it");
        for of in [&app, &names[0]] {
            let reply = run(&handle, of, "SELECT count(*), sum(length(b)) FROM t").await;
            let mut shown = Vec::new();
            reply.results[0].as_ref().expect("rows").write_json(&mut shown);
            let shown = String::from_utf8(shown).expect("JSON is text");
            assert!(shown.contains(&format!("\"{ROWS}\"")) && shown.contains(&format!("\"{}\"", ROWS * 1000)), "{shown}");
        }
        node.shut_down(Duration::from_secs(10)).await.expect("sealed");
    });
}

/// Nobody asks for it any more, and its owner has closed it: only a sweep finds it.
#[test]
#[expect(clippy::disallowed_methods, reason = "waits for a node in real time")]
fn an_owner_deletes_what_it_has_closed_once_its_time_is_up() {
    const LIVES: Duration = Duration::from_secs(3);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (seam, store) = (Seam::production(), MemoryStore::new());
        let clock = seam.clone();
        store.set_clock(move || clock.wall_micros());
        let settings = Settings {
            lease: Duration::from_millis(1500),
            idle_database_timeout: Duration::from_millis(200),
            sweep_interval: Duration::from_secs(1),
            ..Settings::default()
        };
        let me = IncarnationId::random(&seam);
        let node = Node::start(me, Stores::one(Arc::new(store)), seam.clone(), settings, &CoreThreads).await.expect("a node");
        let (handle, app, preview) = (node.handle(), name("app"), name("preview"));
        run(&handle, &app, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)").await;
        let id = fork(&handle, &app, &preview, seam.wall_micros() + LIVES.as_micros() as u64).await;
        run(&handle, &preview, "INSERT INTO t(b) VALUES (1)").await;
        let patience = Patience::for_duration(&seam, PATIENCE);
        let read = || registry::read_head(&*handle.context.stores.main, &seam, id, patience);
        let is_living = |head: &Head| !head.state.is_final();
        let head = read().await.expect("a store that works").expect("heads stay").value;
        assert!(is_living(&head) && head.owner == Some(me), "{head:?}");
        let until = std::time::Instant::now() + PATIENCE;
        while is_living(&read().await.expect("a store that works").expect("heads stay").value) {
            assert!(std::time::Instant::now() < until, "it lives on");
            tokio::time::sleep(POLL).await;
        }
        run(&handle, &app, "SELECT * FROM t").await;
        node.shut_down(Duration::from_secs(10)).await.expect("sealed");
    });
}

/// One stays open, the other is closed before it is time.
#[test]
#[expect(clippy::disallowed_methods, reason = "waits for a node in real time")]
fn few_commits_are_folded_when_they_are_old() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        for idle_database_timeout in [PATIENCE * 2, Duration::from_millis(200)] {
            let (seam, store) = (Seam::production(), Arc::new(CountedStore::new(MemoryStore::new())));
            let (lease, fold_age) = (Duration::from_millis(1500), Duration::from_secs(2));
            let settings = Settings { lease, idle_database_timeout, fold_age, ..Settings::default() };
            let me = IncarnationId::random(&seam);
            let stores = Stores::one(store.clone());
            let node = Node::start(me, stores, seam, settings, &CoreThreads).await.expect("a node");
            let (handle, app) = (node.handle(), name("app"));
            run(&handle, &app, "CREATE TABLE t(a)").await;
            assert_eq!(head(&handle, &app).await.folded.lsn, None, "too little for a fold");
            let until = std::time::Instant::now() + PATIENCE;
            while head(&handle, &app).await.folded.lsn != Lsn::new(1) {
                assert!(std::time::Instant::now() < until, "it is never folded");
                tokio::time::sleep(POLL).await;
            }
            // The name says that it was made before its head does.
            store.take();
            tokio::time::sleep(fold_age * 2).await;
            let of_database = |class: &str| ["head", "pack", "map", "t", "n"].contains(&class);
            let asked: Vec<_> = store.take().into_keys().filter(|(_, class)| of_database(class)).collect();
            assert_eq!(asked, vec![], "it is folded once, and then nothing is asked of it");
            run(&handle, &app, "SELECT * FROM t").await;
            node.shut_down(Duration::from_secs(10)).await.expect("sealed");
        }
    });
}
