//! Several `shoal` processes on one bucket, and where their clients find them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempDir;

use crate::bucket::Bucket;
use crate::clock;
use crate::hrana::Database;
use crate::limits::RECOVERY;
use crate::shoal::{Shoal, ShoalProcess};

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

    pub fn nodes(&self) -> Arc<Nodes> {
        Arc::clone(&self.nodes)
    }

    fn cache_dir(&self, number: usize) -> PathBuf {
        self.caches.path().join(number.to_string())
    }

    /// Starts a process where none runs.
    pub fn start(&mut self, number: usize) {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let process = Shoal::on(&self.bucket, &self.cache_dir(number)).with(&arguments).start();
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

    /// Terminates all processes in order.
    pub fn terminate(&mut self) {
        for number in self.running().collect::<Vec<_>>() {
            self.take(number).terminate();
        }
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
