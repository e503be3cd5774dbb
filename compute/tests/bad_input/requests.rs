//! Bytes that are no request: HTTP, JSON, batons.

use serde_json::{Value, json};

use crate::support::*;
use crate::{post_bytes, raw, raw_to_the_end};

#[test]
fn malformed_json_is_told_where_it_is_malformed() {
    let mut server = Server::dev();
    let database = server.database("app");
    let deep = "[".repeat(100_000);
    let deep_args = format!(r#"{{"requests":[{{"type":"execute","stmt":{{"sql":"x","args":{deep}"#);
    for (body, phrase) in [
        (&b""[..], "EOF while parsing"),
        (b"{", "EOF while parsing"),
        (b"\xff\xfe\x00", "expected value"),
        (b"null", "expected a body such as {\"baton\":null,\"requests\":[]}"),
        (b"42", "expected a body such as"),
        (b"\"requests\"", "expected a body such as"),
        (b"{}", "missing field `requests`"),
        (b"{\"requests\":{}}", "expected a sequence"),
        (b"{\"requests\":[]} {}", "trailing characters"),
        (b"{\"requests\":[],\"requests\":[]}", "duplicate field"),
        (b"{\"baton\":7,\"requests\":[]}", "expected a string"),
        (b"{\"requests\":[\"close\"]}", "expected a request such as {\"type\":\"close\"}"),
        (b"{\"requests\":[{}]}", "missing field `type`"),
        (b"{\"requests\":[{\"type\":\"drop\"}]}", "unknown type of request: `drop`"),
        (b"{\"requests\":[{\"type\":\"execute\"}]}", "missing field `stmt`"),
        (b"{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":5}}]}", "expected a string"),
        (b"{\"requests\":[{\"type\":\"store_sql\",\"sql\":\"x\"}]}", "missing field `sql_id`"),
        (b"{\"requests\":[{\"type\":\"batch\",\"batch\":{}}]}", "missing field `steps`"),
        (b"{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"\xff\"}}]}", "invalid unicode"),
        (b"{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"\\ud800\"}}]}", "hex escape"),
        (deep.as_bytes(), "line 1 column"),
        (deep_args.as_bytes(), "line 1 column"),
    ] {
        let answer = database.post("v3/pipeline", body);
        answer.assert_refused(400, "HRANA_PROTOCOL_ERROR", &["Cannot deserialize client message from JSON", phrase]);
    }
    database.post("v3/cursor", "{\"requests\":[]}").assert_refused(
        400,
        "HRANA_PROTOCOL_ERROR",
        &["missing field `batch`"],
    );
    server.assert_well();
}

#[test]
fn conditions_that_nest_too_deep_or_name_no_earlier_step_are_refused_before_anything_runs() {
    let mut server = Server::dev();
    let database = server.database("app");
    let nested = |depth: usize| {
        let leaf = r#"{"type":"is_autocommit"}"#;
        format!("{}{leaf}{}", r#"{"type":"not","cond":"#.repeat(depth), "}".repeat(depth))
    };
    let body = |condition: &str| {
        let steps = format!(
            r#"{{"stmt":{{"sql":"CREATE TABLE t(a)"}}}},{{"condition":{condition},"stmt":{{"sql":"SELECT 1"}}}}"#
        );
        format!(r#"{{"requests":[{{"type":"batch","batch":{{"steps":[{steps}]}}}}]}}"#)
    };
    for (condition, phrase) in [
        (nested(60), "nested deeper than 50 levels"),
        (nested(10_000), "line 1 column"),
        (r#"{"type":"ok","step":1}"#.to_owned(), "Invalid reference to step in a batch condition"),
        (r#"{"type":"ok","step":4294967296}"#.to_owned(), "u32"),
        (r#"{"type":"ok","step":-1}"#.to_owned(), "u32"),
        (r#"{"type":"maybe"}"#.to_owned(), "unknown type of batch condition: `maybe`"),
    ] {
        database.post("v3/pipeline", body(&condition)).assert_refused(400, "HRANA_PROTOCOL_ERROR", &[phrase]);
    }
    assert_eq!(database.rows("SELECT count(*) FROM sqlite_schema"), [json!([0])]);
    server.assert_well();
}

#[test]
fn a_statement_needs_exactly_one_text() {
    let server = Server::dev();
    let stream = server.database("app").stream();
    for (stmt, phrase) in [
        (json!({}), "Either `sql` or `sql_id` are required"),
        (json!({ "sql": "SELECT 1", "sql_id": 1 }), "but not both"),
        (json!({ "sql_id": 1 }), "SQL text 1 not found"),
    ] {
        let answer = stream.post(&json!([{ "type": "execute", "stmt": stmt }]));
        answer.assert_refused(400, "HRANA_PROTOCOL_ERROR", &[phrase]);
    }
}

#[test]
fn batons_that_were_never_given_out_are_invalid() {
    let mut server = Server::dev();
    let database = server.database("app");
    let mut stream = database.stream();
    stream.send(json!([execute("BEGIN")]));
    let real = stream.baton.clone().expect("a transaction is open");
    let mut altered = real.clone();
    let last = if altered.pop() == Some('A') { 'B' } else { 'A' };
    altered.push(last);
    for baton in ["", "x", "null", "AAAA", altered.as_str(), &real[1..], &"A".repeat(100_000), "\u{1F41F}"] {
        for endpoint in ["v2/pipeline", "v3/pipeline", "v3/cursor"] {
            let body = json!({ "baton": baton, "requests": [], "batch": { "steps": [] } });
            let answer = database.post(endpoint, body.to_string());
            answer.assert_refused(400, "HRANA_PROTOCOL_ERROR", &["Received an invalid baton"]);
        }
    }
    stream.send(json!([execute("COMMIT")]));
    server.assert_well();
}

#[test]
fn a_body_over_the_limit_is_refused_with_the_limit_and_its_flag() {
    let mut server = Server::serve(&["--max-body-size", "1MiB"]);
    let database = server.database("app");
    let pad = |bytes: usize| json!({ "requests": [execute("SELECT 1")], "padding": "x".repeat(bytes) }).to_string();
    assert_eq!(database.post("v3/pipeline", pad((1 << 20) - 200)).status, 200);
    for endpoint in ["v3/pipeline", "v3/cursor"] {
        let answer = database.post(endpoint, pad(1 << 20));
        answer.assert_refused(413, "SHOAL_INVALID", &["larger than 1048576 bytes", "--max-body-size"]);
    }
    // Chunks without an end are cut off.
    let head = "POST /db/app/v3/pipeline HTTP/1.1\r\nhost: shoal\r\nconnection: close";
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let chunks = format!("{head}\r\ntransfer-encoding: chunked\r\n\r\n{}", chunk.repeat(40));
    assert!(raw(server.http, chunks.as_bytes()).starts_with("HTTP/1.1 413"), "chunks beyond the limit");
    server.assert_well();
}

/// A part of a few letters takes a hundred bytes and more once it is parsed.
#[test]
fn bodies_of_very_many_parts_are_refused_or_answered_within_the_memory() {
    let mut server = Server::serve(&["--memory", "128MiB"]);
    let database = server.database("app");
    database.run("CREATE TABLE t(a, b, c)");
    let all_of = |begin: &str, part: &str, bytes: usize, end: &str| {
        format!("{begin}{}{end}", vec![part; bytes / (part.len() + 1)].join(","))
    };
    let batch = (r#"{"requests":[{"type":"batch","batch":{"steps":["#, "]}}]}");
    let requests = (r#"{"requests":["#, "]}");
    let arguments = (r#"{"requests":[{"type":"execute","stmt":{"sql":"SELECT 1","args":["#, "]}}]}");
    let index = (r#"{"requests":[{"type":"execute","stmt":{"sql":"SELECT 1","replication_index":["#, "]}}]}");
    let condition = r#"{"condition":{"type":"and","conds":[{"type":"is_autocommit"}]},"stmt":{}}"#;
    let bodies = [
        (batch, r#"{"stmt":{}}"#, 30 << 20, 413),
        (batch, r#"{"stmt":{}}"#, 1 << 20, 400),
        (batch, r#"{"stmt":{"sql":"("}}"#, 2 << 20, 200),
        (batch, condition, 30 << 20, 413),
        (requests, r#"{"type":"get_autocommit"}"#, 30 << 20, 413),
        (requests, r#"{"type":"get_autocommit"}"#, 3 << 20, 200),
        (requests, r#"{"type":"sequence","sql":"("}"#, 1 << 20, 200),
        (requests, r#"{"type":"describe","sql":"SELECT ?30000"}"#, 1 << 17, 200),
        (arguments, r#"{"type":"null"}"#, 30 << 20, 413),
        (arguments, r#"{"type":"null"}"#, 3 << 20, 200),
        (index, "0", 30 << 20, 400),
        (index, "[]", 30 << 20, 413),
    ];
    let post = |((begin, end), part, bytes, status): ((&str, &str), &str, usize, u16), among_others: bool| {
        let answer = database.post("v3/pipeline", all_of(begin, part, bytes, end));
        let is_expected = answer.status == status || among_others && answer.status == 503;
        assert!(is_expected, "{part}, {bytes} bytes: {} {:.300}", answer.status, answer.text);
    };
    bodies.iter().for_each(|body| post(*body, false));
    std::thread::scope(|scope| {
        bodies.iter().for_each(|body| drop(scope.spawn(|| post(*body, true))));
        // What is small is answered beside them.
        for _ in 0..20 {
            assert_eq!(database.rows("SELECT 1"), [json!([1])]);
        }
    });
    // Many small statements are no such thing.
    let values = vec![json!({ "type": "integer", "value": "7" }); 3];
    let insert = json!({ "sql": "INSERT INTO t VALUES (?, ?, ?)", "args": values });
    let steps = vec![json!({ "stmt": insert }); 30_000];
    let body = json!({ "requests": [{ "type": "batch", "batch": { "steps": steps } }] }).to_string();
    let answer = database.post("v3/pipeline", &body);
    assert_eq!(answer.status, 200, "{:.300}", answer.text);
    assert_eq!(database.rows("SELECT count(*) FROM t"), [json!([30_000])]);
    let peak = server.peak_memory_bytes() >> 20;
    println!("{peak} MiB resident at the peak");
    assert!(peak <= 128 + 128, "{peak} MiB resident at the peak");
    server.assert_well();
}

#[test]
fn a_pipeline_of_more_requests_than_fit_into_an_answer_is_refused() {
    let server = Server::serve(&["--max-response-size", "64kB"]);
    let database = server.database("app");
    let requests = |count: usize| json!({ "requests": vec![json!({ "type": "get_autocommit" }); count] }).to_string();
    assert_eq!(database.post("v3/pipeline", requests(1_000)).status, 200);
    let refused = database.post("v3/pipeline", requests(1_001));
    refused.assert_refused(413, "SHOAL_INVALID", &["1001", "--max-response-size"]);
}

#[test]
fn a_wrong_method_is_told_the_right_one() {
    let mut server = Server::dev();
    server.database("app").run("SELECT 1");
    for (method, path, allow) in [
        ("GET", "db/app/v3/pipeline", "POST"),
        ("PUT", "db/app/v2/pipeline", "POST"),
        ("DELETE", "db/app/v3/cursor", "POST"),
        ("POST", "health", "GET, HEAD"),
        ("POST", "db/app/v3", "GET, HEAD"),
        ("BREW", "db/app/v3/pipeline", "POST"),
    ] {
        let answer = request(method, &server.url(path), &[], b"{}").expect("an answer");
        answer.assert_refused(405, "METHOD_NOT_ALLOWED", &[method, &format!("use {allow}")]);
        assert_eq!(answer.headers["allow"], allow);
    }
    server.assert_well();
}

#[test]
fn endpoints_that_do_not_exist_say_where_things_are() {
    let server = Server::dev();
    for path in ["db/app/v2/cursor", "db/app/v4/pipeline", "db/app/dumps", "db/app/v3/pipeline/more"] {
        let answer = post_to(&server.url(path), "{}");
        answer.assert_refused(404, "ENDPOINT_NOT_FOUND", &["v2/pipeline, v3/pipeline and v3/cursor", "/db/app/"]);
    }
    for path in ["db/app/v3-protobuf/pipeline", "v1/execute"] {
        post_to(&server.url(path), "{}").assert_refused(404, "PROTOCOL_NOT_SUPPORTED", &["Use Hrana 2 or 3 as JSON"]);
    }
}

#[test]
fn bytes_that_are_not_http_end_the_connection_and_nothing_else() {
    let mut server = Server::dev();
    for bytes in [
        &b"GARBAGE\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /db/app/v3/pipeline HTTP/1.1\r\nhost: a\r\ncontent-length: -5\r\n\r\n",
        b"POST /db/app/v3/pipeline HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\nZZZ\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
    ] {
        let answer = raw(server.http, bytes);
        assert!(answer.starts_with("HTTP/1.1 400"), "{:?}: {answer}", String::from_utf8_lossy(bytes));
    }
    let many_headers = format!("GET /health HTTP/1.1\r\n{}\r\n", "x-y: z\r\n".repeat(10_000));
    assert!(raw(server.http, many_headers.as_bytes()).starts_with("HTTP/1.1 431"), "too many headers");
    server.assert_well();
}

#[test]
fn a_body_that_breaks_off_runs_nothing() {
    let mut server = Server::dev();
    let database = server.database("app");
    database.run("CREATE TABLE t(a)");
    let body = json!({ "requests": [execute("INSERT INTO t VALUES (1)")] }).to_string();
    let whole = post_bytes("/db/app/v3/pipeline", &body);
    let answer = raw_to_the_end(server.http, &whole[..whole.len() - 2]);
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("broke off"), "{answer}");
    assert_eq!(database.rows("SELECT count(*) FROM t"), [json!([0])]);
    server.assert_well();
}

#[test]
fn a_pipeline_that_is_misunderstood_anywhere_runs_nowhere() {
    let server = Server::dev();
    let database = server.database("app");
    let stream = database.stream();
    let answer = stream.post(&json!([execute("CREATE TABLE t(a)"), { "type": "execute", "stmt": { "sql": ["x"] } }]));
    assert_eq!(answer.status, 400);
    assert_eq!(database.rows("SELECT count(*) FROM sqlite_schema"), [json!([0])]);
}

#[test]
fn the_administration_plane_refuses_what_it_does_not_know() {
    let mut server = Server::serve(&[]);
    for name in ["..%2F..%2Fetc", "a%2Fb", "UPPER", "v2", "-a", ".hidden", &"a".repeat(64), "%00", "a%20b"] {
        let answer = server.admin("POST", &format!("v1/namespaces/{name}/create"));
        assert_eq!(answer.status, 400, "{name}: {answer:?}");
        assert!(answer.error().1.contains("name"), "{answer:?}");
    }
    assert_eq!(server.admin("DELETE", "v1/namespaces/nope").status, 404);
    assert_eq!(server.admin("GET", "v1/namespaces/nope/create").status, 405);
    assert_eq!(server.admin("POST", "v1/everything").status, 404);
    for (method, path, words) in [
        ("GET", "v1/namespaces?limit=abc", "limit"),
        ("GET", "v1/namespaces?limit=0", "at least 1"),
        ("GET", "v1/namespaces/app/history?limit=-1", "limit"),
        ("GET", "v1/namespaces/app/history?limit=0", "at least 1"),
        ("GET", "v1/namespaces/app/history?before=x", "before"),
        ("POST", "v1/namespaces/app/import?bytes=-1&blake3=0", "bytes"),
        ("POST", "v1/namespaces/app/import?bytes=1", "blake3"),
    ] {
        server.admin(method, path).assert_refused(400, "SHOAL_INVALID", &[words]);
    }
    server.database("app");
    let dump = request("GET", &server.url("db/app/dump?preserve_row_ids=maybe"), &[], b"").expect("an answer");
    dump.assert_refused(400, "SHOAL_INVALID", &["preserve_row_ids"]);
    let again = server.admin("POST", "v1/namespaces/app/create");
    // The status of libSQL's server.
    again.assert_refused(400, "SHOAL_CONFLICT", &["`app` already exists"]);
    let url = format!("http://{}/v1/namespaces/other/create", server.admin);
    for (body, phrase) in [
        ("{", "not JSON settings"),
        ("[1]", "not JSON settings"),
        (r#"{"dump_url":"file:///etc/passwd"}"#, "`dump_url` is not supported"),
    ] {
        post_to(&url, body).assert_refused(400, "SHOAL_INVALID", &[phrase]);
    }
    assert_eq!(server.admin("GET", "v1/namespaces").json()["namespaces"], json!([{ "name": "app" }]));
    server.assert_well();
}

#[test]
fn many_bad_requests_at_once_leave_no_trace() {
    let mut server = Server::dev();
    let database = server.database("app");
    let clients: Vec<_> = (0..16)
        .map(|client| {
            let database = database.clone();
            std::thread::spawn(move || {
                for round in 0..20 {
                    match (client + round) % 4 {
                        0 => assert_eq!(database.post("v3/pipeline", "{").status, 400),
                        1 => assert_eq!(database.fails("selec").0, "SQL_PARSE_ERROR"),
                        2 => assert_eq!(database.fails("SELECT * FROM nope").0, "SQLITE_UNKNOWN"),
                        _ => assert_eq!(database.rows("SELECT 1"), [json!([1])]),
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("every answer is as expected");
    }
    assert_eq!(database.rows("SELECT count(*) FROM sqlite_schema"), Vec::from([json!([0])] as [Value; 1]));
    server.assert_well();
}
