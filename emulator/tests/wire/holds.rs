//! Holding a PUT back, to look at what happens meanwhile.

use std::time::Duration;

use aws_sdk_s3::Client;
use emulator::{Emulator, EmulatorConfig, Fault};
use tokio::task::JoinSet;

use crate::client::*;

fn put_in_background(client: &Client, key: &'static str) -> JoinSet<PutResult> {
    let client = client.clone();
    let mut task = JoinSet::new();
    task.spawn(async move { put(&client, key, "x").await });
    task
}

#[tokio::test]
async fn a_held_put_waits_unapplied_while_others_pass() {
    let (emulator, client) = start().await;
    let hold = emulator.faults().hold("w");
    put(&client, "b/1", "x").await.unwrap();
    let mut held = put_in_background(&client, "w/1");
    hold.wait().await;
    assert_eq!(hold.caught(), 1);
    put(&client, "w/2", "x").await.unwrap();
    assert_eq!(refused(get(&client, "w/1").await).0, 404, "a held PUT has not happened");
    assert!(held.try_join_next().is_none(), "no answer yet");
    hold.release();
    held.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(emulator.object("w/1").unwrap(), "x");
    assert_eq!(emulator.faults().hits()[&Fault::Held], 1);
}

#[tokio::test]
async fn a_hold_on_all_lets_none_of_the_class_pass() {
    let (emulator, client) = start().await;
    let hold = emulator.faults().hold_all("w");
    let mut first = put_in_background(&client, "w/1");
    let mut second = put_in_background(&client, "w/2");
    while hold.caught() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(emulator.object_count(), 0);
    drop(hold);
    first.join_next().await.unwrap().unwrap().unwrap();
    second.join_next().await.unwrap().unwrap().unwrap();
    put(&client, "w/3", "x").await.unwrap();
}

#[test]
fn threads_without_a_runtime_can_wait_for_a_held_put() {
    let emulator = Emulator::start_in_thread(EmulatorConfig::default()).unwrap();
    let hold = emulator.faults().hold("w");
    assert!(!hold.wait_blocking(Duration::from_millis(1)), "nothing came yet");
    let client = client(&emulator);
    let writer = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(put(&client, "w/1", "x")).is_ok()
    });
    assert!(hold.wait_blocking(Duration::from_secs(60)));
    assert_eq!(emulator.object_count(), 0);
    hold.release();
    assert!(writer.join().unwrap());
    assert_eq!(emulator.object_count(), 1);
}
