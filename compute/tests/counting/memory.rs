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

/// `--memory 64MiB`, and 128 MiB on top for what that does not count: the program, threads and connections, folds and
/// requests at work, and what the allocator keeps. It depends neither on how much is written nor on what is read.
const MEMORY_BYTES: u64 = 64 << 20;
const RESIDENT_BYTES_MAX: u64 = MEMORY_BYTES + (128 << 20);

const READERS: u64 = 8;
const READS: u64 = 150;

/// A field of the process's status, in bytes.
pub fn status(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the server runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field of the status");
    let kib = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    kib.parse::<u64>().expect("a number of KiB") << 10
}

/// What the server says that it uses, each time that it says so.
pub fn accounted(log: &[String]) -> Vec<u64> {
    let of = |line: &str, field: &str| {
        let (_, value) = line.split_once(&format!("{field}=")).expect("a field of the line");
        value.split(' ').next().and_then(|digits| digits.parse::<u64>().ok()).expect("a number")
    };
    let lines = log.iter().filter(|line| line.contains("memory in use"));
    let fields = ["cache", "overlays", "fetches", "sqlite", "disk", "large"];
    lines.map(|line| fields.map(|field| of(line, field)).iter().sum()).collect()
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

/// Rows at random places of all databases, and ranges of them: far more than the cache holds.
fn read(rig: &Rig, reader: u64) {
    let clients: Vec<_> = (0..DATABASES).map(|database| rig.client(&format!("db-{database}"))).collect();
    let mut state = reader + 1;
    for read in 0..READS {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let client = &clients[(state >> 60) as usize % clients.len()];
        let id = (state >> 33) % RING_ROWS;
        let count = if read % 10 == 0 { 2_000 } else { 1 };
        let rows = client.run(&format!("SELECT sum(length(body)) FROM t WHERE id >= {id} AND id < {id} + {count}"));
        assert_eq!(rows.len(), 1);
    }
}

#[test]
fn memory_stays_bounded_however_much_is_written() {
    let _turn = one_at_a_time();
    let write_bytes = std::env::var(WRITE_BYTES).map_or(WRITE_BYTES_DEFAULT, |text| text.parse().expect("a number"));
    let transactions = write_bytes.div_ceil(DATABASES * ROWS_PER_TRANSACTION * BODY_BYTES);
    let mut rig = Rig::start(&["--memory", "64MiB", "--lease", "3s", "--log", "info,compute::node=debug"]);
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

    rig.wait_until_quiet();
    rig.restart_with_empty_cache();
    thread::scope(|scope| {
        let rig = &rig;
        (0..READERS).for_each(|reader| drop(scope.spawn(move || read(rig, reader))));
    });
    let peak = status(rig.shoal().pid(), "VmHWM");
    println!("read at random: {} MiB resident at the peak", peak >> 20);
    assert!(peak < RESIDENT_BYTES_MAX, "{peak} bytes resident at the peak of reading");
    // It says so a few times per lease.
    while accounted(&rig.shoal().log()).is_empty() {
        clock::pause(Duration::from_millis(50));
    }
    let most = accounted(&rig.shoal().log()).into_iter().max().expect("not empty");
    println!("accounted: {} KiB at most", most >> 10);
    assert!(most <= MEMORY_BYTES * 105 / 100, "{most} bytes accounted");
}
