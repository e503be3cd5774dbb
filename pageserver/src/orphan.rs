//! What an object is that nothing refers to (I8): provably dead, or maybe on its way to be linked.
//!
//! Upload comes before publish, so an orphan is legal. It is dead once its writer can never link it: the CAS that
//! would do so was made from a version of the head, or of the record, that has been replaced for good. Times of
//! objects prove nothing and are not looked at.

use segments::history::HistoryIndex;
use segments::id::{MapChunkId, PackId};
use segments::keys::{self, Object};
use tenant::head::{Head, Pin};
use walstore::id::{IncarnationId, Slot};
use walstore::incarnation::{IncarnationRecord, State};
use walstore::mutant::{self, Mutant};
use walstore::store::Key;

use crate::fold::keeps_past;

/// Whether an orphan may be deleted, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody reads it, and nobody can come to.
    Dead(&'static str),
    /// It may belong to something in flight, or its owner deletes it in time.
    Waiting(&'static str),
}

impl Standing {
    pub fn is_dead(self) -> bool {
        matches!(self, Self::Dead(_))
    }

    pub fn why(self) -> &'static str {
        match self {
            Self::Dead(why) | Self::Waiting(why) => why,
        }
    }
}

/// Who wrote it: epoch and number of the fold.
fn fold_of(object: Object) -> (u64, u32) {
    match object {
        Object::Pack(PackId { epoch, seq, .. }) | Object::MapChunk(MapChunkId { epoch, seq, .. }) => (epoch, seq),
    }
}

/// A pack or another object under the keys of `head`'s database that the head does not [lead to](crate::collect::reach).
/// `is_unlinked`: it is on the head's dead list.
///
/// `head` was read after the object had been seen in a listing. `is_owner_over`: nobody owns the database, or the
/// log of who does has an end, or it is the owner who asks; nobody reads what an older head referred to any more.
pub fn of_database(head: &Head, object: Object, is_unlinked: bool, is_owner_over: bool) -> Standing {
    if head.is_shrunk() {
        return Standing::Dead("its database has ended");
    }
    if !are_pins_kept(head) {
        return Standing::Waiting("a fork may need it");
    }
    if head.is_emptied() {
        // Emptying it has replaced the head from which a fork would have pinned, and one that looks again is refused.
        return Standing::Dead("its database has ended, and no fork of it can begin any more");
    }
    if head.state.is_final() && !head.is_pinned() {
        return Standing::Waiting("its database has ended; a sweep collects it after the retention");
    }
    if is_unlinked {
        return match is_owner_over {
            true => Standing::Dead("unlinked, and nobody reads the database"),
            false => Standing::Waiting("unlinked; the owner deletes it when no reader needs it"),
        };
    }
    if keeps_past(head) && !is_owner_over {
        return Standing::Waiting("it may have been unlinked; the owner collects it when no reader needs it");
    }
    let (epoch, seq) = fold_of(object);
    if epoch < head.epoch || mutant::is_on(Mutant::SweepPresentEpoch) {
        return Standing::Dead("not linked, and its writer's term is over");
    }
    if is_owner_over && epoch == head.epoch && seq <= head.fold_seq {
        return Standing::Dead("not linked, and a later fold is");
    }
    Standing::Waiting("its writer may link it yet")
}

/// Whether it is known what each fork needs. A pin without its base would be damage: then nothing is dead.
fn are_pins_kept(head: &Head) -> bool {
    let Ok(index) = HistoryIndex::decode(&head.history) else { return false };
    let is_kept = |pin: &Pin| pin.lsn.is_none_or(|lsn| index.pinned().any(|(kept, _)| kept == lsn));
    head.pins.iter().all(is_kept) || mutant::is_on(Mutant::PinWithoutBase)
}

/// An object in a slot that is no part of the log of `record`; `None` if it is.
pub fn of_slot(record: &IncarnationRecord, slot: Slot) -> Option<Standing> {
    match record.state {
        State::Sealed { end } if slot == end => None,
        State::Sealed { end } if slot > end => Some(Standing::Dead("behind the end of its log")),
        _ if slot < record.low => Some(Standing::Dead("below what its log still needs")),
        _ => None,
    }
}

/// A bundle or side object to which nothing in the log of `record` refers.
pub fn of_log(record: &IncarnationRecord) -> Standing {
    match record.state {
        State::Sealed { end } if record.low == end => Standing::Dead("its log is bundled without it"),
        State::Sealed { .. } => Standing::Waiting("its log is not bundled yet"),
        State::Open | State::Recovering => Standing::Waiting("its log has no end yet"),
    }
}

/// Which incarnation's log `key` belongs to.
pub fn log_of(key: &Key) -> Option<IncarnationId> {
    match walstore::keys::parse(key)? {
        walstore::keys::Object::Incarnation(id)
        | walstore::keys::Object::Live(id)
        | walstore::keys::Object::Fragment(id, _)
        | walstore::keys::Object::Side(id, _)
        | walstore::keys::Object::Bundle { incarnation: id, .. } => Some(id),
    }
}

/// The pack or chunk at `key`.
pub fn object_of(key: &Key) -> Option<Object> {
    keys::parse(key.as_str())
}
