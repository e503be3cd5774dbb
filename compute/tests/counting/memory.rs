//! The server's memory while much is written.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::clock;
use crate::rig::{Rig, one_at_a_time};

/// How much is written. The long run sets [`WRITE_BYTES`] to a gigabyte and more.
const WRITE_BYTES_DEFAULT: u64 = 256 << 20;
const WRITE_BYTES: &str = "SHOAL_WRITE_BYTES";

const DATABASES: u64 = 4;
/// One database grows. Each other one is a ring of rows that are written again and again: it stays at 32 MB.
const RING_ROWS: u64 = 32_000;
const ROWS_PER_TRANSACTION: u64 = 2_000;
const BODY_BYTES: u64 = 1_000;

/// 64 MiB of page cache, what four databases may leave unfolded (32 MiB each), and the working memory of
/// folds and of requests. It does not depend on how much is written.
const RESIDENT_BYTES_MAX: u64 = 400 << 20;

/// A field of the process's status, in bytes.
fn status(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the server runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field of the status");
    let kib = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    kib.parse::<u64>().expect("a number of KiB") << 10
}

/// How many rows a database takes before it begins anew.
fn rows_max(database: u64) -> u64 {
    if database == 0 { u64::MAX } else { RING_ROWS }
}

fn write(rig: &Rig, database: u64, transactions: u64, written: &AtomicU64) {
    let client = rig.client(&format!("db-{database}"));
    for transaction in 0..transactions {
        let first = transaction * ROWS_PER_TRANSACTION % rows_max(database);
        let last = first + ROWS_PER_TRANSACTION - 1;
        client.run(&format!(
            "WITH RECURSIVE ids(id) AS (SELECT {first} UNION ALL SELECT id + 1 FROM ids WHERE id < {last})
             INSERT OR REPLACE INTO t SELECT id, {transaction}, randomblob({BODY_BYTES}) FROM ids"
        ));
        written.fetch_add(ROWS_PER_TRANSACTION * BODY_BYTES, Ordering::Relaxed);
    }
}

#[test]
fn memory_stays_bounded_however_much_is_written() {
    let _turn = one_at_a_time();
    let write_bytes = std::env::var(WRITE_BYTES).map_or(WRITE_BYTES_DEFAULT, |text| text.parse().expect("a number"));
    let transactions = write_bytes.div_ceil(DATABASES * ROWS_PER_TRANSACTION * BODY_BYTES);
    let rig = Rig::start(&["--memory", "64MiB"]);
    for database in 0..DATABASES {
        let client = rig.create(&format!("db-{database}"));
        client.run("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL, body BLOB NOT NULL)");
    }
    let pid = rig.shoal().pid();
    let written = AtomicU64::new(0);
    thread::scope(|scope| {
        let (rig, written) = (&rig, &written);
        let start = |database| scope.spawn(move || write(rig, database, transactions, written));
        let writers: Vec<_> = (0..DATABASES).map(start).collect();
        let mut reported = 0;
        while writers.iter().any(|writer| !writer.is_finished()) {
            clock::pause(Duration::from_millis(50));
            let written = written.load(Ordering::Relaxed) >> 20;
            if written >= reported + 64 {
                println!("{written} MiB written: {} MiB resident", status(pid, "VmRSS") >> 20);
                reported = written;
            }
        }
    });
    let (written, peak) = (written.into_inner(), status(pid, "VmHWM"));
    println!("{} MiB written: {} MiB resident at the peak", written >> 20, peak >> 20);
    assert!(written >= write_bytes);
    assert!(peak < RESIDENT_BYTES_MAX, "{peak} bytes resident at the peak");
    for database in 0..DATABASES {
        let rows = rig.client(&format!("db-{database}")).run("SELECT count(*) || ':' || sum(length(body)) FROM t");
        let count = (transactions * ROWS_PER_TRANSACTION).min(rows_max(database));
        assert_eq!(rows, [format!("{count}:{}", count * BODY_BYTES)]);
    }
}
