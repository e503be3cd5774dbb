//! The proxy: what the client sees, and what has happened in the bucket.

use std::time::Duration;

use aws_sdk_s3::Client;
use emulator::{Emulator, EmulatorConfig, Proxy, ProxyFault};

use crate::client::*;

/// An emulator with a thread of its own, a proxy before it, and a client that knows the proxy.
fn start() -> (Emulator, Proxy, Client) {
    let emulator = Emulator::start_in_thread(EmulatorConfig::default()).unwrap();
    let address = emulator.endpoint().trim_start_matches("http://").parse().unwrap();
    let proxy = Proxy::start(address, 7).unwrap();
    let config = config(proxy.endpoint(), emulator.access_key(), emulator.secret_key());
    (emulator, proxy, Client::from_conf(config.build()))
}

/// Runs one PUT of `k` that is struck by `fault`.
async fn struck_put(fault: ProxyFault) -> (Emulator, Proxy, Client, PutResult) {
    let (emulator, proxy, client) = start();
    proxy.faults().hole(Duration::from_millis(50));
    proxy.faults().slow_max(Duration::from_millis(50));
    proxy.faults().chance(fault, 1.0);
    let put = put_absent(&client, "k", "mine").await;
    proxy.faults().clear();
    assert_eq!(proxy.faults().hits()[&fault], 1);
    (emulator, proxy, client, put)
}

#[tokio::test]
async fn requests_and_answers_pass_through_unchanged() {
    let (emulator, proxy, client) = start();
    let tag = etag(put_absent(&client, "k", "one").await);
    etag(put_match(&client, "k", "two", &tag).await);
    assert_eq!(refused(put_match(&client, "k", "three", &tag).await), refusal(412, "PreconditionFailed"));
    assert_eq!(get(&client, "k").await.unwrap(), "two");
    assert_eq!(refused(get(&client, "none").await), refusal(404, "NoSuchKey"));
    let head = client.head_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(head.content_length(), Some(3));
    client.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(emulator.object_count(), 0);
    assert_eq!((proxy.faults().requests(), proxy.faults().puts()), (7, 3));
}

#[tokio::test]
async fn faults_before_the_store_leave_no_trace() {
    for fault in [ProxyFault::LostRequest, ProxyFault::ResetBefore] {
        let (emulator, _proxy, _client, put) = struck_put(fault).await;
        assert!(unanswered(&put), "{fault:?}");
        assert_eq!(emulator.object_count(), 0, "{fault:?}");
    }
    for (fault, status, code) in [
        (ProxyFault::Conflict, 409, "ConditionalRequestConflict"),
        (ProxyFault::Throttled, 429, "SlowDown"),
        (ProxyFault::Unavailable, 503, "SlowDown"),
    ] {
        let (emulator, _proxy, _client, put) = struck_put(fault).await;
        assert_eq!(refused(put), refusal(status, code));
        assert_eq!(emulator.object_count(), 0, "{fault:?}");
    }
}

#[tokio::test]
async fn faults_after_the_store_leave_the_write() {
    for fault in [ProxyFault::LostAnswer, ProxyFault::ResetAfter] {
        let (emulator, _proxy, _client, put) = struck_put(fault).await;
        assert!(unanswered(&put), "{fault:?}");
        assert_eq!(emulator.object("k").unwrap(), "mine", "{fault:?}");
    }
    let (emulator, _proxy, _client, put) = struck_put(ProxyFault::FailedAfter).await;
    assert_eq!(refused(put), refusal(500, "InternalError"));
    assert_eq!(emulator.object("k").unwrap(), "mine");
}

#[tokio::test]
async fn a_put_that_is_sent_twice_is_refused_because_of_itself() {
    let (emulator, _proxy, _client, put) = struck_put(ProxyFault::SentTwice).await;
    assert_eq!(refused(put), refusal(412, "PreconditionFailed"));
    assert_eq!(emulator.object("k").unwrap(), "mine");
}

#[tokio::test]
async fn a_put_that_is_sent_again_later_arrives_after_what_came_between() {
    let (emulator, _proxy, client, put) = struck_put(ProxyFault::SentAgainLater).await;
    put.unwrap();
    client.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
    while emulator.object("k").is_none() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn slow_requests_arrive() {
    let (emulator, _proxy, _client, put) = struck_put(ProxyFault::Slow).await;
    put.unwrap();
    assert_eq!(emulator.object("k").unwrap(), "mine");
}

#[tokio::test]
async fn a_black_hole_ends_and_what_it_swallowed_is_whole_or_gone() {
    let (emulator, _proxy, client, put) = struck_put(ProxyFault::BlackHole).await;
    assert_eq!(put.is_ok(), emulator.object("k").is_some());
    // The hole has ended with its request.
    put_bytes(&client, "later", "x".into()).await.unwrap();
}

#[tokio::test]
async fn the_answer_of_the_nth_put_is_lost_and_its_write_is_not() {
    let (emulator, proxy, client) = start();
    proxy.faults().drop_put_answer(2);
    put(&client, "1", "x").await.unwrap();
    assert!(unanswered(&put(&client, "2", "x").await));
    put(&client, "3", "x").await.unwrap();
    assert_eq!(emulator.object_count(), 3);
}

#[tokio::test]
async fn a_cut_answer_is_noticed() {
    let (_emulator, proxy, client) = start();
    put_bytes(&client, "k", vec![1; 1000].into()).await.unwrap();
    proxy.faults().chance(ProxyFault::CutAnswer, 1.0);
    let object = client.get_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(object.content_length(), Some(1000));
    assert!(object.body.collect().await.is_err(), "its body breaks off");
}

#[tokio::test]
async fn a_stale_listing_is_what_it_was() {
    let (_emulator, proxy, client) = start();
    let list = async || {
        let listed = client.list_objects_v2().bucket(BUCKET).send().await.unwrap();
        listed.contents().iter().map(|object| object.key().unwrap().to_owned()).collect::<Vec<_>>()
    };
    proxy.faults().chance(ProxyFault::StaleList, 1.0);
    put(&client, "a", "x").await.unwrap();
    assert_eq!(list().await, ["a"], "there is nothing earlier to show");
    put(&client, "b", "x").await.unwrap();
    assert_eq!(list().await, ["a"]);
    proxy.faults().clear();
    assert_eq!(list().await, ["a", "b"]);
    assert_eq!(proxy.faults().hits()[&ProxyFault::StaleList], 1);
}
