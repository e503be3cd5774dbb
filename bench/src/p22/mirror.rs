//! The load, and SQLite on a local file with the same statements.

use std::fs;

use anyhow::Context;
use rusqlite::Connection;
use segments::id::PackId;
use segments::pack::PackWriter;
use segments::page::{PAGE_BYTES, Page, SEGMENT_BYTES, SegmentNo};
use walstore::id::{DatabaseId, Lsn};

use crate::scatter::scattered;

const ROWS: u64 = 20_000;
/// A WAL is measured, and begun anew, after so many.
const STATEMENTS_PER_WAL: u64 = 500;
pub const STATEMENTS_MIN: u64 = 200;

/// A table with an index and some rows.
pub fn schema() -> [String; 3] {
    [
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT NOT NULL, amount INTEGER NOT NULL, note TEXT NOT NULL)".into(),
        "CREATE INDEX by_customer ON orders (customer)".into(),
        format!(
            "WITH RECURSIVE ids(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids WHERE id < {ROWS})
             INSERT INTO orders SELECT id, printf('customer-%05d', (id * 7919) % 4001), id % 977,
                 printf('%x-%x-%x', id * 2654435761, id * 40503, id * 69069) FROM ids"
        ),
    ]
}

/// The `n`-th statement.
pub fn statement(n: u64) -> String {
    let (kind, chance) = (scattered(n) % 100, scattered(n ^ 1 << 60));
    let (id, amount) = (chance % ROWS + 1, chance / ROWS % 977);
    match kind {
        0..60 => format!("UPDATE orders SET amount = amount + {} WHERE id = {id}", amount + 1),
        60..85 => format!(
            "INSERT INTO orders (customer, amount, note) VALUES ('customer-{:05}', {amount}, '{chance:x}')",
            chance % 4001
        ),
        85..95 => format!("DELETE FROM orders WHERE id = {id}"),
        _ => format!("UPDATE orders SET note = note || '{:x}' WHERE id BETWEEN {id} AND {id} + 19", chance % 256),
    }
}

pub struct Mirror {
    connection: Connection,
    directory: tempfile::TempDir,
    statements: u64,
    /// Written to the WAL by [`run`](Self::run).
    pub wal_bytes: u64,
}

impl Mirror {
    pub fn open() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let connection = Connection::open(directory.path().join("plain.db"))?;
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        connection.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        Ok(Self { connection, directory, statements: 0, wal_bytes: 0 })
    }

    /// A statement that does not count.
    pub fn load(&self, sql: &str) -> anyhow::Result<()> {
        self.connection.execute_batch(sql)?;
        self.checkpoint()
    }

    pub fn run(&mut self, sql: &str) -> anyhow::Result<()> {
        self.connection.execute(sql, [])?;
        self.statements += 1;
        if self.statements.is_multiple_of(STATEMENTS_PER_WAL) { self.truncate() } else { Ok(()) }
    }

    /// Counts the WAL and begins a new one.
    pub fn truncate(&mut self) -> anyhow::Result<()> {
        self.wal_bytes += fs::metadata(self.directory.path().join("plain.db-wal"))?.len();
        self.checkpoint()
    }

    fn checkpoint(&self) -> anyhow::Result<()> {
        Ok(self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
    }

    /// The size of one pack with the whole database, compressed as folds compress.
    pub fn fresh_image_bytes(&self) -> anyhow::Result<u64> {
        let file = fs::read(self.directory.path().join("plain.db"))?;
        let id = PackId { owner: DatabaseId::from_bytes([0; 16]), epoch: 1, seq: 1, nonce: 1 };
        let mut pack = PackWriter::new(id, Lsn::FIRST, u32::try_from(file.len() / PAGE_BYTES)?);
        for (number, segment) in (0..).zip(file.chunks(SEGMENT_BYTES)) {
            let pages = segment.as_chunks().0.iter().map(Page::copy_of).collect();
            pack.add_segment(SegmentNo::new(number).context("a database of this size")?, pages);
        }
        Ok(pack.finish()?.bytes.len() as u64)
    }
}
