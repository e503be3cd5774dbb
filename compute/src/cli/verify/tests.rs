use std::io;

use pageserver::verify::PageSink;
use segments::page::{PAGE_BYTES, Page, PageNo};

use super::assembled::Assembled;

fn database() -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let flags = rusqlite::OpenFlags::default();
    let connection = rusqlite::Connection::open_with_flags_and_vfs(file.path(), flags, c"unix").expect("a database");
    let script = "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT); CREATE INDEX i ON t (b);
         WITH RECURSIVE n (x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM n WHERE x < 2000)
         INSERT INTO t SELECT x, 'row ' || x FROM n;";
    connection.execute_batch(script).expect("SQL");
    drop(connection);
    std::fs::read(file.path()).expect("its bytes")
}

/// Pages in an order as packs may give them.
fn assemble(sink: &mut Assembled, bytes: &[u8]) -> io::Result<Vec<String>> {
    let pages: Vec<&[u8; PAGE_BYTES]> = bytes.chunks(PAGE_BYTES).map(|page| page.first_chunk().expect("a page")).collect();
    sink.begin(pages.len() as u32)?;
    for (number, page) in (1..).zip(pages).collect::<Vec<_>>().into_iter().rev() {
        sink.page(PageNo::new(number).expect("from 1"), &Page::copy_of(page))?;
    }
    sink.finish()
}

#[test]
fn sqlite_finds_nothing_wrong_with_a_sound_database_and_names_what_is_wrong_with_another() {
    let mut sink = Assembled::in_directory(None).expect("a file");
    let sound = database();
    assert_eq!(assemble(&mut sink, &sound).expect("written"), Vec::<String>::new());
    let mut damaged = sound.clone();
    damaged[PAGE_BYTES * 5..PAGE_BYTES * 6].fill(0);
    let lines = assemble(&mut sink, &damaged).expect("written");
    let is_told = |line: &String| line.starts_with("integrity_check:") || line.contains("malformed");
    assert!(lines.iter().any(is_told), "{lines:?}");
    let lines = assemble(&mut sink, &[7; PAGE_BYTES]).expect("written");
    assert!(lines.iter().any(|line| line.contains("not a database")), "{lines:?}");
    // The smaller one before has left nothing behind.
    assert_eq!(assemble(&mut sink, &sound).expect("written"), Vec::<String>::new());
}
