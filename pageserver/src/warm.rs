//! Reading the parts of a page map that are not in the head, all at once, before anybody asks for a page.
//!
//! A query that has to find them out one after the other waits for as many round trips. Whoever opens a database
//! has time for this: while it makes itself the owner it waits for the bucket anyway.

use futures_util::future::{try_join, try_join_all};
use segments::cache::PageCache;
use segments::keys;
use segments::map::{DeltaRef, MapChunkRef, PageMap};
use walstore::id::DatabaseId;
use walstore::register::RecordError;

use crate::fetcher::Fetcher;
use crate::limits;

/// What of `map` is worth reading at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cold {
    chunks: Vec<MapChunkRef>,
    indexes: Vec<DeltaRef>,
}

impl Cold {
    /// `None` if nothing is.
    pub fn of(map: &PageMap, cache: &PageCache) -> Option<Self> {
        let mut chunks = map.missing_chunks();
        if chunks.len() > limits::WARM_CHUNKS_MAX {
            chunks.clear();
        }
        let indexes = map.missing_indexes(&|delta| cache.index(delta));
        let cold = Self { chunks, indexes };
        (cold != Self::default()).then_some(cold)
    }

    /// Reads it. The indexes go into the cache, the chunks into the map that is returned.
    pub async fn read(self, fetcher: &Fetcher, of: DatabaseId, mut map: PageMap) -> Result<PageMap, RecordError> {
        let chunks = self.chunks.into_iter().map(|reference| async move {
            fetcher.chunk(of, &reference).await.map(|object| (reference, object))
        });
        let (chunks, _) = try_join(try_join_all(chunks), fetcher.indexes(of, &self.indexes)).await?;
        for (reference, object) in chunks {
            let with = map.with_chunk(&reference, &object);
            map = with.map_err(|corrupt| corrupt.at(keys::page_map(&reference.id)))?;
        }
        Ok(map)
    }
}
