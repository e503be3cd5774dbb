//! What is timed. Both sides run these functions.

use std::ops::AddAssign;

use rusqlite::Connection;

use crate::clock;
use crate::scatter::scattered;

pub const ROWS: u64 = 250_000;
const LOADED_AT_ONCE: u64 = 25_000;

/// A row is about 220 bytes.
const SCHEMA: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL, v TEXT NOT NULL)";
pub const SELECT: &str = "SELECT n + length(v) FROM t WHERE id = ?1";
pub const UPDATE: &str = "UPDATE t SET n = n + 1 WHERE id = ?1";
const SCAN: &str = "SELECT sum(n) + sum(length(v)) FROM t";
const RANGE: &str = "SELECT sum(n) + sum(length(v)) FROM t WHERE id BETWEEN ?1 AND ?1 + 99";
pub const CHECK: &str = "SELECT group_concat(integrity_check, '; ') FROM pragma_integrity_check";

#[derive(Clone, Copy, Debug)]
pub enum Work {
    Select,
    Update,
    Scan,
    Range,
    /// As a client of Hrana asks: with the statement's text each time.
    SelectText,
    UpdateText,
}

impl Work {
    pub fn writes(self) -> bool {
        matches!(self, Self::Update | Self::UpdateText)
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    pub seconds: f64,
    /// Of the thread that ran it.
    pub cpu_seconds: f64,
    /// What the queries came to: the same on both sides.
    pub sum: i64,
}

impl AddAssign for Spent {
    fn add_assign(&mut self, other: Self) {
        self.seconds += other.seconds;
        self.cpu_seconds += other.cpu_seconds;
        self.sum += other.sum;
    }
}

/// Runs `work` and tells what it took.
pub fn timed<E>(work: impl FnOnce() -> Result<i64, E>) -> Result<Spent, E> {
    let (from, cpu_from) = (clock::now(), clock::thread_cpu_seconds());
    let sum = work()?;
    let cpu_seconds = clock::thread_cpu_seconds() - cpu_from;
    Ok(Spent { seconds: from.elapsed().as_secs_f64(), cpu_seconds, sum })
}

/// The keys of one turn, random and the same on both sides.
pub fn keys(first: u64, count: u64) -> impl Iterator<Item = i64> {
    (first..first + count).map(|n| (scattered(n) % ROWS + 1) as i64)
}

/// Runs statements on a connection, prepared once for all keys where they are not asked for by text.
pub fn run(connection: &Connection, work: Work, first_key: u64, count: u64) -> rusqlite::Result<i64> {
    let mut sum = 0;
    match work {
        Work::Select | Work::Range => {
            let mut statement = connection.prepare(if matches!(work, Work::Select) { SELECT } else { RANGE })?;
            for key in keys(first_key, count) {
                sum += statement.query_row([key], |row| row.get::<_, Option<i64>>(0))?.unwrap_or(0);
            }
        }
        Work::Update => {
            let mut statement = connection.prepare(UPDATE)?;
            for key in keys(first_key, count) {
                sum += statement.execute([key])? as i64;
            }
        }
        Work::Scan => {
            let mut statement = connection.prepare(SCAN)?;
            for _ in 0..count {
                sum += statement.query_row([], |row| row.get::<_, i64>(0))?;
            }
        }
        Work::SelectText => {
            for key in keys(first_key, count) {
                let found = connection.prepare(SELECT)?.query_row([key], |row| row.get::<_, i64>(0))?;
                sum += i64::from(std::hint::black_box(found) > 0);
            }
        }
        Work::UpdateText => {
            for key in keys(first_key, count) {
                sum += connection.prepare(UPDATE)?.execute([key])? as i64;
            }
        }
    }
    Ok(sum)
}

/// What fills an empty database, each text a transaction.
pub fn load() -> impl Iterator<Item = String> {
    let rows = (0..ROWS).step_by(LOADED_AT_ONCE as usize).map(|after| {
        let upto = (after + LOADED_AT_ONCE).min(ROWS);
        // Text that neither repeats nor is the same length everywhere.
        let text = "printf('%0*d', 150 + id % 90, id * 7919) || id";
        format!(
            "WITH RECURSIVE ids(id) AS (SELECT {after} + 1 UNION ALL SELECT id + 1 FROM ids WHERE id < {upto})
             INSERT INTO t SELECT id, id % 977, {text} FROM ids"
        )
    });
    std::iter::once(SCHEMA.to_owned()).chain(rows)
}
