//! What a fork begins with.

use bytes::Bytes;
use segments::base::BaseRef;
use segments::history::Start;
use segments::image::Image;
use tenant::head::{ChunkRef, Folded, Head, MapField};
use tenant::lifecycle::{self, Beginning};
use tenant::name::Name;
use tenant::settings::Settings;
use walstore::id::{DatabaseId, Lsn, PutId};
use walstore::register::Versioned;
use walstore::store::ETag;

use super::{ForkFailure, Forker};
use crate::base::{FoldedState, as_base, folded_of, stored_base};
use crate::fold::{FoldJob, Folder, Linked};
use crate::history::{index_of, materialise, path_to};
use crate::tail::Tail;

/// From what the first state of a fork is made.
pub(super) enum Source {
    /// Nothing: the parent was empty.
    Empty,
    /// A base, which has all of it.
    Shared { folded: Folded, lsn: Lsn, base: BaseRef, object: Option<Bytes> },
    /// A base or the empty database, and commits replayed on it.
    Past { base: Option<(Lsn, BaseRef)>, tail: Box<Tail> },
}

impl Source {
    /// What the parent keeps for the fork.
    pub fn base(&self) -> Option<(Lsn, BaseRef)> {
        match self {
            Self::Empty => None,
            Self::Shared { lsn, base, .. } => Some((*lsn, *base)),
            Self::Past { base, .. } => *base,
        }
    }

    /// The base as an object, if it is not stored yet.
    pub fn object(&self) -> Option<&Bytes> {
        match self {
            Self::Shared { object, .. } => object.as_ref(),
            Self::Empty | Self::Past { .. } => None,
        }
    }
}

impl Forker<'_> {
    /// No request for the newest folded state, one for a state that history has stored, and else what it takes to go back
    /// there.
    pub(super) async fn source(&self, parent: &Head, at: Option<Lsn>) -> Result<Source, ForkFailure> {
        let Some(lsn) = at else { return Ok(Source::Empty) };
        if parent.folded.lsn == at {
            return self.newest(parent, lsn);
        }
        let index = index_of(parent)?;
        let base = match path_to(self.fetcher, parent, &index, lsn).await?.start {
            Start::Empty => None,
            Start::Stored { lsn: at, base } if at == lsn => {
                let tip = stored_base(self.fetcher, parent.database, &base).await?.tip;
                return Ok(Source::Shared { folded: folded_of(&tip), lsn, base, object: None });
            }
            Start::Stored { lsn, base } => Some((lsn, base)),
        };
        let tail = Box::new(materialise(self.fetcher, parent, lsn.get()).await?);
        Ok(Source::Past { base, tail })
    }

    fn newest(&self, parent: &Head, lsn: Lsn) -> Result<Source, ForkFailure> {
        let folded = parent.folded;
        let stored = match as_base(parent)? {
            FoldedState::Stored(base) => return Ok(Source::Shared { folded, lsn, base, object: None }),
            FoldedState::InHead(stored) => stored,
        };
        if let Some(base) = index_of(parent)?.base_at(lsn) {
            return Ok(Source::Shared { folded, lsn, base, object: None });
        }
        let (base, object) = stored.seal(self.next_id(parent));
        Ok(Source::Shared { folded, lsn, base, object: Some(object) })
    }

    /// What the child's first head says; what it needs of its own is written.
    pub(super) async fn beginning(
        &self,
        parent: &Head,
        name: &Name,
        child: DatabaseId,
        source: Source,
    ) -> Result<Beginning, ForkFailure> {
        match source {
            Source::Empty => Ok(inline(parent.database, Folded::default(), MapField::default(), None)),
            Source::Shared { folded, base, .. } => Ok(shared(parent.database, folded, &base)),
            Source::Past { tail, .. } => self.folded_apart(parent, name, child, *tail).await,
        }
    }

    /// Folds replayed commits into a pack of the child, for a head that is still to come.
    async fn folded_apart(
        &self,
        parent: &Head,
        name: &Name,
        child: DatabaseId,
        tail: Tail,
    ) -> Result<Beginning, ForkFailure> {
        // The child as it would be without these commits. Nobody ever writes this head.
        let root = match tail.map.lsn() {
            None => MapField::default(),
            Some(_) => MapField::Inline(tail.map.store(&mut || unreachable!("BUG: a map that was stored changed")).root),
        };
        let before = Folded { lsn: tail.map.lsn(), page_count: tail.map.page_count(), ..Folded::default() };
        let unborn = inline(parent.database, before, root, tail.image().map(Image::encode));
        let head = lifecycle::child_head(name, child, unborn, Settings::new(0), PutId::random(self.seam));
        let head = Versioned { value: head, etag: ETag(String::new()) };
        let Tail { map, input, tip, .. } = tail;
        let own_after = tip.lsn;
        let job = FoldJob { head, map, input, tip, own_after, seq: 0, deleted: Vec::new(), release: false, pin: None };
        let folder = Folder { store: self.store, seam: self.seam, fetcher: self.fetcher };
        let (map, image) = folder.fold_apart(job).await?;
        Ok(inline(parent.database, folded_of(&tip), map, image))
    }
}

/// What a fork begins with at the point that was folded when it was pinned.
pub(super) fn of_fold(linked: &Linked) -> Beginning {
    let head = &linked.head.value;
    match &linked.pinned {
        None => inline(head.database, Folded::default(), MapField::default(), None),
        Some((_, base)) => shared(head.database, head.folded, base),
    }
}

fn inline(parent: DatabaseId, folded: Folded, map: MapField, image: Option<Bytes>) -> Beginning {
    Beginning { parent, folded, map, image, history: Bytes::new() }
}

fn shared(parent: DatabaseId, folded: Folded, base: &BaseRef) -> Beginning {
    inline(parent, folded, MapField::Shared(ChunkRef(base.to_bytes())), None)
}
