use super::*;
use crate::hrana::HranaVersion::{Hrana2, Hrana3};
use http::HeaderValue;
use proptest::prelude::*;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (key, value) in pairs {
        headers.append(*key, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn local() -> HeaderMap {
    headers(&[("host", "127.0.0.1:8080")])
}

fn post(path: &str) -> Result<Route, RouteError> {
    resolve(&Method::POST, path, None, &local(), None)
}

fn get(path: &str) -> Result<Route, RouteError> {
    resolve(&Method::GET, path, None, &local(), None)
}

fn database(text: &str, endpoint: Endpoint) -> Result<Route, RouteError> {
    Ok(Route::Database { target: name(text).into(), endpoint })
}

#[test]
fn every_endpoint_is_reached_in_every_form_of_the_path() {
    for (path, endpoint) in [
        ("v2/pipeline", Endpoint::Pipeline(Hrana2)),
        ("v3/pipeline", Endpoint::Pipeline(Hrana3)),
        ("v3/cursor", Endpoint::Cursor),
    ] {
        for prefix in ["/db/app/", "/dev/app/", "/app/", "/db//app///", "//app//", "//db/app/"] {
            assert_eq!(post(&format!("{prefix}{path}")), database("app", endpoint), "{prefix}{path}");
        }
        for bare in [format!("/{path}"), format!("//{path}"), format!("/{path}/")] {
            let default = name("default");
            let route = resolve(&Method::POST, &bare, None, &local(), Some(&default));
            assert_eq!(route, database("default", endpoint));
            assert_eq!(post(&bare).unwrap_err().status, StatusCode::NOT_FOUND);
        }
    }
}

#[test]
fn a_database_as_a_whole_is_asked_for_by_get() {
    for (path, endpoint) in [("dump", Endpoint::Dump), ("export", Endpoint::Export)] {
        for prefix in ["/db/app/", "/dev/app/", "/app/"] {
            let path = format!("{prefix}{path}");
            assert_eq!(get(&path), database("app", endpoint), "{path}");
            assert_eq!(post(&path).unwrap_err().allow, Some("GET"));
            let head = resolve(&Method::HEAD, &path, None, &local(), None);
            assert_eq!(head.unwrap_err().status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        }
    }
}

#[test]
fn probes_health_and_version_need_no_database() {
    for (path, route) in [
        ("/v2", Route::Probe(Hrana2)),
        ("/v3", Route::Probe(Hrana3)),
        ("/v3/", Route::Probe(Hrana3)),
        ("/db/app/v2", Route::Probe(Hrana2)),
        ("/app/v3", Route::Probe(Hrana3)),
        ("/health", Route::Health),
        ("/version", Route::Version),
    ] {
        assert_eq!(get(path), Ok(route.clone()), "{path}");
        assert_eq!(resolve(&Method::HEAD, path, None, &local(), None), Ok(route), "{path}");
    }
}

#[test]
fn a_lost_slash_is_answered_with_the_line_to_write() {
    let base = "http://127.0.0.1:8080/db/<name>/";
    for path in [
        "/db/v2/pipeline",
        "/db/v3/pipeline",
        "/db/v3/cursor",
        "/dev/v2/pipeline",
        "//db//v2/pipeline",
        "/db/v1/execute",
    ] {
        let error = post(path).unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (400, "DATABASE_URL_WITHOUT_SLASH"), "{path}");
        assert!(error.message.ends_with(base), "{error}");
    }
    for path in ["/db/v2", "/db/v3", "/db/v3-protobuf"] {
        assert_eq!(get(path).unwrap_err().code, "DATABASE_URL_WITHOUT_SLASH", "{path}");
    }
    let error = post("/v2/pipeline").unwrap_err();
    assert_eq!((error.status.as_u16(), error.code), (404, "DATABASE_NOT_NAMED"));
    assert!(error.message.contains("slash") && error.message.contains(base), "{error}");
}

#[test]
fn the_line_to_write_follows_how_the_client_came_but_repeats_no_nonsense() {
    for (pairs, base) in [
        (vec![("host", "db.example.com")], "http://db.example.com/db/<name>/"),
        (vec![("host", "[::1]:8080")], "http://[::1]:8080/db/<name>/"),
        (vec![("host", "x.io"), ("x-forwarded-proto", "https")], "https://x.io/db/<name>/"),
        (vec![("host", "x\"><script>")], "http://<this server>/db/<name>/"),
        (vec![("host", "é")], "http://<this server>/db/<name>/"),
        (vec![("host", "")], "http://<this server>/db/<name>/"),
        (vec![], "http://<this server>/db/<name>/"),
    ] {
        let error = resolve(&Method::POST, "/db/v2/pipeline", None, &headers(&pairs), None).unwrap_err();
        assert!(error.message.ends_with(base), "{error}");
    }
}

#[test]
fn the_line_to_write_follows_http_2s_authority_which_needs_no_host_header() {
    for (authority, pairs, base) in [
        ("db.example.com", vec![], "http://db.example.com/db/<name>/"),
        ("[::1]:8080", vec![("x-forwarded-proto", "https")], "https://[::1]:8080/db/<name>/"),
        ("db.example.com:9000", vec![("host", "other.example.com")], "http://db.example.com:9000/db/<name>/"),
        ("user:secret@db.example.com", vec![], "http://<this server>/db/<name>/"),
    ] {
        let uri: http::Uri = format!("http://{authority}/db/v2/pipeline").parse().unwrap();
        let authority = uri.authority().map(http::uri::Authority::as_str);
        let error = resolve(&Method::POST, uri.path(), authority, &headers(&pairs), None).unwrap_err();
        assert!(error.message.ends_with(base), "{error}");
    }
}

#[test]
fn the_header_names_the_database_of_a_bare_url_and_must_agree_with_a_path() {
    let default = name("default");
    let in_header = |path, values: &[&str]| {
        let pairs: Vec<_> = values.iter().map(|value| (NAMESPACE_HEADER, *value)).collect();
        resolve(&Method::POST, path, None, &headers(&pairs), Some(&default))
    };
    let pipeline = Endpoint::Pipeline(Hrana2);
    assert_eq!(in_header("/v2/pipeline", &["app"]), database("app", pipeline));
    assert_eq!(in_header("/db/app/v2/pipeline", &["app"]), database("app", pipeline));
    assert_eq!(in_header("/app/v2/pipeline", &["app", "app"]), database("app", pipeline));
    assert_eq!(in_header("/v2/pipeline", &[]), database("default", pipeline));
    for (path, values) in [("/db/app/v2/pipeline", vec!["other"]), ("/v2/pipeline", vec!["a", "b"])] {
        let error = in_header(path, &values).unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (400, "DATABASE_NAMES_DISAGREE"));
    }
    for value in ["", "../x", "a%2Fb", "A", "v2", "é"] {
        let error = in_header("/v2/pipeline", &[value]).unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (400, "DATABASE_NAME_INVALID"), "{value}");
    }
}

#[test]
fn names_outside_the_grammar_are_refused_with_the_grammar() {
    let long = "a".repeat(64 * 1024);
    for bad in ["a%2Fb", "..", "%2e%2e", "App", "a b", "@1", "%2e@1", "-a", ".git", "\u{1}", long.as_str()] {
        for path in [format!("/db/{bad}/v2/pipeline"), format!("/{bad}/v2/pipeline")] {
            let error = post(&path).unwrap_err();
            assert_eq!((error.status.as_u16(), error.code), (400, "DATABASE_NAME_INVALID"), "{error}");
            assert!(error.message.contains(tenant::name::NAME_GRAMMAR), "{error}");
            assert!(error.message.len() < 1000, "{} bytes", error.message.len());
        }
    }
    let error = post("/db/health/v2/pipeline").unwrap_err();
    assert_eq!(error.code, "DATABASE_NAME_INVALID");
    assert!(error.message.contains("reserved"), "{error}");
}

#[test]
fn a_name_with_a_moment_is_the_past_in_every_form_and_spelling() {
    let evening = Some(Moment::Time(1_795_292_100_000_000));
    for (text, at) in [
        ("app@42", Some(Moment::Lsn(42))),
        ("app%4042", Some(Moment::Lsn(42))),
        ("app@2026-11-21T20:15:00Z", evening),
        ("app%402026-11-21T20%3A15%3A00Z", evening),
        ("app@2026-11-21T21:15:00+01:00", evening),
        ("app@2026-11-21%2020:15:00", evening),
    ] {
        let target = Target { name: name("app"), at };
        for prefix in ["/db/", "/dev/", "/", "//db//"] {
            let pipeline = Ok(Route::Database { target: target.clone(), endpoint: Endpoint::Pipeline(Hrana2) });
            assert_eq!(post(&format!("{prefix}{text}/v2/pipeline")), pipeline, "{prefix}{text}");
            let cursor = Ok(Route::Database { target: target.clone(), endpoint: Endpoint::Cursor });
            assert_eq!(post(&format!("{prefix}{text}/v3/cursor")), cursor, "{prefix}{text}");
            assert_eq!(get(&format!("{prefix}{text}/v3")), Ok(Route::Probe(Hrana3)));
        }
        let route = resolve(&Method::POST, "/v2/pipeline", None, &headers(&[(NAMESPACE_HEADER, text)]), None);
        assert_eq!(route, Ok(Route::Database { target, endpoint: Endpoint::Pipeline(Hrana2) }));
    }
}

#[test]
fn what_is_no_moment_is_refused_with_the_url_to_write() {
    for text in ["app@", "app@now", "app@b", "app@-1", "app@1@2", "app@%", "app@2026-11-21", "app%40", "app@99999999999999999999"] {
        let error = post(&format!("/db/{text}/v2/pipeline")).unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (400, "MOMENT_INVALID"), "{text}");
        assert!(error.message.ends_with("http://127.0.0.1:8080/db/app@<moment>/"), "{error}");
    }
    let two = headers(&[(NAMESPACE_HEADER, "app")]);
    let error = resolve(&Method::POST, "/db/app@5/v2/pipeline", None, &two, None).unwrap_err();
    assert_eq!(error.code, "DATABASE_NAMES_DISAGREE", "one means the present, one the past");
}

#[test]
fn a_path_cannot_climb_out_of_a_database() {
    for path in [
        "/db/../../etc",
        "/db/app/../other/v2/pipeline",
        "/../../etc/passwd",
        "/db/app/v2/../v3/pipeline",
        "/db/app/v2/pipeline/x",
    ] {
        assert!(post(path).unwrap_err().status.is_client_error(), "{path}");
    }
}

#[test]
fn protocols_that_are_not_spoken_are_404_so_that_clients_try_another() {
    for path in ["/v3-protobuf", "/app/v3-protobuf", "/db/app/v3-protobuf", "/v1", "/db/app/v1"] {
        let error = get(path).unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (404, "PROTOCOL_NOT_SUPPORTED"), "{path}");
    }
    assert_eq!(post("/db/app/v3-protobuf/pipeline").unwrap_err().status, 404);
    assert_eq!(post("/v1/execute").unwrap_err().status, 404);
}

#[test]
fn unknown_places_are_404_and_say_where_things_are() {
    for path in ["/db/app", "/db/app/", "/app", "/app/x", "/app/health", "/db/app/v2/cursor", "/app/v4/pipeline"] {
        let error = get(path).unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (404, "ENDPOINT_NOT_FOUND"), "{path}");
        assert!(error.message.ends_with("http://127.0.0.1:8080/db/app/"), "{error}");
    }
    for path in ["/metrics", "/dumps", "/favicon.ico", "/health/x", "/v2/cursor", "/v9/pipeline"] {
        let error = get(path).unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (404, "ENDPOINT_NOT_FOUND"), "{path}");
    }
    for path in ["/", "", "//", "/db", "/db/", "/dev"] {
        assert_eq!(get(path).unwrap_err().code, "DATABASE_NOT_NAMED", "{path}");
    }
}

#[test]
fn a_wrong_method_is_told_the_right_one() {
    for (method, path, allow) in [
        (Method::GET, "/db/app/v2/pipeline", "POST"),
        (Method::PUT, "/app/v3/cursor", "POST"),
        (Method::POST, "/v2", "GET, HEAD"),
        (Method::DELETE, "/health", "GET, HEAD"),
    ] {
        let error = resolve(&method, path, None, &local(), None).unwrap_err();
        assert_eq!((error.status.as_u16(), error.allow), (405, Some(allow)), "{path}");
    }
}

#[test]
fn an_errors_body_is_json_with_its_code_and_message() {
    let error = get("/metrics").unwrap_err();
    let body: serde_json::Value = serde_json::from_slice(&error.body()).unwrap();
    assert_eq!(body["code"], "ENDPOINT_NOT_FOUND");
    assert_eq!(body["message"], error.message);
    assert_eq!(body["error"], error.message);
}

proptest! {
    #[test]
    fn no_path_panics_and_every_route_has_a_name_from_the_path(path in "(/|[a-z0-9%@._-]{0,8}|db|dev|v2|v3|pipeline|cursor|\\PC{0,5}){0,8}") {
        if let Ok(Route::Database { target, .. }) = post(&path) {
            prop_assert!(path.split('/').any(|part| part.starts_with(target.name.as_str())));
        }
    }
}
