//! The life of a head, as pure functions from one version to the next.
//!
//! ```text
//!   create ──▶ live, owned ──acquire (by another, once the owner's log is sealed)──▶ live, owned
//!               │  │    ▲                                                               epoch + 1
//!               │  │    └────────acquire─────────┐
//!          fold └──┘                             │
//!         (same epoch)                           │
//!   live, owned ──release, or drain by anybody──▶ live, nobody's           epoch + 1
//!                                                  │  ▲
//!                           fold without commits, by anybody: the same pages, closer together
//!                                                  └──┘
//!   live, owned ──delete────────────────────────▶ deleted                  epoch + 1
//!   live, owned ──restore in place──────────────▶ moved{new}               epoch + 1
//!   (no head)   ──fork──────────────────────────▶ live, nobody's
//!   live, nobody's, expired or left over ───────▶ deleted
//!   (no head)   ──abort─────────────────────────▶ aborted
//! ```
//!
//! Forks are made by [`pin`], in the parent, and [`child_head`]; what is left of one that was not finished is undone
//! as [`plan_pin`] and [`plan_leftover`] say.
//!
//! Nothing here is written by itself: [`registry::swap_head`](crate::registry::swap_head) replaces the
//! version that the successor was made from, and only that one.
//!
//! **Nobody logs a commit of a database before his own acquire has been won.** Two tries to acquire by the
//! same node carry the same epoch; what was logged during a lost one could not be told from what is logged
//! after the other. **Nobody logs one while his own release may still arrive** ([`confirm`]).

mod ending;
mod fork;
mod scavenge;

use bytes::Bytes;
use walstore::id::{DatabaseId, IncarnationId, Lsn, PutId};
use walstore::mutant::{self, Mutant};

use crate::head::{Folded, ForkPoint, Head, HeadState, MapField, PackRef, TailEntry};
use crate::limits;
use crate::name::Name;
use crate::record::{NameRecord, NameState, Origin};
use crate::settings::Settings;

pub use ending::{delete, moved, shrink, with_settings};
use ending::without_owner;
pub use fork::{Beginning, ForkRefused, check_fork, child_head, pin, spill_pins, undelete_of, unpin};
pub use scavenge::{ChildLook, LeftoverPlan, NameLook, PinPlan, plan_leftover, plan_pin};

/// What is known about the owner that a head names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerState {
    None,
    Me,
    /// Me, but a release or delete that I sent was never answered and may still arrive.
    MeLeaving,
    /// Its log has an end: it is over.
    Sealed,
    /// Its lease has run out by our own watch; it may still be alive.
    LeaseOver,
    Alive { address: String },
}

/// What to do with a head, so that this node may serve its database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenPlan {
    /// It is mine, at the head's epoch.
    Serve,
    /// Write [`confirm`]'s successor. Serve if it wins; plan again if it doesn't.
    Confirm,
    /// Write [`acquire`]'s successor. Replies wait for it, page fetches don't.
    Acquire,
    /// Seal this incarnation's log, then plan again.
    SealFirst(IncarnationId),
    /// Seal every incarnation of the tail, then write [`drain`]'s successor: the tail is full.
    DrainFirst,
    /// Forward the client there.
    OwnedElsewhere { incarnation: IncarnationId, address: String },
    /// This node's own log has an end, and the node does not know it yet: end this incarnation.
    Fenced,
    /// Read the name again: this database is over.
    Gone(HeadState),
    /// The owner's state is not that of this head's owner: read both again.
    ReadAgain,
}

/// Decides how to open the database of `head`, whose owner is in the state `owner`.
pub fn plan_open(head: &Head, me: IncarnationId, owner: OwnerState) -> OpenPlan {
    if head.state.is_final() {
        return OpenPlan::Gone(head.state.clone());
    }
    // Without a release, which leaves no tail, a head goes from one owner to the next only after a seal. What this
    // node logged in that term is in a log that it takes for its own, open one, so it could not even read it.
    let had_it = head.owner != Some(me) && head.tail.iter().any(|entry| entry.incarnation == me);
    if had_it && !mutant::is_on(Mutant::ForgetOwnTerm) {
        return OpenPlan::Fenced;
    }
    match (head.owner, owner) {
        (Some(incarnation), OwnerState::Me) if incarnation == me => OpenPlan::Serve,
        (Some(incarnation), OwnerState::MeLeaving) if incarnation == me => {
            if mutant::is_on(Mutant::ServeUnconfirmed) { OpenPlan::Serve } else { OpenPlan::Confirm }
        }
        (None, OwnerState::None) => OpenPlan::Acquire,
        (Some(incarnation), _) if incarnation == me => OpenPlan::ReadAgain,
        (Some(_), OwnerState::Sealed) if head.tail.len() >= limits::TAIL_ENTRIES_MAX => OpenPlan::DrainFirst,
        (Some(_), OwnerState::Sealed) => OpenPlan::Acquire,
        (Some(_), OwnerState::LeaseOver) if mutant::is_on(Mutant::TakeOverBeforeSeal) => OpenPlan::Acquire,
        (Some(incarnation), OwnerState::LeaseOver) => OpenPlan::SealFirst(incarnation),
        (Some(incarnation), OwnerState::Alive { address }) => OpenPlan::OwnedElsewhere { incarnation, address },
        (Some(_), OwnerState::None | OwnerState::Me | OwnerState::MeLeaving) | (None, _) => OpenPlan::ReadAgain,
    }
}

/// The successor that `me` owns.
///
/// The caller knows that nobody owns the head, or that its owner's log is sealed. The new entry's `after` is
/// the best lower bound that the head has; where the previous owner stopped is read from its log, meanwhile
/// or later.
pub fn acquire(head: &Head, me: IncarnationId, put_id: PutId) -> Head {
    assert!(!head.state.is_final(), "BUG: {} is over and can't be acquired", head.database);
    assert_ne!(head.owner, Some(me), "BUG: {} is owned already", head.database);
    let mut next = head.successor(put_id);
    next.owner = Some(me);
    next.epoch += 1;
    next.fold_seq = 0;
    let after = head.tail.last().map_or(head.folded.lsn, |entry| entry.after);
    next.tail.push(TailEntry { incarnation: me, epoch: next.epoch, after });
    next
}

/// The successor that says the same again. Winning it, an owner knows that nothing it sent before can
/// arrive any more.
///
/// Commits don't touch the head. So a release that was sent and never answered would still find the version
/// that it was made from, after any number of commits, and take the tail away under them. An owner that
/// changes its mind confirms first.
pub fn confirm(head: &Head, put_id: PutId) -> Head {
    head.successor(put_id)
}

/// What a fold made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fold {
    /// The new folded point. The same as before is allowed, to drop entries that hold nothing from the tail.
    pub folded: Folded,
    /// The last commit before the owner's first one at this epoch: where the tail before it ended.
    pub own_after: Option<Lsn>,
    /// The page map as of the folded point.
    pub map: MapField,
    /// Pages that stand in the head, as of the same point.
    pub image: Option<Bytes>,
    /// The oldest LSN that can be restored from now on.
    pub horizon: Option<Lsn>,
    /// The index of the history from the horizon on.
    pub history: Bytes,
    /// The number that all objects of this fold carry; the same as before if it wrote none.
    pub fold_seq: u32,
    /// Everything that is dead from now on: the old list, and the packs that the map no longer needs.
    pub dead: Vec<PackRef>,
}

/// The successor whose folded point has moved.
///
/// Entries of the tail before the owner's own go once everything before the owner's first commit is folded;
/// until then they stay, even if one of them happens to hold nothing any more.
pub fn fold(head: &Head, fold: Fold, put_id: PutId) -> Head {
    let mut next = head.successor(put_id);
    let folded = fold.folded.lsn;
    if let Some(mut own) = next.tail.pop() {
        let own_start = own.after.max(fold.own_after);
        own.after = own_start.max(folded);
        if folded >= own_start {
            next.tail.clear();
        }
        for entry in &mut next.tail {
            entry.after = entry.after.max(folded);
        }
        next.tail.push(own);
    }
    next.folded = fold.folded;
    next.map = fold.map;
    next.inline_image = fold.image;
    next.horizon = fold.horizon;
    next.history = fold.history;
    next.fold_seq = fold.fold_seq;
    next.dead = fold.dead;
    next
}

/// Giving a database up would lose commits that are only in logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{database} is folded up to {folded:?}, but its last commit is {last:?}: fold first")]
pub struct NotFolded {
    pub database: DatabaseId,
    pub folded: Option<Lsn>,
    pub last: Option<Lsn>,
}

/// The successor that nobody owns. `last` is the last commit of the whole history; after it, the owner has
/// logged nothing, and logs nothing until it has won the database again.
pub fn release(head: &Head, last: Option<Lsn>, put_id: PutId) -> Result<Head, NotFolded> {
    if head.folded.lsn != last {
        return Err(NotFolded { database: head.database, folded: head.folded.lsn, last });
    }
    Ok(without_owner(head.successor(put_id)))
}

/// Fold and release in one write: by the owner, or by anybody once every incarnation in the tail is sealed.
pub fn drain(head: &Head, fold: Fold, last: Option<Lsn>, put_id: PutId) -> Result<Head, NotFolded> {
    let folded = self::fold(head, fold, put_id);
    let released = release(&folded, last, put_id)?;
    let epoch = if mutant::is_on(Mutant::DrainKeepsEpoch) { folded.epoch } else { released.epoch };
    Ok(Head { version: folded.version, epoch, ..released })
}

/// The name record and the head of a new, empty database. `over` is the record of the name's former life.
pub fn create(
    name: &Name,
    database: DatabaseId,
    me: IncarnationId,
    settings: Settings,
    over: Option<&NameRecord>,
    put_ids: [PutId; 2],
) -> (NameRecord, Head) {
    let state = NameState::Live { database, origin: Origin::Empty(settings), incarnation: me, is_made: false };
    let record = match over {
        None => NameRecord::new(put_ids[0], name.clone(), state),
        Some(record) => record.led_to(state, put_ids[0]),
    };
    (record, first_head(name, database, me, settings, put_ids[1]))
}

/// The first head of an empty database, owned by `me`.
pub fn first_head(
    name: &Name,
    database: DatabaseId,
    me: IncarnationId,
    settings: Settings,
    put_id: PutId,
) -> Head {
    let head = ownerless(name, database, settings, put_id);
    let tail = vec![TailEntry { incarnation: me, epoch: head.epoch, after: None }];
    Head { owner: Some(me), tail, ..head }
}

/// The first head of a database whose pages are in the bucket already, or stand in the head: an import's. Nobody owns
/// it, and what was before can't be restored.
pub fn imported(
    name: &Name,
    database: DatabaseId,
    settings: Settings,
    (folded, map, image): (Folded, MapField, Option<Bytes>),
    put_id: PutId,
) -> Head {
    let mut head = ownerless(name, database, settings, put_id);
    head.horizon = folded.lsn;
    head.folded = folded;
    head.map = map;
    head.inline_image = image;
    head
}

/// What occupies the head's key of a fork or import that was never finished.
pub fn abort(
    name: &Name,
    database: DatabaseId,
    parent: Option<ForkPoint>,
    at_micros: u64,
    put_id: PutId,
) -> Head {
    let mut head = ownerless(name, database, Settings::new(at_micros), put_id);
    head.state = HeadState::Aborted;
    head.parent = parent;
    head
}

fn ownerless(name: &Name, database: DatabaseId, settings: Settings, put_id: PutId) -> Head {
    Head {
        put_id,
        version: 1,
        epoch: 1,
        database,
        state: HeadState::Live,
        name: name.clone(),
        settings,
        parent: None,
        owner: None,
        folded: Folded::default(),
        tail: Vec::new(),
        map: MapField::default(),
        horizon: None,
        history: Bytes::new(),
        fold_seq: 0,
        pins: Vec::new(),
        pin_chunks: Vec::new(),
        dead: Vec::new(),
        inline_image: None,
    }
}

#[cfg(test)]
mod fork_tests;
#[cfg(test)]
mod tests;
