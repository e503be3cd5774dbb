//! Folds of databases that stand in their head as a whole, or might.
//!
//! Such a database has no object but its head. The fold writes all of it into the new head; once it is too large,
//! the same pack goes into the bucket instead.

use bytes::Bytes;
use segments::fold::{Folded, plan_whole, wants_image};
use segments::image::{Image, WholeImage};
use segments::map::PageMap;
use tenant::head::Head;
use walstore::register::{Patience, RecordError};

use super::{FoldFailure, FoldJob, Folder, Made};
use crate::base::image_of;
use crate::garbage;

pub(super) fn of_head(head: &Head) -> Result<Option<Image>, RecordError> {
    Ok(image_of(head).map_err(|corrupt| corrupt.at(tenant::keys::head(head.database)))?)
}

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
        let mut folded = self.build(job, &plan, image).await?;
        // What stood in the former head was in no pack of the bucket.
        folded.dead.retain(|pack| !image.is_some_and(|image| image.is_pack(pack)));
        let whole = folded.pack.as_ref().and_then(|pack| WholeImage::of_pack(pack, bytes_max));
        match whole {
            Some(whole) => self.keep(job, folded, whole).map(Some),
            // It has outgrown its head, or would have been one segment or two in any case.
            None if was_in_head || job.map.lsn().is_none() => self.write(job, folded, patience).await.map(Some),
            // Too large to come back into it after all.
            None => Ok(None),
        }
    }

    /// Nothing goes into the bucket but the head.
    fn keep(&self, job: &FoldJob, folded: Folded, whole: WholeImage) -> Result<Made, FoldFailure> {
        let stored = folded.map.store(&mut || unreachable!("BUG: the map of a small database has no objects"));
        let (root, map): (Bytes, PageMap) = (stored.root, stored.map);
        if let Some(pack) = &folded.pack {
            self.keep_in_cache(pack, &map)?;
        }
        let mut dead: Vec<_> = folded.dead.iter().map(garbage::dead_pack).collect();
        dead.extend(job.map.chunk_ids().iter().map(garbage::dead_chunk));
        Ok(Made { root, map, image: Some(Image::Whole(whole)), dead })
    }
}
