//! What holds between a head and the one that replaces it.

use super::{Head, HeadState, MapField, TailEntry};

/// Checked before every CAS. An error is a bug of the caller, told as what would have broken.
///
/// | rule | broken, it would mean |
/// |---|---|
/// | the version rises by one, with a new put id | a CAS that cannot recognise itself |
/// | database, name, parent and time of creation stay | one database in another's place |
/// | the epoch rises by one exactly when the owner changes | two owners with the same epoch |
/// | without an owner only pins, history, horizon and where the pages of a living one are change, or the life ends; a final head also lets go of its content | a write that no fence stops |
/// | a pin is set by an owner, or on a final head that still has its content | a fork of what is gone |
/// | an acquire changes owner, epoch and tail, and nothing else | pages from before the tail was read |
/// | folds of one epoch number on, and from 0 again in the next | an object that is linked taken for a dead one |
/// | final states stay final | a deleted database that comes back |
/// | folded point, horizon and their counters never fall | an acknowledged commit gone |
/// | the tail loses entries only from its front | a hole in the history |
pub fn invariant(before: &Head, after: &Head) -> Result<(), String> {
    after.check().map_err(|broken| broken.reason)?;
    identity(before, after)?;
    state(before, after)?;
    ownership(before, after)?;
    folded(before, after)?;
    fold_seq(before, after)?;
    pins(before, after)?;
    tail(before, after)
}

fn demand(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn identity(before: &Head, after: &Head) -> Result<(), String> {
    demand(after.database == before.database, || {
        format!("a head of {} in place of one of {}", after.database, before.database)
    })?;
    demand(before.version.checked_add(1) == Some(after.version), || {
        format!("version {} after {}", after.version, before.version)
    })?;
    demand(after.put_id != before.put_id, || "the put id of the version before".into())?;
    let kept = after.name == before.name
        && after.parent == before.parent
        && after.settings.created_micros == before.settings.created_micros;
    demand(kept, || "another name, parent or time of creation".into())
}

fn state(before: &Head, after: &Head) -> Result<(), String> {
    let is_allowed = match (&before.state, &after.state) {
        (old, new) if old == new => true,
        // The old database of a restore or a rename can be dropped for good.
        (HeadState::Live | HeadState::Moved { .. } | HeadState::Renamed { .. }, HeadState::Deleted { .. }) => true,
        (HeadState::Live, HeadState::Moved { .. } | HeadState::Renamed { .. }) => true,
        _ => false,
    };
    demand(is_allowed, || format!("{:?} after {:?}", after.state, before.state))
}

fn ownership(before: &Head, after: &Head) -> Result<(), String> {
    let changes = before.owner != after.owner;
    demand(before.epoch.checked_add(u64::from(changes)) == Some(after.epoch), || {
        let (old, new) = (before.owner, after.owner);
        format!("epoch {} after {} while the owner was {old:?} and is {new:?}", after.epoch, before.epoch)
    })?;
    match after.owner {
        Some(_) if changes => acquired(before, after),
        Some(_) => Ok(()),
        None if changes => Ok(()),
        None => nobodys(before, after),
    }
}

fn acquired(before: &Head, after: &Head) -> Result<(), String> {
    let expected = Head {
        put_id: after.put_id,
        version: after.version,
        epoch: after.epoch,
        owner: after.owner,
        fold_seq: 0,
        tail: after.tail.clone(),
        ..before.clone()
    };
    demand(*after == expected, || "an acquire that changes more than the owner".into())?;
    let entries = after.tail.split_last().map(|(_, earlier)| earlier);
    demand(entries == Some(&before.tail[..]), || "an acquire that changes earlier entries of the tail".into())
}

/// Everything of a head that nobody owns is folded, so whoever replaces the very version that he read knows all of it:
/// also how the same pages can lie closer together. What that writes goes by the number of a fold.
fn nobodys(before: &Head, after: &Head) -> Result<(), String> {
    let mut expected = Head {
        put_id: after.put_id,
        version: after.version,
        state: after.state.clone(),
        horizon: after.horizon,
        history: after.history.clone(),
        fold_seq: after.fold_seq,
        pins: after.pins.clone(),
        pin_chunks: after.pin_chunks.clone(),
        ..before.clone()
    };
    let is_compacted = after.fold_seq > before.fold_seq && before.state == after.state && !before.state.is_final();
    let has_pages = |map: &MapField| matches!(map, MapField::Inline(root) if !root.is_empty());
    if is_compacted && has_pages(&before.map) && has_pages(&after.map) {
        expected.map = after.map.clone();
        expected.inline_image = after.inline_image.clone();
        expected.dead = after.dead.clone();
    }
    if before.state.is_final() && after.is_emptied() {
        expected.map = MapField::default();
        expected.inline_image = None;
        expected.dead.clear();
    }
    demand(*after == expected, || "a write without an owner".into())
}

/// Pins move from the head to a chunk and leave from both; what is in chunks cannot be told here.
fn pins(before: &Head, after: &Head) -> Result<(), String> {
    let is_new = |pin| !before.pins.contains(pin);
    if !after.pins.iter().any(is_new) && after.pin_chunks.len() <= before.pin_chunks.len() {
        return Ok(());
    }
    let is_owned = before.owner.is_some() && before.owner == after.owner;
    demand(is_owned || before.state.is_final(), || "a pin without an owner".into())?;
    // An empty database has no content that could be gone.
    demand(!before.is_emptied() || before.folded.lsn.is_none(), || "a pin of what is gone".into())
}

fn folded(before: &Head, after: &Head) -> Result<(), String> {
    let (old, new) = (&before.folded, &after.folded);
    demand(new.lsn >= old.lsn, || format!("folded falls from {:?} to {:?}", old.lsn, new.lsn))?;
    if new.lsn == old.lsn {
        demand(new == old, || format!("another commit {:?} is folded", new.lsn))?;
    } else {
        demand(new.time_micros > old.time_micros, || "commit time does not rise with the LSN".into())?;
        demand(new.pages_total > old.pages_total, || "cumulative pages do not rise with the LSN".into())?;
    }
    demand(after.horizon >= before.horizon, || {
        format!("the horizon falls from {:?} to {:?}", before.horizon, after.horizon)
    })
}

fn fold_seq(before: &Head, after: &Head) -> Result<(), String> {
    let is_right = match after.epoch == before.epoch {
        true => after.fold_seq >= before.fold_seq,
        false => after.fold_seq == 0,
    };
    demand(is_right, || format!("fold {} at epoch {} after {}", after.fold_seq, after.epoch, before.fold_seq))
}

/// With an owner that stays, entries keep their place and move up; entries at the front may go, for the
/// first that stays must begin at the folded point ([`Head::check`]). An owner that leaves takes the whole
/// tail with it, which is right only if everything is folded: whoever makes that successor proves it.
fn tail(before: &Head, after: &Head) -> Result<(), String> {
    if after.owner.is_none() || after.owner != before.owner {
        return Ok(());
    }
    let gone = before.tail.len().checked_sub(after.tail.len());
    let gone = gone.ok_or_else(|| "the tail grows without an acquire".to_owned())?;
    let same = |(old, new): (&TailEntry, &TailEntry)| {
        old.incarnation == new.incarnation && old.epoch == new.epoch && old.after <= new.after
    };
    demand(before.tail[gone..].iter().zip(&after.tail).all(same), || {
        format!("the tail {:?} becomes {:?}", before.tail, after.tail)
    })
}
