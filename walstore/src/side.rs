//! The side object `x/<hash(inc)>/<inc>/<nonce>`: one commit that is too large to travel in a fragment.
//!
//! It is stored before the slot that refers to it is sent, so a slot never names one that was not there. It
//! lives as long as that slot, or as long as the bundle that took the slot's place. One that no slot refers to
//! is an orphan of a crash; whoever drains the incarnation sweeps it.
//!
//! Body, inside the [envelope](crate::envelope), not compressed (commits are already):
//!
//! | bytes | what |
//! |---|---|
//! | 16, 16 | incarnation, nonce |
//! | 16, 8, 8 | database, epoch, LSN |
//! | … | the commit |

use bytes::Bytes;

use crate::envelope::{self, Corrupt, Growing, Kind, Reader, Writer};
use crate::fragment::Entry;
use crate::id::{DatabaseId, IncarnationId, Lsn};
use crate::keys;
use crate::limits;
use crate::register::{self, Patience, RecordError};
use crate::run::SideRef;
use crate::seam::Seam;
use crate::store::Store;

const VERSION: u8 = 1;
const FIXED_BYTES: usize = 64;
/// What an object has before its commit.
pub const FRONT_BYTES: usize = envelope::HEADER_BYTES + FIXED_BYTES;

/// Which commit a side object must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideId {
    pub incarnation: IncarnationId,
    pub database: DatabaseId,
    pub epoch: u64,
    pub lsn: Lsn,
}

/// An object that was made where its commit was, which is what stands behind its front.
#[derive(Clone, Debug)]
pub struct Made {
    pub nonce: [u8; 16],
    pub object: Bytes,
}

/// Writes what an object has before its commit.
pub fn write_front(front: &mut [u8], commit: &[u8], id: SideId, nonce: [u8; 16]) {
    let fixed = fixed(id, nonce);
    front[..envelope::HEADER_BYTES].copy_from_slice(&envelope::header(Kind::SideObject, VERSION, &[&fixed, commit]));
    front[envelope::HEADER_BYTES..].copy_from_slice(&fixed);
}

/// What refers to an object that was made already. As [`prepare`], it lets others have their turn.
pub async fn refer(nonce: [u8; 16], commit: &[u8]) -> SideRef {
    let commit_bytes = u32::try_from(commit.len()).expect("BUG: a commit of over 4 GiB");
    let mut hasher = blake3::Hasher::new();
    for piece in commit.chunks(limits::SIDE_PIECE_BYTES) {
        hasher.update(piece);
        tokio::task::yield_now().await;
    }
    SideRef { nonce, commit_bytes, hash: short(hasher.finalize()) }
}

/// The object for `commit`, and what refers to it from its slot. A large commit takes long to hash and copy, so other
/// tasks have their turn after every piece; and the commit is let go as soon as the object holds it.
///
/// # Panics
/// If the commit is longer than any may be.
pub async fn prepare(id: SideId, nonce: [u8; 16], commit: Bytes) -> (Bytes, SideRef) {
    let commit_bytes = u32::try_from(commit.len()).expect("BUG: a commit of over 4 GiB");
    let mut object = Growing::raw(Kind::SideObject, VERSION, FIXED_BYTES + commit.len());
    object.add(&fixed(id, nonce));
    let mut hasher = blake3::Hasher::new();
    for piece in commit.chunks(limits::SIDE_PIECE_BYTES) {
        hasher.update(piece);
        object.add(piece);
        tokio::task::yield_now().await;
    }
    let hash = short(hasher.finalize());
    (object.finish(), SideRef { nonce, commit_bytes, hash })
}

fn fixed(id: SideId, nonce: [u8; 16]) -> Vec<u8> {
    let mut fixed = Writer::new();
    fixed.raw(id.incarnation.as_bytes());
    fixed.raw(&nonce);
    fixed.raw(id.database.as_bytes());
    fixed.u64(id.epoch);
    fixed.u64(id.lsn.get());
    fixed.finish()
}

fn short(hash: blake3::Hash) -> [u8; 16] {
    *hash.as_bytes().first_chunk().expect("BUG: a hash has 32 bytes")
}

/// Checks an object against what refers to it, and gives the commit.
pub fn decode(object: &Bytes, id: SideId, reference: &SideRef) -> Result<Bytes, Corrupt> {
    let body = envelope::open_as(object, Kind::SideObject, VERSION, limits::COMMIT_BYTES_MAX + FIXED_BYTES)?;
    let mut reader = Reader::new(&body);
    let incarnation = IncarnationId::from_bytes(reader.array()?);
    let nonce: [u8; 16] = reader.array()?;
    let database = DatabaseId::from_bytes(reader.array()?);
    let (epoch, lsn) = (reader.u64()?, reader.u64()?);
    if (incarnation, nonce) != (id.incarnation, reference.nonce) {
        return Err(Corrupt::new(format!("holds another side object of {incarnation}")));
    }
    if (database, epoch, lsn) != (id.database, id.epoch, id.lsn.get()) {
        return Err(Corrupt::new(format!("holds commit {lsn} of {database} at epoch {epoch}, not {}", id.lsn)));
    }
    let commit = body.slice(FIXED_BYTES..);
    if commit.len() != reference.commit_bytes as usize || short(blake3::hash(&commit)) != reference.hash {
        return Err(Corrupt::new(format!("is not the commit that its slot refers to ({} bytes)", commit.len())));
    }
    Ok(commit)
}

/// Reads the commit that `reference` stands for. `None`: the object is not there; the caller asks whether the log
/// has been drained meanwhile.
pub async fn read(
    store: &dyn Store,
    seam: &Seam,
    id: SideId,
    reference: &SideRef,
    patience: Patience,
) -> Result<Option<Bytes>, RecordError> {
    let key = keys::side(id.incarnation, reference.nonce);
    let Some((object, _)) = register::get(store, seam, &key, patience).await? else { return Ok(None) };
    Ok(Some(decode(&object, id, reference).map_err(|corrupt| corrupt.at(&key))?))
}

impl Entry {
    /// Names the side object of this entry of a log.
    pub fn side_id(&self, incarnation: IncarnationId) -> SideId {
        SideId { incarnation, database: self.database, epoch: self.epoch, lsn: self.lsn }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use super::*;
    use proptest::prelude::*;

    const ID: SideId = SideId {
        incarnation: IncarnationId::from_bytes([1; 16]),
        database: DatabaseId::from_bytes([2; 16]),
        epoch: 3,
        lsn: Lsn::FIRST,
    };
    const NONCE: [u8; 16] = [4; 16];

    /// Prepared at one go, and how often others had a turn.
    fn prepared(commit: &[u8]) -> (Bytes, SideRef, usize) {
        let mut preparing = std::pin::pin!(prepare(ID, NONCE, Bytes::copy_from_slice(commit)));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        for turns in 0.. {
            if let std::task::Poll::Ready((object, reference)) = preparing.as_mut().poll(&mut context) {
                return (object, reference, turns);
            }
        }
        unreachable!("a commit has an end")
    }

    #[test]
    fn golden_side_object() {
        let (object, ..) = prepared(b"commit");
        assert_eq!(blake3::hash(&object).to_hex()[..16], *include_str!("../golden/side.b3").trim());
    }

    #[tokio::test]
    async fn one_that_is_made_where_its_commit_is_is_the_same() {
        let commit = vec![7; limits::SIDE_PIECE_BYTES + 3];
        let mut object = [vec![9; FRONT_BYTES], commit.clone()].concat();
        let (front, behind) = object.split_at_mut(FRONT_BYTES);
        write_front(front, behind, ID, NONCE);
        let (prepared, reference) = prepare(ID, NONCE, commit.clone().into()).await;
        assert_eq!(object, prepared);
        assert_eq!(refer(NONCE, &commit).await, reference);
    }

    #[test]
    fn an_object_is_bound_to_what_refers_to_it() {
        let (object, reference, _) = prepared(b"commit");
        assert_eq!(decode(&object, ID, &reference), Ok("commit".into()));
        let wrong = [
            decode(&object, SideId { lsn: Lsn::new(2).unwrap(), ..ID }, &reference),
            decode(&object, SideId { epoch: 4, ..ID }, &reference),
            decode(&object, SideId { incarnation: IncarnationId::from_bytes([9; 16]), ..ID }, &reference),
            decode(&object, ID, &SideRef { nonce: [5; 16], ..reference }),
            decode(&object, ID, &SideRef { hash: [5; 16], ..reference }),
            decode(&object, ID, &SideRef { commit_bytes: 5, ..reference }),
            decode(&Bytes::new(), ID, &reference),
        ];
        assert!(wrong.iter().all(Result::is_err), "{wrong:?}");
    }

    /// Bug: a large commit was hashed, copied and summed at one go, on the log's own task. Damage: commits of all other
    /// databases waited 300 ms behind one of 63 MiB. Fix: in pieces, on the upload's task.
    #[test]
    fn a_large_commit_is_prepared_piece_by_piece() {
        let commit: Vec<u8> = (0..limits::SIDE_PIECE_BYTES * 2 + 5).map(|at| at as u8).collect();
        let (object, reference, turns) = prepared(&commit);
        assert_eq!(turns, 3);
        assert_eq!(reference, SideRef { nonce: NONCE, commit_bytes: commit.len() as u32, hash: short(blake3::hash(&commit)) });
        assert_eq!(object, envelope::seal(Kind::SideObject, VERSION, &[fixed(ID, NONCE), commit.clone()].concat()));
        assert_eq!(decode(&object, ID, &reference), Ok(commit.into()));
    }

    proptest! {
        #[test]
        fn commits_round_trip(commit in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (object, reference, _) = prepared(&commit);
            prop_assert_eq!(decode(&object, ID, &reference), Ok(commit.into()));
        }

        #[test]
        fn bytes_with_a_right_checksum_never_panic(body in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = decode(&envelope::seal(Kind::SideObject, VERSION, &body), ID, &prepared(b"").1);
        }
    }
}
