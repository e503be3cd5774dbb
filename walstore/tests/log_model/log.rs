//! The owner's log: the production [`LogCore`], and its driver's PUTs.

use bytes::Bytes;
use walstore::fragment::{self, Entry, SlotObject};
use walstore::id::{DatabaseId, IncarnationId, Lsn, Slot};
use walstore::log::core::{Acknowledged, Action, Commit, LogCore, PutOutcome};

use crate::key::Key;
use crate::rules::Mutant;

const INCARNATION: IncarnationId = IncarnationId::from_bytes([1; 16]);
/// The clock moves only when a batch closes, which waits for the end of its window. So that a batch closes is an
/// event of its own, possible at any time; the pace, which only ever picks one of these times, has no influence
/// here, and neither it nor the clock needs a place in a state's key.
const WINDOW_MICROS: u64 = 1 << 30;

/// Commits are numbered in the order of their append; sets of them are bit masks.
pub type Commits = u8;

#[derive(Clone)]
pub struct Log {
    core: LogCore,
    now_micros: u64,
    databases: u8,
    appended: u8,
    /// By slot.
    pub puts: Vec<SlotPut>,
    pub acknowledged: Commits,
    /// A commit has come to stand in two slots.
    pub moved: bool,
}

/// A PUT that was started. Its request may arrive at any time from then on, any number of times.
#[derive(Clone)]
pub struct SlotPut {
    pub commits: Commits,
    pub outcome: Option<PutOutcome>,
}

impl Log {
    pub fn new(databases: u8) -> Self {
        let core = LogCore::new(INCARNATION, [2; 16]);
        Self { core, now_micros: 0, databases, appended: 0, puts: Vec::new(), acknowledged: 0, moved: false }
    }

    pub fn next(&self) -> u8 {
        self.puts.len() as u8
    }

    pub fn is_fenced(&self) -> bool {
        self.core.is_fenced()
    }

    /// Commits in the open batch.
    pub fn waiting(&self) -> u8 {
        if self.is_fenced() {
            return 0;
        }
        self.appended - self.puts.iter().fold(0, |all, put| all | put.commits).count_ones() as u8
    }

    pub fn appended(&self) -> u8 {
        self.appended
    }

    pub fn append(&mut self, mutant: Option<Mutant>) {
        let commit = self.commit(self.appended);
        let slot = self.next();
        self.appended += 1;
        let actions = self.core.on_append(commit, self.now_micros);
        self.perform(actions, mutant);
        assert_eq!(self.next(), slot, "no batch closes before its window ends");
    }

    /// Closes the open batch, if there may be another PUT.
    pub fn close(&mut self, mutant: Option<Mutant>) {
        if let Some(at) = self.core.wake_at(self.now_micros) {
            self.now_micros = at;
            let slot = self.next();
            let actions = self.core.on_tick(at);
            self.perform(actions, mutant);
            assert_eq!(self.next(), slot + 1, "a batch whose time has come goes into one slot");
        }
    }

    pub fn answer(&mut self, slot: u8, outcome: PutOutcome, mutant: Option<Mutant>) {
        self.puts[slot as usize].outcome = Some(outcome);
        if mutant == Some(Mutant::AcknowledgeOutOfOrder) && outcome == PutOutcome::Stored {
            self.acknowledged |= self.puts[slot as usize].commits;
        }
        let actions = self.core.on_put(Slot(slot.into()), outcome, self.now_micros);
        self.perform(actions, mutant);
    }

    pub fn fence(&mut self, mutant: Option<Mutant>) {
        let actions = self.core.on_fenced();
        self.perform(actions, mutant);
    }

    /// The mutant's: the batch of an unanswered slot goes into the next one.
    pub fn move_batch(&mut self, slot: u8, mutant: Option<Mutant>) {
        let commits = self.puts[slot as usize].commits;
        for number in (0..self.appended).filter(|number| commits >> number & 1 == 1) {
            let actions = self.core.on_append(self.commit(number), self.now_micros);
            self.perform(actions, mutant);
        }
        self.close(mutant);
    }

    /// The first `count` commits of `database` are folded.
    pub fn tell_folded(&mut self, database: u8, count: u8) {
        if let Some(lsn) = Lsn::new(count.into()) {
            self.core.on_folded(id_of(database), lsn);
        }
    }

    /// How many commits of `database` a fold may take: those that are durable.
    pub fn durable_count(&self, database: u8) -> u8 {
        let numbers = (database..8).step_by(self.databases.into());
        numbers.take_while(|number| self.acknowledged >> number & 1 == 1).count() as u8
    }

    /// The first `count` commits of `database`.
    pub fn first_commits(&self, database: u8, count: u8) -> Commits {
        (database..8).step_by(self.databases.into()).take(count.into()).map(|number| 1 << number).sum()
    }

    pub fn durable_end(&self) -> u8 {
        self.core.durable_end().0 as u8
    }

    pub fn low(&self) -> u8 {
        self.core.low().0 as u8
    }

    fn commit(&self, number: u8) -> Commit {
        let lsn = Lsn::new(u64::from(number / self.databases) + 1).expect("LSNs count from 1");
        let database = id_of(number % self.databases);
        let entry = Entry { database, epoch: 1, lsn, bytes: Bytes::from_static(b"commit").into() };
        Commit { entry, window_micros: WINDOW_MICROS, home: 0, side: None }
    }

    fn perform(&mut self, actions: Vec<Action>, mutant: Option<Mutant>) {
        for action in actions {
            match action {
                Action::Put { slot, object } => self.start_put(slot, &object, mutant),
                Action::Durable(commits) => {
                    self.acknowledged |= commits.iter().map(|one| self.mask(one)).fold(0, |all, one| all | one);
                }
                Action::Fenced => {}
            }
        }
    }

    /// What a slot holds is taken from the bytes that would be sent.
    fn start_put(&mut self, slot: Slot, object: &Bytes, mutant: Option<Mutant>) {
        assert_eq!(slot.0 as usize, self.puts.len(), "slots are used in order");
        let Ok(SlotObject::Fragment(fragment)) = fragment::decode(object, INCARNATION, slot) else {
            panic!("the core sends fragments that can be read");
        };
        let mut commits = 0;
        for run in &fragment.runs {
            for index in 0..run.commits.len() as u64 {
                commits |= self.bit(run.database, run.first.get() + index);
            }
        }
        self.moved |= self.puts.iter().any(|put| put.commits & commits != 0);
        if mutant == Some(Mutant::AcknowledgeBeforeDurable) {
            self.acknowledged |= commits;
        }
        self.puts.push(SlotPut { commits, outcome: None });
    }

    fn mask(&self, one: &Acknowledged) -> Commits {
        self.bit(one.database, one.lsn.get())
    }

    fn bit(&self, database: DatabaseId, lsn: u64) -> Commits {
        let database = database.as_bytes()[0] - 1;
        1 << ((lsn as u8 - 1) * self.databases + database)
    }

    /// What has happened to the core, and all that it shows: its other fields follow from these, but for the pace.
    pub fn write(&self, key: &mut Key) {
        key.push(self.appended, 3);
        key.push(self.next(), 3);
        for put in &self.puts {
            key.push(put.commits, 5);
            key.push(put.outcome.map_or(0, |outcome| 1 + u8::from(outcome == PutOutcome::Fenced)), 2);
        }
        key.push(self.acknowledged, 5);
        key.push(self.durable_end(), 3);
        key.push(self.low(), 3);
        key.push(self.core.is_fenced().into(), 1);
        key.push(self.core.is_drained().into(), 1);
        key.push(self.moved.into(), 1);
    }
}

fn id_of(database: u8) -> DatabaseId {
    DatabaseId::from_bytes([database + 1; 16])
}
