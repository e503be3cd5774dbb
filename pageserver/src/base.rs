//! What a head says is folded: in the head itself, or in a stored base to which it refers. A database begins with the
//! latter if it is a fork, until its first fold.

use segments::base::{BaseParts, BaseRef, StoredBase};
use segments::image::Image;
use segments::keys;
use segments::map::PageMap;
use segments::tip::{ChainHash, Tip};
use tenant::head::{Folded, Head, MapField};
use walstore::envelope::Corrupt;
use walstore::id::DatabaseId;
use walstore::register::RecordError;

use crate::fetcher::Fetcher;

/// The stored base that a head refers to, if its folded state does not stand in it.
pub fn shared_of(head: &Head) -> Result<Option<BaseRef>, Corrupt> {
    match &head.map {
        MapField::Inline(_) => Ok(None),
        MapField::Shared(reference) => BaseRef::from_bytes(&reference.0).map(Some),
    }
}

/// The history up to the last folded commit.
pub fn tip_of(head: &Head) -> Tip {
    let folded = &head.folded;
    if folded.lsn.is_none() {
        return Tip::before_first(head.database);
    }
    Tip {
        lsn: folded.lsn,
        time_micros: folded.time_micros,
        page_count: folded.page_count,
        pages_total: folded.pages_total,
        chain: ChainHash::from_bytes(folded.chain),
    }
}

/// What a head says of a history that is folded up to `tip`: the other way round.
pub fn folded_of(tip: &Tip) -> Folded {
    Folded {
        lsn: tip.lsn,
        chain: *tip.chain.as_bytes(),
        time_micros: tip.time_micros,
        page_count: tip.page_count,
        pages_total: tip.pages_total,
    }
}

/// The folded state of a head as a base: one that is stored, or one to be stored.
pub(crate) enum FoldedState {
    Stored(BaseRef),
    InHead(StoredBase),
}

pub(crate) fn as_base(head: &Head) -> Result<FoldedState, Corrupt> {
    match &head.map {
        MapField::Shared(reference) => BaseRef::from_bytes(&reference.0).map(FoldedState::Stored),
        MapField::Inline(root) => {
            let image = head.inline_image.clone();
            Ok(FoldedState::InHead(StoredBase { tip: tip_of(head), root: root.clone(), image }))
        }
    }
}

/// The folded state of a head that is complete in itself; `None` if it refers to a [stored base](shared_of).
pub fn inline_base_of(head: &Head) -> Result<Option<BaseParts>, Corrupt> {
    let tip = tip_of(head);
    let MapField::Inline(root) = &head.map else { return Ok(None) };
    let Some(lsn) = tip.lsn else { return Ok(Some(BaseParts { tip, map: PageMap::empty(), image: None })) };
    let map = PageMap::decode(root)?;
    if map.lsn() != tip.lsn || map.page_count() != tip.page_count {
        return Err(Corrupt::new(format!("a page map as of {:?} in a head folded up to {lsn}", map.lsn())));
    }
    let image = head.inline_image.as_ref().map(Image::decode).transpose()?;
    Ok(Some(BaseParts { tip, map, image }))
}

/// The folded state, from wherever it stands: one GET if that is an object of its own.
pub async fn base_of(fetcher: &Fetcher, head: &Head) -> Result<BaseParts, RecordError> {
    let at_head = |corrupt: Corrupt| corrupt.at(tenant::keys::head(head.database));
    if let Some(base) = inline_base_of(head).map_err(at_head)? {
        return Ok(base);
    }
    let shared = shared_of(head).map_err(at_head)?.expect("BUG: a map that stands neither here nor elsewhere");
    let base = stored_base(fetcher, head.database, &shared).await?;
    if base.tip != tip_of(head) {
        let reason = format!("folded up to {:?}, but its base is as of {:?}", head.folded.lsn, base.tip.lsn);
        return Err(at_head(Corrupt::new(reason)).into());
    }
    parts(&base, &shared)
}

/// A stored base, on behalf of the database `of`.
pub async fn stored_base(fetcher: &Fetcher, of: DatabaseId, reference: &BaseRef) -> Result<StoredBase, RecordError> {
    let object = fetcher.object(of, reference.id, reference.bytes, reference.crc).await?;
    Ok(StoredBase::open(&object, reference).map_err(|corrupt| corrupt.at(keys::page_map(&reference.id)))?)
}

pub(crate) fn parts(base: &StoredBase, reference: &BaseRef) -> Result<BaseParts, RecordError> {
    Ok(base.parts().map_err(|corrupt| corrupt.at(keys::page_map(&reference.id)))?)
}
