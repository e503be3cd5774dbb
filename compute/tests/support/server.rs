//! A `shoal` process on free ports, with its data in a temporary directory. It ends with its owner.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::wire::{Answer, Database, get_from, post_to};

/// How long a server may take to answer its first request; a loaded machine is slow.
const START: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);
/// Ports are free when they are picked, but another process may be quicker.
const PORT_TRIES: usize = 10;

pub struct Server {
    child: Child,
    pub http: SocketAddr,
    pub admin: SocketAddr,
    directory: TempDir,
    /// The directory of `shoal serve`'s bucket.
    bucket: PathBuf,
    creates_on_first_use: bool,
    flags: Vec<String>,
}

impl Server {
    /// `shoal dev`: databases are created when they are first used.
    pub fn dev() -> Self {
        Self::start("dev", &[], None)
    }

    /// `shoal serve` with these flags: databases are created by [`Server::database`].
    pub fn serve(flags: &[&str]) -> Self {
        Self::start("serve", flags, None)
    }

    /// Another `shoal serve`, with a cache of its own, on the same bucket.
    pub fn serve_beside(&self, flags: &[&str]) -> Self {
        Self::start("serve", flags, Some(self.bucket.clone()))
    }

    fn start(command: &str, flags: &[&str], bucket: Option<PathBuf>) -> Self {
        for _ in 0..PORT_TRIES {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let bucket = bucket.clone().unwrap_or_else(|| directory.path().join("bucket"));
            let [http, admin] = free_addresses();
            let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
            let child = spawn(command, &flags, http, admin, directory.path(), &bucket);
            let creates_on_first_use = command == "dev";
            let mut server = Self { child, http, admin, directory, bucket, creates_on_first_use, flags };
            if server.wait_until_it_answers() {
                return server;
            }
            let log = server.log();
            assert!(log.contains("cannot listen on"), "shoal {command} did not start:\n{log}");
        }
        panic!("no free ports in {PORT_TRIES} tries");
    }

    /// False if it ended instead.
    #[expect(clippy::disallowed_methods, reason = "waits for another process in real time")]
    fn wait_until_it_answers(&mut self) -> bool {
        let started = std::time::Instant::now();
        while started.elapsed() < START {
            if !self.is_running() {
                return false;
            }
            let health = get_from(&self.url("health"));
            if health.is_ok_and(|answer| answer.status == 200) {
                return true;
            }
            std::thread::sleep(POLL);
        }
        panic!("the server does not answer:\n{}", self.log());
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child that can be waited for").is_none()
    }

    /// Asks the process to end, and waits until it has.
    pub fn terminate(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a child that runs");
        let status = self.child.wait().expect("a child that can be waited for");
        assert!(status.success(), "{status}:\n{}", self.log());
    }

    /// Ends the process, and starts another one with the same data and the same ports.
    pub fn restart(&mut self) {
        self.terminate();
        let command = if self.creates_on_first_use { "dev" } else { "serve" };
        self.child = spawn(command, &self.flags, self.http, self.admin, self.directory.path(), &self.bucket);
        assert!(self.wait_until_it_answers(), "it does not start again:\n{}", self.log());
    }

    /// A database of this server, which exists from then on.
    pub fn database(&self, name: &str) -> Database {
        if !self.creates_on_first_use {
            let answer = self.admin("POST", &format!("v1/namespaces/{name}/create"));
            assert_eq!(answer.status, 200, "{}", answer.text);
        }
        self.unmade_database(name)
    }

    /// A database that may not exist.
    pub fn unmade_database(&self, name: &str) -> Database {
        Database::at(self.url(&format!("db/{name}/")))
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.http)
    }

    /// A request of the administration plane.
    pub fn admin(&self, method: &str, path: &str) -> Answer {
        super::wire::request(method, &format!("http://{}/{path}", self.admin), &[], b"").expect("an answer")
    }

    /// The server is in its right mind: the process of the beginning answers, and counts correctly.
    pub fn assert_well(&mut self) {
        assert!(self.is_running(), "the process ended:\n{}", self.log());
        let health = get_from(&self.url("health")).expect("an answer to /health");
        assert_eq!(health.status, 200);
        let database = self.database_for_health();
        let counted = database.rows("SELECT count(*), sum(column1) FROM (VALUES (1), (2), (3))");
        assert_eq!(counted, [serde_json::json!([3, 6])]);
    }

    fn database_for_health(&self) -> Database {
        if !self.creates_on_first_use {
            let answer = self.admin("POST", "v1/namespaces/health-check/create");
            assert!(answer.status == 200 || answer.text.contains("already exists"), "{}", answer.text);
        }
        self.unmade_database("health-check")
    }

    /// Everything that the process has printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(log_file(self.directory.path())).unwrap_or_default()
    }

    /// The most memory that the process has had, in bytes.
    #[allow(dead_code, reason = "not every program that shares this asks")]
    pub fn peak_memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a process");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// Where the process runs and keeps its data.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server's output:\n{}", self.log());
        }
    }
}

/// Two of them: both are held until both are known, or the second may be the first again.
fn free_addresses() -> [SocketAddr; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("a bound socket has an address"))
}

fn log_file(directory: &Path) -> PathBuf {
    directory.join("output")
}

fn spawn(
    subcommand: &str,
    flags: &[String],
    http: SocketAddr,
    admin: SocketAddr,
    directory: &Path,
    bucket: &Path,
) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal"));
    command.arg(subcommand).args(["--http-listen-addr", &http.to_string(), "--admin-listen-addr", &admin.to_string()]);
    if subcommand == "serve" {
        std::fs::create_dir_all(bucket).expect("a directory for the bucket");
        command
            .args(["--store", &format!("file://{}", bucket.display())])
            .arg("--cache-dir")
            .arg(directory.join("cache"));
    } else {
        command.arg("--data-dir").arg(directory.join("data"));
    }
    command.args(flags);
    // A server refuses SHOAL_* variables that it does not know, such as those that steer these tests.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SHOAL_")) {
        command.env_remove(name);
    }
    let output = output_to(&log_file(directory)).expect("a file for the output");
    let errors = output.try_clone().expect("a second handle of a file");
    let command = command.env("NO_COLOR", "1").env("RUST_BACKTRACE", "0").current_dir(directory);
    command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn().expect("the built binary starts")
}

fn output_to(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}
