//! The record `meta/sweep`: who began the latest walk through the bucket, and when. It is replaced by CAS, so that one
//! node of a fleet wins each walk.
//!
//! Body, inside the [envelope](walstore::envelope):
//!
//! | bytes | what |
//! |---|---|
//! | 16, 8 | put id, version (rises by one with every walk) |
//! | 16 | incarnation |
//! | 8 | when it began, microseconds since the Unix epoch |

use bytes::Bytes;
use walstore::envelope::{self, Corrupt, Kind, Reader, Writer};
use walstore::id::{IncarnationId, PutId};
use walstore::register::Record;

const VERSION: u8 = 1;
const BODY_BYTES_MAX: usize = 1 << 10;

/// The module's documentation tells what each field means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepRecord {
    pub put_id: PutId,
    pub version: u64,
    pub by: IncarnationId,
    pub began_micros: u64,
}

impl Record for SweepRecord {
    fn encode(&self) -> Bytes {
        let mut body = Writer::new();
        body.raw(self.put_id.as_bytes());
        body.u64(self.version);
        body.raw(self.by.as_bytes());
        body.u64(self.began_micros);
        envelope::seal(Kind::Sweep, VERSION, &body.finish())
    }

    fn decode(object: &Bytes) -> Result<Self, Corrupt> {
        let body = envelope::open_as(object, Kind::Sweep, VERSION, BODY_BYTES_MAX)?;
        let mut reader = Reader::new(&body);
        let put_id = PutId::from_bytes(reader.array()?);
        let version = reader.u64()?;
        let by = IncarnationId::from_bytes(reader.array()?);
        let began_micros = reader.u64()?;
        reader.end()?;
        if version > walstore::limits::COUNTER_MAX {
            return Err(Corrupt::new(format!("version {version} is further than any record gets")));
        }
        Ok(Self { put_id, version, by, began_micros })
    }

    fn put_id(&self) -> PutId {
        self.put_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_record() {
        let record = SweepRecord {
            put_id: PutId::from_bytes([1; 16]),
            version: 3,
            by: IncarnationId::from_bytes([2; 16]),
            began_micros: 77,
        };
        let object = record.encode();
        assert_eq!(SweepRecord::decode(&object), Ok(record));
        let body: String = object[envelope::HEADER_BYTES..].iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = format!("{}0300000000000000{}4d00000000000000", "01".repeat(16), "02".repeat(16));
        assert_eq!((object[4], body), (13, expected));
    }
}
