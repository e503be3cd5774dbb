//! Racing claimants: the owner of many databases is killed, and three nodes want all of them at the same time.
//!
//! At each node clients increment a counter in every database, and go on when they are refused. Each database gets
//! one new owner: one process opens it, every acknowledged increment returned another number, the numbers have no gap, and the head in the
//! bucket names one of the claimants, one epoch later.
//!
//! `SHOAL_RACES` is the number of databases raced for on each store (default 100, by the hundred), `SHOAL_SEED`
//! repeats a run's choices.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Barrier, Mutex};
use std::thread;

use minio_tests::announce;
use minio_tests::bucket::Bucket;
use minio_tests::fleet::Fleet;
use minio_tests::hrana::{Failure, Outcome};
use minio_tests::settings::number_from;

const RACES_DEFAULT: u64 = 100;
const DATABASES: usize = 100;
const CLAIMANTS: usize = 3;
/// A node that is not the owner takes its time to say so.
const CLIENTS_PER_NODE: usize = 25;
/// Increments that each node is asked for of each database: while they race, and when they are through.
const INCREMENTS: usize = 2;
/// Databases are created by so many clients at once.
const CREATORS: usize = 8;

#[test]
fn of_many_claimants_one_becomes_the_owner_on_the_directory_store() {
    Run::new("claims, directory", Bucket::directory()).races(number_from("SHOAL_RACES").unwrap_or(RACES_DEFAULT));
}

#[test]
fn of_many_claimants_one_becomes_the_owner_on_minio() {
    Run::new("claims, MinIO", Bucket::minio()).races(number_from("SHOAL_RACES").unwrap_or(RACES_DEFAULT));
}

fn name_of(database: usize) -> String {
    format!("counter-{database}")
}

/// What is known of one counter: the numbers that were acknowledged, by which processes, and how many
/// increments have an unknown outcome.
#[derive(Clone, Default)]
struct Counter {
    acknowledged: Vec<i64>,
    owners: BTreeSet<usize>,
    unknown: usize,
}

struct Run {
    name: &'static str,
    fleet: Fleet,
    counters: Vec<Mutex<Counter>>,
    /// Increments that were refused.
    refused: usize,
    /// Refusals that nobody expects.
    surprises: Mutex<Vec<String>>,
}

impl Run {
    /// The places are two groups of claimants. While one group serves, the other is free; the founder is alone in
    /// its group.
    fn new(name: &'static str, bucket: Bucket) -> Self {
        let mut fleet = Fleet::new(bucket, 2 * CLAIMANTS, &["--lease", "1500ms"]);
        fleet.start(0);
        let run = Self {
            name,
            fleet,
            counters: (0..DATABASES).map(|_| Mutex::default()).collect(),
            refused: 0,
            surprises: Mutex::default(),
        };
        let process = run.fleet.process(0);
        thread::scope(|scope| {
            for creator in 0..CREATORS {
                scope.spawn(move || {
                    for database in (creator..DATABASES).step_by(CREATORS) {
                        process.create_database(&name_of(database));
                        let at = process.database(&name_of(database));
                        at.execute("CREATE TABLE counter (n INTEGER NOT NULL)", &[]).expect("creates");
                        at.execute("INSERT INTO counter VALUES (0)", &[]).expect("inserts");
                    }
                });
            }
        });
        run
    }

    fn races(mut self, races: u64) {
        let rounds = races.div_ceil(DATABASES as u64);
        for round in 0..rounds {
            let group = if round % 2 == 0 { CLAIMANTS..2 * CLAIMANTS } else { 0..CLAIMANTS };
            self.race(group, |_| {});
            let wrong = self.complaints(round);
            assert!(wrong.is_empty(), "{}, round {round}:\n{}", self.name, wrong.join("\n"));
        }
        self.fleet.terminate();
        let acknowledged: usize = self.counters.iter().map(|it| it.lock().unwrap().acknowledged.len()).sum();
        let unknown: usize = self.counters.iter().map(|it| it.lock().unwrap().unknown).sum();
        announce(&format!(
            "{}: {} races of {CLAIMANTS} claimants, one owner each; {acknowledged} increments acknowledged, {} \
             refused, {unknown} unknown",
            self.name,
            rounds * DATABASES as u64,
            self.refused
        ));
    }

    /// All owners die, and these want what they had.
    fn race(&mut self, group: Range<usize>, prepare: impl FnOnce(&Bucket)) {
        group.clone().for_each(|claimant| self.fleet.start(claimant));
        for owner in self.fleet.running().filter(|number| !group.contains(number)).collect::<Vec<_>>() {
            self.fleet.kill9(owner);
        }
        self.counters.iter().for_each(|counter| counter.lock().unwrap().owners.clear());
        prepare(&self.fleet.bucket);
        for _ in 0..INCREMENTS {
            self.refused += self.increment_everywhere(group.clone());
        }
    }

    /// Everything that is wrong after a race, in sentences.
    fn complaints(&self, round: u64) -> Vec<String> {
        let mut wrong = self.surprises.lock().unwrap().clone();
        wrong.extend((0..DATABASES).filter_map(|database| self.complaint(database)));
        wrong.extend(self.complaints_about_epochs(round));
        wrong
    }

    /// One increment of every counter at every node, all nodes at the same counters at the same time. How many
    /// were refused.
    fn increment_everywhere(&self, group: Range<usize>) -> usize {
        let start = Barrier::new(CLAIMANTS * CLIENTS_PER_NODE);
        let (start, nodes) = (&start, &self.fleet.nodes());
        thread::scope(|scope| {
            let clients: Vec<_> = group
                .flat_map(|node| (0..CLIENTS_PER_NODE).map(move |client| (node, client)))
                .map(|(node, client)| {
                    scope.spawn(move || {
                        start.wait();
                        let mine = (client..DATABASES).step_by(CLIENTS_PER_NODE);
                        mine.filter(|database| {
                            let at = nodes.database(node, &name_of(*database)).expect("it runs");
                            let sql = "UPDATE counter SET n = n + 1 RETURNING n";
                            let answer = at.execute(sql, &[]).map(|rows| rows[0][0].integer());
                            !self.note(*database, node, &answer)
                        })
                        .count()
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().expect("a client panicked")).sum()
        })
    }

    /// Notes what one increment came to; `false` if it was refused.
    fn note(&self, database: usize, node: usize, answer: &Result<i64, Failure>) -> bool {
        let mut counter = self.counters[database].lock().unwrap();
        match (Outcome::of(answer), answer) {
            (Outcome::Acknowledged, answer) => {
                counter.acknowledged.extend(answer.as_ref().ok());
                counter.owners.insert(node);
            }
            (Outcome::Unknown(_), _) => counter.unknown += 1,
            (Outcome::Refused(_), Err(failure)) if failure.is_unavailable() => return false,
            (Outcome::Refused(why), _) => self.surprises.lock().unwrap().push(why),
        }
        true
    }

    /// What is wrong with a counter. Somebody must serve it in the end, if not at the first try: on a busy machine
    /// even an owner may have lost touch with the bucket for a moment.
    fn complaint(&self, database: usize) -> Option<String> {
        let counter = self.counters[database].lock().unwrap();
        let guess = counter.owners.first().copied().or_else(|| self.fleet.running().next()).expect("claimants");
        let at = self.fleet.database(&name_of(database), guess);
        let found = at.execute_when_available("SELECT n FROM counter", &[])[0][0].integer();
        let numbers: BTreeSet<i64> = counter.acknowledged.iter().copied().collect();
        let count = numbers.len();
        let what = if count != counter.acknowledged.len() {
            "two increments returned the same number".to_owned()
        } else if counter.owners.len() > 1 {
            format!("it was served by the processes {:?} in one epoch", counter.owners)
        } else if !(count..=count + counter.unknown).contains(&usize::try_from(found).unwrap_or_default()) {
            format!("it says {found} after {count} acknowledged and {} unknown increments", counter.unknown)
        } else if numbers.last().is_some_and(|last| *last > found) {
            format!("it says {found}, and an acknowledged increment made more of it")
        } else {
            return None;
        };
        Some(format!("{}: {what}", name_of(database)))
    }

    /// Each database was opened by exactly one claimant, at the epoch that follows.
    fn complaints_about_epochs(&self, round: u64) -> Vec<String> {
        let mut opened: BTreeMap<String, Vec<(usize, String)>> = BTreeMap::new();
        for node in self.fleet.running() {
            for (name, epoch) in self.fleet.process(node).log.lines().iter().filter_map(|line| opened_database(line)) {
                opened.entry(name).or_default().push((node, epoch));
            }
        }
        let expected = (2 + round).to_string();
        let complaint = |database: usize| {
            let opened = opened.get(&name_of(database)).map(Vec::as_slice).unwrap_or_default();
            let is_one = matches!(opened, [(_, epoch)] if *epoch == expected);
            (!is_one).then(|| format!("{} was opened by (process, epoch) {opened:?}", name_of(database)))
        };
        (0..DATABASES).filter_map(complaint).collect()
    }
}

/// A suite that stays green against a broken store is broken: here every claimant's CAS succeeds.
#[test]
fn a_store_that_crowns_every_claimant_is_noticed() {
    let mut run = Run::new("claims, a store without conditions", Bucket::emulator());
    run.race(CLAIMANTS..2 * CLAIMANTS, |bucket| bucket.as_emulator().faults().ignore_conditions(true));
    let wrong = run.complaints(0).join("\n");
    assert!(wrong.contains("two increments returned the same number"), "{wrong}");
    assert!(wrong.contains("was opened by (process, epoch) [("), "{wrong}");
}

/// Name and epoch of a database that a process has begun to serve, if this line of its log tells that.
fn opened_database(line: &str) -> Option<(String, String)> {
    let (_, rest) = line.split_once(" open database=")?;
    let (name, rest) = rest.split_once(" epoch=")?;
    Some((name.to_owned(), rest.split(' ').next()?.to_owned()))
}

#[test]
fn the_line_of_an_opened_database_is_understood() {
    let line = "2026-01-01T00:00:00Z  INFO compute::core::databases: open database=counter-7 epoch=2 lsn=3";
    assert_eq!(opened_database(line), Some(("counter-7".into(), "2".into())));
    assert_eq!(opened_database("INFO serving http_addr=1.2.3.4:5"), None);
}
