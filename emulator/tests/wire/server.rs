//! Credentials, starting and stopping, damage, and the control paths.

use aws_sdk_s3::Client;
use emulator::{Emulator, EmulatorConfig, Operation};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::*;

/// Sends a request without credentials and gives back the status line and the body.
async fn raw(emulator: &Emulator, request: &str) -> (String, String) {
    let address = emulator.endpoint().replace("http://", "");
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let request = format!("{request} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[tokio::test]
async fn wrong_credentials_are_refused() {
    let (emulator, _) = start().await;
    let with = |access: &str, secret: &str| {
        Client::from_conf(config(emulator.endpoint(), access, secret).build())
    };
    let unknown = put(&with("someone", emulator.secret_key()), "k", "x").await;
    assert_eq!(refused(unknown), refusal(403, "InvalidAccessKeyId"));
    let wrong = put(&with(emulator.access_key(), "guessed"), "k", "x").await;
    assert_eq!(refused(wrong), refusal(403, "SignatureDoesNotMatch"));
    let (status, body) = raw(&emulator, "GET /shoal/k").await;
    assert!(status.contains("403") && body.contains("AccessDenied"), "{status} {body}");
    assert_eq!(emulator.object_count(), 0);
}

#[test]
fn an_emulator_with_its_own_thread_serves_and_stops() {
    let config = EmulatorConfig { threads: 2, ..EmulatorConfig::default() };
    let emulator = Emulator::start_in_thread(config).unwrap();
    let endpoint = emulator.endpoint();
    let client = client(&emulator);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        put(&client, "k", "x").await.unwrap();
        assert_eq!(get(&client, "k").await.unwrap(), "x");
    });
    emulator.stop();
    assert!(runtime.block_on(async { unanswered(&put(&client, "k", "y").await) }));
    // The port is free again.
    let listen = endpoint.replace("http://", "").parse().unwrap();
    let again = EmulatorConfig { listen, ..EmulatorConfig::default() };
    let again = Emulator::start_in_thread(again).unwrap();
    assert_eq!(again.endpoint(), endpoint);
    assert_eq!(again.object_count(), 0);
}

#[tokio::test]
async fn two_emulators_cannot_share_a_port() {
    let (emulator, _) = start().await;
    let listen = emulator.endpoint().replace("http://", "").parse().unwrap();
    let second = Emulator::start(EmulatorConfig { listen, ..EmulatorConfig::default() }).await;
    assert_eq!(second.err().unwrap().kind(), std::io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn damage_changes_the_bytes_and_not_the_etag() {
    let (emulator, client) = start().await;
    let written = etag(put(&client, "k", "hello").await);
    assert!(emulator.corrupt("k", |bytes| bytes[0] ^= 0x20));
    assert!(!emulator.corrupt("none", |bytes| bytes.clear()));
    let damaged = client.get_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(damaged.e_tag(), Some(written.as_str()));
    assert_eq!(damaged.body.collect().await.unwrap().into_bytes(), "Hello");
    assert!(emulator.remove("k"));
    assert!(!emulator.remove("k"));
    emulator.insert("k", "again");
    assert_eq!(get(&client, "k").await.unwrap(), "again");
    assert_eq!(emulator.counters().total().requests, 3, "only what went over the wire");
}

#[tokio::test]
async fn the_control_paths_read_counters_and_switch_faults() {
    let (emulator, client) = start().await;
    put(&client, "w/1", "hello").await.unwrap();
    let (status, body) = raw(&emulator, "GET /-/counters").await;
    assert!(status.contains("200"));
    let counters: serde_json::Value = serde_json::from_str(&body).unwrap();
    let row = serde_json::json!({"operation": "put", "class": "w", "requests": 1, "bytes": 5});
    assert_eq!(counters["counters"], serde_json::json!([row]));
    assert_eq!(counters["in_flight_max"]["put"], 1);

    assert!(raw(&emulator, "PUT /-/outage/unavailable").await.0.contains("200"));
    assert_eq!(refused(put(&client, "w/2", "x").await).0, 503);
    assert!(raw(&emulator, "PUT /-/outage/none").await.0.contains("200"));
    assert!(raw(&emulator, "PUT /-/drop-put/1").await.0.contains("200"));
    assert!(unanswered(&put(&client, "w/2", "x").await));
    assert!(raw(&emulator, "DELETE /-/counters").await.0.contains("200"));
    assert_eq!(emulator.counters().of_operation(Operation::Put).requests, 0);

    assert!(raw(&emulator, "PUT /-/journal").await.0.contains("200"));
    put(&client, "w/3", "x").await.unwrap();
    let journal: serde_json::Value =
        serde_json::from_str(&raw(&emulator, "DELETE /-/journal").await.1).unwrap();
    assert_eq!(journal[0]["key"], "w/3");
    assert_eq!(journal[0]["status"], 200);
    assert!(journal[0]["began_micros"].as_u64() <= journal[0]["ended_micros"].as_u64());
}

#[tokio::test]
async fn unknown_control_paths_change_nothing_and_explain_themselves() {
    let (emulator, client) = start().await;
    for request in [
        "GET /-/",
        "GET /-/outage/hang",
        "PUT /-/outage/total",
        "PUT /-/deny/maybe",
        "PUT /-/drop-put/0",
        "PUT /-/drop-put/-1",
        "PUT /-/profile/fast",
        "PUT /-/a/b/c",
    ] {
        let (status, body) = raw(&emulator, request).await;
        assert!(status.contains("404") && body.contains("/-/counters"), "{request}: {status}");
    }
    put(&client, "k", "x").await.unwrap();
}
