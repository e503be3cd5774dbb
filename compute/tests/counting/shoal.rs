//! `shoal serve` as a process of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use emulator::Emulator;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;

use crate::client::Client;
use crate::clock::PATIENCE;

/// A running server, killed when this is dropped.
pub struct Shoal {
    child: Child,
    http: String,
    admin: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Shoal {
    /// Starts a server on the emulator's bucket and waits until it serves.
    pub fn start(emulator: &Emulator, cache_dir: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shoal"));
        // Settings of the test itself are not settings of the server, which would refuse them.
        command.env_clear().env("NO_COLOR", "1").envs(emulator.environment());
        command.args(["serve", "--store", &emulator.store_url(), "--cache-dir"]).arg(cache_dir);
        command.args(["--http-listen-addr", "127.0.0.1:0", "--admin-listen-addr", "127.0.0.1:0"]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server's binary runs");
        let log = Arc::new(Mutex::new(Vec::new()));
        let serving = follow(child.stderr.take().expect("piped"), log.clone());
        let mut shoal = Self { child, http: String::new(), admin: String::new(), log };
        let line = serving.recv_timeout(PATIENCE).expect("the server says that it serves");
        let address = |field: &str| Some(line.split_once(field)?.1.split(' ').next()?.to_owned());
        shoal.http = address("http_addr=").expect("where it serves");
        shoal.admin = address("admin_addr=").expect("where it is administered");
        shoal
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn client(&self, database: &str) -> Client {
        Client::new(&self.http, database)
    }

    pub fn create(&self, database: &str) {
        let url = format!("http://{}/v1/namespaces/{database}/create", self.admin);
        let created = ureq::post(&url).send("{}");
        created.unwrap_or_else(|error| panic!("cannot create `{database}`: {error}"));
    }

    pub fn fork(&self, database: &str, to: &str) {
        let url = format!("http://{}/v1/namespaces/{database}/fork/{to}", self.admin);
        let forked = ureq::post(&url).send("{}");
        forked.unwrap_or_else(|error| panic!("cannot fork `{database}`: {error}"));
    }

    /// Asks for something of a database, and expects to get it.
    pub fn ask(&self, database: &str, what: &str, body: &Json) -> Json {
        let url = format!("http://{}/v1/namespaces/{database}/{what}", self.admin);
        let answer = ureq::post(&url).send(body.to_string());
        let mut answer = answer.unwrap_or_else(|error| panic!("`{database}`, {what}, {body}: {error}"));
        let text = answer.body_mut().read_to_string().expect("a body");
        match text.is_empty() {
            true => Json::Null,
            false => serde_json::from_str(&text).unwrap_or_else(|error| panic!("{what}: {error}: {text}")),
        }
    }

    /// Whether its log has a line with this in it.
    pub fn has_said(&self, text: &str) -> bool {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|line| line.contains(text))
    }

    /// Ends it in order: its log is sealed.
    pub fn terminate(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("a child can be signalled");
        let status = self.child.wait().expect("a child can be waited for");
        assert!(status.success(), "the server ended with {status}");
    }
}

impl Drop for Shoal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            log.iter().rev().take(40).rev().for_each(|line| eprintln!("shoal: {line}"));
        }
    }
}

/// Keeps the log, and passes on the line that tells the addresses.
fn follow(stderr: ChildStderr, log: Arc<Mutex<Vec<String>>>) -> mpsc::Receiver<String> {
    let (sender, serving) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if line.contains(" serving ") {
                let _ = sender.send(line.clone());
            }
            log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
    serving
}
