//! The lines of a cursor.

use serde_json::{Value, json};

use crate::support::*;

#[test]
fn a_cursor_tells_each_step_row_by_row_and_ends_with_the_replication_index() {
    let server = Server::dev();
    let database = server.database("app");
    database.run("CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    let lines = database.cursor(&batch(json!([
        step("INSERT INTO t VALUES (5, 'five'), (6, NULL)"),
        step("SELECT a, b FROM t"),
        step("SELECT * FROM nope"),
        step_if(json!({ "type": "ok", "step": 2 }), "SELECT 'skipped'"),
        step_if(json!({ "type": "error", "step": 2 }), "DELETE FROM t"),
    ])));
    assert_eq!(lines[0]["base_url"], Value::Null);
    let five = json!([{ "type": "integer", "value": "5" }, { "type": "text", "value": "five" }]);
    let six = json!([{ "type": "integer", "value": "6" }, { "type": "null" }]);
    let cols = json!([{ "name": "a", "decltype": "INTEGER" }, { "name": "b", "decltype": null }]);
    let expected = [
        json!({ "type": "step_begin", "step": 0, "cols": [] }),
        json!({ "type": "step_end", "affected_row_count": 2, "last_insert_rowid": 6 }),
        json!({ "type": "step_begin", "step": 1, "cols": cols }),
        json!({ "type": "row", "row": five }),
        json!({ "type": "row", "row": six }),
        json!({ "type": "step_end", "affected_row_count": 0, "last_insert_rowid": null }),
        json!({ "type": "step_error", "step": 2,
            "error": { "message": "SQLite error: no such table: nope", "code": "SQLITE_UNKNOWN" } }),
        json!({ "type": "step_begin", "step": 4, "cols": [] }),
        json!({ "type": "step_end", "affected_row_count": 2, "last_insert_rowid": null }),
    ];
    assert_eq!(&lines[1..lines.len() - 1], expected);
    let last = lines.last().expect("a last line");
    assert_eq!(last["type"], "replication_index");
    assert!(last["replication_index"].is_u64(), "a number here, a string in a pipeline: {last}");
}

#[test]
fn a_cursor_streams_more_than_a_pipeline_may_answer() {
    let server = Server::serve(&["--max-response-size", "100kB"]);
    let database = server.database("app");
    let sql = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 5000) SELECT x, hex(zeroblob(100)) FROM c";
    let (code, message) = database.fails(sql);
    assert_eq!(code, "RESPONSE_TOO_LARGE");
    assert!(message.contains("100000 bytes") && message.contains("cursor"), "{message}");
    let lines = database.cursor(&batch(json!([step(sql)])));
    let rows: Vec<i64> = lines
        .iter()
        .filter(|line| line["type"] == "row")
        .map(|line| plain(&line["row"][0]).as_i64().expect("x"))
        .collect();
    assert_eq!(rows, (1..=5000).collect::<Vec<i64>>());
    assert_eq!(lines.last().expect("a last line")["type"], "replication_index");
}

#[test]
fn the_baton_of_a_cursor_goes_on_with_its_transaction() {
    let server = Server::dev();
    let database = server.database("app");
    database.run("CREATE TABLE t(a)");
    let lines = database.cursor(&batch(json!([step("BEGIN"), step("INSERT INTO t VALUES (1)")])));
    let mut stream = database.stream();
    stream.baton = lines[0]["baton"].as_str().map(str::to_owned);
    assert_eq!(stream.rows("SELECT a FROM t"), [json!([1])]);
    assert_eq!(database.rows("SELECT a FROM t"), Vec::<Value>::new());
    stream.run("COMMIT");
    assert_eq!(stream.baton, None);
    assert_eq!(database.rows("SELECT a FROM t"), [json!([1])]);
}

#[test]
fn a_cursor_goes_on_with_the_transaction_of_a_pipeline() {
    let server = Server::dev();
    let database = server.database("app");
    database.run("CREATE TABLE t(a)");
    let mut stream = database.stream();
    stream.send(json!([execute("BEGIN"), execute("INSERT INTO t VALUES (7)")]));
    let body = json!({ "baton": stream.baton, "batch": batch(json!([step("SELECT a FROM t")])) });
    let answer = database.post("v3/cursor", body.to_string());
    let lines: Vec<Value> = answer.text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(plain(&lines[2]["row"][0]), json!(7));
    stream.baton = lines[0]["baton"].as_str().map(str::to_owned);
    stream.send(json!([execute("ROLLBACK"), close()]));
    assert_eq!(database.rows("SELECT count(*) FROM t"), [json!([0])]);
}

#[test]
fn a_malformed_batch_is_refused_before_its_first_step() {
    let server = Server::dev();
    let database = server.database("app");
    database.run("CREATE TABLE t(a)");
    let steps = json!([step("INSERT INTO t VALUES (1)"), step_if(json!({ "type": "ok", "step": 1 }), "SELECT 1")]);
    let answer = database.post("v3/cursor", json!({ "batch": batch(steps) }).to_string());
    answer.assert_refused(400, "HRANA_PROTOCOL_ERROR", &["Invalid reference to step in a batch condition"]);
    assert_eq!(database.rows("SELECT count(*) FROM t"), [json!([0])]);
}

#[test]
fn a_protocol_error_in_the_middle_is_the_last_line() {
    let server = Server::dev();
    let steps = json!([step("SELECT 1"), { "stmt": { "sql_id": 3 } }, step("SELECT 2")]);
    let lines = server.database("app").cursor(&batch(steps));
    let last = lines.last().expect("a last line");
    assert_eq!(last["type"], "error");
    assert_eq!(last["error"]["message"], "SQL text 3 not found");
    assert_eq!(lines.iter().filter(|line| line["type"] == "row").count(), 1);
}

#[test]
fn an_empty_batch_is_only_a_first_and_a_last_line() {
    let server = Server::dev();
    let lines = server.database("app").cursor(&batch(json!([])));
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["type"], "replication_index");
}
