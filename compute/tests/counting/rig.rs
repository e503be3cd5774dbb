//! An emulated bucket with a server on it.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use emulator::{Counters, Emulator, EmulatorConfig};
use tempfile::TempDir;

use crate::client::Client;
use crate::clock::{self, PATIENCE};
use crate::requests::{self, Requests};
use crate::shoal::Shoal;

pub struct Rig {
    pub emulator: Emulator,
    shoal: Option<Shoal>,
    arguments: Vec<&'static str>,
    cache_dir: TempDir,
}

impl Rig {
    /// An empty bucket, and a server that is started with these arguments each time.
    pub fn start(arguments: &[&'static str]) -> Self {
        let emulator = Emulator::start_in_thread(EmulatorConfig::default()).expect("an emulator");
        let mut rig = Self { emulator, shoal: None, arguments: arguments.to_vec(), cache_dir: new_cache_dir() };
        rig.start_server();
        rig
    }

    fn start_server(&mut self) {
        self.shoal = Some(Shoal::start(&self.emulator, self.cache_dir.path(), &self.arguments));
    }

    /// Ends the server in order and starts another on an empty cache directory.
    pub fn restart_with_empty_cache(&mut self) {
        self.shoal.take().expect("a server runs").terminate();
        self.cache_dir = new_cache_dir();
        self.start_server();
    }

    /// Kills the server where it stands and starts another on what it has left.
    pub fn kill_and_restart(&mut self) {
        drop(self.shoal.take());
        self.start_server();
    }

    /// The same, with other arguments from now on.
    pub fn restart_with(&mut self, arguments: &[&'static str]) {
        self.arguments = arguments.to_vec();
        self.kill_and_restart();
    }

    pub fn cache_path(&self) -> &Path {
        self.cache_dir.path()
    }

    pub fn shoal(&self) -> &Shoal {
        self.shoal.as_ref().expect("a server runs")
    }

    /// A new database, and a client of it.
    pub fn create(&self, database: &str) -> Client {
        self.shoal().create(database);
        self.client(database)
    }

    pub fn client(&self, database: &str) -> Client {
        self.shoal().client(database)
    }

    /// All requests that come while `work` runs.
    pub fn count(&self, work: impl FnOnce()) -> Counters {
        let before = self.emulator.counters();
        work();
        self.emulator.counters().since(&before)
    }

    /// Requests that come while `work` runs, heartbeats and hints left out.
    pub fn requests(&self, work: impl FnOnce()) -> Requests {
        requests::of_work(&self.count(work))
    }

    /// Waits until background work has ended: nothing but heartbeats for a second.
    pub fn wait_until_quiet(&self) {
        let (mut last, mut same) = (self.of_work(), 0);
        let deadline = clock::now() + PATIENCE;
        while same < 10 {
            assert!(clock::now() < deadline, "the server does not come to rest: {}", self.emulator.counters());
            clock::pause(Duration::from_millis(100));
            let now = self.of_work();
            same = if now == last { same + 1 } else { 0 };
            last = now;
        }
    }

    fn of_work(&self) -> Requests {
        requests::of_work(&self.emulator.counters())
    }
}

fn new_cache_dir() -> TempDir {
    tempfile::tempdir().expect("a directory for the cache")
}

/// Tests that keep the whole machine busy take turns, so that none of them runs into another's time-outs.
pub fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
