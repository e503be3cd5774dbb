//! A database whose every state is known.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::*;

/// A state that was seen: how it is named, and what it shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub lsn: u64,
    /// Right after it was acknowledged, in RFC 3339.
    pub time: String,
    /// What [`shown`] shows of it.
    pub shows: Value,
}

/// Counts of everything, and a sum over the contents.
pub const QUERY: &str = "SELECT count(*), coalesce(sum(x), 0), coalesce(group_concat(y, ','), '') FROM t";

/// What a database shows: its schema and its rows.
#[track_caller]
pub fn shown(database: &Database) -> Value {
    let tables = database.rows("SELECT name FROM sqlite_schema ORDER BY 1");
    let rows = if tables.contains(&json!(["t"])) { database.rows(QUERY) } else { Vec::new() };
    json!({ "tables": tables, "rows": rows })
}

/// Runs a statement that commits, and notes the state that it leaves.
#[track_caller]
pub fn commit(database: &Database, sql: &str) -> Seen {
    let answer = database.post("v3/pipeline", json!({ "requests": [execute(sql)] }).to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["results"][0]["type"], "ok", "{sql}: {answer:?}");
    let lsn = header(&answer, "shoal-lsn").parse().expect("a number");
    let acknowledged = now_micros();
    let seen = Seen { lsn, time: compute::moment::time_text(acknowledged), shows: shown(database) };
    wait_until_after(acknowledged);
    seen
}

/// The database as it was at a moment.
pub fn at(server: &Server, name: &str, moment: impl std::fmt::Display) -> Database {
    Database::at(server.url(&format!("db/{name}@{moment}/")))
}

#[track_caller]
pub fn header(answer: &Answer, name: &str) -> String {
    let value = answer.headers.get(name).unwrap_or_else(|| panic!("no {name} in {answer:?}"));
    value.to_str().expect("text").to_owned()
}

/// The answer of the administration plane to a POST.
pub fn change(server: &Server, path: &str, body: &Value) -> Answer {
    let url = format!("http://{}/v1/namespaces/{path}", server.admin);
    request("POST", &url, &[("content-type", "application/json")], body.to_string().as_bytes()).expect("an answer")
}

/// The same, of a request that must succeed.
#[track_caller]
pub fn changed(server: &Server, path: &str, body: &Value) -> Value {
    let answer = change(server, path, body);
    assert_eq!(answer.status, 200, "{path} {body}: {answer:?}");
    answer.json()
}

/// Makes a fork that ends by itself, and answers when that will have happened.
#[track_caller]
pub fn fork_for_two_seconds(server: &Server, name: &str, to: &str) -> u64 {
    changed(server, &format!("{name}/fork/{to}"), &json!({ "expires": "2s" }));
    now_micros() + 2_000_000
}

/// A history of `commits` commits: rows come, change and go, the schema changes, and some commits are large.
pub fn history(database: &Database, commits: usize) -> Vec<Seen> {
    (0..commits).map(|step| commit(database, &sql_of(step))).collect()
}

/// What the commits of a history are.
pub fn sql_of(step: usize) -> String {
    match step % 7 {
        _ if step == 0 => "CREATE TABLE t (x INTEGER PRIMARY KEY, y TEXT, z BLOB)".into(),
        1 => format!("INSERT INTO t VALUES ({step}, 'row {step}', zeroblob(100))"),
        2 => format!("INSERT INTO t VALUES ({step}, 'large', randomblob(20000))"),
        3 => format!("UPDATE t SET y = 'changed {step}' WHERE x % 2 = 1"),
        4 => format!("CREATE TABLE side_{step} AS SELECT * FROM t"),
        5 => "DELETE FROM t WHERE x = (SELECT min(x) FROM t)".into(),
        6 => format!("DROP TABLE side_{}", step - 2),
        _ => format!("INSERT INTO t SELECT x + 1000 * {step}, y, z FROM t LIMIT 3"),
    }
}

/// The time by this machine's clock, which is the server's too, in microseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "the server's clock is the real one")]
pub fn now_micros() -> u64 {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros();
    u64::try_from(micros).expect("before the year 500,000")
}

/// Returns once the clock shows a later time: what is committed from then on has a later one, too.
#[expect(clippy::disallowed_methods, reason = "the server's clock is the real one")]
pub fn wait_until_after(micros: u64) {
    while let Some(left) = (micros + 1).checked_sub(now_micros()).filter(|left| *left > 0) {
        std::thread::sleep(Duration::from_micros(left));
    }
}

/// A time that is over, and after everything so far.
pub fn wait_for_a_moment() -> u64 {
    let micros = now_micros();
    wait_until_after(micros);
    micros
}
