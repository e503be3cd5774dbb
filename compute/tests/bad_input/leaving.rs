//! Clients that leave in the middle.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use crate::support::*;
use crate::{ENDLESS, post_bytes};

/// Starts a request and leaves once the server has had it for a moment.
fn ask_and_leave(address: SocketAddr, path: &str, body: &Value, answer_bytes: usize) {
    let mut socket = TcpStream::connect(address).expect("a connection");
    socket.write_all(&post_bytes(path, &body.to_string())).expect("the server reads");
    let mut some = vec![0; answer_bytes];
    socket.read_exact(&mut some).expect("the beginning of an answer");
}

#[test]
fn a_write_without_end_stops_when_its_client_leaves_and_others_get_the_turn() {
    let mut server = Server::serve(&["--statement-timeout", "10m"]);
    let database = server.database("app");
    database.run("CREATE TABLE t(a)");
    let endless =
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) INSERT INTO t SELECT x FROM c WHERE x < 0";
    let body = json!({ "requests": [execute(endless)] });
    for _ in 0..4 {
        ask_and_leave(server.http, "/db/app/v3/pipeline", &body, 0);
    }
    // It would be refused for want of a turn if one of them still ran.
    database.run("INSERT INTO t VALUES (1)");
    assert_eq!(database.rows("SELECT a FROM t"), [json!([1])]);
    server.assert_well();
}

#[test]
fn a_transaction_ends_with_the_client_that_left_in_its_middle() {
    let mut server = Server::serve(&["--statement-timeout", "10m", "--idle-transaction-timeout", "10m"]);
    let database = server.database("app");
    database.run("CREATE TABLE t(a)");
    let body =
        json!({ "requests": [execute("BEGIN IMMEDIATE"), execute("INSERT INTO t VALUES ('lost')"), execute(ENDLESS)] });
    ask_and_leave(server.http, "/db/app/v3/pipeline", &body, 0);
    // The baton of its transaction reached nobody, so nobody can end it but the server.
    database.run("INSERT INTO t VALUES ('kept')");
    assert_eq!(database.rows("SELECT a FROM t"), [json!(["kept"])]);
    server.assert_well();
}

#[test]
fn a_cursor_stops_when_its_client_stops_reading_for_good() {
    let mut server = Server::serve(&["--statement-timeout", "10m"]);
    let database = server.database("app");
    database.run("CREATE TABLE t(a)");
    let rows = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c";
    let body = json!({ "batch": batch(json!([step("BEGIN IMMEDIATE"), step(rows)])) });
    for _ in 0..4 {
        ask_and_leave(server.http, "/db/app/v3/cursor", &body, 10_000);
        database.run("INSERT INTO t VALUES (1)");
    }
    assert_eq!(database.rows("SELECT count(*) FROM t"), [json!([4])]);
    server.assert_well();
}

#[test]
fn many_clients_that_connect_and_say_nothing_do_not_keep_others_out() {
    let mut server = Server::dev();
    let silent: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(server.http).expect("a connection")).collect();
    for mut socket in &silent[..100] {
        socket
            .write_all(b"POST /db/app/v3/pipeline HTTP/1.1\r\nhost: shoal\r\ncontent-length: 10\r\n\r\n{")
            .expect("the server reads");
    }
    assert_eq!(server.database("app").rows("SELECT 1"), [json!([1])]);
    drop(silent);
    server.assert_well();
}
