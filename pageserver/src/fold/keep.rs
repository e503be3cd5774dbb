//! What a fold keeps of the past: the commits that it folded, bases to start from, and where forks begin.
//!
//! All of it is linked by the fold's one CAS, in the head's history index. What leaves the index in the same CAS can be
//! collected after it, and the horizon rises no later than that.

use bytes::Bytes;
use segments::base::{BaseRef, StoredBase};
use segments::history::{HistoryIndex, Run};
use segments::id::{MapChunkId, PackId};
use segments::keys;
use segments::pack::history::History;
use segments::pack::{Pack, PackWriter};
use tenant::head::{Head, MapField};
use tenant::keys::Written;
use tenant::lifecycle;
use tracing::warn;
use walstore::id::Lsn;
use walstore::mutant::{self, Mutant};
use walstore::register::{Patience, RecordError};
use walstore::store::Key;

use super::{FoldFailure, FoldJob, FoldPin, Folder, Made, PinAt};
use crate::base::{shared_of, tip_of};
use crate::history::{index_of, read_chunk};
use crate::limits;
use crate::tail::keeps_commits;

/// What the head will say of the past.
pub(super) struct Kept {
    pub index: HistoryIndex,
    pub horizon: Option<Lsn>,
    /// The base at which a fork begins.
    pub pinned: Option<(Lsn, BaseRef)>,
}

/// Whether something besides the page map refers to a database's objects, so that what a fold unlinks is left to
/// [`crate::collect`]. It stays so as long as there is an index.
pub fn keeps_past(head: &Head) -> bool {
    keeps_commits(head) || !head.history.is_empty() || head.is_pinned()
}

/// The newest time that both clocks agree is over, if they do.
pub fn agreed_micros(node: u64, store: Option<u64>) -> Option<u64> {
    store.filter(|store| store.abs_diff(node) <= limits::CLOCKS_APART_MICROS_MAX).map(|store| store.min(node))
}

impl Folder<'_> {
    /// Stores what is to be kept of the past beside the fold, and says what the head is to refer to. `written` gets the keys.
    pub(super) async fn keep_past(
        &self,
        job: &FoldJob,
        made: Option<&Made>,
        patience: Patience,
        written: &mut Vec<Key>,
    ) -> Result<Kept, FoldFailure> {
        let head = &job.head.value;
        let mut index = index_of(head).map_err(RecordError::from)?;
        if keeps_commits(head) {
            self.add_run(job, made, &mut index, patience, written).await?;
        } else if !index.is_empty() {
            index.begin_at(None);
            index.begin_at(job.tip.lsn);
        }
        let pinned = self.pin(job, made, &mut index, patience, written).await?;
        if index.spill_is_due() {
            let extended = match index.chunk_to_extend() {
                Some(reference) => Some(read_chunk(self.fetcher, head.database, reference).await?),
                None => None,
            };
            let id = self.object_id(job);
            let object = index.spill(extended, id);
            self.put_object(&id, object, patience, written).await?;
        }
        let horizon = self.horizon(head, &index, job.tip.lsn);
        if let Some(horizon) = horizon {
            let upto = if mutant::is_on(Mutant::TrimBeyondHorizon) { job.tip.lsn } else { Some(horizon) };
            index.trim(upto.unwrap_or(horizon));
        }
        Ok(Kept { index, horizon, pinned })
    }

    /// The commits that are folded now, and before them the folded point that they follow, if it is to be a base.
    async fn add_run(
        &self,
        job: &FoldJob,
        made: Option<&Made>,
        index: &mut HistoryIndex,
        patience: Patience,
        written: &mut Vec<Key>,
    ) -> Result<(), FoldFailure> {
        let head = &job.head.value;
        let (Some(last), Some(pack)) = (job.tip.lsn, made.and_then(|made| made.history.as_ref())) else {
            // Without its commits a fold leaves a gap that no history may bridge.
            if job.tip.lsn > head.folded.lsn {
                index.begin_at(job.tip.lsn);
            }
            return Ok(());
        };
        index.begin_at(head.folded.lsn);
        if let Some(lsn) = head.folded.lsn
            && index.wants_base(head.folded.page_count)
        {
            let base = match index.base_at(lsn) {
                Some(base) => base,
                None => self.store_head(job, patience, written).await?,
            };
            index.add_base(lsn, base);
        }
        let (pack, section) = *pack;
        let (first, last_micros) = (Lsn::after(head.folded.lsn), job.tip.time_micros);
        index.add_run(Run { pack, section, first, last, last_micros });
        Ok(())
    }

    /// The folded point of the present head, as a base.
    async fn store_head(
        &self,
        job: &FoldJob,
        patience: Patience,
        written: &mut Vec<Key>,
    ) -> Result<BaseRef, FoldFailure> {
        let head = &job.head.value;
        if let Some(base) = shared_of(head).map_err(RecordError::from)? {
            return Ok(base);
        }
        let MapField::Inline(root) = &head.map else { unreachable!("BUG: neither here nor elsewhere") };
        let base = StoredBase { tip: tip_of(head), root: root.clone(), image: head.inline_image.clone() };
        self.store_base(job, &base, patience, written).await
    }

    async fn store_base(
        &self,
        job: &FoldJob,
        base: &StoredBase,
        patience: Patience,
        written: &mut Vec<Key>,
    ) -> Result<BaseRef, FoldFailure> {
        let id = self.object_id(job);
        let (reference, object) = base.seal(id);
        self.put_object(&id, object, patience, written).await?;
        Ok(reference)
    }

    /// Keeps the base at which a fork is to begin: the one that was chosen, or else the point that is folded now.
    async fn pin(
        &self,
        job: &FoldJob,
        made: Option<&Made>,
        index: &mut HistoryIndex,
        patience: Patience,
        written: &mut Vec<Key>,
    ) -> Result<Option<(Lsn, BaseRef)>, FoldFailure> {
        let Some(pin) = &job.pin else { return Ok(None) };
        let (lsn, base) = match (pin.at, job.tip.lsn) {
            (PinAt::Past { base: Some((lsn, base)), .. }, _) => (lsn, base),
            // The empty database: there is nothing to share.
            (PinAt::Past { base: None, .. }, _) | (PinAt::Folded, None) => return Ok(None),
            (PinAt::Folded, Some(lsn)) => match (index.base_at(lsn), made) {
                (Some(base), _) => (lsn, base),
                (None, None) => (lsn, self.store_head(job, patience, written).await?),
                (None, Some(made)) => {
                    let image = made.image.as_ref().map(segments::image::Image::encode);
                    let base = StoredBase { tip: job.tip, root: made.root.clone(), image };
                    (lsn, self.store_base(job, &base, patience, written).await?)
                }
            },
        };
        if keeps_commits(&job.head.value) && index.end() == Some(lsn) {
            index.add_base(lsn, base);
        }
        if !mutant::is_on(Mutant::PinWithoutBase) && !index.pin(lsn, base) {
            return Err(FoldFailure::TooManyForks);
        }
        Ok(Some((lsn, base)))
    }

    /// Adds the pin to the head that is about to be written. If there are many, they go to a chunk first.
    pub(super) async fn add_pin(
        &self,
        job: &FoldJob,
        pin: &FoldPin,
        kept: &Kept,
        next: &mut Head,
    ) -> Result<(), FoldFailure> {
        let written = Written { epoch: job.head.value.epoch, seq: job.seq, nonce: self.seam.random_u64() };
        let key = tenant::keys::pins(next.database, written);
        if let Some(chunk) = lifecycle::spill_pins(next, &key)? {
            self.put(&key, chunk.encode(), Patience::for_duration(self.seam, limits::FOLD_PATIENCE)).await?;
        }
        let at = match pin.at {
            PinAt::Folded => job.tip.lsn,
            PinAt::Past { lsn, .. } => lsn,
        };
        Ok(lifecycle::pin(next, pin.child, kept.pinned.map(|(lsn, _)| lsn), at)?)
    }

    /// The oldest commit that can be restored from now on. It never falls, and rises with time only as far as the clocks of
    /// node and store agree on it.
    fn horizon(&self, head: &Head, index: &HistoryIndex, folded: Option<Lsn>) -> Option<Lsn> {
        if !keeps_commits(head) {
            return folded;
        }
        let retention_micros = u64::from(head.settings.retention_secs) * 1_000_000;
        let agreed = agreed_micros(self.seam.wall_micros(), self.store.date_micros());
        let by_time = agreed.and_then(|now| index.horizon_at(now.saturating_sub(retention_micros)));
        let forced = index.horizon_forced();
        if forced > by_time.max(head.horizon) {
            warn!(database = %head.database, "its history has more folds than an index holds; giving up the oldest");
        }
        // Nothing before its first base can be made.
        let start = if index.is_empty() { folded } else { index.start_of_kept() };
        head.horizon.max(by_time).max(forced).max(start)
    }

    /// A pack with nothing but the commits of a fold whose pages stand in the head.
    pub(super) async fn put_commits(
        &self,
        job: &FoldJob,
        commits: &[Bytes],
        patience: Patience,
        written: &mut Vec<Key>,
    ) -> Result<Option<Pack>, FoldFailure> {
        let Some((lsn, history)) = job.tip.lsn.and_then(|lsn| Some((lsn, History::of_fold(commits, lsn)?))) else {
            return Ok(None);
        };
        let head = &job.head.value;
        let id = PackId { owner: head.database, epoch: head.epoch, seq: job.seq, nonce: self.seam.random_u64() };
        let mut writer = PackWriter::new(id, lsn, job.tip.page_count);
        writer.set_history(history);
        let pack = writer.finish().map_err(segments::fold::FoldError::from)?;
        written.push(keys::pack(&id));
        self.put(&keys::pack(&id), pack.bytes.clone(), patience).await?;
        Ok(Some(pack))
    }

    fn object_id(&self, job: &FoldJob) -> MapChunkId {
        let head = &job.head.value;
        MapChunkId { owner: head.database, epoch: head.epoch, seq: job.seq, nonce: self.seam.random_u64() }
    }

    async fn put_object(
        &self,
        id: &MapChunkId,
        object: Bytes,
        patience: Patience,
        written: &mut Vec<Key>,
    ) -> Result<(), FoldFailure> {
        let key = keys::page_map(id);
        written.push(key.clone());
        self.put(&key, object, patience).await
    }
}

#[cfg(test)]
mod tests {
    use super::agreed_micros;
    use crate::limits::CLOCKS_APART_MICROS_MAX;

    #[test]
    fn only_clocks_that_agree_tell_the_time_and_the_earlier_counts() {
        let (now, far) = (10 * CLOCKS_APART_MICROS_MAX, CLOCKS_APART_MICROS_MAX + 1);
        assert_eq!(agreed_micros(now, None), None);
        assert_eq!(agreed_micros(now, Some(now - far)), None);
        assert_eq!(agreed_micros(now, Some(now + far)), None);
        assert_eq!(agreed_micros(now, Some(now + far - 1)), Some(now));
        assert_eq!(agreed_micros(now, Some(now - 5)), Some(now - 5));
    }
}
