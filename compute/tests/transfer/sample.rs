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
INSERT INTO rowid_taken(_rowid_, rowid, x) VALUES(9, 'b', 3);
CREATE TABLE rowids_taken(rowid, _rowid_, oid);
INSERT INTO rowids_taken VALUES(1, 2, 3), (3, 2, 1);
CREATE TABLE no_rowid_in_it(k INTEGER PRIMARY KEY DESC, v);
INSERT INTO no_rowid_in_it(rowid, k, v) VALUES(4, 1, 'a'), (3, 2, 'b');
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
INSERT INTO own_text(own_text, rank) VALUES('rank', 'bm25(10.0, 5.0)');
INSERT INTO own_text(own_text, rank) VALUES('automerge', 2);
CREATE VIRTUAL TABLE some_text USING fts5(body, content='posts', content_rowid='id');
INSERT INTO some_text(rowid, body) VALUES(4, 'a haystack');
CREATE VIRTUAL TABLE loose_text USING fts5(x, content='loose');
INSERT INTO loose_text(loose_text) VALUES('rebuild');
CREATE TABLE taken_content(v);
INSERT INTO taken_content(rowid, v) VALUES(3, 'a table of its own');
CREATE VIRTUAL TABLE taken USING fts5(v, content='taken_content');
INSERT INTO taken(taken) VALUES('rebuild');
CREATE VIRTUAL TABLE no_text USING fts5(b, content='');
INSERT INTO no_text(no_text, rank) VALUES('rank', 'bm25(10.0)');
INSERT INTO no_text(no_text, rank) VALUES('pgsz', 64);
INSERT INTO no_text(rowid, b) VALUES(5, 'words'), (-7, 'words and more words'), (900, 'something');
INSERT INTO no_text(rowid, b) WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 1300) SELECT i, 'words ' || i FROM n;
CREATE VIRTUAL TABLE no_text_deleted USING fts5(b, c, content='', contentless_delete=1);
INSERT INTO no_text_deleted(rowid, b, c) VALUES(5, 'words', 'x'), (6, 'gone words', 'y'), (7, 'other', 'words');
DELETE FROM no_text_deleted WHERE rowid=6;
CREATE VIRTUAL TABLE no_sizes USING fts5(b, content='', columnsize=0, detail=none);
INSERT INTO no_sizes(rowid, b) VALUES(3, 'words'), (9, 'other');
CREATE VIRTUAL TABLE located USING fts5(b, locale=1);
INSERT INTO located(rowid, b) VALUES(3, fts5_locale('en_GB', 'words')), (4, 'plain words');
CREATE VIRTUAL TABLE no_text_4 USING fts4(b, content='');
INSERT INTO no_text_4(docid, b) VALUES(5, 'words'), (8, 'many words');
CREATE VIRTUAL TABLE tongues USING fts4(b, languageid="tongue");
INSERT INTO tongues(tongues) VALUES('automerge=5');
INSERT INTO tongues(docid, b, tongue) VALUES(2, 'words', 0), (4, 'words', 7);
CREATE VIRTUAL TABLE posts_4 USING fts4(body, content='posts');
INSERT INTO posts_4(posts_4) VALUES('rebuild');
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
    "SELECT rowid, rank FROM own_text WHERE own_text MATCH 'water' ORDER BY rank",
    "SELECT rowid, rank FROM other_text WHERE other_text MATCH 'a' ORDER BY rank, rowid",
    "SELECT rowid, body, rank FROM some_text WHERE some_text MATCH 'a' ORDER BY rank",
    "SELECT rowid, x FROM loose_text WHERE loose_text MATCH 'a OR c'",
    "SELECT rowid, v FROM taken WHERE taken MATCH 'own'",
    "SELECT rowid, rank FROM no_text WHERE no_text MATCH 'words' ORDER BY rank, rowid",
    "SELECT rowid FROM no_text WHERE rowid > 0",
    "SELECT rowid, rank FROM no_text_deleted WHERE no_text_deleted MATCH 'words' ORDER BY rank",
    "SELECT rowid, b, fts5_get_locale(located, 0) FROM located WHERE located MATCH 'words'",
    "SELECT rowid FROM no_sizes WHERE no_sizes MATCH 'words'",
    "SELECT docid, matchinfo(no_text_4, 'pcnalx') FROM no_text_4 WHERE no_text_4 MATCH 'words'",
    "SELECT docid, b, tongue FROM tongues",
    "SELECT docid FROM tongues WHERE tongues MATCH 'words' AND tongue=7",
    "SELECT docid, body FROM posts_4 WHERE posts_4 MATCH 'needle'",
    "SELECT k, v FROM own_text_config ORDER BY k",
    "SELECT k, v FROM no_text_config ORDER BY k",
    "SELECT value FROM tongues_stat WHERE id=2",
];

/// What is to be the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sameness {
    /// Also how virtual tables keep what they have.
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
        let columns = if without_rowid { "*" } else { "_rowid_, *" };
        picture.push(format!("-- {table}"));
        picture.extend(ask(connection, &format!("SELECT {columns} FROM {quoted}")));
    }
    let names = ask(connection, "SELECT name FROM sqlite_schema").join(" ");
    for question in QUESTIONS {
        // Chinook has none of these tables, and no `sqlite_sequence`.
        let is_general = question.starts_with("PRAGMA");
        if is_general || names.contains(if question.contains("sqlite_sequence") { "sqlite_sequence" } else { "own_text" }) {
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
    assert_pictured(&open(copy), original, sameness, what);
}

#[track_caller]
pub fn assert_pictured(copy: &Connection, original: &Path, sameness: Sameness, what: &str) {
    let [copy, original] = [copy, &open(original)].map(|connection| picture(connection, sameness));
    let difference = copy.iter().zip(&original).find(|(one, other)| one != other);
    assert_eq!(difference, None, "{what}");
    assert_eq!(copy.len(), original.len(), "{what}");
}
