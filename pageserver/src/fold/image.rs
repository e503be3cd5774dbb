//! Folds of databases that stand in their head as a whole, or might.
//!
//! Such a database has no object but its head. The fold writes all of it into the new head; once it is too large,
//! the same pack goes into the bucket instead.

use bytes::Bytes;
use segments::fold::{Folded, plan_whole, wants_image};
use segments::image::{Image, WholeImage};
use segments::map::PageMap;
use walstore::register::Patience;

use super::{Built, FoldFailure, FoldJob, Folder, Made, dead_of};
use crate::garbage;

impl Folder<'_> {
    /// The fold that writes the database whole, if there is to be one.
    pub(super) async fn fold_whole(
        &self,
        job: &mut FoldJob,
        image: Option<&Image>,
        patience: Patience,
    ) -> Result<Option<Made>, FoldFailure> {
        let was_in_head = matches!(image, Some(Image::Whole(_)));
        let Some(bytes_max) = wants_image(&job.map, &job.input, was_in_head) else { return Ok(None) };
        let Some(plan) = self.plan(job, plan_whole).await? else { return Ok(None) };
        // What stands in the head must stay small, so the commits go to a pack of their own.
        let commits = std::mem::take(&mut job.input.commits);
        let mut folded = self.build(job, &plan, image).await?;
        // What stood in the former head was in no pack of the bucket.
        folded.dead.retain(|pack| !image.is_some_and(|image| image.is_pack(pack)));
        let whole = folded.pack.as_ref().and_then(|pack| WholeImage::of_pack(pack, bytes_max));
        let mut made = match whole {
            Some(whole) => self.keep(job, folded, whole)?,
            // It has outgrown its head, or would have been one segment or two in any case.
            None if was_in_head || job.map.lsn().is_none() => {
                self.write(job, Built { folded, is_stored: false }, patience).await?
            }
            // Too large to come back into it after all.
            None => {
                job.input.commits = commits;
                return Ok(None);
            }
        };
        let pack = self.put_commits(job, &commits, patience, &mut made.written).await?;
        made.history = pack.and_then(|pack| Some((pack.id, pack.history?)));
        Ok(Some(made))
    }

    /// Nothing goes into the bucket but the head.
    fn keep(&self, job: &FoldJob, folded: Folded, whole: WholeImage) -> Result<Made, FoldFailure> {
        let stored = folded.map.store(&mut || unreachable!("BUG: the map of a small database has no objects"));
        let (root, map): (Bytes, PageMap) = (stored.root, stored.map);
        if let Some(pack) = &folded.pack {
            self.keep_in_cache(pack, &map)?;
        }
        let owner = job.head.value.database;
        let mut dead = dead_of(job, &folded.dead);
        dead.extend(job.map.chunk_ids().iter().filter(|id| id.owner == owner).map(garbage::dead_chunk));
        Ok(Made { root, map, image: Some(Image::Whole(whole)), dead, history: None, written: Vec::new() })
    }
}
