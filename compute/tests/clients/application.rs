//! The scripted application itself: a small library with authors, books and settings.

use crate::script::{Action, Args, End, Mode, Statement, Step};
use crate::value::Value;
use crate::value::Value::{Blob, Integer, Null, Real, Text};

fn run(sql: &str) -> Statement {
    Statement { sql: sql.to_owned(), args: Args::Positional(vec![]), has_rows: false }
}

fn query(sql: &str) -> Statement {
    Statement { has_rows: true, ..run(sql) }
}

fn with(statement: Statement, values: Vec<Value>) -> Statement {
    Statement { args: Args::Positional(values), ..statement }
}

fn text(text: &str) -> Value {
    Text(text.to_owned())
}

fn step(name: &'static str, action: Action) -> Step {
    Step { name, action }
}

/// The whole application, in order.
pub fn steps() -> Vec<Step> {
    let mut steps = schema();
    steps.extend(values());
    steps.extend(arguments());
    steps.extend(transactions());
    steps.extend(batches());
    steps.extend(errors());
    steps.push(step(
        "the end",
        Action::Execute(vec![
            query("SELECT name, type FROM sqlite_schema WHERE name NOT LIKE 'search_%' ORDER BY name"),
            query("SELECT * FROM book ORDER BY id"),
            query("SELECT * FROM author ORDER BY id"),
            query("PRAGMA integrity_check"),
            query("PRAGMA foreign_key_check"),
        ]),
    ));
    steps
}

fn schema() -> Vec<Step> {
    let tables = [
        "CREATE TABLE author(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, born INTEGER)",
        "CREATE TABLE book(
            id INTEGER PRIMARY KEY,
            author INTEGER NOT NULL REFERENCES author(id) ON DELETE CASCADE,
            title TEXT NOT NULL COLLATE NOCASE CHECK (length(title) > 0),
            price REAL DEFAULT 9.99,
            cents INTEGER GENERATED ALWAYS AS (CAST(round(price * 100) AS INTEGER)) STORED
        )",
        "CREATE INDEX book_by_title ON book(title)",
        "CREATE TABLE setting(key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID",
        "CREATE VIEW shelf AS SELECT title, name FROM book JOIN author ON author.id = book.author",
        "CREATE TABLE journal(id INTEGER PRIMARY KEY, what TEXT)",
        "CREATE TRIGGER noted AFTER INSERT ON book BEGIN INSERT INTO journal(what) VALUES ('new: ' || new.title); END",
        "CREATE VIRTUAL TABLE search USING fts5(title)",
        "CREATE TABLE v(id INTEGER PRIMARY KEY, x)",
        "CREATE TABLE typed(i INTEGER, r REAL, t TEXT, b BLOB, n NUMERIC)",
        "CREATE TABLE counter(n INTEGER)",
    ];
    vec![
        step("schema", Action::Execute(tables.map(run).to_vec())),
        step(
            "rows",
            Action::Execute(vec![
                run("INSERT INTO author(name, born) VALUES ('Le Guin', 1929), ('Lem', 1921)"),
                run("INSERT INTO book(author, title) VALUES (1, 'The Dispossessed')"),
                run("INSERT INTO book(author, title, price) VALUES (2, 'Solaris', 12.5)"),
                run("INSERT INTO setting VALUES ('a', 1), ('b', 'two'), ('c', 3.0), ('d', x'04')"),
                run("INSERT INTO search SELECT title FROM book"),
                run("INSERT INTO counter VALUES (0)"),
                run("UPDATE book SET price = price + 1"),
                run("DELETE FROM book WHERE id = 99"),
                run("REPLACE INTO book(id, author, title) VALUES (2, 2, 'Solaris, again')"),
                query("INSERT INTO author(name) VALUES ('Banks') RETURNING id, name, born"),
            ]),
        ),
        step(
            "queries",
            Action::Execute(vec![
                query("SELECT * FROM shelf ORDER BY title"),
                query("SELECT id, price, cents FROM book ORDER BY id"),
                query("SELECT key, value, typeof(value) FROM setting ORDER BY key"),
                query("SELECT title FROM search WHERE search MATCH 'solaris'"),
                query("SELECT title FROM book WHERE title = 'the dispossessed'"),
                query("SELECT what FROM journal ORDER BY id"),
                query(
                    "SELECT author, count(*) AS books, sum(price) AS \"total price\" FROM book GROUP BY author ORDER BY 1",
                ),
                query("SELECT 1 AS x, 2 AS x, 3"),
                query("SELECT * FROM book WHERE 0"),
                query(
                    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 1000) SELECT x, x * x FROM c",
                ),
                query("EXPLAIN QUERY PLAN SELECT * FROM book WHERE title = 'x'"),
                query("PRAGMA table_info(book)"),
                query("VALUES (1, 'one'), (2, 'two')"),
            ]),
        ),
    ]
}

fn every_value() -> Vec<Value> {
    let mut values = vec![Null];
    let two_to_53 = 1i64 << 53;
    values.extend(
        [0, 1, -1, i64::from(i32::MAX), two_to_53 - 1, two_to_53 + 1, -two_to_53 - 1, i64::MAX, i64::MIN].map(Integer),
    );
    values.extend(
        [0.0, -0.0, 1.0, -1.5, 0.1 + 0.2, 1e15, 1e300, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324].map(Real),
    );
    values.extend([Real(two_to_53 as f64), Real(std::f64::consts::PI), Real(9_223_372_036_854_775_807.0)]);
    let texts = [
        "",
        " ",
        "plain",
        "a\u{0}b",
        "\u{0}",
        "Grüße, 魚, \u{1F41F}, e\u{301}",
        "'\"\\\r\n\t\u{1}\u{7f}",
        "\u{feff}\u{2028}\u{10ffff}",
        "null",
        "1",
    ];
    values.extend(texts.map(text));
    values.push(Text("long ".repeat(20_000)));
    values.extend((0..=255u8).map(|byte| Blob(vec![byte])));
    values.extend([Blob(vec![]), Blob((0..=255).collect()), Blob(vec![0; 100_000])]);
    values
}

fn values() -> Vec<Step> {
    let values = every_value();
    let inserts = values.iter().map(|value| with(run("INSERT INTO v(x) VALUES (?)"), vec![value.clone()]));
    // By argument and back without storing; several at once, so that the script stays quick.
    let echoes = values.chunks(40).map(|chunk| {
        let marks = (1..=chunk.len()).map(|index| format!("?{index} AS c{index}, typeof(?{index}) AS t{index}"));
        with(query(&format!("SELECT {}", marks.collect::<Vec<_>>().join(", "))), chunk.to_vec())
    });
    let typed = values
        .iter()
        .filter(|value| !matches!(value, Text(text) if text.len() > 1000))
        .take(50)
        .map(|value| with(run("INSERT INTO typed VALUES (?1, ?1, ?1, ?1, ?1)"), vec![value.clone()]));
    vec![
        step("values, stored", Action::Execute(inserts.collect())),
        step(
            "values, read",
            Action::Execute(vec![
                query("SELECT x FROM v ORDER BY id"),
                query(
                    "SELECT id, typeof(x), length(x), hex(x) FROM v WHERE typeof(x) <> 'real' AND length(x) < 1000 ORDER BY id",
                ),
                query("SELECT id, printf('%!.17g', x) FROM v WHERE typeof(x) = 'real' ORDER BY id"),
            ]),
        ),
        step("values, echoed", Action::Execute(echoes.collect())),
        step("values in columns with types", Action::Execute(typed.collect())),
        step(
            "values in columns with types, read",
            Action::Execute(vec![
                query("SELECT * FROM typed"),
                query("SELECT typeof(i), typeof(r), typeof(t), typeof(b), typeof(n) FROM typed"),
            ]),
        ),
        step(
            "values by SQL",
            Action::Execute(vec![
                query(
                    "SELECT 9223372036854775807, -9223372036854775808, 9007199254740993, -0.0, 0.0, 1e308, '', x'', NULL",
                ),
                query("SELECT 9223372036854775807 + 1, 1 / 0, 1.0 / 3, 5 / 2, 'a' || x'62', 0x7fffffffffffffff"),
                query(
                    "SELECT 9e999 - 9e999 AS nan, typeof(9e999 - 9e999), typeof(9e999), 9e999 > 1e308, CAST(-9e999 AS TEXT)",
                ),
            ]),
        ),
        step(
            "infinities",
            Action::Execute(vec![
                run("INSERT INTO v(id, x) VALUES (10001, 9e999), (10002, -9e999)"),
                query("SELECT typeof(x), x = 9e999, x = -9e999, printf('%g', x) FROM v WHERE id > 10000 ORDER BY id"),
                query("SELECT x FROM v WHERE id = 10001"),
                query("SELECT x FROM v WHERE id = 10002"),
            ]),
        ),
    ]
}

fn arguments() -> Vec<Step> {
    let named = |sql: &str, values: Vec<(&'static str, Value)>| Statement { args: Args::Named(values), ..query(sql) };
    vec![
        step(
            "arguments by position",
            Action::Execute(vec![
                with(query("SELECT ?, ?, ?"), vec![Integer(1), text("two"), Real(3.5)]),
                with(query("SELECT ?2, ?1, ?2"), vec![Integer(1), text("two")]),
                with(query("SELECT title FROM book WHERE author = ? AND price > ?"), vec![Integer(2), Real(0.5)]),
                with(run("INSERT INTO journal(id, what) VALUES (?, ?)"), vec![Integer(1 << 40), text("by position")]),
                run("INSERT INTO journal(id, what) VALUES (9223372036854775807, 'the last rowid')"),
                run("DELETE FROM journal WHERE id >= 1099511627776"),
            ]),
        ),
        step(
            "arguments by name",
            Action::Execute(vec![
                named("SELECT :a, @b, $c, :a", vec![(":a", Integer(1)), ("@b", text("two")), ("$c", Null)]),
                named("SELECT title FROM book WHERE author = :author", vec![(":author", Integer(1))]),
                Statement {
                    has_rows: false,
                    ..named("INSERT INTO journal(what) VALUES (:what)", vec![(":what", text("by name"))])
                },
            ]),
        ),
    ]
}

fn transactions() -> Vec<Step> {
    let transaction = |mode, end, statements| Action::Transaction { mode, statements, end };
    let count = || query("SELECT count(*) FROM book");
    let increment = |who: &str| {
        vec![
            run("UPDATE counter SET n = n + 1"),
            with(run("INSERT INTO setting VALUES (?, 1)"), vec![text(who)]),
            with(query("SELECT count(*) FROM setting WHERE key = ?"), vec![text(who)]),
        ]
    };
    vec![
        step(
            "a transaction that commits",
            transaction(
                Mode::Write,
                End::Commit,
                vec![
                    count(),
                    run("INSERT INTO author(id, name) VALUES (10, 'Butler')"),
                    with(run("INSERT INTO book(author, title) VALUES (10, ?)"), vec![text("Kindred")]),
                    count(),
                    query("SELECT title FROM shelf WHERE name = 'Butler'"),
                ],
            ),
        ),
        step("after the commit", Action::Execute(vec![count(), query("SELECT name FROM author WHERE id = 10")])),
        step(
            "a transaction that rolls back",
            transaction(
                Mode::Write,
                End::Rollback,
                vec![
                    run("DELETE FROM author WHERE id = 1"),
                    count(),
                    run("CREATE TABLE passing(a)"),
                    run("INSERT INTO passing VALUES (1)"),
                    query("SELECT a FROM passing"),
                ],
            ),
        ),
        step(
            "after the rollback",
            Action::Execute(vec![count(), query("SELECT a FROM passing"), query("SELECT count(*) FROM author")]),
        ),
        step(
            "a transaction that begins by writing, deferred",
            transaction(
                Mode::Deferred,
                End::Commit,
                vec![
                    run("UPDATE book SET price = 1 WHERE id = 1"),
                    query("SELECT price, cents FROM book WHERE id = 1"),
                ],
            ),
        ),
        step(
            "a transaction that survives an error",
            transaction(
                Mode::Write,
                End::Commit,
                vec![
                    run("INSERT INTO setting VALUES ('kept', 1)"),
                    run("INSERT INTO setting VALUES ('lost', 1), ('kept', 2)"),
                    query("SELECT nope FROM setting"),
                    run("INSERT INTO setting VALUES ('kept too', 1)"),
                ],
            ),
        ),
        step(
            "after the error",
            Action::Execute(vec![query(
                "SELECT key FROM setting WHERE key IN ('kept', 'lost', 'kept too') ORDER BY key",
            )]),
        ),
        step(
            "a transaction that only reads",
            transaction(Mode::Read, End::Commit, vec![count(), run("DELETE FROM book"), count()]),
        ),
        step(
            "savepoints",
            transaction(
                Mode::Write,
                End::Commit,
                vec![
                    run("SAVEPOINT a"),
                    run("DELETE FROM book"),
                    count(),
                    run("ROLLBACK TO a"),
                    run("RELEASE a"),
                    count(),
                ],
            ),
        ),
        step("two transactions at once", Action::Together(vec![increment("first"), increment("second")])),
        step(
            "six transactions at once",
            Action::Together(["a1", "a2", "a3", "a4", "a5", "a6"].map(increment).to_vec()),
        ),
        step(
            "after all of them",
            Action::Execute(vec![query("SELECT n FROM counter"), query("SELECT key FROM setting ORDER BY key")]),
        ),
    ]
}

fn batches() -> Vec<Step> {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let keys = || Action::Execute(vec![query("SELECT key, value FROM setting WHERE key LIKE 'batch%' ORDER BY key")]);
    vec![
        step("a batch", Action::Batch(texts(&[
            "INSERT INTO setting VALUES ('batch 1', 1)",
            "INSERT INTO setting VALUES ('batch 2', 2)",
            "UPDATE setting SET value = 11 WHERE key = 'batch 1'",
        ]))),
        step("after the batch", keys()),
        step("a batch with a step that fails", Action::Batch(texts(&[
            "INSERT INTO setting VALUES ('batch 3', 3)",
            "INSERT INTO setting VALUES ('batch 1', 4)",
            "INSERT INTO setting VALUES ('batch 5', 5)",
        ]))),
        step("after the batch that failed", keys()),
        step("a script", Action::Script("
            -- two statements and a comment
            INSERT INTO setting VALUES ('batch 6; with a semicolon', 6);
            CREATE TRIGGER tidy AFTER DELETE ON setting BEGIN
                INSERT INTO journal(what) VALUES ('gone: ' || old.key);
                SELECT 1;
            END;
            DELETE FROM setting WHERE key = 'batch 2';
        ".to_owned())),
        step("after the script", Action::Execute(vec![
            query("SELECT key FROM setting WHERE key LIKE 'batch%' ORDER BY key"),
            query("SELECT what FROM journal WHERE what LIKE 'gone%'"),
        ])),
        step("a script that fails", Action::Script(
            "INSERT INTO setting VALUES ('script 1', 1); INSERT INTO setting VALUES ('script 1', 2); INSERT INTO setting VALUES ('script 3', 3)".to_owned(),
        )),
        step("after the script that failed", Action::Execute(vec![query("SELECT key FROM setting WHERE key LIKE 'script%'")])),
    ]
}

fn errors() -> Vec<Step> {
    vec![step(
        "errors",
        Action::Execute(vec![
            run("INSERT INTO author(name) VALUES ('Lem')"),
            run("INSERT INTO author(name) VALUES (NULL)"),
            run("INSERT INTO book(author, title) VALUES (1, '')"),
            run("INSERT INTO book(author, title) VALUES (999, 'Nobody''s')"),
            run("INSERT INTO author(id, name) VALUES (1, 'Somebody')"),
            run("INSERT INTO setting VALUES ('a', 'again')"),
            query("selec 1"),
            query("SELECT * FROM nope"),
            query("SELECT nope FROM book"),
            query("SELECT nope(1)"),
            query("SELECT abs(-9223372036854775808)"),
            query("SELECT json_extract('{', '$')"),
            run("INSERT INTO shelf VALUES (1, 2)"),
            run("DROP TABLE nope"),
            run("CREATE TABLE book(a)"),
            query("SELECT 1"),
        ]),
    )]
}
