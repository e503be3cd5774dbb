//! The two conditional writes that everything above the store rests on.

use std::sync::Arc;

use aws_sdk_s3::primitives::ByteStream;
use emulator::Fault;
use tokio::task::JoinSet;

use crate::client::*;

#[tokio::test]
async fn create_if_absent_succeeds_once() {
    let (_emulator, client) = start().await;
    put_absent(&client, "w/1", "first").await.unwrap();
    assert_eq!(
        refused(put_absent(&client, "w/1", "second").await),
        refusal(412, "PreconditionFailed")
    );
    assert_eq!(get(&client, "w/1").await.unwrap(), "first");
    client.delete_object().bucket(BUCKET).key("w/1").send().await.unwrap();
    put_absent(&client, "w/1", "third").await.unwrap();
}

#[tokio::test]
async fn replace_if_match_needs_the_present_etag() {
    let (_emulator, client) = start().await;
    let first = etag(put(&client, "head", "one").await);
    let second = etag(put_match(&client, "head", "two", &first).await);
    assert_ne!(first, second);
    let stale = put_match(&client, "head", "three", &first).await;
    assert_eq!(refused(stale), refusal(412, "PreconditionFailed"));
    assert_eq!(get(&client, "head").await.unwrap(), "two");
}

#[tokio::test]
async fn replacing_what_is_not_there_is_404() {
    let (emulator, client) = start().await;
    let put = put_match(&client, "head", "x", "\"5d41402abc4b2a76b9719d911017c592\"").await;
    assert_eq!(refused(put), refusal(404, "NoSuchKey"));
    assert_eq!(emulator.object_count(), 0);
}

#[tokio::test]
async fn conditions_that_s3_does_not_know_are_refused() {
    let (emulator, client) = start().await;
    let put = || client.put_object().bucket(BUCKET).key("k").body(ByteStream::from_static(b"x"));
    for put in [
        put().if_none_match("\"some-etag\""),
        put().if_match("*"),
        put().if_none_match("*").if_match("\"some-etag\""),
    ] {
        assert_eq!(refused(put.send().await), refusal(501, "NotImplemented"));
    }
    assert_eq!(emulator.object_count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_32_concurrent_creators_one_wins() {
    let (_emulator, client) = start().await;
    let client = Arc::new(client);
    for round in 0..10 {
        let mut creators = JoinSet::new();
        for _ in 0..32 {
            let client = Arc::clone(&client);
            creators.spawn(async move { put_absent(&client, &format!("w/{round}"), "x").await });
        }
        let results = creators.join_all().await;
        let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        for loser in lost {
            assert_eq!(refused(loser), refusal(412, "PreconditionFailed"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_32_concurrent_replacers_one_wins() {
    let (_emulator, client) = start().await;
    let client = Arc::new(client);
    // The bytes change each round: equal bytes would have equal ETags, and then all may win in turn.
    let bodies = ["a", "b", "c", "d", "e"];
    let mut present = etag(put(&client, "head", "start").await);
    for body in bodies {
        let mut replacers = JoinSet::new();
        for _ in 0..32 {
            let (client, present) = (Arc::clone(&client), present.clone());
            replacers.spawn(async move { put_match(&client, "head", body, &present).await });
        }
        let mut won: Vec<_> =
            replacers.join_all().await.into_iter().filter(Result::is_ok).collect();
        assert_eq!(won.len(), 1);
        present = etag(won.remove(0));
    }
}

#[tokio::test]
async fn a_store_without_conditions_can_be_played() {
    let (emulator, client) = start().await;
    emulator.faults().ignore_conditions(true);
    put_absent(&client, "k", "one").await.unwrap();
    put_absent(&client, "k", "two").await.unwrap();
    put_match(&client, "k", "three", "\"stale\"").await.unwrap();
    assert_eq!(get(&client, "k").await.unwrap(), "three");
    assert_eq!(emulator.faults().hits()[&Fault::ConditionIgnored], 3);
    emulator.faults().ignore_conditions(false);
    assert_eq!(refused(put_absent(&client, "k", "x").await).0, 412);
}
