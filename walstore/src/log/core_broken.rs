//! [`Mutant::MissingIsNotWritten`](crate::mutant::Mutant): a batch that moves to another slot.

use super::{Action, InFlight, LogCore};
use crate::fragment::{self, Entry, SlotObject};
use crate::id::{Lsn, Slot};
use crate::run::Run;

impl LogCore {
    /// Sends what was in `slot` to the next free slot instead. The slot left behind counts as stored, as if
    /// nobody would ever ask for it.
    pub(super) fn move_on(&mut self, slot: Slot, now_micros: u64) -> Vec<Action> {
        let Some(missing) = self.in_flight.get_mut(&slot).filter(|put| !put.stored) else { return Vec::new() };
        missing.stored = true;
        let mut commits = std::mem::take(&mut missing.commits);
        let bytes = std::mem::take(&mut missing.bytes);
        let Ok(SlotObject::Fragment(found)) = fragment::decode(&missing.object, self.incarnation, slot) else {
            panic!("BUG: a batch of our own cannot be read back");
        };
        let entries: Vec<Entry> = found.runs.into_iter().flat_map(entries_of).collect();
        let next = self.next;
        self.next = next.next();
        commits.iter_mut().for_each(|commit| commit.slot = next);
        let object = fragment::encode(self.incarnation, next, self.put_id(next), &entries);
        let put = InFlight { object: object.clone(), commits, bytes, started_micros: now_micros, stored: false };
        self.in_flight.insert(next, put);
        let mut actions = vec![Action::Put { slot: next, object }];
        actions.extend(self.release(now_micros));
        actions
    }
}

fn entries_of(run: Run) -> impl Iterator<Item = Entry> {
    let lsns = std::iter::successors(Some(run.first), |lsn| Some(Lsn::after(Some(*lsn))));
    let (database, epoch) = (run.database, run.epoch);
    run.commits.into_iter().zip(lsns).map(move |(bytes, lsn)| Entry { database, epoch, lsn, bytes })
}
