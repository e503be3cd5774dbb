//! What a copy has to have, and how to tell.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

/// Every kind of table and value.
pub const EVERYTHING: &str = r#"
PRAGMA application_id=-559038737; PRAGMA user_version=42;
CREATE TABLE types(a, "b""c", i INTEGER, r REAL, t TEXT, z BLOB);
INSERT INTO types VALUES(NULL, 9223372036854775807, -9223372036854775808, 0.1, 'it''s; "so"', X'00ff00');
INSERT INTO types VALUES(9e999, -9e999, 9007199254740993, 1e300, '', X'');
INSERT INTO types VALUES(1.0, -5e-324, NULL, 3, 'a' || char(0) || 'b', X'0000');
INSERT INTO types VALUES('a' || char(13,10) || 'b' || char(10) || '.c', '日本 🐟', 0, 1e16, char(65533), zeroblob(3000));
INSERT INTO types VALUES(-0.0, 1.7976931348623157e308, 1, 2.5, hex(zeroblob(4000)), randomblob(9000));
CREATE TABLE loose(x);
INSERT INTO loose(rowid, x) VALUES(-5, 'a'), (1, 'b'), (1000000000000, 'c');
CREATE TABLE rowid_taken(rowid TEXT, x);
INSERT INTO rowid_taken VALUES('z', 1), ('a', 2);
CREATE TABLE keyed(k TEXT, l REAL, v, PRIMARY KEY(k DESC, l)) WITHOUT ROWID;
INSERT INTO keyed VALUES('b', 1e999, 1), ('a', -1e999, 2), ('b', 0.5, x'00');
CREATE TABLE strictly(a INTEGER, b ANY, c TEXT COLLATE NOCASE) STRICT;
INSERT INTO strictly VALUES(1, 2.5, 'x'), (2, 'y', 'Y');
CREATE TABLE generated(a INTEGER, b AS (a * 2), c TEXT, d AS (a + 1) STORED, CHECK (a < 100));
INSERT INTO generated(a, c) VALUES(1, 'x'), (2, 'y');
CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, v);
INSERT INTO counted(v) VALUES('one'), ('two'), ('three');
DELETE FROM counted WHERE id = 3;
CREATE TABLE child(p REFERENCES parent(id) ON DELETE CASCADE);
CREATE TABLE parent(id INTEGER PRIMARY KEY);
INSERT INTO child VALUES(5); INSERT INTO parent VALUES(5);
CREATE TABLE "odd name; --"(x /* why */ -- a comment
);
INSERT INTO "odd name; --" VALUES(1);
CREATE TABLE log(what);
CREATE INDEX types_i ON types(i DESC) WHERE i > 0;
CREATE INDEX on_expression ON types(length(t), "b""c" COLLATE NOCASE);
CREATE VIEW view_of_types AS SELECT i FROM types;
CREATE TRIGGER on_keyed AFTER INSERT ON keyed BEGIN INSERT INTO log VALUES('keyed'); SELECT CASE 1 WHEN 1 THEN 2 END; END;
CREATE TRIGGER on_view INSTEAD OF INSERT ON view_of_types BEGIN INSERT INTO types(i) VALUES(new.i); END;
CREATE VIRTUAL TABLE own_text USING fts5(title, body, tokenize='porter');
INSERT INTO own_text(rowid, title, body) VALUES(7, 'one', 'running water'), (9, 'two', 'still water');
CREATE TABLE posts(id INTEGER PRIMARY KEY, body TEXT);
INSERT INTO posts VALUES(3, 'a needle'), (4, 'a haystack');
CREATE VIRTUAL TABLE other_text USING fts5(body, content='posts', content_rowid='id');
INSERT INTO other_text(other_text) VALUES('rebuild');
CREATE VIRTUAL TABLE places USING rtree(id, x0, x1, +label);
INSERT INTO places VALUES(1, 0.5, 1.25, 'home');
"#;

/// Questions beyond the rows of tables.
const QUESTIONS: &[&str] = &[
    "PRAGMA application_id",
    "PRAGMA user_version",
    "PRAGMA encoding",
    "PRAGMA integrity_check",
    "PRAGMA foreign_key_check",
    "SELECT name, seq FROM sqlite_sequence ORDER BY name",
    "SELECT rowid, title, body FROM own_text WHERE own_text MATCH 'run'",
    "SELECT rowid, body FROM other_text WHERE other_text MATCH 'needle'",
    "SELECT id, x0, x1, label FROM places WHERE x1 > 1",
];

/// What is to be the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sameness {
    /// Also the rowids that no column names, and what virtual tables keep.
    Exact,
    /// What a dump without options promises.
    Content,
}

/// A file made of SQL, prepared first by `pragmas`.
pub fn make(path: &Path, pragmas: &str, sql: &str) {
    let connection = Connection::open(path).expect("a new file");
    connection.execute_batch("PRAGMA foreign_keys=OFF").expect("a pragma");
    connection.execute_batch(pragmas).expect(pragmas);
    connection.execute_batch("BEGIN").and_then(|()| connection.execute_batch(sql)).expect("the sample");
    connection.execute_batch("COMMIT").expect("a commit");
}

pub fn open(path: &Path) -> Connection {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("a database")
}

/// All that has to be the same, in words.
pub fn picture(connection: &Connection, sameness: Sameness) -> Vec<String> {
    let schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name";
    let mut picture = ask(connection, schema);
    let kinds = if sameness == Sameness::Exact { "'table','shadow'" } else { "'table'" };
    let tables = format!(
        "SELECT name, wr FROM pragma_table_list WHERE schema='main' AND type IN ({kinds}) AND name NOT LIKE 'sqlite%' ORDER BY name"
    );
    let mut statement = connection.prepare(&tables).expect("tables");
    let tables = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?))).expect("tables");
    for (table, without_rowid) in tables.map(|table| table.expect("a table")) {
        let quoted = format!("\"{}\"", table.replace('"', "\"\""));
        let has_rowid = !without_rowid && table != "rowid_taken";
        let columns = if has_rowid && sameness == Sameness::Exact { "_rowid_, *" } else { "*" };
        picture.push(format!("-- {table}"));
        picture.extend(ask(connection, &format!("SELECT {columns} FROM {quoted}")));
    }
    let names = ask(connection, "SELECT name FROM sqlite_schema").join(" ");
    for question in QUESTIONS {
        // Chinook has neither.
        let table = ["sqlite_sequence", "own_text", "other_text", "places"].iter().find(|table| question.contains(*table));
        if table.is_none_or(|table| names.contains(table)) {
            picture.push(format!("-- {question}"));
            picture.extend(ask(connection, question));
        }
    }
    picture
}

fn ask(connection: &Connection, question: &str) -> Vec<String> {
    let mut statement = connection.prepare(question).expect(question);
    let width = statement.column_count();
    let mut rows = statement.query([]).expect(question);
    let mut answer = Vec::new();
    while let Some(row) = rows.next().expect(question) {
        let values = (0..width).map(|index| match row.get_ref(index).expect(question) {
            ValueRef::Null => "null".into(),
            ValueRef::Integer(integer) => format!("integer {integer}"),
            ValueRef::Real(real) => format!("real {real:?}"),
            ValueRef::Text(text) => format!("text {:?} {text:x?}", String::from_utf8_lossy(text)),
            ValueRef::Blob(blob) => format!("blob {blob:x?}"),
        });
        answer.push(values.collect::<Vec<String>>().join(" | "));
    }
    answer
}

#[track_caller]
pub fn assert_same(copy: &Path, original: &Path, sameness: Sameness, what: &str) {
    let [copy, original] = [copy, original].map(|path| picture(&open(path), sameness));
    let difference = copy.iter().zip(&original).find(|(one, other)| one != other);
    assert_eq!(difference, None, "{what}");
    assert_eq!(copy.len(), original.len(), "{what}");
}
