//! One state of the model, and what can happen next.

use std::rc::Rc;

use walstore::incarnation::IncarnationRecord;
use walstore::log::core::PutOutcome;

use crate::bucket::{Bucket, Cell};
use crate::head::{self, Head};
use crate::keeper::{self, Keeper};
use crate::key::Key;
use crate::log::{Commits, Log};
use crate::rules::Mutant;
use crate::seal::{self, Sealer};

/// How large a world is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub commits: u8,
    /// The commits go to these in turn.
    pub databases: u8,
    /// Commits in one batch, at most.
    pub batch: u8,
    pub sealers: usize,
    /// Renewals of one version that may be on their way at the same time: more than one only if the keeper gave
    /// one up.
    pub renewals: usize,
}

/// What happened. A request *arrives* when the store acts on it, whether or not anybody hears of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Append,
    CloseBatch,
    PutArrives(u8),
    PutAnswered(u8),
    MoveBatch(u8),
    DeleteArrives(u8),
    DeleteEarly,
    Renew,
    GiveUpRenewal,
    RenewalArrives(u8),
    RenewalWon,
    RenewalLost,
    FoldArrives(u8),
    TakeOver(u8),
    NewOwnerCommits(u8),
    Drain,
    CollectFence,
    Sealer(u8),
    SealerDies(u8),
    TombstoneArrives(u8),
    RecoveringArrives,
    SealArrives(u8),
}

#[derive(Clone)]
pub struct World {
    pub size: Size,
    pub mutant: Option<Mutant>,
    pub log: Rc<Log>,
    pub keeper: Keeper,
    pub bucket: Bucket,
    pub sealers: Vec<Sealer>,
    pub heads: [Head; 2],
    /// New owners have folded all that they took over.
    pub drained: bool,
}

impl World {
    pub fn new(size: Size, mutant: Option<Mutant>) -> Self {
        Self {
            size,
            mutant,
            log: Rc::new(Log::new(size.databases)),
            keeper: Keeper::new(),
            bucket: Bucket::new(),
            sealers: vec![Sealer::NEW; size.sealers],
            heads: Default::default(),
            drained: false,
        }
    }

    /// Sealers have no names in the bucket, so states that differ only in which is which are one.
    pub fn key(&self) -> Key {
        let mut key = Key::default();
        self.log.write(&mut key);
        self.keeper.write(&mut key);
        self.bucket.write(&mut key);
        let mut sealers = self.sealers.clone();
        sealers.sort_unstable();
        sealers.iter().for_each(|sealer| sealer.write(&mut key));
        self.heads.iter().for_each(|head| head.write(&mut key));
        key.push(self.drained.into(), 1);
        key
    }

    pub fn successors(&self) -> Vec<(Step, World)> {
        let mut next = Vec::new();
        self.log_steps(&mut next);
        self.deletes(&mut next);
        keeper::successors(self, &mut next);
        seal::successors(self, &mut next);
        head::successors(self, &mut next);
        next
    }

    fn log_steps(&self, next: &mut Vec<(Step, World)>) {
        let mut log_step = |step: Step, act: &dyn Fn(&mut Log)| {
            let mut to = self.clone();
            act(Rc::make_mut(&mut to.log));
            next.push((step, to));
        };
        if self.log.appended() < self.size.commits && self.log.waiting() < self.size.batch && !self.log.is_fenced() {
            log_step(Step::Append, &|log| {
                log.append(self.mutant);
                // Alone in its batch in any case: nothing is gained by a state in between.
                if self.size.batch == 1 {
                    log.close(self.mutant);
                }
            });
        }
        if self.log.waiting() > 0 {
            log_step(Step::CloseBatch, &|log| log.close(self.mutant));
        }
        for slot in 0..self.log.next() {
            self.put_steps(slot, next);
        }
    }

    /// `SlotPut`, in `walstore/src/log/slot_put.rs`: a request (the hedge is one more of the same) arrives and its
    /// answer is lost, or it is answered; a refusal is explained by what is in the slot. That the slot is read a moment after the
    /// refusal makes no difference, for what is in the slot of an unanswered PUT stays there (I7, I8).
    fn put_steps(&self, slot: u8, next: &mut Vec<(Step, World)>) {
        let cell = self.bucket.cell(slot);
        if cell == Cell::Empty {
            let mut to = self.clone();
            to.bucket.store_data(slot);
            next.push((Step::PutArrives(slot), to));
        }
        let put = &self.log.puts[usize::from(slot)];
        if put.outcome.is_some() {
            return;
        }
        let outcome = match cell {
            Cell::Data if self.mutant == Some(Mutant::OwnRefusalIsFence) => PutOutcome::Fenced,
            Cell::Empty | Cell::Data => PutOutcome::Stored,
            Cell::Tombstone => PutOutcome::Fenced,
        };
        let mut to = self.clone();
        if cell == Cell::Empty {
            to.bucket.store_data(slot);
        }
        Rc::make_mut(&mut to.log).answer(slot, outcome, self.mutant);
        next.push((Step::PutAnswered(slot), to));
        if self.mutant == Some(Mutant::MissingIsNotWritten) && cell == Cell::Empty && !self.log.moved {
            let mut to = self.clone();
            Rc::make_mut(&mut to.log).move_batch(slot, self.mutant);
            next.push((Step::MoveBatch(slot), to));
        }
    }

    fn deletes(&self, next: &mut Vec<(Step, World)>) {
        for slot in 0..8 {
            if self.bucket.deletes >> slot & 1 == 1 && self.bucket.cell(slot) != Cell::Empty {
                let mut to = self.clone();
                to.bucket.delete(slot);
                next.push((Step::DeleteArrives(slot), to));
            }
        }
        let folded = (1u8 << self.log.low()) - 1;
        if self.mutant == Some(Mutant::DeleteAboveHint) && folded & !self.bucket.deletes != 0 {
            let mut to = self.clone();
            to.bucket.deletes |= folded;
            next.push((Step::DeleteEarly, to));
        }
    }

    /// Another version of the record stands from now on; `by` is the try of the owner that made it.
    pub fn replace_record(&mut self, record: IncarnationRecord, by: Option<u8>) {
        self.bucket.replace(record, self.mutant == Some(Mutant::SealWithoutCas));
        self.keeper.record_moved(by);
        self.sealers.iter_mut().for_each(Sealer::record_moved);
    }

    /// What a recoverer finds in the slots `low..end`.
    pub fn readable(&self, low: u8, end: u8) -> Commits {
        self.commits_in(low, end, |slot| self.bucket.cell(slot) == Cell::Data)
    }

    pub fn commits_in(&self, low: u8, end: u8, includes: impl Fn(u8) -> bool) -> Commits {
        let puts = (0..).zip(&self.log.puts).take(end.into()).skip(low.into());
        puts.filter(|(slot, _)| includes(*slot)).fold(0, |all, (_, put)| all | put.commits)
    }
}
