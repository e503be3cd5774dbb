//! A zombie: the owner is stopped (SIGSTOP) anywhere under load, another node takes over and writes, and the
//! former owner goes on (SIGCONT) as if no time had passed.
//!
//! It may acknowledge nothing that the new owner does not hold, and show nobody the past. Half of the clients
//! stay at the zombie and wait for it; reads are sent to it while it is stopped, and when it is back; a
//! transaction that was reading when it was stopped must not go on reading.
//!
//! In every second round it comes back around the time at which its lease runs out instead, so that it meets
//! the other node in the middle of sealing its log, or is back in time.
//!
//! A mutant, a store that lets a zombie write over a tombstone, shows that the oracle would notice.
//!
//! `SHOAL_ZOMBIES` is the number of rounds on each store (default 4), `SHOAL_SEED` repeats a run's choices.

mod mutant;

use std::ops::Range;
use std::thread;
use std::time::Duration;

use minio_tests::books::Books;
use minio_tests::bucket::{Bucket, is_held};
use minio_tests::dice::Dice;
use minio_tests::fleet::{Fleet, LEASE};
use minio_tests::hrana::Database;
use minio_tests::settings::{number_from, seed};
use minio_tests::stream::Stream;
use minio_tests::traffic::{self, Habit, Traffic};
use minio_tests::writer::{InFlight, first_id};
use minio_tests::{announce, clock, rows};

const ZOMBIES_DEFAULT: u64 = 4;
const DATABASES: usize = 3;
const WRITERS_PER_DATABASE: usize = 4;
/// Rounds after which new databases are begun, so that a long run does not check ever more rows per round.
const ROUNDS_PER_ERA: u64 = 20;
/// How long traffic runs before the owner is stopped, in milliseconds.
const MOMENTS: Range<u64> = 0..500;
/// For how long it is stopped in rounds in which it comes back early, in percent of its lease.
const NAPS: Range<u64> = 40..140;
/// A signal has reached every thread of a process after this.
const STOPPED_WITHIN: Duration = Duration::from_millis(5);
/// A process that runs holds a lock of a directory store no longer than this.
const LOCKED_MAX: Duration = Duration::from_millis(150);
/// Reads that wait for a stopped process.
const WAITING_READS: usize = 6;
/// A process whose lease has run out knows it after two thirds of a lease; this is how many of them it gets.
const LEASES_TO_NOTICE: u32 = 4;

#[test]
fn a_zombie_acknowledges_and_shows_nothing_on_the_directory_store() {
    let rounds = number_from("SHOAL_ZOMBIES").unwrap_or(ZOMBIES_DEFAULT);
    Run::new("zombie, directory", Bucket::directory()).rounds(rounds);
}

#[test]
fn a_zombie_acknowledges_and_shows_nothing_on_minio() {
    let rounds = number_from("SHOAL_ZOMBIES").unwrap_or(ZOMBIES_DEFAULT);
    Run::new("zombie, MinIO", Bucket::minio()).rounds(rounds);
}

fn names(era: u64) -> Vec<String> {
    (0..DATABASES).map(|database| format!("era-{era}-{database}")).collect()
}

struct Run {
    name: &'static str,
    fleet: Fleet,
    dice: Dice,
    books: Books,
    /// Owners that were stopped, and those of them that were over when they came back.
    stopped: u64,
    over: u64,
    /// Transactions that a process acknowledged after it had come back.
    late: u64,
    /// The last owner of the first database.
    owner: usize,
}

impl Run {
    fn new(name: &'static str, bucket: Bucket) -> Self {
        let dice = Dice::new(seed(name));
        let fleet = Fleet::pair(bucket);
        Self { name, fleet, dice, books: Books::default(), stopped: 0, over: 0, late: 0, owner: 0 }
    }

    fn rounds(mut self, rounds: u64) {
        for round in 0..rounds {
            if round % ROUNDS_PER_ERA == 0 {
                for name in names(round / ROUNDS_PER_ERA) {
                    self.fleet.process(0).create_database(&name);
                    rows::create(&self.fleet.process(0).database(&name));
                    self.books.open(&name);
                }
            }
            self.round(round);
        }
        self.fleet.terminate();
        let Self { name, books, stopped, over, late, .. } = self;
        let tally = books.tally;
        announce(&format!(
            "{name}: {stopped} owners stopped, {over} of them for good; {late} transactions acknowledged after they \
             came back; {tally:?}"
        ));
        assert!(over >= rounds.div_ceil(2), "whoever sleeps until the other has written is over");
    }

    fn round(&mut self, round: u64) {
        let mut dice = self.dice.split(round);
        let names = names(round / ROUNDS_PER_ERA);
        let nodes = self.fleet.nodes();
        let zombie = self.fleet.owner(&names[0], self.owner);
        let moment = Duration::from_millis(dice.between(MOMENTS));
        let nap = (round % 2 == 1).then(|| LEASE * u32::try_from(dice.between(NAPS)).expect("a percentage") / 100);
        let mut wrong = Vec::new();
        let crew = (WRITERS_PER_DATABASE, Habit::Stay);
        let ended = traffic::during((&nodes, &names), crew, (round, &dice), |traffic| {
            traffic.wait_for_acknowledgements(
                |_| true,
                || {
                    self.fleet.revive();
                },
            );
            let at = self.fleet.process(zombie).database(&names[0]);
            let mut reader = Stream::new(&at);
            let _ = reader.execute("BEGIN", &[]);
            let has_begun = reader.execute("SELECT count(*) FROM rows", &[]).is_ok();
            clock::sleep(moment);
            self.pause(zombie);
            match nap {
                Some(nap) => clock::sleep(nap),
                None => traffic.wait_for_acknowledgements(
                    |node| node != zombie,
                    || {
                        self.fleet.revive();
                    },
                ),
            }
            let before = traffic.all_acknowledged_by(zombie);
            self.come_back(traffic, zombie, &at);
            if nap.is_none() && has_begun && reader.execute("SELECT count(*) FROM rows", &[]).is_ok() {
                wrong.push("a transaction went on reading the past".to_owned());
            }
            let is_over = self.watch(traffic, zombie, &at);
            self.late += traffic.all_acknowledged_by(zombie) - before;
            // Whoever serves now, serves everything.
            traffic.wait_for_acknowledgements(
                |_| true,
                || {
                    self.fleet.revive();
                },
            );
            is_over
        });
        self.stopped += 1;
        self.over += u64::from(ended.result);
        wrong.extend(ended.stale);
        self.owner = ended.owners[0];
        for ((name, ledger), owner) in names.iter().zip(ended.ledgers).zip(ended.owners) {
            self.books.note(name, ledger);
            let database = self.fleet.database(name, owner);
            wrong.extend(self.books.check(name, &database, first_id(round)..first_id(round + 1)));
        }
        assert!(wrong.is_empty(), "{}, round {round}, nap {nap:?}:\n{}", self.name, wrong.join("\n"));
    }

    /// Stops a process, but not while it holds a lock of a directory store. A process that is stopped keeps it, and
    /// then nobody can write the objects of that lock: the one thing that a stopped process can do to others there.
    fn pause(&self, zombie: usize) {
        let (process, bucket) = (self.fleet.process(zombie), &self.fleet.bucket);
        loop {
            process.pause();
            clock::sleep(STOPPED_WITHIN);
            // Others hold a lock for moments only.
            let mut held = bucket.held_locks();
            let is_free = clock::poll(LOCKED_MAX, || {
                held.retain(|lock| is_held(lock));
                held.is_empty().then_some(())
            });
            if is_free.is_some() {
                return;
            }
            process.resume();
            clock::sleep(STOPPED_WITHIN);
        }
    }

    /// Lets reads wait for it, and then lets it go on.
    fn come_back(&self, traffic: &Traffic<'_>, zombie: usize, at: &Database) {
        let asked = InFlight::default();
        thread::scope(|scope| {
            for _ in 0..WAITING_READS {
                // A refusal is what should come; what else may come is looked at there.
                scope.spawn(|| asked.during(|| traffic.look(0, zombie, at)));
            }
            asked.wait_for(WAITING_READS);
            self.fleet.process(zombie).resume();
        });
    }

    /// Reads from it for as long as it may still be unaware. Whether it is over; then another process takes its
    /// place.
    fn watch(&mut self, traffic: &Traffic<'_>, zombie: usize, at: &Database) -> bool {
        let since = clock::now();
        while since.elapsed() < LEASE * LEASES_TO_NOTICE {
            if self.fleet.has_ended(zombie) {
                self.fleet.start(zombie);
                return true;
            }
            let _ = traffic.look(0, zombie, at);
        }
        false
    }
}
