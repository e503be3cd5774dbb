//! What makes SQLite recurse: one case for each recursion that a client can drive.

/// One way to nest.
pub struct Case {
    pub name: &'static str,
    /// Run once before.
    pub schema: String,
    /// The statement that nests so deep.
    pub statement: Box<dyn Fn(usize) -> String>,
    /// What ordinary applications may need has to work.
    pub deepest_min: usize,
}

fn case(name: &'static str, deepest_min: usize, statement: impl Fn(usize) -> String + 'static) -> Case {
    Case { name, schema: "SELECT 1".into(), statement: Box::new(statement), deepest_min }
}

fn nest(begin: &str, before: &str, inside: &str, after: &str, depth: usize) -> String {
    format!("{begin}{}{inside}{}", before.repeat(depth), after.repeat(depth))
}

/// `count` texts, joined.
fn list(count: usize, separator: &str, text: impl Fn(usize) -> String) -> String {
    (0..count).map(text).collect::<Vec<_>>().join(separator)
}

/// Tables for chains: as many as there are limits to reach.
const CHAIN: usize = 1_300;

pub fn all() -> Vec<Case> {
    let mut cases = expressions();
    cases.extend(queries());
    cases.extend(schemas());
    cases.extend(triggers());
    cases.extend(extensions());
    cases
}

fn expressions() -> Vec<Case> {
    vec![
        case("1+1+…", 100, |depth| format!("SELECT {}", vec!["x"; depth + 1].join("+")).replace('x', "abs(1)")),
        case("(1+(1+…", 100, |depth| nest("SELECT ", "(1+", "abs(1)", ")", depth)),
        case("NOT NOT …", 100, |depth| nest("SELECT ", "NOT ", "abs(1)", "", depth)),
        case("abs(abs(…", 100, |depth| nest("SELECT ", "abs(", "1", ")", depth)),
        case("max(1, max(…", 100, |depth| nest("SELECT ", "max(1, ", "abs(1)", ")", depth)),
        case("CASE WHEN … THEN CASE", 100, |depth| nest("SELECT ", "CASE WHEN abs(1) THEN ", "1", " ELSE 2 END", depth)),
        case("x IN (x IN (…", 100, |depth| nest("SELECT ", "1 IN (2, ", "abs(1)", ")", depth)),
        case("AND in WHERE", 100, |depth| format!("SELECT 1 FROM sqlite_schema WHERE {}", list(depth + 1, " AND ", |at| format!("rowid<>{at}")))),
        case("OR of ANDs in WHERE", 50, |depth| nest("SELECT 1 FROM sqlite_schema WHERE ", "(rowid=1 OR (rowid<9 AND ", "rowid=2", "))", depth)),
        case("LIKE '%a%a…'", 500, |depth| format!("SELECT '{}' LIKE '{}'", "a".repeat(depth), "%a".repeat(depth))),
        case("GLOB '*a*a…'", 500, |depth| format!("SELECT '{}' GLOB '{}'", "a".repeat(depth), "*a".repeat(depth))),
    ]
}

fn queries() -> Vec<Case> {
    vec![
        case("(SELECT (SELECT …", 20, |depth| nest("SELECT ", "(SELECT ", "abs(1)", ")", depth)),
        case("FROM (SELECT … LIMIT)", 50, |depth| {
            nest("SELECT * FROM ", "(SELECT DISTINCT * FROM ", "(SELECT abs(1) AS x)", " LIMIT 9)", depth)
        }),
        case("FROM (SELECT … GROUP BY)", 50, |depth| {
            nest("SELECT * FROM ", "(SELECT max(x) AS x FROM ", "(SELECT abs(1) AS x)", " GROUP BY x)", depth)
        }),
        case("FROM (SELECT … window)", 50, |depth| {
            nest("SELECT * FROM ", "(SELECT sum(x) OVER (ORDER BY x) AS x FROM ", "(SELECT abs(1) AS x)", ")", depth)
        }),
        case("WHERE EXISTS (SELECT …", 20, |depth| {
            nest("SELECT 1", " WHERE EXISTS (SELECT 1 FROM sqlite_schema", "", ")", depth)
        }),
        case("x IN (SELECT … IN (SELECT", 20, |depth| nest("SELECT 1", " WHERE 1 IN (SELECT abs(1)", "", ")", depth)),
        case("correlated subqueries", 10, |depth| {
            let open = list(depth, "", |at| format!("(SELECT max(s{at}.rowid + 1) FROM sqlite_schema s{at} WHERE s{at}.rowid >= "));
            format!("SELECT {open}0{}", ")".repeat(depth))
        }),
        case("WITH c1 AS (… c0)", 50, |depth| {
            let ctes = list(depth, "", |at| format!(", c{}(x) AS (SELECT DISTINCT x FROM c{at} LIMIT 9)", at + 1));
            format!("WITH c0(x) AS (SELECT abs(1)){ctes} SELECT * FROM c{depth}")
        }),
        case("WITH (WITH (…", 20, |depth| nest("", "WITH c AS (", "SELECT 1", ") SELECT * FROM c", depth)),
        case("UNION ALL", 100, |depth| format!("SELECT abs(1){}", " UNION ALL SELECT abs(1)".repeat(depth))),
        case("UNION, EXCEPT, ORDER BY", 100, |depth| {
            format!("SELECT abs(1) AS x{} ORDER BY x", " UNION SELECT abs(1) EXCEPT SELECT 2".repeat(depth))
        }),
        case("(UNION inside of UNION …", 20, |depth| {
            nest("SELECT 1", " UNION SELECT * FROM (SELECT abs(2)", "", ")", depth)
        }),
        case("joins nested in parentheses", 20, |depth| nest("SELECT count(*) FROM ", "(", "sqlite_schema", " JOIN (SELECT 1))", depth)),
        case("VALUES of many rows", 500, |depth| format!("VALUES {}", list(depth + 1, ",", |at| format!("({at}, abs({at}))")))),
        case("INSERT … VALUES of many rows", 500, |depth| {
            format!("CREATE TEMP TABLE IF NOT EXISTS many(a); INSERT INTO many VALUES {}", list(depth + 1, ",", |at| format!("({at})")))
        }),
        case("window functions side by side", 50, |depth| {
            let windows = list(depth + 1, ", ", |at| format!("sum(rowid + {at}) OVER (PARTITION BY rowid % {} ORDER BY rowid)", at + 2));
            format!("SELECT {windows} FROM sqlite_schema")
        }),
    ]
}

fn schemas() -> Vec<Case> {
    let views = list(CHAIN, ";", |at| format!("CREATE VIEW IF NOT EXISTS v{} AS SELECT DISTINCT x FROM v{at} LIMIT 9", at + 1));
    let columns = list(399, ", ", |at| format!("g{} AS (g{at} + 1)", at + 1));
    // Both limits together bound the deepest recursion that there is. A quarter of it is measured: SQLite refuses to
    // create more at once, for want of memory.
    let deep_columns = list(100, ", ", |at| format!("g{} AS ({}g{at})", at + 1, "~".repeat(290)));
    vec![
        // Before there are views without number, which ALTER TABLE reads all.
        Case {
            schema: "CREATE TABLE renamed(x)".into(),
            ..case("ALTER TABLE over deep views", 50, |depth| {
                let deep = nest("SELECT ", "abs(", "x", ")", depth);
                format!(
                    "DROP VIEW IF EXISTS over; CREATE VIEW over AS {deep} FROM renamed; \
                     ALTER TABLE renamed RENAME COLUMN x TO y; ALTER TABLE renamed RENAME COLUMN y TO x; DROP VIEW over"
                )
            })
        },
        Case {
            schema: format!("BEGIN; CREATE VIEW v0 AS SELECT abs(1) AS x; {views}; COMMIT"),
            ..case("views of views", 50, |depth| format!("SELECT * FROM v{}", depth.min(CHAIN)))
        },
        Case {
            schema: format!("CREATE TABLE generated(g0, {columns})"),
            ..case("generated columns of each other", 50, |depth| format!("SELECT g{} FROM generated", depth.min(399)))
        },
        Case {
            schema: format!("CREATE TABLE deep_generated(g0, {deep_columns})"),
            ..case("deep generated columns of each other", 50, |depth| {
                format!("SELECT g{} FROM deep_generated", depth.min(100))
            })
        },
        case("CHECK and DEFAULT expressions", 100, |depth| {
            let deep = nest("", "(1+", "1", ")", depth);
            format!("DROP TABLE IF EXISTS checked; CREATE TABLE checked(a DEFAULT ({deep}), CHECK (a < {deep})); DROP TABLE checked")
        }),
        case("an index on an expression", 100, |depth| {
            let deep = nest("", "abs(", "x", ")", depth);
            format!("DROP TABLE IF EXISTS indexed; CREATE TABLE indexed(x); CREATE INDEX deep ON indexed({deep}); INSERT INTO indexed VALUES (1)")
        }),
    ]
}

fn triggers() -> Vec<Case> {
    let tables = list(CHAIN + 1, ";", |at| format!("CREATE TABLE IF NOT EXISTS t{at}(a)"));
    let each = list(CHAIN, ";", |at| {
        let next = at + 1;
        format!("CREATE TRIGGER r{at} AFTER INSERT ON t{at} BEGIN INSERT INTO t{next} SELECT new.a - 1 WHERE new.a > 0; END")
    });
    let cascades = list(CHAIN, ";", |at| {
        format!("CREATE TABLE f{}(id INTEGER PRIMARY KEY, up REFERENCES f{at} ON DELETE CASCADE)", at + 1)
    });
    vec![
        Case {
            schema: "CREATE TABLE again(a); CREATE TRIGGER again AFTER INSERT ON again WHEN new.a > 1 \
                     BEGIN INSERT INTO again VALUES (new.a - 1); END; PRAGMA recursive_triggers = ON"
                .into(),
            ..case("a trigger that calls itself", 500, |depth| format!("INSERT INTO again VALUES ({depth})"))
        },
        Case {
            schema: format!("BEGIN; {tables}; {each}; COMMIT"),
            // Which tables are in the chain is known when it is compiled, so the depth is where it begins.
            ..case("triggers that call each other", 20, |depth| {
                format!("INSERT INTO t{} VALUES (1)", CHAIN - depth.min(CHAIN))
            })
        },
        Case {
            schema: "CREATE TABLE tree(id INTEGER PRIMARY KEY, up REFERENCES tree ON DELETE CASCADE); CREATE INDEX up ON tree(up)".into(),
            ..case("ON DELETE CASCADE in a tree", 500, |depth| {
                format!(
                    "DELETE FROM tree WHERE NOT EXISTS (SELECT 1); PRAGMA foreign_keys = OFF; DELETE FROM tree; PRAGMA foreign_keys = ON; \
                     WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {depth}) \
                     INSERT INTO tree SELECT x, nullif(x - 1, 0) FROM n; DELETE FROM tree WHERE id = 1"
                )
            })
        },
        Case {
            schema: format!("BEGIN; CREATE TABLE f0(id INTEGER PRIMARY KEY); {cascades}; COMMIT"),
            ..case("ON DELETE CASCADE over tables", 20, |depth| format!("DELETE FROM f{}", CHAIN - depth.min(CHAIN)))
        },
    ]
}

fn extensions() -> Vec<Case> {
    let functions = ["json", "json_pretty", "jsonb", "json_valid"].map(|function| {
        let name: &'static str = match function {
            "json" => "json of arrays",
            "json_pretty" => "json_pretty of arrays",
            "jsonb" => "jsonb of arrays",
            _ => "json_valid of arrays",
        };
        case(name, 500, move |depth| nest(&format!("SELECT {function}('"), "[", "1", "]", depth) + "')")
    });
    let mut cases = Vec::from(functions);
    cases.extend([
        case("json of objects", 500, |depth| nest("SELECT json('", "{\"a\":", "1", "}", depth) + "')"),
        case("json_set of a path", 500, |depth| format!("SELECT json_set('{{}}', '${}', 1)", ".a".repeat(depth))),
        case("json_patch of objects", 500, |depth| {
            let deep = nest("", "{\"a\":", "1", "}", depth);
            format!("SELECT json_patch('{deep}', '{deep}')")
        }),
        case("json_tree of arrays", 500, |depth| nest("SELECT count(*) FROM json_tree('", "[", "1", "]", depth) + "')"),
        Case {
            schema: "CREATE VIRTUAL TABLE ft USING fts5(a); INSERT INTO ft VALUES ('x y z')".into(),
            ..case("FTS5 parentheses", 10, |depth| nest("SELECT * FROM ft WHERE ft MATCH '", "(x AND ", "y", ")", depth) + "'")
        },
        case("FTS5 NOT chains", 50, |depth| format!("SELECT * FROM ft WHERE ft MATCH '{}x'", "x NOT ".repeat(depth))),
        case("FTS5 AND chains", 50, |depth| format!("SELECT * FROM ft WHERE ft MATCH '{}x'", "x AND ".repeat(depth))),
        case("FTS5 phrases", 50, |depth| format!("SELECT * FROM ft WHERE ft MATCH '\"{}\"'", "x ".repeat(depth + 1))),
        Case {
            schema: "CREATE VIRTUAL TABLE four USING fts4(a); INSERT INTO four VALUES ('x y z')".into(),
            ..case("FTS4 parentheses", 5, |depth| nest("SELECT * FROM four WHERE four MATCH '", "(x OR ", "y", ")", depth) + "'")
        },
        case("FTS4 OR chains", 5, |depth| format!("SELECT * FROM four WHERE four MATCH '{}x'", "x OR ".repeat(depth))),
        case("printf of a wide number", 50, |depth| format!("SELECT length(printf('%0{depth}d', 1))")),
    ]);
    cases
}
