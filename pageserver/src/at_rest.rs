//! Reading single pages at rest, outside of any query.

use std::sync::Arc;

use segments::image::Image;
use segments::map::{DeltaRef, Lookup, PageMap};
use segments::page::{MissingPage, Page, PageNo};
use walstore::envelope::Corrupt;
use walstore::id::DatabaseId;
use walstore::register::RecordError;

use crate::fetcher::Fetcher;

/// The page of `of` as of `map`, which learns the chunks that it takes. `image` stands beside it in the head.
pub async fn page(
    fetcher: &Fetcher,
    of: DatabaseId,
    map: &mut PageMap,
    image: Option<&Image>,
    page_no: PageNo,
) -> Result<Page, RecordError> {
    let at_head = |corrupt: Corrupt| corrupt.at(tenant::keys::head(of));
    let cache = fetcher.cache();
    // Held until the page is found, whatever a full cache does.
    let mut held = Vec::new();
    loop {
        let indexes = |delta: &DeltaRef| {
            let known = held.iter().find(|(known, _)| known == delta).map(|(_, index)| Arc::clone(index));
            known.or_else(|| cache.index(delta))
        };
        match map.lookup(page_no, &indexes) {
            Lookup::Found(source) => {
                let frame = match image.and_then(|image| image.frame(&source.at)) {
                    Some(frame) => frame.map_err(at_head)?,
                    None => fetcher.frame(of, &source.at).await?,
                };
                let page = frame.page(source.place);
                return Ok(page.map_err(|corrupt| corrupt.at(segments::keys::pack(&source.at.pack)))?);
            }
            Lookup::NeedChunk(reference) => {
                let object = fetcher.chunk(of, &reference).await?;
                let with = map.with_chunk(&reference, &object);
                *map = with.map_err(|corrupt| corrupt.at(segments::keys::page_map(&reference.id)))?;
            }
            Lookup::NeedIndexes(deltas) => held.extend(fetcher.indexes(of, &deltas).await?),
            Lookup::LockPage => return Ok(Page::zeroed()),
            Lookup::Outside | Lookup::Missing => {
                let missing = MissingPage { database: of, page: page_no, lsn: map.lsn() };
                return Err(at_head(Corrupt::new(missing.to_string())).into());
            }
        }
    }
}
