//! Compacting a database that nobody owns, by the owner's steps.

use segments::base::BaseParts;
use segments::fold::{FoldInput, FoldPlan, plan_own_compaction};
use segments::image::Image;
use segments::map::PageMap;
use segments::tip::Tip;
use tenant::head::{Head, HeadState, MapField, PackRef};
use walstore::register::{Patience, RecordError, Versioned};

use super::{FoldFailure, FoldJob, Folder};
use crate::base::base_of;
use crate::history::index_of;
use crate::limits;

/// A database that nobody owns, or whose owner is over, between two steps. Its page map stays in memory.
pub struct Unowned {
    pub head: Versioned<Head>,
    tip: Tip,
    map: PageMap,
    image: Option<Image>,
}

impl Folder<'_> {
    /// The first step for such a database. `None`: there is none, or what it would replace is needed all the same, for the
    /// past or for forks.
    pub async fn unowned(&self, head: Versioned<Head>) -> Result<Option<(Unowned, FoldPlan)>, FoldFailure> {
        let it = &head.value;
        let is_its_own = matches!(it.map, MapField::Inline(_)) && !it.is_pinned();
        if it.state != HeadState::Live || !it.has_folded() || !is_its_own {
            return Ok(None);
        }
        // Else bases of the history lead to what lies in packs now. What is older than the horizon goes in the same step.
        let index = index_of(it).map_err(RecordError::from)?;
        if self.horizon(it, &index, it.folded.lsn) != it.folded.lsn {
            return Ok(None);
        }
        let BaseParts { tip, map, image } = base_of(self.fetcher, it).await?;
        self.next_step(Unowned { head, tip, map, image }).await
    }

    /// Does this step, and plans the next. `deleted` are entries of its dead list that are gone.
    pub async fn compact_unowned(
        &self,
        (at, plan): (Unowned, FoldPlan),
        deleted: Vec<PackRef>,
    ) -> Result<(Versioned<Head>, Option<(Unowned, FoldPlan)>), FoldFailure> {
        let patience = Patience::for_duration(self.seam, limits::FOLD_PATIENCE);
        let tip = at.tip;
        let (job, image) = at.into_job(deleted);
        let built = self.build_by(None, &job, &plan, image.as_ref()).await?;
        let made = self.write(&job, built, patience).await?;
        let linked = self.finish(job, image, Some(made), patience).await?;
        let next = Unowned { head: linked.head.clone(), tip, map: linked.map, image: linked.image };
        Ok((linked.head, self.next_step(next).await?))
    }

    async fn next_step(&self, at: Unowned) -> Result<Option<(Unowned, FoldPlan)>, FoldFailure> {
        let (head, tip) = (at.head.clone(), at.tip);
        let (mut job, image) = at.into_job(Vec::new());
        let plan = self.compaction(&mut job, image.as_ref(), plan_own_compaction).await?;
        Ok(plan.map(|plan| (Unowned { head, tip, map: job.map, image }, plan)))
    }
}

impl Unowned {
    fn into_job(self, deleted: Vec<PackRef>) -> (FoldJob, Option<Image>) {
        let Self { head, tip, map, image } = self;
        let input = FoldInput::new(head.value.database, &map);
        let (own_after, seq) = (tip.lsn, head.value.fold_seq + 1);
        (FoldJob { head, map, input, tip, own_after, seq, deleted, release: false, pin: None }, image)
    }
}
