//! `shoal db …` as a process, and the requests behind it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{Answer, Server, request};

/// Runs `shoal db` against a server.
pub fn db(server: &Server, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SHOAL_")) {
        command.env_remove(name);
    }
    let admin = format!("http://{}", server.admin);
    command.args(["db", "--output", "json", "--admin-url", &admin]).args(arguments);
    command.output().expect("the built binary starts")
}

/// The same; it must work.
#[track_caller]
pub fn db_ok(server: &Server, arguments: &[&str]) -> Value {
    let output = db(server, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "shoal db {arguments:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|wrong| panic!("{wrong} in {:?}", output.stdout))
}

/// The same; it must fail, with a message that has all `phrases`.
#[track_caller]
pub fn db_fails(server: &Server, arguments: &[&str], phrases: &[&str]) {
    let output = db(server, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "shoal db {arguments:?} did it: {:?}", output.stdout);
    for phrase in phrases {
        assert!(error.contains(phrase), "`{phrase}` is not in: {error}");
    }
}

pub fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// The requests of an upload, as anybody can send them.
pub struct Upload<'s> {
    server: &'s Server,
    name: &'s str,
    bytes: &'s [u8],
}

impl<'s> Upload<'s> {
    pub fn new(server: &'s Server, name: &'s str, bytes: &'s [u8]) -> Self {
        Self { server, name, bytes }
    }

    fn ask(&self, method: &str, path: &str, more: &str, body: &[u8]) -> Answer {
        let (hash, bytes) = (blake3::hash(self.bytes).to_hex(), self.bytes.len());
        let place = format!("http://{}/v1/namespaces/{}/import{path}", self.server.admin, self.name);
        request(method, &format!("{place}?bytes={bytes}&blake3={hash}{more}"), &[], body).expect("an answer")
    }

    pub fn begin(&self) -> Answer {
        self.ask("POST", "", "", b"")
    }

    pub fn part(&self, offset: usize, part: &[u8]) -> Answer {
        self.ask("PUT", "", &format!("&offset={offset}"), part)
    }

    /// Begins to send a part, and goes away in the middle of it. Returns when the server is done with that.
    pub fn cut_off(&self, offset: usize, part: &[u8]) {
        let (hash, bytes) = (blake3::hash(self.bytes).to_hex(), self.bytes.len());
        let mut connection = TcpStream::connect(self.server.admin).expect("a connection");
        let head = format!(
            "PUT /v1/namespaces/{}/import?bytes={bytes}&blake3={hash}&offset={offset} HTTP/1.1\r\n\
             host: localhost\r\ncontent-length: {}\r\n\r\n",
            self.name,
            part.len()
        );
        connection.write_all(head.as_bytes()).expect("a head");
        connection.write_all(&part[..part.len() / 2]).expect("half of it");
        connection.shutdown(Shutdown::Write).expect("an end");
        // It answers that this was too little, or closes the connection.
        let _ = connection.read_to_end(&mut Vec::new());
    }

    /// Asks until it has ended.
    pub fn finish(&self) -> Answer {
        loop {
            let answer = self.ask("POST", "/finish", "", b"");
            if answer.status != 202 {
                return answer;
            }
        }
    }

    /// All of it; the answer that ends it.
    pub fn send(&self) -> Answer {
        let begun = self.begin();
        if begun.status != 200 {
            return begun;
        }
        let sent = self.part(0, self.bytes);
        if sent.status == 200 { self.finish() } else { sent }
    }
}
