//! A bucket that is gone for a while under load, and comes back.
//!
//! Writes wait, and then their clients are told the truth: *unknown*, or *refused*. Cached reads go on until
//! the lease runs out, then they are 503 with Retry-After. When the bucket is back, so is everything else.
//!
//! `SHOAL_OUTAGE_SECONDS` is how long it is gone (default 8; at least longer than lease and commit time-out).

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use emulator::{Operation, Outage};
use minio_tests::bucket::Bucket;
use minio_tests::clock;
use minio_tests::hrana::{Database, Failure, Outcome};
use minio_tests::ledger::Ledger;
use minio_tests::limits::{POLL, RECOVERY};
use minio_tests::rows;
use minio_tests::shoal::{Shoal, ShoalProcess};

const LEASE: Duration = Duration::from_secs(3);
const COMMIT_TIMEOUT: Duration = Duration::from_secs(4);
const ARGUMENTS: [&str; 4] = ["--lease", "3s", "--commit-timeout", "4s"];
const OUTAGE_SECONDS_DEFAULT: u64 = 8;
const WRITERS: i64 = 6;
/// One database that everybody writes to, and one whose pages are in memory when the outage begins.
const NAMES: [&str; 2] = ["written", "read"];
/// Writes before the outage begins.
const WARM_UP: usize = 30;

#[test]
fn a_bucket_that_answers_503() {
    outage(Outage::Unavailable);
}

/// Writes that hang may still be carried out when it is over, whatever their clients were told.
#[test]
fn a_bucket_that_accepts_requests_and_says_nothing() {
    outage(Outage::Hang);
}

/// Credentials that are refused for a moment cost nobody more than the wait.
#[test]
fn access_that_is_denied_for_a_moment_comes_back_by_itself() {
    let denied = Denied::for_(LEASE / 2);
    assert_eq!(denied.incarnations, 1, "one that has not given up goes on");
}

/// Refused for longer than any client waits, a node gives its log up; once it may, it seals it and begins a new one, in
/// the same process.
#[test]
fn access_that_is_denied_for_long_ends_a_log_and_then_a_new_one_is_begun() {
    let denied = Denied::for_(COMMIT_TIMEOUT + LEASE + LEASE);
    assert_eq!(denied.incarnations, 2);
    let log = &denied.log;
    assert!(log.contains("the store has refused its commits for"), "{log}");
    assert!(log.contains("at the credentials"), "it says what to look at: {log}");
}

/// A node that lived through a denial.
struct Denied {
    incarnations: usize,
    log: String,
}

impl Denied {
    fn for_(time: Duration) -> Self {
        let bucket = Bucket::emulator();
        let caches = tempfile::tempdir().expect("a temporary directory");
        let process = Shoal::on(&bucket, &caches.path().join("one")).with(&ARGUMENTS).start();
        process.create_database("written");
        rows::create(&process.database("written"));
        let seen = Seen::default();
        let faults = bucket.as_emulator().faults();
        thread::scope(|scope| {
            let _stop = StopOnDrop(&seen.stop);
            for writer in 0..WRITERS {
                let (database, seen) = (process.database("written"), &seen);
                scope.spawn(move || write(&database, writer, seen));
            }
            seen.wait_until("writes go on", |seen| seen.writes.lock().unwrap().len() >= WARM_UP);
            faults.deny(true);
            clock::sleep(time);
            let until = clock::now();
            faults.deny(false);
            seen.wait_until("writes are well again by themselves", |seen| {
                seen.has_write(|write| write.began > until && write.result.is_ok())
            });
        });
        let incarnations = bucket.as_emulator().counters().get(Operation::Put, "live").requests;
        let mut ledger = seen.ledger.into_inner().unwrap();
        let found = rows::found(&process.database("written"));
        assert_eq!(ledger.violations(&found), Vec::<String>::new());
        ledger.settle(&found);
        let log = process.terminate().join("\n");
        let process = Shoal::on(&bucket, &caches.path().join("two")).start();
        assert_eq!(ledger.violations(&rows::found(&process.database("written"))), Vec::<String>::new());
        process.terminate();
        Self { incarnations: incarnations as usize, log }
    }
}

/// A commit that waits for the bucket when the server is told to end may still happen.
#[test]
fn sigterm_while_the_bucket_is_gone_claims_nothing_false() {
    let bucket = Bucket::emulator();
    let caches = tempfile::tempdir().expect("a temporary directory");
    let process = Shoal::on(&bucket, &caches.path().join("one")).start();
    process.create_database("written");
    let database = process.database("written");
    rows::create(&database);
    let mut ledger = Ledger::default();
    ledger.begin(1, 2);
    ledger.send(1);
    let (sql, values) = rows::insert(1, 0..2, 2);
    bucket.as_emulator().faults().outage(Outage::Hang);
    let log_puts = || bucket.as_emulator().counters().get(Operation::Put, "w").requests;
    let before = log_puts();
    let inserted = thread::scope(|scope| {
        let insert = scope.spawn(|| database.execute(&sql, &values));
        let is_sent = clock::poll(RECOVERY, || (log_puts() > before).then_some(()));
        is_sent.expect("the commit is on its way to the bucket");
        process.ask_to_end();
        insert.join().expect("a client panicked")
    });
    ledger.answer(1, Outcome::of(&inserted));
    bucket.as_emulator().faults().outage(Outage::None);
    process.wait();
    let process = Shoal::on(&bucket, &caches.path().join("two")).start();
    let found = rows::found(&process.database("written"));
    assert_eq!(ledger.violations(&found), Vec::<String>::new());
    process.terminate();
}

fn outage(outage: Outage) {
    let bucket = Bucket::emulator();
    let caches = tempfile::tempdir().expect("a temporary directory");
    let process = Shoal::on(&bucket, &caches.path().join("one")).with(&ARGUMENTS).start();
    for name in NAMES {
        process.create_database(name);
        rows::create(&process.database(name));
    }
    let (sql, values) = rows::insert(0, 0..4, 4);
    process.database("read").execute(&sql, &values).expect("writes");

    let seen = Seen::default();
    let gone = thread::scope(|scope| {
        let _stop = StopOnDrop(&seen.stop);
        for writer in 0..WRITERS {
            let database = process.database("written");
            let seen = &seen;
            scope.spawn(move || write(&database, writer, seen));
        }
        for name in NAMES {
            let database = process.database(name);
            let seen = &seen;
            scope.spawn(move || read(&database, name, seen));
        }
        seen.live_through(&bucket, outage)
    });
    let (reads, ledger) = (seen.reads.into_inner().unwrap(), seen.ledger.into_inner().unwrap());
    check_reads(&reads, &gone);
    check_writes(&seen.writes.into_inner().unwrap(), &gone);
    check_truth(process, &bucket, ledger, &caches.path().join("two"));
}

/// What became of one request, and when.
struct Event<T> {
    began: Instant,
    ended: Instant,
    result: Result<T, Failure>,
}

impl<T> Event<T> {
    fn of(request: impl FnOnce() -> Result<T, Failure>) -> Self {
        let began = clock::now();
        let result = request();
        Self { began, ended: clock::now(), result }
    }

    fn is_inside(&self, gone: &Gone) -> bool {
        self.began >= gone.from && self.ended <= gone.until
    }
}

/// The time in which the bucket was gone for certain.
struct Gone {
    from: Instant,
    until: Instant,
}

#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    writes: Mutex<Vec<Event<()>>>,
    reads: Mutex<BTreeMap<&'static str, Vec<Event<()>>>>,
    ledger: Mutex<Ledger>,
}

/// Ends the clients even if the test fails while they run.
struct StopOnDrop<'s>(&'s AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn write(database: &Database, writer: i64, seen: &Seen) {
    let mut id = writer << 32;
    while !seen.stop.load(Ordering::Relaxed) {
        id += 1;
        let (sql, values) = rows::insert(id, 0..2, 2);
        let mut ledger = seen.ledger.lock().unwrap();
        ledger.begin(id, 2);
        ledger.send(id);
        drop(ledger);
        let event = Event::of(|| database.execute(&sql, &values).map(drop));
        seen.ledger.lock().unwrap().answer(id, Outcome::of(&event.result));
        pause_after(&event);
        seen.writes.lock().unwrap().push(event);
    }
}

fn read(database: &Database, name: &'static str, seen: &Seen) {
    while !seen.stop.load(Ordering::Relaxed) {
        let event = Event::of(|| database.execute("SELECT count(*), sum(length(content)) FROM rows", &[]).map(drop));
        pause_after(&event);
        seen.reads.lock().unwrap().entry(name).or_default().push(event);
    }
}

/// A client that is refused does not come back at once.
fn pause_after(event: &Event<()>) {
    if event.result.is_err() {
        clock::sleep(5 * POLL);
    }
}

impl Seen {
    /// Waits until `is_so`, or fails.
    fn wait_until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let so = clock::poll(RECOVERY, || is_so(self).then_some(()));
        assert!(so.is_some(), "not within {RECOVERY:?}: {what}");
    }

    fn has_write(&self, is_it: impl Fn(&Event<()>) -> bool) -> bool {
        self.writes.lock().unwrap().iter().any(is_it)
    }

    /// Whether the reader of a database has such an event.
    fn has_read(&self, name: &str, is_it: impl Fn(&Event<()>) -> bool) -> bool {
        self.reads.lock().unwrap().get(name).is_some_and(|reads| reads.iter().any(is_it))
    }

    /// Whether the readers of both databases have such an event.
    fn have_reads(&self, is_it: impl Fn(&Event<()>) -> bool) -> bool {
        NAMES.iter().all(|name| self.has_read(name, &is_it))
    }

    /// The outage, from a warm start to a recovery that needs no help. It is over when its time is, and
    /// every kind of answer has been seen.
    fn live_through(&self, bucket: &Bucket, outage: Outage) -> Gone {
        let faults = bucket.as_emulator().faults();
        self.wait_until("writes and reads go on", |seen| {
            seen.writes.lock().unwrap().len() >= WARM_UP && seen.have_reads(|read| read.result.is_ok())
        });
        faults.outage(outage);
        let from = clock::now();
        let seconds = std::env::var("SHOAL_OUTAGE_SECONDS").ok().map(|text| text.parse().expect("a number"));
        clock::sleep(Duration::from_secs(seconds.unwrap_or(OUTAGE_SECONDS_DEFAULT)));
        let during = |event: &Event<()>| event.began >= from;
        // It may have been on its way when the outage began: all writers wait for those, until the lease is over.
        self.wait_until("a write is unknown", |seen| seen.has_write(|write| is_unknown(&write.result)));
        self.wait_until("a write is refused", |seen| {
            seen.has_write(|write| during(write) && is_refused(&write.result))
        });
        self.wait_until("a read is refused", |seen| seen.has_read("read", |read| during(read) && read.result.is_err()));
        let until = clock::now();
        faults.outage(Outage::None);
        self.wait_until("writes and reads are well again by themselves", |seen| {
            let is_well = |event: &Event<()>| event.began > until && event.result.is_ok();
            seen.has_write(is_well) && seen.have_reads(is_well)
        });
        Gone { from, until }
    }
}

fn is_unknown(result: &Result<(), Failure>) -> bool {
    matches!(Outcome::of(result), Outcome::Unknown(_))
}

fn is_refused(result: &Result<(), Failure>) -> bool {
    matches!(Outcome::of(result), Outcome::Refused(_))
}

fn check_reads(reads: &BTreeMap<&'static str, Vec<Event<()>>>, gone: &Gone) {
    for (name, reads) in reads {
        let inside: Vec<_> = reads.iter().filter(|read| read.is_inside(gone)).collect();
        // What was written last may have to be fetched, and cannot be; what was read before is in memory.
        let goes_on = inside.iter().any(|read| read.result.is_ok());
        assert!(goes_on || *name != "read", "{name}: cached reads go on");
        // The last renewal that the bucket can have seen was sent before it went.
        let lease_end = gone.from + LEASE;
        for read in inside {
            match &read.result {
                Ok(()) => assert!(read.began <= lease_end, "{name}: a read was answered after the lease's end"),
                Err(failure) => check_refusal(name, failure, read.began > lease_end),
            }
        }
    }
}

/// A read that the lease's end overtakes is refused inside its 200; one that begins after it, with a 503.
fn check_refusal(name: &str, failure: &Failure, is_late: bool) {
    assert!(failure.is_unavailable(), "{name}: {failure}");
    match failure {
        Failure::Status { status, retry_after, .. } => {
            let seconds: Option<u32> = retry_after.as_ref().and_then(|text| text.parse().ok());
            assert!(*status == 503 && seconds.is_some_and(|seconds| seconds > 0), "{name}: {failure}, {retry_after:?}");
        }
        _ => assert!(!is_late, "{name}: not a 503: {failure}"),
    }
}

fn check_writes(writes: &[Event<()>], gone: &Gone) {
    for write in writes {
        match &write.result {
            Ok(()) => assert!(!write.is_inside(gone), "a write was acknowledged while there was no bucket"),
            Err(failure @ (Failure::Unreachable(_) | Failure::NoAnswer(_))) => panic!("no answer: {failure}"),
            Err(failure) => {
                let is_told_apart = failure.is_unavailable() || is_unknown(&write.result);
                assert!(is_told_apart, "neither refused nor unknown: {failure}");
            }
        }
    }
}

/// What clients were told is true, in the process that lived through it and in one that has only the bucket.
fn check_truth(process: ShoalProcess, bucket: &Bucket, mut ledger: Ledger, new_cache: &std::path::Path) {
    let found = rows::found(&process.database("written"));
    assert_eq!(ledger.violations(&found), Vec::<String>::new());
    ledger.settle(&found);
    process.terminate();
    let process = Shoal::on(bucket, new_cache).start();
    let database = process.database("written");
    assert_eq!(ledger.violations(&rows::found(&database)), Vec::<String>::new());
    assert_eq!(rows::damage(&database, 0..i64::MAX), Vec::<String>::new());
    process.terminate();
}
