//! A store on a bad day: between the server and its bucket sits a proxy that loses requests and answers, resets
//! connections, repeats PUTs at once and much later, answers 409, 429, 503 and 500, cuts bodies, dawdles, falls
//! silent, and serves stale listings; all of it at once, by chance, under 8 writers.
//!
//! Each write's outcome is one of acknowledged, refused, unknown, and each is true: when the store is well again,
//! what was acknowledged is there, what was refused is not, and nothing is torn; so in the process that lived
//! through it, and in one that has only the bucket. Readers watch that nothing acknowledged is missing meanwhile.
//! The server is killed and started again between rounds, so that databases are also recovered and read from
//! the bucket while faults strike.
//!
//! `SHOAL_FAULT_OPS` is the number of clients' requests on each store (default 2,000), `SHOAL_SEED` repeats a
//! run's choices.

use std::time::Duration;

use emulator::{ProxyFault, ProxyFaults};
use minio_tests::books::Books;
use minio_tests::bucket::Bucket;
use minio_tests::dice::Dice;
use minio_tests::fleet::Fleet;
use minio_tests::hrana::Database;
use minio_tests::limits::RECOVERY;
use minio_tests::settings::{number_from, seed};
use minio_tests::traffic::{self, Habit, Traffic};
use minio_tests::writer::{InFlight, Writer, first_id};
use minio_tests::{announce, clock, rows};

const OPS_DEFAULT: u64 = 2_000;
/// Requests of a round. Between two rounds the server is killed.
const OPS_PER_ROUND: usize = 1_000;
const DATABASES: usize = 4;
const WRITERS_PER_DATABASE: usize = 2;
/// Rounds after which new databases are begun, so that a long run does not check ever more rows per round.
const ROUNDS_PER_ERA: u64 = 10;
/// The last client number of a round, for the write that closes it.
const CLOSING_CLIENT: usize = 200;
/// A black hole outlasts both the commit time-out and the lease, so that outcomes become unknown and reads stop.
const ARGUMENTS: [&str; 6] = ["--lease", "1s", "--commit-timeout", "1s", "--memory", "16MiB"];
const HOLE: Duration = Duration::from_millis(1300);

#[test]
fn whatever_the_store_does_the_clients_are_told_the_truth_on_the_emulator() {
    Run::new("faults, emulator", Bucket::emulator()).ops(number_from("SHOAL_FAULT_OPS").unwrap_or(OPS_DEFAULT));
}

#[test]
fn whatever_the_store_does_the_clients_are_told_the_truth_on_minio() {
    Run::new("faults, MinIO", Bucket::minio()).ops(number_from("SHOAL_FAULT_OPS").unwrap_or(OPS_DEFAULT));
}

fn names(era: u64) -> Vec<String> {
    (0..DATABASES).map(|database| format!("era-{era}-{database}")).collect()
}

/// A bad day. The rarest are those that stop everybody.
fn bad_day(faults: &ProxyFaults) {
    faults.hole(HOLE);
    faults.slow_max(Duration::from_millis(100));
    for fault in ProxyFault::ALL {
        let chance = match fault {
            ProxyFault::BlackHole => 0.001,
            ProxyFault::CutAnswer => 0.10,
            ProxyFault::StaleList => 0.5,
            ProxyFault::Conflict | ProxyFault::SentTwice | ProxyFault::SentAgainLater => 0.03,
            _ => 0.015,
        };
        faults.chance(fault, chance);
    }
}

struct Run {
    name: &'static str,
    fleet: Fleet,
    dice: Dice,
    books: Books,
    ops: usize,
}

impl Run {
    fn new(name: &'static str, bucket: Bucket) -> Self {
        let seed = seed(name);
        let mut fleet = Fleet::new(bucket.behind_proxy(seed), 1, &ARGUMENTS);
        fleet.start(0);
        Self { name, fleet, dice: Dice::new(seed), books: Books::default(), ops: 0 }
    }

    fn ops(mut self, ops: u64) {
        let mut round = 0;
        while (self.ops as u64) < ops || !self.has_seen_everything() {
            if round % ROUNDS_PER_ERA == 0 {
                self.begin_era(round / ROUNDS_PER_ERA);
            }
            self.round(round);
            round += 1;
            assert!(
                round < 100 + ops / 100,
                "never struck: {:?}; {:?}",
                self.faults_that_never_struck(),
                self.books.tally
            );
        }
        self.fleet.terminate();
        self.fleet.delete_cache(0);
        self.fleet.start(0);
        let wrong: Vec<String> =
            self.books.names().iter().flat_map(|name| self.check(name, 0..first_id(round))).collect();
        assert!(wrong.is_empty(), "{}, from the bucket alone:\n{}", self.name, wrong.join("\n"));
        let faults = self.fleet.bucket.proxy_faults();
        let (requests, hits, tally) = (faults.requests(), faults.hits(), self.books.tally);
        announce(&format!("{}: {} ops, {requests} requests to the store, {hits:?}; {tally:?}", self.name, self.ops));
        self.fleet.terminate();
    }

    /// Every fault, and every outcome.
    fn has_seen_everything(&self) -> bool {
        let tally = self.books.tally;
        let has_outcomes = tally.acknowledged > 0 && tally.refused > 0 && tally.unknown > 0;
        has_outcomes && self.faults_that_never_struck().is_empty()
    }

    fn faults_that_never_struck(&self) -> Vec<ProxyFault> {
        let hits = self.fleet.bucket.proxy_faults().hits();
        ProxyFault::ALL.into_iter().filter(|fault| !hits.contains_key(fault)).collect()
    }

    fn begin_era(&mut self, era: u64) {
        for name in names(era) {
            self.fleet.process(0).create_database(&name);
            rows::create(&self.fleet.process(0).database(&name));
            self.books.open(&name);
        }
    }

    fn round(&mut self, round: u64) {
        let names = names(round / ROUNDS_PER_ERA);
        if round > 0 {
            self.fleet.kill9(0);
            if round.is_multiple_of(2) {
                self.fleet.delete_cache(0);
            }
            self.fleet.start(0);
        }
        let faults = self.fleet.bucket.proxy_faults().clone();
        bad_day(&faults);
        let nodes = self.fleet.nodes();
        let dice = self.dice.split(round);
        let crew = (WRITERS_PER_DATABASE, Habit::Stay);
        let ended = traffic::during((&nodes, &names), crew, (round, &dice), |traffic| {
            self.live_through(traffic);
            faults.clear();
            // What was refused for now succeeds by itself.
            traffic.wait_for_acknowledgements(|_| true);
        });
        self.ops += ended.requests;
        let mut wrong = ended.stale;
        for (number, (name, ledger)) in names.iter().zip(ended.ledgers).enumerate() {
            self.books.note(name, ledger);
            self.close(name, round, CLOSING_CLIENT + number);
            wrong.extend(self.check(name, first_id(round)..first_id(round + 1)));
        }
        assert!(wrong.is_empty(), "{}, round {round}:\n{}", self.name, wrong.join("\n"));
    }

    /// Until enough was asked, and somebody has listed the databases now and then.
    fn live_through(&self, traffic: &Traffic<'_>) {
        let enough = clock::poll(RECOVERY, || {
            // It may be refused, and may be stale.
            let _ = self.fleet.process(0).listing();
            (traffic.in_flight.sent() >= OPS_PER_ROUND).then_some(())
        });
        assert!(enough.is_some(), "no more than {} requests within {RECOVERY:?}", traffic.in_flight.sent());
    }

    /// A commit that is acknowledged now comes after every commit whose outcome is unknown: those are decided.
    fn close(&mut self, name: &str, round: u64, client: usize) {
        let in_flight = InFlight::default();
        let mut writer = Writer::new(round, client, &self.dice, &in_flight);
        let database: Database = self.fleet.process(0).database(name);
        let closed = clock::poll(RECOVERY, || writer.transact(&database).ok().flatten());
        assert!(closed.is_some(), "{name} takes no write when the store is well");
        self.books.note(name, writer.ledger);
    }

    fn check(&mut self, name: &str, ids: std::ops::Range<i64>) -> Vec<String> {
        let database = self.fleet.process(0).database(name);
        self.books.check(name, &database, ids)
    }
}
