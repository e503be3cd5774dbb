//! What stands in one slot of a log: a **fragment** (commits of many databases) or a **tombstone**.
//!
//! Body of a fragment, inside the [envelope](crate::envelope), never compressed as a whole so that one
//! ranged GET reads one database's run:
//!
//! | bytes | what |
//! |---|---|
//! | 16 | incarnation |
//! | 8 | slot |
//! | 16 | put id |
//! | … | the [runs](crate::run), one for each (database, epoch) |
//!
//! A tombstone's body is incarnation, slot and put id.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::envelope::{self, Corrupt, Kind, Reader, Writer};
use crate::id::{DatabaseId, IncarnationId, Lsn, PutId, Slot};
use crate::limits;
use crate::run::{self, Content, Run};

const VERSION: u8 = 1;
/// Length of a whole tombstone object: a ranged GET of this much identifies what is in a slot.
pub const TOMBSTONE_BYTES: usize = envelope::HEADER_BYTES + 40;

/// One commit as the log sees it: opaque bytes, or where they are, with an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub database: DatabaseId,
    pub epoch: u64,
    pub lsn: Lsn,
    pub bytes: Content,
}

/// A decoded fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    pub incarnation: IncarnationId,
    pub slot: Slot,
    pub put_id: PutId,
    pub runs: Vec<Run>,
}

/// What a slot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotObject {
    Fragment(Fragment),
    Tombstone { incarnation: IncarnationId, slot: Slot },
}

/// Encodes a fragment. Entries of one (database, epoch) must be dense and in order; they are gathered
/// into one run each.
///
/// # Panics
/// If LSNs of one database are not dense.
pub fn encode(incarnation: IncarnationId, slot: Slot, put_id: PutId, entries: &[Entry]) -> Bytes {
    let mut body = Writer::new();
    body.raw(incarnation.as_bytes());
    body.u64(slot.0);
    body.raw(put_id.as_bytes());
    run::encode(&runs_of(entries), &mut body);
    envelope::seal(Kind::Fragment, VERSION, &body.finish())
}

fn runs_of(entries: &[Entry]) -> Vec<Run> {
    let mut runs: BTreeMap<(DatabaseId, u64), Run> = BTreeMap::new();
    for Entry { database, epoch, lsn, bytes } in entries {
        let empty = || Run { database: *database, epoch: *epoch, first: *lsn, commits: Vec::new() };
        let run = runs.entry((*database, *epoch)).or_insert_with(empty);
        let expected = run.first.get() + run.commits.len() as u64;
        assert_eq!(lsn.get(), expected, "BUG: commits of {database} are not dense");
        run.commits.push(bytes.clone());
    }
    runs.into_values().collect()
}

/// Encodes the object that ends a log.
pub fn encode_tombstone(incarnation: IncarnationId, slot: Slot, put_id: PutId) -> Bytes {
    let mut body = Writer::new();
    body.raw(incarnation.as_bytes());
    body.u64(slot.0);
    body.raw(put_id.as_bytes());
    let object = envelope::seal(Kind::Tombstone, VERSION, &body.finish());
    debug_assert_eq!(object.len(), TOMBSTONE_BYTES);
    object
}

/// Checks and decodes what was read from the slot `(incarnation, slot)`.
pub fn decode(object: &Bytes, incarnation: IncarnationId, slot: Slot) -> Result<SlotObject, Corrupt> {
    let opened = envelope::open(object, limits::FRAGMENT_BYTES_MAX)?;
    if opened.version != VERSION {
        return Err(Corrupt::new(format!("slot format version {}", opened.version)));
    }
    let mut reader = Reader::new(&opened.body);
    let found = (IncarnationId::from_bytes(reader.array()?), Slot(reader.u64()?));
    if found != (incarnation, slot) {
        return Err(Corrupt::new(format!("belongs to slot {} of {}", found.1, found.0)));
    }
    let put_id = PutId::from_bytes(reader.array()?);
    match opened.kind {
        Kind::Tombstone => {
            reader.end()?;
            Ok(SlotObject::Tombstone { incarnation, slot })
        }
        Kind::Fragment => {
            let runs = run::decode(&opened.body.slice(opened.body.len() - reader.remaining()..))?;
            Ok(SlotObject::Fragment(Fragment { incarnation, slot, put_id, runs }))
        }
        kind => Err(Corrupt::new(format!("a {kind:?} in a log slot"))),
    }
}

/// What the first [`TOMBSTONE_BYTES`] of a slot's object show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// A fragment; its checksum covers more than was read and is left to whoever reads it whole.
    Data,
    Tombstone,
}

/// Tells data from a tombstone by the first [`TOMBSTONE_BYTES`] of an object. Anything else, an empty
/// object included, is corruption, never an end of the log.
pub fn identify(start: &Bytes, incarnation: IncarnationId, slot: Slot) -> Result<SlotKind, Corrupt> {
    if envelope::kind_of(start)? == Kind::Tombstone {
        return match decode(start, incarnation, slot)? {
            SlotObject::Tombstone { .. } => Ok(SlotKind::Tombstone),
            SlotObject::Fragment(_) => Err(Corrupt::new("a fragment of the kind tombstone")),
        };
    }
    let mut reader = Reader::new(start.get(envelope::HEADER_BYTES..).unwrap_or_default());
    let found = (IncarnationId::from_bytes(reader.array()?), Slot(reader.u64()?));
    match (envelope::kind_of(start)?, found == (incarnation, slot)) {
        (Kind::Fragment, true) => Ok(SlotKind::Data),
        (kind, _) => Err(Corrupt::new(format!("a {kind:?} of slot {} of {}", found.1, found.0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INC: IncarnationId = IncarnationId::from_bytes([1; 16]);
    const PUT: PutId = PutId::from_bytes([2; 16]);
    const SIDE: crate::run::SideRef = crate::run::SideRef { nonce: [3; 16], commit_bytes: 4, hash: [5; 16] };

    fn entry(database: u8, lsn: u64, bytes: &[u8]) -> Entry {
        Entry {
            database: DatabaseId::from_bytes([database; 16]),
            epoch: 7,
            lsn: Lsn::new(lsn).unwrap(),
            bytes: Bytes::copy_from_slice(bytes).into(),
        }
    }

    #[test]
    fn golden_fragment() {
        let large = Entry { bytes: Content::Side(SIDE), ..entry(9, 6, b"") };
        let object = encode(INC, Slot(3), PUT, &[entry(9, 5, b"five"), entry(8, 1, b"one"), large]);
        assert_eq!(blake3::hash(&object).to_hex()[..16], *include_str!("../golden/fragment.b3").trim());
        let SlotObject::Fragment(fragment) = decode(&object, INC, Slot(3)).unwrap() else { panic!() };
        assert_eq!(fragment.runs.len(), 2);
        let inline = |text: &'static str| Content::Inline(text.into());
        assert_eq!(fragment.runs[0].commits, [inline("one")]);
        let second = &fragment.runs[1];
        assert_eq!((second.first.get(), &second.commits[..]), (5, &[inline("five"), Content::Side(SIDE)][..]));
    }

    #[test]
    fn a_tombstone_is_recognised_and_bound_to_its_slot() {
        let object = encode_tombstone(INC, Slot(3), PUT);
        assert_eq!(object.len(), TOMBSTONE_BYTES);
        assert_eq!(decode(&object, INC, Slot(3)), Ok(SlotObject::Tombstone { incarnation: INC, slot: Slot(3) }));
        assert!(decode(&object, INC, Slot(4)).is_err());
        assert!(decode(&Bytes::new(), INC, Slot(3)).is_err(), "an empty object is corruption, not an end");
    }

    proptest! {
        #[test]
        fn fragments_round_trip(lengths in proptest::collection::vec((0u8..5, 0usize..50), 1..40)) {
            let mut next = [0u64; 5];
            let entries: Vec<Entry> = lengths.iter().map(|&(database, length)| {
                next[database as usize] += 1;
                entry(database, next[database as usize], &vec![database; length])
            }).collect();
            let object = encode(INC, Slot(0), PUT, &entries);
            let SlotObject::Fragment(fragment) = decode(&object, INC, Slot(0)).unwrap() else { panic!() };
            let total: usize = fragment.runs.iter().map(|run| run.commits.len()).sum();
            prop_assert_eq!(total, entries.len());
        }

        #[test]
        fn bytes_with_a_right_checksum_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut whole = Writer::new();
            whole.raw(INC.as_bytes());
            whole.u64(0);
            whole.raw(&body);
            let _ = decode(&envelope::seal(Kind::Fragment, VERSION, &whole.finish()), INC, Slot(0));
        }
    }
}
