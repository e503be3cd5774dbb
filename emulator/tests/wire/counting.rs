//! What is counted, and how keys fall into classes.

use std::time::Duration;

use emulator::{Counter, EmulatorConfig, Operation};
use tokio::task::JoinSet;

use crate::client::*;

fn counter(requests: u64, bytes: u64) -> Counter {
    Counter { requests, bytes }
}

#[tokio::test]
async fn requests_and_bytes_are_counted_by_operation_and_class() {
    let (emulator, client) = start().await;
    put(&client, "w/1f/inc/1", "0123456789").await.unwrap();
    put(&client, "w/1f/inc/2", "01234").await.unwrap();
    put(&client, "t/1f/db/head", "head").await.unwrap();
    put(&client, "t/1f/db/p/1-1-aa", "pack").await.unwrap();
    put(&client, "t/1f/db/m/1-aa", "map").await.unwrap();
    get(&client, "t/1f/db/head").await.unwrap();
    let range = client.get_object().bucket(BUCKET).key("w/1f/inc/1").range("bytes=2-4");
    range.send().await.unwrap();
    client.head_object().bucket(BUCKET).key("w/1f/inc/1").send().await.unwrap();
    client.delete_object().bucket(BUCKET).key("w/1f/inc/1").send().await.unwrap();
    client.list_objects_v2().bucket(BUCKET).prefix("n/").send().await.unwrap();
    let counters = emulator.counters();
    assert_eq!(counters.get(Operation::Put, "w"), counter(2, 15));
    assert_eq!(counters.get(Operation::Put, "head"), counter(1, 4));
    assert_eq!(counters.get(Operation::Put, "pack"), counter(1, 4));
    assert_eq!(counters.get(Operation::Put, "map"), counter(1, 3));
    assert_eq!(counters.get(Operation::Get, "head"), counter(1, 4));
    assert_eq!(counters.get(Operation::Get, "w"), counter(1, 3), "the bytes of the range");
    assert_eq!(counters.get(Operation::Head, "w"), counter(1, 0));
    assert_eq!(counters.get(Operation::Delete, "w"), counter(1, 0));
    assert_eq!(counters.get(Operation::List, "n").requests, 1);
    assert_eq!(counters.of_operation(Operation::Put), counter(5, 26));
    assert_eq!(counters.of_class("w").requests, 5);
    assert_eq!(counters.total().requests, 10);
}

#[tokio::test]
async fn refused_requests_count_too() {
    let (emulator, client) = start().await;
    put_absent(&client, "w/1", "x").await.unwrap();
    put_absent(&client, "w/1", "x").await.unwrap_err();
    get(&client, "w/2").await.unwrap_err();
    let counters = emulator.counters();
    assert_eq!(counters.get(Operation::Put, "w"), counter(2, 2));
    assert_eq!(counters.get(Operation::Get, "w"), counter(1, 0), "an error's body does not count");
}

#[tokio::test]
async fn a_difference_and_a_reset_leave_what_came_later() {
    let (emulator, client) = start().await;
    put(&client, "w/1", "x").await.unwrap();
    let before = emulator.counters();
    put(&client, "b/1", "xy").await.unwrap();
    let added = emulator.counters().since(&before);
    assert_eq!(added.total(), counter(1, 2));
    assert_eq!(added.get(Operation::Put, "b"), counter(1, 2));
    emulator.reset_counters();
    assert_eq!(emulator.counters().total(), counter(0, 0));
}

#[tokio::test]
async fn a_configured_prefix_has_no_say_in_the_class() {
    let config = EmulatorConfig { prefix: "prod/shoal".into(), ..EmulatorConfig::default() };
    let (emulator, client) = start_with(config).await;
    put(&client, "prod/shoal/w/1", "x").await.unwrap();
    client.list_objects_v2().bucket(BUCKET).prefix("prod/shoal/n/").send().await.unwrap();
    let counters = emulator.counters();
    assert_eq!(counters.of_class("w").requests, 1);
    assert_eq!(counters.of_class("n").requests, 1);
    let endpoint = emulator.endpoint();
    let url = format!("s3://shoal/prod/shoal?endpoint={endpoint}&region=us-east-1");
    assert_eq!(emulator.store_url(), url);
}

#[tokio::test]
async fn the_most_requests_in_flight_are_remembered() {
    let (emulator, client) = start().await;
    let hold = emulator.faults().hold_all("w");
    let mut puts = JoinSet::new();
    for i in 0..4 {
        let client = client.clone();
        puts.spawn(async move { put(&client, &format!("w/{i}"), "x").await });
    }
    while hold.caught() < 4 {
        tokio::task::yield_now().await;
    }
    hold.release();
    assert!(puts.join_all().await.iter().all(Result::is_ok));
    assert_eq!(emulator.in_flight_max(Operation::Put), 4);
    assert_eq!(emulator.in_flight_max(Operation::Get), 0);
}

#[tokio::test]
async fn a_profile_delays_and_can_change_while_running() {
    let (emulator, client) = start().await;
    emulator.set_profile("fixed:50".parse().unwrap());
    let begun = tokio::time::Instant::now();
    put(&client, "k", "x").await.unwrap();
    // Only a lower bound: a busy machine may take longer, but nothing is answered early.
    assert!(begun.elapsed() >= Duration::from_millis(49));
}

#[tokio::test]
async fn the_journal_tells_which_request_waited_for_which() {
    let config = EmulatorConfig { prefix: "here".to_owned(), ..EmulatorConfig::default() };
    let (emulator, client) = start_with(config).await;
    put(&client, "here/w/0", "before").await.unwrap();
    let hold = emulator.faults().hold("w");
    emulator.begin_journal();
    let meanwhile = async {
        hold.wait().await;
        get(&client, "here/b c").await.unwrap_err();
        hold.release();
    };
    let (held, ()) = tokio::join!(put(&client, "here/w/1", "x"), meanwhile);
    held.unwrap();
    emulator.faults().drop_put_answer(1);
    assert!(unanswered(&put(&client, "here/w/2", "x").await));

    let journal = emulator.end_journal();
    let shown: Vec<_> = journal
        .iter()
        .map(|entry| (entry.operation, entry.class.as_str(), entry.key.as_str(), entry.status))
        .collect();
    assert_eq!(
        shown,
        [
            (Operation::Put, "w", "here/w/1", Some(200)),
            (Operation::Get, "b c", "here/b c", Some(404)),
            (Operation::Put, "w", "here/w/2", None),
        ]
    );
    let [held, get, after] = &journal[..] else { panic!("three requests") };
    assert!(held.began <= get.began && get.ended <= held.ended, "the GET came and went meanwhile");
    assert!(held.ended <= after.began, "in sequence");
    put(&client, "here/w/3", "x").await.unwrap();
    assert_eq!(emulator.end_journal(), [], "it has ended");
}
