//! What draining a sealed log asks of the heads that have commits in it, as pure decisions.
//!
//! A drainer owns nothing. It may forget a log only when no head's history goes through a commit in it any more, and
//! it may fold a tail only when every log in it has an end.

use walstore::id::{IncarnationId, Lsn};
use walstore::mutant::{self, Mutant};

use crate::head::Head;

/// Whether the history of this head goes through commits in the log of `id` that are not folded. `last` has the last
/// LSN of the database in that log, for each epoch.
pub fn needs(head: &Head, id: IncarnationId, last: &[(u64, Lsn)]) -> bool {
    if mutant::is_on(Mutant::ForgetNeeded) {
        return false;
    }
    let is_held = |(epoch, lsn): &(u64, Lsn)| head.tail.iter().any(|entry| entry.holds(id, *epoch, *lsn));
    !head.state.is_final() && last.iter().any(|last| Some(last.1) > head.folded.lsn && is_held(last))
}

/// A commit in the log of `id` that cannot have been made under this head, by its epoch: the head that it was made under
/// was lost, and somebody took that for a creation that had not been finished. `None` is as it must be.
///
/// An epoch has one owner, and only he logs commits of it. Once the new head has reached that epoch under other owners,
/// nothing tells any more.
pub fn unknown_to(head: &Head, id: IncarnationId, last: &[(u64, Lsn)]) -> Option<Lsn> {
    let is_foreign = |epoch: u64| epoch > head.epoch || (epoch == head.epoch && head.owner != Some(id));
    last.iter().find(|(epoch, _)| is_foreign(*epoch)).map(|(_, lsn)| *lsn)
}

/// The last commit before the first one of the tail's last owner. `commits` are epoch and LSN of all that come after
/// the folded point, in order.
pub fn own_after(head: &Head, commits: impl Iterator<Item = (u64, Lsn)>) -> Option<Lsn> {
    let own = head.tail.last().map(|entry| entry.epoch);
    let before = commits.take_while(|(epoch, _)| Some(*epoch) != own);
    before.last().map_or(head.folded.lsn, |(_, lsn)| Some(lsn))
}
