//! Files that somebody has made up, sent as they are: none of them becomes a database, each is refused with a reason,
//! and its name stays free.

use std::fs;

use rusqlite::Connection;
use serde_json::json;

use crate::sample;
use crate::shoal::{Upload, db_ok};
use crate::support::Server;

const PAGE: usize = 4096;

/// A file with pages of 4096 bytes, made by SQL, some of which may be behind SQLite's back.
fn made(sql: &str, behind: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("db");
    sample::make(&path, "PRAGMA page_size=4096", sql);
    let connection = Connection::open(&path).expect("a file");
    connection.execute_batch(&format!("PRAGMA writable_schema=ON; {behind}")).expect(behind);
    drop(connection);
    fs::read(&path).expect("a file")
}

fn changed(mut bytes: Vec<u8>, at: usize, to: &[u8]) -> Vec<u8> {
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

const TABLE: &str = "CREATE TABLE t(a, b UNIQUE); \
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) INSERT INTO t SELECT 'row ' || i, i FROM n;";

#[test]
fn files_that_are_made_up_are_refused() {
    let mut server = Server::dev();
    let good = made(TABLE, "");
    let count = good.len() / PAGE;
    let wide: Vec<String> = (0..500).map(|n| format!("c{n}")).collect();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("no database", vec![7; 3 * PAGE], "not a SQLite database"),
        ("zeros", vec![0; PAGE], "not a SQLite database"),
        ("cut", good[..good.len() - PAGE].to_vec(), "header says"),
        ("padded", [&good[..], &[0; PAGE]].concat(), "header says"),
        ("small pages", changed(good.clone(), 16, &[2, 0]), "pages are of 512"),
        ("wal", changed(good.clone(), 18, &[2, 2]), "WAL mode"),
        ("reserved", changed(good.clone(), 20, &[32]), "reserved bytes"),
        ("a page of noise", changed(good.clone(), 2 * PAGE, &[0xa5; PAGE]), "damaged"),
        ("cells outside", changed(good.clone(), PAGE + 8, &[0xff; 64]), "damaged"),
        ("a free list that is none", changed(good.clone(), 32, &[0, 0, 0, 2, 0, 0, 0, 9]), "damaged"),
        ("a tree in a circle", changed(good.clone(), PAGE + 8, &[0, 0, 0, 2]), "damaged"),
        ("one root for two", made(TABLE, "UPDATE sqlite_schema SET rootpage=2"), "damaged"),
        ("no root", made(TABLE, &format!("UPDATE sqlite_schema SET rootpage={} WHERE name='t'", count + 9)), "refused"),
        ("no SQL", made(TABLE, "UPDATE sqlite_schema SET sql='CREATE TABLE t(' WHERE name='t'"), "malformed"),
        ("other SQL", made(TABLE, "UPDATE sqlite_schema SET sql='DROP TABLE t' WHERE name='t'"), "malformed"),
        ("too wide", made(&format!("CREATE TABLE wide({})", wide.join(",")), ""), "too many columns"),
        ("too deep", made(&format!("CREATE VIEW v AS SELECT {}1{}", "(".repeat(80), ")".repeat(80)),
            &format!("UPDATE sqlite_schema SET sql='CREATE VIEW v AS SELECT {}1'", "-+".repeat(900))), "refused"),
    ];
    for (number, (what, bytes, phrase)) in cases.iter().enumerate() {
        let name = format!("hostile-{number}");
        let answer = Upload::new(&server, &name, bytes).send();
        assert_eq!(answer.status, 400, "{what}: {answer:?}");
        let (code, message) = answer.error();
        assert_eq!(code, "SHOAL_INVALID", "{what}: {message}");
        assert!(message.contains(phrase), "{what}: `{phrase}` is not in: {message}");
    }
    assert_eq!(db_ok(&server, &["list", "--prefix", "hostile"])["namespaces"], json!([]));
    server.assert_well();
    // A name that was refused is free.
    assert_eq!(Upload::new(&server, "hostile-0", &good).send().status, 200);
    assert_eq!(server.database("hostile-0").rows("SELECT count(*) FROM t"), [json!([900])]);
}

#[test]
fn what_is_not_a_file_of_pages_is_not_even_begun() {
    let server = Server::dev();
    Upload::new(&server, "app", b"").begin().assert_refused(400, "SHOAL_INVALID", &["pages of 4096"]);
    Upload::new(&server, "app", &[1; 5000]).begin().assert_refused(400, "SHOAL_INVALID", &["pages of 4096"]);
    let good = made(TABLE, "");
    let upload = Upload::new(&server, "app", &good);
    assert_eq!(upload.begin().status, 200);
    // Not what was announced.
    assert_eq!(upload.part(0, &changed(good.clone(), 200, b"x")).status, 200);
    upload.finish().assert_refused(400, "SHOAL_INVALID", &["its hash differs"]);
    assert_eq!(upload.begin().json()["received"], 0, "it begins anew");
    let too_large = upload.part(0, &vec![0; (4 << 20) + 1]);
    assert_eq!(too_large.status, 413);
    assert_eq!(upload.send().status, 200);
    server.database("app").run("DROP TABLE t");
}
