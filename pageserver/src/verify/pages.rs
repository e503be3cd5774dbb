//! Pages at rest: every pack is read once, whole, and every page is found where the map says that it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use segments::commit::UncheckedCommit;
use segments::id::PackId;
use segments::image::Image;
use segments::keys;
use segments::map::{DeltaRef, Lookup};
use segments::pack::{Frame, FrameRef, PackContents, read_pack};
use segments::page::{MissingPage, PageNo};
use walstore::envelope::Corrupt;

use super::{VerifyError, object_at};
use super::database::Look;
use super::walk::Walk;
use crate::heavy::heavy;
use crate::tail::Tail;

/// Indexes of deltas.
pub(super) type Indexes = Vec<(DeltaRef, Arc<segments::pack::FrameIndex>)>;

/// A page that the map finds in some pack.
struct Placed {
    page: PageNo,
    frame: FrameRef,
    place: u8,
    /// No later commit has another version of it.
    is_newest: bool,
}

/// Missing pages that are told one by one; a database that lost many has lost them together.
const MISSING_TOLD_MAX: usize = 8;

impl Walk<'_> {
    /// The indexes that the map does not repeat.
    pub async fn read_indexes(&mut self, tail: &Tail, look: &mut Look) -> Result<Indexes, VerifyError> {
        let mut indexes = Vec::new();
        for delta in tail.map.deltas() {
            let read = self.fetcher.indexes(tail.database(), &[*delta]).await;
            indexes.extend(look.take(read)?.unwrap_or_default());
        }
        Ok(indexes)
    }

    /// Checks packs and pages, and hands the pages on. `is_replayed`: the tail has all commits.
    pub async fn check_pages(
        &mut self,
        tail: &Tail,
        indexes: &Indexes,
        is_replayed: bool,
        look: &mut Look,
    ) -> Result<(), VerifyError> {
        let page_count = tail.tip.page_count;
        let mut by_pack = place_pages(tail, indexes, look);
        let packs = tail.map.packs().unwrap_or_else(|| by_pack.keys().copied().collect());
        self.check_boot_image(tail, indexes, look).await?;
        // Only a database that is whole so far is put together.
        let mut is_whole = is_replayed && look.damages.is_empty() && page_count > 0;
        if is_whole && let Some(sink) = self.witness.pages() {
            sink.begin(page_count)?;
        }
        for pack in packs {
            let pages = by_pack.remove(&pack).unwrap_or_default();
            is_whole &= self.check_pack(tail, &pack, pages, is_whole, look).await?;
            self.witness.progress(&self.summary);
        }
        if is_whole && let Some(sink) = self.witness.pages() {
            for (number, page) in &tail.input.pages {
                sink.page(*number, page)?;
            }
            let key = tenant::keys::head(tail.database());
            look.damages.extend(sink.finish()?.into_iter().map(|line| Corrupt::new(line).at(&key)));
        }
        Ok(())
    }

    /// `false` if anything is wrong with it.
    async fn check_pack(
        &mut self,
        tail: &Tail,
        id: &PackId,
        pages: Vec<Placed>,
        is_wanted: bool,
        look: &mut Look,
    ) -> Result<bool, VerifyError> {
        let (key, object) = match tail.image() {
            // A small database: this pack is a part of its head.
            Some(Image::Whole(image)) if image.id() == *id => {
                (tenant::keys::head(tail.database()), image.object().clone())
            }
            _ => {
                let key = keys::pack(id);
                let found = object_at(&*self.stores.main, self.access(), &key).await?;
                let missing = || Corrupt::new("a page map refers to it, but it is not there");
                let object = match found.and_then(|found| found.ok_or_else(missing)) {
                    Ok(object) => object,
                    Err(corrupt) => {
                        look.damage(corrupt.at(&key));
                        return Ok(false);
                    }
                };
                self.summary.packs.add(object.len() as u64);
                (key, object)
            }
        };
        let check = || {
            let contents = read_pack(&object, id)?;
            check_history(&contents)?;
            check_placed(&contents, &pages)
        };
        let checked = heavy(check).await;
        if let Err(corrupt) = checked {
            look.damage(corrupt.at(&key));
            return Ok(false);
        }
        if is_wanted {
            self.hand_on(&object, pages).map_err(|error| match error {
                HandOn::Corrupt(corrupt) => unreachable!("BUG: the pack was just checked: {corrupt}"),
                HandOn::Sink(error) => VerifyError::Pages(error),
            })?;
        }
        Ok(true)
    }

    /// The upper pages that the head repeats are those to which the map leads.
    async fn check_boot_image(&mut self, tail: &Tail, indexes: &Indexes, look: &mut Look) -> Result<(), VerifyError> {
        let Some(image @ Image::Boot(boot)) = tail.image() else { return Ok(()) };
        let key = tenant::keys::head(tail.database());
        let known = |delta: &DeltaRef| indexes.iter().find(|(known, _)| known == delta).map(|(_, index)| index.clone());
        for page_no in boot.pages() {
            let Some(source) = image.source(&tail.map, *page_no) else { continue };
            let repeated = image.frame(&source.at).ok_or_else(|| Corrupt::new("a boot image without its frame"));
            let repeated = repeated.and_then(|frame| frame).and_then(|frame| frame.page(source.place));
            let Lookup::Found(at) = tail.map.lookup(*page_no, &known) else { continue };
            let read = self.fetcher.frame(tail.database(), &at.at).await;
            // What is wrong with the pack itself is told where all of it is checked.
            let Ok(Ok(page)) = read.map(|frame| frame.page(at.place)) else { continue };
            match repeated {
                Ok(repeated) if repeated == page => {}
                Ok(_) => look.damage(Corrupt::new(format!("its boot image has another page {page_no}")).at(&key)),
                Err(corrupt) => look.damage(corrupt.at(&key)),
            }
        }
        Ok(())
    }

    fn hand_on(&mut self, object: &Bytes, mut pages: Vec<Placed>) -> Result<(), HandOn> {
        let Some(sink) = self.witness.pages() else { return Ok(()) };
        pages.retain(|placed| placed.is_newest);
        pages.sort_by_key(|placed| (placed.frame.offset, placed.place));
        let mut open: Option<(FrameRef, Frame)> = None;
        for Placed { page, frame, place, .. } in pages {
            let decoded = match open.take() {
                Some((at, decoded)) if at == frame => decoded,
                _ => {
                    let range = frame.range();
                    Frame::decode(&object.slice(range.start as usize..range.end as usize), &frame)?
                }
            };
            sink.page(page, &decoded.page(place)?)?;
            open = Some((frame, decoded));
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum HandOn {
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    #[error(transparent)]
    Sink(#[from] std::io::Error),
}

/// Finds every page at rest, and names those that have no source.
fn place_pages(tail: &Tail, indexes: &Indexes, look: &mut Look) -> BTreeMap<PackId, Vec<Placed>> {
    let known = |delta: &DeltaRef| indexes.iter().find(|(known, _)| known == delta).map(|(_, index)| index.clone());
    let unreadable: BTreeSet<PackId> =
        tail.map.deltas().filter(|delta| known(delta).is_none()).map(|delta| delta.pack).collect();
    let mut by_pack: BTreeMap<PackId, Vec<Placed>> = BTreeMap::new();
    let mut missing = Vec::new();
    let kept_upto = tail.input.page_count_min;
    for page in (1..=tail.map.page_count()).filter_map(PageNo::new) {
        match tail.map.lookup(page, &known) {
            Lookup::Found(source) => {
                let is_newest = page.get() <= kept_upto && !tail.input.pages.contains_key(&page);
                let placed = Placed { page, frame: source.at.frame, place: source.place, is_newest };
                by_pack.entry(source.at.pack).or_default().push(placed);
            }
            Lookup::Missing => missing.push(page),
            Lookup::LockPage => {}
            // Told already, as damage of that object.
            Lookup::NeedChunk(_) => {}
            Lookup::NeedIndexes(_) => debug_assert!(!unreadable.is_empty()),
            Lookup::Outside => unreachable!("BUG: page {page} is inside"),
        }
    }
    let grown = PageNo::grown(kept_upto, tail.tip.page_count.max(kept_upto));
    missing.extend(grown.filter(|page| !tail.input.pages.contains_key(page)));
    tell_missing(tail, &missing, look);
    by_pack
}

fn tell_missing(tail: &Tail, missing: &[PageNo], look: &mut Look) {
    let (database, lsn) = (tail.database(), tail.tip.lsn);
    let key = tenant::keys::head(database);
    for page in missing.iter().take(MISSING_TOLD_MAX) {
        look.damage(Corrupt::new(MissingPage { database, page: *page, lsn }.to_string()).at(&key));
    }
    if missing.len() > MISSING_TOLD_MAX {
        let more = missing.len() - MISSING_TOLD_MAX;
        look.damage(Corrupt::new(format!("and {more} more pages have no source")).at(&key));
    }
}

/// The pack itself says the same of each page as the map.
fn check_placed(contents: &PackContents, pages: &[Placed]) -> Result<(), Corrupt> {
    for Placed { page, frame, place, .. } in pages {
        let here = Some((*frame, *place));
        if contents.segments.find(*page) != here && contents.delta.find(*page) != here {
            return Err(Corrupt::new(format!("the page map finds page {page} at {}, where it is not", frame.offset)));
        }
    }
    Ok(())
}

/// Each commit that it keeps has the hash that it claims, and follows the one before.
pub(super) fn check_history(contents: &PackContents) -> Result<(), Corrupt> {
    let Some(history) = &contents.history else { return Ok(()) };
    for (lsn, commit) in (history.first.get()..).zip(&history.commits) {
        let found = UncheckedCommit::decode(commit)?.lsn();
        if found.get() != lsn {
            return Err(Corrupt::new(format!("its history has commit {found} in place of {lsn}")));
        }
    }
    Ok(())
}
