//! The heads of the databases, as far as the log needs them: what is folded, and who owns.
//!
//! A head is a version that a CAS replaces. A fold of the owner is refused once the database has a new one. The
//! rules of the head itself are `tenant::lifecycle`'s, which the model in `tenant/tests/head_model` drives; here
//! stands only what makes `low` rise and what a takeover relies on.

use std::rc::Rc;

use crate::bucket::Cell;
use crate::key::Key;
use crate::log::Commits;
use crate::rules::Mutant;
use crate::world::{Step, World};

#[derive(Clone, Copy, Default)]
pub struct Head {
    /// How many commits of the first owner are in packs.
    pub folded: u8,
    /// The new owner's view of the former owner's commits; none while that one owns.
    pub taken: Option<Commits>,
    /// The new owner has acknowledged a commit of its own.
    pub new_acknowledged: bool,
}

impl Head {
    pub fn write(&self, key: &mut Key) {
        key.push(self.folded, 3);
        key.push(self.taken.is_some().into(), 1);
        key.push(self.taken.unwrap_or(0), 5);
        key.push(self.new_acknowledged.into(), 1);
    }
}

pub fn successors(world: &World, next: &mut Vec<(Step, World)>) {
    for database in 0..world.size.databases {
        next.extend(fold_arrives(world, database).map(|to| (Step::FoldArrives(database), to)));
        next.extend(take_over(world, database).map(|to| (Step::TakeOver(database), to)));
        next.extend(new_commit(world, database).map(|to| (Step::NewOwnerCommits(database), to)));
    }
    next.extend(drain(world).map(|to| (Step::Drain, to)));
    next.extend(collect_fence(world).map(|to| (Step::CollectFence, to)));
}

/// A fold of one more commit arrives. It was sent at any time since that commit was acknowledged; one that comes
/// when the database has a new owner is refused. The owner hears of it at once: what it would send before it
/// hears, it can also send before the fold.
fn fold_arrives(world: &World, database: u8) -> Option<World> {
    let head = world.heads[usize::from(database)];
    let is_owner = head.taken.is_none() || world.mutant == Some(Mutant::BlindHeadRetry);
    (is_owner && world.log.durable_count(database) > head.folded).then(|| {
        let mut to = world.clone();
        to.heads[usize::from(database)].folded += 1;
        to.heads[usize::from(database)].taken = None;
        Rc::make_mut(&mut to.log).tell_folded(database, head.folded + 1);
        to
    })
}

/// Another node acquires the database: the log has an end, and it reads what is in it.
fn take_over(world: &World, database: u8) -> Option<World> {
    let head = world.heads[usize::from(database)];
    let end = match world.mutant {
        Some(Mutant::TakeOverBeforeSeal) => world.bucket.end().unwrap_or_else(|| listed_end(world)),
        _ => world.bucket.end()?,
    };
    head.taken.is_none().then(|| {
        let mut to = world.clone();
        let own = world.log.first_commits(database, 8);
        let folded = world.log.first_commits(database, head.folded);
        let held = folded | world.readable(world.bucket.low(), end) & own;
        to.heads[usize::from(database)].taken = Some(held);
        to
    })
}

/// Where the data in the bucket ends at this moment.
fn listed_end(world: &World) -> u8 {
    let low = world.bucket.low();
    let gap = (low..).find(|slot| world.bucket.cells.get(usize::from(*slot)) != Some(&Cell::Data));
    gap.expect("there are fewer cells than numbers")
}

/// The new owner acknowledges a commit. That says something only while a fold of the former owner may come.
fn new_commit(world: &World, database: u8) -> Option<World> {
    let head = world.heads[usize::from(database)];
    let may_fold = world.log.durable_count(database) > head.folded;
    (head.taken.is_some() && !head.new_acknowledged && may_fold).then(|| {
        let mut to = world.clone();
        to.heads[usize::from(database)].new_acknowledged = true;
        to
    })
}

/// After the seal: the new owners have folded everything, then `low` rises to the end, and only then the slots
/// are deleted. Nothing else writes a sealed record, so this CAS has no rival.
fn drain(world: &World) -> Option<World> {
    let end = world.bucket.end()?;
    let heads = &world.heads[..world.size.databases.into()];
    (!world.drained && heads.iter().all(|head| head.taken.is_some())).then(|| {
        let mut to = world.clone();
        to.drained = true;
        to.replace_record(world.bucket.successor(world.bucket.record.state, world.bucket.hint(), end), None);
        to.bucket.deletes |= (1u8 << end) - 1;
        to
    })
}

/// The mutant's: a sweep of a sealed log takes its tombstone along.
fn collect_fence(world: &World) -> Option<World> {
    let end = world.bucket.end().filter(|_| world.mutant == Some(Mutant::CollectTombstone))?;
    (world.bucket.deletes >> end & 1 == 0).then(|| {
        let mut to = world.clone();
        to.bucket.deletes |= 1 << end;
        to
    })
}
