//! Looks at one state for each [`Invariant`].

use walstore::log::core::PutOutcome;

use crate::bucket::Cell;
use crate::log::Commits;
use crate::rules::Invariant;
use crate::seal::Phase;
use crate::search::Watch;
use crate::world::World;

impl World {
    /// The first invariant that does not hold here. `before` is the state that led here.
    pub fn broken(&self, before: &World, watch: Watch) -> Option<Invariant> {
        let checks: [(Invariant, bool); 10] = [
            (Invariant::I1, self.new_owner_keeps_its_commits()),
            (Invariant::I3InOrder, self.acknowledged_in_order()),
            (Invariant::I3Kept, self.acknowledged_is_kept() || self.acknowledged_late(before)),
            (Invariant::I4Sealed, self.acknowledged_is_kept() || !self.acknowledged_late(before)),
            (Invariant::I3Same, self.recoverers_agree()),
            (Invariant::I4Owner, self.new_owner_holds_the_acknowledged()),
            (Invariant::I7, !self.bucket.fence_gone),
            (Invariant::I8, self.needed_slots_are_there()),
            (Invariant::I12, self.puts_have_one_outcome()),
            (Invariant::Hint, self.hint_and_low_are_in_order()),
        ];
        let watched = checks.into_iter().filter(|(invariant, _)| watch == Watch::All || invariant.is_loss());
        watched.into_iter().find(|(_, holds)| !holds).map(|(invariant, _)| invariant)
    }

    /// What is in packs: of the first owner's folding, or all that the new owners took over.
    fn folded(&self) -> Commits {
        (0..).zip(&self.heads).take(self.size.databases.into()).fold(0, |all, (database, head)| {
            let drained = head.taken.filter(|_| self.drained).unwrap_or(0);
            all | drained | self.log.first_commits(database, head.folded)
        })
    }

    fn new_owner_keeps_its_commits(&self) -> bool {
        self.heads.iter().all(|head| head.taken.is_some() || !head.new_acknowledged)
    }

    fn acknowledged_in_order(&self) -> bool {
        let prefix = self.bucket.durable_prefix();
        self.log.acknowledged & !self.commits_in(0, prefix, |_| true) == 0
    }

    fn acknowledged_is_kept(&self) -> bool {
        let Some((_, content)) = self.bucket.sealed else { return true };
        self.log.acknowledged & !(content | self.folded()) == 0
    }

    fn acknowledged_late(&self, before: &World) -> bool {
        before.bucket.sealed.is_some() && before.log.acknowledged != self.log.acknowledged
    }

    fn recoverers_agree(&self) -> bool {
        let Some((first_end, content)) = self.bucket.sealed else { return true };
        let low = self.bucket.low();
        let adopted = self.sealers.iter().all(|sealer| match sealer.phase {
            Phase::Done { end, .. } => end == first_end,
            _ => true,
        });
        let same = self.readable(low, first_end) == content & self.commits_in(low, first_end, |_| true);
        adopted && self.bucket.end() == Some(first_end) && same
    }

    fn new_owner_holds_the_acknowledged(&self) -> bool {
        (0..).zip(&self.heads).take(self.size.databases.into()).all(|(database, head)| {
            let own = self.log.first_commits(database, 8);
            head.taken.is_none_or(|held| self.log.acknowledged & own & !held == 0)
        })
    }

    fn needed_slots_are_there(&self) -> bool {
        let sealed_end = self.bucket.end();
        (self.bucket.low()..sealed_end.unwrap_or(self.log.next())).all(|slot| {
            let must_be_there = sealed_end.is_some() || self.bucket.held_data >> slot & 1 == 1;
            !must_be_there || self.bucket.cell(slot) == Cell::Data
        })
    }

    fn puts_have_one_outcome(&self) -> bool {
        let one = (0..).zip(&self.log.puts).all(|(slot, put)| {
            let was_data = self.bucket.held_data >> slot & 1 == 1;
            match put.outcome {
                None => true,
                Some(PutOutcome::Stored) => was_data,
                // What was sealed, folded and collected, and met the tombstone of a slow sealer when it was sent
                // once more, is not lost: its client was told that the outcome is unknown.
                Some(_) => !was_data || slot < self.bucket.low(),
            }
        });
        one && !self.log.moved
    }

    fn hint_and_low_are_in_order(&self) -> bool {
        let (low, hint) = (self.bucket.low(), self.bucket.hint());
        let below_low = self.commits_in(0, low, |_| true);
        low <= hint
            && hint <= self.bucket.durable_prefix()
            && self.bucket.end().is_none_or(|end| hint <= end)
            && below_low & !self.folded() == 0
    }
}
