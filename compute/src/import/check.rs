//! Looking at a file that anybody may have made. Nothing of it has been believed so far, and what passes is served to
//! SQLite for as long as the database lives.
//!
//! | what | how |
//! |---|---|
//! | it is what was sent | length and BLAKE3 |
//! | its header is one that this server's databases have | [`check_header`] |
//! | every page is used as one thing, every cell is inside of its page, every row is what its table says | `PRAGMA quick_check` |
//! | its schema can be read, under the limits that clients' connections have | the same |
//!
//! SQLite does it on a thread with a large stack of its own and a connection that is confined as clients' are:
//! defensive, no trusted schema, the same authorizer and limits, memory charged to a meter, the file opened as
//! immutable. Indexes that lack entries are not looked for: they are wrong answers for their owner, no danger.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, ErrorCode};
use segments::page::PAGE_BYTES;
use tokio::sync::oneshot;

use super::staging::Upload;
use crate::context::NodeContext;
use crate::error::{Fault, ServerError};
use crate::limits;
use crate::session::connection;
use crate::sqlite::memory::{Charging, Meter, Refusal};

/// Checks a file that has arrived as a whole. Returns the number of its pages.
pub async fn check(node: &Arc<NodeContext>, upload: &Upload, path: &Path) -> Result<u32, ServerError> {
    let (sender, receiver) = oneshot::channel();
    let (node, upload, path) = (node.clone(), upload.clone(), path.to_owned());
    let body = move || {
        let checked = check_file(&upload, &path).and_then(|page_count| {
            check_content(&node, upload.bytes, &path)?;
            Ok(page_count)
        });
        let _ = sender.send(checked);
    };
    let thread = std::thread::Builder::new().name("import-check".into()).stack_size(limits::STACK_BYTES);
    thread.spawn(body).map_err(|error| ServerError::new(Fault::Retry, format!("no thread for the check: {error}")))?;
    // A panic there ends the thread.
    receiver.await.unwrap_or_else(|_| Err(refused("the check of this file failed in this server")))
}

fn refused(why: impl std::fmt::Display) -> ServerError {
    ServerError::new(Fault::Invalid, format!("the file is refused: {why}"))
}

fn unreadable(error: &std::io::Error) -> ServerError {
    ServerError::new(Fault::Retry, format!("this node cannot read the uploaded file back: {error}"))
}

fn check_file(upload: &Upload, path: &Path) -> Result<u32, ServerError> {
    let mut file = File::open(path).map_err(|error| unreadable(&error))?;
    let (mut hasher, mut buffer, mut bytes) = (blake3::Hasher::new(), vec![0; 1 << 20], 0);
    let mut header = None;
    loop {
        let count = file.read(&mut buffer).map_err(|error| unreadable(&error))?;
        if count == 0 {
            break;
        }
        header = header.or_else(|| buffer[..count].first_chunk::<100>().copied());
        hasher.update(&buffer[..count]);
        bytes += count as u64;
    }
    if bytes != upload.bytes || *hasher.finalize().as_bytes() != upload.hash {
        return Err(refused("it is not what was announced: its hash differs. Send it again"));
    }
    let header = header.ok_or_else(|| refused("it is shorter than a header"))?;
    check_header(&header, bytes)
}

/// The fields of a header that SQLite takes in more than one way, or that other servers' files may have.
pub fn check_header(header: &[u8; 100], bytes: u64) -> Result<u32, ServerError> {
    let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if header[..16] != *b"SQLite format 3\0" {
        return Err(refused("it is not a SQLite database"));
    }
    let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
        // It has no room for 65536.
        1 => 1 << 16,
        bytes => usize::from(bytes),
    };
    if page_bytes != PAGE_BYTES {
        return Err(refused(format!("its pages are of {page_bytes} bytes, not of {PAGE_BYTES}; `shoal db import` converts it")));
    }
    if header[18..20] != [1, 1] {
        return Err(refused("it is in WAL mode, or of a newer format; `shoal db import` converts it"));
    }
    if header[20] != 0 || header[21..24] != [64, 32, 32] {
        return Err(refused("its header has reserved bytes, or unknown fractions"));
    }
    let page_count = u32::try_from(bytes / PAGE_BYTES as u64).map_err(|_| refused("it is too large"))?;
    if number(28) != page_count || number(24) != number(92) {
        return Err(refused(format!("its header says {} pages, and it has {page_count}", number(28))));
    }
    // Zeros there are of a database in which there never was anything.
    if number(44) > 4 || number(56) > 3 || header[72..92] != [0; 20] {
        return Err(refused("its header has an unknown schema format or encoding"));
    }
    Ok(page_count)
}

fn check_content(node: &Arc<NodeContext>, bytes: u64, path: &Path) -> Result<(), ServerError> {
    let meter = Meter::new(node.settings.memory_per_database, node.temp.share(), node.sql.clone());
    let _charging = Charging::to(&meter);
    let seam = node.seam.clone();
    let patience = limits::IMPORT_CHECK_MICROS + bytes / limits::IMPORT_CHECK_BYTES_PER_MICRO;
    let (deadline, is_late) = (seam.boot_micros().saturating_add(patience), Arc::new(AtomicBool::new(false)));
    let late = is_late.clone();
    let checked = connection::open_confined(path).and_then(|mut sql| {
        sql.progress_handler(
            limits::PROGRESS_STEPS,
            Some(move || {
                let is_over = seam.boot_micros() > deadline;
                late.fetch_or(is_over, Ordering::Relaxed);
                is_over
            }),
        )?;
        first_problem(&sql)
    });
    match checked {
        Ok(None) => Ok(()),
        Ok(Some(problem)) => Err(refused(format!("it is damaged: {problem}"))),
        Err(_) if is_late.load(Ordering::Relaxed) => Err(refused("to check it takes longer than files of its size do")),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
            Err(refused(format!("it is damaged: {error}")))
        }
        Err(_) if meter.take_refusal() == Some(Refusal::NodeIsFull) => {
            let text = "this node has no memory (--memory) to check the file at the moment; try again later";
            Err(ServerError::new(Fault::Retry, text))
        }
        Err(error) => Err(refused(error)),
    }
}

/// The first thing that SQLite's check finds.
fn first_problem(sql: &Connection) -> rusqlite::Result<Option<String>> {
    let answer: String = sql.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if answer != "ok" {
        return Ok(Some(answer.chars().take(limits::PROBLEM_CHARS_MAX).collect()));
    }
    // With the schema in memory: each of its views and triggers has been parsed.
    sql.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_headers_that_this_servers_databases_have_pass() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let sql = Connection::open(&path).unwrap();
        sql.execute_batch("PRAGMA page_size=4096; CREATE TABLE t(x)").unwrap();
        drop(sql);
        let file = std::fs::read(&path).unwrap();
        let header: [u8; 100] = *file.first_chunk().unwrap();
        assert_eq!(check_header(&header, file.len() as u64), Ok(2));
        for (at, value, phrase) in [
            (0, b'X', "not a SQLite database"),
            (16, 2, "pages are of 512"),
            (18, 2, "WAL mode"),
            (20, 8, "reserved bytes"),
            (21, 63, "fractions"),
            (31, 9, "says 9 pages"),
            (27, 77, "pages"),
            (47, 9, "schema format"),
            (59, 4, "encoding"),
            (80, 1, "schema format"),
        ] {
            let mut broken = header;
            broken[at] = value;
            let error = check_header(&broken, file.len() as u64).expect_err(phrase);
            assert!(error.message.contains(phrase), "{at}: {error}");
        }
        assert!(check_header(&header, 3 * 4096).is_err(), "another length");
    }
}
