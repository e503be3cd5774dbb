use super::*;
use crate::cli::test_server::{Answer, serve};

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
    let server = serve(|request| {
        let is_delete = request.line.starts_with("DELETE");
        Answer::json(200, if is_delete { r#"{"name":"a","database":"0a","bookmark":"0a-7"}"# } else { "" })
    });
    let admin = Admin::new(&format!("{}/", server.url)).expect("a URL");
    admin.create("app").expect("created");
    assert_eq!(admin.delete("a/b").expect("deleted").bookmark.as_deref(), Some("0a-7"));
    let requests = server.requests();
    assert_eq!(requests[0].line, "POST /v1/namespaces/app/create");
    assert_eq!(requests[0].body, "{}");
    assert_eq!(requests[1].line, "DELETE /v1/namespaces/a%2Fb");
    assert!(matches!(admin.create(""), Err(AdminError::NoName)));
}

#[test]
fn the_servers_own_words_are_shown() {
    let server = serve(|_| Answer::json(400, r#"{"error":"Namespace `app` already exists"}"#));
    let admin = Admin::new(&server.url).expect("a URL");
    let error = admin.create("app").expect_err("exists").to_string();
    assert_eq!(error, "the server answered 400: Namespace `app` already exists");
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
