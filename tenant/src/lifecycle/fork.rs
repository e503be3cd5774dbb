//! Forks, as changes of the parent's head and as the child's first one.
//!
//! ```text
//!  name record ─▶ pack, base ─▶ CAS of the parent: fold, pin{child, base} ─▶ head of the child, put if absent
//! ```
//!
//! The pin is there before the child, so the child finds all that it begins with for as long as it lives. What a crash
//! leaves is a pin without a child: [`plan_pin`](super::plan_pin).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use walstore::id::{DatabaseId, Lsn, PutId};
use walstore::mutant::{self, Mutant};
use walstore::store::Key;

use super::ownerless;
use crate::head::{Folded, ForkPoint, Head, HeadState, MapField, Pin};
use crate::limits;
use crate::name::Name;
use crate::pins::PinChunk;
use crate::record::{NameRecord, NameState};
use crate::settings::Settings;

/// Why a database cannot be forked there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForkRefused {
    #[error("LSN {asked} is outside of what can be restored: {oldest} to {newest}")]
    Outside { asked: u64, oldest: u64, newest: u64 },
    #[error("the database {database} has ended, and its content is gone")]
    Gone { database: DatabaseId },
    #[error("the database {database} has {0} forks, and can have no more", limits::PINS_MAX * limits::PIN_CHUNKS_MAX)]
    TooMany { database: DatabaseId },
    #[error("the database `{name}` is not deleted")]
    NotDeleted { name: Name },
}

/// Whether the state after `at` can be restored from `head`, all of whose commits are folded up to there.
pub fn check_fork(head: &Head, at: Option<Lsn>) -> Result<(), ForkRefused> {
    // Nothing is needed of it then.
    if head.is_emptied() && head.folded.lsn.is_some() {
        return Err(ForkRefused::Gone { database: head.database });
    }
    let is_inside = (head.horizon..=head.folded.lsn).contains(&at);
    if is_inside || (mutant::is_on(Mutant::ForkBeforeHorizon) && at < head.horizon) {
        return Ok(());
    }
    let [asked, oldest, newest] = [at, head.horizon, head.folded.lsn].map(Lsn::raw);
    Err(ForkRefused::Outside { asked, oldest, newest })
}

/// Adds the pin of a fork that begins at `at` to a successor that is not written yet: the horizon that counts is the one
/// that this very write leaves behind. `base` is the LSN of the state that the child is made of, which is `at` or lies
/// before it.
///
/// # Panics
/// If there is no room for it: [`spill_pins`] first.
pub fn pin(next: &mut Head, child: DatabaseId, base: Option<Lsn>, at: Option<Lsn>) -> Result<(), ForkRefused> {
    if !mutant::is_on(Mutant::OldHorizon) {
        check_fork(next, at)?;
    }
    assert!(base <= at, "BUG: a fork at {at:?} of a later state, {base:?}");
    assert!(next.pins.len() < limits::PINS_MAX, "BUG: the pins of {} were not spilled", next.database);
    next.pins.push(Pin { child, lsn: base });
    Ok(())
}

/// If a successor that is not written yet has no room for another pin, moves all of them to a chunk, which is to be put
/// at `key` before.
pub fn spill_pins(next: &mut Head, key: &Key) -> Result<Option<PinChunk>, ForkRefused> {
    if next.pins.len() < limits::PINS_MAX {
        return Ok(None);
    }
    if next.pin_chunks.len() >= limits::PIN_CHUNKS_MAX {
        return Err(ForkRefused::TooMany { database: next.database });
    }
    next.pin_chunks.push(key.clone());
    Ok(Some(PinChunk { database: next.database, pins: std::mem::take(&mut next.pins) }))
}

/// The successor without the pins of the children `gone`. `chunks` says of each chunk that had some of them which one
/// takes its place, if any pins are left. `history` is what the remaining pins and the retention need of the history;
/// `fold_seq` the number that new chunks carry.
pub fn unpin(
    head: &Head,
    gone: &BTreeSet<DatabaseId>,
    chunks: &BTreeMap<Key, Option<Key>>,
    history: Bytes,
    fold_seq: u32,
    put_id: PutId,
) -> Head {
    let mut next = head.successor(put_id);
    next.pins.retain(|pin| !gone.contains(&pin.child));
    let replaced = |key: Key| match chunks.get(&key) {
        Some(replacement) => replacement.clone(),
        None => Some(key),
    };
    next.pin_chunks = next.pin_chunks.into_iter().filter_map(replaced).collect();
    next.history = history;
    next.fold_seq = fold_seq;
    next
}

/// What a fork begins with.
#[derive(Clone, Debug)]
pub struct Beginning {
    pub parent: DatabaseId,
    /// The last commit that it shares with its parent, and what that left behind.
    pub folded: Folded,
    pub map: MapField,
    pub image: Option<Bytes>,
    pub history: Bytes,
}

/// The first head of a fork. Nobody owns it, and no log has commits of it: its parent's tail is not its own.
pub fn child_head(
    name: &Name,
    child: DatabaseId,
    beginning: Beginning,
    settings: Settings,
    put_id: PutId,
) -> Head {
    let Beginning { parent, folded, map, image, history } = beginning;
    let head = ownerless(name, child, settings, put_id);
    Head {
        parent: Some(ForkPoint { parent, lsn: folded.lsn }),
        folded,
        map,
        inline_image: image,
        horizon: folded.lsn,
        history,
        ..head
    }
}

/// The databases that `record`'s name led to, the last one first. A fork under the same name of the first of them that ever
/// lived undoes its deletion: an undelete that was cut off leaves one that never did.
pub fn undelete_of(record: &NameRecord) -> Result<impl Iterator<Item = DatabaseId>, ForkRefused> {
    match record.state {
        NameState::Deleted { database, .. } => Ok(std::iter::once(database).chain(record.past.iter().rev().copied())),
        NameState::Live { .. } => Err(ForkRefused::NotDeleted { name: record.name.clone() }),
    }
}

impl Head {
    /// What a fork's first head is, besides what holds in every head. An error is a bug of whoever made it.
    pub fn check_first(&self) -> Result<(), String> {
        self.check().map_err(|broken| broken.reason)?;
        let is_first = self.version == 1 && self.fold_seq == 0;
        let is_alone = self.epoch == 1 && self.owner.is_none() && self.tail.is_empty();
        let is_nobodys = is_alone || mutant::is_on(Mutant::ForeignTail);
        let is_free = !self.is_pinned() && self.dead.is_empty();
        let begins = self.parent.is_some_and(|parent| parent.lsn == self.folded.lsn && parent.parent != self.database);
        let is_child = begins && self.horizon == self.folded.lsn && self.state == HeadState::Live;
        match is_first && is_nobodys && is_free && is_child {
            true => Ok(()),
            false => Err(format!("{} does not begin as a fork does", self.database)),
        }
    }
}
