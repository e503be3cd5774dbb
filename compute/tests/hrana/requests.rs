//! Each type of request, batches and their conditions, arguments, errors.

use serde_json::{Value, json};

use crate::support::*;

#[test]
fn every_type_of_request_is_answered_in_kind() {
    let server = Server::dev();
    let results = server.database("app").pipeline(json!([
        execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)"),
        { "type": "batch", "batch": { "steps": [step("INSERT INTO t VALUES (1, 'one')"), step("SELECT b FROM t")] } },
        sequence("INSERT INTO t VALUES (2, 'two'); INSERT INTO t VALUES (3, 'three')"),
        { "type": "describe", "sql": "SELECT * FROM t WHERE a = ?" },
        { "type": "store_sql", "sql_id": 7, "sql": "SELECT count(*) FROM t" },
        { "type": "execute", "stmt": { "sql_id": 7 } },
        { "type": "close_sql", "sql_id": 7 },
        get_autocommit(),
        close(),
    ]));
    let kinds: Vec<&Value> = results.iter().map(|result| &result["response"]["type"]).collect();
    let expected =
        ["execute", "batch", "sequence", "describe", "store_sql", "execute", "close_sql", "get_autocommit", "close"];
    assert_eq!(kinds, expected);
    assert!(results.iter().all(|result| result["type"] == "ok"), "{results:?}");

    let batch = &results[1]["response"]["result"];
    assert_eq!(batch["step_errors"], json!([null, null]));
    assert_eq!(rows_of(&batch["step_results"][1]), [json!(["one"])]);
    assert_eq!(rows_of(&results[5]["response"]["result"]), [json!([3])]);
    assert_eq!(results[7]["response"]["is_autocommit"], true);
}

#[test]
fn a_result_has_columns_with_their_declared_types_and_counts() {
    let server = Server::dev();
    let database = server.database("app");
    database.run("CREATE TABLE t(a INTEGER PRIMARY KEY, b VARCHAR(10) NOT NULL)");
    let inserted = database.run("INSERT INTO t(b) VALUES ('x'), ('y')");
    assert_eq!((&inserted["affected_row_count"], &inserted["last_insert_rowid"]), (&json!(2), &json!("2")));
    let result = database.run("SELECT a, b, a + 1 AS c, 1 FROM t");
    let cols = json!([
        { "name": "a", "decltype": "INTEGER" },
        { "name": "b", "decltype": "VARCHAR(10)" },
        { "name": "c", "decltype": null },
        { "name": "1", "decltype": null },
    ]);
    assert_eq!(result["cols"], cols);
    assert_eq!(rows_of(&result), [json!([1, "x", 2, 1]), json!([2, "y", 3, 1])]);
    assert_eq!(result["affected_row_count"], 0);
    assert_eq!(result["last_insert_rowid"], Value::Null);
    assert_eq!(result["rows_read"], 2);
}

#[test]
fn rows_that_are_not_wanted_are_not_sent() {
    let server = Server::dev();
    let stmt = json!({ "sql": "SELECT 1 UNION ALL SELECT 2", "want_rows": false });
    let results = server.database("app").pipeline(json!([{ "type": "execute", "stmt": stmt }]));
    assert_eq!(results[0]["response"]["result"]["rows"], json!([]));
}

#[test]
fn a_failing_request_does_not_stop_the_next() {
    let server = Server::dev();
    let results = server.database("app").pipeline(json!([execute("SELECT * FROM nope"), execute("SELECT 1")]));
    assert_eq!(error_of(&results[0]), ("SQLITE_UNKNOWN".into(), "SQLite error: no such table: nope".into()));
    assert_eq!(rows_of(&results[1]["response"]["result"]), [json!([1])]);
}

#[test]
fn a_sequence_runs_up_to_its_first_failure_and_may_be_empty() {
    let server = Server::dev();
    let database = server.database("app");
    let results = database.pipeline(json!([
        sequence("CREATE TABLE t(a UNIQUE); -- a comment\n INSERT INTO t VALUES (1);;"),
        sequence("INSERT INTO t VALUES (2); INSERT INTO t VALUES (1); INSERT INTO t VALUES (3)"),
        sequence(""),
        sequence(" -- nothing\n"),
    ]));
    assert_eq!(results[0]["type"], "ok");
    assert_eq!(error_of(&results[1]).0, "SQLITE_CONSTRAINT");
    assert_eq!((&results[2]["type"], &results[3]["type"]), (&json!("ok"), &json!("ok")));
    assert_eq!(database.rows("SELECT a FROM t"), [json!([1]), json!([2])]);
}

#[test]
fn a_sequence_can_be_a_whole_transaction() {
    let server = Server::dev();
    let database = server.database("app");
    let script = "BEGIN; CREATE TABLE t(a); INSERT INTO t VALUES (1); COMMIT";
    database.pipeline(json!([sequence(script)]));
    // One that fails in the middle leaves its transaction open, for the stream to end.
    let mut stream = database.stream();
    let results = stream.send(json!([sequence("BEGIN; INSERT INTO t VALUES (2); selec"), get_autocommit()]));
    assert_eq!(error_of(&results[0]).0, "SQL_PARSE_ERROR");
    assert_eq!(results[1]["response"]["is_autocommit"], false);
    stream.send(json!([close()]));
    assert_eq!(database.rows("SELECT a FROM t"), [json!([1])]);
}

#[test]
fn a_description_names_parameters_and_columns_without_running_anything() {
    let server = Server::dev();
    let database = server.database("app");
    database.run("CREATE TABLE t(a INTEGER, b TEXT)");
    let describe = |sql: &str| json!({ "type": "describe", "sql": sql });
    let results = database.pipeline(json!([
        describe("SELECT a, b AS c FROM t WHERE a = :x AND b = ? AND a = @y AND b = $z AND a = ?7"),
        describe("INSERT INTO t VALUES (?, ?)"),
        describe("EXPLAIN SELECT 1"),
        describe(""),
        describe("SELECT nope FROM t"),
    ]));
    let first = &results[0]["response"]["result"];
    let names: Vec<&Value> = first["params"].as_array().expect("params").iter().map(|param| &param["name"]).collect();
    let null = Value::Null;
    assert_eq!(names, [&json!(":x"), &null, &json!("@y"), &json!("$z"), &null, &null, &json!("?7")]);
    assert_eq!(first["cols"], json!([{ "name": "a", "decltype": "INTEGER" }, { "name": "c", "decltype": "TEXT" }]));
    assert_eq!((&first["is_readonly"], &first["is_explain"]), (&json!(true), &json!(false)));
    assert_eq!(results[1]["response"]["result"]["is_readonly"], false);
    assert_eq!(results[2]["response"]["result"]["is_explain"], true);
    let nothing = json!({ "params": [], "cols": [], "is_explain": false, "is_readonly": false });
    assert_eq!(results[3]["response"]["result"], nothing);
    assert_eq!(error_of(&results[4]).0, "SQL_INPUT_ERROR");
    assert_eq!(database.rows("SELECT count(*) FROM t"), [json!([0])]);
}

/// Three steps come first: one that succeeds, one that fails, one that is skipped.
#[track_caller]
fn assert_runs(database: &Database, condition: Value, runs: bool) {
    let steps = json!([
        step("SELECT 1"),
        step("SELECT * FROM nope"),
        step_if(json!({ "type": "ok", "step": 1 }), "SELECT 2"),
        step_if(condition.clone(), "SELECT 3"),
    ]);
    let results = database.pipeline(json!([{ "type": "batch", "batch": { "steps": steps } }]));
    let result = &results[0]["response"]["result"];
    assert_eq!(result["step_errors"][1]["code"], "SQLITE_UNKNOWN");
    assert_eq!((&result["step_results"][2], &result["step_errors"][2]), (&Value::Null, &Value::Null));
    assert_eq!(!result["step_results"][3].is_null(), runs, "{condition}");
    assert_eq!(result["step_errors"][3], Value::Null);
}

#[test]
fn the_conditions_of_a_batch_decide_which_steps_run() {
    let server = Server::dev();
    let database = server.database("app");
    let ok = |step: u32| json!({ "type": "ok", "step": step });
    let error = |step: u32| json!({ "type": "error", "step": step });
    let not = |condition: Value| json!({ "type": "not", "cond": condition });
    for (condition, runs) in [
        (ok(0), true),
        (ok(1), false),
        (ok(2), false),
        (error(0), false),
        (error(1), true),
        // libSQL's clients rely on it: a step that was skipped is not ok either.
        (error(2), true),
        (not(ok(1)), true),
        (json!({ "type": "and", "conds": [ok(0), error(1)] }), true),
        (json!({ "type": "and", "conds": [ok(0), ok(1)] }), false),
        (json!({ "type": "or", "conds": [ok(1), ok(0)] }), true),
        (json!({ "type": "or", "conds": [] }), false),
        (json!({ "type": "is_autocommit" }), true),
        (not(json!({ "type": "is_autocommit" })), false),
        (Value::Null, true),
    ] {
        assert_runs(&database, condition, runs);
    }
}

#[test]
fn is_autocommit_follows_the_batch_through_its_transaction() {
    let server = Server::dev();
    let autocommit = || json!({ "type": "is_autocommit" });
    let steps = json!([
        step("BEGIN"),
        step_if(autocommit(), "SELECT 'not in the transaction'"),
        step("COMMIT"),
        step_if(autocommit(), "SELECT 'after it'"),
    ]);
    let results = server.database("app").pipeline(json!([{ "type": "batch", "batch": { "steps": steps } }]));
    let steps = &results[0]["response"]["result"]["step_results"];
    assert!(steps[1].is_null() && !steps[3].is_null(), "{steps}");
}

#[test]
fn hrana_2_refuses_what_only_hrana_3_has() {
    let server = Server::dev();
    let stream = server.database("app").stream_v2();
    let answer = stream.post(&json!([get_autocommit()]));
    answer.assert_refused(
        400,
        "HRANA_PROTOCOL_ERROR",
        &["get_autocommit", "only supported in protocol version hrana3"],
    );
    let steps = json!([step_if(json!({ "type": "is_autocommit" }), "SELECT 1")]);
    let answer = stream.post(&json!([{ "type": "batch", "batch": { "steps": steps } }]));
    answer.assert_refused(400, "HRANA_PROTOCOL_ERROR", &["is_autocommit", "hrana3"]);
}

#[test]
fn arguments_are_bound_by_position_or_by_name() {
    let server = Server::dev();
    let database = server.database("app");
    let one = json!({ "type": "integer", "value": "1" });
    let two = json!({ "type": "text", "value": "two" });
    let named = |name: &str, value: &Value| json!({ "name": name, "value": value });
    let by_position = execute_with("SELECT ?, ?2, ?1", json!([one, two]));
    // With its prefix, without it, and one that the statement does not have.
    let args = json!([named("a", &one), named("@b", &two), named(":c", &one), named("unused", &two)]);
    let by_name = json!({ "type": "execute", "stmt": { "sql": "SELECT :a, @b, $c", "named_args": args } });
    let args = json!([named("a", &one), named("@b", &two), named("$c", &one)]);
    let by_exact_name = json!({ "type": "execute", "stmt": { "sql": "SELECT :a, @b, $c", "named_args": args } });
    let results = database.pipeline(json!([by_position, by_exact_name, by_name]));
    assert_eq!(rows_of(&results[0]["response"]["result"]), [json!([1, "two", 1])]);
    assert_eq!(rows_of(&results[1]["response"]["result"]), [json!([1, "two", 1])]);
    // `:c` is not `$c`: a prefix that is written is meant.
    let (code, message) = error_of(&results[2]);
    assert_eq!(code, "ARGS_INVALID");
    assert!(message.contains("$c"), "{message}");
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let server = Server::dev();
    let database = server.database("app");
    let one = json!({ "type": "integer", "value": "1" });
    let both = json!({ "sql": "SELECT ?", "args": [one], "named_args": [{ "name": "a", "value": one }] });
    let results = database.pipeline(json!([
        execute("SELECT ?"),
        execute_with("SELECT ?", json!([one, one])),
        execute_with("SELECT 1", json!([one])),
        { "type": "execute", "stmt": { "sql": "SELECT :b", "named_args": [{ "name": "a", "value": one }] } },
        { "type": "execute", "stmt": both },
    ]));
    for (result, phrase) in
        results.iter().zip(["1 parameters, 0 values", "1 parameters, 2 values", "0 parameters", ":b"])
    {
        let (code, message) = error_of(result);
        assert_eq!(code, "ARGS_INVALID");
        assert!(message.contains(phrase), "{message}");
    }
    assert_eq!(error_of(&results[4]).0, "ARGS_BOTH_POSITIONAL_AND_NAMED");
}

#[test]
fn errors_have_libsqls_codes_and_sqlites_words() {
    let server = Server::dev();
    let database = server.database("app");
    let schema =
        "CREATE TABLE t(a INTEGER PRIMARY KEY, u UNIQUE, n NOT NULL DEFAULT 0, c CHECK (c > 0), f REFERENCES t(a))";
    database.run(schema);
    database.run("INSERT INTO t(a, u) VALUES (1, 1)");
    for (sql, code, message) in [
        ("INSERT INTO t(u) VALUES (1)", "SQLITE_CONSTRAINT", "SQLite error: UNIQUE constraint failed: t.u"),
        ("INSERT INTO t(n) VALUES (NULL)", "SQLITE_CONSTRAINT", "SQLite error: NOT NULL constraint failed: t.n"),
        ("INSERT INTO t(c) VALUES (0)", "SQLITE_CONSTRAINT", "SQLite error: CHECK constraint failed: c > 0"),
        ("INSERT INTO t(f) VALUES (9)", "SQLITE_CONSTRAINT", "SQLite error: FOREIGN KEY constraint failed"),
        ("selec 1", "SQL_PARSE_ERROR", "SQL string could not be parsed: near \"selec\": syntax error (at offset 0)"),
        ("SELECT 'x", "SQL_PARSE_ERROR", "SQL string could not be parsed: unrecognized token: \"'x\" (at offset 7)"),
        ("SELECT", "SQL_PARSE_ERROR", "SQL string could not be parsed: incomplete input"),
        ("SELECT nope FROM t", "SQL_INPUT_ERROR", "SQL input error: no such column: nope (at offset 7)"),
        ("SELECT nope(1)", "SQL_INPUT_ERROR", "SQL input error: no such function: nope (at offset 7)"),
        ("SELECT * FROM nope", "SQLITE_UNKNOWN", "SQLite error: no such table: nope"),
        ("COMMIT", "SQLITE_UNKNOWN", "SQLite error: cannot commit - no transaction is active"),
        ("", "SQL_NO_STATEMENT", "SQL string does not contain any statement"),
        (" -- only this", "SQL_NO_STATEMENT", "SQL string does not contain any statement"),
        ("SELECT 1; SELECT 2", "SQL_MANY_STATEMENTS", "SQL string contains more than one statement"),
        ("SELECT 1; selec", "SQL_MANY_STATEMENTS", "SQL string contains more than one statement"),
    ] {
        assert_eq!(database.fails(sql), (code.to_owned(), message.to_owned()), "{sql}");
    }
    // What follows the one statement may be comments and semicolons.
    assert_eq!(database.rows("SELECT 1; ; -- done"), [json!([1])]);
}

#[test]
fn a_constraint_says_which_kind_in_its_extended_code() {
    let server = Server::dev();
    let database = server.database("app");
    database.run("CREATE TABLE t(a INTEGER PRIMARY KEY, u UNIQUE)");
    database.run("INSERT INTO t VALUES (1, 1)");
    let results =
        database.pipeline(json!([execute("INSERT INTO t VALUES (1, 2)"), execute("INSERT INTO t VALUES (2, 1)")]));
    assert_eq!(results[0]["error"]["extended_code"], "SQLITE_CONSTRAINT_PRIMARYKEY");
    assert_eq!(results[1]["error"]["extended_code"], "SQLITE_CONSTRAINT_UNIQUE");
}

#[test]
fn a_value_in_many_columns_of_one_row_is_refused_before_it_is_gathered() {
    let server = Server::dev();
    let database = server.database("app");
    let columns = vec!["x"; 400].join(", ");
    let sql = format!("WITH t(x) AS MATERIALIZED (SELECT zeroblob(30000000)) SELECT {columns} FROM t");
    assert_eq!(database.fails(&sql).0, "RESPONSE_TOO_LARGE");
    let entries = database.cursor(&json!({ "steps": [step(&sql)] }));
    assert!(entries.iter().any(|entry| entry["error"]["code"] == "RESPONSE_TOO_LARGE"), "{entries:?}");
}

#[test]
fn names_of_columns_and_texts_of_errors_count_towards_the_size_of_an_answer() {
    let server = Server::dev();
    let database = server.database("app");
    let name = "n".repeat(1 << 20);
    database.run(&format!("CREATE VIEW v AS SELECT 1 AS {name}"));
    let mut stream = database.stream();
    let results = stream.send(json!(vec![execute("SELECT * FROM v"); 40]));
    let refused = |result: &&Value| result["error"]["code"] == "RESPONSE_TOO_LARGE";
    assert_eq!(results.iter().filter(refused).count(), 31, "ten megabytes hold nine such names");
    let results = stream.send(json!(vec![json!({ "type": "describe", "sql": "SELECT * FROM v" }); 40]));
    assert_eq!(results.iter().filter(refused).count(), 31);
    let unknown = format!("SELECT {}", "m".repeat(900));
    let results = stream.send(json!(vec![execute(&unknown); 20_000]));
    let text: usize = results.iter().map(|result| result["error"]["message"].as_str().map_or(0, str::len)).sum();
    assert!(results.iter().any(|result| refused(&result)) && text < 14 << 20, "{text} bytes of errors");
}

#[test]
fn a_long_sequence_of_short_statements_runs_to_its_end() {
    let server = Server::dev();
    let database = server.database("app");
    let sql = format!("BEGIN; CREATE TABLE t(a); {} COMMIT;", "INSERT INTO t VALUES (1);".repeat(40_000));
    assert_eq!(database.pipeline(json!([sequence(&sql)]))[0]["type"], "ok");
    assert_eq!(database.rows("SELECT count(*) FROM t"), [json!([40_000])]);
}
