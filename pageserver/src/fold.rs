//! Running a fold: read what the plan lacks, write pack and map chunks, then link them by one CAS of the
//! head.
//!
//! A small database stands in its head as a whole (`image`): then the CAS is all that is written.
//!
//! A crash before the CAS leaves objects that nobody refers to (legal, swept later); after it, the fold has
//! happened. Nothing is deleted here.

mod boot;
mod elsewhere;
mod image;
mod job;
mod keep;
mod unowned;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt, stream};
use segments::base::BaseRef;
use segments::disk::CacheKey;
use segments::fold::{self, FoldError, FoldInput, FoldPlan, Planned, build_fold, plan_compaction, plan_fold};
use segments::id::{MapChunkId, PackId};
use segments::image::Image;
use segments::keys;
use segments::map::{DeltaRef, Indexes, MapChunkRef, PageMap};
use segments::pack::{Frame, FrameAt, FrameIndex, Pack, Section};
use tenant::head::{Head, MapField, PackRef};
use tenant::lifecycle;
use tenant::record::NameRecord;
use tenant::registry::{self, ResolveError};
use tracing::warn;
use walstore::envelope::Corrupt;
use walstore::id::PutId;
use walstore::mutant::{self, Mutant};
use walstore::register::{self, Patience, RecordError, Swap, Versioned};
use walstore::seam::Seam;
use walstore::store::{Key, Store};

pub use self::elsewhere::PackMaker;
pub use self::job::{FoldFailure, FoldJob, FoldPin, Linked, PinAt};
use self::keep::Kept;
pub use self::keep::{agreed_micros, keeps_past};
pub use self::unowned::UnownedStep;
use crate::base::{base_of, folded_of};
use crate::fetcher::Fetcher;
use crate::heavy::heavy;
use crate::{discard, garbage, limits};

/// What a fold made, before the head refers to it.
pub(crate) struct Made {
    /// The root of the new map.
    pub root: Bytes,
    pub map: PageMap,
    pub image: Option<Image>,
    /// What the new map no longer needs.
    pub dead: Vec<PackRef>,
    /// Where the folded commits are, if they are kept.
    pub history: Option<(PackId, Section)>,
    /// Everything that was uploaded.
    pub written: Vec<Key>,
}

/// A fold that has uploaded everything, and is not linked.
pub(crate) struct Prepared {
    job: FoldJob,
    /// Before it.
    image: Option<Image>,
    made: Option<Made>,
    kept: Kept,
    written: Vec<Key>,
}

impl Prepared {
    /// At which the fork begins that it is to pin.
    pub fn base(&self) -> Option<BaseRef> {
        self.kept.pinned.map(|(_, base)| base)
    }
}

/// A fold's pack and map.
struct Built {
    folded: fold::Folded,
    /// Its pack is in the bucket already.
    is_stored: bool,
}

/// How the pages of a fold are laid out: [`plan_fold`] or [`fold::plan_whole`].
pub(crate) type Planner = fn(&PageMap, &FoldInput, Indexes<'_>) -> Result<Planned, FoldError>;

/// Where a fold reads and writes.
pub struct Folder<'a> {
    pub store: &'a dyn Store,
    pub seam: &'a Seam,
    pub fetcher: &'a Fetcher,
}

impl Folder<'_> {
    /// Folds and links. On success the new head is in the bucket.
    pub async fn fold(&self, job: FoldJob) -> Result<Linked, FoldFailure> {
        self.fold_by(job, None).await
    }

    /// The same; the pack is made by a page server, if there is one that does it.
    pub fn fold_by<'a>(
        &'a self,
        job: FoldJob,
        maker: Option<&'a PackMaker>,
    ) -> BoxFuture<'a, Result<Linked, FoldFailure>> {
        Box::pin(self.fold_and_link(job, maker))
    }

    async fn fold_and_link(&self, mut job: FoldJob, maker: Option<&PackMaker>) -> Result<Linked, FoldFailure> {
        let image = base_of(self.fetcher, &job.head.value).await?.image;
        let (made, patience) = self.make(&mut job, image.as_ref(), maker).await?;
        self.finish(job, image, made, patience).await
    }

    /// Uploads all that the head will refer to.
    pub(crate) async fn prepare(&self, mut job: FoldJob) -> Result<Prepared, FoldFailure> {
        let image = base_of(self.fetcher, &job.head.value).await?.image;
        let (made, patience) = self.make(&mut job, image.as_ref(), None).await?;
        self.complete(job, image, made, patience).await
    }

    /// Deletes what was uploaded for a fold that nobody will ever link.
    pub(crate) async fn discard(&self, prepared: Prepared) {
        discard::never_sent(self.store, &prepared.written).await;
    }

    /// Folds for a head that is still to come: uploads what it will refer to, and answers its page map and image.
    pub async fn fold_apart(&self, mut job: FoldJob) -> Result<(MapField, Option<Bytes>), FoldFailure> {
        let image = base_of(self.fetcher, &job.head.value).await?.image;
        let (Some(mut made), _) = self.make(&mut job, image.as_ref(), None).await? else {
            return Ok((job.head.value.map, job.head.value.inline_image));
        };
        if made.image.is_none() {
            made.image = self.boot(&job, image.as_ref(), &mut made).await;
        }
        Ok((MapField::Inline(made.root), made.image.as_ref().map(Image::encode)))
    }

    /// Writes the tail's pages; `None`: there are none. The patience is that of the fold, and begins when there is room for it.
    async fn make(
        &self,
        job: &mut FoldJob,
        image: Option<&Image>,
        maker: Option<&PackMaker>,
    ) -> Result<(Option<Made>, Patience), FoldFailure> {
        let patience = Patience::for_duration(self.seam, limits::FOLD_PATIENCE);
        if let Some(made) = self.fold_whole(job, image, patience).await? {
            return Ok((Some(made), patience));
        }
        let Some(plan) = self.plan(job, plan_fold).await? else { return Ok((None, patience)) };
        let commits = keep::take_large_commits(&mut job.input);
        let needed = plan.memory_bytes().max(commits.iter().map(Bytes::len).sum());
        let _room = self.fetcher.room(needed.saturating_sub(job.input.set_aside_bytes)).await;
        let patience = Patience::for_duration(self.seam, limits::FOLD_PATIENCE);
        let built = self.build_by(maker, job, &plan, image).await?;
        let mut made = self.write(job, built, patience).await?;
        if !commits.is_empty() {
            // That pack was let go of, and this one takes as much.
            self.fetcher.freed(needed);
            let pack = self.put_commits(job, &commits, patience, &mut made.written).await?;
            made.history = pack.and_then(|pack| Some((pack.id, pack.history?)));
        }
        Ok((Some(made), patience))
    }

    /// One step of giving dead space back, for a job without commits. `None`: there is little, and nothing was written.
    pub async fn compact(&self, job: FoldJob) -> Result<Option<Linked>, FoldFailure> {
        self.compact_by(job, None).await
    }

    /// The same; the pack is made by a page server, if there is one that does it.
    pub fn compact_by<'a>(
        &'a self,
        job: FoldJob,
        maker: Option<&'a PackMaker>,
    ) -> BoxFuture<'a, Result<Option<Linked>, FoldFailure>> {
        Box::pin(self.compact_and_link(job, maker))
    }

    async fn compact_and_link(
        &self,
        mut job: FoldJob,
        maker: Option<&PackMaker>,
    ) -> Result<Option<Linked>, FoldFailure> {
        let image = base_of(self.fetcher, &job.head.value).await?.image;
        match self.compaction(&mut job, image.as_ref(), plan_compaction).await? {
            Some(plan) => self.compact_as(job, image, &plan, maker).await.map(Some),
            None => Ok(None),
        }
    }

    async fn compact_as(
        &self,
        job: FoldJob,
        image: Option<Image>,
        plan: &FoldPlan,
        maker: Option<&PackMaker>,
    ) -> Result<Linked, FoldFailure> {
        let _room = self.fetcher.room(plan.memory_bytes()).await;
        let patience = Patience::for_duration(self.seam, limits::FOLD_PATIENCE);
        let built = self.build_by(maker, &job, plan, image.as_ref()).await?;
        let made = self.write(&job, built, patience).await?;
        self.finish(job, image, Some(made), patience).await
    }

    /// What compacting would do next.
    async fn compaction(
        &self,
        job: &mut FoldJob,
        image: Option<&Image>,
        planner: Planner,
    ) -> Result<Option<FoldPlan>, FoldFailure> {
        if matches!(image, Some(Image::Whole(_))) {
            // Each fold writes all of it.
            return Ok(None);
        }
        self.plan(job, planner).await
    }

    /// Keeps what is to be kept of the past, and links what was made.
    async fn finish(
        &self,
        job: FoldJob,
        image: Option<Image>,
        made: Option<Made>,
        patience: Patience,
    ) -> Result<Linked, FoldFailure> {
        let prepared = self.complete(job, image, made, patience).await?;
        self.link_prepared(prepared).await
    }

    async fn complete(
        &self,
        job: FoldJob,
        image: Option<Image>,
        mut made: Option<Made>,
        patience: Patience,
    ) -> Result<Prepared, FoldFailure> {
        if let Some(made) = &mut made
            && made.image.is_none()
        {
            made.image = self.boot(&job, image.as_ref(), made).await;
        }
        let mut written = made.as_ref().map(|made| made.written.clone()).unwrap_or_default();
        let kept = self.keep_past(&job, made.as_ref(), patience, &mut written).await?;
        Ok(Prepared { job, image, made, kept, written })
    }

    /// On success the new head is in the bucket.
    pub(crate) async fn link_prepared(&self, prepared: Prepared) -> Result<Linked, FoldFailure> {
        let Prepared { job, image, made, kept, written } = prepared;
        if let Some(made) = made.as_ref().filter(|_| mutant::is_on(Mutant::DeleteBeforeUnlink)) {
            garbage::delete(self.store, made.dead.clone()).await;
        }
        let linked = self.link(&job, made.as_ref(), &kept).await;
        if let Err(failure) = &linked {
            discard::unlinked(self.store, &written, (job.head.value.epoch, job.seq), failure).await;
        }
        let ((head, record), pinned) = (linked?, kept.pinned);
        let has_unlinked = keep::keeps_past(&head.value) && (!written.is_empty() || made.is_some());
        Ok(match made {
            Some(Made { map, image, .. }) => Linked { head, map, image, pinned, has_unlinked, record },
            None => Linked { head, map: job.map, image, pinned, has_unlinked, record },
        })
    }

    /// Plans, reading chunks and indexes until the plan has all it wants.
    pub(crate) async fn plan(&self, job: &mut FoldJob, planner: Planner) -> Result<Option<FoldPlan>, FoldFailure> {
        // Which packs become garbage can be told only with the whole map in memory.
        let missing = job.map.missing_chunks();
        self.read_chunks(job, &missing).await?;
        // Held until the plan is made, whatever a full cache does.
        let mut held: Vec<(DeltaRef, Arc<FrameIndex>)> = Vec::new();
        for _ in 0..limits::PLAN_ROUNDS_MAX {
            let indexes = |delta: &DeltaRef| {
                let known = held.iter().find(|(known, _)| known == delta);
                known.map(|(_, index)| index.clone()).or_else(|| self.fetcher.cache().index(delta))
            };
            match planner(&job.map, &job.input, &indexes)? {
                Planned::Nothing => return Ok(None),
                Planned::Ready(plan) => return Ok(Some(plan)),
                Planned::Needs { chunks, indexes } => {
                    self.read_chunks(job, &chunks).await?;
                    held.extend(self.fetcher.indexes(job.head.value.database, &indexes).await?);
                }
            }
        }
        Err(FoldFailure::Endless)
    }

    async fn read_chunks(&self, job: &mut FoldJob, chunks: &[MapChunkRef]) -> Result<(), FoldFailure> {
        let of = job.head.value.database;
        let reads = stream::iter(chunks.to_vec()).map(|reference| async move {
            Ok::<_, RecordError>((reference, self.fetcher.chunk(of, &reference).await?))
        });
        let mut reads = reads.buffered(limits::FOLD_CHUNKS_MAX);
        while let Some((reference, object)) = reads.try_next().await? {
            let with = job.map.with_chunk(&reference, &object);
            job.map = with.map_err(|corrupt: Corrupt| RecordError::from(corrupt.at(keys::page_map(&reference.id))))?;
        }
        Ok(())
    }

    async fn build_by(
        &self,
        maker: Option<&PackMaker>,
        job: &FoldJob,
        plan: &FoldPlan,
        image: Option<&Image>,
    ) -> Result<Built, FoldFailure> {
        // What stands in the head is nowhere else, so nobody else can read it.
        if let Some(maker) = maker.filter(|_| !matches!(image, Some(Image::Whole(_))))
            && let Some(folded) = self.made_elsewhere(maker, job, plan).await
        {
            return Ok(Built { folded, is_stored: true });
        }
        Ok(Built { folded: self.build(job, plan, image).await?, is_stored: false })
    }

    pub(crate) async fn build(
        &self,
        job: &FoldJob,
        plan: &FoldPlan,
        image: Option<&Image>,
    ) -> Result<fold::Folded, FoldFailure> {
        let (owner, epoch) = (job.head.value.database, job.head.value.epoch);
        let (mut frames, mut wanted) = (BTreeMap::new(), plan.reads());
        for at in plan.reads() {
            if let Some(frame) = image.and_then(|image| image.frame(&at)) {
                frames.insert(at, frame.map_err(FoldError::from)?);
                wanted.remove(&at);
            }
        }
        // Not to be cached: what a merge reads is about to be superseded.
        frames.extend(self.fetcher.frames_once(owner, wanted).await?);
        let pack_id = PackId { owner, epoch, seq: job.seq, nonce: self.seam.random_u64() };
        Ok(heavy(|| build_fold(plan, &job.input, &frames, pack_id)).await?)
    }

    /// Uploads everything that the new head will refer to.
    async fn write(&self, job: &FoldJob, built: Built, patience: Patience) -> Result<Made, FoldFailure> {
        let Built { folded, is_stored } = built;
        let (owner, epoch) = (job.head.value.database, job.head.value.epoch);
        let stored = folded.map.store(&mut || MapChunkId { owner, epoch, seq: job.seq, nonce: self.seam.random_u64() });
        let mut objects: Vec<(Key, Bytes)> = Vec::with_capacity(stored.objects.len() + 1);
        let mut written = Vec::new();
        match &folded.pack {
            Some(pack) if is_stored => written.push(keys::pack(&pack.id)),
            Some(pack) => objects.push((keys::pack(&pack.id), pack.bytes.clone())),
            None => {}
        }
        for (id, object) in &stored.objects {
            self.fetcher.keep(&CacheKey::chunk_object(id, object), object);
            objects.push((keys::page_map(id), object.clone()));
        }
        written.extend(objects.iter().map(|(key, _)| key.clone()));
        let puts = stream::iter(objects).map(|(key, bytes)| async move { self.put(&key, bytes, patience).await });
        puts.buffer_unordered(limits::FOLD_PUTS_MAX).try_collect::<()>().await?;
        if let Some(pack) = &folded.pack {
            heavy(|| self.keep_in_cache(pack, &folded.map)).await?;
        }
        let kept = stored.map.chunk_ids();
        let mut dead = dead_of(job, &folded.dead);
        dead.extend(job.map.chunk_ids().difference(&kept).filter(|id| id.owner == owner).map(garbage::dead_chunk));
        let history = folded.pack.as_ref().and_then(|pack| Some((pack.id, pack.history?)));
        Ok(Made { root: stored.root, map: stored.map, image: None, dead, history, written })
    }

    /// What was in memory as the tail stays there as frames: a fold costs its readers nothing. Reading back what
    /// is about to be linked is also the check that it can be read.
    pub(crate) fn keep_in_cache(&self, pack: &Pack, map: &PageMap) -> Result<(), FoldFailure> {
        let delta = pack.delta.as_ref().map(|delta| Arc::new(delta.index.clone()));
        let cache = self.fetcher.cache();
        if let Some((index, reference)) = delta.as_ref().zip(map.deltas().find(|delta| delta.pack == pack.id)) {
            cache.insert_index(reference, index.clone());
            let start = reference.index.offset as usize;
            let range = start..start + reference.index.bytes as usize;
            self.fetcher.keep(&CacheKey::index(reference), &pack.bytes.slice(range));
        }
        let entries = pack.segments.entries().iter().chain(delta.iter().flat_map(|index| index.entries()));
        for entry in entries {
            let range = entry.frame.offset as usize..(entry.frame.offset + entry.frame.bytes) as usize;
            let stored = pack.bytes.slice(range);
            let frame = Frame::decode(&stored, &entry.frame).map_err(FoldError::from)?;
            let at = FrameAt { pack: pack.id, frame: entry.frame };
            self.fetcher.keep(&CacheKey::frame(&at), &stored);
            cache.insert_frame(&at, frame);
        }
        Ok(())
    }

    /// The key carries a nonce, so sending again is harmless.
    pub(crate) async fn put(&self, key: &Key, bytes: Bytes, patience: Patience) -> Result<(), FoldFailure> {
        Ok(register::put(self.store, self.seam, key, bytes, patience).await?)
    }

    async fn link(
        &self,
        job: &FoldJob,
        made: Option<&Made>,
        kept: &Kept,
    ) -> Result<(Versioned<Head>, Option<Versioned<NameRecord>>), FoldFailure> {
        let head = &job.head.value;
        let mut dead_now: Vec<PackRef> = head.dead.iter().filter(|it| !job.deleted.contains(it)).cloned().collect();
        // What the past may need is not to be told by the map alone.
        if !keep::keeps_past(head) && job.pin.is_none() {
            dead_now.extend(made.iter().flat_map(|made| made.dead.iter().cloned()));
        }
        let fold = lifecycle::Fold {
            // Before the first commit the head says nothing of a tip.
            folded: if job.tip.lsn.is_some() { folded_of(&job.tip) } else { head.folded },
            own_after: job.own_after,
            map: made.map_or_else(|| head.map.clone(), |made| MapField::Inline(made.root.clone())),
            image: match made {
                Some(made) => made.image.as_ref().map(Image::encode),
                None => head.inline_image.clone(),
            },
            horizon: kept.horizon,
            history: kept.index.encode(),
            fold_seq: job.seq.max(head.fold_seq),
            dead: dead_now,
        };
        let put_id = PutId::random(self.seam);
        let mut next = match job.release {
            false => lifecycle::fold(head, fold, put_id),
            true => lifecycle::drain(head, fold, job.tip.lsn, put_id)?,
        };
        if let Some(pin) = &job.pin {
            self.add_pin(job, pin, kept, &mut next).await?;
        }
        let record = if head.has_folded() { None } else { self.note_made(&next).await? };
        // The outcome of a head CAS must be known before anything goes on, so it is asked for without end.
        match registry::swap_head(self.store, self.seam, &job.head, next, Patience::endless()).await? {
            Swap::Won(head) => Ok((head, record)),
            Swap::Lost(Some(found)) => Err(FoldFailure::Lost(Box::new(found))),
            Swap::Lost(None) => unreachable!("BUG: swap_head reports a missing head as an error"),
        }
    }
}

impl Folder<'_> {
    /// Before commits leave the logs: from then on nothing else tells that there was a head, should it get lost.
    async fn note_made(&self, next: &Head) -> Result<Option<Versioned<NameRecord>>, FoldFailure> {
        let patience = Patience::for_duration(self.seam, limits::FOLD_PATIENCE);
        match registry::note_made(self.store, self.seam, next, patience).await {
            // The commits are safer in packs, whatever has become of the name.
            Err(ResolveError::Record { source: RecordError::Corrupt(corrupt), .. }) => {
                warn!(%corrupt, database = %next.database, "folding a database whose name record is damaged");
                Ok(None)
            }
            noted => Ok(noted?),
        }
    }
}

/// What the database itself has stored of the packs that its map no longer needs; those of ancestors are theirs.
fn dead_of(job: &FoldJob, dead: &[PackId]) -> Vec<PackRef> {
    dead.iter().filter(|pack| pack.owner == job.head.value.database).map(garbage::dead_pack).collect()
}
