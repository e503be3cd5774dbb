//! What a fold keeps of the past: the commits that it folded, bases to start from, and where forks begin.
//!
//! All of it is linked by the fold's one CAS, in the head's history index. What leaves the index in the same CAS can be
//! collected after it, and the horizon rises no later than that.

use bytes::Bytes;
use segments::base::{BaseRef, StoredBase};
use segments::fold::FoldInput;
use segments::history::{HistoryIndex, Run};
use segments::id::{MapChunkId, PackId};
use segments::image::Image;
use segments::keys;
use segments::pack::history::History;
use segments::pack::{Pack, PackWriter};
use tenant::head::Head;
use tenant::keys::Written;
use tenant::lifecycle;
use tracing::warn;
use walstore::id::Lsn;
use walstore::mutant::{self, Mutant};
use walstore::register::{Patience, RecordError};
use walstore::store::Key;

use super::{FoldFailure, FoldJob, FoldPin, Folder, Made, PinAt};
use crate::base::{FoldedState, as_base};
use crate::heavy::heavy;
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

/// The commits that the fold is to keep, if they are so long that their pack is not to be in memory together with that
/// of the pages.
pub(super) fn take_large_commits(input: &mut FoldInput) -> Vec<Bytes> {
    let bytes: usize = input.commits.iter().map(Bytes::len).sum();
    if bytes > limits::KEPT_WITH_PAGES_BYTES_MAX { std::mem::take(&mut input.commits) } else { Vec::new() }
}

/// The newest time that both clocks agree is over, if they do.
pub fn agreed_micros(node: u64, store: Option<u64>) -> Option<u64> {
    store.filter(|store| store.abs_diff(node) <= limits::CLOCKS_APART_MICROS_MAX).map(|store| store.min(node))
}

/// Keeps the past of one fold: everything that it stores beside the fold itself.
struct Keeper<'a> {
    folder: &'a Folder<'a>,
    job: &'a FoldJob,
    made: Option<&'a Made>,
    patience: Patience,
    index: HistoryIndex,
    /// Keys of what it has stored.
    written: &'a mut Vec<Key>,
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
        let index = index_of(&job.head.value).map_err(RecordError::from)?;
        Keeper { folder: self, job, made, patience, index, written }.keep().await
    }
}

impl Keeper<'_> {
    async fn keep(mut self) -> Result<Kept, FoldFailure> {
        let head = &self.job.head.value;
        if keeps_commits(head) {
            self.add_run().await?;
        } else if !self.index.is_empty() {
            self.index.begin_anew(self.job.tip.lsn);
        }
        let pinned = self.pin().await?;
        if self.index.spill_is_due() {
            let extended = match self.index.chunk_to_extend() {
                Some(reference) => Some(read_chunk(self.folder.fetcher, head.database, reference).await?),
                None => None,
            };
            let id = self.object_id();
            let object = self.index.spill(extended, id);
            self.put(&id, object).await?;
        }
        let horizon = self.folder.horizon(head, &self.index, self.job.tip.lsn);
        if let Some(horizon) = horizon {
            let upto = if mutant::is_on(Mutant::TrimBeyondHorizon) { self.job.tip.lsn } else { Some(horizon) };
            self.index.trim(upto.unwrap_or(horizon));
            if Some(horizon) == self.job.tip.lsn && keeps_commits(head) && !self.index.is_empty() {
                // The only state to be shown is the present one, which stands in the head.
                self.index.begin_anew(Some(horizon));
            }
        }
        Ok(Kept { index: self.index, horizon, pinned })
    }

    /// The commits that are folded now, and before them the folded point that they follow, if it is to be a base.
    async fn add_run(&mut self) -> Result<(), FoldFailure> {
        let (head, tip) = (&self.job.head.value, self.job.tip);
        let (Some(last), Some(pack)) = (tip.lsn, self.made.and_then(|made| made.history.as_ref())) else {
            // Without its commits a fold leaves a gap that no history may bridge.
            if tip.lsn > head.folded.lsn {
                self.index.begin_at(tip.lsn);
            }
            return Ok(());
        };
        self.index.begin_at(head.folded.lsn);
        if let Some(lsn) = head.folded.lsn
            && self.index.wants_base(head.folded.page_count, self.job.input.pages.len() as u64)
        {
            let base = match self.index.base_at(lsn) {
                Some(base) => base,
                None => self.store_head().await?,
            };
            self.index.add_base(lsn, base);
        }
        let (pack, section) = *pack;
        let run = Run { pack, section, first: Lsn::after(head.folded.lsn), last, last_micros: tip.time_micros };
        self.index.add_run(run, self.job.input.pages.len() as u64);
        Ok(())
    }

    /// The folded point of the present head, as a base.
    async fn store_head(&mut self) -> Result<BaseRef, FoldFailure> {
        match as_base(&self.job.head.value).map_err(RecordError::from)? {
            FoldedState::Stored(base) => Ok(base),
            FoldedState::InHead(base) => self.store_base(&base).await,
        }
    }

    async fn store_base(&mut self, base: &StoredBase) -> Result<BaseRef, FoldFailure> {
        let id = self.object_id();
        let (reference, object) = base.seal(id);
        self.put(&id, object).await?;
        Ok(reference)
    }

    /// Keeps the base at which a fork is to begin: the one that was chosen, or else the point that is folded now.
    async fn pin(&mut self) -> Result<Option<(Lsn, BaseRef)>, FoldFailure> {
        let Some(pin) = &self.job.pin else { return Ok(None) };
        let (lsn, base) = match (pin.at, self.job.tip.lsn) {
            (PinAt::Past { base: Some((lsn, base)), .. }, _) => (lsn, base),
            // The empty database: there is nothing to share.
            (PinAt::Past { base: None, .. }, _) | (PinAt::Folded, None) => return Ok(None),
            (PinAt::Folded, Some(lsn)) => match (self.index.base_at(lsn), self.made) {
                (Some(base), _) => (lsn, base),
                (None, None) => (lsn, self.store_head().await?),
                (None, Some(made)) => {
                    let image = made.image.as_ref().map(Image::encode);
                    let base = StoredBase { tip: self.job.tip, root: made.root.clone(), image };
                    (lsn, self.store_base(&base).await?)
                }
            },
        };
        if keeps_commits(&self.job.head.value) && self.index.end() == Some(lsn) {
            self.index.add_base(lsn, base);
        }
        if !mutant::is_on(Mutant::PinWithoutBase) && !self.index.pin(lsn, base) {
            return Err(FoldFailure::TooManyForks);
        }
        Ok(Some((lsn, base)))
    }

    /// The key's last part says which fold it belongs to.
    fn object_id(&self) -> MapChunkId {
        let head = &self.job.head.value;
        let nonce = self.folder.seam.random_u64();
        MapChunkId { owner: head.database, epoch: head.epoch, seq: self.job.seq, nonce }
    }

    async fn put(&mut self, id: &MapChunkId, object: Bytes) -> Result<(), FoldFailure> {
        let key = keys::page_map(id);
        self.written.push(key.clone());
        self.folder.put(&key, object, self.patience).await
    }
}

impl Folder<'_> {
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
    pub(super) fn horizon(&self, head: &Head, index: &HistoryIndex, folded: Option<Lsn>) -> Option<Lsn> {
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

    /// A pack with nothing but the commits of a fold: one whose pages stand in the head, or a large one.
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
        let pack = heavy(|| writer.finish()).await.map_err(segments::fold::FoldError::from)?;
        written.push(keys::pack(&id));
        self.put(&keys::pack(&id), pack.bytes.clone(), patience).await?;
        Ok(Some(pack))
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
