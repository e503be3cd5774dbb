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

use crate::envelope::{self, Corrupt, Kind, Reader, Writer};
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

/// Which commit a side object must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideId {
    pub incarnation: IncarnationId,
    pub database: DatabaseId,
    pub epoch: u64,
    pub lsn: Lsn,
}

/// What refers to `commit` from its slot.
///
/// # Panics
/// If the commit is longer than any may be.
pub fn reference(commit: &[u8], nonce: [u8; 16]) -> SideRef {
    let commit_bytes = u32::try_from(commit.len()).expect("BUG: a commit of over 4 GiB");
    SideRef { nonce, commit_bytes, hash: hash(commit) }
}

fn hash(commit: &[u8]) -> [u8; 16] {
    *blake3::hash(commit).as_bytes().first_chunk().expect("BUG: a hash has 32 bytes")
}

pub fn encode(id: SideId, nonce: [u8; 16], commit: &[u8]) -> Bytes {
    let mut body = Writer::new();
    body.raw(id.incarnation.as_bytes());
    body.raw(&nonce);
    body.raw(id.database.as_bytes());
    body.u64(id.epoch);
    body.u64(id.lsn.get());
    body.raw(commit);
    envelope::seal(Kind::SideObject, VERSION, &body.finish())
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
    if commit.len() != reference.commit_bytes as usize || hash(&commit) != reference.hash {
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
    use super::*;
    use proptest::prelude::*;

    const ID: SideId = SideId {
        incarnation: IncarnationId::from_bytes([1; 16]),
        database: DatabaseId::from_bytes([2; 16]),
        epoch: 3,
        lsn: Lsn::FIRST,
    };
    const NONCE: [u8; 16] = [4; 16];

    #[test]
    fn golden_side_object() {
        let object = encode(ID, NONCE, b"commit");
        assert_eq!(blake3::hash(&object).to_hex()[..16], *include_str!("../golden/side.b3").trim());
    }

    #[test]
    fn an_object_is_bound_to_what_refers_to_it() {
        let object = encode(ID, NONCE, b"commit");
        let reference = reference(b"commit", NONCE);
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

    proptest! {
        #[test]
        fn commits_round_trip(commit in proptest::collection::vec(any::<u8>(), 0..200)) {
            let object = encode(ID, NONCE, &commit);
            prop_assert_eq!(decode(&object, ID, &reference(&commit, NONCE)), Ok(commit.into()));
        }

        #[test]
        fn bytes_with_a_right_checksum_never_panic(body in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = decode(&envelope::seal(Kind::SideObject, VERSION, &body), ID, &reference(b"", NONCE));
        }
    }
}
