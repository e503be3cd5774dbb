//! What the past refuses, and how it says so.

use serde_json::json;

use crate::rig::*;
use crate::support::*;

#[test]
fn writing_to_the_past_is_a_read_only_error_that_says_what_to_do() {
    let server = Server::dev();
    let app = server.database("app");
    let old = commit(&app, "CREATE TABLE t (x, y)");
    commit(&app, "INSERT INTO t VALUES (1, 2)");
    let past = at(&server, "app", old.lsn);
    for sql in ["INSERT INTO t VALUES (2, 3)", "DROP TABLE t", "CREATE TABLE u (x)", "PRAGMA user_version = 5", "VACUUM"] {
        let (code, message) = past.fails(sql);
        assert_eq!(code, "SQLITE_READONLY", "{sql}: {message}");
        for part in ["readonly", &format!("after commit {}", old.lsn), "shoal db restore app", "shoal db fork app"] {
            assert!(message.contains(part), "{sql}: {message}");
        }
    }
    let mut stream = past.stream();
    assert_eq!(stream.fails("BEGIN IMMEDIATE").0, "SQLITE_READONLY");
    assert_eq!(shown(&past), old.shows);
    assert_eq!(app.rows("SELECT count(*) FROM t"), [json!([1])]);
}

#[test]
fn moments_that_are_none_or_not_there_are_refused_with_the_window() {
    let server = Server::dev();
    let app = server.database("app");
    let first = commit(&app, "CREATE TABLE t (x, y)");
    let last = commit(&app, "INSERT INTO t VALUES (1, 2)");
    let body = json!({ "requests": [execute("SELECT 1")] }).to_string();
    let ask = |name: &str, moment: &str| at(&server, name, moment).post("v2/pipeline", &body);
    let window = format!("LSN {}", last.lsn);
    for future in [(last.lsn + 1).to_string(), "4000000000".into(), "2999-01-01T00:00:00Z".into()] {
        ask("app", &future).assert_refused(400, "SHOAL_INVALID", &["in the future of `app`", &window]);
    }
    for before in ["1970-01-01T00:00:00Z", "2001-01-01T00:00:00Z"] {
        ask("app", before).assert_refused(400, "SHOAL_INVALID", &["before", &window]);
    }
    for malformed in ["now", "", "1x", "2026-02-30T00:00:00Z", "%zz"] {
        ask("app", malformed).assert_refused(400, "MOMENT_INVALID", &["/db/app@<moment>/"]);
    }
    let headers = [("shoal-min-lsn", last.lsn.to_string())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let url = server.url(&format!("db/app@{}/v2/pipeline", first.lsn));
    let answer = request("POST", &url, &headers, body.as_bytes()).expect("an answer");
    answer.assert_refused(400, "SHOAL_INVALID", &["shoal-min-lsn"]);
    // Development creates databases that are used, not ones of which the past is asked for.
    ask("nobody", "1").assert_refused(404, "SHOAL_NO_SUCH_DATABASE", &["nobody"]);
    assert_eq!(server.admin("GET", "v1/namespaces?prefix=nobody").json()["namespaces"], json!([]));
}

#[test]
fn a_baton_of_one_moment_is_worth_nothing_at_another() {
    let server = Server::dev();
    let app = server.database("app");
    let one = commit(&app, "CREATE TABLE t (x, y)");
    let two = commit(&app, "INSERT INTO t VALUES (1, 2)");
    let mut stream = at(&server, "app", one.lsn).stream();
    stream.run("BEGIN");
    let elsewhere = [app, at(&server, "app", two.lsn), at(&server, "app", &one.time)];
    for database in elsewhere {
        let stolen = Stream { database, baton: stream.baton.clone(), version: "v3" };
        stolen.post(&json!([execute("SELECT 1")])).assert_refused(400, "HRANA_PROTOCOL_ERROR", &["invalid baton"]);
    }
    stream.run("COMMIT");
}

#[test]
fn without_retention_only_the_present_can_be_shown() {
    let server = Server::serve(&["--retention", "0"]);
    let app = server.database("app");
    let old = commit(&app, "CREATE TABLE t (x, y)");
    let new = commit(&app, "INSERT INTO t VALUES (1, 2)");
    assert_eq!(shown(&at(&server, "app", new.lsn)), new.shows);
    let body = json!({ "requests": [execute("SELECT 1")] }).to_string();
    let answer = at(&server, "app", old.lsn).post("v2/pipeline", &body);
    answer.assert_refused(400, "SHOAL_INVALID", &["keeps no history", "shoal db retention app"]);
}
