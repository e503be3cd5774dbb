//! Unmodified clients read a database at a node that another one owns, while that one writes it, and are told where to
//! write.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::language::Language;
use crate::outcome::Outcome;
use crate::script::{Action, Args, Statement, Step};
use crate::support::{Database, Server, request};
use crate::value::Value;
use crate::{carry_out, clients_directory, is_installed};

const READS: usize = 40;
/// Each commit adds one row with the next number, so these three agree in every state of the database, and in no
/// mixture of two.
const STATE: &str = "SELECT count(*), max(n), sum(n) FROM t";

#[test]
fn javascript_reads_a_replica_while_its_owner_writes() {
    check(Language::JavaScript);
}

#[test]
fn python_reads_a_replica_while_its_owner_writes() {
    check(Language::Python);
}

#[test]
fn rust_reads_a_replica_while_its_owner_writes() {
    check(Language::Rust);
}

fn check(language: Language) {
    if !is_installed(language) {
        return;
    }
    let owner = Server::serve(&[]);
    let replica = owner.serve_beside(&["--read-replicas"]);
    let (written, read) = (owner.database("app"), replica.unmade_database("app"));
    written.run("CREATE TABLE t(n INTEGER PRIMARY KEY)");
    insert(&written, 1);
    shows(&read, &lsn_of(&written));

    let (last, is_over) = (AtomicU64::new(1), AtomicBool::new(false));
    let reads = execute("while it is written", vec![query(STATE); READS]);
    let steps = [reads, writes(), execute("after", vec![query(STATE)])];
    let found = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                let next = last.load(Ordering::Acquire) + 1;
                last.store(next, Ordering::Release);
                insert(&written, next);
            }
        });
        let found = carry_out(language, &clients_directory(), &read.url, replica.directory(), &steps);
        is_over.store(true, Ordering::Release);
        found
    });
    let last = last.into_inner();
    assert!(last > 1, "nothing was written meanwhile");

    let states: Vec<u64> = found[0].1.iter().chain(&found[2].1).map(state).collect();
    assert_eq!(states.len(), READS + 1);
    assert!(states.is_sorted(), "it goes back: {states:?}");
    assert!(states.last() <= Some(&last), "{states:?}, and {last} were written");
    for outcome in &found[1].1 {
        let Outcome::Failed { message, .. } = outcome else { panic!("a replica takes a write: {outcome:?}") };
        let place = format!("http://{}", owner.http);
        let is_clear = message.contains("served by another node") && message.contains(&place);
        assert!(is_clear, "{language:?} is not told where to write: {message}");
    }

    // It was the replica all the time: it has taken nothing over, and shows the last of it to the same client.
    insert(&written, last + 1);
    shows(&read, &lsn_of(&written));
    let steps = [execute("at the end", vec![query(STATE)])];
    let found = carry_out(language, &clients_directory(), &read.url, replica.directory(), &steps);
    assert_eq!(state(&found[0].1[0]), last + 1);
}

fn insert(database: &Database, n: u64) {
    database.run(&format!("INSERT INTO t VALUES ({n})"));
}

/// The last commit of an owner.
fn lsn_of(database: &Database) -> String {
    let answer = database.post("v3/pipeline", r#"{"requests":[{"type":"execute","stmt":{"sql":"SELECT 1"}}]}"#);
    assert_eq!(answer.headers["shoal-role"], "owner", "{answer:?}");
    answer.headers["shoal-lsn"].to_str().expect("text").to_owned()
}

/// Waits until a replica shows this commit.
fn shows(database: &Database, lsn: &str) {
    let body = r#"{"requests":[{"type":"execute","stmt":{"sql":"SELECT 1"}}]}"#;
    let url = format!("{}v3/pipeline", database.url);
    for _ in 0..60 {
        let answer = request("POST", &url, &[("shoal-min-lsn", lsn)], body.as_bytes()).expect("an answer");
        if answer.status == 200 {
            assert_eq!(answer.headers["shoal-role"], "replica", "{answer:?}");
            return;
        }
    }
    panic!("the replica does not get to commit {lsn}");
}

/// How many rows an outcome shows, which must be those of one commit.
fn state(outcome: &Outcome) -> u64 {
    let Outcome::Rows { rows, .. } = outcome else { panic!("{outcome:?}") };
    let number = |value: &Value| match value {
        Value::Integer(integer) => u64::try_from(*integer).expect("a number of rows"),
        other => panic!("{other:?}"),
    };
    let [count, max, sum] = rows[0].iter().map(number).collect::<Vec<_>>()[..] else { panic!("{rows:?}") };
    assert_eq!((count, sum), (max, max * (max + 1) / 2), "a mixture of commits");
    count
}

fn query(sql: &str) -> Statement {
    Statement { sql: sql.to_owned(), args: Args::Positional(Vec::new()), has_rows: true }
}

fn execute(name: &'static str, statements: Vec<Statement>) -> Step {
    Step { name, action: Action::Execute(statements) }
}

fn writes() -> Step {
    let statements = ["INSERT INTO t VALUES (0)", "DELETE FROM t", "CREATE TABLE u(a)"];
    execute("writes", statements.map(|sql| Statement { has_rows: false, ..query(sql) }).to_vec())
}
