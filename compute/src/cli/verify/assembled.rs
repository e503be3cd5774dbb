//! A database put together in a temporary file, and what SQLite says of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use pageserver::verify::PageSink;
use rusqlite::{Connection, OpenFlags};
use segments::page::{PAGE_BYTES, Page, PageNo};
use tempfile::NamedTempFile;

/// Lines that are told of one database.
const LINES_MAX: usize = 20;

/// One file for one database after the other. It goes with this value.
pub struct Assembled(NamedTempFile);

impl Assembled {
    pub fn in_directory(directory: Option<&Path>) -> io::Result<Self> {
        let file = match directory {
            Some(directory) => NamedTempFile::new_in(directory)?,
            None => NamedTempFile::new()?,
        };
        Ok(Self(file))
    }

    fn file(&self) -> &File {
        self.0.as_file()
    }
}

impl PageSink for Assembled {
    fn begin(&mut self, page_count: u32) -> io::Result<()> {
        // To nothing first, so that no page of the database before shows through.
        self.file().set_len(0)?;
        self.file().set_len(u64::from(page_count) * PAGE_BYTES as u64)
    }

    fn page(&mut self, number: PageNo, page: &Page) -> io::Result<()> {
        let offset = u64::from(number.get() - 1) * PAGE_BYTES as u64;
        self.file().write_all_at(page.as_bytes(), offset)
    }

    /// What SQLite finds is damage of the database, even if it cannot open it at all.
    fn finish(&mut self) -> io::Result<Vec<String>> {
        let said = integrity_check(self.0.path());
        self.file().set_len(0)?;
        Ok(said.unwrap_or_else(|error| vec![format!("SQLite cannot read the database: {error}")]))
    }
}

/// Empty if all is well. Nobody else writes the file, and the schema in it is a stranger's.
fn integrity_check(path: &Path) -> rusqlite::Result<Vec<String>> {
    // Nothing is written. But of a file that is open for reading only, SQLite passes over CHECK constraints.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags_and_vfs(path, flags, c"unix")?;
    connection.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON")?;
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({LINES_MAX})"))?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
    let told = |line: String| (line != "ok").then(|| format!("integrity_check: {line}"));
    lines.filter_map(|line| line.map(told).transpose()).collect()
}
