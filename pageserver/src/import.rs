//! A database out of pages that come from outside: packs, then a page map, then the head that refers to them.
//!
//! ```text
//!   add(pages 1…4096) ─▶ pack 1 ┐
//!   add(pages …8192)  ─▶ pack 2 ├─ finish ─▶ chunks of the page map, boot image ─▶ the head, to be put by the caller
//!   …                           ┘
//! ```
//!
//! This is the way of a fold: each `add` is planned and built as the fold of one commit that makes the database larger.
//! So the pages go to the bucket once and compressed, in segments as after a merge, no log and no overlay holds them,
//! and nobody's commits wait for them. (The ordinary commit path would write each page twice, and have it in memory
//! until it is folded.) A small database stands in its head, as ever.
//!
//! The history of the database begins with as many commits as there are packs, all of the same time; none but the
//! last can be restored, and the first fold that keeps the past stores it as a base. The chain hash is of the file. In memory are the pages of one pack, and the page map.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use segments::fold::{FoldInput, plan_fold, plan_whole};
use segments::id::MapChunkId;
use segments::image::{Image, WholeImage};
use segments::keys;
use segments::map::PageMap;
use segments::page::{Page, PageNo};
use segments::tip::{ChainHash, Tip};
use tenant::head::{Folded, Head, MapField};
use tenant::lifecycle;
use tenant::name::Name;
use tenant::settings::Settings;
use tracing::debug;
use walstore::id::{DatabaseId, Lsn, PutId};
use walstore::register::{Patience, Versioned};
use walstore::store::{ETag, Key};

use crate::base::folded_of;
use crate::fold::{FoldFailure, FoldJob, Folder, Made, Planner};
use crate::heavy::heavy;
use crate::limits;

/// Pages of each [`Import::add`] but the last: whole segments, in packs of some megabytes.
pub const PACK_PAGES: u32 = 4096;

/// What is known of a file before its pages come.
pub struct Source {
    pub name: Name,
    pub database: DatabaseId,
    pub settings: Settings,
    /// All of its pages.
    pub page_count: u32,
    /// BLAKE3 of the whole file.
    pub hash: [u8; 32],
    pub time_micros: u64,
}

/// An import that goes on.
pub struct Import<'a> {
    folder: Folder<'a>,
    source: Source,
    map: PageMap,
    tip: Tip,
    image: Option<Image>,
    last: BTreeMap<PageNo, Page>,
    written: Vec<Key>,
    /// Counts its packs.
    seq: u32,
}

impl<'a> Import<'a> {
    pub fn new(folder: Folder<'a>, source: Source) -> Self {
        let chain = ChainHash::of_import(source.database, &source.hash);
        let tip = Tip { chain, time_micros: source.time_micros, ..Tip::before_first(source.database) };
        let (map, image, last, written) = (PageMap::empty(), None, BTreeMap::new(), Vec::new());
        Self { folder, source, map, tip, image, last, written, seq: 0 }
    }

    /// How many pages it has.
    pub fn page_count(&self) -> u32 {
        self.tip.page_count
    }

    /// Adds the next pages: [`PACK_PAGES`] of them, or what is left of the file.
    pub async fn add(&mut self, pages: Vec<Page>) -> Result<(), FoldFailure> {
        let before = self.tip.page_count;
        let count = u32::try_from(pages.len()).expect("BUG: more pages than any database has");
        let page_count = before + count;
        assert!(count == PACK_PAGES || page_count == self.source.page_count, "BUG: not what was to come next");
        let lsn = Lsn::after(self.tip.lsn);
        let mut input = FoldInput::new(self.source.database, &self.map);
        input.add(lsn, page_count, (before + 1..).filter_map(PageNo::new).zip(pages));
        self.tip = Tip {
            lsn: Some(lsn),
            page_count,
            pages_total: self.tip.pages_total + input.pages.len() as u64,
            ..self.tip
        };
        self.seq += 1;
        self.last = input.pages.clone();
        let mut job = self.job(input);
        let may_stand_in_head = self.source.page_count <= segments::limits::IMAGE_PAGES_MAX;
        let planner: Planner = if may_stand_in_head { plan_whole } else { plan_fold };
        let plan = self.folder.plan(&mut job, planner).await?.expect("BUG: there are pages to write");
        let _room = self.folder.fetcher.room(plan.memory_bytes()).await;
        let folded = self.folder.build(&job, &plan, None).await?;
        self.map = folded.map;
        let pack = folded.pack.expect("BUG: pages without a pack");
        let image = may_stand_in_head.then(|| WholeImage::of_pack(&pack, segments::limits::IMAGE_BYTES_MAX));
        if let Some(image) = image.flatten() {
            self.image = Some(Image::Whole(image));
            return Ok(());
        }
        let key = keys::pack(&pack.id);
        self.written.push(key.clone());
        self.folder.put(&key, pack.bytes.clone(), self.patience()).await?;
        if self.source.page_count <= limits::IMPORT_CACHED_PAGES_MAX {
            heavy(|| self.folder.keep_in_cache(&pack, &self.map)).await?;
        }
        Ok(())
    }

    /// Writes what is left and returns the head that makes it a database.
    pub async fn finish(&mut self) -> Result<Head, FoldFailure> {
        assert_eq!(self.tip.page_count, self.source.page_count, "BUG: pages are missing");
        let (owner, epoch, seq) = (self.source.database, 1, self.seq);
        let stored = self.map.store(&mut || MapChunkId { owner, epoch, seq, nonce: self.folder.seam.random_u64() });
        let objects: Vec<(Key, Bytes)> =
            stored.objects.iter().map(|(id, object)| (keys::page_map(id), object.clone())).collect();
        self.written.extend(objects.iter().map(|(key, _)| key.clone()));
        let (folder, patience) = (&self.folder, self.patience());
        let puts = stream::iter(objects).map(|(key, bytes)| async move { folder.put(&key, bytes, patience).await });
        puts.buffer_unordered(limits::FOLD_PUTS_MAX).try_collect::<()>().await?;
        let (root, map, image) = (stored.root, stored.map, self.image.take());
        let mut made = Made { root, map, image, dead: Vec::new(), history: None, written: Vec::new() };
        if made.image.is_none() {
            let mut input = FoldInput::new(owner, &self.map);
            input.pages = std::mem::take(&mut self.last);
            made.image = self.folder.boot(&self.job(input), None, &mut made).await;
        }
        let state = (folded_of(&self.tip), MapField::Inline(made.root), made.image.as_ref().map(Image::encode));
        let Source { name, settings, .. } = &self.source;
        let head = lifecycle::imported(name, owner, *settings, state, PutId::random(self.folder.seam));
        Ok(Head { fold_seq: seq, ..head })
    }

    /// Deletes what was written. To be called only once the head can't be written any more.
    pub async fn discard(self) {
        for key in &self.written {
            if let Err(error) = self.folder.store.delete(key).await {
                debug!(%key, %error, "cannot delete what an import has written; left to a sweep");
            }
        }
    }

    fn patience(&self) -> Patience {
        Patience::for_duration(self.folder.seam, limits::FOLD_PATIENCE)
    }

    /// The head of the job names the database; the bucket has none yet.
    fn job(&self, input: FoldInput) -> FoldJob {
        let Source { name, database, settings, .. } = &self.source;
        let nothing = (Folded::default(), MapField::default(), None);
        let head = lifecycle::imported(name, *database, *settings, nothing, PutId::random(self.folder.seam));
        FoldJob {
            head: Versioned { value: head, etag: ETag("none".into()) },
            map: self.map.clone(),
            input,
            tip: self.tip,
            own_after: None,
            seq: self.seq,
            deleted: Vec::new(),
            release: false,
            pin: None,
        }
    }
}
