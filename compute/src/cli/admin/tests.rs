use super::*;
use crate::cli::test_server::{Answer, serve};

fn listed(admin: &Admin, output: Output, prefix: &str) -> anyhow::Result<String> {
    let mut out = Vec::new();
    list(admin, &mut out, output, prefix)?;
    Ok(String::from_utf8(out)?)
}

#[test]
fn names_are_encoded_into_one_segment() {
    for (name, encoded) in [
        ("app-1.x_y", "app-1.x_y"),
        ("../../etc", "..%2F..%2Fetc"),
        ("..", "%2E%2E"),
        ("a%2Fb", "a%252Fb"),
        ("a?b&c=d", "a%3Fb%26c%3Dd"),
        ("é", "%C3%A9"),
    ] {
        assert_eq!(percent_encoded(name), encoded);
    }
}

#[test]
fn databases_are_created_and_deleted_by_name() {
    let server = serve(|_| Answer::json(200, ""));
    let admin = Admin::new(&format!("{}/", server.url)).expect("a URL");
    admin.create("app").expect("created");
    admin.delete("a/b").expect("deleted");
    let requests = server.requests();
    assert_eq!(requests[0].line, "POST /v1/namespaces/app/create");
    assert_eq!(requests[0].body, "{}");
    assert_eq!(requests[1].line, "DELETE /v1/namespaces/a%2Fb");
    assert!(matches!(admin.create(""), Err(AdminError::NoName)));
}

#[test]
fn a_list_is_read_page_by_page() {
    let server = serve(|request| {
        let first = request.line.contains("after=&");
        Answer::json(
            200,
            match first {
                true => r#"{"namespaces":[{"name":"a"},{"name":"b"}],"next":"b"}"#,
                false => r#"{"namespaces":[{"name":"c"}],"next":null}"#,
            },
        )
    });
    let admin = Admin::new(&server.url).expect("a URL");
    assert_eq!(listed(&admin, Output::Text, "x&").expect("a list"), "a\nb\nc\n");
    assert_eq!(
        listed(&admin, Output::Json, "").expect("a list"),
        "{\"namespaces\":[{\"name\":\"a\"},{\"name\":\"b\"},{\"name\":\"c\"}]}\n"
    );
    let requests = server.requests();
    assert_eq!(requests[0].line, "GET /v1/namespaces?prefix=x%26&after=&limit=1000");
    assert_eq!(requests[1].line, "GET /v1/namespaces?prefix=x%26&after=b&limit=1000");
}

#[test]
fn pages_that_lead_back_end_with_an_error() {
    let server = serve(|_| Answer::json(200, r#"{"namespaces":[],"next":"b"}"#));
    let admin = Admin::new(&server.url).expect("a URL");
    let error = listed(&admin, Output::Text, "").expect_err("circles").to_string();
    assert!(error.contains("circles"), "{error}");
}

#[test]
fn the_servers_own_words_are_shown() {
    let server = serve(|_| Answer::json(400, r#"{"error":"Namespace `app` already exists"}"#));
    let admin = Admin::new(&server.url).expect("a URL");
    let error = admin.create("app").expect_err("exists").to_string();
    assert_eq!(error, "the server answered 400: Namespace `app` already exists");
}

#[test]
fn something_else_at_the_address_is_recognised() {
    for answer in [Answer::json(200, ""), Answer::text(404, ""), Answer::text(200, "<html>")] {
        let server = serve(move |_| answer.clone());
        let admin = Admin::new(&server.url).expect("a URL");
        let error = listed(&admin, Output::Text, "").expect_err("not ours").to_string();
        assert!(error.contains("is no administration interface of Shoal"), "{error}");
    }
}

#[test]
fn a_server_that_is_not_there_is_named() {
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let admin = Admin::new(&url).expect("a URL");
    let error = admin.delete("app").expect_err("nobody there").to_string();
    assert!(error.starts_with(&url) && error.contains("Is the server running?"), "{error}");
    for wrong in ["127.0.0.1:8081", "ftp://h", "http://h?x", ""] {
        assert!(matches!(Admin::new(wrong), Err(AdminError::NotAUrl(_))), "{wrong}");
    }
}
