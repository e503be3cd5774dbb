//! Two servers on one emulated bucket: one that owns the databases, and one that stands by until it is killed.

use std::time::Instant;

use anyhow::Context;
use emulator::{Emulator, EmulatorConfig, JournalEntry, Profile};
use tempfile::TempDir;

use crate::clock;
use crate::server::ServerProcess;

pub const LEASE_MILLIS: u64 = 900;
const FLAGS: [&str; 2] = ["--lease", "900ms"];

/// A server with a cache directory of its own: nothing but the bucket tells one of the other.
pub struct Member {
    pub server: ServerProcess,
    /// The key of its incarnation's record.
    pub record: String,
    _cache_dir: TempDir,
}

impl Member {
    fn start(emulator: &Emulator) -> anyhow::Result<Self> {
        let before = emulator.objects("inc/");
        let cache_dir = tempfile::tempdir()?;
        let server = ServerProcess::start_with(emulator, cache_dir.path(), &FLAGS)?;
        let new = |key: &String| before.iter().all(|(old, _)| old != key);
        let record = emulator.objects("inc/").into_iter().map(|(key, _)| key).find(new);
        let record = record.context("the server has registered no incarnation")?;
        Ok(Self { server, record, _cache_dir: cache_dir })
    }
}

pub struct Pair {
    // Fields are dropped in this order: the servers go before their bucket does.
    pub owner: Member,
    pub standby: Member,
    pub emulator: Emulator,
}

impl Pair {
    /// An empty bucket that answers at once.
    pub fn start() -> anyhow::Result<Self> {
        let emulator = Emulator::start_in_thread(EmulatorConfig::default()).context("cannot start the emulator")?;
        let (owner, standby) = (Member::start(&emulator)?, Member::start(&emulator)?);
        Ok(Self { owner, standby, emulator })
    }

    /// Kills the owner. What the emulator answers from then on is in its journal.
    pub fn kill_owner(&mut self) -> anyhow::Result<Killed> {
        let journal_since = self.emulator.begin_journal();
        let at = clock::now();
        self.owner.server.kill()?;
        Ok(Killed { at, journal_since })
    }

    /// The journal of a failover that has ended, without what the standby does for itself in any case.
    pub fn end_journal(&self) -> Vec<JournalEntry> {
        let mut journal = self.emulator.end_journal();
        journal.retain(|entry| entry.key != self.standby.record);
        journal
    }

    /// The standby, which owns everything now, gets a new standby. The bucket answers at once again.
    pub fn promote_standby(self) -> anyhow::Result<Self> {
        let Self { owner: _, standby, emulator } = self;
        emulator.set_profile(Profile::local());
        let next = Member::start(&emulator)?;
        Ok(Self { owner: standby, standby: next, emulator })
    }
}

/// When the owner was killed.
#[derive(Clone, Copy)]
pub struct Killed {
    pub at: Instant,
    pub journal_since: Instant,
}
