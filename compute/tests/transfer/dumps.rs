//! SQL that makes a database again.

use std::path::Path;
use std::process::Command;

use rusqlite::Connection;

use crate::sample::{self, EVERYTHING, Sameness};
use crate::shoal::{db_ok, path};
use crate::support::{Answer, Server, request};

fn dump(server: &Server, name: &str, query: &str) -> Answer {
    request("GET", &server.url(&format!("db/{name}/dump{query}")), &[], b"").expect("an answer")
}

/// The same text from `shoal shell`.
fn shell_dump(server: &Server, name: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal"));
    let output = command.args(["shell", &server.url(&format!("db/{name}/")), ".dump"]).output().expect("a shell");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn a_dump_makes_an_equal_database_here_and_on_the_server() {
    let (server, directory) = (Server::dev(), tempfile::tempdir().expect("a directory"));
    for encoding in ["UTF-8", "UTF-16le", "UTF-16be"] {
        let place = |name: &str| directory.path().join(format!("{name}-{encoding}"));
        let (original, script, copy, back) = (place("original"), place("dump.sql"), place("copy"), place("back"));
        sample::make(&original, &format!("PRAGMA encoding='{encoding}'"), EVERYTHING);
        let [name, again] = ["one", "two"].map(|name| format!("{name}-{}", encoding.to_lowercase()));
        db_ok(&server, &["import", path(&original), &name]);

        let dumped = dump(&server, &name, "");
        assert_eq!(dumped.status, 200, "{dumped:?}");
        assert!(dumped.headers.contains_key("shoal-lsn"));
        assert!(dumped.text.ends_with("COMMIT;\n"));
        assert_eq!(shell_dump(&server, &name), dumped.text, "the shell prints the same");
        let plain = Connection::open(&copy).expect("a new file");
        plain.execute_batch(&dumped.text).expect("plain SQLite reads it");
        sample::assert_pictured(&plain, &original, Sameness::Content, encoding);
        drop(plain);
        sample::assert_same(&copy, &original, Sameness::Content, encoding);

        std::fs::write(&script, &dumped.text).expect("a file");
        db_ok(&server, &["import", path(&script), &again]);
        assert_eq!(dump(&server, &again, "").text, dumped.text, "{encoding}: dump, import, dump");
        db_ok(&server, &["export", &again, path(&back)]);
        sample::assert_same(&back, &original, Sameness::Content, encoding);
    }
}

#[test]
fn rows_name_their_rowids_where_they_would_get_others_or_if_asked_to() {
    let server = Server::dev();
    let database = server.database("app");
    database.run("CREATE TABLE t(a)");
    database.run("INSERT INTO t(rowid, a) VALUES(1, 'x'), (2, 'y'), (7, 'z'), (8, 'end')");
    let rows = "INSERT INTO \"t\" VALUES('x');\nINSERT INTO \"t\" VALUES('y');\n\
                INSERT INTO \"t\"(rowid,\"a\") VALUES(7,'z');\nINSERT INTO \"t\"(rowid,\"a\") VALUES(8,'end');\n";
    let text = dump(&server, "app", "").text;
    assert!(text.contains(rows), "{text}");
    let text = dump(&server, "app", "?preserve_row_ids=true").text;
    assert!(text.contains("INSERT INTO \"t\"(rowid,\"a\") VALUES(1,'x');\n"), "{text}");
}

#[test]
fn what_cannot_be_dumped_is_said_before_the_first_byte() {
    let (server, directory) = (Server::dev(), tempfile::tempdir().expect("a directory"));
    let [file, exported] = ["strange.db", "exported.db"].map(|name| directory.path().join(name));
    let strange = "CREATE TABLE t(a); PRAGMA writable_schema=ON; INSERT INTO sqlite_schema VALUES\
                   ('table', 'odd', 'odd', 0, 'CREATE VIRTUAL TABLE odd USING elsewhere(a)')";
    sample::make(&file, "", strange);
    db_ok(&server, &["import", path(&file), "app"]);
    dump(&server, "app", "").assert_refused(400, "SHOAL_INVALID", &["virtual table \"odd\"", "export"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal"));
    let output = command.args(["shell", &server.url("db/app/"), ".dump"]).output().expect("a shell");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("virtual table \"odd\""), "{error}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    db_ok(&server, &["export", "app", path(&exported)]);
}

#[test]
fn tables_as_wide_as_they_can_be_are_dumped() {
    let server = Server::dev();
    let columns: Vec<String> = (0..400).map(|n| format!("c{n}")).collect();
    server.database("app").run(&format!("CREATE TABLE wide({})", columns.join(",")));
    server.database("app").run("INSERT INTO wide(c399) VALUES('last')");
    assert!(dump(&server, "app", "").text.contains(",'last');\n"));
}

#[test]
fn an_error_before_the_first_byte_is_an_http_error() {
    let server = Server::serve(&[]);
    dump(&server, "nothing", "").assert_refused(404, "SHOAL_NO_SUCH_DATABASE", &["no database `nothing`"]);
    let posted = request("POST", &server.url("db/nothing/dump"), &[], b"").expect("an answer");
    posted.assert_refused(405, "METHOD_NOT_ALLOWED", &["use GET"]);
}

#[test]
fn dumps_of_other_tools_are_read() {
    let (server, directory) = (Server::dev(), tempfile::tempdir().expect("a directory"));
    let script = directory.path().join("dump.sql");
    // As `sqlite3` writes a virtual table: into the schema, with its shadow tables by hand.
    let donor = Connection::open_in_memory().expect("memory");
    donor.execute_batch("CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f VALUES('deep water')").expect("a table");
    let mut text = String::from("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nPRAGMA writable_schema=ON;\n\
        INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','f','f',0,'CREATE VIRTUAL TABLE f USING fts5(x)');\n");
    let mut tables = donor.prepare("SELECT name, sql FROM sqlite_schema WHERE name LIKE 'f\\_%' ESCAPE '\\'").expect("shadows");
    let tables = tables.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).expect("shadows");
    for (table, sql) in tables.map(|table| table.expect("a table")) {
        text.push_str(&format!("{};\n", sql.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS")));
        let mut rows = donor.prepare(&format!("SELECT * FROM {table}")).expect("rows");
        let width = rows.column_count();
        let mut rows = rows.query([]).expect("rows");
        while let Some(row) = rows.next().expect("a row") {
            let quote = |index| {
                let value: rusqlite::types::Value = row.get(index).expect("a value");
                donor.query_row("SELECT quote(?1)", [value], |row| row.get::<_, String>(0)).expect("a literal")
            };
            let values: Vec<String> = (0..width).map(quote).collect();
            text.push_str(&format!("INSERT INTO {table} VALUES({});\n", values.join(",")));
        }
    }
    text.push_str("PRAGMA writable_schema=OFF;\nCOMMIT;\n");
    std::fs::write(&script, text).expect("a file");
    db_ok(&server, &["create", "app", "--from", path(&script)]);
    let found = server.database("app").rows("SELECT x FROM f WHERE f MATCH 'water'");
    assert_eq!(found, [serde_json::json!(["deep water"])]);
}

#[test]
fn chinook_goes_there_and_back() {
    let (server, directory) = (Server::dev(), tempfile::tempdir().expect("a directory"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../minio-tests/data/chinook.sql");
    let [original, exported, copy] = ["original", "exported", "copy"].map(|name| directory.path().join(name));
    let text = std::fs::read_to_string(&script).expect("the script of Chinook");
    Connection::open(&original).and_then(|it| it.execute_batch(&format!("BEGIN; {text}; COMMIT"))).expect("Chinook");
    db_ok(&server, &["import", path(&script), "chinook"]);
    db_ok(&server, &["export", "chinook", path(&exported)]);
    sample::assert_same(&exported, &original, Sameness::Exact, "Chinook as a file");
    let dumped = dump(&server, "chinook", "").text;
    Connection::open(&copy).and_then(|copy| copy.execute_batch(&dumped)).expect("plain SQLite reads it");
    sample::assert_same(&copy, &original, Sameness::Content, "Chinook as a dump");
}
