//! `kill -9` at random moments under load: what was acknowledged is there, nothing is there that was not
//! sent, and every transaction is whole.
//!
//! In each round 16 clients write to 4 databases of one process, in interactive transactions of several
//! rows and in single statements; the process is killed with at least 8 requests in flight, half of the
//! times its cache directory is deleted, and a new process is asked for what is there. At least a third of
//! the kills strikes during a fold.
//!
//! `SHOAL_KILLS` is the number of rounds on each store (default 10), `SHOAL_SEED` repeats a run's choices.

mod mutant;
mod plan;
mod traffic;

use std::collections::BTreeMap;

use minio_tests::bucket::Bucket;
use minio_tests::dice::Dice;
use minio_tests::hrana::Database;
use minio_tests::ledger::{Ledger, Tally};
use minio_tests::settings::{number_from, seed};
use minio_tests::shoal::{Shoal, ShoalProcess};
use minio_tests::writer::first_id;
use minio_tests::{announce, rows};
use tempfile::TempDir;

use plan::Plan;
use traffic::{Ended, IN_FLIGHT_MIN, SENT_BEFORE_THE_END};

const KILLS_DEFAULT: u64 = 10;
pub const DATABASES: usize = 4;
/// Rounds after which new databases are begun, so that a long run does not check ever more rows per round.
const ROUNDS_PER_ERA: u64 = 20;

#[test]
fn nothing_acknowledged_is_lost_on_the_directory_store() {
    Run::new("directory", Bucket::directory()).kills(number_from("SHOAL_KILLS").unwrap_or(KILLS_DEFAULT));
}

#[test]
fn nothing_acknowledged_is_lost_on_minio() {
    Run::new("MinIO", Bucket::minio()).kills(number_from("SHOAL_KILLS").unwrap_or(KILLS_DEFAULT));
}

/// SIGTERM instead: requests in flight may be refused, but only truthfully.
#[test]
fn sigterm_under_load_loses_nothing_and_claims_nothing_false() {
    let mut run = Run::new("SIGTERM", Bucket::directory());
    run.begin_era(0);
    for round in 0..2 {
        let process = run.process.take().expect("running");
        let databases = databases(&process, 0);
        let ended = traffic::under(&databases, round, &run.dice.split(round), |in_flight| {
            in_flight.wait_for(IN_FLIGHT_MIN);
            in_flight.wait_for_more(SENT_BEFORE_THE_END);
            process.terminate()
        });
        run.note(0, ended.ledgers);
        run.restart(round % 2 == 0);
        run.check(0, round, true);
    }
    run.report();
}

fn names(era: u64) -> Vec<String> {
    (0..DATABASES).map(|database| format!("era-{era}-{database}")).collect()
}

fn databases(process: &ShoalProcess, era: u64) -> Vec<Database> {
    names(era).iter().map(|name| process.database(name)).collect()
}

/// One store, the processes that serve it one after another, and all that their clients know.
struct Run {
    name: &'static str,
    bucket: Bucket,
    cache: TempDir,
    dice: Dice,
    process: Option<ShoalProcess>,
    ledgers: BTreeMap<String, Ledger>,
    tally: Tally,
    kills: u64,
    kills_in_a_fold: u64,
    deleted_caches: u64,
}

impl Run {
    fn new(name: &'static str, bucket: Bucket) -> Self {
        let seed = seed(name);
        let mut run = Self {
            name,
            bucket,
            cache: tempfile::tempdir().expect("a temporary directory"),
            dice: Dice::new(seed),
            process: None,
            ledgers: BTreeMap::new(),
            tally: Tally::default(),
            kills: 0,
            kills_in_a_fold: 0,
            deleted_caches: 0,
        };
        run.restart(false);
        run
    }

    fn kills(mut self, rounds: u64) {
        for round in 0..rounds {
            let era = round / ROUNDS_PER_ERA;
            if round % ROUNDS_PER_ERA == 0 {
                self.begin_era(era);
            }
            self.kill_once(era, round);
        }
        self.stop_and_check_everything(rounds);
        self.report();
        let (kills_in_a_fold, kills) = (self.kills_in_a_fold, self.kills);
        assert!(plan::is_a_third(kills_in_a_fold, kills), "only {kills_in_a_fold} of {kills} kills hit a fold");
    }

    fn begin_era(&mut self, era: u64) {
        let process = self.process.as_ref().expect("running");
        for name in names(era) {
            process.create_database(&name);
            rows::create(&process.database(&name));
            self.ledgers.insert(name, Ledger::default());
        }
    }

    fn kill_once(&mut self, era: u64, round: u64) {
        let dice = self.dice.split(round);
        let plan = Plan::of(round, self.kills_in_a_fold, dice.clone());
        let process = self.process.take().expect("running");
        let databases = databases(&process, era);
        let Ended { ledgers, log } = traffic::under(&databases, round, &dice, |in_flight| {
            plan.wait(&process.log);
            in_flight.wait_for(IN_FLIGHT_MIN);
            process.kill9()
        });
        self.kills += 1;
        self.kills_in_a_fold += u64::from(!plan::folds_under_way(&log).is_empty());
        self.note(era, ledgers);
        self.restart(plan.deletes_cache);
        self.check(era, round, true);
    }

    /// Adds what the clients of a round know.
    fn note(&mut self, era: u64, ledgers: Vec<Ledger>) {
        for (name, ledger) in names(era).iter().zip(ledgers) {
            let tally = ledger.tally();
            self.tally.acknowledged += tally.acknowledged;
            self.tally.refused += tally.refused;
            self.tally.unknown += tally.unknown;
            self.tally.unsent += tally.unsent;
            self.ledgers.get_mut(name).expect("a database of this era").absorb(ledger);
        }
    }

    /// Starts the next process.
    fn restart(&mut self, deletes_cache: bool) {
        let cache_dir = self.cache.path().join("cache");
        if deletes_cache {
            std::fs::remove_dir_all(&cache_dir).expect("the cache directory can be deleted");
            self.deleted_caches += 1;
        }
        self.process = Some(Shoal::on(&self.bucket, &cache_dir).with(&["--lease", "1s"]).start());
    }

    /// Compares the databases of an era with what the clients know: the transactions of all rounds, and of
    /// the last round every byte.
    fn check(&mut self, era: u64, round: u64, only_this_round: bool) {
        let process = self.process.as_ref().expect("running");
        let first = if only_this_round { round } else { 0 };
        let mut wrong = Vec::new();
        for name in names(era) {
            let database = process.database(&name);
            let ledger = self.ledgers.get_mut(&name).expect("a database of this era");
            let found = rows::found(&database);
            let mut broken = ledger.violations(&found);
            broken.extend(rows::damage(&database, first_id(first)..first_id(round + 1)));
            wrong.extend(broken.into_iter().map(|what| format!("{name}: {what}")));
            ledger.settle(&found);
        }
        assert!(wrong.is_empty(), "{}, round {round}:\n{}", self.name, wrong.join("\n"));
    }

    /// An orderly end, and then all of it once more, from the bucket alone.
    fn stop_and_check_everything(&mut self, rounds: u64) {
        self.process.take().expect("running").terminate();
        self.restart(true);
        for era in 0..rounds.div_ceil(ROUNDS_PER_ERA) {
            self.check(era, rounds, false);
        }
    }

    fn report(&self) {
        let Self { name, tally, kills, kills_in_a_fold, deleted_caches, .. } = self;
        announce(&format!(
            "{name}: {kills} kills, {kills_in_a_fold} of them during a fold; the cache directory was deleted \
             {deleted_caches} times; {tally:?}"
        ));
        assert!(tally.acknowledged > 0, "a test in which nothing is acknowledged shows nothing");
    }
}
