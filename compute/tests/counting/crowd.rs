//! Many writers of one database, on a store with a latency.

use std::sync::Barrier;
use std::thread;

use emulator::Profile;

use crate::requests;
use crate::rig::{Rig, one_at_a_time};

const WRITERS: u64 = 64;
const COMMITS_PER_WRITER: u64 = 16;
/// What has to be; what is aimed at is 50.
const COMMITS_PER_PUT_MIN: u64 = 16;

#[test]
fn sixty_four_writers_of_one_database_share_puts() {
    let _turn = one_at_a_time();
    let rig = Rig::start(&[]);
    let client = rig.create("app");
    client.run("CREATE TABLE t (writer INTEGER, n INTEGER)");
    rig.emulator.set_profile(Profile::fixed(28.0));
    let start = Barrier::new(WRITERS as usize);
    let spent = rig.requests(|| {
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (rig, start) = (&rig, &start);
                scope.spawn(move || {
                    let client = rig.client("app");
                    start.wait();
                    for n in 0..COMMITS_PER_WRITER {
                        client.run(&format!("INSERT INTO t VALUES ({writer}, {n})"));
                    }
                });
            }
        });
    });
    let commits = WRITERS * COMMITS_PER_WRITER;
    let puts = requests::count(&spent, "put", "w");
    println!("{commits} commits in {puts} PUTs: {:.1} commits per PUT", commits as f64 / puts as f64);
    assert!(puts * COMMITS_PER_PUT_MIN <= commits, "{commits} commits took {puts} PUTs");
    assert_eq!(client.run("SELECT count(*) FROM t"), [commits.to_string()]);
}

#[test]
fn a_single_writer_waits_for_one_put_per_commit() {
    let rig = Rig::start(&[]);
    let client = rig.create("app");
    client.run("CREATE TABLE t (n INTEGER)");
    rig.emulator.set_profile(Profile::fixed(28.0));
    for n in 0..20 {
        let spent = rig.requests(|| drop(client.run(&format!("INSERT INTO t VALUES ({n})"))));
        assert_eq!(spent, requests::expected(&[("put", "w", 1)]), "commit {n}");
    }
}
