//! The shell against a real SQLite behind the protocol.

use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use rusqlite::types::Value;

use super::*;
use crate::cli::test_server::{Server, serve_sqlite};

/// What was printed, while the session still holds the writer.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("the output").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Shell {
    server: Server,
    session: Session<'static>,
    printed: Printed,
}

impl Shell {
    fn new() -> Shell {
        let server = serve_sqlite();
        let url = DatabaseUrl::parse(&format!("{}/db/x/", server.url)).expect("a URL");
        let printed = Printed::default();
        let style = Style { mode: Mode::List, headers: None, for_terminal: false };
        let out = Box::new(printed.clone());
        let session = Session { client: Client::new(&url, None), out, style, read_depth: 0 };
        Shell { server, session, printed }
    }

    fn run(&mut self, script: &str) -> Result<String, String> {
        self.printed.0.lock().expect("the output").clear();
        let outcome = self.session.run_whole_script(script.as_bytes());
        let printed = String::from_utf8(self.printed.0.lock().expect("the output").clone());
        let printed = printed.expect("UTF-8");
        outcome.map(|()| printed).map_err(|error| error.to_string())
    }
}

#[test]
fn a_script_prints_what_its_queries_give() {
    let mut shell = Shell::new();
    let script = "CREATE TABLE t(a, b);\nINSERT INTO t VALUES(1, 'x;y'), (2, NULL);\nSELECT * FROM t;\n\
                  PRAGMA user_version; SELECT 'end'";
    assert_eq!(shell.run(script), Ok("1|x;y\n2|\n0\nend\n".into()));
    assert_eq!(shell.run(".mode json\nSELECT a FROM t;"), Ok("[{\"a\":1},\n{\"a\":2}]\n".into()));
    assert_eq!(shell.run(".mode csv\n.headers on\nSELECT a, b FROM t;"), Ok("a,b\n1,x;y\n2,\n".into()));
}

#[test]
fn many_statements_travel_in_few_requests() {
    let mut shell = Shell::new();
    let inserts: String = (0..1_200).map(|n| format!("INSERT INTO t VALUES({n});\n")).collect();
    let script = format!("CREATE TABLE t(a);\n{inserts}SELECT count(*), sum(a) FROM t;");
    assert_eq!(shell.run(&script), Ok("1200|719400\n".into()));
    let requests = shell.server.requests().len();
    assert!(requests <= 5, "3 groups and 1 query took {requests} requests");
}

#[test]
fn a_script_stops_at_its_first_error_and_names_the_line() {
    let mut shell = Shell::new();
    let script = "CREATE TABLE t(a UNIQUE);\nINSERT INTO t VALUES(1);\n\n-- again\nINSERT INTO\n  t VALUES(1);\n\
                  INSERT INTO t VALUES(2);\n";
    let error = shell.run(script).expect_err("a duplicate");
    assert!(error.starts_with("near line 5: SQLite error: UNIQUE constraint failed: t.a"), "{error}");
    assert_eq!(shell.run("SELECT count(*) FROM t"), Ok("1\n".into()));
    let error = shell.run("SELECT 1;\nSELECT nope;").expect_err("no column");
    assert!(error.starts_with("near line 2: "), "{error}");
    let error = shell.run("SELECT 1;\n\n.frobnicate\n").expect_err("no command");
    assert!(error.starts_with("near line 3: unknown command .frobnicate"), "{error}");
    let error = shell.run("SELECT 1;\nSELECT 'left open;\n").expect_err("an open quote");
    assert!(error.starts_with("near line 2: "), "{error}");
}

#[test]
fn each_statement_outside_a_transaction_is_a_commit_of_its_own() {
    let mut shell = Shell::new();
    shell.run("CREATE TABLE t(a);").expect("a table");
    shell.run("INSERT INTO t VALUES(1); INSERT INTO nope VALUES(1);").expect_err("no table");
    assert_eq!(shell.run("SELECT a FROM t;"), Ok("1\n".into()));
    shell.run("BEGIN; INSERT INTO t VALUES(2); INSERT INTO nope VALUES(1); COMMIT;").expect_err("no table");
    shell.session.client.close();
    assert_eq!(shell.run("SELECT a FROM t;"), Ok("1\n".into()));
}

#[test]
fn a_script_that_forgets_its_commit_is_told() {
    let mut shell = Shell::new();
    let error = shell.run("CREATE TABLE t(a); BEGIN; INSERT INTO t VALUES(1);").expect_err("no COMMIT");
    assert!(error.contains("COMMIT is missing"), "{error}");
    shell.session.client.close();
    assert_eq!(shell.run("SELECT count(*) FROM t"), Ok("0\n".into()));
}

#[test]
fn text_that_is_no_sql_script_is_refused() {
    let mut shell = Shell::new();
    let error = shell.session.run_whole_script(&b"SELECT 1;\n\xff\n"[..]).expect_err("not text").to_string();
    assert_eq!(error, "near line 2: this is not UTF-8 text");
    assert_eq!(shell.run("\u{feff}SELECT 1;"), Ok("1\n".into()));
}

#[test]
fn tables_and_schema_leave_out_what_is_internal() {
    let mut shell = Shell::new();
    let script = "CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT); CREATE VIEW v AS SELECT 1;\n\
                  CREATE VIRTUAL TABLE f USING fts5(x); CREATE INDEX ai ON a(id);\n";
    shell.run(script).expect("a schema");
    assert_eq!(shell.run(".tables"), Ok("a  f  v\n".into()));
    assert_eq!(shell.run(".tables v%"), Ok("v\n".into()));
    assert_eq!(
        shell.run(".schema a"),
        Ok("CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT);\nCREATE INDEX ai ON a(id);\n".into())
    );
    assert_eq!(shell.run(".schema f"), Ok("CREATE VIRTUAL TABLE f USING fts5(x);\n".into()));
    assert_eq!(shell.run(".schema").expect("all").lines().count(), 4);
}

#[test]
fn scripts_read_scripts_but_not_themselves_for_ever() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("good"), "SELECT 1;\nSELECT 2").expect("a file");
    std::fs::write(path("bad"), "SELECT 1;\nSELECT nope;").expect("a file");
    std::fs::write(path("self"), format!(".read '{}'\n", path("self"))).expect("a file");
    let mut shell = Shell::new();
    assert_eq!(shell.run(&format!(".read {}\nSELECT 3;", path("good"))), Ok("1\n2\n3\n".into()));
    let error = shell.run(&format!("\n.read {}", path("bad"))).expect_err("a bad script");
    assert!(error.starts_with(&format!("near line 2: {}: near line 2: ", path("bad"))), "{error}");
    let error = shell.run(&format!(".read {}", path("self"))).expect_err("endless");
    assert!(error.contains("deep"), "{error}");
    let error = shell.run(".read /nonexistent").expect_err("no file");
    assert!(error.contains("/nonexistent: it can't be read"), "{error}");
}

/// Every kind of table and value that a dump has to carry.
const EVERYTHING: &str = r#"
CREATE TABLE types(a, "b""c", i INTEGER, r REAL, t TEXT, z BLOB);
INSERT INTO types VALUES(NULL, 9223372036854775807, -9223372036854775808, 0.1, 'it''s; "so"', X'00ff');
INSERT INTO types VALUES(9e999, -9e999, 9007199254740993, 1e300, '', X'');
INSERT INTO types VALUES(1.0, -5e-324, NULL, 3, CAST(X'61006200' AS TEXT), CAST(X'ff41' AS TEXT));
INSERT INTO types VALUES('a' || char(13,10) || 'b' || char(10) || '.c', '日本', 0, 1e16, char(65533), zeroblob(3));
CREATE TABLE rowid_taken(rowid TEXT, x);
INSERT INTO rowid_taken VALUES('z', 1), ('a', 2);
CREATE TABLE keyed(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
INSERT INTO keyed VALUES('b', 1), ('a', 2);
CREATE TABLE generated(a INTEGER, b AS (a * 2), c TEXT, d AS (a + 1) STORED);
INSERT INTO generated(a, c) VALUES(1, 'x'), (2, 'y');
CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, v);
INSERT INTO counted(v) VALUES('one'), ('two'), ('three');
DELETE FROM counted WHERE id = 3;
CREATE TABLE parent(id INTEGER PRIMARY KEY);
CREATE TABLE child(p REFERENCES parent(id));
INSERT INTO parent VALUES(5); INSERT INTO child VALUES(5);
CREATE TABLE "odd name; --"(x /* why */ -- a comment
);
INSERT INTO "odd name; --" VALUES(1);
CREATE TABLE commented(x) -- the end
;
INSERT INTO commented VALUES(1);
CREATE TABLE log(what);
CREATE INDEX types_i ON types(i) WHERE i > 0;
CREATE VIEW view_of_types AS SELECT i FROM types;
CREATE TRIGGER on_keyed AFTER INSERT ON keyed BEGIN INSERT INTO log VALUES('keyed'); SELECT CASE 1 WHEN 1 THEN 2 END; END;
CREATE TRIGGER on_view INSTEAD OF INSERT ON view_of_types BEGIN INSERT INTO types(i) VALUES(new.i); END;
CREATE VIRTUAL TABLE own_text USING fts5(title, body, tokenize='porter');
INSERT INTO own_text(rowid, title, body) VALUES(7, 'one', 'running water'), (9, 'two', 'still water');
CREATE TABLE posts(id INTEGER PRIMARY KEY, body TEXT);
INSERT INTO posts VALUES(3, 'a needle'), (4, 'a haystack');
CREATE VIRTUAL TABLE other_text USING fts5(body, content='posts', content_rowid='id');
INSERT INTO other_text(other_text) VALUES('rebuild');
CREATE VIRTUAL TABLE words USING fts5vocab('own_text', 'row');
CREATE VIRTUAL TABLE places USING rtree(id, x0, x1, +label);
INSERT INTO places VALUES(1, 0.5, 1.25, 'home');
PRAGMA user_version=42;
ANALYZE;
"#;

/// Queries whose answers must be the same in the copy, each value with its type and bytes.
const QUESTIONS: &[&str] = &[
    "SELECT typeof(a), quote(a), typeof(\"b\"\"c\"), \"b\"\"c\", i, r, typeof(t), hex(t), typeof(z), hex(z) FROM types",
    "SELECT a, \"b\"\"c\", r FROM types",
    "SELECT rowid, x FROM rowid_taken",
    "SELECT * FROM keyed",
    "SELECT a, b, c, d FROM generated",
    "SELECT * FROM counted",
    "SELECT * FROM sqlite_sequence",
    "SELECT * FROM child",
    "SELECT * FROM \"odd name; --\"",
    "SELECT * FROM commented",
    "SELECT * FROM log",
    "SELECT rowid, title FROM own_text WHERE own_text MATCH 'run' ",
    "SELECT rowid, body FROM own_text",
    "SELECT rowid FROM other_text WHERE other_text MATCH 'needle'",
    "SELECT term, doc FROM words ORDER BY term",
    "SELECT id, x0, x1, label FROM places",
    "SELECT user_version FROM pragma_user_version",
    "SELECT tbl, idx, stat FROM sqlite_stat1 ORDER BY 1, 2",
    "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE '%stat4' ORDER BY 1, 2",
    "SELECT * FROM pragma_integrity_check",
    "SELECT * FROM pragma_foreign_key_check",
];

fn ask(connection: &Connection, question: &str) -> Vec<Vec<Value>> {
    let mut statement = connection.prepare(question).expect(question);
    let width = statement.column_count();
    let rows = statement.query_map([], |row| (0..width).map(|column| row.get(column)).collect());
    rows.and_then(Iterator::collect).expect(question)
}

#[test]
fn a_dump_makes_an_equal_database() {
    let mut shell = Shell::new();
    shell.run(EVERYTHING).expect("the original");
    let dump = shell.run(".dump").expect("a dump");
    assert!(dump.starts_with("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n"), "{dump}");
    assert!(dump.ends_with("COMMIT;\n"), "{dump}");
    let original = Connection::open_in_memory().expect("memory");
    original.execute_batch(EVERYTHING).expect("the original");
    let copy = Connection::open_in_memory().expect("memory");
    copy.execute_batch(&dump).unwrap_or_else(|error| panic!("{error}\n{dump}"));
    for question in QUESTIONS {
        assert_eq!(ask(&copy, question), ask(&original, question), "{question}\n{dump}");
    }
}

#[test]
fn a_dump_is_loaded_again_by_the_shell() {
    let mut first = Shell::new();
    first.run(EVERYTHING).expect("the original");
    let dump = first.run(".dump").expect("a dump");
    let mut second = Shell::new();
    second.run(&dump).expect("the copy");
    assert_eq!(second.run(".dump").expect("a dump of the copy"), dump);
}

#[test]
fn a_dump_of_one_table_has_what_belongs_to_it() {
    let mut shell = Shell::new();
    shell.run(EVERYTHING).expect("the original");
    let dump = shell.run(".dump keyed").expect("a dump");
    assert_eq!(
        dump,
        "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n\
         CREATE TABLE keyed(k TEXT PRIMARY KEY, v) WITHOUT ROWID;\n\
         INSERT INTO \"keyed\" VALUES('a',2);\nINSERT INTO \"keyed\" VALUES('b',1);\n\
         CREATE TRIGGER on_keyed AFTER INSERT ON keyed BEGIN INSERT INTO log VALUES('keyed'); \
         SELECT CASE 1 WHEN 1 THEN 2 END; END;\nCOMMIT;\n"
    );
}

#[test]
fn a_dump_of_what_it_cannot_carry_fails_and_prints_nothing() {
    let mut shell = Shell::new();
    shell
        .run(
            "CREATE TABLE t(a); PRAGMA writable_schema=ON; INSERT INTO sqlite_schema VALUES\
              ('table', 'f', 'f', 0, 'CREATE VIRTUAL TABLE f USING elsewhere(x)');",
        )
        .expect("a table");
    let mut out = Vec::new();
    let error = dump::dump(&mut shell.session.client, &mut out, None).expect_err("no such module").to_string();
    assert!(error.contains("the virtual table \"f\" is of a module"), "{error}");
    assert_eq!(out, b"");
    assert!(shell.run(".dump t").expect("a dump of the other table").contains("CREATE TABLE t(a);\n"));
}

#[test]
fn a_dump_inside_a_transaction_leaves_it_open() {
    let mut shell = Shell::new();
    let script = "CREATE TABLE t(a); BEGIN; INSERT INTO t VALUES(1);\n.dump\nCOMMIT;";
    let dump = shell.run(script).expect("a dump");
    assert!(dump.contains("INSERT INTO \"t\" VALUES(1);\n"), "{dump}");
    assert_eq!(shell.run("SELECT a FROM t;"), Ok("1\n".into()));
}

#[test]
fn a_wide_table_is_dumped_too() {
    let mut shell = Shell::new();
    let columns: Vec<String> = (0..300).map(|n| format!("c{n}")).collect();
    let values: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    let script = format!("CREATE TABLE wide({});INSERT INTO wide VALUES({});", columns.join(","), values.join(","));
    shell.run(&script).expect("a table");
    let dump = shell.run(".dump").expect("a dump");
    assert!(dump.contains(&format!("INSERT INTO \"wide\" VALUES({});\n", values.join(","))), "{dump}");
}
