//! Whatever a client sends gets a clear error and harms nothing: every test ends by asking the same process for
//! a correct answer.
//!
//! | file | what |
//! |---|---|
//! | `requests` | bytes that are no request: HTTP, JSON, batons |
//! | `names` | databases that don't exist, and names that can't |
//! | `statements` | SQL that would run for ever, grow without bound, recurse without end |
//! | `temporary` | SQL that wants more of the local disk than it may have |
//! | `files` | SQL that reaches for files, other databases and the server itself |
//! | `leaving` | clients that leave in the middle |

mod files;
mod leaving;
mod names;
mod requests;
mod statements;
mod temporary;
#[path = "../support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// A server that neither answers nor closes is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// A query without an end.
const ENDLESS: &str = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c";

/// Sends bytes over a connection of their own and returns what comes back until the server closes it.
fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).expect("a connection");
    // The server may close it before it has read everything, having seen enough.
    let _ = socket.write_all(bytes);
    answer_on(socket)
}

/// The same with an end of the request where the bytes end.
fn raw_to_the_end(address: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).expect("a connection");
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(Shutdown::Write);
    answer_on(socket)
}

/// What comes until the server closes the connection, which it must.
fn answer_on(mut socket: TcpStream) -> String {
    socket.set_read_timeout(Some(PATIENCE)).expect("a time that isn't zero");
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The bytes of a POST request over HTTP/1.1.
fn post_bytes(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: shoal\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}
