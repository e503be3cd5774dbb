//! Dead space of databases that nobody owns.
//!
//! An owner compacts what it lets idle. One that died busy, or gave the database up while others wrote to it, has left up
//! to a database's worth of dead space, and who drained it has only added a fold. All of such a database is folded, so
//! whoever replaces the very head that he read may lay the same pages out anew: the steps are the owner's, and each is one
//! CAS. An acquire that comes between makes the CAS lose, and what was written for it is an orphan of a term that is over.
//! Who still reads what an earlier head referred to, a replica or a moment of the past, looks at the head again.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use tenant::head::{Head, PackRef};
use tracing::{debug, warn};
use walstore::register::Versioned;
use walstore::store::Key;

use super::{Collected, Sweeper};
use crate::fold::{FoldFailure, Folder};
use crate::{garbage, limits};

impl Sweeper {
    /// Compacts what nobody owns, one step after the other. Whether anything has changed. `listed` is what lay under its
    /// keys before its head was read.
    pub(super) async fn compact(&self, head: &Versioned<Head>, listed: &[Key], collected: &mut Collected) -> bool {
        if head.value.owner.is_some() || self.compactions_left.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let mut steps = 0;
        if let Err(failure) = self.compact_by(&self.folder(), head, listed, &mut steps).await {
            told(&head.value, failure, collected);
        }
        collected.compactions += steps;
        if steps > 0 {
            debug!(database = %head.value.database, steps, "compacted");
        }
        steps > 0
    }

    async fn compact_by(
        &self,
        folder: &Folder<'_>,
        head: &Versioned<Head>,
        listed: &[Key],
        steps: &mut u64,
    ) -> Result<(), FoldFailure> {
        let mut next = folder.first_unowned_step(head.clone()).await?;
        let listed: BTreeSet<&Key> = listed.iter().collect();
        let is_listed = |entry: &PackRef| garbage::key_of(entry).is_ok_and(|key| listed.contains(&key));
        // Most of what a drained head lists is gone long since.
        let (mut dead, mut deleted): (Vec<PackRef>, Vec<PackRef>) = head.value.dead.iter().cloned().partition(is_listed);
        while let Some(step) = next.take().filter(|_| self.may_compact(*steps)) {
            // Whoever acquires it meanwhile begins with this head or a later one, and none of them needs these.
            deleted.extend(garbage::delete(&*self.stores.main, dead).await);
            next = folder.compact_unowned(step, std::mem::take(&mut deleted)).await?;
            *steps += 1;
            dead = next.as_ref().map(|step| step.head().dead.clone()).unwrap_or_default();
            self.seam.sleep(limits::COMPACTION_PAUSE).await;
        }
        Ok(())
    }

    /// Whether another step fits into what one walk may do, of one database and in all.
    fn may_compact(&self, steps: u64) -> bool {
        let take = |left: u64| left.checked_sub(1);
        steps < limits::COMPACTIONS_OF_DATABASE_MAX
            && self.compactions_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Whether a database would be compacted if nobody owned it.
    pub(super) async fn has_dead_space(&self, head: &Versioned<Head>, collected: &mut Collected) -> bool {
        match self.folder().first_unowned_step(head.clone()).await {
            Ok(step) => step.is_some(),
            Err(failure) => {
                told(&head.value, failure, collected);
                false
            }
        }
    }

    /// What it reads nobody has asked for, so it is not kept where others' pages are.
    fn folder(&self) -> Folder<'_> {
        Folder { store: &*self.stores.main, seam: &self.seam, fetcher: self.drainer.fetcher() }
    }
}

/// It can wait for the next sweep, and keeps this one from nothing else.
fn told(head: &Head, failure: FoldFailure, collected: &mut Collected) {
    if let FoldFailure::Lost(_) = failure {
        return debug!(database = %head.database, "somebody has taken it meanwhile");
    }
    warn!(database = %head.database, %failure, "cannot give its dead space back yet");
    collected.skipped += 1;
}
