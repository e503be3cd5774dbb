//! SQL that reaches for files, other databases and the server itself.

use serde_json::json;

use crate::support::*;

/// A file of SQLite's format that no client may read, beside the server's data.
fn secret(server: &Server) -> std::path::PathBuf {
    let path = server.directory().join("secret.db");
    let file = rusqlite::Connection::open(&path).expect("a file of its own");
    file.execute_batch("CREATE TABLE secret(a); INSERT INTO secret VALUES ('not yours')").expect("plain SQL");
    path
}

/// Names under which SQLite would open files with another VFS, if it were let.
fn names_of(path: &str) -> Vec<String> {
    let uri = |query: &str| format!("file:{path}?{query}");
    vec![
        path.to_owned(),
        format!("file:{path}"),
        uri("vfs=unix"),
        uri("vfs=unix-none"),
        uri("vfs=unix&mode=ro"),
        uri("immutable=1&vfs=unix"),
    ]
}

#[test]
fn no_statement_reads_a_file_however_its_name_is_written() {
    let mut server = Server::dev();
    let database = server.database("app");
    let path = secret(&server).display().to_string();
    for name in names_of(&path) {
        let (head, tail) = name.split_at(5);
        let argument = json!([{ "type": "text", "value": name }]);
        let attach = json!([
            execute(&format!("ATTACH '{name}' AS other")),
            execute(&format!("ATTACH ('{head}' || '{tail}') AS other")),
            execute(&format!("ATTACH (SELECT '{name}') AS other")),
            execute(&format!("ATTACH DATABASE \"{name}\" AS other")),
            execute(&format!("ATTACH [{name}] AS other KEY 'x'")),
            execute_with("ATTACH ? AS other", argument),
            sequence(&format!("ATTACH '{name}' AS other")),
            execute("SELECT a FROM other.secret"),
        ]);
        let results = database.pipeline(attach);
        for result in &results[..7] {
            let (code, message) = error_of(result);
            assert_eq!(code, "SQLITE_AUTH", "{name}: {message}");
            assert!(message.contains("ATTACH, DETACH and VACUUM INTO are not available"), "{message}");
        }
        assert_eq!(error_of(&results[7]).1, "SQLite error: no such table: other.secret");
    }
    server.assert_well();
}

#[test]
fn no_statement_writes_a_file_however_its_name_is_written() {
    let mut server = Server::dev();
    let database = server.database("app");
    database.run("CREATE TABLE t(a)");
    let path = server.directory().join("stolen.db");
    for name in names_of(&path.display().to_string()) {
        let (head, tail) = name.split_at(5);
        let results = database.pipeline(json!([
            execute(&format!("VACUUM INTO '{name}'")),
            execute(&format!("/* */ VACUUM main INTO ('{head}' || '{tail}')")),
            execute_with("VACUUM INTO ?", json!([{ "type": "text", "value": name }])),
            sequence(&format!("-- x\nVACUUM INTO '{name}'")),
        ]));
        for result in &results {
            assert!(["SQLITE_AUTH", "SQLITE_CANTOPEN"].contains(&error_of(result).0.as_str()), "{name}: {result}");
        }
        assert!(!path.exists(), "{name}");
    }
    for name in [":memory:", "file::memory:?vfs=memdb", "file:/shared?vfs=memdb", "relative.db"] {
        let results = database
            .pipeline(json!([execute(&format!("VACUUM INTO '{name}'")), execute(&format!("ATTACH '{name}' AS x"))]));
        assert_eq!(
            (error_of(&results[0]).0, error_of(&results[1]).0),
            ("SQLITE_AUTH".into(), "SQLITE_AUTH".into()),
            "{name}"
        );
    }
    assert!(!server.directory().join("relative.db").exists());
    assert_eq!(database.rows("SELECT name FROM pragma_database_list"), [json!(["main"])]);
    server.assert_well();
}

#[test]
fn extensions_and_functions_that_touch_the_machine_are_not_there() {
    let mut server = Server::dev();
    let database = server.database("app");
    for call in [
        "load_extension('/tmp/x.so')",
        "load_extension('/tmp/x.so', 'init')",
        "fts3_tokenizer('simple')",
        "readfile('/etc/passwd')",
        "writefile('/tmp/x', 'x')",
        "edit('x')",
        "fsdir('/')",
    ] {
        let (code, message) = database.fails(&format!("SELECT {call}"));
        assert_eq!(code, "SQL_INPUT_ERROR", "{call}: {message}");
        assert!(
            message.contains("not authorized to use function") || message.contains("no such function"),
            "{message}"
        );
    }
    for module in
        ["csv(filename='/etc/passwd')", "fileio", "sqlite_dbpage", "zipfile('/x')", "unionvtab('x')", "swarmvtab('x')"]
    {
        let (_, message) = database.fails(&format!("CREATE VIRTUAL TABLE v USING {module}"));
        assert!(message.contains("no such module"), "{module}: {message}");
    }
    server.assert_well();
}

#[test]
fn the_schema_cannot_be_written_behind_its_back() {
    let mut server = Server::dev();
    let database = server.database("app");
    database.run("CREATE TABLE t(a)");
    for pragma in [
        "writable_schema = ON",
        "main.writable_schema = 1",
        "\"WRITABLE_SCHEMA\" = on",
        "writable_schema(1)",
        "writable_schema = RESET",
    ] {
        let (code, message) = database.fails(&format!("PRAGMA {pragma}"));
        assert_eq!(code, "SQLITE_AUTH", "{pragma}: {message}");
    }
    for sql in [
        "UPDATE sqlite_schema SET sql = 'x'",
        "DELETE FROM sqlite_master",
        "INSERT INTO sqlite_schema VALUES (1, 2, 3, 4, 5)",
    ] {
        let (_, message) = database.fails(sql);
        assert!(message.contains("may not be modified"), "{sql}: {message}");
    }
    database.run("CREATE VIRTUAL TABLE ft USING fts5(a)");
    assert!(database.fails("DELETE FROM ft_data").1.contains("may not be modified"), "a shadow table");
    database.pipeline(json!([execute("PRAGMA schema_version = 77"), close()]));
    assert_eq!(database.rows("SELECT name FROM sqlite_schema WHERE name = 't'"), [json!(["t"])]);
    assert_eq!(database.rows("PRAGMA integrity_check"), [json!(["ok"])]);
    server.assert_well();
}

#[test]
fn pragmas_that_reach_beyond_the_connection_are_refused_with_a_reason() {
    let mut server = Server::dev();
    let database = server.database("app");
    for pragma in [
        "hard_heap_limit = 1",
        "soft_heap_limit = 1",
        "threads = 8",
        "trusted_schema = ON",
        "temp_store_directory = '/'",
        "data_store_directory = '/'",
        "lock_proxy_file = '/x'",
    ] {
        let (code, message) = database.fails(&format!("PRAGMA {pragma}"));
        assert_eq!(code, "SQLITE_AUTH", "{pragma}");
        assert!(message.contains("this pragma"), "{message}");
    }
    // Nor through their functions.
    for function in ["pragma_hard_heap_limit(1)", "pragma_soft_heap_limit(1)", "pragma_threads(8)"] {
        database.pipeline(json!([execute(&format!("SELECT * FROM {function}")), close()]));
    }
    let limits = "PRAGMA hard_heap_limit";
    assert_eq!(database.rows(limits), [json!([0])]);
    server.assert_well();
}

#[test]
fn nothing_tells_where_the_server_keeps_its_files() {
    let server = Server::dev();
    let database = server.database("app");
    let directory = server.directory().display().to_string();
    for sql in [
        "PRAGMA database_list",
        "SELECT * FROM pragma_compile_options",
        "PRAGMA temp_store_directory",
        "SELECT * FROM pragma_module_list",
    ] {
        let rows = json!(database.rows(sql)).to_string();
        assert!(!rows.contains(&directory), "{sql}: {rows}");
    }
}
