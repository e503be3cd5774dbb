//! What a fork begins with: which stored base, and what its first head says.

use bytes::Bytes;
use segments::base::{BaseRef, StoredBase};
use segments::history::HistoryIndex;
use segments::keys;
use segments::tip::{ChainHash, Tip};
use tenant::head::{ChunkRef, Folded, Head, MapField};
use tenant::lifecycle;
use walstore::envelope::Corrupt;
use walstore::id::Lsn;
use walstore::register::{self, Patience, RecordError};
use walstore::seam::Seam;
use walstore::store::Store;

use super::{ForkFailure, Forker};

/// What a fork begins with, and what that takes.
pub(super) struct Beginning {
    /// What its first head says.
    pub child: lifecycle::Beginning,
    /// The base that the parent keeps for it; none for an empty fork.
    pub pinned: Option<(Lsn, BaseRef)>,
    /// The base as an object, if it is not stored yet.
    pub object: Option<Bytes>,
}

impl Forker<'_> {
    /// No request for the newest folded state, and one for a state that history has stored.
    pub(super) async fn beginning(&self, parent: &Head, at: Option<Lsn>) -> Result<Beginning, ForkFailure> {
        let Some(lsn) = at else { return Ok(empty(parent)) };
        let history = history_of(parent)?;
        if parent.folded.lsn != at {
            let base = history.base_at(lsn).ok_or(ForkFailure::NotStored(lsn))?;
            let stored = read_base(self.store, self.seam, &base, self.patience).await?;
            return Ok(shared(parent, folded_of(&stored.tip), lsn, base, None));
        }
        let known = match &parent.map {
            MapField::Shared(reference) => Some(BaseRef::from_bytes(&reference.0).map_err(|corrupt| at_head(parent, corrupt))?),
            MapField::Inline(_) => history.base_at(lsn),
        };
        if let Some(base) = known {
            return Ok(shared(parent, parent.folded, lsn, base, None));
        }
        let MapField::Inline(root) = &parent.map else { unreachable!("BUG: a shared map is a base") };
        let stored = StoredBase { tip: tip_of(&parent.folded), root: root.clone(), image: parent.inline_image.clone() };
        let (base, object) = stored.seal(self.next_id(parent));
        Ok(shared(parent, parent.folded, lsn, base, Some(object)))
    }
}

fn empty(parent: &Head) -> Beginning {
    let child = lifecycle::Beginning {
        parent: parent.database,
        folded: Folded::default(),
        map: MapField::default(),
        image: None,
        history: Bytes::new(),
    };
    Beginning { child, pinned: None, object: None }
}

fn shared(parent: &Head, folded: Folded, lsn: Lsn, base: BaseRef, object: Option<Bytes>) -> Beginning {
    let child = lifecycle::Beginning {
        parent: parent.database,
        folded,
        map: MapField::Shared(ChunkRef(base.to_bytes())),
        image: None,
        history: Bytes::new(),
    };
    Beginning { child, pinned: Some((lsn, base)), object }
}

/// The index of a head's history.
pub(crate) fn history_of(head: &Head) -> Result<HistoryIndex, Corrupt> {
    HistoryIndex::decode(&head.history).map_err(|corrupt| at_head(head, corrupt))
}

fn at_head(head: &Head, corrupt: Corrupt) -> Corrupt {
    corrupt.at(tenant::keys::head(head.database))
}

fn folded_of(tip: &Tip) -> Folded {
    Folded {
        lsn: tip.lsn,
        chain: *tip.chain.as_bytes(),
        time_micros: tip.time_micros,
        page_count: tip.page_count,
        pages_total: tip.pages_total,
    }
}

fn tip_of(folded: &Folded) -> Tip {
    Tip {
        lsn: folded.lsn,
        time_micros: folded.time_micros,
        page_count: folded.page_count,
        pages_total: folded.pages_total,
        chain: ChainHash::from_bytes(folded.chain),
    }
}

/// The stored base that `reference` names: one GET.
pub async fn read_base(
    store: &dyn Store,
    seam: &Seam,
    reference: &BaseRef,
    patience: Patience,
) -> Result<StoredBase, RecordError> {
    let key = keys::page_map(&reference.id);
    let found = register::get(store, seam, &key, patience).await?;
    let (object, _) = found.ok_or_else(|| Corrupt::new("a stored base is gone").at(&key))?;
    Ok(StoredBase::open(&object, reference).map_err(|corrupt| corrupt.at(&key))?)
}
