//! An emulated bucket with a server on it.

use anyhow::Context;
use emulator::{Counters, Emulator, EmulatorConfig};
use tempfile::TempDir;

use crate::hrana::Client;
use crate::server::ServerProcess;

pub struct Rig {
    // Fields are dropped in this order: the server goes before its bucket does.
    server: Option<ServerProcess>,
    pub emulator: Emulator,
    cache_dir: TempDir,
    flags: Vec<String>,
}

impl Rig {
    /// An empty bucket that answers at once, and a server on it.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(&[])
    }

    /// The same with flags of `shoal serve`.
    pub fn start_with(flags: &[&str]) -> anyhow::Result<Self> {
        let emulator = Emulator::start_in_thread(EmulatorConfig::default()).context("cannot start the emulator")?;
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut rig = Self { server: None, emulator, cache_dir: tempfile::tempdir()?, flags };
        rig.start_server()?;
        Ok(rig)
    }

    fn start_server(&mut self) -> anyhow::Result<()> {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        self.server = Some(ServerProcess::start_with(&self.emulator, self.cache_dir.path(), &flags)?);
        Ok(())
    }

    pub fn server(&self) -> &ServerProcess {
        self.server.as_ref().expect("BUG: the server is down")
    }

    /// `kill -9` of the server, and another process in its place: the same node, whose cache directory is still there.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        self.start_server()
    }

    /// The same with nothing left on its disk.
    pub fn restart_without_cache(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        self.cache_dir = tempfile::tempdir()?;
        self.start_server()
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        self.server.take().map_or(Ok(()), |mut server| server.kill())
    }

    /// Creates a database and returns its URL.
    pub fn create(&self, database: &str) -> anyhow::Result<String> {
        self.server().create(database)
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
