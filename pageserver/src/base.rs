//! What a head says is folded: in the head itself, or in a stored base to which it refers. A database begins with the
//! latter if it is a fork, until its first fold.

use segments::base::{BaseParts, BaseRef, StoredBase};
use segments::image::Image;
use segments::keys;
use segments::map::PageMap;
use segments::tip::{ChainHash, Tip};
use tenant::head::{Folded, Head, MapField};
use tokio::sync::oneshot;
use walstore::envelope::Corrupt;
use walstore::id::DatabaseId;
use walstore::register::RecordError;
use walstore::seam::Seam;

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
    parts_of(head, &base, &shared)
}

/// What is folded, from the stored base to which the head refers.
fn parts_of(head: &Head, base: &StoredBase, shared: &BaseRef) -> Result<BaseParts, RecordError> {
    if base.tip != tip_of(head) {
        let reason = format!("folded up to {:?}, but its base is as of {:?}", head.folded.lsn, base.tip.lsn);
        return Err(Corrupt::new(reason).at(tenant::keys::head(head.database)).into());
    }
    parts(base, shared)
}

/// A stored base that is being read although no head has led to it yet, only a hint.
pub struct Ahead {
    reference: BaseRef,
    read: oneshot::Receiver<StoredBase>,
}

impl Ahead {
    /// Begins to read it, on behalf of the database `of`. What cannot be read is left to whoever needs it after all.
    pub fn read(fetcher: &Fetcher, seam: &Seam, of: DatabaseId, reference: BaseRef) -> Self {
        let (sender, read) = oneshot::channel();
        let fetcher = fetcher.clone();
        seam.spawn(async move {
            if let Ok(base) = stored_base(&fetcher, of, &reference).await {
                drop(sender.send(base));
            }
        });
        Self { reference, read }
    }
}

/// The same as [`base_of`]: no GET more if `ahead` is what the head leads to.
pub async fn base_of_ahead(fetcher: &Fetcher, head: &Head, ahead: Option<Ahead>) -> Result<BaseParts, RecordError> {
    let shared = shared_of(head).ok().flatten();
    let base = match ahead.filter(|ahead| Some(ahead.reference) == shared) {
        Some(ahead) => ahead.read.await.ok(),
        None => None,
    };
    match base.zip(shared) {
        Some((base, shared)) => parts_of(head, &base, &shared),
        None => base_of(fetcher, head).await,
    }
}

/// A stored base, on behalf of the database `of`.
pub async fn stored_base(fetcher: &Fetcher, of: DatabaseId, reference: &BaseRef) -> Result<StoredBase, RecordError> {
    let object = fetcher.object(of, reference.id, reference.bytes, reference.crc).await?;
    Ok(StoredBase::open(&object, reference).map_err(|corrupt| corrupt.at(keys::page_map(&reference.id)))?)
}

pub(crate) fn parts(base: &StoredBase, reference: &BaseRef) -> Result<BaseParts, RecordError> {
    Ok(base.parts().map_err(|corrupt| corrupt.at(keys::page_map(&reference.id)))?)
}
