//! Many databases that are each too small to fold, and together too large for the node's memory; and moments of the past.

use std::sync::Arc;
use std::time::Duration;

use compute::core::{Job, JobError, Message, PipelineReply, Work};
use compute::error::Fault;
use compute::hrana::HranaVersion;
use compute::hrana::baton::Baton;
use compute::hrana::json::WriteJson;
use compute::hrana::request::{SqlSource, Stmt, StreamRequest};
use compute::moment::Moment;
use compute::node::{CoreThreads, Node, NodeHandle, Settings};
use tenant::name::Name;
use tokio::sync::oneshot;
use walstore::id::IncarnationId;
use walstore::life::Stores;
use walstore::seam::Seam;
use walstore::store::MemoryStore;

const DATABASES: usize = 60;
const COMMITS: usize = 12;
const SPACE: usize = 512 << 10;
/// Pages that one of the commits below changes: the table's, a new leaf, an overflow page, and some for luck.
const COMMIT_BYTES_MAX: usize = 8 * 4096;

async fn run(node: &NodeHandle, name: &Name, sql: &str) -> PipelineReply {
    let reply = ask(node, name, None, None, sql).await;
    let reply = reply.unwrap_or_else(|error| panic!("{name}: {sql}: {error:?}"));
    assert!(reply.results[0].is_ok(), "{name}: {sql}: {:?}", reply.results[0]);
    reply
}

/// What a pipeline of one statement comes to, at a moment if one is given.
async fn ask(
    node: &NodeHandle,
    name: &Name,
    at: Option<u64>,
    baton: Option<Baton>,
    sql: &str,
) -> Result<PipelineReply, JobError> {
    let sql = SqlSource { sql: Some(sql.to_owned()), sql_id: None };
    let stmt = Stmt { sql, args: Vec::new(), named_args: Vec::new(), want_rows: true, replication_index: None };
    let (reply, answer) = oneshot::channel();
    let work = Work::Pipeline { requests: vec![StreamRequest::Execute { stmt }], reply };
    let at = at.map(Moment::Lsn);
    let job = Job { database: name.clone(), at, create: true, baton, version: HranaVersion::Hrana3, min_lsn: 0, work, loan: None };
    node.send(name, Message::Job(job)).expect("a node that runs");
    answer.await.expect("an answer")
}

#[test]
fn many_small_overlays_fold_early_and_no_writer_is_refused() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let seam = Seam::production();
        let stores = Stores::one(Arc::new(MemoryStore::new()));
        let settings = Settings { overlay_bytes_max: SPACE, busy_timeout: Duration::from_secs(120), ..Settings::default() };
        let node = Node::start(IncarnationId::random(&seam), stores, seam, settings, &CoreThreads).await.expect("a node");
        let handle = node.handle();
        let names: Vec<Name> = (0..DATABASES).map(|at| Name::parse(&format!("d{at}")).expect("a name")).collect();
        let mut writers = tokio::task::JoinSet::new();
        for name in names.clone() {
            let handle = handle.clone();
            writers.spawn(async move {
                run(&handle, &name, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)").await;
                for commit in 0..COMMITS {
                    run(&handle, &name, &format!("INSERT INTO t VALUES ({commit}, randomblob(3000))")).await;
                }
            });
        }
        while let Some(done) = writers.join_next().await {
            done.expect("a writer");
        }
        let highest = handle.context.overlays.highest();
        // Without folds they would hold at least a page of each row.
        let unbounded = DATABASES * COMMITS * 4096;
        assert!(unbounded > 4 * SPACE, "the test itself");
        // Each database may be in the middle of a commit when the space is full.
        assert!(highest <= SPACE + DATABASES * COMMIT_BYTES_MAX, "{highest} bytes");
        println!("at most {highest} bytes of {SPACE}");
        for name in &names {
            let reply = run(&handle, name, "SELECT count(*), sum(length(b)) FROM t").await;
            let mut shown = Vec::new();
            reply.results[0].as_ref().expect("rows").write_json(&mut shown);
            let shown = String::from_utf8(shown).expect("JSON is text");
            let rows = "[[{\"type\":\"integer\",\"value\":\"12\"},{\"type\":\"integer\",\"value\":\"36000\"}]]";
            assert!(shown.contains(rows), "{name}: {shown}");
        }
        node.shut_down(Duration::from_secs(10)).await.expect("sealed");
    });
}

/// Moments that differ from their base by a hundred pages and more each, where there is room for two.
#[test]
fn moments_of_the_past_share_bounded_memory_and_those_in_use_keep_theirs() {
    const MOMENTS: u64 = 12;
    const ROOM: usize = 1 << 20;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let seam = Seam::production();
        let stores = Stores::one(Arc::new(MemoryStore::new()));
        let retention = Duration::from_secs(86_400);
        let settings = Settings { overlay_bytes_max: ROOM, retention, cores: 2, ..Settings::default() };
        let node = Node::start(IncarnationId::random(&seam), stores, seam, settings, &CoreThreads).await.expect("a node");
        let (handle, name) = (node.handle(), Name::parse("app").expect("a name"));
        let space = &handle.context.replica_overlays;
        run(&handle, &name, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)").await;
        run(&handle, &name, "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
            SELECT i, zeroblob(3000) FROM n").await;
        for moment in 1..=MOMENTS {
            run(&handle, &name, &format!("UPDATE t SET b = printf('%03000d', {moment})")).await;
        }
        let (reply, folded) = oneshot::channel();
        handle.send(&name, Message::FoldedHead { name: name.clone(), reply }).expect("a node that runs");
        folded.await.expect("an answer").expect("it is all folded");
        // Commits 1 and 2 have made the table.
        let shown = |moment: u64| {
            let sql = "SELECT count(*) FROM t WHERE b = printf('%03000d', (SELECT CAST(b AS INTEGER) FROM t LIMIT 1))";
            ask(&handle, &name, Some(moment + 2), None, sql)
        };
        for moment in 1..=MOMENTS {
            let reply = shown(moment).await.unwrap_or_else(|error| panic!("moment {moment}: {error:?}"));
            assert!(reply.results[0].is_ok() && reply.shown.lsn == moment + 2, "{:?}", reply.results[0]);
        }
        let highest = space.highest();
        assert!((400 << 10..=ROOM).contains(&highest), "{highest} bytes");

        let begin = |moment: u64| ask(&handle, &name, Some(moment + 2), None, "BEGIN");
        let [first, second] = [begin(1).await, begin(2).await].map(|reply| reply.expect("there is room").baton);
        assert!(first.is_some() && second.is_some(), "open transactions");
        let Err(JobError::Server(refused)) = begin(3).await else { panic!("no room for it") };
        assert_eq!(refused.fault, Fault::Retry, "{refused:?}");
        assert!(refused.message.contains("no memory left (--memory)"), "{refused:?}");
        // The present, and what is open, go on.
        run(&handle, &name, "SELECT 1").await;
        ask(&handle, &name, Some(4), second, "ROLLBACK").await.expect("it is open");
        begin(3).await.expect("another one has gone");
        ask(&handle, &name, Some(3), first, "ROLLBACK").await.expect("it is open");
        node.shut_down(Duration::from_secs(10)).await.expect("sealed");
        assert!(space.highest() <= ROOM, "{} bytes", space.highest());
    });
}
