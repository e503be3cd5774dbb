use proptest::prelude::*;

use super::*;

fn statements(text: &str) -> Vec<Statement> {
    let mut splitter = Splitter::default();
    splitter.push(text);
    let mut statements: Vec<_> = std::iter::from_fn(|| splitter.next_statement()).collect();
    statements.extend(splitter.finish());
    statements
}

fn sql(text: &str) -> Vec<String> {
    statements(text).into_iter().map(|statement| statement.sql).collect()
}

#[test]
fn statements_end_at_semicolons() {
    assert_eq!(sql("SELECT 1; SELECT 2;"), ["SELECT 1;", "SELECT 2;"]);
    assert_eq!(sql("SELECT 1;\n\n  SELECT 2"), ["SELECT 1;", "SELECT 2"]);
    assert_eq!(sql(" ;; SELECT 1;;"), ["SELECT 1;"]);
    assert_eq!(sql(""), [""; 0]);
    assert_eq!(sql(" -- nothing\n/* here; */ ; "), [""; 0]);
}

#[test]
fn semicolons_in_strings_names_and_comments_end_nothing() {
    for text in [
        "SELECT ';';",
        "SELECT 'it''s; here';",
        "SELECT \"a;\"\"b;\";",
        "SELECT [a;b];",
        "SELECT `a;``b`;",
        "SELECT 1 -- one; two\n + 1;",
        "SELECT 1 /* one; ** /; two */ + 1;",
        "SELECT 1 - -1 / 2;",
        "SELECT 'multi\nline;\n';",
        "SELECT 1 /***/;",
    ] {
        assert_eq!(sql(text), [text]);
    }
    assert_eq!(sql("SELECT 1-/*;*/1;SELECT 2/-- ;\n1;"), ["SELECT 1-/*;*/1;", "SELECT 2/-- ;\n1;"]);
}

#[test]
fn the_body_of_a_trigger_ends_at_end() {
    for text in [
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN INSERT INTO b VALUES(1); DELETE FROM c; END;",
        "create temp trigger t after insert on a begin select case when 1 then 2 end; end;",
        "CREATE TEMPORARY TRIGGER IF NOT EXISTS t AFTER UPDATE ON a BEGIN SELECT 1; /* ; */ END ;",
        "EXPLAIN CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END;",
        "EXPLAIN QUERY PLAN CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END;",
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE a SET x = CASE WHEN y THEN 1 END; SELECT 1; END;",
        "CREATE TRIGGER [end] AFTER INSERT ON a BEGIN SELECT 'x;'; \"end\"; END;",
    ] {
        let two = format!("{text} SELECT 1;");
        assert_eq!(sql(&two), [text, "SELECT 1;"]);
    }
}

#[test]
fn only_a_trigger_has_a_body() {
    let text = "BEGIN; END; CREATE TABLE trigger_like(x); SELECT CASE 1 WHEN 1 THEN 2 END; COMMIT;";
    assert_eq!(
        sql(text),
        ["BEGIN;", "END;", "CREATE TABLE trigger_like(x);", "SELECT CASE 1 WHEN 1 THEN 2 END;", "COMMIT;"]
    );
    assert_eq!(sql("CREATE TABLE t(trigger);SELECT 1;").len(), 2);
}

#[test]
fn lines_are_those_of_the_first_words() {
    let text = "-- head\n/* two\nlines */ SELECT\n1;\n\n'x\n'; SELECT 3";
    let lines: Vec<_> = statements(text).into_iter().map(|statement| statement.line).collect();
    assert_eq!(lines, [3, 6, 7]);
}

#[test]
fn queries_are_told_from_changes() {
    for (text, is_query) in [
        ("SELECT 1;", true),
        ("with x as (select 1) select * from x;", true),
        ("VALUES(1);", true),
        ("INSERT INTO t SELECT 1;", false),
        ("INSERT INTO t VALUES(1);", false),
        ("INSERT INTO t VALUES(1) RETURNING a;", true),
        ("INSERT INTO t VALUES(' RETURNING ');", false),
        ("PRAGMA foreign_keys=OFF;", false),
        ("CREATE VIEW v AS SELECT 1;", false),
    ] {
        assert_eq!(statements(text)[0].is_query, is_query, "{text}");
    }
    assert!(!statements("SELECT 1; DELETE FROM t;")[1].is_query);
}

#[test]
fn what_is_left_open_is_known() {
    for (text, open) in [
        ("", Open::Nothing),
        ("SELECT 1; -- done", Open::Nothing),
        ("SELECT", Open::Statement),
        ("SELECT 'a", Open::Quote('\'')),
        ("SELECT [a", Open::Quote(']')),
        ("/* a", Open::Comment),
        ("CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1;", Open::Statement),
    ] {
        let mut splitter = Splitter::default();
        splitter.push(text);
        while splitter.next_statement().is_some() {}
        assert_eq!(splitter.open(), open, "{text}");
    }
}

#[test]
fn clearing_forgets_all_but_the_line() {
    let mut splitter = Splitter::default();
    splitter.push("SELECT 'a\n");
    assert_eq!(splitter.next_statement(), None);
    splitter.clear();
    splitter.push("SELECT 1;");
    let statement = splitter.next_statement().expect("complete");
    assert_eq!((statement.sql.as_str(), statement.line), ("SELECT 1;", 2));
}

proptest! {
    /// However the text is cut into pieces, the same statements come out.
    #[test]
    fn pieces_make_no_difference(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "SELECT ", "CREATE ", "TRIGGER ", "TEMP ", "BEGIN ", "END", "RETURNING ", ";", "; ",
                "'", "''", "\"", "[", "]", "`", "-", "--", "/", "/*", "*/", "\n", " ", "é", "x",
            ]),
            0..60,
        ),
        cuts in prop::collection::vec(1_usize..9, 1..20),
    ) {
        let text: String = words.concat();
        let mut splitter = Splitter::default();
        let mut found = Vec::new();
        let mut rest: Vec<char> = text.chars().collect();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let piece: String = rest.drain(..(*cut).min(rest.len())).collect();
            splitter.push(&piece);
            found.extend(std::iter::from_fn(|| splitter.next_statement()));
        }
        found.extend(splitter.finish());
        prop_assert_eq!(found, statements(&text));
    }
}
