//! The record `inc/<inc>` of one node's life, and its marker `live/<inc>`.
//!
//! Body of the record, inside the [envelope](crate::envelope):
//!
//! | bytes | what |
//! |---|---|
//! | 16 | the incarnation itself, so that a record at a foreign key is noticed |
//! | 16, 8 | put id, version (rises by one with every CAS) |
//! | 1, 8 | state: 0 open, 1 recovering, 2 sealed; `end` (0 unless sealed) |
//! | 8, 8 | hint, low |
//! | 8 | lease in microseconds |
//! | 4 + n | address for other nodes, UTF-8, may be empty |
//! | 4 + n·48 | [references to bundles](crate::bundle::BundleRef), which take the place of slots below `low` |
//!
//! ```text
//!            renew (hint, low)
//!              ┌──┐
//!   create ──▶ open ──seal──▶ recovering ──seal──▶ sealed{end}      (irreversible, in this order only)
//! ```

use bytes::Bytes;

use crate::bundle::{self, BundleRef};
use crate::envelope::{self, Corrupt, Kind, Reader, Writer};
use crate::id::{IncarnationId, PutId, Slot};
use crate::keys;
use crate::limits;
use crate::register::Record;
use crate::store::Key;

/// Version 1 did not say whose it is.
const VERSION: u8 = 2;
const MARKER_VERSION: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The incarnation may write.
    Open,
    /// Somebody is looking for the end of its log; it must not start another PUT.
    Recovering,
    /// The log is exactly the slots below `end`.
    Sealed { end: Slot },
}

/// Read the module's documentation for what each field means on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncarnationRecord {
    pub incarnation: IncarnationId,
    pub put_id: PutId,
    pub version: u64,
    pub state: State,
    /// A sealer begins to probe here: every slot below is durable.
    pub hint: Slot,
    /// Slots below may be gone: their commits are folded.
    pub low: Slot,
    pub lease_micros: u64,
    /// Where other nodes reach this one; empty if they cannot.
    pub address: String,
    /// Where commits of slots below `low` are that are not folded; only of a sealed log.
    pub bundles: Vec<BundleRef>,
}

impl IncarnationRecord {
    pub fn new(incarnation: IncarnationId, put_id: PutId, lease_micros: u64, address: String) -> Self {
        Self {
            incarnation,
            put_id,
            version: 1,
            state: State::Open,
            hint: Slot::ZERO,
            low: Slot::ZERO,
            lease_micros,
            address,
            bundles: Vec::new(),
        }
    }

    /// The successor to be written by a CAS, before the caller's change.
    pub fn successor(&self, put_id: PutId) -> Self {
        Self { put_id, version: self.version + 1, ..self.clone() }
    }

    fn check(&self) -> Result<(), Corrupt> {
        let end = match self.state {
            State::Sealed { end } => end,
            State::Open | State::Recovering => Slot(u64::MAX),
        };
        if self.low > self.hint || self.hint > end {
            return Err(Corrupt::new(format!("low {}, hint {}, end {end} are out of order", self.low, self.hint)));
        }
        if !self.bundles.is_empty() && (!matches!(self.state, State::Sealed { .. }) || self.low != end) {
            return Err(Corrupt::new("bundles of a log that still has slots"));
        }
        if self.bundles.len() > limits::BUNDLES_MAX || self.bundles.iter().any(|bundle| bundle.end > self.low) {
            return Err(Corrupt::new("bundles of slots that are not below low"));
        }
        if self.bundles.iter().any(|bundle| bundle.first > bundle.end) {
            return Err(Corrupt::new("a bundle that ends before it begins"));
        }
        Ok(())
    }

    /// Of what the bucket holds only: a successor may be one further than what was accepted.
    fn check_counters(&self) -> Result<(), Corrupt> {
        let end = match self.state {
            State::Sealed { end } => end,
            State::Open | State::Recovering => self.hint,
        };
        // Neither low nor hint is above the end.
        if self.version > limits::COUNTER_MAX || end.0 > limits::COUNTER_MAX {
            let reason = format!("version {} and slot {end} are further than any log gets", self.version);
            return Err(Corrupt::new(reason));
        }
        Ok(())
    }
}

impl Record for IncarnationRecord {
    fn encode(&self) -> Bytes {
        self.check().expect("BUG: an incarnation record out of order");
        let mut body = Writer::new();
        body.raw(self.incarnation.as_bytes());
        body.raw(self.put_id.as_bytes());
        body.u64(self.version);
        let (state, end) = match self.state {
            State::Open => (0, 0),
            State::Recovering => (1, 0),
            State::Sealed { end } => (2, end.0),
        };
        body.u8(state);
        body.u64(end);
        body.u64(self.hint.0);
        body.u64(self.low.0);
        body.u64(self.lease_micros);
        body.blob(self.address.as_bytes());
        body.count(self.bundles.len());
        for bundle in &self.bundles {
            bundle.encode(&mut body);
        }
        envelope::seal(Kind::Incarnation, VERSION, &body.finish())
    }

    fn decode(object: &Bytes) -> Result<Self, Corrupt> {
        let body = envelope::open_as(object, Kind::Incarnation, VERSION, limits::RECORD_BYTES_MAX)?;
        let mut reader = Reader::new(&body);
        let incarnation = IncarnationId::from_bytes(reader.array()?);
        let put_id = PutId::from_bytes(reader.array()?);
        let version = reader.u64()?;
        let state = match (reader.u8()?, reader.u64()?) {
            (0, _) => State::Open,
            (1, _) => State::Recovering,
            (2, end) => State::Sealed { end: Slot(end) },
            (state, _) => return Err(Corrupt::new(format!("unknown state {state}"))),
        };
        let (hint, low) = (Slot(reader.u64()?), Slot(reader.u64()?));
        let lease_micros = reader.u64()?;
        let address = text(reader.blob()?)?;
        let count = reader.count(bundle::REFERENCE_BYTES)?;
        let bundles = (0..count).map(|_| BundleRef::decode(&mut reader)).collect::<Result<_, Corrupt>>()?;
        reader.end()?;
        let record = Self { incarnation, put_id, version, state, hint, low, lease_micros, address, bundles };
        record.check()?;
        record.check_counters()?;
        Ok(record)
    }

    fn put_id(&self) -> PutId {
        self.put_id
    }

    fn check_place(&self, key: &Key) -> Result<(), Corrupt> {
        if keys::incarnation(self.incarnation) == *key {
            return Ok(());
        }
        Err(Corrupt::new(format!("holds the record of {}", self.incarnation)))
    }
}

fn text(bytes: &[u8]) -> Result<String, Corrupt> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Corrupt::new("text that is not UTF-8"))
}

/// The body of `live/<inc>`: the id again, so that the marker can be checked.
pub fn encode_live(id: IncarnationId) -> Bytes {
    envelope::seal(Kind::LiveMarker, MARKER_VERSION, id.as_bytes())
}

/// Checks what stands at `live/<inc>`.
pub fn check_live(object: &Bytes, id: IncarnationId) -> Result<(), Corrupt> {
    let body = envelope::open_as(object, Kind::LiveMarker, MARKER_VERSION, limits::RECORD_BYTES_MAX)?;
    if body != id.as_bytes()[..] {
        return Err(Corrupt::new("marks another incarnation"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(state: State) -> IncarnationRecord {
        IncarnationRecord {
            incarnation: IncarnationId::from_bytes([2; 16]),
            put_id: PutId::from_bytes([3; 16]),
            version: 9,
            state,
            hint: Slot(70),
            low: Slot(5),
            lease_micros: 10_000_000,
            address: "http://10.0.0.1:8080".into(),
            bundles: Vec::new(),
        }
    }

    fn bundled() -> IncarnationRecord {
        let index = bundle::Section { offset: 900, bytes: 80, crc: 7 };
        let bundle = BundleRef { number: 0, nonce: [4; 16], first: Slot(5), end: Slot(77), index };
        let end = Slot(77);
        IncarnationRecord { hint: end, low: end, bundles: vec![bundle], ..sample(State::Sealed { end }) }
    }

    #[test]
    fn golden_record() {
        let object = bundled().encode();
        assert_eq!(blake3::hash(&object).to_hex()[..16], *include_str!("../golden/incarnation.b3").trim());
    }

    #[test]
    fn every_state_round_trips() {
        for state in [State::Open, State::Recovering, State::Sealed { end: Slot(70) }] {
            let record = sample(state);
            assert_eq!(IncarnationRecord::decode(&record.encode()), Ok(record));
        }
    }

    #[test]
    fn bundles_belong_to_a_sealed_log_without_slots() {
        let record = bundled();
        assert_eq!(IncarnationRecord::decode(&record.encode()), Ok(record.clone()));
        let wrong = [
            IncarnationRecord { state: State::Open, ..record.clone() },
            IncarnationRecord { low: Slot(76), ..record.clone() },
            IncarnationRecord { bundles: vec![BundleRef { end: Slot(78), ..record.bundles[0] }], ..record },
        ];
        assert!(wrong.iter().all(|record| record.check().is_err()));
    }

    /// Bug: a record near the end of all numbers was accepted. Damage: whoever sealed that log panicked, at the next
    /// version or at the slots after the hint. Fix: a limit far below.
    #[test]
    fn counters_that_no_log_reaches_are_corruption() {
        let decoded = |record: &IncarnationRecord| IncarnationRecord::decode(&record.encode());
        for counter in [limits::COUNTER_MAX + 1, u64::MAX - 3, u64::MAX] {
            let slot = Slot(counter);
            let hostile = [
                IncarnationRecord { version: counter, ..sample(State::Open) },
                IncarnationRecord { hint: slot, ..sample(State::Open) },
                IncarnationRecord { hint: slot, low: slot, ..sample(State::Recovering) },
                sample(State::Sealed { end: slot }),
                IncarnationRecord { hint: slot, low: slot, ..sample(State::Sealed { end: slot }) },
            ];
            for record in hostile {
                let error = decoded(&record).unwrap_err();
                assert!(error.reason.contains("further than any log gets"), "{error}");
            }
        }
        let furthest = IncarnationRecord { version: limits::COUNTER_MAX, ..sample(State::Open) };
        assert_eq!(decoded(&furthest), Ok(furthest.clone()));
        assert!(decoded(&furthest.successor(PutId::from_bytes([4; 16]))).is_err(), "and it is encoded without a panic");
    }

    #[test]
    fn a_record_at_the_key_of_another_is_noticed() {
        let record = sample(State::Open);
        assert_eq!(record.check_place(&keys::incarnation(record.incarnation)), Ok(()));
        let other = keys::incarnation(IncarnationId::from_bytes([9; 16]));
        assert!(record.check_place(&other).unwrap_err().reason.contains("holds the record of"));
    }

    #[test]
    fn a_bundle_that_ends_before_it_begins_is_corruption() {
        let record = bundled();
        let wrong = BundleRef { first: Slot(77), end: Slot(76), ..record.bundles[0] };
        assert!(IncarnationRecord { bundles: vec![wrong], ..record }.check().is_err());
    }

    #[test]
    fn an_end_below_the_hint_is_corruption() {
        let mut body = sample(State::Sealed { end: Slot(70) }).encode().to_vec();
        body[envelope::HEADER_BYTES + 41] = 69;
        let body = envelope::seal(Kind::Incarnation, VERSION, &body[envelope::HEADER_BYTES..]);
        assert!(IncarnationRecord::decode(&body).is_err());
    }
}
