//! What SQL there is, and the counters that come with a result.

use serde_json::{Value, json};

use crate::support::*;

#[test]
fn full_text_search_json_rtree_and_mathematics_are_built_in() {
    let server = Server::dev();
    let database = server.database("app");
    database.run("CREATE VIRTUAL TABLE ft USING fts5(body)");
    database.run("INSERT INTO ft VALUES ('a shoal of herring'), ('a lone shark')");
    let found = database.rows("SELECT highlight(ft, 0, '[', ']') FROM ft WHERE ft MATCH 'herr*'");
    assert_eq!(found, [json!(["a shoal of [herring]"])]);
    database.run("CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1)");
    database.run("INSERT INTO boxes VALUES (1, 0, 1), (2, 5, 6)");
    assert_eq!(database.rows("SELECT id FROM boxes WHERE x0 <= 5.5 AND x1 >= 5.5"), [json!([2])]);
    for (sql, value) in [
        ("json_extract('{\"a\":[1,2]}', '$.a[1]')", json!(2)),
        ("'{\"a\":\"b\"}' ->> 'a'", json!("b")),
        ("json(jsonb('[1]'))", json!("[1]")),
        ("(SELECT sum(value) FROM json_each('[1,2,3]'))", json!(6)),
        ("sqrt(2.25)", json!(1.5)),
        ("pow(2, 10)", json!(1024.0)),
        ("ceil(0.5)", json!(1.0)),
        ("(SELECT group_concat(value, '-' ORDER BY value DESC) FROM json_each('[1,2]'))", json!("2-1")),
        ("strftime('%Y', 0, 'unixepoch')", json!("1970")),
        ("typeof(random())", json!("integer")),
        ("'abc' GLOB 'a*'", json!(1)),
        ("iif(1, 'yes', 'no')", json!("yes")),
        ("1 IS NOT DISTINCT FROM 1", json!(1)),
    ] {
        assert_eq!(database.rows(&format!("SELECT {sql}")), [json!([value])], "{sql}");
    }
    assert_eq!(database.rows("SELECT row_number() OVER (ORDER BY x DESC) FROM (SELECT 1 AS x)"), [json!([1])]);
}

#[test]
fn a_rowid_is_reported_for_inserts_only() {
    let server = Server::dev();
    let database = server.database("app");
    database.run("CREATE TABLE t(a INTEGER PRIMARY KEY, b UNIQUE)");
    database.run("CREATE TABLE k(k TEXT PRIMARY KEY, v) WITHOUT ROWID");
    let max = i64::MAX.to_string();
    for (sql, rowid, affected) in [
        ("INSERT INTO t VALUES (41, 'x')", json!("41"), 1),
        ("INSERT INTO t(b) VALUES ('y'), ('z')", json!("43"), 2),
        ("REPLACE INTO t VALUES (41, 'x2')", json!("41"), 1),
        // It updated: SQLite has no rowid of an insert to tell of.
        ("INSERT INTO t VALUES (41, 'w') ON CONFLICT (a) DO UPDATE SET b = excluded.b", json!("0"), 1),
        ("INSERT INTO t VALUES (-5, 'n')", json!("-5"), 1),
        (&format!("INSERT INTO t VALUES ({max}, 'm')"), json!(max), 1),
        ("UPDATE t SET b = b || '!'", Value::Null, 5),
        ("DELETE FROM t WHERE a < 0", Value::Null, 1),
        ("DELETE FROM t WHERE 0", Value::Null, 0),
        ("SELECT * FROM t", Value::Null, 0),
        ("INSERT INTO k VALUES ('a', 1), ('b', 2)", json!("0"), 2),
        ("CREATE TABLE copy AS SELECT * FROM t", Value::Null, 0),
        ("CREATE INDEX i ON t(b)", Value::Null, 0),
        ("CREATE VIRTUAL TABLE r USING rtree(id, a, b)", Value::Null, 0),
        ("ALTER TABLE t ADD COLUMN c DEFAULT 1", Value::Null, 0),
        ("ALTER TABLE t DROP COLUMN c", Value::Null, 0),
        ("DROP TABLE copy", Value::Null, 0),
        ("DELETE FROM t", Value::Null, 4),
    ] {
        let result = database.run(sql);
        assert_eq!(result["last_insert_rowid"], rowid, "{sql}");
        assert_eq!(result["affected_row_count"], affected, "{sql}");
    }
}

/// Connections keep statements that come again and again. Nothing of a past schema may be told, nor of a past user.
#[test]
fn a_text_that_comes_again_means_what_it_would_if_it_came_first() {
    let server = Server::dev();
    let database = server.database("app");
    database.run("CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    for rowid in 1..=4 {
        let result = database.run("INSERT INTO t(b) VALUES ('x')");
        assert_eq!(result["last_insert_rowid"], json!(rowid.to_string()));
        assert_eq!(result["affected_row_count"], 1);
    }
    let first = "SELECT * FROM t LIMIT 1";
    let seen = || {
        let result = database.run(first);
        (result["cols"].as_array().expect("columns").len(), rows_of(&result))
    };
    for _ in 0..3 {
        assert_eq!(seen(), (2, vec![json!([1, "x"])]));
    }
    database.run("ALTER TABLE t ADD COLUMN c DEFAULT 7");
    for _ in 0..3 {
        assert_eq!(seen(), (3, vec![json!([1, "x", 7])]));
    }
    let returning = "INSERT INTO t(b) VALUES ('y') RETURNING *";
    assert_eq!([(); 3].map(|()| database.rows(returning).len()), [1, 1, 1]);
    database.run("ALTER TABLE t DROP COLUMN c");
    assert_eq!(database.run(returning)["cols"].as_array().map(Vec::len), Some(2));
    database.run("DROP TABLE t");
    for _ in 0..3 {
        assert!(database.fails(first).1.contains("no such table: t"));
    }
    // Without rows the columns are known all the same.
    database.run("CREATE TABLE t(a, b, c, d)");
    for _ in 0..3 {
        assert_eq!(seen(), (4, vec![]));
    }

    let counted = json!([execute("INSERT INTO t VALUES (1, 2, 3, 4)"), execute("SELECT changes(), total_changes()")]);
    for _ in 0..4 {
        let results = database.pipeline(counted.clone());
        assert_eq!(rows_of(&results[1]["response"]["result"]), [json!([1, 1])]);
        assert_eq!(database.rows("SELECT changes(), total_changes()"), [json!([0, 0])]);
    }
    // More texts than are kept.
    for round in 0..3 {
        for number in 0..50 {
            let rows = database.rows(&format!("SELECT {number}, count(*) FROM t"));
            assert_eq!(rows, [json!([number, 4])], "in round {round}");
        }
    }
}

#[test]
fn an_insert_that_a_trigger_makes_is_not_the_clients() {
    let server = Server::dev();
    let database = server.database("app");
    for sql in [
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b)",
        "CREATE TABLE log(id INTEGER PRIMARY KEY, what)",
        "INSERT INTO log VALUES (100, 'start')",
        "CREATE TRIGGER noted AFTER INSERT ON t BEGIN INSERT INTO log(what) VALUES (new.b), (new.b); END",
        "CREATE TRIGGER noted_too AFTER UPDATE ON t BEGIN INSERT INTO log(what) VALUES (new.b); END",
    ] {
        database.run(sql);
    }
    let result = database.run("INSERT INTO t VALUES (7, 'x')");
    assert_eq!((&result["last_insert_rowid"], &result["affected_row_count"]), (&json!("7"), &json!(1)));
    let result = database.run("UPDATE t SET b = 'y'");
    assert_eq!((&result["last_insert_rowid"], &result["affected_row_count"]), (&Value::Null, &json!(1)));
    assert_eq!(database.rows("SELECT count(*) FROM log"), [json!([4])]);
}

#[test]
fn returning_has_rows_and_counts() {
    let server = Server::dev();
    let database = server.database("app");
    database.run("CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    let result = database.run("INSERT INTO t(b) VALUES ('x'), ('y') RETURNING a, upper(b)");
    assert_eq!(rows_of(&result), [json!([1, "X"]), json!([2, "Y"])]);
    assert_eq!((&result["affected_row_count"], &result["last_insert_rowid"]), (&json!(2), &json!("2")));
    let result = database.run("DELETE FROM t RETURNING a");
    assert_eq!((rows_of(&result).len(), &result["affected_row_count"]), (2, &json!(2)));
}

#[test]
fn foreign_keys_are_enforced_unless_a_stream_says_otherwise() {
    let server = Server::dev();
    let database = server.database("app");
    database.run("CREATE TABLE parent(id INTEGER PRIMARY KEY)");
    database.run("CREATE TABLE child(p REFERENCES parent(id) ON DELETE CASCADE)");
    assert_eq!(database.fails("INSERT INTO child VALUES (1)").0, "SQLITE_CONSTRAINT");
    // As the drivers' migrations do it.
    database.pipeline(json!([
        execute("PRAGMA foreign_keys = off"),
        execute("INSERT INTO child VALUES (1)"),
        execute("PRAGMA foreign_keys = on"),
        close(),
    ]));
    assert_eq!(database.fails("INSERT INTO child VALUES (2)").0, "SQLITE_CONSTRAINT");
    database.run("INSERT INTO parent VALUES (1)");
    database.run("DELETE FROM parent");
    assert_eq!(database.rows("SELECT count(*) FROM child"), [json!([0])]);
}

#[test]
fn vacuum_gives_space_back_and_loses_nothing() {
    let server = Server::dev();
    let database = server.database("app");
    database.run("CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    database.run("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 2000) INSERT INTO t SELECT x, randomblob(1000) FROM c");
    let sum = "SELECT count(*), sum(a), sum(length(b)) FROM t";
    database.run("DELETE FROM t WHERE a % 10 <> 0");
    let (before, kept) = (database.rows("PRAGMA page_count"), database.rows(sum));
    database.run("VACUUM");
    let after = database.rows("PRAGMA page_count");
    assert!(after[0][0].as_i64() < before[0][0].as_i64(), "{after:?} of {before:?} pages");
    assert_eq!(database.rows(sum), kept);
    assert_eq!(database.rows("PRAGMA integrity_check"), [json!(["ok"])]);

    let mut stream = database.stream();
    stream.run("BEGIN");
    assert!(stream.fails("VACUUM").1.contains("cannot VACUUM from within a transaction"));
    stream.send(json!([close()]));
}

#[test]
fn analyze_reindex_and_optimize_work() {
    let server = Server::dev();
    let database = server.database("app");
    for sql in [
        "CREATE TABLE t(a, b)",
        "CREATE INDEX i ON t(a)",
        "INSERT INTO t VALUES (1, 2), (1, 3)",
        "ANALYZE",
        "REINDEX",
        "REINDEX i",
        "PRAGMA optimize",
        "PRAGMA wal_checkpoint",
        "PRAGMA shrink_memory",
    ] {
        database.run(sql);
    }
    assert_eq!(database.rows("SELECT stat FROM sqlite_stat1"), [json!(["2 2"])]);
}

#[test]
fn pragmas_that_tools_send_at_their_start_do_no_harm() {
    let server = Server::dev();
    let database = server.database("app");
    database.run("CREATE TABLE t(a)");
    for (pragma, rows) in [
        ("PRAGMA journal_mode = WAL", vec![json!(["memory"])]),
        ("PRAGMA journal_mode", vec![json!(["memory"])]),
        ("PRAGMA journal_mode = OFF", vec![json!(["memory"])]),
        ("PRAGMA locking_mode = EXCLUSIVE", vec![json!(["normal"])]),
        ("PRAGMA page_size", vec![json!([4096])]),
        ("PRAGMA encoding", vec![json!(["UTF-8"])]),
        ("PRAGMA user_version", vec![json!([0])]),
        ("PRAGMA foreign_keys", vec![json!([1])]),
        ("PRAGMA integrity_check", vec![json!(["ok"])]),
        ("PRAGMA quick_check", vec![json!(["ok"])]),
    ] {
        assert_eq!(database.rows(pragma), rows, "{pragma}");
    }
    // They set something in the connection, and so keep it from the pool; what is committed is durable as ever.
    for pragma in
        ["synchronous = OFF", "busy_timeout = 5000", "temp_store = MEMORY", "cache_size = 100", "mmap_size = 1048576"]
    {
        let pragma = format!("PRAGMA {pragma}");
        let results = database.pipeline(json!([execute(&pragma), execute("INSERT INTO t VALUES (1)"), close()]));
        assert!(results.iter().all(|result| result["type"] == "ok"), "{pragma}: {results:?}");
    }
    assert_eq!(database.rows("SELECT count(*) FROM t"), [json!([5])]);
    database.run("PRAGMA user_version = 42");
    assert_eq!(database.rows("PRAGMA user_version"), [json!([42])]);
}

#[test]
fn a_page_size_cannot_be_chosen_but_asking_for_it_is_no_error() {
    let server = Server::dev();
    let database = server.database("app");
    database.run("PRAGMA page_size = 8192");
    database.run("VACUUM");
    assert_eq!(database.rows("PRAGMA page_size"), [json!([4096])]);
}

#[test]
fn large_sorts_and_temporary_tables_work() {
    let server = Server::dev();
    let database = server.database("app");
    let numbers = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 20000)";
    let rows = format!("{numbers}, r AS MATERIALIZED (SELECT x, hex(randomblob(200)) AS h FROM c)");
    // Eight megabytes: more than a temporary file keeps in memory.
    let rising = "SELECT h > lag(h) OVER (ORDER BY h) AS rises FROM r";
    assert_eq!(database.rows(&format!("{rows} SELECT count(*) FROM ({rising}) WHERE rises")), [json!([19_999])]);
    let mut stream = database.stream();
    stream.run(&format!("CREATE TEMP TABLE scratch AS {rows} SELECT * FROM r"));
    stream.run("CREATE INDEX temp.by_h ON scratch(h)");
    assert_eq!(stream.rows("SELECT count(DISTINCT h) FROM scratch"), [json!([20_000])]);
    stream.send(json!([close()]));
}
