//! Whether a database still reads what another one's pins keep for it.

use segments::base::BaseRef;
use segments::history::{Entry, HistoryChunk};
use segments::keys;
use segments::map::PageMap;
use tenant::head::{Head, MapField};
use walstore::envelope::Corrupt;
use walstore::id::DatabaseId;
use walstore::register::{self, Patience, RecordError};
use walstore::seam::Seam;
use walstore::store::Store;

use super::beginning::{history_of, read_base};
use crate::fetcher::Fetcher;

/// Where to read what heads refer to.
struct Reading<'a> {
    store: &'a dyn Store,
    seam: &'a Seam,
    fetcher: &'a Fetcher,
    patience: Patience,
    /// Whose objects do not count.
    own: DatabaseId,
}

/// Whether the map of `head`, its history or what it keeps for forks of its own lead to an object that is not its own.
///
/// What does not will never do so again: heads only ever come to refer to objects of their own.
pub async fn reaches(
    store: &dyn Store,
    seam: &Seam,
    fetcher: &Fetcher,
    head: &Head,
    patience: Patience,
) -> Result<bool, RecordError> {
    let own = head.database;
    Reading { store, seam, fetcher, patience, own }.head(head).await
}

impl Reading<'_> {
    async fn head(&self, head: &Head) -> Result<bool, RecordError> {
        let at_head = |corrupt: Corrupt| corrupt.at(tenant::keys::head(head.database));
        let history = history_of(head)?;
        let mut bases: Vec<BaseRef> = history.bases().map(|(_, base)| base).collect();
        let is_run = |entry: &Entry| matches!(entry, Entry::Run(run) if run.pack.owner != self.own);
        if let MapField::Shared(reference) = &head.map {
            bases.push(BaseRef::from_bytes(&reference.0).map_err(at_head)?);
        }
        let is_chunk = history.chunks().iter().any(|chunk| chunk.id.owner != self.own);
        // What ids alone tell comes first: most forks never read on.
        if is_chunk || history.entries().iter().any(is_run) || bases.iter().any(|base| base.id.owner != self.own) {
            return Ok(true);
        }
        if let MapField::Inline(root) = &head.map
            && !root.is_empty()
            && self.map(head.database, PageMap::decode(root).map_err(at_head)?).await?
        {
            return Ok(true);
        }
        for reference in history.chunks() {
            let key = keys::page_map(&reference.id);
            let found = register::get(self.store, self.seam, &key, self.patience).await?;
            let (object, _) = found.ok_or_else(|| Corrupt::new("a chunk of a history is gone").at(&key))?;
            let chunk = HistoryChunk::open(&object, reference).map_err(|corrupt| corrupt.at(&key))?;
            if chunk.entries.iter().any(is_run) {
                return Ok(true);
            }
            bases.extend(chunk.entries.iter().filter_map(|entry| match entry {
                Entry::Base { base, .. } => Some(*base),
                Entry::Run(_) => None,
            }));
        }
        for base in bases {
            if base.id.owner != self.own || self.base(&base).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn base(&self, reference: &BaseRef) -> Result<bool, RecordError> {
        let stored = read_base(self.store, self.seam, reference, self.patience).await?;
        let parts = stored.parts().map_err(|corrupt| corrupt.at(keys::page_map(&reference.id)))?;
        self.map(reference.id.owner, parts.map).await
    }

    async fn map(&self, of: DatabaseId, mut map: PageMap) -> Result<bool, RecordError> {
        let is_chunk = map.chunk_ids().iter().any(|id| id.owner != self.own);
        if is_chunk || map.deltas().any(|delta| delta.pack.owner != self.own) {
            return Ok(true);
        }
        for reference in map.missing_chunks() {
            let object = self.fetcher.chunk(of, &reference).await?;
            map = map.with_chunk(&reference, &object).map_err(|corrupt| corrupt.at(keys::page_map(&reference.id)))?;
        }
        Ok(map.packs().expect("BUG: its chunks were read").iter().any(|pack| pack.owner != self.own))
    }
}
