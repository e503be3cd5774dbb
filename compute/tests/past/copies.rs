//! A moment leaves as SQL and as a file: what it was then, whatever has come after it and wherever it lies by now.

use std::path::Path;

use rusqlite::types::Value as Cell;
use rusqlite::{Connection, OpenFlags, Row};
use serde_json::{Value, json};

use crate::commands::{prints, shoal};
use crate::rig::*;
use crate::support::*;

const FILE_BYTES_MAX: u64 = 64 << 20;

/// A commit, and what its database was like right after it.
struct Copied {
    seen: Seen,
    dump: String,
    file: Vec<u8>,
}

/// What is at a URL, and the commit that it is as of.
#[track_caller]
fn download(url: &str) -> (Vec<u8>, u64) {
    let mut answer = ureq::get(url).call().unwrap_or_else(|error| panic!("{url}: {error}"));
    let lsn = answer.headers()["shoal-lsn"].to_str().expect("text").parse().expect("a number");
    (answer.body_mut().with_config().limit(FILE_BYTES_MAX).read_to_vec().expect("all of it"), lsn)
}

/// The dump and the file of a name, with a moment or without one.
#[track_caller]
fn copies(server: &Server, name: &str) -> (String, Vec<u8>, u64) {
    let (dump, lsn) = download(&server.url(&format!("db/{name}/dump")));
    let (file, of_file) = download(&server.url(&format!("db/{name}/export")));
    assert_eq!(lsn, of_file, "{name}");
    (String::from_utf8(dump).expect("a dump is UTF-8"), file, lsn)
}

fn copied(server: &Server, database: &Database, sql: &str) -> Copied {
    let seen = commit(database, sql);
    let (dump, file, lsn) = copies(server, "app");
    assert_eq!(lsn, seen.lsn);
    Copied { seen, dump, file }
}

/// What [`shown`] shows, of a copy in plain SQLite.
#[track_caller]
fn shown_by(copy: &Connection) -> Value {
    let ask = |sql: &str| {
        let mut statement = copy.prepare(sql).expect(sql);
        let width = statement.column_count();
        let row = |row: &Row<'_>| (0..width).map(|at| row.get(at).map(plain_of)).collect();
        statement.query_map([], row).expect(sql).collect::<rusqlite::Result<Vec<Value>>>().expect(sql)
    };
    assert_eq!(ask("PRAGMA integrity_check"), [json!(["ok"])]);
    let tables = ask("SELECT name FROM sqlite_schema ORDER BY 1");
    let rows = if tables.contains(&json!(["t"])) { ask(QUERY) } else { Vec::new() };
    json!({ "tables": tables, "rows": rows })
}

fn plain_of(cell: Cell) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Integer(integer) => json!(integer),
        Cell::Real(real) => json!(real),
        Cell::Text(text) => json!(text),
        Cell::Blob(blob) => panic!("a blob of {} bytes is not asked for", blob.len()),
    }
}

#[track_caller]
fn shown_by_dump(dump: &str) -> Value {
    let copy = Connection::open_in_memory().expect("memory");
    copy.execute_batch(dump).expect("plain SQLite reads it");
    shown_by(&copy)
}

#[track_caller]
fn shown_by_file(path: &Path) -> Value {
    shown_by(&Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("a database"))
}

#[test]
fn the_dump_and_the_file_of_a_moment_are_what_those_of_the_present_were_then() {
    let (mut server, directory) = (Server::dev(), tempfile::tempdir().expect("a directory"));
    let path = directory.path().join("copy.db");
    let app = server.database("app");
    let mut states: Vec<Copied> = (0..23).map(|step| copied(&server, &app, &sql_of(step))).collect();
    states.push(copied(&server, &app, "DROP TABLE t"));
    // A clean end folds what the log still has.
    for is_folded in [false, true] {
        for Copied { seen, dump, file } in states.iter().rev().step_by(3) {
            for moment in [seen.lsn.to_string(), seen.time.clone()] {
                let (then_dump, then_file, lsn) = copies(&server, &format!("app@{moment}"));
                assert_eq!(lsn, seen.lsn, "{moment}, folded: {is_folded}");
                assert_eq!(&then_dump, dump, "{moment}, folded: {is_folded}");
                assert_eq!(shown_by_dump(&then_dump), seen.shows, "{moment}, folded: {is_folded}");
                assert!(then_file == *file, "another file at {moment}, folded: {is_folded}");
                std::fs::write(&path, then_file).expect("a file");
                assert_eq!(shown_by_file(&path), seen.shows, "{moment}, folded: {is_folded}");
            }
        }
        if !is_folded {
            server.restart();
        }
    }
}

#[test]
fn the_command_line_exports_a_moment_by_name_and_by_url() {
    let (server, directory) = (Server::dev(), tempfile::tempdir().expect("a directory"));
    let app = server.database("app");
    let seen = history(&app, 9);
    commit(&app, "DROP TABLE t");
    let old = &seen[4];
    let [by_lsn, by_time] = [format!("app@{}", old.lsn), format!("app@{}", old.time)];
    let moments = [server.url(&format!("db/{by_lsn}/")), by_lsn, by_time];
    for (number, moment) in moments.iter().enumerate() {
        let path = directory.path().join(format!("{number}.db"));
        let said = prints(&server, &format!("export {moment} {}", path.display()));
        assert!(said.contains(&format!("LSN {}\n", old.lsn)), "{said}");
        assert_eq!(shown_by_file(&path), old.shows, "{moment}");
    }
    // No commit has this number yet.
    let (path, name) = (directory.path().join("never.db"), format!("app@{}", old.lsn + 1_000));
    let (success, error) = shoal(&server, &format!("export {name} {}", path.display()));
    assert!(!success && error.contains("SHOAL_") && !path.exists(), "{error}");
    let dump = request("GET", &server.url(&format!("db/{name}/dump")), &[], b"").expect("an answer");
    assert!((400..500).contains(&dump.status), "{dump:?}");
}
