//! A server that is killed and started again, and what its first queries cost.

use anyhow::Context;
use emulator::{Emulator, EmulatorConfig, JournalEntry, Operation, Profile};
use tempfile::TempDir;

use crate::chain::Chain;
use crate::clock;
use crate::hrana::Client;
use crate::server::ServerProcess;

pub struct Cold {
    // Fields are dropped in this order: the server goes before its bucket does.
    server: ServerProcess,
    pub emulator: Emulator,
    cache_dir: TempDir,
}

/// What one query cost, from the first request to the bucket to the last.
pub struct Cost {
    /// Round trips in sequence.
    pub round_trips: u64,
    pub gets: u64,
    /// Of answers to GETs.
    pub bytes: u64,
    pub millis: f64,
    /// The requests that waited for each other.
    pub chain: String,
}

impl Cold {
    /// An empty bucket that answers at once, and a server on it.
    pub fn start() -> anyhow::Result<Self> {
        let emulator = Emulator::start_in_thread(EmulatorConfig::default()).context("cannot start the emulator")?;
        let cache_dir = tempfile::tempdir()?;
        let server = ServerProcess::start_with(&emulator, cache_dir.path(), &[])?;
        Ok(Self { server, emulator, cache_dir })
    }

    /// `kill -9`, and another server on the same cache directory, so that it knows that the former one is over and
    /// seals its log at once. Nothing else of it is left.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.server.kill()?;
        self.server = ServerProcess::start_with(&self.emulator, self.cache_dir.path(), &[])?;
        Ok(())
    }

    /// `kill -9`, and another server with a disk of its own: it knows nothing but what is in the bucket.
    pub fn restart_elsewhere(&mut self) -> anyhow::Result<()> {
        self.server.kill()?;
        self.cache_dir = tempfile::tempdir()?;
        self.server = ServerProcess::start_with(&self.emulator, self.cache_dir.path(), &[])?;
        Ok(())
    }

    pub fn create(&self, database: &str) -> anyhow::Result<Client> {
        self.server.create(database).map(Client::new)
    }

    pub fn client(&self, database: &str) -> Client {
        Client::new(self.server.url(database))
    }

    /// Folds a database, and leaves it to nobody.
    pub fn release(&self, database: &str) -> anyhow::Result<()> {
        self.server.release(database)
    }

    /// Asks for one number at `s3std`, and counts what that costs.
    pub fn query(&self, database: &str, sql: &str) -> anyhow::Result<(i64, Cost)> {
        let client = self.client(database);
        self.emulator.set_profile(Profile::s3std());
        let before = self.emulator.counters();
        self.emulator.begin_journal();
        let (answer, millis) = clock::millis(|| client.number(sql));
        let journal = self.emulator.end_journal();
        let spent = self.emulator.counters().since(&before);
        self.emulator.set_profile(Profile::local());
        let gets = spent.of_operation(Operation::Get);
        let chain = Chain::of(journal.iter().filter(|entry| !is_heartbeat(entry)));
        let cost = Cost {
            round_trips: chain.round_trips() as u64,
            gets: gets.requests,
            bytes: gets.bytes,
            millis,
            chain: chain.to_string(),
        };
        Ok((answer?, cost))
    }
}

/// What a node does for itself in any case.
fn is_heartbeat(entry: &JournalEntry) -> bool {
    matches!((entry.operation, entry.class.as_str()), (Operation::Put, "inc") | (Operation::List, _))
}
