//! Many databases that are each too small to fold, and together too large for the node's memory.

use std::sync::Arc;
use std::time::Duration;

use compute::core::{Job, Message, PipelineReply, Work};
use compute::hrana::HranaVersion;
use compute::hrana::json::WriteJson;
use compute::hrana::request::{SqlSource, Stmt, StreamRequest};
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
    let stmt = Stmt {
        sql: SqlSource { sql: Some(sql.to_owned()), sql_id: None },
        args: Vec::new(),
        named_args: Vec::new(),
        want_rows: true,
        replication_index: None,
    };
    let (reply, answer) = oneshot::channel();
    let work = Work::Pipeline { requests: vec![StreamRequest::Execute { stmt }], reply };
    let version = HranaVersion::Hrana3;
    let job = Job { database: name.clone(), at: None, create: true, baton: None, version, min_lsn: 0, work };
    node.send(name, Message::Job(job)).expect("a node that runs");
    let reply = answer.await.expect("an answer").unwrap_or_else(|error| panic!("{name}: {sql}: {error:?}"));
    assert!(reply.results[0].is_ok(), "{name}: {sql}: {:?}", reply.results[0]);
    reply
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
