//! What every commit of the world has come to, and what its clients may therefore demand.

use std::collections::BTreeMap;

use walstore::id::{DatabaseId, IncarnationId, Lsn, Slot};

use crate::toy::CommitNo;

/// What the client of a commit was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing, or that nobody knows.
    Unknown,
    Acknowledged,
    /// That nothing was done.
    Refused,
}

pub struct Entry {
    pub database: DatabaseId,
    pub epoch: u64,
    pub lsn: Lsn,
    pub incarnation: IncarnationId,
    pub outcome: Outcome,
    /// Where it is in a log.
    pub slot: Option<Slot>,
}

#[derive(Default)]
struct History {
    acknowledged: BTreeMap<Lsn, CommitNo>,
    /// The newest epoch whose owner has read the history, and what it read.
    loaded: Option<(u64, Vec<CommitNo>)>,
}

#[derive(Default)]
pub struct Ledger {
    commits: Vec<Entry>,
    histories: BTreeMap<DatabaseId, History>,
}

impl Ledger {
    pub fn enter(&mut self, entry: Entry) -> CommitNo {
        self.commits.push(entry);
        self.commits.len() as CommitNo - 1
    }

    pub fn count(&self, outcome: Outcome) -> usize {
        self.commits.iter().filter(|entry| entry.outcome == outcome).count()
    }

    pub fn next_number(&self) -> CommitNo {
        self.commits.len() as CommitNo
    }

    /// Every database that a client was ever told of a commit in.
    pub fn databases(&self) -> impl Iterator<Item = DatabaseId> {
        self.histories.iter().filter(|(_, history)| !history.acknowledged.is_empty()).map(|(id, _)| *id)
    }

    /// The acknowledged commits of a database after `after`.
    pub fn acknowledged_after(&self, database: DatabaseId, after: Option<Lsn>) -> impl Iterator<Item = &Entry> {
        let acknowledged = self.histories.get(&database).map(|history| &history.acknowledged);
        let later = acknowledged.into_iter().flat_map(move |all| all.range(Lsn::after(after)..));
        later.map(|(_, number)| &self.commits[*number as usize])
    }

    /// A commit has arrived in a slot of some log.
    pub fn stored(&mut self, number: CommitNo, incarnation: IncarnationId, slot: Slot) -> Result<(), String> {
        let entry = &mut self.commits[number as usize];
        if entry.incarnation != incarnation {
            return Err(format!("I2: commit {number} of {} is in the log of {incarnation}", entry.incarnation));
        }
        match entry.slot.replace(slot) {
            Some(other) if other != slot => {
                Err(format!("I12: commit {number} is in slot {other} and in slot {slot} of {incarnation}"))
            }
            _ => Ok(()),
        }
    }

    /// A client is told that its commit is durable.
    pub fn acknowledge(
        &mut self,
        incarnation: IncarnationId,
        (database, epoch, lsn): (DatabaseId, u64, Lsn),
    ) -> Result<(), String> {
        let mut matching = self.commits.iter_mut().enumerate().rev();
        let found = matching.find(|(_, entry)| {
            (entry.incarnation, entry.database, entry.epoch, entry.lsn) == (incarnation, database, epoch, lsn)
        });
        let Some((number, entry)) = found else {
            return Err(format!("I3: {incarnation} acknowledges LSN {lsn} of {database}, which it never sent"));
        };
        if entry.outcome == Outcome::Refused {
            return Ok(());
        }
        entry.outcome = Outcome::Acknowledged;
        let number = number as CommitNo;
        let history = self.histories.entry(database).or_default();
        if let Some(other) = history.acknowledged.insert(lsn, number).filter(|other| *other != number) {
            return Err(format!("I2: commits {other} and {number} of {database} are both acknowledged as LSN {lsn}"));
        }
        match &history.loaded {
            Some((newer, read)) if *newer > epoch && read.get(lsn.get() as usize - 1) != Some(&number) => Err(format!(
                "I4: commit {number} (LSN {lsn}, epoch {epoch}) of {database} is acknowledged, \
                 but the owner of epoch {newer} does not hold it"
            )),
            _ => Ok(()),
        }
    }

    /// The owner of `epoch` has read the database's history; it may do so again after an eviction.
    pub fn loaded(&mut self, database: DatabaseId, epoch: u64, read: &[CommitNo]) -> Result<(), String> {
        for (at, number) in read.iter().enumerate() {
            let entry = self.commits.get(*number as usize);
            let entry = entry.ok_or_else(|| format!("I2: {database} holds commit {number}, which nobody sent"))?;
            if entry.database != database || entry.lsn.get() != at as u64 + 1 {
                let (place, lsn) = (at + 1, entry.lsn);
                return Err(format!(
                    "I2: commit {number} (LSN {lsn}) of {} stands at {place} of {database}",
                    entry.database
                ));
            }
            if entry.outcome == Outcome::Refused {
                return Err(format!("I12: commit {number} of {database} was refused and is there"));
            }
        }
        let history = self.histories.entry(database).or_default();
        for (lsn, number) in &history.acknowledged {
            let is_older = self.commits[*number as usize].epoch <= epoch;
            if is_older && read.get(lsn.get() as usize - 1) != Some(number) {
                let there = read.get(lsn.get() as usize - 1);
                return Err(format!(
                    "I1: commit {number} (LSN {lsn}) of {database} was acknowledged; \
                     the owner of epoch {epoch} has {there:?} in its place"
                ));
            }
        }
        match &history.loaded {
            // A slow owner may come after its successor; then it is the one who has less.
            Some((newer, longer)) if *newer > epoch => {
                if !longer.starts_with(read) {
                    return Err(format!(
                        "I2: the owners of epochs {epoch} and {newer} of {database} read different histories"
                    ));
                }
            }
            Some((older, shorter)) if !read.starts_with(shorter) => {
                return Err(format!(
                    "I2: the owner of epoch {epoch} of {database} lacks what that of epoch {older} had"
                ));
            }
            _ => history.loaded = Some((epoch, read.to_vec())),
        }
        Ok(())
    }
}
