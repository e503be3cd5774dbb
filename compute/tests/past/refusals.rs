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

/// What a refusal names has to be there: LSNs lead to what the present database was made from, times to whatever had the
/// name.
#[test]
fn after_a_restore_the_window_is_that_of_all_that_is_left() {
    let server = Server::serve(&[]);
    let app = server.database("app");
    let seen = history(&app, 3);
    let created = server.admin("GET", "v1/namespaces/app/history").json()["history"][3]["time"].clone();
    let since = format!("times since {} and bookmarks lead to what had the name before", created.as_str().expect("a time"));
    let body = json!({ "requests": [execute("SELECT 1")] }).to_string();
    let ask = |name: &str, moment: &str| at(&server, name, moment).post("v2/pipeline", &body);

    changed(&server, "app/restore", &json!({ "lsn": seen[0].lsn }));
    let window = ["LSN 3 is in the future of `app`", "what can be shown is LSN 0 (", ") to LSN 1 (", &since];
    ask("app", "3").assert_refused(400, "SHOAL_INVALID", &window);
    changed(&server, "app/undo", &json!({}));
    let window = ["LSN 99 is in the future of `app`", "what can be shown is LSN 0 (", ") to LSN 3 (", &since];
    ask("app", "99").assert_refused(400, "SHOAL_INVALID", &window);
    ask("app", "2999-01-01T00:00:00Z").assert_refused(400, "SHOAL_INVALID", &["2999-01-01T00:00:00Z is in", &since]);
    for seen in &seen {
        assert_eq!(shown(&at(&server, "app", seen.lsn)), seen.shows, "LSN {}", seen.lsn);
    }
    let created = created.as_str().expect("a time");
    assert_eq!(shown(&at(&server, "app", created)), json!({ "tables": [], "rows": [] }), "at {created}");
}

#[test]
fn the_window_of_a_database_without_commits_has_the_time_of_its_creation() {
    let server = Server::serve(&[]);
    server.database("fresh");
    changed(&server, "fresh/restore", &json!({ "lsn": 0 }));
    changed(&server, "fresh/undo", &json!({}));
    let refused = change(&server, "fresh/restore", &json!({ "lsn": 1 }));
    refused.assert_refused(400, "SHOAL_INVALID", &["LSN 1 is in the future of `fresh`", "LSN 0 (2"]);
    assert!(!refused.text.contains("1970"), "{refused:?}");
}

#[test]
fn who_asks_for_a_deleted_database_is_told_of_undelete() {
    let server = Server::serve(&[]);
    commit(&server.database("ex"), "CREATE TABLE t (x, y)");
    assert_eq!(server.admin("DELETE", "v1/namespaces/ex").status, 200);
    for (path, body) in [
        ("restore", json!({ "lsn": 1 })),
        ("undo", json!({})),
        ("reset", json!({})),
        ("fork/other", json!({})),
        ("retention", json!({ "retention": "7d" })),
    ] {
        let answer = change(&server, &format!("ex/{path}"), &body);
        answer.assert_refused(404, "SHOAL_NO_SUCH_DATABASE", &["there is no database `ex`", "shoal db undelete ex"]);
        let answer = change(&server, &format!("nobody/{path}"), &body);
        answer.assert_refused(404, "SHOAL_NO_SUCH_DATABASE", &["there is no database `nobody`", "shoal db list"]);
    }
}
