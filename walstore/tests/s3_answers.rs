//! What the S3 store makes of the answers of a scripted server, through the whole of the SDK: each request
//! is sent exactly once, and each way to fail has the right kind.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use walstore::store::{
    Condition, ETag, Key, Put, S3Credentials, S3Location, S3Options, S3Store, Store, StoreError,
    StoreErrorKind,
};

/// What the server does with every request: the bytes that it sends before it hangs up.
#[derive(Clone)]
enum Script {
    Answer(Vec<u8>),
    /// Reads the request and never answers.
    Silence,
}

struct Server {
    address: String,
    /// The head of each request.
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = format!("http://{}", listener.local_addr().expect("has an address"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for connection in listener.incoming() {
                let mut connection = connection.expect("accepts");
                let Some(head) = read_request(&mut connection) else {
                    continue;
                };
                log.lock().expect("no panic").push(head);
                match &script {
                    Script::Answer(answer) => connection.write_all(answer).expect("writes"),
                    Script::Silence => silent.push(connection),
                }
            }
        });
        Self { address, requests }
    }

    async fn store(&self) -> S3Store {
        let location = S3Location {
            bucket: "bucket".into(),
            prefix: "pre".into(),
            endpoint: Some(self.address.clone()),
            region: Some("us-east-1".into()),
            path_style: None,
        };
        let credentials =
            S3Credentials { access_key_id: "id".into(), secret_access_key: "secret".into() };
        let options = S3Options {
            attempt_timeout: Duration::from_millis(500),
            credentials: Some(credentials),
        };
        S3Store::open(&location, &options).await.expect("opens")
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no panic").clone()
    }
}

fn read_request(connection: &mut TcpStream) -> Option<String> {
    let mut reader = BufReader::new(connection);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
    reader.read_exact(&mut body).ok()?;
    Some(head)
}

fn answer(status: &str, headers: &str, body: &str) -> Script {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    Script::Answer(format!("{head}{body}").into_bytes())
}

fn error(status: &str, code: &str) -> Script {
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>Because.</Message></Error>"
    );
    answer(status, "Content-Type: application/xml\r\n", &body)
}

fn key() -> Key {
    Key::new("a/b")
}

async fn put(store: &S3Store, condition: Condition) -> Result<Put, StoreError> {
    store.put(&key(), Bytes::from_static(b"body"), &condition).await
}

#[tokio::test]
async fn a_put_is_one_request_with_its_condition_and_no_trailers() {
    let server = Server::start(answer("200 OK", "ETag: \"e1\"\r\n", ""));
    let store = server.store().await;
    let etag = ETag("\"e0\"".into());
    assert_eq!(put(&store, Condition::Absent).await.unwrap(), Put::Done(ETag("\"e1\"".into())));
    assert!(put(&store, Condition::Match(etag)).await.is_ok());
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests[0].starts_with("put /bucket/pre/a/b"), "{}", requests[0]);
    assert!(requests[0].contains("\r\nif-none-match: *\r\n"), "{}", requests[0]);
    assert!(requests[1].contains("\r\nif-match: \"e0\"\r\n"), "{}", requests[1]);
    for refused_by_some_stores in ["x-amz-trailer", "aws-chunked", "x-amz-checksum", "expect:"] {
        assert!(!requests[0].contains(refused_by_some_stores), "{}", requests[0]);
    }
}

#[tokio::test]
async fn a_refusal_is_told_apart_from_what_is_unknown_and_nothing_is_sent_twice() {
    let matching = || Condition::Match(ETag("\"e\"".into()));
    for (script, condition, expected) in [
        (
            error("412 Precondition Failed", "PreconditionFailed"),
            Condition::Absent,
            Ok(Put::Refused),
        ),
        (error("412 Precondition Failed", "PreconditionFailed"), matching(), Ok(Put::Refused)),
        (error("404 Not Found", "NoSuchKey"), matching(), Ok(Put::Refused)),
        (
            error("409 Conflict", "ConditionalRequestConflict"),
            matching(),
            Err(StoreErrorKind::Indefinite),
        ),
        (error("503 Slow Down", "SlowDown"), Condition::Absent, Err(StoreErrorKind::Indefinite)),
        (
            error("500 Internal", "InternalError"),
            Condition::Absent,
            Err(StoreErrorKind::Indefinite),
        ),
        (
            answer("502 Bad Gateway", "", "<html>"),
            Condition::Absent,
            Err(StoreErrorKind::Indefinite),
        ),
        (Script::Answer(Vec::new()), Condition::Absent, Err(StoreErrorKind::Indefinite)),
        (Script::Silence, Condition::Absent, Err(StoreErrorKind::Indefinite)),
        (error("404 Not Found", "NoSuchBucket"), Condition::Absent, Err(StoreErrorKind::Missing)),
        (error("403 Forbidden", "AccessDenied"), Condition::Absent, Err(StoreErrorKind::Denied)),
        (
            error("501 Not Implemented", "NotImplemented"),
            Condition::Absent,
            Err(StoreErrorKind::Invalid),
        ),
        (answer("200 OK", "", ""), Condition::Absent, Err(StoreErrorKind::Invalid)),
    ] {
        let server = Server::start(script);
        let answered = put(&server.store().await, condition).await;
        assert_eq!(answered.map_err(|error| error.kind), expected);
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_get_is_whole_or_absent_or_an_error() {
    for (script, expected) in [
        (answer("200 OK", "ETag: \"e\"\r\n", "whole"), Ok(Some("whole"))),
        (error("404 Not Found", "NoSuchKey"), Ok(None)),
        (error("404 Not Found", "NoSuchBucket"), Err(StoreErrorKind::Missing)),
        (answer("404 Not Found", "", "default backend"), Err(StoreErrorKind::Retry)),
        (error("503 Slow Down", "SlowDown"), Err(StoreErrorKind::Retry)),
        (Script::Silence, Err(StoreErrorKind::Retry)),
        (
            Script::Answer(
                b"HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 9\r\n\r\ncut".to_vec(),
            ),
            Err(StoreErrorKind::Retry),
        ),
        (answer("200 OK", "", "no etag"), Err(StoreErrorKind::Invalid)),
    ] {
        let server = Server::start(script);
        let answered = server.store().await.get(&key()).await;
        let bytes =
            answered.map(|object| object.map(|object| object.bytes)).map_err(|error| error.kind);
        assert_eq!(bytes, expected.map(|text| text.map(Bytes::from)));
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_part_is_what_was_asked_for_or_an_error() {
    let part = |range: &str| {
        answer("206 Partial Content", &format!("ETag: \"e\"\r\nContent-Range: {range}\r\n"), "abc")
    };
    for (script, asked, expected) in [
        (part("bytes 5-7/100"), 5..8, Ok("abc")),
        (part("bytes 5-7/8"), 5..10, Ok("abc")),
        (part("bytes 5-7/100"), 5..10, Err(StoreErrorKind::Retry)),
        (part("bytes 0-2/100"), 5..8, Err(StoreErrorKind::Retry)),
        (
            answer("200 OK", "ETag: \"e\"\r\n", "the whole object"),
            5..8,
            Err(StoreErrorKind::Invalid),
        ),
        (error("416 Range Not Satisfiable", "InvalidRange"), 5..8, Err(StoreErrorKind::Corrupt)),
    ] {
        let server = Server::start(script);
        let answered = server.store().await.get_range(&key(), asked).await;
        let bytes = answered.map(|object| object.expect("there").bytes).map_err(|error| error.kind);
        assert_eq!(bytes, expected.map(Bytes::from));
    }
}

#[tokio::test]
async fn messages_name_the_bucket_and_the_way_out() {
    let server = Server::start(error("403 Forbidden", "SignatureDoesNotMatch"));
    let error = server.store().await.get(&key()).await.unwrap_err();
    let expected = format!(
        "a/b: 403 SignatureDoesNotMatch from bucket `bucket` at {}: \
         check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        server.address
    );
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_named() {
    let free =
        TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("has an address");
    let server = Server { address: format!("http://{free}"), requests: Arc::default() };
    let store = server.store().await;
    let read = store.get(&key()).await.unwrap_err();
    assert_eq!(read.kind, StoreErrorKind::Retry);
    assert!(read.message.contains(&free.to_string()), "{read}");
    assert!(read.message.to_lowercase().contains("refused"), "{read}");
    assert_eq!(put(&store, Condition::Absent).await.unwrap_err().kind, StoreErrorKind::Indefinite);
}

#[tokio::test]
async fn a_listing_leaves_out_the_prefix_and_what_is_not_ours() {
    let body = "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated>\
        <Contents><Key>pre/a</Key></Contents><Contents><Key>pre/a//b</Key></Contents>\
        <Contents><Key>pre/c d</Key></Contents><Contents><Key>pre/e</Key></Contents></ListBucketResult>";
    let server = Server::start(answer("200 OK", "Content-Type: application/xml\r\n", body));
    let keys = server.store().await.list("", Some("0"), 10).await.unwrap();
    assert_eq!(keys, [Key::new("a"), Key::new("e")]);
    let request = server.requests().remove(0);
    assert!(
        request.contains("prefix=pre%2f&") && request.contains("start-after=pre%2f0"),
        "{request}"
    );
}

#[tokio::test]
async fn a_listing_out_of_order_is_refused() {
    let body = "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated>\
        <Contents><Key>pre/b</Key></Contents><Contents><Key>pre/a</Key></Contents></ListBucketResult>";
    let server = Server::start(answer("200 OK", "Content-Type: application/xml\r\n", body));
    let error = server.store().await.list("", None, 10).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Invalid);
    assert!(error.message.contains("ascending"), "{error}");
}
