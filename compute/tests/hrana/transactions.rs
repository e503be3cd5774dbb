//! What transactions see of each other, who conflicts with whom, who has the turn to write, and time-outs.

use std::thread;

use serde_json::{Value, json};

use crate::support::*;

fn with_table() -> (Server, Database) {
    let server = Server::dev();
    let database = server.database("app");
    database.run("CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    (server, database)
}

const COUNT: &str = "SELECT count(*) FROM t";

#[test]
fn what_is_not_committed_is_seen_by_nobody_else_and_a_rollback_leaves_no_trace() {
    let (_server, database) = with_table();
    let mut stream = database.stream();
    stream.run("BEGIN");
    stream.run("INSERT INTO t VALUES (1, 'mine')");
    assert_eq!(stream.rows(COUNT), [json!([1])]);
    assert_eq!(database.rows(COUNT), [json!([0])]);
    stream.run("ROLLBACK");
    assert_eq!(stream.baton, None);
    assert_eq!(database.rows(COUNT), [json!([0])]);
}

#[test]
fn a_commit_is_seen_at_once_by_whoever_asks_next() {
    let (_server, database) = with_table();
    let mut stream = database.stream();
    for count in 1..=20 {
        stream.send(json!([execute("BEGIN"), execute("INSERT INTO t(b) VALUES (0)"), execute("COMMIT")]));
        assert_eq!(database.rows(COUNT), [json!([count])]);
    }
}

#[test]
fn a_transaction_goes_on_seeing_the_snapshot_that_it_began_with() {
    let (_server, database) = with_table();
    database.run("INSERT INTO t VALUES (1, 'old')");
    let mut reader = database.stream();
    reader.run("BEGIN");
    assert_eq!(reader.rows("SELECT b FROM t"), [json!(["old"])]);
    database.run("UPDATE t SET b = 'new'");
    database.run("INSERT INTO t VALUES (2, 'more')");
    database.run("CREATE TABLE u(a)");
    assert_eq!(reader.rows("SELECT b FROM t"), [json!(["old"])]);
    assert_eq!(reader.fails("SELECT * FROM u").1, "SQLite error: no such table: u");
    reader.run("COMMIT");
    assert_eq!(reader.rows("SELECT b FROM t ORDER BY a"), [json!(["new"]), json!(["more"])]);
}

#[test]
fn a_write_on_a_snapshot_that_is_no_longer_the_newest_is_a_conflict() {
    let (_server, database) = with_table();
    database.run("INSERT INTO t VALUES (1, 10)");
    let mut late = database.stream();
    late.run("BEGIN");
    assert_eq!(late.rows("SELECT b FROM t"), [json!([10])]);
    database.run("UPDATE t SET b = 11");
    // Written from what it has read, 10 + 1 would undo the other's update.
    let result = late.send(json!([execute("UPDATE t SET b = 10 + 1")])).remove(0);
    assert_eq!(error_of(&result).0, "SQLITE_BUSY");
    assert_eq!(result["error"]["extended_code"], "SQLITE_BUSY_SNAPSHOT");
    // The transaction may still read, and ends as the client wants.
    assert_eq!(late.rows("SELECT b FROM t"), [json!([10])]);
    late.run("ROLLBACK");
    late.send(json!([execute("BEGIN"), execute("UPDATE t SET b = b + 1"), execute("COMMIT")]));
    assert_eq!(database.rows("SELECT b FROM t"), [json!([12])]);
}

#[test]
fn a_deferred_transaction_that_nobody_overtook_may_begin_to_write() {
    let (_server, database) = with_table();
    let mut stream = database.stream();
    stream.run("BEGIN");
    assert_eq!(stream.rows(COUNT), [json!([0])]);
    stream.run("INSERT INTO t(b) VALUES (1)");
    stream.run("COMMIT");
    assert_eq!(database.rows(COUNT), [json!([1])]);
}

#[test]
fn a_second_writer_waits_for_its_turn_instead_of_failing() {
    let (_server, database) = with_table();
    let mut first = database.stream();
    first.run("BEGIN IMMEDIATE");
    first.run("INSERT INTO t VALUES (1, 'first')");
    let second = database.clone();
    let waiting =
        thread::spawn(move || second.rows("INSERT INTO t VALUES (2, (SELECT b FROM t WHERE a = 1)) RETURNING b"));
    first.run("UPDATE t SET b = 'first, updated'");
    first.run("COMMIT");
    assert_eq!(waiting.join().expect("no panic"), [json!(["first, updated"])]);
}

#[test]
fn sixteen_writers_at_once_all_succeed() {
    const WRITERS: i64 = 16;
    const TRANSACTIONS: i64 = 20;
    let (_server, database) = with_table();
    database.run("INSERT INTO t VALUES (1, 0)");
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let database = database.clone();
            thread::spawn(move || {
                for transaction in 0..TRANSACTIONS {
                    // Half of them in one request, half over three.
                    if transaction % 2 == 0 {
                        database.run("UPDATE t SET b = b + 1 WHERE a = 1");
                    } else {
                        let mut stream = database.stream();
                        stream.run("BEGIN IMMEDIATE");
                        let now = stream.rows("SELECT b FROM t WHERE a = 1")[0][0].as_i64().expect("a count");
                        stream.run(&format!("UPDATE t SET b = {now} + 1 WHERE a = 1"));
                        stream.run("COMMIT");
                    }
                    database.run(&format!("INSERT INTO t(b) VALUES ('{writer}')"));
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().expect("every statement succeeds");
    }
    assert_eq!(database.rows("SELECT b FROM t WHERE a = 1"), [json!([WRITERS * TRANSACTIONS])]);
    assert_eq!(database.rows(COUNT), [json!([1 + WRITERS * TRANSACTIONS])]);
}

#[test]
fn readers_go_on_while_a_writer_holds_the_turn() {
    let (_server, database) = with_table();
    let mut writer = database.stream();
    writer.run("BEGIN EXCLUSIVE");
    writer.run("INSERT INTO t VALUES (1, 1)");
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let database = database.clone();
            thread::spawn(move || database.rows(COUNT))
        })
        .collect();
    for reader in readers {
        assert_eq!(reader.join().expect("no panic"), [json!([0])]);
    }
    writer.run("COMMIT");
}

#[test]
fn savepoints_nest() {
    let (_server, database) = with_table();
    let mut stream = database.stream();
    for sql in [
        "BEGIN",
        "INSERT INTO t VALUES (1, 1)",
        "SAVEPOINT a",
        "INSERT INTO t VALUES (2, 2)",
        "SAVEPOINT b",
        "INSERT INTO t VALUES (3, 3)",
        "RELEASE b",
        "ROLLBACK TO a",
        "INSERT INTO t VALUES (4, 4)",
        "COMMIT",
    ] {
        stream.run(sql);
    }
    assert_eq!(database.rows("SELECT a FROM t"), [json!([1]), json!([4])]);
}

#[test]
fn a_failed_statement_is_undone_alone_and_its_transaction_goes_on() {
    let (_server, database) = with_table();
    let mut stream = database.stream();
    stream.run("BEGIN");
    stream.run("INSERT INTO t VALUES (1, 1)");
    assert_eq!(stream.fails("INSERT INTO t VALUES (2, 2), (1, 'again')").0, "SQLITE_CONSTRAINT");
    stream.run("INSERT INTO t VALUES (3, 3)");
    stream.run("COMMIT");
    assert_eq!(database.rows("SELECT a FROM t"), [json!([1]), json!([3])]);
}

#[test]
fn a_read_only_transaction_cannot_write_and_the_next_one_can() {
    let (_server, database) = with_table();
    // As libSQL's Rust client and its JavaScript client begin them.
    for begin in ["BEGIN READONLY", "BEGIN TRANSACTION READONLY", "begin  readonly ;"] {
        let mut stream = database.stream();
        stream.run(begin);
        assert_eq!(stream.rows(COUNT), [json!([0])]);
        for write in ["INSERT INTO t VALUES (1, 1)", "CREATE TABLE u(a)", "DROP TABLE t", "PRAGMA user_version = 1"] {
            assert_eq!(stream.fails(write).0, "SQLITE_READONLY", "{write}");
        }
        let results = stream.send(json!([get_autocommit(), execute("COMMIT"), execute("DELETE FROM t")]));
        assert_eq!(results[0]["response"]["is_autocommit"], false);
        assert_eq!((&results[1]["type"], &results[2]["type"]), (&json!("ok"), &json!("ok")));
    }
    database.run("INSERT INTO t VALUES (1, 1)");
}

#[test]
fn an_idle_transaction_gives_its_turn_to_others_and_is_told_in_band() {
    let server = Server::serve(&["--idle-transaction-timeout", "300ms"]);
    let database = server.database("app");
    database.run("CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    let mut idle = database.stream();
    idle.send(json!([execute("BEGIN IMMEDIATE"), execute("INSERT INTO t(b) VALUES ('lost')")]));
    // Waits until the idle transaction is rolled back.
    database.run("INSERT INTO t(b) VALUES ('kept')");

    // Nothing of the next pipeline runs: outside of its transaction each statement would commit by itself.
    let results = idle.send(json!([execute("INSERT INTO t(b) VALUES ('stray')"), execute("COMMIT")]));
    for result in &results {
        assert_eq!(error_of(result), ("TRANSACTION_TIMEOUT".into(), "Transaction timed out".into()));
    }
    assert_eq!(idle.baton, None, "the stream holds nothing any more");
    assert_eq!(database.rows("SELECT b FROM t"), [json!(["kept"])]);
}

#[test]
fn an_idle_transaction_that_a_cursor_began_gives_its_turn_to_others_too() {
    let server = Server::serve(&["--idle-transaction-timeout", "300ms"]);
    let database = server.database("app");
    database.run("CREATE TABLE t(b)");
    let lines = database.cursor(&batch(json!([step("BEGIN IMMEDIATE"), step("INSERT INTO t VALUES ('lost')")])));
    database.run("INSERT INTO t VALUES ('kept')");
    let baton = &lines[0]["baton"];
    let answer =
        database.post("v3/cursor", json!({ "baton": baton, "batch": batch(json!([step("COMMIT")])) }).to_string());
    assert!(answer.text.contains("TRANSACTION_TIMEOUT"), "{}", answer.text);
    assert_eq!(database.rows("SELECT b FROM t"), [json!(["kept"])]);
}

#[test]
fn a_transaction_that_is_not_idle_may_last_longer_than_the_limit() {
    let server = Server::serve(&["--idle-transaction-timeout", "2s"]);
    let database = server.database("app");
    database.run("CREATE TABLE t(a)");
    let mut stream = database.stream();
    stream.run("BEGIN IMMEDIATE");
    let count =
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 100000) SELECT count(*) FROM c";
    let started = boot_seconds();
    while boot_seconds() - started < 3.0 {
        stream.send(json!([execute("INSERT INTO t VALUES (1)"), execute(count)]));
    }
    stream.run("COMMIT");
    let rows = database.rows("SELECT count(*) > 0 FROM t");
    assert_eq!(rows, [json!([1])]);
}

/// Seconds of a clock that the test uses to be busy for a while.
#[expect(clippy::disallowed_methods, reason = "a test client's own clock")]
fn boot_seconds() -> f64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed().as_secs_f64()
}

#[test]
fn a_batch_that_fails_is_rolled_back_by_its_last_step() {
    let (_server, database) = with_table();
    let ok = |step: u32| json!({ "type": "ok", "step": step });
    let steps = json!([
        step("BEGIN IMMEDIATE"),
        step_if(ok(0), "INSERT INTO t VALUES (1, 1)"),
        step_if(ok(1), "INSERT INTO t VALUES (1, 'again')"),
        step_if(ok(2), "COMMIT"),
        step_if(json!({ "type": "not", "cond": ok(3) }), "ROLLBACK"),
    ]);
    let results = database.pipeline(json!([{ "type": "batch", "batch": { "steps": steps } }]));
    let result = &results[0]["response"]["result"];
    assert_eq!(result["step_errors"][2]["code"], "SQLITE_CONSTRAINT");
    assert!(result["step_results"][3].is_null() && result["step_errors"][3].is_null(), "skipped");
    assert!(result["step_results"][4].is_object(), "rolled back");
    assert_eq!(database.rows(COUNT), [json!([0])]);
}

#[test]
fn the_replication_index_grows_with_each_commit_and_with_nothing_else() {
    let (_server, database) = with_table();
    let index =
        |result: &Value| result["replication_index"].as_str().expect("a string").parse::<u64>().expect("a number");
    let first = index(&database.run(COUNT));
    assert_eq!(index(&database.run("SELECT 1 FROM t")), first);
    assert_eq!(index(&database.run("INSERT INTO t(b) VALUES (1)")), first + 1);
    assert_eq!(index(&database.run("SELECT 1 FROM t")), first + 1);
    assert_eq!(index(&database.run("DELETE FROM t WHERE 0")), first + 1);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "gives requests time to arrive; they may also come too late")]
fn a_stop_ends_the_transactions_that_nobody_can_come_back_to_and_answers_who_waits_for_them() {
    let (mut server, database) = with_table();
    let mut holder = database.stream();
    holder.run("BEGIN IMMEDIATE");
    let answers = thread::scope(|scope| {
        let waiting = [0; 4].map(|_| scope.spawn(|| database.stream().post(&json!([execute("BEGIN IMMEDIATE")]))));
        thread::sleep(std::time::Duration::from_millis(300));
        server.terminate();
        waiting.map(|client| client.join().ok())
    });
    // Each got the turn after the one before it, none was left with the turn until it ran out.
    for answer in answers.into_iter().flatten() {
        assert!(answer.status == 200 && answer.json()["baton"].is_null(), "{answer:?}");
    }
    assert!(!server.log().contains("cut off"), "{}", server.log());
}

#[test]
fn a_client_cannot_choose_how_sqlite_waits() {
    let (_server, database) = with_table();
    for pragma in ["busy_timeout = 2147483647", "temp.busy_timeout = 2147483647", "main.BUSY_TIMEOUT(7)", "busy_timeout"] {
        let mut holder = database.stream();
        holder.run("BEGIN IMMEDIATE");
        let mut stream = database.stream();
        stream.run(&format!("PRAGMA {pragma}"));
        // It waits in line for the turn, as without the pragma, and gets it when the holder has ended.
        thread::scope(|scope| {
            let waiting = scope.spawn(|| stream.post(&json!([execute("BEGIN"), execute("INSERT INTO t(b) VALUES (1)"), execute("COMMIT")])));
            assert_eq!(holder.rows(COUNT).len(), 1, "{pragma}: the holder's core has time for it");
            holder.run("ROLLBACK");
            let results = waiting.join().expect("an answer").json();
            assert!(results["results"].as_array().expect("results").iter().all(|it| it["type"] == "ok"), "{pragma}: {results}");
        });
    }
    // As text, like whatever the file answers instead of SQLite.
    assert_eq!(database.rows("PRAGMA busy_timeout"), [json!(["10000"])]);
}
