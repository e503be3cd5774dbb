//! Files to import: the tables of a family, with rows. They are always the same, made once by SQLite itself.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use compute::import::check::check_header;
use compute::import::job::{Checked, Pages, pages_of};
use compute::error::ServerError;
use rusqlite::{Connection, OpenFlags};
use segments::page::{PAGE_BYTES, Page};
use tenant::name::Name;

use super::family::{Brought, CELLS};

/// Rows, the length of what each has written to its cell, and pages of ballast: one whose pages stand in the head, one
/// with a pack, and one with two.
const FILES: [(u64, u64, u64); 4] = [(4, 40, 0), (30, 3_000, 0), (60, 12_000, 300), (9, 700, 4_200)];
/// What an acknowledged transaction has written ends with so many bytes that tell it from others.
const TAIL_DIGITS: usize = 8;

/// What a family's first database is made of.
pub const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS log(value TEXT, cell INTEGER, bytes INTEGER, wrote TEXT);
     CREATE TABLE IF NOT EXISTS cell(id INTEGER PRIMARY KEY, value TEXT, filler BLOB);";
/// Each row of the log overwrites a cell.
pub const TRIGGER: &str = "CREATE TRIGGER IF NOT EXISTS fill AFTER INSERT ON log BEGIN
       UPDATE cell SET value = new.value, filler = randomblob(new.bytes) WHERE id = new.cell;
       UPDATE log SET wrote = (SELECT hex(substr(filler, -8)) || '/' || length(filler) FROM cell WHERE id = new.cell)
         WHERE rowid = new.rowid;
     END;";

/// The rows that make its cells.
pub fn empty_cells() -> String {
    let cells: Vec<String> = (0..CELLS).map(|cell| format!("({cell}, '', NULL)")).collect();
    format!("INSERT OR IGNORE INTO cell VALUES {};", cells.join(", "))
}

/// A SQLite file, and what it shows.
pub struct SqliteFile {
    bytes: Bytes,
    pub rows: Vec<Brought>,
    pub page_count: u32,
}

impl SqliteFile {
    fn make(number: usize, (rows, bytes, ballast): (u64, u64, u64)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file.db");
        // Not the server's VFS, which is the default by now.
        let sql = Connection::open_with_flags_and_vfs(&path, OpenFlags::default(), "unix").expect("a database");
        let run = |text: &str| sql.execute_batch(text).expect("it is right");
        run(&format!("PRAGMA page_size = {PAGE_BYTES}; {SCHEMA} {} CREATE TABLE ballast(body BLOB);", empty_cells()));
        let mut brought = Vec::new();
        for row in 0..rows {
            let (value, cell, tail) = (format!("file-{number}-{row}"), row % CELLS, format!("{row:0TAIL_DIGITS$}"));
            let hex: String = tail.bytes().map(|byte| format!("{byte:02X}")).collect();
            let wrote = format!("{hex}/{bytes}");
            let body = format!("{row:0>0$}", bytes as usize);
            run(&format!(
                "INSERT INTO log VALUES ('{value}', {cell}, {bytes}, '{wrote}');
                 UPDATE cell SET value = '{value}', filler = CAST('{body}' AS BLOB) WHERE id = {cell};"
            ));
            brought.push(Brought { value, cell, wrote });
        }
        if ballast > 0 {
            run(&format!("INSERT INTO ballast VALUES (zeroblob({}));", ballast * PAGE_BYTES as u64));
        }
        run(TRIGGER);
        drop(sql);
        let bytes = Bytes::from(std::fs::read(&path).expect("it was written"));
        let header = bytes.first_chunk().expect("a header");
        let page_count = check_header(header, bytes.len() as u64).expect("a file that imports take");
        Self { bytes, rows: brought, page_count }
    }

    pub fn checked(&self, name: &str) -> Checked {
        let (name, hash) = (Name::parse(name).expect("a name"), *blake3::hash(&self.bytes).as_bytes());
        Checked { name, hash, page_count: self.page_count }
    }
}

impl Pages for SqliteFile {
    async fn read(&self, after: u32, count: u32) -> Result<Vec<Page>, ServerError> {
        let begin = after as usize * PAGE_BYTES;
        Ok(pages_of(&self.bytes.slice(begin..begin + count as usize * PAGE_BYTES)))
    }
}

/// All of them. To be asked for before a world begins, for SQLite's randomness is the process's.
pub fn files() -> &'static [Arc<SqliteFile>] {
    static FILES_MADE: OnceLock<Vec<Arc<SqliteFile>>> = OnceLock::new();
    let make = || FILES.iter().enumerate().map(|(number, file)| Arc::new(SqliteFile::make(number, *file))).collect();
    FILES_MADE.get_or_init(make)
}
