//! P6: how many bytes does a one-row commit put, against what SQLite's WAL writes for the same statements?

use std::fs;

use emulator::Operation;
use rusqlite::Connection;

use crate::Options;
use crate::hrana::Client;
use crate::report::{Report, Value};
use crate::rig::Rig;
use crate::scatter::scattered;
use crate::stats::{mean, median};

const ROWS: u64 = 10_000;
const COMMITS: u64 = 500;

const RATIO_MAX: f64 = 0.10;
const P50_BYTES_MAX: f64 = 1024.0;

/// The header of a WAL; frames of 24 + 4,096 bytes follow.
const WAL_HEADER_BYTES: u64 = 32;

pub fn run(_options: &Options) -> anyhow::Result<Report> {
    let rig = Rig::start()?;
    let ours = rig.create_with("app", &[])?;
    let theirs = PlainSqlite::open()?;
    for sql in schema() {
        ours.run(&sql)?;
        theirs.connection.execute_batch(&sql)?;
    }
    let inserts = (0..COMMITS).map(insert).collect::<Vec<_>>();
    let updates = (0..COMMITS).map(update).collect::<Vec<_>>();
    let mut values = Vec::new();
    for (what, statements) in [("inserts", inserts), ("updates", updates)] {
        let sizes = fragment_bytes(&rig, &ours, &statements)?;
        let wal_bytes = theirs.wal_bytes(&statements)? as f64 / statements.len() as f64;
        let ratio = mean(&sizes) / wal_bytes;
        values.extend([
            Value::new(format!("{what}: bytes PUT ÷ bytes of SQLite's WAL"), ratio, "×").at_most(RATIO_MAX),
            Value::new(format!("{what}: bytes PUT per commit, p50"), median(&sizes), "B").at_most(P50_BYTES_MAX),
            Value::new(format!("{what}: bytes PUT per commit, mean"), mean(&sizes), "B"),
            Value::new(format!("{what}: bytes of SQLite's WAL per commit, mean"), wal_bytes, "B"),
        ]);
    }
    Ok(Report::new("P6", "bytes PUT to the log per one-row commit ÷ bytes that SQLite's WAL writes", values))
}

/// A table with an index and ten thousand rows.
fn schema() -> [String; 3] {
    let customer = "printf('customer-%05d', (id * 7919) % 4001)";
    [
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT NOT NULL, amount INTEGER NOT NULL, note TEXT NOT NULL)".into(),
        "CREATE INDEX by_customer ON orders (customer)".into(),
        format!(
            "WITH RECURSIVE ids(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids WHERE id < {ROWS})
             INSERT INTO orders SELECT id, {customer}, id % 977, 'to be delivered on day ' || (id % 365) FROM ids"
        ),
    ]
}

fn insert(n: u64) -> String {
    let (customer, amount) = (scattered(n) % 4001, scattered(n + COMMITS) % 977);
    format!(
        "INSERT INTO orders (customer, amount, note) VALUES ('customer-{customer:05}', {amount}, 'to be delivered on day {}')",
        n % 365
    )
}

fn update(n: u64) -> String {
    let (id, more) = (scattered(n) % ROWS + 1, scattered(n + COMMITS) % 977 + 1);
    format!("UPDATE orders SET amount = amount + {more} WHERE id = {id}")
}

/// Bytes of the fragment that each statement's commit put.
fn fragment_bytes(rig: &Rig, client: &Client, statements: &[String]) -> anyhow::Result<Vec<f64>> {
    let commit = |sql: &String| {
        let ((), spent) = rig.count(|| client.run(sql))?;
        let log = spent.get(Operation::Put, "w");
        anyhow::ensure!(log.requests == 1, "a commit took {} PUTs", log.requests);
        Ok(log.bytes as f64)
    };
    statements.iter().map(commit).collect()
}

/// SQLite on a local file.
struct PlainSqlite {
    connection: Connection,
    directory: tempfile::TempDir,
}

impl PlainSqlite {
    fn open() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let connection = Connection::open(directory.path().join("plain.db"))?;
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        connection.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(()))?;
        Ok(Self { connection, directory })
    }

    /// By how much the WAL grows through these statements, each a commit.
    fn wal_bytes(&self, statements: &[String]) -> anyhow::Result<u64> {
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        for sql in statements {
            self.connection.execute(sql, [])?;
        }
        let wal = fs::metadata(self.directory.path().join("plain.db-wal"))?;
        Ok(wal.len() - WAL_HEADER_BYTES)
    }
}
