//! How a head ends, and what stays of it.

use bytes::Bytes;
use walstore::id::{DatabaseId, Lsn, PutId};

use super::{NotFolded, release};
use crate::head::{Head, HeadState, MapField};
use crate::settings::Settings;

/// The final successor of a database that is deleted. Its owner has stopped writing.
///
/// What is not folded is given up with it: who wants all of it to be there for an undelete folds first.
/// Pins, page map and dead list stay, for forks and for the retention.
///
/// One that nobody owns may be deleted by anybody who knows that it must go: all of it is folded.
pub fn delete(head: &Head, at_micros: u64, put_id: PutId) -> Head {
    let mut next = without_owner(head.successor(put_id));
    // Whatever the clock says: what was committed before is kept for as long as was promised.
    next.state = HeadState::Deleted { at_micros: at_micros.max(head.folded.time_micros) };
    next
}

/// The final successor of a database that is restored in place: its name belongs to `new` now. `last` is the last
/// commit of the whole history, as in [`release`]; all of it stays, for whoever wants the restore undone.
///
/// `new` has a head already. If it had none, a crash would leave a name that leads nowhere.
pub fn moved(head: &Head, new: DatabaseId, last: Option<Lsn>, put_id: PutId) -> Result<Head, NotFolded> {
    let mut next = release(head, last, put_id)?;
    next.state = HeadState::Moved { new };
    Ok(next)
}

/// The successor of a head that has ended, without its content. `history` is what its pins need of its history, which is
/// nothing if there are none: then it is the small tombstone that stays for ever.
///
/// This unlinks the database's objects, so they may be deleted once it is written and not before: whoever forks the
/// database meanwhile pins it, and then this write loses.
///
/// # Panics
/// If the database lives, or something is to be kept for no pin.
pub fn shrink(head: &Head, history: Bytes, put_id: PutId) -> Head {
    assert!(head.state.is_final(), "BUG: {} lives", head.database);
    assert!(head.is_pinned() || history.is_empty(), "BUG: {} keeps history for nobody", head.database);
    let mut next = head.successor(put_id);
    next.map = MapField::default();
    next.dead.clear();
    next.inline_image = None;
    next.horizon = head.folded.lsn;
    next.history = history;
    next
}

/// The successor with other settings. When the database was created stays.
///
/// A shorter retention takes effect with the next fold, which advances the horizon; a longer one keeps what is there
/// from now on.
pub fn with_settings(head: &Head, settings: Settings, put_id: PutId) -> Head {
    let mut next = head.successor(put_id);
    next.settings = Settings { created_micros: head.settings.created_micros, ..settings };
    next
}

pub(super) fn without_owner(mut head: Head) -> Head {
    if head.owner.is_some() {
        head.epoch += 1;
        head.fold_seq = 0;
    }
    head.owner = None;
    head.tail.clear();
    head
}
