use clap::Parser;

use super::*;
use crate::cli::args::{Cli, ClientCommand, Command, DbCommand};
use crate::cli::client::Client;
use crate::cli::test_server::{self, Answer, Request, Server, serve};
use crate::cli::url::DatabaseUrl;

/// What a command line prints at a server that answers so.
fn run_at(server: &Server, line: &str) -> anyhow::Result<String> {
    let words = format!("shoal db --admin-url {} {line}", server.url);
    let cli = Cli::try_parse_from(words.split_whitespace())?;
    let Command::Client(ClientCommand::Db(db)) = cli.command else { panic!("{line}") };
    let DbCommand::Past(command) = db.command else { panic!("{line}") };
    let (admin, mut out) = (Admin::new(&db.admin_url)?, Vec::new());
    run(&admin, &mut out, db.output, command)?;
    Ok(String::from_utf8(out)?)
}

fn last(server: &Server) -> Request {
    server.requests().pop().expect("a request")
}

#[test]
fn each_command_is_the_request_that_it_says() {
    let server = serve(|_| Answer::json(200, r#"{"name":"app","database":"00","lsn":42,"undo":"0a-43"}"#));
    for (line, request, body) in [
        ("fork app b", "POST /v1/namespaces/app/fork/b", json!({})),
        ("fork app b --lsn 42 --expires 7d", "POST /v1/namespaces/app/fork/b", json!({"lsn": 42, "expires": "7d"})),
        ("fork app a/b", "POST /v1/namespaces/app/fork/a%2Fb", json!({})),
        (
            "restore app --time 2026-11-21T20:15:00Z --yes",
            "POST /v1/namespaces/app/restore",
            json!({"timestamp": "2026-11-21T20:15:00Z"}),
        ),
        ("restore app --bookmark 0a-1 --to b", "POST /v1/namespaces/app/restore", json!({"bookmark": "0a-1", "to": "b"})),
        ("undo app", "POST /v1/namespaces/app/undo", json!({})),
        ("undo app --bookmark 0a-1", "POST /v1/namespaces/app/undo", json!({"bookmark": "0a-1"})),
        ("reset app --yes", "POST /v1/namespaces/app/reset", json!({})),
        ("undelete app", "POST /v1/namespaces/app/undelete", json!({})),
    ] {
        let text = run_at(&server, line).expect(line);
        assert!(text.contains("LSN 42") && text.contains("shoal db undo app --bookmark 0a-43"), "{text}");
        let sent = last(&server);
        assert_eq!(sent.line, request, "{line}");
        assert_eq!(serde_json::from_str::<Value>(&sent.body).expect("JSON"), body, "{line}");
        let as_json = run_at(&server, &format!("{line} --output json")).expect(line);
        assert_eq!(as_json, "{\"name\":\"app\",\"database\":\"00\",\"lsn\":42,\"undo\":\"0a-43\"}\n");
    }
}

#[test]
fn a_restore_without_a_moment_or_with_two_sends_nothing() {
    let server = serve(|_| Answer::json(200, "{}"));
    let error = run_at(&server, "restore app").expect_err("no moment").to_string();
    assert!(error.contains("--time") && error.contains("shoal db history"), "{error}");
    let error = run_at(&server, "restore app --lsn 1 --time 2026-11-21T20:15:00Z").expect_err("two").to_string();
    assert!(error.contains("cannot be used with"), "{error}");
    assert!(server.requests().is_empty());
}

#[test]
fn a_refusal_is_told_in_the_servers_words() {
    let window = "LSN 5 is before the retention window of `app`: what can be shown is LSN 7 to LSN 9";
    let server = serve(move |_| Answer::json(400, json!({"message": window, "code": "SHOAL_INVALID"}).to_string()));
    let error = run_at(&server, "fork app b --lsn 5").expect_err("refused").to_string();
    assert!(error.contains(window), "{error}");
}

#[test]
fn history_is_a_line_a_commit() {
    let server = serve(|_| {
        let commit = json!({"bookmark": "0a-9", "lsn": 9, "time": "2026-11-21T20:15:00Z", "bytes": 4711});
        let oldest = json!({"bookmark": "0a-7", "lsn": 7, "time": "2026-11-21T20:14:00Z", "bytes": null});
        Answer::json(200, json!({"history": [commit, oldest], "next": 9}).to_string())
    });
    let text = run_at(&server, "history app --limit 1 --before 10").expect("a history");
    assert_eq!(last(&server).line, "GET /v1/namespaces/app/history?limit=1&before=10");
    for part in ["9  2026-11-21T20:15:00Z", "4711", "0a-9", "--before 9"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_tree_is_indented_by_descent() {
    let server = serve(|_| {
        let tree = json!([
            {"name": "a", "database": "01", "state": "live", "lsn": null, "parent": null, "depth": 0, "this": false},
            {"name": "b", "database": "02", "state": "live", "lsn": 5, "parent": "01", "depth": 1, "this": false},
            {"name": "c", "database": "03", "state": "live", "lsn": 7, "parent": "02", "depth": 2, "this": true},
            {"name": "d", "database": "04", "state": "deleted", "lsn": 8, "parent": "01", "depth": 1, "this": false},
        ]);
        Answer::json(200, json!({"tree": tree, "complete": true}).to_string())
    });
    let text = run_at(&server, "tree c").expect("a tree");
    assert_eq!(text, "a\n  b at LSN 5\n    c at LSN 7  <--\n  d at LSN 8 (deleted, 04)\n");
}

#[test]
fn a_tree_of_any_depth_is_told() {
    let server = serve(|_| {
        let tree: Vec<Value> = (0..5_000)
            .map(|at| json!({"name": "a", "database": "0", "state": "live", "lsn": 1, "depth": at, "this": false}))
            .collect();
        Answer::json(200, json!({"tree": tree, "complete": false}).to_string())
    });
    let text = run_at(&server, "tree a").expect("a tree");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5_001);
    assert_eq!((lines[32].trim_start(), lines[4_999].trim_start()), ("a at LSN 1", "[4999] a at LSN 1"));
    assert!(text.len() < 5_001 * 100, "{} bytes", text.len());
    let as_json: Value = serde_json::from_str(&run_at(&server, "tree a --output json").expect("a tree")).expect("JSON");
    assert_eq!(as_json["tree"][4_999]["depth"], 4_999);
}

#[test]
fn retention_is_shown_and_set() {
    let server = serve(|_| Answer::json(200, r#"{"retention":"7d","expires":null}"#));
    assert_eq!(run_at(&server, "retention app").expect("shown"), "retention 7d\nexpires   never\n");
    assert_eq!(last(&server).line, "GET /v1/namespaces/app/retention");
    run_at(&server, "retention app 7d --expires never").expect("set");
    assert_eq!(last(&server).line, "POST /v1/namespaces/app/retention");
    assert_eq!(last(&server).body, r#"{"expires":"never","retention":"7d"}"#);
}

#[test]
fn a_diff_tells_schema_and_row_counts_of_two_urls() {
    let [from, to] = [
        "CREATE TABLE a (x); INSERT INTO a VALUES (1), (2); CREATE TABLE gone (x); CREATE TABLE \"od\"\"d\" (x)",
        "CREATE TABLE a (x, y); INSERT INTO a VALUES (1, 1); CREATE VIEW v AS SELECT 1; CREATE TABLE \"od\"\"d\" (x)",
    ]
    .map(|script| {
        let server = test_server::serve_sqlite();
        let url = DatabaseUrl::parse(&format!("{}/db/x/", server.url)).expect("a URL");
        let statements: Vec<&str> = script.split(';').collect();
        Client::new(&url, None).batch(&statements).expect("a schema");
        server
    });
    let line = format!("diff {}/db/x/ x --url {}", from.url, to.url);
    let text = run_at(&from, &line).expect("a diff");
    assert_eq!(text, "~ table a\n- table gone\n+ view v\n  a: 2 -> 1 rows (-1)\n  gone: 0 -> none rows\n");
    let json: Value = serde_json::from_str(&run_at(&from, &format!("{line} --output json")).expect("a diff")).expect("JSON");
    assert_eq!(json["same"], false);
    assert_eq!(json["rows"][0], json!({"table": "a", "from": 2, "to": 1}));
    assert_eq!(json["schema"][2]["change"], "added");
    let same = run_at(&from, &format!("diff x x --url {}", from.url)).expect("no diff");
    assert_eq!(same, "no difference in schema or row counts\n");
}

#[test]
fn a_table_that_cannot_be_counted_is_not_called_the_same_nor_different() {
    let servers = [0, 1].map(|_| test_server::serve_sqlite());
    let with = |server: &Server, script: &[&str]| {
        let url = DatabaseUrl::parse(&format!("{}/db/x/", server.url)).expect("a URL");
        Client::new(&url, None).batch(script).expect("a schema");
    };
    let unknown = "INSERT INTO sqlite_schema VALUES ('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING nobodys(x)')";
    for server in &servers {
        let script = ["CREATE TABLE a (x)", "CREATE TABLE w (x)", "PRAGMA writable_schema = ON", unknown];
        with(server, &script);
        with(server, &["PRAGMA writable_schema = RESET"]);
    }
    let diff = |output| {
        let sides = servers.each_ref().map(|server| diff::Side::read("x", &server.url, None).expect("a side"));
        let mut out = Vec::new();
        let error = diff::report(&mut out, output, &sides[0], &sides[1]).expect_err("not whole").to_string();
        assert!(error.contains("the rows of v could not be counted"), "{error}");
        String::from_utf8(out).expect("UTF-8")
    };
    // On both sides alike, and still nobody knows.
    let text = diff(Output::Text);
    assert!(text.starts_with("  v: not counted: ") && text.contains("nobodys") && text.lines().count() == 1, "{text}");
    let json: Value = serde_json::from_str(&diff(Output::Json)).expect("JSON");
    assert_eq!((&json["same"], &json["not_counted"][0]["table"]), (&Value::Null, &json!("v")));
    // What is known to be different is told as well, and what comes after the table that failed is counted.
    with(&servers[1], &["INSERT INTO w VALUES (1)"]);
    assert!(diff(Output::Text).starts_with("  w: 0 -> 1 rows (+1)\n  v: not counted: "));
    let json: Value = serde_json::from_str(&diff(Output::Json)).expect("JSON");
    assert_eq!((&json["same"], &json["rows"][0]["table"]), (&json!(false), &json!("w")));
}
