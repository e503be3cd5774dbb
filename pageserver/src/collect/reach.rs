//! What a head leads to.

use std::collections::BTreeSet;

use segments::base::{BaseParts, BaseRef};
use segments::history::{Entry, HistoryIndex};
use segments::id::{MapChunkId, PackId};
use segments::image::Image;
use segments::keys;
use segments::map::PageMap;
use tenant::head::Head;
use walstore::envelope::Corrupt;
use walstore::id::DatabaseId;
use walstore::mutant::{self, Mutant};
use walstore::register::RecordError;
use walstore::store::Key;

use crate::base::{inline_base_of, parts, shared_of, stored_base};
use crate::fetcher::Fetcher;
use crate::history::{index_of, read_chunk};

/// Objects, and the databases under whose keys they lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    pub keys: BTreeSet<Key>,
    pub owners: BTreeSet<DatabaseId>,
}

/// Everything that `head` leads to. With `wanted`, the search ends once all of these are found.
pub async fn reach(fetcher: &Fetcher, head: &Head, wanted: Option<&[Key]>) -> Result<Reach, RecordError> {
    let search = Search { fetcher, of: head.database, wanted, reach: Reach::default(), bases: BTreeSet::new() };
    search.run(head).await
}

struct Search<'a> {
    fetcher: &'a Fetcher,
    of: DatabaseId,
    wanted: Option<&'a [Key]>,
    reach: Reach,
    /// Bases that were looked into.
    bases: BTreeSet<BaseRef>,
}

impl Search<'_> {
    async fn run(mut self, head: &Head) -> Result<Reach, RecordError> {
        let at_head = |corrupt: Corrupt| corrupt.at(tenant::keys::head(head.database));
        let mut maps = Vec::new();
        // A head that has ended may refer to what its pins need, and to nothing else.
        let inline = if head.is_emptied() { None } else { inline_base_of(head).map_err(at_head)? };
        if let Some(base) = inline {
            self.see(&base);
            maps.push(base.map);
        }
        let mut bases: Vec<BaseRef> = shared_of(head).map_err(at_head)?.into_iter().collect();
        let index = index_of(head)?;
        self.history(&index, &mut bases).await?;
        for base in &bases {
            self.object(&base.id);
        }
        // From what stands at hand to what takes ever more requests.
        for map in maps {
            if self.is_done() {
                return Ok(self.reach);
            }
            self.map(map).await?;
        }
        for base in bases {
            if self.is_done() {
                return Ok(self.reach);
            }
            self.base(&base).await?;
        }
        Ok(self.reach)
    }

    async fn history(&mut self, index: &HistoryIndex, bases: &mut Vec<BaseRef>) -> Result<(), RecordError> {
        self.entries(index.entries(), bases);
        for reference in index.chunks() {
            self.object(&reference.id);
            let chunk = read_chunk(self.fetcher, self.of, reference).await?;
            self.entries(&chunk.entries, bases);
        }
        let pinned = index.pinned().map(|(_, base)| base);
        if mutant::is_on(Mutant::CollectBelowPinned) {
            pinned.for_each(|base| self.object(&base.id));
        } else if !mutant::is_on(Mutant::CollectPinned) {
            bases.extend(pinned);
        }
        Ok(())
    }

    fn entries(&mut self, entries: &[Entry], bases: &mut Vec<BaseRef>) {
        for entry in entries {
            match entry {
                Entry::Base { base, .. } => bases.push(*base),
                Entry::Run(run) => self.pack(&run.pack),
            }
        }
    }

    async fn base(&mut self, reference: &BaseRef) -> Result<(), RecordError> {
        if !self.bases.insert(*reference) {
            return Ok(());
        }
        let base = stored_base(self.fetcher, self.of, reference).await?;
        let base = parts(&base, reference)?;
        self.see(&base);
        self.map(base.map).await
    }

    /// What a map says by itself.
    fn see(&mut self, base: &BaseParts) {
        base.map.chunk_ids().iter().for_each(|id| self.object(id));
        // The pack of a small database is its image, and no object.
        if !matches!(base.image, Some(Image::Whole(_))) {
            base.map.deltas().for_each(|delta| self.pack(&delta.pack));
            base.map.packs().iter().flatten().for_each(|pack| self.pack(pack));
        }
    }

    async fn map(&mut self, mut map: PageMap) -> Result<(), RecordError> {
        if map.missing_chunks().is_empty() {
            return Ok(());
        }
        for reference in map.missing_chunks() {
            let object = self.fetcher.chunk(self.of, &reference).await?;
            let with = map.with_chunk(&reference, &object);
            map = with.map_err(|corrupt| corrupt.at(keys::page_map(&reference.id)))?;
        }
        map.packs().expect("BUG: its chunks were read").iter().for_each(|pack| self.pack(pack));
        Ok(())
    }

    fn pack(&mut self, id: &PackId) {
        self.reach.keys.insert(keys::pack(id));
        self.reach.owners.insert(id.owner);
    }

    fn object(&mut self, id: &MapChunkId) {
        self.reach.keys.insert(keys::page_map(id));
        self.reach.owners.insert(id.owner);
    }

    fn is_done(&self) -> bool {
        self.wanted.is_some_and(|wanted| wanted.iter().all(|key| self.reach.keys.contains(key)))
    }
}
