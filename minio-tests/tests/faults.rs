//! A store on a bad day: between the server and its bucket sits a proxy that loses requests and answers, resets
//! connections, repeats PUTs at once and much later, answers 409, 429, 503 and 500, cuts bodies, dawdles, falls
//! silent, and serves stale listings; all of it at once, by chance, under 8 writers.
//!
//! Each write's outcome is one of acknowledged, refused, unknown, and each is true: when the store is well again,
//! what was acknowledged is there, what was refused is not, and nothing is torn; so in the process that lived
//! through it, and in one that has only the bucket. Readers watch that nothing acknowledged is missing meanwhile.
//! A server is killed and started again between rounds, so that databases are also recovered and read from the
//! bucket while faults strike. A server that is alone never takes itself for fenced. Of two, with clients that
//! roam, each may take the other for dead when both have been in a black hole: then one of them ends, under load
//! and in good health, and is started again.
//!
//! `SHOAL_FAULT_OPS` is the number of clients' requests on each store (default 2,000), `SHOAL_SEED` repeats a
//! run's choices.

use std::time::Duration;

use emulator::{ProxyFault, ProxyFaults};
use minio_tests::books::Books;
use minio_tests::bucket::Bucket;
use minio_tests::dice::Dice;
use minio_tests::fleet::Fleet;
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
/// Requests that the black hole of a round finds in flight, at least.
const IN_FLIGHT_MIN: usize = 4;
/// Rounds after which new databases are begun, so that a long run does not check ever more rows per round.
const ROUNDS_PER_ERA: u64 = 10;
/// The last client number of a round, for the write that closes it.
const CLOSING_CLIENT: usize = 200;
/// A black hole outlasts both the commit time-out and the lease, so that outcomes become unknown and reads stop.
const ARGUMENTS: [&str; 6] = ["--lease", "900ms", "--commit-timeout", "1s", "--memory", "16MiB"];
const HOLE: Duration = Duration::from_millis(1300);

#[test]
fn whatever_the_store_does_the_clients_are_told_the_truth_on_the_emulator() {
    Run::new("faults, emulator", Bucket::emulator(), 1).ops(number_from("SHOAL_FAULT_OPS").unwrap_or(OPS_DEFAULT));
}

#[test]
fn whatever_the_store_does_the_clients_are_told_the_truth_on_minio() {
    Run::new("faults, MinIO", Bucket::minio(), 1).ops(number_from("SHOAL_FAULT_OPS").unwrap_or(OPS_DEFAULT));
}

#[test]
fn whatever_the_store_does_two_nodes_tell_the_truth_on_the_emulator() {
    Run::new("faults, two nodes", Bucket::emulator(), 2).ops(number_from("SHOAL_FAULT_OPS").unwrap_or(OPS_DEFAULT));
}

fn names(era: u64) -> Vec<String> {
    (0..DATABASES).map(|database| format!("era-{era}-{database}")).collect()
}

/// A bad day begins with a black hole; the rest is left to chance.
fn bad_day(faults: &ProxyFaults) {
    faults.hole(HOLE);
    faults.slow_max(Duration::from_millis(100));
    for fault in ProxyFault::ALL {
        let chance = match fault {
            ProxyFault::BlackHole => 0.0002,
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
    nodes: usize,
    /// Servers that ended because another took them for dead.
    fenced: u64,
}

impl Run {
    fn new(name: &'static str, bucket: Bucket, nodes: usize) -> Self {
        let seed = seed(name);
        let mut fleet = Fleet::new(bucket.behind_proxy(seed), nodes, &ARGUMENTS);
        (0..nodes).for_each(|node| fleet.start(node));
        Self { name, fleet, dice: Dice::new(seed), books: Books::default(), ops: 0, nodes, fenced: 0 }
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
        let fenced = self.fleet.terminate();
        assert!(fenced == 0 || self.nodes > 1, "a server was fenced, and there was no other");
        self.fleet.delete_cache(0);
        self.fleet.start(0);
        let names = self.books.names();
        let wrong: Vec<String> = names.iter().flat_map(|name| self.check(name, 0, 0..first_id(round))).collect();
        assert!(wrong.is_empty(), "{}, from the bucket alone:\n{}", self.name, wrong.join("\n"));
        let faults = self.fleet.bucket.proxy_faults();
        let (requests, hits, tally) = (faults.requests(), faults.hits(), self.books.tally);
        let Self { name, ops, fenced, .. } = &self;
        announce(&format!("{name}: {ops} ops, {requests} requests to the store, {hits:?}; {fenced} fenced; {tally:?}"));
        self.fleet.terminate();
    }

    /// Every fault, and every outcome.
    fn has_seen_everything(&self) -> bool {
        let tally = self.books.tally;
        let has_outcomes = tally.acknowledged > 0 && tally.refused > 0 && tally.unknown > 0;
        let has_fenced = self.nodes == 1 || self.fenced > 0;
        has_outcomes && has_fenced && self.faults_that_never_struck().is_empty()
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
            let victim = usize::try_from(round).expect("a few rounds") / 2 % self.nodes;
            self.fleet.kill9(victim);
            if round.is_multiple_of(2) {
                self.fleet.delete_cache(victim);
            }
            self.fleet.start(victim);
        }
        let faults = self.fleet.bucket.proxy_faults().clone();
        bad_day(&faults);
        let nodes = self.fleet.nodes();
        let dice = self.dice.split(round);
        let crew = (WRITERS_PER_DATABASE, Habit::Roam);
        let ended = traffic::during((&nodes, &names), crew, (round, &dice), |traffic| {
            self.live_through(traffic, &faults);
            faults.clear();
            // What was refused for now succeeds by itself.
            traffic.wait_for_acknowledgements(
                |_| true,
                || {
                    self.start_again_if_fenced(&faults);
                },
            );
        });
        self.ops += ended.requests;
        let mut wrong = ended.stale;
        for (number, (name, ledger)) in names.iter().zip(ended.ledgers).enumerate() {
            self.books.note(name, ledger);
            let owner = self.close(name, ended.owners[number], round, CLOSING_CLIENT + number);
            wrong.extend(self.check(name, owner, first_id(round)..first_id(round + 1)));
        }
        assert!(wrong.is_empty(), "{}, round {round}:\n{}", self.name, wrong.join("\n"));
    }

    /// Until enough was asked, and somebody has listed the databases now and then.
    fn live_through(&mut self, traffic: &Traffic<'_>, faults: &ProxyFaults) {
        traffic.in_flight.wait_for(IN_FLIGHT_MIN);
        faults.open_hole();
        let enough = clock::poll(RECOVERY, || {
            if self.start_again_if_fenced(faults) {
                bad_day(faults);
            }
            // It may be refused, and may be stale.
            let _ = self.fleet.process(0).listing();
            (traffic.in_flight.sent() >= OPS_PER_ROUND).then_some(())
        });
        assert!(enough.is_some(), "no more than {} requests within {RECOVERY:?}", traffic.in_flight.sent());
    }

    /// Whether there was one. A start may fail while the store does not answer, so the faults end for it.
    fn start_again_if_fenced(&mut self, faults: &ProxyFaults) -> bool {
        let ended: Vec<usize> = (0..self.nodes).filter(|node| self.fleet.has_ended(*node)).collect();
        assert!(ended.is_empty() || self.nodes > 1, "a server ended, and nobody could have taken it for dead");
        if !ended.is_empty() {
            faults.clear();
        }
        ended.iter().for_each(|node| self.fleet.start(*node));
        self.fenced += ended.len() as u64;
        !ended.is_empty()
    }

    /// A commit that is acknowledged now comes after every commit whose outcome is unknown: those are decided.
    /// The server that acknowledged it.
    fn close(&mut self, name: &str, guess: usize, round: u64, client: usize) -> usize {
        let in_flight = InFlight::default();
        let mut writer = Writer::new(round, client, &self.dice, &in_flight);
        let faults = self.fleet.bucket.proxy_faults().clone();
        let closed = clock::poll(RECOVERY, || {
            self.start_again_if_fenced(&faults);
            let owner = self.fleet.owner(name, guess);
            let database = self.fleet.process(owner).database(name);
            writer.transact(&database).ok().flatten().map(|_| owner)
        });
        self.books.note(name, writer.ledger);
        closed.unwrap_or_else(|| panic!("{name} takes no write when the store is well"))
    }

    fn check(&mut self, name: &str, owner: usize, ids: std::ops::Range<i64>) -> Vec<String> {
        let database = self.fleet.database(name, owner);
        self.books.check(name, &database, ids)
    }
}
