use super::*;
use crate::cli::test_server::{Answer, serve};

fn listed(admin: &Admin, output: Output, prefix: &str) -> anyhow::Result<String> {
    let mut out = Vec::new();
    list(admin, &mut out, output, prefix)?;
    Ok(String::from_utf8(out)?)
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
fn something_else_at_the_address_is_recognised() {
    for answer in [Answer::json(200, ""), Answer::text(404, ""), Answer::text(200, "<html>")] {
        let server = serve(move |_| answer.clone());
        let admin = Admin::new(&server.url).expect("a URL");
        let error = listed(&admin, Output::Text, "").expect_err("not ours").to_string();
        assert!(error.contains("is no administration interface of Shoal"), "{error}");
    }
}

#[test]
fn an_import_that_stands_in_its_own_way_goes_on() {
    let server = serve(|request| match request.line.starts_with("GET ") {
        true => Answer::json(503, r#"{"message":"still being made","code":"SHOAL_UNAVAILABLE"}"#),
        false => Answer::json(400, r#"{"message":"far enough","code":"SHOAL_INVALID"}"#),
    });
    let (admin, directory) = (Admin::new(&server.url).expect("a URL"), tempfile::tempdir().expect("a directory"));
    let file = directory.path().join("dump.sql");
    std::fs::write(&file, "CREATE TABLE t (x);").expect("a file");
    let error = transfer::import(&admin, &mut Vec::new(), Output::Text, &file, "app").expect_err("far enough").to_string();
    assert!(error.contains("far enough"), "{error}");
    let lines: Vec<String> = server.requests().into_iter().map(|request| request.line).collect();
    assert_eq!(lines[0], "GET /v1/namespaces/app/import");
    assert!(lines[1].starts_with("POST /v1/namespaces/app/import?bytes="), "{lines:?}");
}
