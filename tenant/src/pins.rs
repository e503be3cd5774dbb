//! A chunk of pins, `t/<h>/<dbid>/f/<epoch>-<seq>-<nonce>`: forks of a database that has more of them than its head
//! takes. It never changes; lifting a pin in it means to write another one in its place.
//!
//! Body, inside the [envelope](walstore::envelope):
//!
//! | bytes | what |
//! |---|---|
//! | 16 | the database, so that a chunk at a foreign key is noticed |
//! | 4 + n·24 | pins: child, LSN |

use bytes::Bytes;
use walstore::envelope::{self, Corrupt, Kind, Reader, Writer};
use walstore::id::{DatabaseId, Lsn};

use crate::field;
use crate::head::Pin;
use crate::limits;

const VERSION: u8 = 1;

/// The module's documentation tells what each field means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinChunk {
    pub database: DatabaseId,
    /// At least one.
    pub pins: Vec<Pin>,
}

impl PinChunk {
    pub fn encode(&self) -> Bytes {
        assert!((1..=limits::PINS_MAX).contains(&self.pins.len()), "BUG: a chunk of {} pins", self.pins.len());
        let mut body = Writer::new();
        body.raw(self.database.as_bytes());
        field::write_all(&mut body, &self.pins, |body, pin| pin.write(body));
        envelope::seal(Kind::Pins, VERSION, &body.finish())
    }

    pub fn decode(object: &Bytes) -> Result<Self, Corrupt> {
        let body = envelope::open_as(object, Kind::Pins, VERSION, limits::PIN_CHUNK_BYTES_MAX)?;
        let mut reader = Reader::new(&body);
        let database = DatabaseId::from_bytes(reader.array()?);
        let pins = field::read_all(&mut reader, 24, Pin::read)?;
        reader.end()?;
        field::at_most(pins.len(), limits::PINS_MAX, "pins in a chunk")?;
        if pins.is_empty() {
            return Err(Corrupt::new("a chunk without pins"));
        }
        Ok(Self { database, pins })
    }
}

impl Pin {
    pub(crate) fn write(&self, body: &mut Writer) {
        body.raw(self.child.as_bytes());
        body.u64(Lsn::raw(self.lsn));
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        Ok(Self { child: DatabaseId::from_bytes(reader.array()?), lsn: field::read_lsn(reader)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunk(count: u8) -> PinChunk {
        let pin = |byte| Pin { child: DatabaseId::from_bytes([byte; 16]), lsn: Lsn::new(u64::from(byte) * 3) };
        PinChunk { database: DatabaseId::from_bytes([9; 16]), pins: (0..count).map(pin).collect() }
    }

    #[test]
    fn golden_chunk() {
        let object = chunk(3).encode();
        assert_eq!(blake3::hash(&object).to_hex()[..16], *include_str!("../golden/pins.b3").trim());
        assert_eq!(PinChunk::decode(&object), Ok(chunk(3)));
        let full = chunk(limits::PINS_MAX as u8);
        assert_eq!(PinChunk::decode(&full.encode()), Ok(full));
    }

    proptest! {
        #[test]
        fn bytes_with_a_right_checksum_never_panic(body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let object = envelope::seal(Kind::Pins, VERSION, &body);
            if let Ok(chunk) = PinChunk::decode(&object) {
                prop_assert_eq!(chunk.encode(), object);
            }
        }
    }
}
