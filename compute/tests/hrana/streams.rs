//! Batons, and connections that go from one client to the next.

use serde_json::{Value, json};

use crate::support::*;

#[test]
fn a_stream_without_state_has_no_baton_to_lose() {
    let server = Server::dev();
    let mut stream = server.database("app").stream();
    for requests in [
        json!([]),
        json!([execute("SELECT 1")]),
        json!([execute("CREATE TABLE t(a)"), execute("INSERT INTO t VALUES (1)")]),
        json!([execute("BEGIN"), execute("DELETE FROM t"), execute("COMMIT")]),
        json!([execute("BEGIN"), execute("DELETE FROM t"), close()]),
        json!([execute("PRAGMA user_version = 3"), execute("PRAGMA table_info(t)")]),
        json!([{ "type": "store_sql", "sql_id": 1, "sql": "SELECT 1" }, { "type": "close_sql", "sql_id": 1 }]),
        json!([execute("selec")]),
    ] {
        stream.send(requests.clone());
        assert_eq!(stream.baton, None, "{requests}");
    }
}

#[test]
fn what_must_be_kept_comes_with_a_baton_and_is_there_in_the_next_request() {
    let server = Server::dev();
    let database = server.database("app");
    database.run("CREATE TABLE t(a)");
    for (state, look, seen) in [
        (execute("BEGIN"), "SELECT 1", json!([1])),
        (execute("CREATE TEMP TABLE mine AS SELECT 5 AS a"), "SELECT a FROM mine", json!([5])),
        (execute("PRAGMA foreign_keys = OFF"), "PRAGMA foreign_keys", json!([0])),
    ] {
        let mut stream = database.stream();
        stream.send(json!([state]));
        assert!(stream.baton.is_some(), "{state}");
        assert_eq!(stream.rows(look), [seen]);
        stream.send(json!([close()]));
        assert_eq!(stream.baton, None, "closed");
    }
}

#[test]
fn stored_texts_belong_to_their_stream() {
    let server = Server::dev();
    let database = server.database("app");
    let store = |id: i32, sql: &str| json!({ "type": "store_sql", "sql_id": id, "sql": sql });
    let by_id = |id: i32| json!({ "type": "execute", "stmt": { "sql_id": id } });
    let mut stream = database.stream();
    stream.send(json!([store(1, "SELECT 'stored'"), store(-2, "SELECT 2")]));
    let results = stream
        .send(json!([by_id(1), by_id(-2), { "type": "sequence", "sql_id": 1 }, { "type": "describe", "sql_id": 1 }]));
    assert_eq!(rows_of(&results[0]["response"]["result"]), [json!(["stored"])]);
    assert!(results.iter().all(|result| result["type"] == "ok"), "{results:?}");

    let other = database.stream();
    other.post(&json!([by_id(1)])).assert_refused(400, "HRANA_PROTOCOL_ERROR", &["SQL text 1 not found"]);
    stream.post(&json!([store(1, "SELECT 3")])).assert_refused(
        400,
        "HRANA_PROTOCOL_ERROR",
        &["SQL text 1 already exists"],
    );
}

#[test]
fn stored_texts_are_bounded_in_size_and_number() {
    let server = Server::dev();
    let mut stream = server.database("app").stream();
    let long = "x".repeat(1 << 20);
    let results = stream.send(json!([{ "type": "store_sql", "sql_id": 1, "sql": long }]));
    assert_eq!(error_of(&results[0]).0, "SQL_STORE_TOO_LARGE");
    let many: Vec<Value> =
        (0..1000).map(|id| json!({ "type": "store_sql", "sql_id": id, "sql": "SELECT 1" })).collect();
    let results = stream.send(json!(many));
    assert_eq!(results[0]["type"], "ok");
    assert_eq!(error_of(&results[999]).0, "SQL_STORE_TOO_MANY");
    stream.send(json!([close()]));
}

#[test]
fn a_baton_works_once_and_only_at_its_own_database() {
    let server = Server::dev();
    let (app, other) = (server.database("app"), server.database("other"));
    other.run("CREATE TABLE t(a)");
    let mut stream = app.stream();
    stream.send(json!([execute("BEGIN")]));
    let first = stream.baton.clone();

    // The other database does not take it, and it is not used up by the attempt.
    let elsewhere = Stream { database: other, baton: first.clone(), version: "v3" };
    elsewhere.post(&json!([execute("SELECT 1")])).assert_refused(
        400,
        "HRANA_PROTOCOL_ERROR",
        &["Received an invalid baton"],
    );
    stream.send(json!([execute("SELECT 1")]));
    assert!(stream.baton.is_some() && stream.baton != first, "each answer has a new one");

    let again = Stream { database: app.clone(), baton: first, version: "v3" };
    again.post(&json!([])).assert_refused(
        400,
        "HRANA_PROTOCOL_ERROR",
        &["Received a baton that has already been used"],
    );
    // The stream itself goes on.
    stream.run("COMMIT");
    assert_eq!(stream.baton, None);
}

#[test]
fn a_closed_stream_is_closed_for_good() {
    let server = Server::dev();
    let mut stream = server.database("app").stream();
    stream.send(json!([execute("BEGIN")]));
    let before = stream.baton.clone();
    stream.send(json!([close()]));
    stream.baton = before;
    stream.post(&json!([execute("COMMIT")])).assert_refused(400, "HRANA_PROTOCOL_ERROR", &["invalid baton"]);
    let answer = server.database("app").stream().post(&json!([close(), execute("SELECT 1")]));
    answer.assert_refused(400, "HRANA_PROTOCOL_ERROR", &["Stream for this baton was closed"]);
}

#[test]
fn a_baton_of_one_version_serves_the_other() {
    let server = Server::dev();
    let mut stream = server.database("app").stream_v2();
    stream.send(json!([execute("BEGIN"), execute("CREATE TABLE t(a)")]));
    stream.version = "v3";
    let results = stream.send(json!([get_autocommit(), execute("COMMIT")]));
    assert_eq!(results[0]["response"]["is_autocommit"], false);
}

#[test]
fn a_pooled_connection_leaves_nothing_behind_for_its_next_user() {
    let server = Server::dev();
    let database = server.database("app");
    database.run("CREATE TABLE t(a INTEGER PRIMARY KEY)");
    let counters = "SELECT changes(), total_changes(), last_insert_rowid()";
    for dirty in [
        json!([execute("INSERT INTO t VALUES (NULL), (NULL)")]),
        json!([execute("DELETE FROM t"), execute("SELECT 1")]),
        json!([execute("CREATE TEMP TABLE mine(a)"), execute("INSERT INTO mine VALUES (1)"), close()]),
        json!([execute("CREATE TEMP VIEW mine AS SELECT 1"), close()]),
        json!([execute("PRAGMA foreign_keys = OFF"), close()]),
        json!([execute("PRAGMA case_sensitive_like = ON"), close()]),
        json!([execute("PRAGMA query_only = ON"), close()]),
        json!([execute("PRAGMA recursive_triggers = ON"), close()]),
        json!([execute("PRAGMA reverse_unordered_selects = ON"), close()]),
        json!([execute("PRAGMA ignore_check_constraints = ON"), close()]),
        json!([execute("BEGIN READONLY"), execute("SELECT 1"), close()]),
        json!([execute("BEGIN"), execute("INSERT INTO t VALUES (NULL)"), close()]),
        json!([execute("SAVEPOINT s"), execute("INSERT INTO t VALUES (NULL)"), close()]),
        json!([execute("INSERT INTO t VALUES (77)"), execute("INSERT INTO t VALUES (77)")]),
    ] {
        database.pipeline(dirty.clone());
        // A reader and a writer: they have pools of their own.
        for first in ["SELECT 1", "UPDATE t SET a = a WHERE 0"] {
            let results = database.pipeline(json!([
                execute(first),
                execute(counters),
                execute("PRAGMA foreign_keys"),
                execute("SELECT 'a' LIKE 'A'"),
                execute("PRAGMA query_only"),
                execute("PRAGMA recursive_triggers"),
                execute("PRAGMA reverse_unordered_selects"),
                execute("PRAGMA ignore_check_constraints"),
                execute("SELECT count(*) FROM temp.sqlite_schema"),
                get_autocommit(),
            ]));
            let rows = |index: usize| rows_of(&results[index]["response"]["result"]);
            assert_eq!(rows(1), [json!([0, 0, 0])], "{first} after {dirty}");
            assert_eq!((rows(2), rows(3)), (vec![json!([1])], vec![json!([1])]), "{first} after {dirty}");
            for index in 4..=8 {
                assert_eq!(rows(index), [json!([0])], "{first}, then {index}, after {dirty}");
            }
            assert_eq!(results[9]["response"]["is_autocommit"], true);
        }
    }
}

#[test]
fn within_one_stream_the_counters_count_as_sqlites_do() {
    let server = Server::dev();
    let database = server.database("app");
    let counters = || execute("SELECT changes(), total_changes(), last_insert_rowid()");
    let results = database.pipeline(json!([
        execute("CREATE TABLE t(a INTEGER PRIMARY KEY)"),
        counters(),
        execute("INSERT INTO t VALUES (10), (11), (12)"),
        counters(),
        execute("DELETE FROM t WHERE a > 10"),
        counters(),
        execute("UPDATE t SET a = 5 WHERE a = 99"),
        counters(),
    ]));
    let row = |index: usize| rows_of(&results[index]["response"]["result"])[0].clone();
    assert_eq!(
        [row(1), row(3), row(5), row(7)],
        [json!([0, 0, 0]), json!([3, 3, 12]), json!([2, 5, 12]), json!([0, 5, 12])]
    );
}
