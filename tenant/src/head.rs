//! The head `t/<h>/<dbid>/head`: the only mutable object of a database, and the authority about it.
//!
//! Body, inside the [envelope](walstore::envelope), compressed where that helps. Counts and lengths are
//! `u32`; an optional field is a byte 0, or a byte 1 and the field; LSN 0 is the state before the first
//! commit.
//!
//! | bytes | what |
//! |---|---|
//! | 16, 8 | put id, version (rises by one with every CAS) |
//! | 8 | epoch (rises by one whenever the owner changes, to nobody included) |
//! | 16 | the database, so that a head at a foreign key is noticed |
//! | 1 + … | state: 1 live; 2 moved, 16 new database; 3 renamed, name; 4 deleted, 8 time; 5 aborted |
//! | 4 + n | canonical name |
//! | 27 | [settings](crate::settings) |
//! | 1 + 24 | optional: the parent and LSN that it was forked from |
//! | 1 + 16 | optional: incarnation that owns it |
//! | 8, 16, 8, 4, 8 | folded up to: LSN, chain hash, commit time, pages of the database, cumulative pages |
//! | 4 + n·32 | tail: incarnation, epoch, after LSN |
//! | 1 + … | page map: 1 inline; 2 shared, in an object that is maybe an ancestor's: length and bytes or reference |
//! | 8 | horizon: the oldest LSN that can be restored |
//! | 4 + n | index of the retained history |
//! | 4 | number of the last fold of this epoch, 0 if there was none |
//! | 4 + n·24 | pins: child, LSN |
//! | 4 + … | keys of chunks of spilled pins, each with its length |
//! | 4 + … | dead: references to packs that this head no longer needs, each with its length |
//! | 1 + … | optional: length and bytes of the image: pages that stand here, all those of a small database |
//!
//! Times are microseconds since the Unix epoch. The page map, chunk and pack references, the index of the history
//! and the image are opaque here: they belong to the crate that knows pages.
//!
//! [`check`](Head::check) states what holds in every head, [`invariant`] what holds between a head and its
//! successor, and [`lifecycle`](crate::lifecycle) has the functions that make successors.

mod check;
mod codec;
mod invariant;
#[cfg(test)]
pub(crate) mod tests;

use bytes::Bytes;
use walstore::id::{DatabaseId, IncarnationId, Lsn, PutId};
use walstore::mutant::{self, Mutant};
use walstore::store::Key;

use crate::name::Name;
use crate::settings::Settings;

pub use invariant::invariant;

/// Whether a database lives, or how it ended. All states but the first are final: a head in one of them
/// is never deleted and never lives again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadState {
    Live,
    /// Restored in place: the name belongs to the database `new` now.
    Moved { new: DatabaseId },
    /// The content goes on as another database under another name.
    Renamed { name: Name },
    Deleted { at_micros: u64 },
    /// Never lived: the key of an unfinished fork or import, occupied so that it never will.
    Aborted,
}

impl HeadState {
    pub fn is_final(&self) -> bool {
        *self != Self::Live
    }
}

/// The commit of another database that this one begins with; none if that one was empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForkPoint {
    pub parent: DatabaseId,
    pub lsn: Option<Lsn>,
}

/// The last commit that is in packs, and what it left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    pub lsn: Option<Lsn>,
    /// Hash of the chain of commits up to and with this one.
    pub chain: [u8; 16],
    pub time_micros: u64,
    /// Size of the database.
    pub page_count: u32,
    /// Pages in all commits so far: embedded replicas number frames by page.
    pub pages_total: u64,
}

/// One owner whose commits are not all folded: they are in its log.
///
/// The history after the folded point is, entry by entry, every commit in that incarnation's log that the
/// entry [holds](TailEntry::holds). The pair (incarnation, epoch) alone identifies them, since an epoch has
/// one owner; an earlier term of the same incarnation, and what it may have logged while it lost a race to
/// acquire, carry other pairs.
///
/// `after` is a lower bound, for an acquirer writes the entry before it has read the tail up to there. It
/// becomes exact with the owner's first fold. What an owner logs first is the successor of the last commit
/// of the entries before, so the LSNs of the whole tail are dense and their chain hashes link; a reader for
/// whom they don't has found corruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailEntry {
    pub incarnation: IncarnationId,
    pub epoch: u64,
    pub after: Option<Lsn>,
}

impl TailEntry {
    /// Whether a commit in a run of this database belongs to the history through this entry.
    pub fn holds(&self, incarnation: IncarnationId, epoch: u64, lsn: Lsn) -> bool {
        let is_this_term = self.incarnation == incarnation && self.epoch == epoch;
        (is_this_term || mutant::is_on(Mutant::SkipChainCheck)) && Some(lsn) > self.after
    }
}

/// The page map as of the folded point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapField {
    Inline(Bytes),
    /// Map and image stand in an object that never changes, maybe under the keys of an ancestor: a fork begins so.
    Shared(ChunkRef),
}

impl Default for MapField {
    fn default() -> Self {
        Self::Inline(Bytes::new())
    }
}

/// Which object holds the folded state: at most
/// [`CHUNK_REFERENCE_BYTES_MAX`](crate::limits::CHUNK_REFERENCE_BYTES_MAX) bytes, opaque here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkRef(pub Bytes);

/// Which pack: at most [`PACK_REFERENCE_BYTES_MAX`](crate::limits::PACK_REFERENCE_BYTES_MAX) bytes, opaque
/// here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackRef(pub Bytes);

/// What a fork keeps alive in its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    pub child: DatabaseId,
    pub lsn: Option<Lsn>,
}

/// The module's documentation tells what each field means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub put_id: PutId,
    pub version: u64,
    pub epoch: u64,
    pub database: DatabaseId,
    pub state: HeadState,
    pub name: Name,
    pub settings: Settings,
    pub parent: Option<ForkPoint>,
    pub owner: Option<IncarnationId>,
    pub folded: Folded,
    pub tail: Vec<TailEntry>,
    pub map: MapField,
    pub horizon: Option<Lsn>,
    /// Opaque, like the map.
    pub history: Bytes,
    /// Objects of this epoch up to this number either are linked or never will be.
    pub fold_seq: u32,
    pub pins: Vec<Pin>,
    pub pin_chunks: Vec<Key>,
    pub dead: Vec<PackRef>,
    /// As of the folded point, and opaque like the map.
    pub inline_image: Option<Bytes>,
}

impl Head {
    /// Whether a fork may need something of it.
    pub fn is_pinned(&self) -> bool {
        !self.pins.is_empty() || !self.pin_chunks.is_empty()
    }

    /// The object in which the folded state stands, if it is not this head.
    pub fn shared(&self) -> Option<&ChunkRef> {
        match &self.map {
            MapField::Inline(_) => None,
            MapField::Shared(base) => Some(base),
        }
    }

    /// Whether it has folded anything since it was created or forked.
    pub fn has_folded(&self) -> bool {
        self.folded.lsn > self.parent.and_then(|parent| parent.lsn)
    }

    /// Whether it has ended and its content is no longer kept, but for what its pins need. So it stays.
    pub fn is_emptied(&self) -> bool {
        let has_map = match &self.map {
            MapField::Inline(root) => !root.is_empty(),
            MapField::Shared(_) => true,
        };
        self.state.is_final() && !has_map && self.inline_image.is_none() && self.dead.is_empty()
    }

    /// Whether it refers to nothing any more, and for ever.
    pub fn is_shrunk(&self) -> bool {
        self.is_emptied() && !self.is_pinned() && self.history.is_empty()
    }

    /// The successor to be written by a CAS, before the caller's change.
    pub fn successor(&self, put_id: PutId) -> Self {
        Self { put_id, version: self.version + 1, ..self.clone() }
    }
}
