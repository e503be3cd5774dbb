//! The `shoal` binary as a process: started, asked, terminated, killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};
use ureq::Agent;
use ureq::http::Response;

use crate::bucket::Bucket;
use crate::clock;
use crate::hrana::Database;
use crate::limits::{END, REQUEST, START};
use crate::log::ProcessLog;

/// A `shoal serve` or `shoal pageserver` to be started.
pub struct Shoal {
    command: Command,
}

/// One that runs, killed when this is dropped.
pub struct ShoalProcess {
    child: Child,
    addresses: Addresses,
    pub log: ProcessLog,
}

/// Where a process answers: addresses and ports.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// Applications.
    pub http: String,
    /// Operators. A page server has nothing for them.
    pub admin: String,
}

/// A process that ended by itself.
pub struct Ended {
    pub status: ExitStatus,
    /// All that it wrote to standard error.
    pub stderr: String,
}

/// The binary beside the test's own executable: `target/release/shoal` for `target/release/deps/kill9-…`.
///
/// # Panics
/// If it is not there: cargo builds the binaries of a package only for that package's own tests.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let directory = test.parent().and_then(Path::parent).expect("target/<profile>/deps");
    let binary = directory.join("shoal");
    assert!(binary.is_file(), "{} is missing: run `cargo build --release` before these tests", binary.display());
    binary
}

/// `shoal` with an environment that holds none of the test's own settings, which it would refuse.
pub fn command() -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        let is_setting = name.to_str().is_some_and(|name| name.starts_with("SHOAL_") || name.starts_with("AWS_"));
        if is_setting {
            command.env_remove(name);
        }
    }
    // Plain lines, of which a test can wait for one and show the last.
    command.env("NO_COLOR", "1").env_remove("RUST_BACKTRACE");
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

impl Shoal {
    /// Serves from `bucket`, with its credentials.
    pub fn on(bucket: &Bucket, cache_dir: &Path) -> Self {
        Self::on_way(bucket, 0, cache_dir)
    }

    /// The same as the `number`-th process, if processes have different ways to the bucket.
    pub fn on_way(bucket: &Bucket, number: usize, cache_dir: &Path) -> Self {
        Self::at(&bucket.store_url_through(number), cache_dir).with_credentials(bucket)
    }

    /// Serves from the store of this URL, without credentials.
    pub fn at(store_url: &str, cache_dir: &Path) -> Self {
        let mut command = command();
        command.args(["serve", "--store", store_url, "--cache-dir"]).arg(cache_dir);
        command.args(["--http-listen-addr", "127.0.0.1:0", "--admin-listen-addr", "127.0.0.1:0"]);
        Self { command }.logging()
    }

    /// A page server on `bucket`, which is all that it has.
    pub fn page_server(bucket: &Bucket) -> Self {
        let mut command = command();
        command.args(["pageserver", "--store", &bucket.store_url(), "--listen-addr", "127.0.0.1:0"]);
        Self { command }.logging().with_credentials(bucket)
    }

    fn logging(mut self) -> Self {
        self.command.args(["--log", "info,walstore=info,segments=debug,pageserver=debug,compute=debug"]);
        self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        self
    }

    fn with_credentials(mut self, bucket: &Bucket) -> Self {
        if let Some((access, secret)) = bucket.credentials() {
            self.command.env("AWS_ACCESS_KEY_ID", access).env("AWS_SECRET_ACCESS_KEY", secret);
        }
        self
    }

    /// Has another program start it in its own place, such as one that takes a right from it first.
    pub fn by(self, program: &[&str]) -> Self {
        let Self { command: shoal } = self;
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(shoal.get_program()).args(shoal.get_args());
        for (name, value) in shoal.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Self { command }
    }

    /// Adds arguments.
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    fn spawn(mut self) -> (Child, ProcessLog) {
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("cannot run {:?}: {error}", self.command));
        let stderr = child.stderr.take().expect("piped");
        (child, ProcessLog::follow("shoal", stderr))
    }

    /// Starts it and waits until it serves.
    ///
    /// # Panics
    /// If it does not.
    pub fn start(self) -> ShoalProcess {
        let (child, log) = self.spawn();
        let mut process = ShoalProcess { child, addresses: Addresses::default(), log };
        // It was told to take free ports, and its log says which it took.
        let line = process.log.wait_for(0, START, |line| line.contains(" serving ") || line.starts_with("shoal: "));
        let address = |name: &str| Some(line.as_ref()?.split_once(name)?.1.split(' ').next()?.to_owned());
        let http = address("http_addr=").unwrap_or_else(|| panic!("shoal does not serve: {line:?}"));
        let admin = address("admin_addr=").unwrap_or_default();
        let health = format!("http://{http}/health");
        process.addresses = Addresses { http, admin };
        let answered = clock::poll(START, || ureq::get(&health).call().ok());
        assert!(answered.is_some(), "shoal does not answer {health}");
        process
    }

    /// Starts it, where it must end by itself.
    ///
    /// # Panics
    /// If it goes on running.
    pub fn start_and_end(self) -> Ended {
        let (mut child, mut log) = self.spawn();
        let status = clock::poll(END, || child.try_wait().expect("its status"));
        if status.is_none() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a child can be waited for");
        }
        log.finish();
        let status = status.unwrap_or_else(|| panic!("shoal goes on running for {END:?}"));
        Ended { status, stderr: log.lines().join("\n") }
    }
}

impl ShoalProcess {
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Where it answers applications: address and port.
    pub fn http(&self) -> &str {
        &self.addresses.http
    }

    /// A database of this server.
    pub fn database(&self, name: &str) -> Database {
        self.addresses.database(name)
    }

    /// What a listing of all databases says.
    ///
    /// # Errors
    /// If it is refused.
    pub fn listing(&self) -> Result<String, ureq::Error> {
        ureq::get(format!("http://{}/v1/namespaces", self.addresses.admin)).call()?.body_mut().read_to_string()
    }

    /// Creates a database.
    ///
    /// # Panics
    /// If it cannot be.
    pub fn create_database(&self, name: &str) {
        let created = self.addresses.change(&format!("{name}/create"), &json!({}));
        created.unwrap_or_else(|error| panic!("cannot create the database `{name}`: {error}"));
    }

    /// Kills it with SIGKILL, and keeps its log.
    pub fn kill9(mut self) -> Vec<String> {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
        self.log.finish();
        self.log.lines()
    }

    /// Sends SIGTERM.
    pub fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends SIGSTOP: from now on it does nothing at all, and what is sent to it waits.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Sends SIGCONT: it goes on where it was, as if no time had passed.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child can be signalled");
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("its status").is_some()
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// If it goes on running.
    pub fn wait(mut self) -> Ended {
        let status = clock::poll(END, || self.child.try_wait().expect("its status"));
        let status = status.unwrap_or_else(|| panic!("shoal goes on running for {END:?}"));
        self.log.finish();
        Ended { status, stderr: self.log.lines().join("\n") }
    }

    /// Asks it to end with SIGTERM, and waits until it has.
    ///
    /// # Panics
    /// If it does not end, or not with success.
    pub fn terminate(self) -> Vec<String> {
        self.ask_to_end();
        let Ended { status, stderr } = self.wait();
        assert!(status.success(), "shoal ended with {status} after SIGTERM:\n{stderr}");
        stderr.lines().map(str::to_owned).collect()
    }
}

impl Addresses {
    /// A database, or a moment of it (`app@12`).
    pub fn database(&self, name: &str) -> Database {
        Database::at(format!("http://{}/db/{name}/", self.http))
    }

    /// Asks the operators' API for a change of a database: `<name>/fork/<new name>`.
    ///
    /// # Errors
    /// What it says, or that it says nothing.
    pub fn change(&self, path: &str, body: &Json) -> Result<(), String> {
        answered(self.agent().post(self.namespace_url(path)).send(body.to_string()))
    }

    /// Has a database folded and given up.
    ///
    /// # Errors
    /// As of [`change`](Self::change).
    pub fn release(&self, name: &str) -> Result<(), String> {
        self.change(&format!("{name}/release"), &json!({}))
    }

    /// Deletes a database.
    ///
    /// # Errors
    /// As of [`change`](Self::change).
    pub fn delete(&self, name: &str) -> Result<(), String> {
        answered(self.agent().delete(self.namespace_url(name)).call())
    }

    fn agent(&self) -> Agent {
        let config = Agent::config_builder().http_status_as_error(false).proxy(None).timeout_global(Some(REQUEST));
        config.build().new_agent()
    }

    fn namespace_url(&self, path: &str) -> String {
        format!("http://{}/v1/namespaces/{path}", self.admin)
    }
}

fn answered(answer: Result<Response<ureq::Body>, ureq::Error>) -> Result<(), String> {
    let answer = answer.map_err(|error| error.to_string())?;
    let status = answer.status();
    let body = answer.into_body().read_to_string().map_err(|error| error.to_string())?;
    if status.is_success() { Ok(()) } else { Err(format!("HTTP {status}: {body}")) }
}

impl Drop for ShoalProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.log.finish();
    }
}
