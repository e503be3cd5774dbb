//! Compacting a database that nobody owns, by the owner's steps.

use segments::base::BaseParts;
use segments::fold::{FoldInput, FoldPlan, plan_own_compaction};
use segments::image::Image;
use tenant::head::{Head, HeadState, MapField, PackRef};
use walstore::register::{RecordError, Versioned};

use super::{FoldFailure, FoldJob, Folder};
use crate::base::base_of;
use crate::history::index_of;

/// A step of compacting a database that nobody owns, or whose owner is over. The page map stays in memory from one to the
/// next.
pub struct UnownedStep {
    job: FoldJob,
    image: Option<Image>,
    plan: FoldPlan,
}

impl UnownedStep {
    /// The head that the step replaces.
    pub fn head(&self) -> &Head {
        &self.job.head.value
    }
}

impl Folder<'_> {
    /// The first step for such a database. `None`: there is none, or what it would replace is needed all the same, for the
    /// past or for forks.
    pub async fn first_unowned_step(&self, head: Versioned<Head>) -> Result<Option<UnownedStep>, FoldFailure> {
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
        let base = base_of(self.fetcher, it).await?;
        self.next_unowned_step(head, base).await
    }

    /// Does this step, and plans the next. `deleted` are entries of its dead list that are gone.
    pub async fn compact_unowned(
        &self,
        step: UnownedStep,
        deleted: Vec<PackRef>,
    ) -> Result<Option<UnownedStep>, FoldFailure> {
        let UnownedStep { job, image, plan } = step;
        let tip = job.tip;
        let linked = self.compact_as(FoldJob { deleted, ..job }, image, &plan, None).await?;
        self.next_unowned_step(linked.head, BaseParts { tip, map: linked.map, image: linked.image }).await
    }

    async fn next_unowned_step(
        &self,
        head: Versioned<Head>,
        BaseParts { tip, map, image }: BaseParts,
    ) -> Result<Option<UnownedStep>, FoldFailure> {
        let input = FoldInput::new(head.value.database, &map);
        let (own_after, seq) = (tip.lsn, head.value.fold_seq + 1);
        let mut job =
            FoldJob { head, map, input, tip, own_after, seq, deleted: Vec::new(), release: false, pin: None };
        let plan = self.compaction(&mut job, image.as_ref(), plan_own_compaction).await?;
        Ok(plan.map(|plan| UnownedStep { job, image, plan }))
    }
}
