//! A node that was killed comes back with what it had on its disk: its databases are not read from the bucket again.

use std::fs;
use std::os::unix::fs::FileExt;

use emulator::{Counters, Operation};

use crate::client::Client;
use crate::rig::Rig;

const ROWS: u64 = 6_000;
const ROWS_PER_TRANSACTION: u64 = 1_000;

/// Rows that do not compress, 6 MB of them.
fn load(client: &Client) {
    client.run("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB NOT NULL)");
    for first in (1..=ROWS).step_by(ROWS_PER_TRANSACTION as usize) {
        let last = first + ROWS_PER_TRANSACTION - 1;
        client.run(&format!(
            "WITH RECURSIVE ids(id) AS (SELECT {first} UNION ALL SELECT id + 1 FROM ids WHERE id < {last})
             INSERT INTO t SELECT id, randomblob(1000) FROM ids"
        ));
    }
}

fn pages_read(spent: &Counters) -> u64 {
    ["pack", "map"].iter().map(|class| spent.get(Operation::Get, *class).bytes).sum()
}

#[test]
fn a_node_that_was_killed_reads_its_pages_from_the_disk_and_what_is_damaged_from_the_bucket() {
    let mut rig = Rig::start(&[]);
    load(&rig.create("app"));
    rig.wait_until_quiet();
    let scan = |rig: &Rig| {
        let spent = rig.count(|| {
            let found = rig.client("app").run("SELECT count(*) || ':' || sum(length(body)) FROM t");
            assert_eq!(found, [format!("{ROWS}:{}", ROWS * 1_000)]);
        });
        pages_read(&spent)
    };
    for _ in 0..2 {
        rig.kill_and_restart();
        assert_eq!(scan(&rig), 0, "every page was on the disk");
    }

    // Half of the file is other than it was.
    let file = fs::OpenOptions::new().write(true).open(rig.cache_path().join("pages")).expect("the cache's file");
    let length = file.metadata().expect("its length").len();
    assert!(length > 4 << 20, "{length} bytes of cache");
    file.write_all_at(&vec![7; length as usize / 2], 4096).expect("a damaged cache");
    rig.restart_with(&["--disk-io", "plain"]);
    let read = scan(&rig);
    assert!(read > 1 << 20 && read < 6 << 20, "{read} bytes were fetched again");
    assert!(rig.shoal().has_said("disk cache: plain reads and writes"));
    rig.kill_and_restart();
    assert!(scan(&rig) < read, "what was fetched again is kept again");

    rig.restart_with_empty_cache();
    // The last answer, of up to a megabyte, may be counted a moment too late.
    assert!(scan(&rig) > 4 << 20, "and without the disk it all comes from the bucket");
}
