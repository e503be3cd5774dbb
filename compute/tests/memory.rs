//! What takes much memory, where there is little: large transactions, bodies, and journals that go to the disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use compute::core::{Job, Message, PipelineReply, Work};
use compute::error::Fault;
use compute::hrana::HranaVersion;
use compute::hrana::baton::{Baton, BatonKey};
use compute::hrana::error::HranaError;
use compute::hrana::json::WriteJson;
use compute::hrana::request::{SqlSource, Stmt, StreamRequest};
use compute::hrana::response::StreamResponse;
use compute::http::data::{self, DataPlane};
use compute::node::{CoreThreads, Node, NodeHandle, Settings};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tenant::name::Name;
use tokio::sync::{mpsc, oneshot};
use tower::ServiceExt;
use walstore::id::IncarnationId;
use walstore::life::Stores;
use walstore::seam::Seam;
use walstore::store::MemoryStore;

const MIB: usize = 1 << 20;
/// What the nodes below lend.
const MEMORY: usize = 12 * MIB;

fn settings() -> Settings {
    Settings {
        lent_bytes_free: 0,
        lent_bytes_max: MEMORY,
        transaction_bytes_max: 4 * MIB,
        retention: Duration::from_secs(86_400),
        ..Settings::default()
    }
}

/// Runs `body` with a node that has these settings.
fn with_node<F: Future<Output = ()>>(settings: Settings, body: impl FnOnce(NodeHandle) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let seam = Seam::production();
        let stores = Stores::one(Arc::new(MemoryStore::new()));
        let node = Node::start(IncarnationId::random(&seam), stores, seam, settings, &CoreThreads).await.expect("a node");
        body(node.handle()).await;
        node.shut_down(Duration::from_secs(10)).await.expect("sealed");
    });
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

/// What a pipeline of these statements comes to.
async fn pipeline(node: &NodeHandle, name: &Name, baton: Option<Baton>, statements: &[&str]) -> PipelineReply {
    let execute = |sql: &&str| {
        let sql = SqlSource { sql: Some((*sql).to_owned()), sql_id: None };
        let stmt = Stmt { sql, args: Vec::new(), named_args: Vec::new(), want_rows: true, replication_index: None };
        StreamRequest::Execute { stmt }
    };
    let (reply, answer) = oneshot::channel();
    let work = Work::Pipeline { requests: statements.iter().map(execute).collect(), reply };
    let version = HranaVersion::Hrana3;
    let job = Job { database: name.clone(), at: None, create: true, baton, version, min_lsn: 0, work, loan: None };
    node.send(name, Message::Job(job)).expect("a node that runs");
    answer.await.expect("an answer").unwrap_or_else(|error| panic!("{name}: {error:?}"))
}

async fn attempt(node: &NodeHandle, name: &Name, sql: &str) -> Result<StreamResponse, HranaError> {
    pipeline(node, name, None, &[sql]).await.results.remove(0)
}

async fn run(node: &NodeHandle, name: &Name, sql: &str) -> String {
    let response = attempt(node, name, sql).await.unwrap_or_else(|error| panic!("{name}: {sql}: {error:?}"));
    let mut shown = Vec::new();
    response.write_json(&mut shown);
    String::from_utf8(shown).expect("JSON is text")
}

/// Whether the one value that a query has is this integer.
async fn is(node: &NodeHandle, name: &Name, sql: &str, value: i64) {
    let shown = run(node, name, sql).await;
    assert!(shown.contains(&format!("[[{{\"type\":\"integer\",\"value\":\"{value}\"}}]]")), "{sql}: {shown}");
}

/// So many rows of a quarter of a page.
fn insert(rows: u32) -> String {
    format!(
        "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         SELECT NULL, 0, randomblob(1000) FROM n"
    )
}

const CREATE: &str = "CREATE TABLE t(a INTEGER PRIMARY KEY, n, b)";
const CHANGE: &str = "UPDATE t SET n = n + 1, b = randomblob(1000)";

async fn fold(node: &NodeHandle, name: &Name) {
    let (reply, folded) = oneshot::channel();
    node.send(name, Message::FoldedHead { name: name.clone(), reply }).expect("a node that runs");
    folded.await.expect("an answer").expect("it is all folded");
}

#[test]
fn a_large_transaction_waits_for_memory_and_is_refused_as_a_whole_before_it_takes_effect() {
    with_node(Settings { busy_timeout: Duration::from_secs(1), ..settings() }, async |node| {
        let name = name("app");
        run(&node, &name, CREATE).await;
        let mut others = node.context.cache.lend();
        others.set(MEMORY - 3 * MIB);
        // 3 MB: it may be written, and no more.
        let refused = attempt(&node, &name, &insert(3_000)).await.expect_err("no memory");
        assert_eq!(refused.code, Fault::Retry.code(), "{refused:?}");
        assert!(refused.message.contains("no memory left (--memory) for a transaction"), "{refused:?}");
        let mut words = refused.message.split(' ').filter_map(|word| word.parse::<usize>().ok());
        assert!(words.next().is_some_and(|bytes| (MIB..4 * MIB).contains(&bytes)), "its own size: {refused:?}");
        is(&node, &name, "SELECT count(*) FROM t", 0).await;
        run(&node, &name, &insert(200)).await;
        let large = insert(3_000);
        let (waiting, ()) = tokio::join!(run(&node, &name, &large), async {
            node.context.seam.sleep(Duration::from_millis(300)).await;
            others.set(0);
        });
        assert!(waiting.contains("\"affected_row_count\":3000"), "there is memory by now: {waiting}");
        // Its fold finds what was set aside, and all of it comes back.
        fold(&node, &name).await;
        run(&node, &name, &insert(3_000)).await;
        is(&node, &name, "SELECT count(*) FROM t", 6_200).await;
        fold(&node, &name).await;
        assert_eq!(node.context.memory().large, 0);
    });
}

#[test]
fn a_statement_that_is_refused_for_memory_leaves_the_transaction_before_it_whole() {
    with_node(Settings { busy_timeout: Duration::from_secs(1), ..settings() }, async |node| {
        let name = name("app");
        run(&node, &name, CREATE).await;
        run(&node, &name, &insert(3_000)).await;
        fold(&node, &name).await;
        let mut others = node.context.cache.lend();
        others.set(MEMORY - 2 * MIB);
        let statements = ["BEGIN", "UPDATE t SET n = 7 WHERE a = 1", CHANGE, "SELECT sum(n) FROM t", "COMMIT"];
        let reply = pipeline(&node, &name, None, &statements).await;
        let refused = reply.results[2].as_ref().expect_err("no memory");
        assert!(refused.message.contains("no memory left (--memory) for a transaction"), "{refused:?}");
        // SQLite takes back the statement, or the transaction; never half of either.
        let sum = if reply.results[4].is_ok() { 7 } else { 0 };
        is(&node, &name, "SELECT sum(n) FROM t", sum).await;
        is(&node, &name, "SELECT count(*) FROM t", 3_000).await;
        others.set(0);
        run(&node, &name, CHANGE).await;
        is(&node, &name, "SELECT sum(n) FROM t", 3_000 + sum).await;
    });
}

#[test]
fn a_rollback_waits_for_no_memory() {
    // If it waited, nobody would live to see its end.
    with_node(Settings { busy_timeout: Duration::from_secs(86_400), ..settings() }, async |node| {
        let name = name("app");
        run(&node, &name, CREATE).await;
        run(&node, &name, &insert(3_000)).await;
        fold(&node, &name).await;
        for end in [&["ROLLBACK"][..], &["ROLLBACK TO s", "ROLLBACK"]] {
            let mut reply = pipeline(&node, &name, None, &["SAVEPOINT s", CHANGE]).await;
            assert!(reply.results.iter().all(Result::is_ok), "{:?}", reply.results);
            let mut others = node.context.cache.lend();
            others.set(MEMORY);
            let baton = reply.baton.take();
            let reply = pipeline(&node, &name, baton, end).await;
            assert!(reply.results.iter().all(Result::is_ok), "{end:?}: {:?}", reply.results);
            is(&node, &name, "SELECT sum(n) FROM t", 0).await;
        }
        // Nor does the one of a stream that its client leaves.
        let reply = pipeline(&node, &name, None, &["BEGIN", CHANGE]).await;
        let mut others = node.context.cache.lend();
        others.set(MEMORY);
        let (closed, answer) = oneshot::channel();
        let work = Work::Pipeline { requests: vec![StreamRequest::Close], reply: closed };
        let version = HranaVersion::Hrana3;
        let job = Job { database: name.clone(), at: None, create: true, baton: reply.baton, version, min_lsn: 0, work, loan: None };
        node.send(&name, Message::Job(job)).expect("a node that runs");
        answer.await.expect("an answer").expect("it is closed");
        is(&node, &name, "SELECT sum(n) FROM t", 0).await;
    });
}

/// Bug: a transaction that had begun to grow, and whose client then did little or nothing, went on having memory kept
/// for the largest that it might become. Damage: others waited for that and were refused while most was free. Fix: what
/// waits for its client keeps only what it has.
#[test]
fn a_transaction_that_waits_for_its_client_keeps_only_what_it_has_from_others() {
    with_node(Settings { busy_timeout: Duration::from_secs(1), ..settings() }, async |node| {
        let (idle, busy) = (name("idle"), name("busy"));
        run(&node, &idle, CREATE).await;
        run(&node, &busy, CREATE).await;
        // More of it than a megabyte is out of SQLite's cache, and in the node's memory.
        let mut open = pipeline(&node, &idle, None, &["PRAGMA cache_size = 10", "BEGIN", &insert(1_200)]).await;
        assert!(open.results.iter().all(Result::is_ok), "{:?}", open.results);
        let has = node.context.memory().large;
        assert!((MIB..2 * MIB).contains(&has), "{has} bytes");
        for _ in 0..3 {
            open = pipeline(&node, &idle, open.baton.take(), &["SELECT 1"]).await;
            run(&node, &busy, &insert(3_000)).await;
            fold(&node, &busy).await;
        }
        // It grows again where it is alone.
        let reply = pipeline(&node, &idle, open.baton.take(), &[&insert(1_500), "COMMIT"]).await;
        assert!(reply.results.iter().all(Result::is_ok), "{:?}", reply.results);
        fold(&node, &idle).await;
        is(&node, &idle, "SELECT count(*) FROM t", 2_700).await;
        is(&node, &busy, "SELECT count(*) FROM t", 9_000).await;
    });
}

/// Bug: what SQLite writes to take a statement back was refused where that made the transaction larger than it may be.
/// Damage: all of it was gone after a `ROLLBACK TO`. Fix: it is looked at again when it commits.
#[test]
fn taking_back_goes_on_beyond_the_limit_of_a_transaction() {
    with_node(Settings { lent_bytes_max: usize::MAX, ..settings() }, async |node| {
        let name = name("app");
        run(&node, &name, CREATE).await;
        for _ in 0..2 {
            run(&node, &name, &insert(3_000)).await;
            fold(&node, &name).await;
        }
        let mut refused = 0;
        // From well below the limit to well above it, where part of what is written is in SQLite's cache.
        for rows in (2_500..6_000).step_by(100) {
            let change = format!("UPDATE t SET n = n + 1, b = randomblob(1000) WHERE a <= {rows}");
            let begin = ["BEGIN", "UPDATE t SET n = 7 WHERE a = 1", "SAVEPOINT s", &change];
            let mut reply = pipeline(&node, &name, None, &begin).await;
            if reply.results[3].is_err() {
                refused += 1;
                continue;
            }
            let end = ["ROLLBACK TO s", "SELECT n FROM t WHERE a = 1", "ROLLBACK"];
            let reply = pipeline(&node, &name, reply.baton.take(), &end).await;
            assert!(reply.results.iter().all(Result::is_ok), "{rows} rows: {:?}", reply.results);
        }
        assert!(refused > 0, "some are too large");
        is(&node, &name, "SELECT sum(n) FROM t", 0).await;
    });
}

#[test]
fn several_large_transactions_at_a_time_all_come_to_their_end_within_the_memory() {
    const DATABASES: u32 = 4;
    const ROUNDS: u32 = 3;
    // Each has caches of SQLite's beside it, of which nothing is asked.
    const MEMORY: usize = 32 * MIB;
    let patience = Duration::from_secs(300);
    let settings =
        Settings { lent_bytes_max: MEMORY, busy_timeout: patience, statement_timeout: patience, ..settings() };
    with_node(settings, async |node| {
        let mut writers = tokio::task::JoinSet::new();
        for number in 0..DATABASES {
            let (node, name) = (node.clone(), name(&format!("d{number}")));
            writers.spawn(async move {
                run(&node, &name, CREATE).await;
                for round in 0..ROUNDS {
                    // In statements of 1 MB: each grows while the others do.
                    let piece = insert(1_000);
                    let reply = pipeline(&node, &name, None, &["BEGIN", &piece, &piece, &piece, "COMMIT"]).await;
                    assert!(reply.results.iter().all(Result::is_ok), "{name}, round {round}: {:?}", reply.results);
                }
                is(&node, &name, "SELECT count(*) FROM t", 3_000 * i64::from(ROUNDS)).await;
            });
        }
        let mut highest = 0;
        while !writers.is_empty() {
            tokio::select! {
                done = writers.join_next() => done.expect("one that runs").expect("a writer"),
                () = node.context.seam.sleep(Duration::from_millis(2)) => {}
            }
            highest = highest.max(node.context.cache.lent_bytes());
        }
        // What can't wait is small: overlays, connections, folds of commits that were acknowledged.
        assert!(highest <= MEMORY + DATABASES as usize * MIB, "{highest} bytes");
        println!("at most {highest} bytes of {MEMORY}");
    });
}

/// Bug: that a temporary file could not be made was an error after which SQLite goes on. Damage: a transaction could
/// commit half of what a statement had done. Fix: it is an I/O error, after which all of it is rolled back.
#[test]
fn without_a_disk_for_journals_a_large_transaction_is_rolled_back_whole_and_told_why() {
    let missing = PathBuf::from("/proc/nobody/can/write/here");
    with_node(Settings { temp_directory: missing, lent_bytes_max: usize::MAX, ..settings() }, async |node| {
        let name = name("app");
        run(&node, &name, CREATE).await;
        run(&node, &name, "CREATE TABLE other(a)").await;
        run(&node, &name, &insert(2_000)).await;
        // What is written beside it is small: it is the journal that finds no room.
        let sort = "INSERT INTO other SELECT b FROM (SELECT a.b AS b FROM t a, t c WHERE c.a < 9 ORDER BY a.b || c.b)";
        for large in [CHANGE, sort] {
            let statements = ["BEGIN", "INSERT INTO t VALUES (-1, 100, 'x')", large, "COMMIT", "SELECT count(*) FROM t"];
            let reply = pipeline(&node, &name, None, &statements).await;
            let refused = reply.results[2].as_ref().expect_err("no disk");
            assert!(refused.message.contains("cannot write a temporary file"), "{large}: {refused:?}");
            assert!(refused.code.starts_with("SQLITE_IOERR"), "{large}: {refused:?}");
            assert!(reply.results[3].is_err(), "there is nothing left to commit");
            let refused = attempt(&node, &name, large).await.expect_err("no disk");
            assert!(refused.message.contains("cannot write a temporary file"), "{large}: {refused:?}");
            is(&node, &name, "SELECT count(*) FROM t", 2_000).await;
            is(&node, &name, "SELECT sum(n) FROM t", 0).await;
            is(&node, &name, "SELECT count(*) FROM other", 0).await;
        }
        run(&node, &name, "UPDATE t SET n = 1 WHERE a = 1").await;
        is(&node, &name, "SELECT sum(n) FROM t", 1).await;
        let reply = run(&node, &name, "PRAGMA integrity_check").await;
        assert!(reply.contains("\"ok\""), "{reply}");
    });
}

#[test]
fn a_large_journal_goes_to_the_disk_counts_there_and_is_gone_afterwards() {
    with_node(Settings { lent_bytes_max: usize::MAX, temp_bytes_max: 3 * MIB as u64, ..settings() }, async |node| {
        let name = name("app");
        run(&node, &name, CREATE).await;
        run(&node, &name, &insert(2_000)).await;
        let reply = pipeline(&node, &name, None, &["BEGIN", CHANGE]).await;
        assert!(reply.results.iter().all(Result::is_ok), "more than half of it is no sort's: {:?}", reply.results);
        let bytes = node.context.temp.bytes();
        assert!((3 * MIB as u64 / 2..3 * MIB as u64).contains(&bytes), "{bytes}");
        let reply = pipeline(&node, &name, reply.baton, &["ROLLBACK"]).await;
        assert!(reply.results[0].is_ok());
        is(&node, &name, "SELECT sum(n) FROM t", 0).await;
        assert_eq!(node.context.temp.bytes(), 0);
        // One that is larger than all there is.
        run(&node, &name, &insert(1_500)).await;
        let refused = attempt(&node, &name, CHANGE).await.expect_err("no room");
        assert!(refused.message.contains("1/2 of the server's --cache-size"), "{refused:?}");
        is(&node, &name, "SELECT sum(n) FROM t", 0).await;
        assert_eq!(node.context.temp.bytes(), 0);
    });
}

fn data_plane(node: &NodeHandle) -> Router {
    data::router(DataPlane {
        node: node.clone(),
        batons: BatonKey::new([7; 32]),
        default_database: None,
        create_on_first_use: true,
        body_bytes_max: 64 * MIB,
    })
}

/// A pipeline with one value of so many bytes.
fn body_of(bytes: usize) -> Bytes {
    let value = "x".repeat(bytes);
    let stmt = format!(
        "{{\"sql\":\"SELECT length(?)\",\"args\":[{{\"type\":\"text\",\"value\":\"{value}\"}}]}}"
    );
    format!("{{\"requests\":[{{\"type\":\"execute\",\"stmt\":{stmt}}}]}}").into()
}

/// Sends a body, whose pieces come from a channel.
async fn post_pieces(plane: Router, pieces: mpsc::Receiver<Bytes>) -> (StatusCode, String) {
    let pieces = futures_util::stream::unfold(pieces, async |mut pieces: mpsc::Receiver<Bytes>| {
        let piece = pieces.recv().await?;
        Some((Ok::<_, std::io::Error>(piece), pieces))
    });
    post(plane, Body::from_stream(Box::pin(pieces))).await
}

async fn post(plane: Router, body: Body) -> (StatusCode, String) {
    let request = Request::post("/db/app/v3/pipeline").body(body).expect("a request");
    let response = plane.oneshot(request).await.expect("an answer");
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

async fn post_at_once(plane: Router, body: Bytes) -> (StatusCode, String) {
    let (sender, pieces) = mpsc::channel(1);
    let send = async move {
        for piece in body.chunks(100_000) {
            let _ = sender.send(Bytes::copy_from_slice(piece)).await;
        }
    };
    tokio::join!(post_pieces(plane, pieces), send).0
}

#[test]
fn a_body_borrows_memory_as_it_arrives_and_is_refused_where_there_is_none() {
    with_node(settings(), async |node| {
        let borrowed = || node.context.body_bytes.load(Ordering::Relaxed);
        let (sender, pieces) = mpsc::channel(1);
        let mut posted = tokio::task::JoinSet::new();
        posted.spawn(post_pieces(data_plane(&node), pieces));
        let body = body_of(5 * MIB / 2);
        let (begin, rest) = (body.slice(..2 * MIB), body.slice(2 * MIB..));
        for piece in begin.chunks(64 << 10) {
            sender.send(Bytes::copy_from_slice(piece)).await.expect("it is read");
        }
        // The last piece but one has been counted when the channel takes another one.
        let sent = 2 * (2 * MIB - 2 * (64 << 10));
        assert!((sent..=4 * MIB).contains(&borrowed()), "{}", borrowed());
        // Together they may have half.
        let (status, answer) = post_at_once(data_plane(&node), body_of(3 * MIB / 2)).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
        assert!(answer.contains("no memory left (--memory) for a request") && answer.contains(Fault::Retry.code()), "{answer}");
        let (status, answer) = post_at_once(data_plane(&node), body_of(MIB / 2)).await;
        assert_eq!(status, StatusCode::OK, "a small one is never refused: {answer}");
        sender.send(rest).await.expect("it is read");
        drop(sender);
        let (status, answer) = posted.join_next().await.expect("it runs").expect("an answer");
        assert!(status == StatusCode::OK && answer.contains(&(5 * MIB / 2).to_string()), "{status} {answer}");
        all_is_given_back(&node).await;

        let (status, answer) = post_at_once(data_plane(&node), body_of(3 * MIB / 2)).await;
        assert_eq!(status, StatusCode::OK, "there is room again: {answer}");
        let (status, answer) = post(data_plane(&node), body_of(7 * MIB).into()).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{answer}");
        assert!(answer.contains("more memory than this server has"), "{answer}");

        // One that breaks off gives everything back.
        let (sender, pieces) = mpsc::channel(1);
        posted.spawn(post_pieces(data_plane(&node), pieces));
        sender.send(Bytes::from(vec![b' '; 2 * MIB])).await.expect("it is read");
        drop(sender);
        let (status, answer) = posted.join_next().await.expect("it runs").expect("an answer");
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        all_is_given_back(&node).await;
    });
}

/// A pipeline of so many steps of a batch, each of which is empty.
fn body_of_steps(count: usize) -> Bytes {
    let steps = vec![r#"{"stmt":{}}"#; count].join(",");
    format!(r#"{{"requests":[{{"type":"batch","batch":{{"steps":[{steps}]}}}}]}}"#).into()
}

/// Bug: a body borrowed for its text, twice, and steps or requests of a few letters take ten times as much. Damage: one
/// body was enough to take all of a node's memory. Fix: parts are counted before it is parsed, and borrowed for.
#[test]
fn a_body_borrows_for_its_parts_before_they_are_there() {
    with_node(settings(), async |node| {
        let (status, answer) = post(data_plane(&node), body_of_steps(80_000).into()).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{answer}");
        assert!(answer.contains("objects and lists in it takes more memory than this server has"), "{answer}");
        let mut others = node.context.cache.lend();
        others.set(MEMORY - 2 * MIB);
        let (status, answer) = post(data_plane(&node), body_of_steps(6_000).into()).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "short, and not small: {answer}");
        assert!(answer.contains("no memory left (--memory) for a request"), "{answer}");
        let (status, answer) = post(data_plane(&node), body_of_steps(3_000).into()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "one that is small is never refused for memory: {answer}");
        others.set(0);
        let (status, answer) = post(data_plane(&node), body_of_steps(6_000).into()).await;
        assert!(status == StatusCode::BAD_REQUEST && answer.contains("`sql`"), "by now it is read: {status} {answer}");
        all_is_given_back(&node).await;
    });
}

/// It would keep memory from everybody else for as long as it likes.
#[test]
fn a_large_body_that_does_not_come_is_given_up() {
    let settings = Settings { large_body_patience: Duration::from_millis(200), ..settings() };
    with_node(settings, async |node| {
        let (sender, pieces) = mpsc::channel(1);
        let mut posted = tokio::task::JoinSet::new();
        posted.spawn(post_pieces(data_plane(&node), pieces));
        sender.send(Bytes::from(vec![b' '; MIB + 1000])).await.expect("it is read");
        let (status, answer) = posted.join_next().await.expect("it runs").expect("an answer");
        assert!(status == StatusCode::REQUEST_TIMEOUT && answer.contains("too slowly"), "{status} {answer}");
        all_is_given_back(&node).await;
        // What is small keeps nothing from anybody.
        let (sender, pieces) = mpsc::channel(1);
        posted.spawn(post_pieces(data_plane(&node), pieces));
        let small = body_of(MIB / 2);
        sender.send(small.slice(..1000)).await.expect("it is read");
        pause(Duration::from_millis(500)).await;
        sender.send(small.slice(1000..)).await.expect("it is read");
        drop(sender);
        let (status, answer) = posted.join_next().await.expect("it runs").expect("an answer");
        assert_eq!(status, StatusCode::OK, "{answer}");
    });
}

/// A moment after the answer: what was asked with is dropped then.
async fn all_is_given_back(node: &NodeHandle) {
    for _ in 0..1000 {
        if (node.context.body_bytes.load(Ordering::Relaxed), node.context.memory().large) == (0, 0) {
            return;
        }
        pause(Duration::from_millis(10)).await;
    }
    panic!("{} bytes of bodies are still borrowed", node.context.body_bytes.load(Ordering::Relaxed));
}

#[expect(clippy::disallowed_methods, reason = "waits for a node in real time")]
async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}
