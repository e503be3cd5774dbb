//! The marker `due/<yyyymmdd>/<dbid>-<kind>` of something that has to be finished or forgotten.
//!
//! It is put *before* the work that it announces, so that one sweeper for the whole bucket finds work that
//! its owner did not finish, without a timer per database. A marker alone means nothing: whoever finds one
//! looks at the head and does what is still to be done, which may be nothing.
//!
//! Body, inside the [envelope](walstore::envelope):
//!
//! | bytes | what |
//! |---|---|
//! | 16 | database |
//! | 1 | kind: 1 delete, 2 move, 3 expire, 4 fork |
//! | 8 | due, microseconds since the Unix epoch |
//! | 1 + 16 | 0, or 1 and the other database: the new one of a move, the child of a fork |

use std::fmt;

use bytes::Bytes;
use walstore::envelope::{self, Corrupt, Kind, Reader, Writer};
use walstore::id::DatabaseId;

use crate::field;
use crate::limits;

const VERSION: u8 = 1;

/// What is due. The values are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum DueKind {
    /// A delete: free the name of a final head.
    Delete = 1,
    /// A restore in place: swing the name of a moved head.
    Move = 2,
    /// The database's own time is up: delete it.
    Expire = 3,
    /// A fork: lift the pin if the child never came to life.
    Fork = 4,
}

impl DueKind {
    pub const ALL: [Self; 4] = [Self::Delete, Self::Move, Self::Expire, Self::Fork];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Move => "move",
            Self::Expire => "expire",
            Self::Fork => "fork",
        }
    }

    /// Reads the form that is in keys.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for DueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The module's documentation tells what each field means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueMarker {
    pub database: DatabaseId,
    pub kind: DueKind,
    pub due_micros: u64,
    pub other: Option<DatabaseId>,
}

impl DueMarker {
    pub fn encode(&self) -> Bytes {
        let mut body = Writer::new();
        body.raw(self.database.as_bytes());
        body.u8(self.kind as u8);
        body.u64(self.due_micros);
        field::write_optional(&mut body, self.other.as_ref(), |body, other| body.raw(other.as_bytes()));
        envelope::seal(Kind::Due, VERSION, &body.finish())
    }

    pub fn decode(object: &Bytes) -> Result<Self, Corrupt> {
        let body = envelope::open_as(object, Kind::Due, VERSION, limits::DUE_BYTES_MAX)?;
        let mut reader = Reader::new(&body);
        let database = DatabaseId::from_bytes(reader.array()?);
        let kind = reader.u8()?;
        let kind = DueKind::ALL.into_iter().find(|known| *known as u8 == kind);
        let kind = kind.ok_or_else(|| Corrupt::new("an unknown kind of marker"))?;
        let due_micros = reader.u64()?;
        let other = field::read_optional(&mut reader, |reader| Ok(DatabaseId::from_bytes(reader.array()?)))?;
        reader.end()?;
        Ok(Self { database, kind, due_micros, other })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(kind: DueKind, other: Option<DatabaseId>) -> DueMarker {
        DueMarker { database: DatabaseId::from_bytes([7; 16]), kind, due_micros: 1_709_208_000_000_000, other }
    }

    #[test]
    fn golden_marker() {
        let object = sample(DueKind::Fork, Some(DatabaseId::from_bytes([8; 16]))).encode();
        assert_eq!(blake3::hash(&object).to_hex()[..16], *include_str!("../golden/due.b3").trim());
    }

    #[test]
    fn every_kind_round_trips() {
        for kind in DueKind::ALL {
            for other in [None, Some(DatabaseId::from_bytes([9; 16]))] {
                let marker = sample(kind, other);
                assert_eq!(DueMarker::decode(&marker.encode()), Ok(marker));
            }
        }
    }

    proptest! {
        #[test]
        fn bytes_with_a_right_checksum_never_panic(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let object = envelope::seal(Kind::Due, VERSION, &body);
            if let Ok(marker) = DueMarker::decode(&object) {
                prop_assert_eq!(marker.encode(), object);
            }
        }
    }
}
