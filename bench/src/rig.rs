//! An emulated bucket with a server on it.

use anyhow::Context;
use emulator::{Counters, Emulator, EmulatorConfig};
use tempfile::TempDir;

use crate::hrana::Client;
use crate::server::ServerProcess;

pub struct Rig {
    // Fields are dropped in this order: the server goes before its bucket does.
    server: ServerProcess,
    pub emulator: Emulator,
    _cache_dir: TempDir,
}

impl Rig {
    /// An empty bucket that answers at once, and a server on it.
    pub fn start() -> anyhow::Result<Self> {
        let emulator = Emulator::start_in_thread(EmulatorConfig::default()).context("cannot start the emulator")?;
        let cache_dir = tempfile::tempdir()?;
        let server = ServerProcess::start(&emulator, cache_dir.path())?;
        Ok(Self { server, emulator, _cache_dir: cache_dir })
    }

    /// Creates a database and returns its URL.
    pub fn create(&self, database: &str) -> anyhow::Result<String> {
        self.server.create(database)
    }

    /// Creates a database and runs statements in it.
    pub fn create_with(&self, database: &str, statements: &[&str]) -> anyhow::Result<Client> {
        let client = Client::new(self.create(database)?);
        statements.iter().try_for_each(|sql| client.run(sql))?;
        Ok(client)
    }

    /// Runs `work` and counts the requests that come meanwhile.
    pub fn count<T>(&self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, Counters)> {
        let before = self.emulator.counters();
        let result = work()?;
        Ok((result, self.emulator.counters().since(&before)))
    }
}
