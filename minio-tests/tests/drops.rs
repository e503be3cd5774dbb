//! The answer of the n-th PUT is lost, for every n of a script: creating a database, statements, interactive
//! transactions, large rows, folds. The client never repeats anything, and every request succeeds; the database
//! then holds exactly what the script wrote, once; and the node does not take itself for fenced.
//!
//! The script runs 16 times, each time on a new database: the k-th run loses the answers of the PUTs k, k + 16,
//! k + 32 and so on. Lease renewals, which come between, count as PUTs too. The same is done with the PUTs of a
//! start and an orderly end, one in each run.
//!
//! `SHOAL_DROPS` is the least number of PUTs to lose on each store (default 40): scripts are as long as that
//! takes.

use minio_tests::announce;
use minio_tests::bucket::Bucket;
use minio_tests::dice::Dice;
use minio_tests::hrana::Database;
use minio_tests::settings::number_from;
use minio_tests::shoal::{Shoal, ShoalProcess};
use minio_tests::stream::Stream;
use minio_tests::value::Value;

const DROPS_DEFAULT: u64 = 40;
/// A part of the script makes at least so many PUTs.
const PUTS_PER_PART_MIN: u64 = 14;
/// From one lost answer to the next: far enough apart for each to be a story of its own.
const DISTANCE: u64 = 16;
/// What a row holds: random bytes, so that a few of them make a fold due.
const CONTENT_BYTES: usize = 20_000;
/// What the log says when a node takes itself for fenced, or its databases for lost.
const FENCES: [&str; 4] =
    ["this incarnation is over", "the log is fenced", "this node was fenced", "has another owner"];

#[test]
fn every_lost_answer_is_survived_on_the_emulator() {
    lose_every_answer("drops, emulator", Bucket::emulator(), number_from("SHOAL_DROPS").unwrap_or(DROPS_DEFAULT));
}

#[test]
fn every_lost_answer_is_survived_on_minio() {
    lose_every_answer("drops, MinIO", Bucket::minio(), number_from("SHOAL_DROPS").unwrap_or(DROPS_DEFAULT));
}

/// What the table holds: what each row says, and how many bytes.
type Model = Vec<(i64, String, usize)>;

fn lose_every_answer(test: &str, bucket: Bucket, drops_min: u64) {
    let bucket = bucket.behind_proxy(1);
    let caches = tempfile::tempdir().expect("a temporary directory");
    let faults = bucket.proxy_faults();
    let start = |cache: &str| Shoal::on(&bucket, &caches.path().join(cache)).with(&["--lease", "1s"]).start();
    let parts = drops_min.div_ceil(PUTS_PER_PART_MIN);
    let process = start("one");
    let mut models: Vec<(String, Model)> = Vec::new();
    let mut drops = 0;
    for first in 1..=DISTANCE {
        // More than any script takes; those that are left over are cleared.
        let numbers = (first..).step_by(DISTANCE as usize).take(2 * drops_min as usize);
        let scheduled = numbers.map(|n| faults.drop_put_answer(n)).count();
        let name = format!("drop-{first}");
        let model = script(&process, &name, parts);
        drops += (scheduled - faults.drops_pending()) as u64;
        faults.clear();
        check(&process.database(&name), &name, &model);
        models.push((name, model));
    }
    assert!(drops >= drops_min, "the script made {drops} PUTs, not {drops_min}");
    assert_eq!(fences(process.terminate()), Vec::<String>::new());

    let ends = lose_answers_of_starts_and_ends(&bucket, &start, &mut models);
    let process = start("none");
    for (name, model) in &models {
        check(&process.database(name), name, model);
    }
    process.terminate();
    announce(&format!(
        "{test}: {drops} answers lost in scripts, {ends} in starts and ends; every commit is there once"
    ));
}

/// Loses the answer of each PUT that a process makes from its start to its orderly end. How many those were.
fn lose_answers_of_starts_and_ends(
    bucket: &Bucket,
    start: &dyn Fn(&str) -> ShoalProcess,
    models: &mut [(String, Model)],
) -> u64 {
    let faults = bucket.proxy_faults();
    for n in 1.. {
        faults.drop_put_answer(n);
        let process = start("two");
        let (name, model) = &mut models[0];
        insert(&process.database(name), model, 10);
        check(&process.database(name), name, model);
        assert_eq!(fences(process.terminate()), Vec::<String>::new());
        if faults.drops_pending() > 0 {
            faults.clear();
            return n - 1;
        }
    }
    unreachable!("BUG: the natural numbers have ended")
}

fn fences(log: Vec<String>) -> Vec<String> {
    log.into_iter().filter(|line| FENCES.iter().any(|fence| line.contains(fence))).collect()
}

/// Makes a database and writes to it in every way that there is. What it then holds.
fn script(process: &ShoalProcess, name: &str, parts: u64) -> Model {
    process.create_database(name);
    let database = process.database(name);
    execute(&database, "CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT, content BLOB)", &[]);
    let mut model = Model::new();
    for part in 0..parts {
        for _ in 0..4 {
            insert(&database, &mut model, 100);
        }
        interactive(&database, &mut model);
        let last = model.len() - 1;
        execute(&database, "UPDATE log SET what = what || '!' WHERE id = ?", &[model[last].0.into()]);
        model[last].1.push('!');
        execute(&database, "DELETE FROM log WHERE id = ?", &[model[0].0.into()]);
        model.remove(0);
        // A new table in each part: the schema changes too.
        execute(&database, &format!("CREATE TABLE part_{part} (n INTEGER)"), &[]);
        for _ in 0..5 {
            insert(&database, &mut model, CONTENT_BYTES);
        }
    }
    model
}

fn execute(database: &Database, sql: &str, args: &[Value]) {
    database.execute(sql, args).unwrap_or_else(|failure| panic!("{}: {sql}: {failure}", database.url()));
}

fn next_row(model: &Model, bytes: usize) -> (i64, String, Vec<u8>) {
    let id = model.iter().map(|(id, ..)| *id).max().unwrap_or(0) + 1;
    (id, format!("row {id}"), Dice::new(id.cast_unsigned()).bytes(bytes))
}

/// A row whose number SQLite chooses: a statement that runs twice makes two.
const INSERT: &str = "INSERT INTO log (what, content) VALUES (?, ?)";

fn insert(database: &Database, model: &mut Model, bytes: usize) {
    let (id, what, content) = next_row(model, bytes);
    execute(database, INSERT, &[what.as_str().into(), content.into()]);
    model.push((id, what, bytes));
}

fn interactive(database: &Database, model: &mut Model) {
    let mut stream = Stream::new(database);
    stream.execute("BEGIN", &[]).expect("begins");
    for _ in 0..3 {
        let (id, what, content) = next_row(model, 500);
        stream.execute(INSERT, &[what.as_str().into(), content.into()]).expect("inserts");
        model.push((id, what, 500));
    }
    stream.finish("COMMIT", &[]).expect("commits");
}

fn check(database: &Database, name: &str, model: &Model) {
    let rows = database.execute_when_available("SELECT id, what, length(content) FROM log ORDER BY id", &[]);
    let expected = model.iter().map(|(id, what, bytes)| {
        vec![Value::from(*id), what.as_str().into(), i64::try_from(*bytes).expect("a few thousand").into()]
    });
    assert_eq!(rows, expected.collect::<Vec<_>>(), "{name} holds what the script wrote, once");
    let damage = database.execute_when_available("PRAGMA integrity_check", &[]);
    assert_eq!(damage, [["ok".into()]], "{name}");
}
