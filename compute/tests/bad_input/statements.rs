//! SQL that would run for ever, grow without bound, or recurse without end.

use std::io::Write;
use std::net::TcpStream;

use serde_json::json;

use crate::support::*;
use crate::{ENDLESS, post_bytes};

/// The statement fails with this code and a message that contains `phrase`.
#[track_caller]
fn assert_fails(database: &Database, sql: &str, code: &str, phrase: &str) {
    let shown: String = sql.chars().take(80).collect();
    let (found, message) = database.fails(sql);
    assert!(found == code && message.contains(phrase), "{shown}: {found}: {message}");
    assert!(message.len() < 1_100, "{shown}: a message of {} bytes", message.len());
}

#[test]
fn what_nests_too_deep_is_refused_by_the_parser() {
    let mut server = Server::dev();
    let database = server.database("app");
    let (unknown, parse) = ("SQLITE_UNKNOWN", "SQL_PARSE_ERROR");
    let nest = |before: &str, inside: &str, after: &str, depth: usize| {
        format!("SELECT {}{inside}{}", before.repeat(depth), after.repeat(depth))
    };
    for (sql, code, phrase) in [
        // The constant expression that is known to end libSQL's server.
        (format!("SELECT {}", vec!["1"; 200_000].join("+")), unknown, "Expression tree is too large"),
        (format!("SELECT {}", vec!["'a'"; 200_000].join("||")), unknown, "Expression tree is too large"),
        (format!("SELECT 1 WHERE {}", vec!["1"; 200_000].join(" AND ")), unknown, "Expression tree is too large"),
        (nest("(", "1", ")", 100_000), unknown, "Recursion limit"),
        (nest("NOT ", "1", "", 100_000), unknown, "Recursion limit"),
        (nest("~", "1", "", 100_000), unknown, "Recursion limit"),
        (nest("CASE WHEN 1 THEN ", "1", " END", 20_000), unknown, "Recursion limit"),
        (nest("(SELECT ", "1", ")", 20_000), unknown, "Recursion limit"),
        (nest("abs(", "1", ")", 20_000), unknown, "Recursion limit"),
        (
            format!("SELECT * FROM {}(SELECT 1){}", "(SELECT * FROM ".repeat(20_000), ")".repeat(20_000)),
            unknown,
            "Recursion limit",
        ),
        (format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(20_000)), unknown, "too many terms in compound SELECT"),
        (
            format!("SELECT count(*) FROM (SELECT 1){}", " JOIN (SELECT 1)".repeat(100)),
            unknown,
            "at most 64 tables in a join",
        ),
        (format!("SELECT {}", vec!["1"; 10_000].join(",")), unknown, "too many columns"),
        (format!("SELECT max({})", vec!["1"; 10_000].join(",")), unknown, "too many arguments"),
        ("SELECT ?99999999".to_owned(), unknown, "variable number must be between"),
        ("SELECT \"".to_owned(), parse, "unrecognized token"),
        ("\u{0}".to_owned(), parse, ""),
    ] {
        let (found, message) = database.fails(&sql);
        let shown: String = sql.chars().take(80).collect();
        assert!(
            (found == code || found == "SQL_INPUT_ERROR" || sql == "\0") && message.contains(phrase),
            "{shown}: {found}: {message}"
        );
    }
    let long = format!("SELECT '{}'", "x".repeat(5 << 20));
    assert_fails(&database, &long, "SQLITE_TOOBIG", "statement too long");
    server.assert_well();
}

#[test]
fn schemas_that_nest_too_deep_are_refused_when_they_are_used() {
    let mut server = Server::dev();
    let database = server.database("app");
    let views: Vec<String> =
        (1..=2_000).map(|view| format!("CREATE VIEW v{view} AS SELECT x FROM v{}", view - 1)).collect();
    database
        .pipeline(json!([sequence(&format!("BEGIN; CREATE VIEW v0 AS SELECT 1 AS x; {}; COMMIT", views.join(";")))]));
    assert_fails(&database, "SELECT * FROM v2000", "SQLITE_UNKNOWN", "nested too deep");
    let tables: Vec<String> = (0..=2_000).map(|table| format!("CREATE TABLE t{table}(a)")).collect();
    let triggers = (0..2_000).map(|trigger| {
        let next = trigger + 1;
        format!("CREATE TRIGGER r{trigger} AFTER INSERT ON t{trigger} BEGIN INSERT INTO t{next} VALUES (new.a); END")
    });
    let triggers: Vec<String> = triggers.collect();
    database.pipeline(json!([sequence(&format!("BEGIN; {}; {}; COMMIT", tables.join(";"), triggers.join(";")))]));
    assert_fails(&database, "INSERT INTO t0 VALUES (1)", "SQLITE_UNKNOWN", "triggers nested too deep");
    let ctes: Vec<String> = (1..=2_000).map(|cte| format!("c{cte}(x) AS (SELECT x FROM c{})", cte - 1)).collect();
    let sql = format!("WITH c0(x) AS (SELECT 1), {} SELECT * FROM c2000", ctes.join(","));
    assert_fails(&database, &sql, "SQLITE_UNKNOWN", "nested too deep");
    server.assert_well();
}

#[test]
fn a_trigger_that_calls_itself_ends() {
    let mut server = Server::dev();
    let database = server.database("app");
    database.run("CREATE TABLE t(a)");
    database.run("CREATE TRIGGER again AFTER INSERT ON t BEGIN INSERT INTO t VALUES (new.a + 1); END");
    let results = database.pipeline(json!([
        execute("PRAGMA recursive_triggers = ON"),
        execute("INSERT INTO t VALUES (1)"),
        close()
    ]));
    let (code, message) = error_of(&results[1]);
    assert!(code == "SQLITE_UNKNOWN" && message.contains("nested too deep"), "{code}: {message}");
    assert_eq!(database.rows("SELECT count(*) FROM t"), [json!([0])]);
    server.assert_well();
}

#[test]
fn json_and_search_expressions_that_nest_too_deep_are_refused() {
    let mut server = Server::dev();
    let database = server.database("app");
    database.run("CREATE VIRTUAL TABLE ft USING fts5(a)");
    database.run("CREATE VIRTUAL TABLE f4 USING fts4(a)");
    database.run("INSERT INTO ft VALUES ('x')");
    database.run("INSERT INTO f4 VALUES ('x')");
    let deep = |open: &str, inside: &str, close: &str| format!("{}{inside}{}", open.repeat(5_000), close.repeat(5_000));
    for (sql, phrase) in [
        (format!("SELECT json('{}')", deep("[", "", "]")), "malformed JSON"),
        (format!("SELECT json('{}')", deep("{\"a\":", "1", "}")), "malformed JSON"),
        (format!("SELECT json_set('{{}}', '${}', 1)", ".a".repeat(5_000)), "too deep"),
        (format!("SELECT * FROM ft WHERE ft MATCH '{}'", deep("(", "x", ")")), "fts5: parser stack overflow"),
        (format!("SELECT * FROM ft WHERE ft MATCH '{}x'", "x NOT ".repeat(5_000)), "too large"),
        (format!("SELECT * FROM f4 WHERE f4 MATCH '{}'", deep("(", "x", ")")), ""),
        ("SELECT * FROM ft WHERE ft MATCH '\"'".to_owned(), "unterminated string"),
    ] {
        assert_fails(&database, &sql, "SQLITE_UNKNOWN", phrase);
    }
    server.assert_well();
}

#[test]
fn a_query_without_end_is_stopped_at_the_time_limit_and_its_connection_goes_on() {
    let mut server = Server::serve(&["--statement-timeout", "1s"]);
    let database = server.database("app");
    database.run("CREATE TABLE t(a)");
    let numbers = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 20000)";
    for sql in [
        ENDLESS.to_owned(),
        format!("{numbers} SELECT count(*) FROM c a, c b, c d"),
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT * FROM c ORDER BY x DESC".to_owned(),
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) INSERT INTO t SELECT x FROM c WHERE x < 0"
            .to_owned(),
    ] {
        assert_fails(&database, &sql, "SHOAL_INVALID", "ran for longer than 1s, the limit of this server");
    }
    // Within a transaction: what came before is still there, and what comes after has a limit of its own.
    let mut stream = database.stream();
    let results = stream.send(json!([
        execute("BEGIN"),
        execute("INSERT INTO t VALUES (1)"),
        execute(ENDLESS),
        execute(&format!("{numbers} SELECT count(*) FROM c")),
        execute("COMMIT"),
    ]));
    assert!(error_of(&results[2]).1.contains("ran for longer than 1s"));
    assert_eq!(rows_of(&results[3]["response"]["result"]), [json!([20_000])]);
    assert_eq!(results[4]["type"], "ok");
    assert_eq!(database.rows("SELECT a FROM t"), [json!([1])]);
    server.assert_well();
}

#[test]
fn a_cursor_without_end_is_stopped_too() {
    let mut server = Server::serve(&["--statement-timeout", "1s"]);
    let database = server.database("app");
    let sql = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c WHERE x % 100000 = 0";
    let lines =
        database.cursor(&batch(json!([step(sql), step_if(json!({ "type": "error", "step": 0 }), "SELECT 'after'")])));
    let error = lines.iter().find(|line| line["type"] == "step_error").expect("an error of the step");
    assert!(error["error"]["message"].as_str().expect("text").contains("ran for longer than 1s"), "{error}");
    assert!(lines.iter().any(|line| line["type"] == "row" && line["row"][0]["value"] == "after"), "{lines:?}");
    // Also where nothing comes after it.
    let lines = database.cursor(&batch(json!([step(ENDLESS)])));
    let error = lines.iter().find(|line| line["type"] == "step_error").expect("an error of the step");
    assert!(error["error"]["message"].as_str().expect("text").contains("ran for longer than 1s"), "{lines:?}");
    server.assert_well();
}

#[test]
fn endless_queries_do_not_keep_others_waiting() {
    // On one core, and longer than any client waits.
    let mut server = Server::serve(&["--statement-timeout", "10m", "--cores", "1"]);
    let database = server.database("app");
    database.run("CREATE TABLE t(a)");
    let endless = post_bytes("/db/app/v3/pipeline", &json!({ "requests": [execute(ENDLESS)] }).to_string());
    let running: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut socket = TcpStream::connect(server.http).expect("a connection");
            socket.write_all(&endless).expect("the server reads");
            socket
        })
        .collect();
    for _ in 0..20 {
        database.run("INSERT INTO t VALUES (1)");
    }
    assert_eq!(database.rows("SELECT count(*) FROM t"), [json!([20])]);
    drop(running);
    server.assert_well();
}

#[test]
fn patterns_that_explode_are_refused_or_stopped() {
    let mut server = Server::serve(&["--statement-timeout", "1s"]);
    let database = server.database("app");
    let long = format!("SELECT 'a' LIKE '{}'", "%a".repeat(50_000));
    assert_fails(&database, &long, "SQLITE_UNKNOWN", "LIKE or GLOB pattern too complex");
    let long = format!("SELECT 'a' GLOB '{}'", "*a".repeat(50_000));
    assert_fails(&database, &long, "SQLITE_UNKNOWN", "LIKE or GLOB pattern too complex");
    // Short enough to be taken, and as bad as they come: each call is quick or the time limit ends it.
    let text = "hex(zeroblob(1000000))";
    for pattern in ["%0".repeat(2_000), "%_0%".repeat(1_000), format!("{}1", "%0%0".repeat(1_000))] {
        let rows = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c";
        assert_fails(
            &database,
            &format!("{rows} WHERE {text} LIKE '{pattern}' OR x > 0"),
            "SHOAL_INVALID",
            "ran for longer",
        );
    }
    server.assert_well();
}

#[test]
fn values_that_are_too_big_are_refused() {
    let mut server = Server::dev();
    let database = server.database("app");
    database.run("CREATE TABLE t(a)");
    for sql in [
        "SELECT length(zeroblob(2147483647))",
        "SELECT zeroblob(9223372036854775807)",
        "SELECT length(randomblob(1000000000))",
        "INSERT INTO t VALUES (zeroblob(1000000000))",
        "SELECT length(hex(zeroblob(60000000)))",
        "SELECT length(printf('%.*c', 1000000000, 'x'))",
        "SELECT length(replace(hex(zeroblob(10000000)), '0', 'aaaaaaaaaa'))",
        "SELECT length(group_concat(hex(zeroblob(1000000)), '')) FROM (WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 1000) SELECT x FROM c)",
    ] {
        assert_fails(&database, sql, "SQLITE_TOOBIG", "too big");
    }
    assert_eq!(database.rows("SELECT count(*) FROM t"), [json!([0])]);
    server.assert_well();
}

const MANY_ROWS: &str =
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 2000) SELECT randomblob(1000) FROM c";

#[test]
fn an_answer_over_the_limit_is_refused_and_a_write_with_such_an_answer_is_undone() {
    let mut server = Server::serve(&["--max-response-size", "100kB"]);
    let database = server.database("app");
    database.run("CREATE TABLE t(a)");
    for sql in [
        "SELECT randomblob(200000)",
        "SELECT hex(randomblob(100000))",
        MANY_ROWS,
        &format!("INSERT INTO t {MANY_ROWS} RETURNING a"),
    ] {
        assert_fails(
            &database,
            sql,
            "RESPONSE_TOO_LARGE",
            "more than 100000 bytes. Read it in parts (LIMIT), or through a cursor",
        );
    }
    assert_eq!(database.rows("SELECT count(*) FROM t"), [json!([0])]);
    // Many results that each fit are one answer together.
    let many: Vec<_> = (0..10).map(|_| execute("SELECT hex(zeroblob(10000))")).collect();
    let results = database.pipeline(json!(many));
    assert_eq!(results[0]["type"], "ok");
    assert_eq!(error_of(&results[9]).0, "RESPONSE_TOO_LARGE");
    let steps: Vec<_> = (0..10).map(|_| step("SELECT hex(zeroblob(10000))")).collect();
    let results = database.pipeline(json!([{ "type": "batch", "batch": { "steps": steps } }]));
    assert_eq!(error_of(&results[0]).0, "RESPONSE_TOO_LARGE");
    server.assert_well();
}

#[test]
fn a_transaction_over_the_limit_is_refused_and_leaves_nothing() {
    let mut server = Server::serve(&["--max-transaction-size", "1MiB"]);
    let database = server.database("app");
    database.run("CREATE TABLE t(a)");
    database.run("INSERT INTO t VALUES ('before')");
    let insert = format!("INSERT INTO t {MANY_ROWS}");
    let limit = "over the limit of 1048576 bytes (--max-transaction-size); split it";
    assert_fails(&database, &insert, "SHOAL_INVALID", limit);
    // In pieces within one transaction it is as large.
    let mut stream = database.stream();
    stream.run("BEGIN");
    let piece = insert.replace("2000", "200");
    let failed =
        (0..20).map(|_| stream.send(json!([execute(&piece)])).remove(0)).find(|result| result["type"] == "error");
    assert!(error_of(&failed.expect("one is too much")).1.contains(limit));
    assert_eq!(stream.baton, None, "SQLite has rolled it back: there is nothing left to keep");
    assert_eq!(database.rows("SELECT a FROM t"), [json!(["before"])]);
    // In transactions of their own they fit.
    for _ in 0..3 {
        database.run(&piece);
    }
    assert_eq!(database.rows("SELECT count(*) FROM t"), [json!([601])]);
    server.assert_well();
}

#[test]
fn text_that_a_nul_would_hide_is_refused() {
    let mut server = Server::dev();
    let database = server.database("app");
    database.run("CREATE TABLE t(a)");
    let results = database.pipeline(json!([
        execute("INSERT INTO t VALUES(1); \n\0 INSERT INTO t VALUES(2)"),
        sequence("INSERT INTO t VALUES(3);\n\0\nINSERT INTO t VALUES(4);"),
        sequence("INSERT INTO t VALUES(5);\n\0"),
    ]));
    for (result, place) in results[..2].iter().zip(["byte 26, in line 2", "byte 25, in line 2"]) {
        let (code, message) = error_of(result);
        assert!(code == "SQL_PARSE_ERROR" && message.contains(place), "{code}: {message}");
    }
    assert_eq!(database.rows("SELECT a FROM t"), [json!([5])]);
    server.assert_well();
}
