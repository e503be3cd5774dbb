//! A node whose databases nobody uses.

use std::thread;
use std::time::Duration;

use emulator::Operation;

use crate::clock;
use crate::requests::{expected, of_work};
use crate::rig::{Rig, one_at_a_time};

const DATABASES: usize = 1000;
const CREATORS: usize = 8;

#[test]
fn a_thousand_idle_databases_cost_only_their_nodes_heartbeat() {
    let _turn = one_at_a_time();
    // Renewed three times a term: once a second.
    let rig = Rig::start(&["--lease", "3s"]);
    thread::scope(|scope| {
        for creator in 0..CREATORS {
            let rig = &rig;
            scope.spawn(move || {
                for number in (creator..DATABASES).step_by(CREATORS) {
                    let client = rig.create(&format!("db-{number}"));
                    client.run("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER)");
                    client.run(&format!("INSERT INTO t VALUES (1, {number})"));
                }
            });
        }
    });
    rig.wait_until_quiet();

    let from = clock::now();
    let spent = rig.count(|| clock::pause(Duration::from_secs(6)));
    let seconds = from.elapsed().as_secs();
    let heartbeats = spent.get(Operation::Put, "inc").requests;
    println!("idle for {seconds} s with {DATABASES} databases: {heartbeats} heartbeats");
    assert_eq!(of_work(&spent), expected(&[]), "something besides the heartbeat");
    assert!(heartbeats >= 1, "it is alive");
    assert!(heartbeats <= seconds + 2, "{heartbeats} in {seconds} s");
    assert_eq!(rig.client("db-777").run("SELECT n FROM t"), ["777"]);
}
