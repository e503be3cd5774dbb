//! Every form of a URL that names a moment shows exactly that state.

use serde_json::json;

use crate::rig::*;
use crate::support::*;

#[test]
fn each_commit_is_shown_exactly_by_its_lsn_and_by_a_time() {
    let mut server = Server::dev();
    let seen = history(&server.database("app"), 40);
    // From memory, from what is folded, and from both.
    for is_folded in [false, true] {
        for state in &seen {
            assert_eq!(shown(&at(&server, "app", state.lsn)), state.shows, "LSN {}", state.lsn);
            assert_eq!(shown(&at(&server, "app", &state.time)), state.shows, "LSN {} at {}", state.lsn, state.time);
        }
        let empty = shown(&at(&server, "app", seen[0].lsn - 1));
        assert_eq!(empty, json!({ "tables": [], "rows": [] }), "before the first commit");
        if !is_folded {
            // A clean end folds.
            server.restart();
        }
    }
    let app = server.unmade_database("app");
    let newer = commit(&app, "INSERT INTO t VALUES (77, 'newer', NULL)");
    // The present goes on, and the past stays.
    commit(&app, "DROP TABLE t");
    assert_eq!(shown(&at(&server, "app", newer.lsn)), newer.shows);
    assert_eq!(shown(&at(&server, "app", seen[20].lsn)), seen[20].shows);
}

#[test]
fn every_form_of_a_url_and_every_endpoint_shows_the_past() {
    let server = Server::dev();
    let app = server.database("app");
    let old = commit(&app, "CREATE TABLE t (x, y)");
    commit(&app, "INSERT INTO t VALUES (1, 2)");
    commit(&app, "DROP TABLE t");
    let lsn = old.lsn;
    let encoded: String = old.time.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let names = [
        format!("app@{lsn}"),
        format!("app%40{lsn}"),
        format!("app@{}", old.time),
        format!("app%40{encoded}"),
        format!("app@{}", old.time.replace('Z', "+00:00")),
    ];
    let body = json!({ "requests": [execute("SELECT count(*) FROM t")] }).to_string();
    for name in &names {
        for prefix in ["db/", "dev/", ""] {
            for version in ["v2", "v3"] {
                let answer = post_to(&server.url(&format!("{prefix}{name}/{version}/pipeline")), &body);
                assert_eq!(answer.status, 200, "{prefix}{name}: {answer:?}");
                assert_eq!(rows_of(&answer.json()["results"][0]["response"]["result"]), [json!([0])], "{name}");
                assert_eq!(header(&answer, "shoal-lsn"), lsn.to_string());
                assert_eq!(header(&answer, "shoal-role"), "past");
            }
            assert_eq!(request("GET", &server.url(&format!("{prefix}{name}/v2")), &[], b"").expect("an answer").status, 200);
        }
        let lines = Database::at(server.url(&format!("db/{name}/"))).cursor(&batch(json!([step("SELECT count(*) FROM t")])));
        assert!(lines.iter().any(|line| line["type"] == "row" && plain(&line["row"][0]) == 0), "{lines:?}");
    }
    let headers = [("x-namespace", names[0].as_str())];
    let answer = request("POST", &server.url("v3/pipeline"), &headers, body.as_bytes()).expect("an answer");
    assert_eq!(header(&answer, "shoal-lsn"), lsn.to_string());
}

#[test]
fn transactions_and_streams_of_the_past_work_as_elsewhere() {
    let server = Server::dev();
    let app = server.database("app");
    commit(&app, "CREATE TABLE t (x, y)");
    let old = commit(&app, "INSERT INTO t VALUES (1, 'a')");
    commit(&app, "DELETE FROM t");
    let mut stream = at(&server, "app", old.lsn).stream();
    stream.run("BEGIN");
    assert!(stream.baton.is_some());
    assert_eq!(stream.rows("SELECT y FROM t"), [json!(["a"])]);
    stream.run("CREATE TEMP TABLE mine AS SELECT * FROM t");
    assert_eq!(stream.rows("SELECT count(*) FROM mine"), [json!([1])]);
    stream.run("COMMIT");
    assert_eq!(stream.rows("SELECT count(*) FROM mine"), [json!([1])], "the stream keeps its own tables");
}
