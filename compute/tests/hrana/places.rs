//! How a URL or a header names the database, and what needs none.

use serde_json::json;

use crate::support::*;

fn one(answer: &Answer) -> bool {
    answer.status == 200 && plain(&answer.json()["results"][0]["response"]["result"]["rows"][0][0]) == 1
}

#[test]
fn a_database_is_found_by_path_and_clients_may_be_careless_about_slashes_and_content_types() {
    let server = Server::serve(&[]);
    server.database("app");
    let body = json!({ "requests": [execute("SELECT 1")] }).to_string();
    for path in
        ["db/app/v2/pipeline", "db/app/v3/pipeline", "app/v2/pipeline", "dev/app/v3/pipeline", "/db//app//v3/pipeline"]
    {
        assert!(one(&post_to(&server.url(path), &body)), "{path}");
    }
    for content_type in ["application/json", "text/plain", "application/x-protobuf", ""] {
        let headers = [("content-type", content_type)];
        let answer = request("POST", &server.url("db/app/v2/pipeline"), &headers, body.as_bytes());
        assert!(one(&answer.expect("an answer")), "{content_type}");
    }
}

#[test]
fn the_header_names_the_database_of_a_bare_url() {
    let server = Server::serve(&[]);
    server.database("app");
    let body = json!({ "requests": [execute("SELECT 1")] }).to_string();
    let with = |name: &str, path: &str| {
        let headers = [("x-namespace", name)];
        request("POST", &server.url(path), &headers, body.as_bytes()).expect("an answer")
    };
    assert!(one(&with("app", "v3/pipeline")));
    with("other", "db/app/v3/pipeline").assert_refused(400, "DATABASE_NAMES_DISAGREE", &["`app`", "`other`"]);
    with("../app", "v3/pipeline").assert_refused(400, "DATABASE_NAME_INVALID", &["../app"]);
}

#[test]
fn dev_serves_the_bare_url_as_the_database_default_and_creates_on_first_use() {
    let server = Server::dev();
    let body = json!({ "requests": [execute("CREATE TABLE t(a)")] }).to_string();
    assert_eq!(post_to(&server.url("v2/pipeline"), body).status, 200);
    assert_eq!(server.database("default").rows("SELECT name FROM sqlite_schema"), [json!(["t"])]);
    assert_eq!(server.database("other").rows("SELECT count(*) FROM sqlite_schema"), [json!([0])]);
}

#[test]
fn databases_are_strangers_to_each_other() {
    let server = Server::dev();
    for name in ["a", "b"] {
        server.database(name).run("CREATE TABLE t(a)");
        server.database(name).run(&format!("INSERT INTO t VALUES ('{name}')"));
    }
    for name in ["a", "b"] {
        assert_eq!(server.database(name).rows("SELECT a FROM t"), [json!([name])]);
    }
}

#[test]
fn probes_need_no_database() {
    let server = Server::serve(&[]);
    for path in ["health", "version", "v2", "v3", "db/app/v2", "db/app/v3"] {
        assert_eq!(request("GET", &server.url(path), &[], b"").expect("an answer").status, 200, "{path}");
    }
    let version = request("GET", &server.url("version"), &[], b"").expect("an answer");
    assert!(version.text.starts_with("shoal "), "{}", version.text);
}

#[test]
fn browsers_of_any_origin_may_ask() {
    let server = Server::dev();
    let headers = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
        ("access-control-request-private-network", "true"),
    ];
    let answer = request("OPTIONS", &server.url("db/app/v3/pipeline"), &headers, b"").expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["access-control-allow-origin"], "*");
    assert_eq!(answer.headers["access-control-allow-private-network"], "true");
}
