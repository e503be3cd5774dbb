//! Databases that don't exist, and names that can't.

use serde_json::json;

use crate::support::*;
use crate::{post_bytes, raw};

fn select_one() -> String {
    json!({ "requests": [execute("SELECT 1")] }).to_string()
}

#[test]
fn a_name_outside_the_grammar_is_refused_with_the_grammar() {
    let mut server = Server::dev();
    let long = "a".repeat(60_000);
    for name in ["a%2Fb", "%2e%2e", "%2E%2E%2F%2E%2E%2Fetc", "App", "a%20b", "@1", "-a", ".git", "a%00", "%ff", &long]
    {
        for path in [format!("db/{name}/v2/pipeline"), format!("db/{name}/v3/cursor"), format!("{name}/v3/pipeline")] {
            let answer = post_to(&server.url(&path), select_one());
            answer.assert_refused(400, "DATABASE_NAME_INVALID", &["1 to 63 characters", "/db/<name>/"]);
        }
    }
    server.assert_well();
}

#[test]
fn a_path_does_not_climb() {
    let mut server = Server::serve(&[]);
    for path in [
        "/db/../../etc/passwd",
        "/../../etc/passwd",
        "/db/app/../other/v2/pipeline",
        "/db/./v2/pipeline",
        "//..//..//etc",
    ] {
        // Over a bare socket, because clients tidy such paths up before they send them.
        let answer = raw(server.http, &post_bytes(path, &select_one()));
        assert!(answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
        assert!(!answer.contains("root:"), "{answer}");
    }
    assert_eq!(server.admin("GET", "v1/namespaces").json()["namespaces"], json!([]));
    server.assert_well();
}

#[test]
fn a_name_of_64_kilobytes_is_refused() {
    let mut server = Server::dev();
    let name = "a".repeat(64 << 10);
    // Beyond what the HTTP parser takes for a URL; a header may be as long.
    let answer = raw(server.http, &post_bytes(&format!("/db/{name}/v2/pipeline"), &select_one()));
    assert!(answer.starts_with("HTTP/1.1 414 URI Too Long"), "{answer}");
    let answer = request("POST", &server.url("v2/pipeline"), &[("x-namespace", &name)], select_one().as_bytes());
    answer.expect("an answer").assert_refused(400, "DATABASE_NAME_INVALID", &["1 to 63 characters"]);
    let answer = server.admin("POST", &format!("v1/namespaces/{}/create", &name[..60_000]));
    assert_eq!(answer.status, 400);
    assert!(answer.text.len() < 2_000, "{} bytes", answer.text.len());
    server.assert_well();
}

#[test]
fn a_url_that_lost_its_slash_is_told_the_line_to_write() {
    let server = Server::serve(&[]);
    server.database("app");
    let line = format!("http://{}/db/<name>/", server.http);
    for path in [
        "db/v2/pipeline",
        "db/v3/pipeline",
        "db/v3/cursor",
        "dev/v2/pipeline",
        "/db//v2/pipeline",
        "db/v3-protobuf/pipeline",
    ] {
        let answer = post_to(&server.url(path), select_one());
        answer.assert_refused(400, "DATABASE_URL_WITHOUT_SLASH", &["slash", &line]);
    }
    for path in ["v2/pipeline", "v3/pipeline", "v3/cursor", "db", "db/", ""] {
        let answer = post_to(&server.url(path), select_one());
        answer.assert_refused(404, "DATABASE_NOT_NAMED", &["slash", "x-namespace", &line]);
    }
}

#[test]
fn an_unknown_database_is_not_made_by_accident() {
    let mut server = Server::serve(&[]);
    let nope = server.unmade_database("nope");
    for endpoint in ["v2/pipeline", "v3/pipeline", "v3/cursor"] {
        let body =
            json!({ "requests": [execute("CREATE TABLE t(a)")], "batch": { "steps": [step("CREATE TABLE t(a)")] } });
        let answer = nope.post(endpoint, body.to_string());
        let remedy = "create it with `shoal db create nope`";
        answer.assert_refused(404, "SHOAL_NO_SUCH_DATABASE", &["there is no database `nope`", remedy]);
    }
    assert_eq!(server.admin("GET", "v1/namespaces").json()["namespaces"], json!([]));
    server.assert_well();
}

#[test]
fn a_deleted_database_is_gone_with_its_open_transactions_and_its_name_can_be_used_again() {
    let mut server = Server::serve(&[]);
    let database = server.database("app");
    database.run("CREATE TABLE old(a)");
    let mut stream = database.stream();
    stream.run("BEGIN");
    stream.run("INSERT INTO old VALUES (1)");
    assert_eq!(server.admin("DELETE", "v1/namespaces/app").status, 200);
    assert_eq!(database.post("v3/pipeline", select_one()).status, 404);
    let left = stream.post(&json!([execute("COMMIT")]));
    assert!(left.status != 200 || left.json()["results"][0]["type"] == "error", "{left:?}");

    let database = server.database("app");
    assert_eq!(database.rows("SELECT count(*) FROM sqlite_schema"), [json!([0])]);
    stream.post(&json!([execute("COMMIT")])).assert_refused(400, "HRANA_PROTOCOL_ERROR", &["baton"]);
    assert_eq!(database.rows("SELECT count(*) FROM sqlite_schema"), [json!([0])]);
    server.assert_well();
}
