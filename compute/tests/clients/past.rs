//! The unmodified client reads a table as it was before it was dropped, by URL alone, and finds it again once it was
//! restored, under the URL that it has always had.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::language::{Language, source};
use crate::support::Server;
use crate::{clients_directory, is_installed};

struct Client<'s> {
    server: &'s Server,
}

impl Client<'_> {
    /// What one statement comes to at `/db/<name>/`.
    fn at(&self, name: &str, sql: &str) -> Value {
        let folder = clients_directory().join(Language::JavaScript.folder());
        let mut command = Command::new("node");
        command.arg(source("query.mjs")).arg(folder).arg(self.server.url(&format!("db/{name}/"))).arg(sql);
        let output = command.stdin(Stdio::null()).output().expect("node starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}\n{errors}", output.status);
        serde_json::from_slice(&output.stdout).expect("a line of JSON")
    }
}

/// Runs `shoal db …`, which must succeed.
fn shoal(server: &Server, words: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal"));
    command.args(["db", "--admin-url", &format!("http://{}", server.admin)]).args(words);
    let output = command.stdin(Stdio::null()).output().expect("the built binary starts");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn javascript_reads_a_dropped_table_by_url_alone_and_finds_it_restored() {
    if !is_installed(Language::JavaScript) {
        return;
    }
    let server = Server::dev();
    let client = Client { server: &server };
    let database = server.database("app");
    database.run("CREATE TABLE notes (text)");
    database.run("INSERT INTO notes VALUES ('one'), ('two')");
    let answer = database.post("v3/pipeline", json!({ "requests": [] }).to_string());
    let lsn = answer.headers["shoal-lsn"].to_str().expect("text").to_owned();
    let time = time_now();
    client.at("app", "DROP TABLE notes");

    let query = "SELECT text FROM notes ORDER BY 1";
    let rows = json!({ "rows": [["one"], ["two"]] });
    let gone = |found: &Value| found["error"].as_str().is_some_and(|error| error.contains("no such table: notes"));
    assert!(gone(&client.at("app", query)));
    assert_eq!(client.at(&format!("app@{lsn}"), query), rows, "by LSN");
    assert_eq!(client.at(&format!("app@{time}"), query), rows, "by time");
    assert_eq!(client.at(&format!("app@{}", time.replace(':', "%3A")), query), rows, "by encoded time");
    let refused = client.at(&format!("app@{lsn}"), "DELETE FROM notes");
    assert_eq!(refused["code"], "SQLITE_READONLY", "{refused}");

    shoal(&server, &["restore", "app", "--lsn", &lsn, "--yes"]);
    assert_eq!(client.at("app", query), rows, "restored");
    shoal(&server, &["undo", "app"]);
    assert!(gone(&client.at("app", query)), "undone");
}

#[expect(clippy::disallowed_methods, reason = "the server's clock is the real one")]
fn time_now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    // Between the last write and what comes next.
    std::thread::sleep(std::time::Duration::from_millis(5));
    compute::moment::time_text(u64::try_from(since.as_micros()).expect("before the year 500,000"))
}
