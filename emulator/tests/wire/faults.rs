//! Faults: what the client sees, and what has happened in the bucket.

use std::time::Duration;

use emulator::{Chances, Fault, Operation, Outage};
use tokio::task::JoinSet;

use crate::client::*;

fn certain(set: impl FnOnce(&mut Chances)) -> Chances {
    let mut chances = Chances::default();
    set(&mut chances);
    chances
}

#[tokio::test]
async fn an_outage_answers_503_until_it_ends() {
    let (emulator, client) = start().await;
    put(&client, "k", "x").await.unwrap();
    emulator.faults().outage(Outage::Unavailable);
    assert_eq!(refused(put(&client, "k", "y").await), refusal(503, "ServiceUnavailable"));
    assert_eq!(refused(get(&client, "k").await), refusal(503, "ServiceUnavailable"));
    assert_eq!(emulator.object("k").unwrap(), "x");
    emulator.faults().outage(Outage::None);
    put(&client, "k", "y").await.unwrap();
    assert_eq!(emulator.faults().hits()[&Fault::OutageUnavailable], 2);
}

#[tokio::test]
async fn a_hanging_store_answers_when_it_is_back() {
    let (emulator, client) = start().await;
    emulator.faults().outage(Outage::Hang);
    let mut waiting = JoinSet::new();
    let writer = client.clone();
    waiting.spawn(async move { put(&writer, "k", "x").await });
    while emulator.faults().hits().get(&Fault::OutageHang) != Some(&1) {
        tokio::task::yield_now().await;
    }
    assert!(waiting.try_join_next().is_none(), "no answer yet");
    assert_eq!(emulator.object_count(), 0);
    emulator.faults().outage(Outage::None);
    waiting.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(emulator.object("k").unwrap(), "x");
}

#[tokio::test]
async fn a_write_whose_client_gave_up_still_happens() {
    let (emulator, client) = start().await;
    emulator.faults().outage(Outage::Hang);
    let mut waiting = JoinSet::new();
    let writer = client.clone();
    waiting.spawn(async move { put(&writer, "k", "x").await });
    while emulator.faults().hits().get(&Fault::OutageHang) != Some(&1) {
        tokio::task::yield_now().await;
    }
    waiting.shutdown().await;
    emulator.faults().outage(Outage::None);
    while emulator.object("k").is_none() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_answer_of_the_nth_put_is_lost_and_its_write_is_not() {
    let (emulator, client) = start().await;
    put(&client, "w/0", "x").await.unwrap();
    emulator.faults().drop_put_answer(2);
    put(&client, "w/1", "x").await.unwrap();
    assert!(unanswered(&put_absent(&client, "w/2", "mine").await));
    put(&client, "w/3", "x").await.unwrap();
    assert_eq!(emulator.object("w/2").unwrap(), "mine");
    // The retry of a write that has happened meets itself.
    assert_eq!(
        refused(put_absent(&client, "w/2", "mine").await),
        refusal(412, "PreconditionFailed")
    );
    assert_eq!(emulator.faults().hits()[&Fault::LostAnswer], 1);
}

#[tokio::test]
async fn puts_can_be_counted_within_a_class() {
    let (emulator, client) = start().await;
    emulator.faults().drop_put_answer_of("w", 2);
    put(&client, "inc/1", "x").await.unwrap();
    put(&client, "w/1", "x").await.unwrap();
    put(&client, "inc/1", "x").await.unwrap();
    assert!(unanswered(&put(&client, "w/2", "x").await));
    put(&client, "w/3", "x").await.unwrap();
}

#[tokio::test]
async fn faults_before_applying_leave_no_trace() {
    let (emulator, client) = start().await;
    let faults = emulator.faults();
    faults.chances(certain(|chances| chances.unavailable = 1.0));
    assert_eq!(refused(put(&client, "k", "x").await), refusal(503, "SlowDown"));
    faults.chances(certain(|chances| chances.conflict = 1.0));
    let conflict = put(&client, "k", "x").await;
    assert_eq!(refused(conflict), refusal(409, "ConditionalRequestConflict"));
    faults.chances(certain(|chances| chances.lost_request = 1.0));
    assert!(unanswered(&put(&client, "k", "x").await));
    faults.deny(true);
    assert_eq!(refused(put(&client, "k", "x").await), refusal(403, "AccessDenied"));
    assert_eq!(emulator.object_count(), 0);
    faults.clear();
    put(&client, "k", "x").await.unwrap();
    let hits = faults.hits();
    let struck = [Fault::Unavailable, Fault::Conflict, Fault::LostRequest, Fault::Denied];
    assert!(struck.iter().all(|fault| hits[fault] == 1), "{hits:?}");
}

#[tokio::test]
async fn faults_after_applying_leave_the_write() {
    let (emulator, client) = start().await;
    let faults = emulator.faults();
    faults.chances(certain(|chances| chances.failed_after = 1.0));
    assert_eq!(refused(put(&client, "one", "x").await), refusal(500, "InternalError"));
    assert_eq!(emulator.object("one").unwrap(), "x");
    faults.chances(certain(|chances| chances.lost_answer = 1.0));
    assert!(unanswered(&put(&client, "two", "x").await));
    assert_eq!(emulator.object("two").unwrap(), "x");
}

#[tokio::test]
async fn a_conflict_strikes_only_puts_and_a_cut_only_gets() {
    let (emulator, client) = start().await;
    let faults = emulator.faults();
    faults.chances(certain(|chances| chances.cut_answer = 1.0));
    put(&client, "k", "0123456789").await.unwrap();
    let object = client.get_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(object.content_length(), Some(10), "the head promises everything");
    object.body.collect().await.expect_err("the body breaks off");
    faults.chances(certain(|chances| chances.conflict = 1.0));
    assert_eq!(get(&client, "k").await.unwrap(), "0123456789");
}

#[tokio::test]
async fn chances_strike_about_as_often_as_they_say() {
    let (emulator, client) = start().await;
    emulator.faults().chances(certain(|chances| chances.unavailable = 0.5));
    let mut refusals = 0;
    for _ in 0..200 {
        refusals += u64::from(get(&client, "none").await.is_err_and(|error| {
            error.raw_response().is_some_and(|response| response.status().as_u16() == 503)
        }));
    }
    // The seed is fixed and requests come one by one, so this is the same number every time.
    assert!((70..130).contains(&refusals), "{refusals} of 200");
    assert_eq!(emulator.faults().hits()[&Fault::Unavailable], refusals);
}

#[tokio::test]
async fn one_class_can_be_slower_than_the_others() {
    let (emulator, client) = start().await;
    let slow = Duration::from_millis(50);
    emulator.faults().delay(Operation::Put, "w", slow);
    let begun = tokio::time::Instant::now();
    put(&client, "w/1", "x").await.unwrap();
    assert!(begun.elapsed() >= slow - Duration::from_millis(1));
    put(&client, "b/1", "x").await.unwrap();
    get(&client, "w/1").await.unwrap();
    assert_eq!(emulator.faults().hits()[&Fault::Delayed], 1, "only the PUT of that class");
}
