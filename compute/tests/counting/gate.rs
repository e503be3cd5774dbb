//! A PUT of the log that does not come back: what depends on it waits, and nothing else does.

use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use emulator::Hold;

use crate::client::{Client, Column};
use crate::clock::{self, PATIENCE};
use crate::rig::Rig;

const VALUE: &str = "SELECT v FROM t";
/// How long a test gives a reply that must not come.
const A_WHILE: Duration = Duration::from_millis(300);

/// A bucket with two databases, `app` and `other`, each with the value `old`.
fn rig_with_old_values() -> Rig {
    let rig = Rig::start(&[]);
    for database in ["app", "other"] {
        let client = rig.create(database);
        client.run_all(&["CREATE TABLE t (v TEXT)", "INSERT INTO t VALUES ('old')"]);
        assert_eq!(client.run(VALUE), ["old"]);
    }
    rig
}

/// Runs statements on a thread of their own; their results come when the server answers.
fn start(client: Client, statements: &'static [&'static str]) -> Receiver<Vec<Column>> {
    let (sender, reply) = mpsc::channel();
    // If the test has failed by then, nobody listens.
    thread::spawn(move || drop(sender.send(client.run_all(statements))));
    reply
}

fn is_waiting<T>(reply: &Receiver<T>) -> bool {
    matches!(reply.try_recv(), Err(mpsc::TryRecvError::Empty))
}

fn answer<T>(reply: &Receiver<T>) -> T {
    reply.recv_timeout(PATIENCE).expect("a reply after the release")
}

/// Starts an update of `app` whose PUT is held.
fn update_held(rig: &Rig) -> (Receiver<Vec<Column>>, Hold) {
    let hold = rig.emulator.faults().hold("w");
    let update = start(rig.client("app"), &["UPDATE t SET v = 'new'", VALUE]);
    assert!(hold.wait_blocking(PATIENCE), "the update is logged");
    (update, hold)
}

#[test]
fn plain_reads_go_on_with_the_durable_state_while_a_commit_waits() {
    let rig = rig_with_old_values();
    let (update, hold) = update_held(&rig);
    let reader = rig.client("app");
    for _ in 0..20 {
        assert_eq!(reader.run(VALUE), ["old"], "the update is not durable");
    }
    let rows: Vec<_> = reader.cursor(&[VALUE]).filter(|entry| entry["type"] == "row").collect();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["row"][0]["value"], "old");
    assert_eq!(rig.client("other").run(VALUE), ["old"], "other databases are read as well");
    assert!(is_waiting(&update), "the update was answered before it was durable");
    hold.release();
    assert_eq!(answer(&update)[1], ["new"]);
    assert_eq!(reader.run(VALUE), ["new"]);
}

#[test]
fn a_transaction_that_saw_a_waiting_commit_is_not_answered_before_it() {
    let rig = rig_with_old_values();
    let (update, hold) = update_held(&rig);
    let reader = start(rig.client("app"), &["BEGIN IMMEDIATE", VALUE, "COMMIT"]);
    clock::pause(A_WHILE);
    assert!(is_waiting(&reader), "a transaction showed what is not durable");
    assert!(is_waiting(&update));
    hold.release();
    assert_eq!(answer(&reader)[1], ["new"], "it read the newest state, which its COMMIT could have built on");
    assert_eq!(answer(&update)[1], ["new"]);
}

#[test]
fn a_cursor_shows_no_row_that_depends_on_a_waiting_commit() {
    let rig = rig_with_old_values();
    let hold = rig.emulator.faults().hold("w");
    let (sender, rows) = mpsc::channel();
    let client = rig.client("app");
    thread::spawn(move || {
        let entries = client.cursor(&["UPDATE t SET v = 'new'", VALUE]);
        for entry in entries.filter(|entry| entry["type"] == "row") {
            let _ = sender.send(entry["row"][0]["value"].clone());
        }
    });
    assert!(hold.wait_blocking(PATIENCE), "the update is logged");
    clock::pause(A_WHILE);
    assert!(is_waiting(&rows), "a cursor showed what is not durable");
    assert_eq!(rig.client("app").run(VALUE), ["old"]);
    hold.release();
    assert_eq!(answer(&rows), "new");
}

#[test]
fn a_later_commit_is_not_acknowledged_before_an_earlier_one() {
    let rig = rig_with_old_values();
    let (update, hold) = update_held(&rig);
    let before = rig.emulator.counters();
    // The next slot is not held: its PUT is answered, and still its commits have to wait.
    let later = start(rig.client("app"), &["UPDATE t SET v = v || 'er'"]);
    let elsewhere = start(rig.client("other"), &["UPDATE t SET v = 'new'"]);
    while rig.emulator.counters().since(&before).get(emulator::Operation::Put, "w").requests == 0 {
        clock::pause(Duration::from_millis(10));
    }
    clock::pause(A_WHILE);
    assert!(is_waiting(&later), "slots are acknowledged in their order");
    assert!(is_waiting(&elsewhere), "also those of other databases");
    assert!(is_waiting(&update));
    assert_eq!(rig.client("app").run(VALUE), ["old"]);
    hold.release();
    for reply in [&update, &later, &elsewhere] {
        answer(reply);
    }
    assert_eq!(rig.client("app").run(VALUE), ["newer"]);
    assert_eq!(rig.client("other").run(VALUE), ["new"]);
}
