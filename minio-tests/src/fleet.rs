//! Several `shoal` processes on one bucket, and where their clients find them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use crate::bucket::Bucket;
use crate::clock;
use crate::hrana::Database;
use crate::limits::RECOVERY;
use crate::shoal::{Ended, Shoal, ShoalProcess};

/// Of a [pair](Fleet::pair): short, so that a test need not wait long for a takeover.
pub const LEASE: Duration = Duration::from_millis(900);

/// What a process logs last when another has taken it for dead.
const FENCED: &str = "this node was fenced";

/// The addresses of the processes that run, by number. Clients look here while processes come and go.
pub struct Nodes(Vec<Mutex<Option<String>>>);

impl Nodes {
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Where a process answers applications; `None` while it is down.
    pub fn address(&self, number: usize) -> Option<String> {
        self.0[number].lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A database of a process, unless that is down.
    pub fn database(&self, number: usize, name: &str) -> Option<Database> {
        Some(Database::at(format!("http://{}/db/{name}/", self.address(number)?)))
    }

    fn set(&self, number: usize, address: Option<String>) {
        *self.0[number].lock().unwrap_or_else(PoisonError::into_inner) = address;
    }
}

/// Places for processes on one bucket, each with a cache directory of its own.
pub struct Fleet {
    pub bucket: Bucket,
    caches: TempDir,
    arguments: Vec<String>,
    processes: Vec<Option<ShoalProcess>>,
    nodes: Arc<Nodes>,
}

impl Fleet {
    /// Places for so many processes; none runs yet.
    pub fn new(bucket: Bucket, count: usize, arguments: &[&str]) -> Self {
        Self {
            bucket,
            caches: tempfile::tempdir().expect("a temporary directory"),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            processes: (0..count).map(|_| None).collect(),
            nodes: Arc::new(Nodes((0..count).map(|_| Mutex::default()).collect())),
        }
    }

    /// Two processes that run, with a lease of [`LEASE`]: one that owns, and one that stands by.
    pub fn pair(bucket: Bucket) -> Self {
        let mut fleet = Self::new(bucket, 2, &["--lease", &format!("{}ms", LEASE.as_millis())]);
        fleet.start(0);
        fleet.start(1);
        fleet
    }

    pub fn nodes(&self) -> Arc<Nodes> {
        Arc::clone(&self.nodes)
    }

    fn cache_dir(&self, number: usize) -> PathBuf {
        self.caches.path().join(number.to_string())
    }

    /// Starts a process where none runs.
    pub fn start(&mut self, number: usize) {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let process = Shoal::on_way(&self.bucket, number, &self.cache_dir(number)).with(&arguments).start();
        self.nodes.set(number, Some(process.http().to_owned()));
        let former = self.processes[number].replace(process);
        assert!(former.is_none(), "process {number} runs already");
    }

    /// Deletes what a process that is down has kept on disk.
    pub fn delete_cache(&self, number: usize) {
        assert!(self.processes[number].is_none(), "process {number} uses its cache directory");
        std::fs::remove_dir_all(self.cache_dir(number)).expect("the cache directory can be deleted");
    }

    /// A process that runs.
    pub fn process(&self, number: usize) -> &ShoalProcess {
        self.processes[number].as_ref().expect("this process runs")
    }

    /// Takes a process out, so that no client finds it.
    pub fn take(&mut self, number: usize) -> ShoalProcess {
        let process = self.processes[number].take().expect("this process runs");
        self.nodes.set(number, None);
        process
    }

    /// Kills a process with SIGKILL. Its log.
    pub fn kill9(&mut self, number: usize) -> Vec<String> {
        let process = self.processes[number].take().expect("this process runs");
        // Its clients notice by themselves.
        let log = process.kill9();
        self.nodes.set(number, None);
        log
    }

    /// The processes that run, by number.
    pub fn running(&self) -> impl Iterator<Item = usize> {
        self.processes.iter().enumerate().filter(|(_, process)| process.is_some()).map(|(number, _)| number)
    }

    /// Whether a process has ended by itself; then its place is free.
    pub fn has_ended(&mut self, number: usize) -> bool {
        let has_ended = self.processes[number].as_mut().expect("this process runs").has_ended();
        if has_ended {
            self.take(number);
        }
        has_ended
    }

    /// Starts again whoever has ended by itself, because another took it for dead: with short leases a busy machine
    /// is enough. How many those were.
    pub fn revive(&mut self) -> u64 {
        let running: Vec<usize> = self.running().collect();
        let ended: Vec<usize> = running.into_iter().filter(|number| self.has_ended(*number)).collect();
        ended.iter().for_each(|number| self.start(*number));
        ended.len() as u64
    }

    /// Ends all processes in order. How many were fenced meanwhile.
    ///
    /// # Panics
    /// If one fails for another reason.
    pub fn terminate(&mut self) -> usize {
        let running: Vec<usize> = self.running().collect();
        let fenced = running.into_iter().filter(|number| {
            let process = self.take(*number);
            process.ask_to_end();
            let Ended { status, stderr } = process.wait();
            let is_fenced = stderr.contains(FENCED);
            assert!(status.success() || is_fenced, "shoal ended with {status} after SIGTERM:\n{stderr}");
            is_fenced
        });
        fenced.count()
    }

    /// The process that serves a database, where `guess` is asked first: a standby takes its time to answer. If
    /// none does, asking makes one its owner.
    ///
    /// # Panics
    /// If none does in the end.
    pub fn owner(&self, name: &str, guess: usize) -> usize {
        let is_owner = |number: &usize| {
            let database = self.nodes.database(*number, name);
            database.is_some_and(|database| database.execute("SELECT 1", &[]).is_ok())
        };
        let owner = clock::poll(RECOVERY, || [guess].into_iter().chain(self.running()).find(is_owner));
        owner.unwrap_or_else(|| panic!("nobody serves `{name}`"))
    }

    /// A database at the process that serves it; `guess` is asked first.
    pub fn database(&self, name: &str, guess: usize) -> Database {
        self.nodes.database(self.owner(name, guess), name).expect("it runs")
    }
}
