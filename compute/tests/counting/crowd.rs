//! Many writers of one database, on a store with a latency.

use std::sync::Barrier;
use std::thread;

use emulator::Profile;

use crate::requests;
use crate::rig::{Rig, one_at_a_time};

const WRITERS: usize = 64;
const WARM_UP_COMMITS: u64 = 6;
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
    let [warm, start] = [Barrier::new(WRITERS + 1), Barrier::new(WRITERS + 1)];
    let spent = thread::scope(|scope| {
        let (rig, warm, start) = (&rig, &warm, &start);
        let write = |writer: usize| {
            let client = rig.client("app");
            let insert = |n| drop(client.run(&format!("INSERT INTO t VALUES ({writer}, {n})")));
            (0..WARM_UP_COMMITS).for_each(insert);
            warm.wait();
            start.wait();
            (0..COMMITS_PER_WRITER).for_each(insert);
        };
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
        // The log has learned by now how long a PUT takes here.
        warm.wait();
        rig.requests(|| {
            start.wait();
            writers.into_iter().for_each(|writer| writer.join().expect("a writer panicked"));
        })
    });
    let commits = WRITERS as u64 * COMMITS_PER_WRITER;
    let puts = requests::count(&spent, "put", "w");
    println!("{commits} commits in {puts} PUTs: {:.1} commits per PUT", commits as f64 / puts as f64);
    assert!(puts * COMMITS_PER_PUT_MIN <= commits, "{commits} commits took {puts} PUTs");
    let all = WRITERS as u64 * (WARM_UP_COMMITS + COMMITS_PER_WRITER);
    assert_eq!(client.run("SELECT count(*) FROM t"), [all.to_string()]);
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
