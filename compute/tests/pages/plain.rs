//! SQLite as everybody knows it: one file, the operating system's VFS.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::{Batch, Connection, OpenFlags};

pub const PAGE: usize = 4096;

/// A whole file, page by page. Pages that have not changed are shared with the version before.
pub type Image = Vec<Rc<[u8]>>;

pub struct Plain {
    path: PathBuf,
    /// Closed while the file is put back.
    sql: Option<Connection>,
    /// The file after each commit, by LSN; 0 is the empty one.
    images: BTreeMap<u64, Image>,
}

impl Plain {
    pub fn new(seed: u64) -> Self {
        let name = format!("shoal-pages-{}-{seed}.db", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        let sql = open(&path);
        Self { path, sql: Some(sql), images: BTreeMap::from([(0, Image::new())]) }
    }

    pub fn run(&self, sql: &str) -> Result<(), String> {
        self.run_all(sql).map_err(|error| error.to_string())
    }

    /// Pages that transactions have written before their end, because they did not fit into the page cache, since the file
    /// was opened.
    pub fn spilled(&self) -> u64 {
        use rusqlite::ffi;
        let (mut spilled, mut highest) = (0, 0);
        let sql = self.sql.as_ref().expect("open");
        #[allow(unsafe_code, reason = "rusqlite does not offer this counter")]
        // SAFETY: the connection is open, and both places live as long as the call.
        let answer = unsafe {
            ffi::sqlite3_db_status(sql.handle(), ffi::SQLITE_DBSTATUS_CACHE_SPILL, &mut spilled, &mut highest, 0)
        };
        assert_eq!(answer, ffi::SQLITE_OK);
        u64::try_from(spilled).expect("a count")
    }

    /// To the end, row by row: `execute_batch` stops at the first row, and PRAGMA incremental_vacuum with it.
    fn run_all(&self, sql: &str) -> rusqlite::Result<()> {
        let mut batch = Batch::new(self.sql.as_ref().expect("open"), sql);
        while let Some(mut statement) = batch.next()? {
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
        }
        Ok(())
    }

    /// The newest LSN.
    pub fn lsn(&self) -> u64 {
        *self.images.last_key_value().expect("there is always the empty one").0
    }

    pub fn image(&self, lsn: u64) -> &Image {
        &self.images[&lsn]
    }

    /// Whether the file differs from the newest version, in more than counters.
    pub fn has_changed(&self) -> bool {
        let (now, before) = (self.read(), self.image(self.lsn()));
        let free = Free::of(before);
        let mut pages = now.iter().zip(before).enumerate();
        now.len() != before.len() || pages.any(|(at, (now, before))| !free.are_equal(at, now, before))
    }

    /// The file as it is now is the state at `lsn`.
    pub fn keep(&mut self, lsn: u64) {
        let image = self.read();
        self.images.insert(lsn, image);
    }

    fn read(&self) -> Image {
        let bytes = std::fs::read(&self.path).expect("a file of our own");
        let before = self.image(self.lsn());
        let share = |(at, page): (usize, &[u8])| match before.get(at) {
            Some(old) if **old == *page => old.clone(),
            _ => Rc::from(page),
        };
        bytes.chunks(PAGE).enumerate().map(share).collect()
    }

    /// What came after `lsn` has never been.
    pub fn go_back(&mut self, lsn: u64) {
        self.images.split_off(&(lsn + 1));
        self.sql = None;
        std::fs::write(&self.path, self.image(lsn).concat()).expect("a file of our own");
        self.sql = Some(open(&self.path));
    }

    pub fn check_integrity(&self) -> Result<(), String> {
        let sql = self.sql.as_ref().expect("open");
        let verdict: String = sql.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(|it| it.to_string())?;
        if verdict == "ok" { Ok(()) } else { Err(format!("the test itself: {verdict}")) }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.sql = None;
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Not through the default VFS: that is the node's. And without `secure_delete`, here as there: with it freed pages become
/// zeros, and a page map that serves what a shrink has cut off (`Mutant::IgnoreValidUpto`) is no longer found out.
fn open(path: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let sql = Connection::open_with_flags_and_vfs(path, flags, "unix").expect("a file of our own");
    sql.execute_batch("PRAGMA synchronous = OFF").expect("a pragma");
    sql
}

/// The free pages of a file, with how many of their bytes mean something.
///
/// A leaf of the freelist has no content: SQLite neither writes it when it is freed nor journals it when it is used
/// again, so a transaction that spilled and was rolled back leaves its own bytes there. Ours leaves nothing.
pub struct Free<'i> {
    image: &'i Image,
    /// By page (from 0).
    meant: BTreeMap<usize, usize>,
}

impl<'i> Free<'i> {
    pub fn of(image: &'i Image) -> Self {
        let mut free = BTreeMap::new();
        let number = |page: usize, at: usize| -> usize {
            let bytes = image.get(page).and_then(|page| page.get(at..at + 4)).and_then(|bytes| bytes.first_chunk());
            u32::from_be_bytes(*bytes.unwrap_or(&[0; 4])) as usize
        };
        let mut trunk = number(0, 32);
        while trunk > 0 && !free.contains_key(&(trunk - 1)) {
            let leaves = number(trunk - 1, 4).min(PAGE / 4 - 2);
            free.insert(trunk - 1, 8 + 4 * leaves);
            for leaf in 0..leaves {
                free.insert(number(trunk - 1, 8 + 4 * leaf).saturating_sub(1), 0);
            }
            trunk = number(trunk - 1, 0);
        }
        Self { image, meant: free }
    }

    /// Whether `page` says the same as the page at `at` (from 0) of the image itself.
    pub fn is_as_in_image(&self, at: usize, page: &[u8]) -> bool {
        let expected = &self.image[at];
        if self.are_equal(at, page, expected) {
            return true;
        }
        // Asked only now, because it takes a file and a walk through all of it.
        let meant = overflow_bytes(self.image, at).unwrap_or(PAGE);
        page.len() == PAGE && page[..meant] == expected[..meant]
    }

    /// Whether two versions of the page at `at` (from 0) say the same, counters of the first page apart.
    pub fn are_equal(&self, at: usize, one: &[u8], other: &[u8]) -> bool {
        if at == 0 && one.len() == PAGE && other.len() == PAGE {
            return one[..24] == other[..24] && one[28..92] == other[28..92] && one[100..] == other[100..];
        }
        if let Some(meant) = self.meant.get(&at) {
            return one.get(..*meant) == other.get(..*meant);
        }
        let gap = gap_of(one);
        if gap != gap_of(other) {
            return false;
        }
        one.get(..gap.start) == other.get(..gap.start) && one.get(gap.end..) == other.get(gap.end..)
    }
}

/// How many bytes mean something of an overflow page: the last one of its chain ends with what the page had before, if that
/// was still in SQLite's page cache, or with zeros if it was not. `None`: it is no overflow page.
fn overflow_bytes(image: &Image, at: usize) -> Option<usize> {
    let file = tempfile::NamedTempFile::new().expect("a file of our own");
    std::fs::write(file.path(), image.concat()).expect("a file of our own");
    let unused = open(file.path()).query_row(
        "SELECT unused FROM dbstat WHERE pageno = ?1 AND pagetype = 'overflow'",
        [at as u32 + 1],
        |row| row.get::<_, u16>(0),
    );
    unused.ok().map(|unused| PAGE.saturating_sub(unused.into()))
}

/// The bytes of a B-tree page between the pointers to its cells and the cells: what stands there, SQLite has left behind,
/// and whether it has depends on what its page cache spilled.
fn gap_of(page: &[u8]) -> std::ops::Range<usize> {
    let header = match page.first() {
        Some(2 | 5) => 12,
        Some(10 | 13) => 8,
        _ => return 0..0,
    };
    let number = |at: usize| usize::from(u16::from_be_bytes([page[at], page[at + 1]]));
    let (start, end) = (header + 2 * number(3), number(5));
    if start <= end && end <= page.len() { start..end } else { 0..0 }
}
