//! Files of every form go in, and come out the same.

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use serde_json::json;

use crate::sample::{self, EVERYTHING, Sameness};
use crate::shoal::{db_fails, db_ok, path};
use crate::support::Server;

/// Names and contents of what is in a directory.
fn contents(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(directory).expect("a directory").map(|file| file.expect("a file"));
    let mut contents: Vec<_> = files
        .map(|file| (file.file_name().to_string_lossy().into_owned(), fs::read(file.path()).expect("a file")))
        .collect();
    contents.sort();
    contents
}

#[test]
fn files_of_any_page_size_and_mode_come_back_the_same() {
    let (server, directory) = (Server::dev(), tempfile::tempdir().expect("a directory"));
    let forms = [
        ("a", "PRAGMA page_size=512"),
        ("b", "PRAGMA page_size=1024; PRAGMA auto_vacuum=FULL"),
        ("c", "PRAGMA page_size=2048; PRAGMA journal_mode=TRUNCATE"),
        ("d", "PRAGMA page_size=4096; PRAGMA auto_vacuum=INCREMENTAL; PRAGMA encoding='UTF-16le'"),
        ("e", "PRAGMA page_size=8192; PRAGMA journal_mode=WAL"),
        ("f", "PRAGMA page_size=16384; PRAGMA auto_vacuum=FULL; PRAGMA journal_mode=WAL"),
        ("g", "PRAGMA page_size=32768; PRAGMA auto_vacuum=INCREMENTAL"),
        ("h", "PRAGMA page_size=65536; PRAGMA encoding='UTF-16be'; PRAGMA journal_mode=PERSIST"),
    ];
    for (name, pragmas) in forms {
        let place = directory.path().join(name);
        fs::create_dir(&place).expect("a directory");
        let (original, exported) = (place.join("original.db"), directory.path().join(format!("{name}.db")));
        let pragmas: Vec<&str> = pragmas.split(';').collect();
        let connection = Connection::open(&original).expect("a file");
        for pragma in &pragmas {
            // Some answer with a row.
            connection.prepare(pragma).and_then(|mut it| it.query([]).and_then(|mut rows| rows.next().map(drop))).expect(pragma);
        }
        connection.execute_batch("PRAGMA foreign_keys=OFF").and_then(|()| connection.execute_batch(EVERYTHING)).expect("the sample");
        drop(connection);
        let before = contents(&place);
        let imported = db_ok(&server, &["import", path(&original), name]);
        assert!(imported["lsn"].as_u64().is_some_and(|lsn| lsn > 0), "{imported}");
        assert_eq!(contents(&place), before, "{pragmas:?}: the source is left alone");
        let written = db_ok(&server, &["export", name, path(&exported)]);
        assert_eq!(written["bytes"], fs::metadata(&exported).expect("a file").len());
        sample::assert_same(&exported, &original, Sameness::Exact, &format!("{pragmas:?}"));
    }
}

#[test]
fn changes_that_are_only_in_a_wal_are_taken_along() {
    let (server, directory) = (Server::dev(), tempfile::tempdir().expect("a directory"));
    let original = directory.path().join("live.db");
    let live = Connection::open(&original).expect("a file");
    live.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())).expect("WAL");
    live.execute_batch("PRAGMA wal_autocheckpoint=0; CREATE TABLE t(a); INSERT INTO t VALUES('in the wal')").expect("a row");
    db_ok(&server, &["import", path(&original), "live"]);
    // What a crash leaves: the file and its WAL, without whom they belong to.
    let place = directory.path().join("crashed");
    fs::create_dir(&place).expect("a directory");
    for suffix in ["", "-wal"] {
        fs::copy(format!("{}{suffix}", path(&original)), place.join(format!("live.db{suffix}"))).expect("a copy");
    }
    let before = contents(&place);
    db_ok(&server, &["import", path(&place.join("live.db")), "crashed"]);
    assert_eq!(contents(&place), before, "the source is left alone");
    for name in ["live", "crashed"] {
        assert_eq!(server.database(name).rows("SELECT a FROM t"), [json!(["in the wal"])]);
    }
}

/// What a crash leaves of a transaction that was larger than its program's memory: pages of it are in the file, and how
/// they were before is in the journal.
#[test]
fn a_transaction_that_was_cut_off_is_taken_back_by_its_journal() {
    let (server, directory) = (Server::dev(), tempfile::tempdir().expect("a directory"));
    for (name, page_size) in [("small", 1024), ("ours", 4096), ("large", 65_536)] {
        let place = directory.path().join(name);
        let [original, crashed] = ["original.db", "crashed.db"].map(|file| place.join(file));
        fs::create_dir(&place).expect("a directory");
        let rows = "CREATE TABLE t(i INTEGER PRIMARY KEY, v); CREATE INDEX t_v ON t(v);
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
            INSERT INTO t SELECT i, 'before ' || i FROM n";
        sample::make(&original, &format!("PRAGMA page_size={page_size}"), rows);
        let before = fs::read(&original).expect("a file");
        let live = Connection::open(&original).expect("a file");
        live.execute_batch("PRAGMA cache_size=2; PRAGMA cache_spill=2; BEGIN").expect("a transaction");
        let changes = "UPDATE t SET v = hex(randomblob(200)); DELETE FROM t WHERE i % 3 = 0";
        live.execute_batch(changes).expect("changes");
        for suffix in ["", "-journal"] {
            let [from, to] = [&original, &crashed].map(|file| format!("{}{suffix}", path(file)));
            fs::copy(from, to).expect("a copy");
        }
        drop(live);
        assert_eq!(fs::read(&original).expect("a file"), before, "the program itself takes it back");
        assert_ne!(fs::read(&crashed).expect("a file"), before, "nothing of it was in the file: the test itself");
        let there = contents(&place);
        db_ok(&server, &["import", path(&crashed), name]);
        assert_eq!(contents(&place), there, "{name}: the source is left alone");
        let exported = directory.path().join(format!("{name}.db"));
        db_ok(&server, &["export", name, path(&exported)]);
        sample::assert_same(&exported, &original, Sameness::Exact, name);
        let count = server.database(name).rows("SELECT count(*), sum(v = 'before ' || i) FROM t");
        assert_eq!(count, [json!([2000, 2000])], "{name}");
    }
}

#[test]
fn an_imported_database_is_one_like_any_other() {
    let (server, directory) = (Server::serve(&[]), tempfile::tempdir().expect("a directory"));
    let original = directory.path().join("original.db");
    sample::make(&original, "", EVERYTHING);
    db_ok(&server, &["create", "app", "--from", path(&original)]);
    let database = server.unmade_database("app");
    database.run("INSERT INTO counted(v) VALUES('four')");
    assert_eq!(database.rows("SELECT max(id) FROM counted"), [json!([4])], "the sequence goes on");
    db_ok(&server, &["release", "app"]);
    assert_eq!(database.rows("SELECT v FROM counted ORDER BY id DESC LIMIT 1"), [json!(["four"])]);
    assert_eq!(database.rows("PRAGMA integrity_check"), [json!(["ok"])]);
    db_fails(&server, &["import", path(&original), "app"], &["there is a database `app` already"]);
    db_ok(&server, &["delete", "app", "--yes"]);
    db_ok(&server, &["import", path(&original), "app"]);
    assert_eq!(database.rows("SELECT count(*) FROM counted"), [json!([2])]);
}

#[test]
fn an_export_is_of_one_commit_and_takes_nothing_away() {
    let (server, directory) = (Server::dev(), tempfile::tempdir().expect("a directory"));
    let file = directory.path().join("app.db");
    let database = server.database("app");
    database.run("CREATE TABLE t(a)");
    database.run("INSERT INTO t VALUES(1)");
    let url = database.url.clone();
    assert_eq!(db_ok(&server, &["export", &url, path(&file)])["lsn"], 2);
    database.run("INSERT INTO t VALUES(2)");
    db_fails(&server, &["export", "app", path(&file)], &["exists already", "--force"]);
    assert_eq!(db_ok(&server, &["export", "app", path(&file), "--force"])["lsn"], 3);
    let count: i64 = sample::open(&file).query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("a count");
    assert_eq!(count, 2);
    assert_eq!(contents(directory.path()).len(), 1, "no temporary file stays");
    let nowhere = directory.path().join("nowhere.db");
    db_fails(&server, &["export", "nothing", path(&nowhere)], &["no database `nothing`"]);
    assert!(!nowhere.exists());
}

/// The largest file below a directory.
fn largest(directory: &Path) -> (u64, std::path::PathBuf) {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let sizes = entries.map(|path| match path.is_dir() {
        true => largest(&path),
        false => (fs::metadata(&path).expect("a file").len(), path),
    });
    sizes.max().unwrap_or_default()
}

#[test]
fn an_export_of_a_damaged_database_says_what_is_damaged() {
    let (mut first, directory) = (Server::serve(&[]), tempfile::tempdir().expect("a directory"));
    let [original, exported] = ["original.db", "exported.db"].map(|name| directory.path().join(name));
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT randomblob(3000) FROM n";
    sample::make(&original, "", &format!("CREATE TABLE t(a); INSERT INTO t {rows}"));
    db_ok(&first, &["import", path(&original), "app"]);
    first.terminate();
    let (bytes, pack) = largest(&first.directory().join("bucket").join("objects"));
    let mut damaged = fs::read(&pack).expect("a pack");
    damaged[usize::try_from(bytes / 2).expect("a small file")..][..1000].fill(0);
    fs::write(&pack, damaged).expect("a pack");
    // Without what the first one has in its cache.
    let server = first.serve_beside(&[]);
    let name = pack.file_name().expect("a name").to_string_lossy().into_owned();
    db_fails(&server, &["export", "app", path(&exported)], &["the answer ended after", "SHOAL_CORRUPT", name.trim_end_matches('@')]);
    assert!(!exported.exists());
    let asked = server.admin("GET", "v1/namespaces/app/export?check_from=x");
    asked.assert_refused(400, "SHOAL_INVALID", &["the number of a byte"]);
}

#[test]
fn empty_databases_travel_too() {
    let (server, directory) = (Server::dev(), tempfile::tempdir().expect("a directory"));
    let [file, back] = ["empty.db", "back.db"].map(|name| directory.path().join(name));
    server.admin("POST", "v1/namespaces/empty/create");
    assert_eq!(db_ok(&server, &["export", "empty", path(&file)])["bytes"], 0);
    db_ok(&server, &["import", path(&file), "again"]);
    server.database("again").run("CREATE TABLE t(a)");
    db_ok(&server, &["export", "again", path(&back)]);
}
