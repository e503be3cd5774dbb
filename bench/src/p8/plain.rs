//! SQLite on a plain file.

use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use super::work::{self, Spent, Work};

pub struct Plain {
    connection: Connection,
    directory: TempDir,
}

impl Plain {
    /// Our VFS is the default one of this process, so SQLite's own is asked for by name.
    pub fn open() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags_and_vfs(directory.path().join("plain.db"), flags, c"unix")?;
        connection.pragma_update(None, "cache_size", compute::limits::CONNECTION_CACHE_KIB)?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        connection.query_row("PRAGMA journal_mode = MEMORY", [], |_| Ok(()))?;
        for sql in work::load() {
            connection.execute_batch(&sql)?;
        }
        Ok(Self { connection, directory })
    }

    pub fn run(&self, work: Work, first_key: u64, count: u64) -> anyhow::Result<Spent> {
        Ok(work::timed(|| work::run(&self.connection, work, first_key, count))?)
    }

    pub fn bytes(&self) -> anyhow::Result<u64> {
        Ok(std::fs::metadata(self.directory.path().join("plain.db"))?.len())
    }
}
