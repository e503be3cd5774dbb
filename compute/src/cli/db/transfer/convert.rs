//! Any SQLite file or dump → a copy as the server has its databases: pages of 4096 bytes without reserved ones, no WAL.
//!
//! SQLite's `VACUUM INTO` does it. It reads the source in one transaction, so a program that has the file open does not
//! matter, with what is in a `-wal` beside it; and it keeps rowids, auto-vacuum, the encoding and the file's numbers.
//! The source is never written: a file that can be read only with some recovery first (a rollback journal beside it, a
//! WAL in a directory that cannot be written) is copied, and the copy recovered.
//!
//! The same source gives the same copy, byte for byte (what is free in a page is zero), so that an upload can go on
//! after this process has ended.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use crate::cli::db::progress::Progress;
use super::script::Patience;
use super::{TransferError, check, script};

/// A file to be sent.
pub struct Converted {
    pub path: PathBuf,
    pub bytes: u64,
    pub hash: blake3::Hash,
    /// Holds the file, which goes with it.
    _directory: TempDir,
}

/// How long a program that has the file open may keep others from reading it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Converts and checks `source`.
pub fn convert(source: &Path, progress: &Progress) -> Result<Converted, TransferError> {
    let here = std::env::temp_dir();
    let directory = tempfile::tempdir().map_err(TransferError::file(&here, "can't hold temporary files"))?;
    let is_database = is_database(source).map_err(TransferError::file(source, "can't be read"))?;
    let path = directory.path().join("database");
    let mut opened = match is_database {
        true => open_unchanged(source, &directory)?,
        false => {
            let loaded = directory.path().join("loaded");
            progress.begin("loading the dump");
            script::load(source, &loaded, progress, Patience::default())?;
            open(&loaded, OpenFlags::SQLITE_OPEN_READ_ONLY, "").map_err(TransferError::not_read(source))?
        }
    };
    progress.begin("converting");
    let size = |path: &Path| fs::metadata(path).map(|it| it.len());
    let source_bytes = size(source).map_err(TransferError::file(source, "can't be read"))?;
    if is_database {
        // A page that is missing from a table would be missing from the copy, too, and nobody would know.
        check(&opened, source, source_bytes)?;
    }
    vacuum_into(&mut opened, &path).map_err(TransferError::not_read(source))?;
    drop(opened);
    let copy = open(&path, OpenFlags::SQLITE_OPEN_READ_WRITE, "").map_err(TransferError::not_read(source))?;
    let at = path.clone();
    let unreadable = TransferError::file(&at, "can't be read");
    if size(&path).map_err(&unreadable)? == 0 {
        // An empty database has no header; it gets one.
        let touch = "PRAGMA page_size=4096; CREATE TABLE t(x); DROP TABLE t; VACUUM";
        copy.execute_batch(touch).map_err(TransferError::not_read(source))?;
    }
    progress.begin("checking");
    let bytes = size(&path).map_err(&unreadable)?;
    check(&copy, source, bytes)?;
    drop(copy);
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(&path).map_err(&unreadable)?).map_err(&unreadable)?;
    Ok(Converted { bytes, hash: hasher.finalize(), path, _directory: directory })
}

/// By its first bytes. A file of no bytes is an empty database to SQLite.
fn is_database(source: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    File::open(source)?.take(16).read_to_end(&mut start)?;
    Ok(start.is_empty() || start == MAGIC)
}

/// What its header says: whether its journal is a WAL, and whether its pages have our size.
fn read_header(source: &Path) -> io::Result<(bool, bool)> {
    let mut start = Vec::new();
    File::open(source)?.take(20).read_to_end(&mut start)?;
    Ok((start.get(18) == Some(&2), start.get(16..18) == Some(&[16, 0])))
}

/// Opens the source to read it, or a copy if reading it takes writing.
fn open_unchanged(source: &Path, directory: &TempDir) -> Result<Connection, TransferError> {
    let exists = |suffix: &str| beside(source, suffix).exists();
    let (is_wal, has_our_pages) = read_header(source).map_err(TransferError::file(source, "can't be read"))?;
    // Nobody has it open then, and to read it SQLite would make the files beside it anew, unless it knows that nothing
    // changes; but then it does not change the size of pages either.
    let is_at_rest = is_wal && !exists("-wal") && !exists("-shm");
    let parameters = if is_at_rest { "&immutable=1" } else { "" };
    let leaves_traces = is_wal && !exists("-shm") && (exists("-wal") || !has_our_pages);
    if !leaves_traces
        && let Ok(sql) = open(source, OpenFlags::SQLITE_OPEN_READ_ONLY, parameters)
        && sql.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).is_ok()
    {
        return Ok(sql);
    }
    // Under its own name: a journal may name it.
    let place = directory.path().join("source");
    let copied = fs::create_dir(&place).and_then(|()| {
        let copy = place.join(source.file_name().unwrap_or_default());
        fs::copy(source, &copy)?;
        for suffix in ["-wal", "-journal"].into_iter().filter(|suffix| exists(suffix)) {
            fs::copy(beside(source, suffix), beside(&copy, suffix))?;
        }
        Ok(copy)
    });
    let copy = copied.map_err(|error| match error.kind() {
        ErrorKind::StorageFull => TransferError::no_room(error),
        _ => TransferError::file(source, "can't be copied")(error),
    })?;
    let opened = open(&copy, OpenFlags::SQLITE_OPEN_READ_WRITE, "").map_err(TransferError::not_read(source))?;
    opened.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(TransferError::not_read(source))?;
    Ok(opened)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// A connection that trusts nothing in the file, and opens no other one.
fn open(path: &Path, flags: OpenFlags, parameters: &str) -> rusqlite::Result<Connection> {
    let uri = format!("{}?cache=private{parameters}", uri(path));
    let sql = Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?;
    sql.busy_timeout(BUSY_TIMEOUT)?;
    sql.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    sql.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    sql.pragma_update(None, "cell_size_check", true)?;
    // Else free bytes are what happened to be in memory.
    sql.query_row("PRAGMA secure_delete=ON", [], |_| Ok(()))?;
    Ok(sql)
}

fn uri(path: &Path) -> String {
    let encoded: String = path.as_os_str().as_encoded_bytes().iter().map(|byte| format!("%{byte:02X}")).collect();
    format!("file:{encoded}")
}

fn vacuum_into(sql: &mut Connection, path: &Path) -> rusqlite::Result<()> {
    let target = format!("{}?reserve=0", uri(path));
    let allowed = target.clone();
    sql.authorizer(Some(move |context: AuthContext<'_>| match context.action {
        AuthAction::Attach { filename } if filename != allowed => Authorization::Deny,
        AuthAction::Function { function_name: "load_extension" | "fts3_tokenizer" } => Authorization::Deny,
        _ => Authorization::Allow,
    }))?;
    sql.pragma_update(None, "page_size", 4096)?;
    sql.execute("VACUUM INTO ?1", [target]).map(drop)
}
