//! `kill -9` of the owner under load, while another node stands by on the same bucket and takes over.
//!
//! Clients write to 4 databases and roam: whoever is refused tries the other node. In each round the node that
//! serves the first database is killed, half of the times its cache directory is deleted, and a new process in
//! its place becomes the next standby: in half of the rounds once the other has taken everything over, in the
//! others at once, so that both race for the databases.
//!
//! The oracle is that of `kill9`, and a reader at each node watches that nobody shows the past.
//!
//! `pageserver`: the same with nobody there but a page server.
//!
//! `SHOAL_KILLS` is the number of rounds on each store (default 5), `SHOAL_SEED` repeats a run's choices.

mod pageserver;

use std::ops::Range;
use std::time::Duration;

use minio_tests::books::Books;
use minio_tests::bucket::Bucket;
use minio_tests::dice::Dice;
use minio_tests::fleet::Fleet;
use minio_tests::settings::{number_from, seed};
use minio_tests::traffic::{self, Ended, Habit};
use minio_tests::writer::first_id;
use minio_tests::{announce, clock, rows};

const KILLS_DEFAULT: u64 = 5;
const DATABASES: usize = 4;
const WRITERS_PER_DATABASE: usize = 2;
/// Requests that are in flight at each kill, at least.
const IN_FLIGHT_MIN: usize = 6;
/// Rounds after which new databases are begun, so that a long run does not check ever more rows per round.
const ROUNDS_PER_ERA: u64 = 20;
/// How long traffic runs before a kill, in milliseconds.
const MOMENTS: Range<u64> = 50..600;

#[test]
fn a_standby_takes_over_what_was_acknowledged_on_the_directory_store() {
    Run::new("takeover, directory", Bucket::directory()).kills(number_from("SHOAL_KILLS").unwrap_or(KILLS_DEFAULT));
}

#[test]
fn a_standby_takes_over_what_was_acknowledged_on_minio() {
    Run::new("takeover, MinIO", Bucket::minio()).kills(number_from("SHOAL_KILLS").unwrap_or(KILLS_DEFAULT));
}

fn names(era: u64) -> Vec<String> {
    (0..DATABASES).map(|database| format!("era-{era}-{database}")).collect()
}

struct Run {
    name: &'static str,
    fleet: Fleet,
    dice: Dice,
    books: Books,
    kills: u64,
    deleted_caches: u64,
    /// Servers that ended because another took them for dead, which nobody had killed.
    revived: u64,
    /// The last owner of the first database.
    owner: usize,
}

impl Run {
    fn new(name: &'static str, bucket: Bucket) -> Self {
        let dice = Dice::new(seed(name));
        let fleet = Fleet::pair(bucket);
        Self { name, fleet, dice, books: Books::default(), kills: 0, deleted_caches: 0, revived: 0, owner: 0 }
    }

    fn kills(mut self, rounds: u64) {
        for round in 0..rounds {
            if round % ROUNDS_PER_ERA == 0 {
                self.begin_era(round / ROUNDS_PER_ERA);
            }
            self.kill_once(round);
        }
        self.stop_and_check_everything(rounds);
        let Self { name, books, kills, deleted_caches, revived, .. } = self;
        let tally = books.tally;
        announce(&format!(
            "{name}: {kills} kills; the cache directory was deleted {deleted_caches} times; {revived} others were taken \
             for dead; {tally:?}"
        ));
        assert!(tally.acknowledged > 0, "a test in which nothing is acknowledged shows nothing");
    }

    /// Half of the databases begin at either node.
    fn begin_era(&mut self, era: u64) {
        for (number, name) in names(era).iter().enumerate() {
            let process = self.fleet.process(number % 2);
            process.create_database(name);
            rows::create(&process.database(name));
            self.books.open(name);
        }
    }

    fn kill_once(&mut self, round: u64) {
        let mut dice = self.dice.split(round);
        let names = names(round / ROUNDS_PER_ERA);
        let nodes = self.fleet.nodes();
        let victim = self.fleet.owner(&names[0], self.owner);
        let moment = Duration::from_millis(dice.between(MOMENTS));
        let (deletes_cache, restarts_at_once) = (matches!(round % 4, 1 | 2), round % 2 == 1);
        let mut revived = 0;
        let crew = (WRITERS_PER_DATABASE, Habit::Roam);
        let ended = traffic::during((&nodes, &names), crew, (round, &dice), |traffic| {
            traffic.wait_for_acknowledgements(|_| true, || revived += self.fleet.revive());
            clock::sleep(moment);
            traffic.in_flight.wait_for(IN_FLIGHT_MIN);
            self.fleet.kill9(victim);
            if deletes_cache {
                self.fleet.delete_cache(victim);
            }
            if restarts_at_once {
                self.fleet.start(victim);
            }
            traffic.wait_for_acknowledgements(
                |node| restarts_at_once || node != victim,
                || revived += self.fleet.revive(),
            );
            if !restarts_at_once {
                self.fleet.start(victim);
            }
        });
        self.kills += 1;
        self.revived += revived;
        self.deleted_caches += u64::from(deletes_cache);
        self.check(round, &names, ended);
    }

    fn check(&mut self, round: u64, names: &[String], ended: Ended<()>) {
        let mut wrong = ended.stale;
        self.owner = ended.owners[0];
        for ((name, ledger), owner) in names.iter().zip(ended.ledgers).zip(ended.owners) {
            self.books.note(name, ledger);
            let database = self.fleet.database(name, owner);
            wrong.extend(self.books.check(name, &database, first_id(round)..first_id(round + 1)));
        }
        assert!(wrong.is_empty(), "{}, round {round}:\n{}", self.name, wrong.join("\n"));
    }

    /// An orderly end, and then all of it once more, from the bucket alone.
    fn stop_and_check_everything(&mut self, rounds: u64) {
        self.fleet.terminate();
        self.fleet.delete_cache(0);
        self.fleet.start(0);
        let mut wrong = Vec::new();
        for name in self.books.names() {
            let database = self.fleet.database(&name, 0);
            wrong.extend(self.books.check(&name, &database, 0..first_id(rounds)));
        }
        assert!(wrong.is_empty(), "{}, from the bucket alone:\n{}", self.name, wrong.join("\n"));
        self.fleet.terminate();
    }
}
