//! Dead space of databases that nobody owns.
//!
//! An owner compacts what it lets idle. One that died busy, or gave the database up while others wrote to it, has left up
//! to a database's worth of dead space, and who drained it has only added a fold. Nobody reads such a database, and all of
//! it is folded, so whoever replaces the very head that he read may lay the same pages out anew: the steps are the
//! owner's, and each is one CAS. An acquire that comes between makes the CAS lose, and what was written for it is an orphan
//! of a term that is over.

use tenant::head::{Head, HeadState, MapField};
use tracing::{debug, warn};
use walstore::id::DatabaseId;
use walstore::register::{RecordError, Versioned};

use super::{Collected, SweepError, Sweeper};
use crate::fold::{FoldFailure, Folder};
use crate::{garbage, limits};

impl Sweeper {
    /// Compacts what nobody owns, up to [`limits::COMPACTIONS_PER_SWEEP_MAX`] steps. Whether anything has changed.
    pub(super) async fn compact(&self, head: &Versioned<Head>, collected: &mut Collected) -> Result<bool, SweepError> {
        let mut head = head.clone();
        if !may_be_compacted(&head.value) || head.value.owner.is_some() {
            return Ok(false);
        }
        let database = head.value.database;
        let mut steps = 0;
        while steps < limits::COMPACTIONS_PER_SWEEP_MAX {
            // Whoever acquires it meanwhile begins with this head or a later one, and none of them needs these.
            let deleted = garbage::delete(&*self.stores.main, head.value.dead.clone()).await;
            match self.folder().compact_unowned(head, deleted).await {
                Ok(Some(next)) => head = next,
                Ok(None) => break,
                Err(failure) => return told(database, failure).map(|()| steps > 0),
            }
            steps += 1;
            collected.compactions += 1;
        }
        if steps > 0 {
            debug!(%database, steps, "compacted");
        }
        Ok(steps > 0)
    }

    /// Whether a database would be compacted if nobody owned it.
    pub(super) async fn has_dead_space(&self, head: &Versioned<Head>) -> Result<bool, SweepError> {
        if !may_be_compacted(&head.value) {
            return Ok(false);
        }
        match self.folder().has_dead_space(head.clone()).await {
            Ok(has) => Ok(has),
            Err(failure) => told(head.value.database, failure).map(|()| false),
        }
    }

    fn folder(&self) -> Folder<'_> {
        Folder { store: &*self.stores.main, seam: &self.seam, fetcher: &self.fetcher }
    }
}

/// A fork that has folded nothing has nothing of its own.
fn may_be_compacted(head: &Head) -> bool {
    head.state == HeadState::Live && head.has_folded() && matches!(head.map, MapField::Inline(_))
}

/// Only the store's own failures end a sweep: everything else can wait for the next one.
fn told(database: DatabaseId, failure: FoldFailure) -> Result<(), SweepError> {
    match failure {
        FoldFailure::Lost(_) => debug!(%database, "somebody has taken it meanwhile"),
        FoldFailure::Record(RecordError::Store(error)) => return Err(error.into()),
        failure => warn!(%database, %failure, "cannot give its dead space back yet"),
    }
    Ok(())
}
