//! Files that are larger than a part, a pack and what stands in a head.

use std::fs;
use std::io::Read;
use std::path::Path;

use compute::cli::db::transfer::convert;
use compute::cli::db::progress::Progress;
use rusqlite::Connection;
use serde_json::json;

use crate::sample;
use crate::shoal::{Upload, db_fails, db_ok, path};
use crate::support::Server;

/// About 4 KB a row, half of which can't be compressed.
fn make_large(path: &Path, rows: u32) {
    let sql = format!("CREATE TABLE large(id INTEGER PRIMARY KEY, random BLOB, zero BLOB); CREATE INDEX sizes ON large(length(random));
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        INSERT INTO large SELECT i, randomblob(2000 + i % 500), zeroblob(2000) FROM n;");
    sample::make(path, "", &sql);
}

const SUM: &str = "SELECT count(*), sum(length(random)), sum(id), max(hex(random)) FROM large";

fn sum(connection: &Connection) -> (i64, i64, i64, String) {
    connection.query_row(SUM, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).expect("a sum")
}

#[test]
fn an_interrupted_upload_goes_on_and_the_large_database_is_whole() {
    let (server, directory) = (Server::serve(&[]), tempfile::tempdir().expect("a directory"));
    let [original, exported] = ["original.db", "exported.db"].map(|name| directory.path().join(name));
    make_large(&original, 4500);
    let converted = convert::convert(&original, &Progress::silent()).expect("a database");
    let bytes = fs::read(&converted.path).expect("the copy");
    assert!(bytes.len() > 16 << 20, "more than one pack");

    // A client that sends two parts, and is gone.
    let upload = Upload::new(&server, "app", &bytes);
    assert_eq!(upload.begin().json()["received"], 0);
    assert_eq!(upload.part(0, &bytes[..4 << 20]).status, 200);
    let second = upload.part(4 << 20, &bytes[4 << 20..6 << 20]);
    assert_eq!(second.json()["received"], 6 << 20);
    upload.part(0, &bytes[..4096]).assert_refused(409, "SHOAL_CONFLICT", &["6291456 of"]);
    upload.finish().assert_refused(409, "SHOAL_CONFLICT", &["send the rest"]);
    let missing = server.unmade_database("app").post("v2/pipeline", r#"{"requests":[]}"#);
    assert_eq!(missing.status, 404, "nothing is seen of it before it is there");

    let imported = db_ok(&server, &["import", path(&original), "app"]);
    assert_eq!(imported["resumed_from"], 6 << 20, "the same file gives the same copy");
    db_ok(&server, &["export", "app", path(&exported)]);
    assert_eq!(fs::read(&exported).expect("the export"), bytes, "byte for byte");
    let database = server.unmade_database("app");
    assert_eq!(database.rows("PRAGMA integrity_check"), [json!(["ok"])]);
    // Its log, folds and restarts go on from there.
    database.run("DELETE FROM large WHERE id % 7 = 0");
    db_ok(&server, &["release", "app"]);
    let left = database.rows("SELECT count(*) FROM large");
    assert_eq!(left, [json!([4500 - 642])]);
    let staged = server.directory().join("cache/tmp/imports");
    assert_eq!(fs::read_dir(staged).expect("the directory").count(), 0, "the file has gone");
}

/// Rows of 60,000 bytes, half of which can't be compressed.
const LONG_ROWS: &str = "CREATE TABLE large(id INTEGER PRIMARY KEY, random BLOB, zero BLOB);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < (SELECT count FROM wanted))
    INSERT INTO large SELECT i, randomblob(30000), zeroblob(30000) FROM n;";

fn make_long_rows(path: &Path, page_bytes: u32, mib: u32) {
    let rows = mib * ((1 << 20) / 60_000);
    let sql = format!("CREATE TEMP TABLE wanted(count); INSERT INTO wanted VALUES ({rows}); {LONG_ROWS}");
    sample::make(path, &format!("PRAGMA page_size={page_bytes}"), &sql);
}

fn assert_same_rows(original: &Path, exported: &Path) {
    let connection = sample::open(exported);
    connection.execute("ATTACH ?1 AS original", [path(original)]).expect("the original");
    for (some, others) in [("main", "original"), ("original", "main")] {
        let sql = format!("SELECT count(*) FROM {some}.large AS a LEFT JOIN {others}.large AS b USING (id)
            WHERE (a.random, a.zero) IS NOT (b.random, b.zero)");
        let different: i64 = connection.query_row(&sql, [], |row| row.get(0)).expect("a count");
        assert_eq!(different, 0, "rows of {some}");
    }
}

/// What README says of `--memory`: so much and 128 MiB.
const MEMORY: [&str; 2] = ["--memory", "32MiB"];
const MEMORY_BYTES_MAX: u64 = (32 + 128) << 20;
const PART: usize = 4 << 20;

#[test]
fn a_file_larger_than_the_nodes_memory_arrives_in_spite_of_everything_and_leaves_as_it_came() {
    let (mut server, directory) = (Server::serve(&MEMORY), tempfile::tempdir().expect("a directory"));
    let original = directory.path().join("original.db");
    make_long_rows(&original, 4096, 72);
    let bytes = fs::read(&original).expect("the file");
    assert!(bytes.len() > 64 << 20, "more than four packs");
    let parts: Vec<&[u8]> = bytes.chunks(PART).collect();
    let send = |server: &Server, numbers: std::ops::Range<usize>| {
        let upload = Upload::new(server, "app", &bytes);
        assert_eq!(upload.begin().json()["received"], numbers.start * PART);
        for number in numbers {
            assert_eq!(upload.part(number * PART, parts[number]).status, 200);
        }
    };
    send(&server, 0..3);
    // A client that is cut off inside of a part, and later a server.
    Upload::new(&server, "app", &bytes).cut_off(3 * PART, parts[3]);
    send(&server, 3..6);
    server.restart();
    send(&server, 6..parts.len());
    let upload = Upload::new(&server, "app", &bytes);
    assert_eq!(upload.begin().json()["received"], bytes.len());
    assert_eq!(upload.finish().status, 200);
    let exported = ureq::get(server.url("db/app/export")).call().expect("an answer");
    let mut file = Vec::new();
    exported.into_body().into_reader().read_to_end(&mut file).expect("all of it");
    assert!(file == bytes, "byte for byte");
    let peak = server.peak_memory_bytes();
    println!("transfer: {} MiB of memory for a file of {} MiB, in and out", peak >> 20, bytes.len() >> 20);
    assert!(peak <= MEMORY_BYTES_MAX, "{} MiB of memory for a file of {}", peak >> 20, bytes.len() >> 20);
    let database = server.unmade_database("app");
    let count = database.rows("SELECT count(*), sum(length(random)), sum(length(zero)) FROM large");
    database.run("UPDATE large SET random = NULL WHERE id % 100 = 0");
    assert_eq!(count, [json!([72 * 17, 72 * 17 * 30_000, 72 * 17 * 30_000])]);
}

#[test]
fn large_files_with_other_pages_are_converted_and_come_back_the_same() {
    let (server, directory) = (Server::serve(&MEMORY), tempfile::tempdir().expect("a directory"));
    for page_bytes in [512, 65_536] {
        let [original, exported] =
            ["original", "exported"].map(|what| directory.path().join(format!("{what}-{page_bytes}.db")));
        make_long_rows(&original, page_bytes, 24);
        let name = format!("app-{page_bytes}");
        db_ok(&server, &["import", path(&original), &name]);
        db_ok(&server, &["export", &name, path(&exported)]);
        assert_same_rows(&original, &exported);
    }
    assert!(server.peak_memory_bytes() <= MEMORY_BYTES_MAX, "{} MiB", server.peak_memory_bytes() >> 20);
}

#[test]
fn uploads_are_not_promised_the_same_room_twice() {
    let server = Server::serve(&[]);
    let disk = rustix::fs::statvfs(server.directory()).expect("a disk");
    let third = disk.f_bavail * disk.f_frsize / 3;
    // More than the largest file may be: then the limit is another one.
    let third = third.min(1 << 39) / 4096 * 4096;
    let begin = |name: &str| {
        let hash = "0".repeat(64);
        server.admin("POST", &format!("v1/namespaces/{name}/import?bytes={third}&blake3={hash}"))
    };
    let begun: Vec<_> = ["a", "b", "c"].into_iter().map(begin).collect();
    assert_eq!((begun[0].status, begun[1].status), (200, 200), "{begun:?}");
    if third < 1 << 39 {
        begun[2].assert_refused(503, "SHOAL_UNAVAILABLE", &["other uploads"]);
        assert_eq!(begin("b").status, 200, "a promise is kept");
    }
}

#[test]
fn writers_go_on_while_a_database_is_read_as_a_whole() {
    // The one is not read while the other is.
    let (server, directory) = (Server::serve(&["--idle-transaction-timeout", "2m"]), tempfile::tempdir().expect("a directory"));
    let [original, exported] = ["original.db", "exported.db"].map(|name| directory.path().join(name));
    make_large(&original, 3500);
    db_ok(&server, &["import", path(&original), "app"]);
    let mut answers = Vec::new();
    for what in ["export", "dump"] {
        let answer = ureq::get(server.url(&format!("db/app/{what}"))).call().expect("an answer");
        let mut reader = answer.into_body().into_reader();
        let mut start = vec![0; 1000];
        reader.read_exact(&mut start).expect("a start");
        answers.push((start, reader));
    }
    // While both are on their way.
    server.unmade_database("app").run("DELETE FROM large WHERE id > 100");
    let [(mut file, mut rest), (mut script, mut rest_of_script)] = <[_; 2]>::try_from(answers).ok().expect("two");
    rest.read_to_end(&mut file).expect("all of it");
    rest_of_script.read_to_end(&mut script).expect("all of it");
    fs::write(&exported, &file).expect("a file");
    let before = sum(&sample::open(&original));
    assert_eq!(sum(&sample::open(&exported)), before);
    let copy = Connection::open_in_memory().expect("memory");
    copy.execute_batch(std::str::from_utf8(&script).expect("UTF-8")).expect("a script");
    assert_eq!(sum(&copy), before);
}

#[test]
fn an_answer_that_breaks_off_is_noticed() {
    let (server, directory) = (Server::dev(), tempfile::tempdir().expect("a directory"));
    let original = directory.path().join("original.db");
    make_large(&original, 3500);
    db_ok(&server, &["import", path(&original), "app"]);
    let mut answers: Vec<_> = ["export", "dump"]
        .into_iter()
        .map(|what| ureq::get(server.url(&format!("db/app/{what}"))).call().expect("an answer").into_body().into_reader())
        .collect();
    let mut start = [0; 1000];
    answers.iter_mut().for_each(|answer| answer.read_exact(&mut start).expect("a start"));
    // Killed.
    drop(server);
    for answer in &mut answers {
        let mut rest = Vec::new();
        assert!(answer.read_to_end(&mut rest).is_err(), "an end that is none");
        assert!(!rest.ends_with(b"COMMIT;\n"));
    }
}

#[test]
fn what_cannot_be_a_database_is_not_sent() {
    let (server, directory) = (Server::dev(), tempfile::tempdir().expect("a directory"));
    let original = directory.path().join("original.db");
    sample::make(&original, "", sample::EVERYTHING);
    let bytes = fs::read(&original).expect("a file");
    let text = |text: &str| text.as_bytes().to_vec();
    for (what, content, phrases) in [
        ("cut.db", bytes[..bytes.len() - 5000].to_vec(), &["damaged"][..]),
        ("scrambled.db", scrambled(&bytes), &["damaged"]),
        ("picture.png", b"\x89PNG\r\n\x1a\n\0\0\xff\xfe".to_vec(), &["neither a SQLite database nor SQL"]),
        ("empty.sql", text("-- nothing\n"), &["no statement"]),
        ("prose.txt", text("Dear reader,\nhow are you?\n"), &["line 1", "syntax error"]),
        ("cut.sql", text("BEGIN TRANSACTION;\nCREATE TABLE t(a);\n"), &["inside of a transaction"]),
        ("broken-off.sql", text("BEGIN;\nCREATE TABLE t(a);\nROLLBACK; -- the dump ended early\n"), &["line 3", "not whole"]),
        ("reaches-out.sql", text("ATTACH '/etc/passwd' AS p;\n"), &["line 1", "not authorized"]),
        ("tool.sql", text("CREATE TABLE t(a);\n.read other.sql\n"), &["line 2", "command of sqlite3"]),
    ] {
        let file = directory.path().join(what);
        fs::write(&file, content).expect("a file");
        db_fails(&server, &["import", path(&file), "app"], phrases);
    }
    assert_eq!(db_ok(&server, &["list"])["namespaces"], json!([{"name": "default"}]));
}

#[test]
fn whether_the_name_can_be_had_is_asked_before_the_file_is_looked_at() {
    let (mut server, directory) = (Server::serve(&[]), tempfile::tempdir().expect("a directory"));
    server.database("app");
    let file = directory.path().join("picture.png");
    fs::write(&file, b"\x89PNG\r\n\x1a\n\0\0\xff\xfe").expect("a file");
    db_fails(&server, &["import", path(&file), "app"], &["there is a database `app` already"]);
    db_fails(&server, &["create", "App!", "--from", path(&file)], &["App!"]);
    db_fails(&server, &["import", path(&file), "other"], &["neither a SQLite database nor SQL"]);
    server.terminate();
    db_fails(&server, &["import", path(&file), "other"], &["can't be reached"]);
}

/// With a page in the middle that is none.
fn scrambled(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = bytes.len() / 4096 / 2 * 4096;
    bytes[at..at + 2000].fill(0xa5);
    bytes
}
