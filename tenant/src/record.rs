//! The name record `n/<name>`: which database a name leads to.
//!
//! The head is the authority and the record only a pointer: a name is live once its record leads to a head
//! that is. The record itself is never deleted. A freed name says `deleted` for ever after, so that a write
//! that was sent before can never bring an old database back.
//!
//! Body, inside the [envelope](walstore::envelope):
//!
//! | bytes | what |
//! |---|---|
//! | 16, 8 | put id, version (rises by one with every CAS) |
//! | 4 + n | the name itself, so that a record at a foreign key is noticed |
//! | 1 | state: 1 live, 2 deleted |
//! | 16 | live or deleted: the database |
//! | 16 | live: incarnation that wrote the record |
//! | 1 + … | live: origin: 1 empty, and 27 bytes of [settings](crate::settings); 2 fork, 16 parent, 8 LSN; 3 import |
//! | 1 | live: 1 if the database is known to have had a head, else 0 |
//! | 1 + 4 + n | live, optional: where the database's folded state probably stands, as its head refers to it |
//! | 8 | deleted: when, microseconds since the Unix epoch |
//! | 4 + n·16 | earlier databases of this name, the oldest first |
//!
//! ```text
//!               create                delete
//!   (no record) ──────▶ live{database} ──────▶ deleted{database}
//!                         │  ▲    ▲                 │
//!                  swing  └──┘    └─────────────────┘
//!            (moved{new}), made      create over it
//! ```
//!
//! **Made.** A record is written before its head, so one without a head is a creation that was not finished, or one
//! whose head was lost. From the first fold on, when commits begin to leave the logs, the record says that there was a
//! head: then it is the latter.
//!
//! **The base** is a hint. Whoever comes by the name can read it at the same time as the head, and drops it if the head
//! says otherwise.

use bytes::Bytes;
use walstore::envelope::{self, Corrupt, Kind, Reader, Writer};
use walstore::id::{DatabaseId, IncarnationId, PutId};
use walstore::register::Record;

use crate::field;
use crate::head::{ChunkRef, ForkPoint, Head};
use crate::limits;
use crate::name::Name;
use crate::settings::Settings;

const VERSION: u8 = 3;

/// How a database came to be, and so what to do about a record whose database has no head yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Created empty, with these settings: anybody can write the missing head.
    Empty(Settings),
    /// Only the incarnation that wrote the record knows how to go on.
    Fork(ForkPoint),
    /// Only the incarnation that wrote the record has the uploaded pages.
    Import,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameState {
    /// `is_made`: the database is known to have had a head.
    Live { database: DatabaseId, origin: Origin, incarnation: IncarnationId, is_made: bool },
    Deleted { database: DatabaseId, at_micros: u64 },
}

/// The module's documentation tells what each field means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRecord {
    pub put_id: PutId,
    pub version: u64,
    pub name: Name,
    pub state: NameState,
    /// Where the folded state of a live database probably stands, if not in its head.
    pub base: Option<ChunkRef>,
    pub past: Vec<DatabaseId>,
}

impl NameRecord {
    /// The first record of a name.
    pub fn new(put_id: PutId, name: Name, state: NameState) -> Self {
        Self { put_id, version: 1, name, state, base: None, past: Vec::new() }
    }

    /// The successor that leads to another database, to be written by a CAS.
    pub fn led_to(&self, state: NameState, put_id: PutId) -> Self {
        let mut past = self.past.clone();
        past.push(self.database());
        let forgotten = past.len().saturating_sub(limits::PAST_DATABASES_MAX);
        past.drain(..forgotten);
        Self { put_id, version: self.version + 1, name: self.name.clone(), state, base: None, past }
    }

    /// The successor that leads nowhere.
    pub fn deleted(&self, at_micros: u64, put_id: PutId) -> Self {
        let state = NameState::Deleted { database: self.database(), at_micros };
        Self { put_id, version: self.version + 1, state, base: None, ..self.clone() }
    }

    /// The successor that says that its database, whose head is about to become `head`, has been made. `None` if it
    /// leads elsewhere by now, or says so already.
    pub fn made(&self, head: &Head, put_id: PutId) -> Option<Self> {
        let NameState::Live { database, origin, incarnation, .. } = self.state else { return None };
        let state = NameState::Live { database, origin, incarnation, is_made: true };
        let base = head.shared().cloned();
        let is_news = (state, &base) != (self.state, &self.base);
        let next = Self { put_id, version: self.version + 1, state, base, ..self.clone() };
        (database == head.database && is_news).then_some(next)
    }

    /// The database that the name leads to, or led to last.
    pub fn database(&self) -> DatabaseId {
        match self.state {
            NameState::Live { database, .. } | NameState::Deleted { database, .. } => database,
        }
    }

    /// Whether the name leads to `database`.
    pub fn leads_to(&self, database: DatabaseId) -> bool {
        matches!(self.state, NameState::Live { database: to, .. } if to == database)
    }

    /// Whether the name leads or led to `database`, as far as the record remembers.
    pub fn mentions(&self, database: DatabaseId) -> bool {
        self.database() == database || self.past.contains(&database)
    }
}

impl Record for NameRecord {
    fn encode(&self) -> Bytes {
        envelope::seal(Kind::NameRecord, VERSION, &self.encode_body())
    }

    fn decode(object: &Bytes) -> Result<Self, Corrupt> {
        let body = envelope::open_as(object, Kind::NameRecord, VERSION, limits::NAME_RECORD_BYTES_MAX)?;
        let mut reader = Reader::new(&body);
        let (put_id, version) = (PutId::from_bytes(reader.array()?), reader.u64()?);
        let (name, state) = (field::read_name(&mut reader)?, read_state(&mut reader)?);
        let base = match state {
            NameState::Live { .. } => field::read_optional(&mut reader, read_base)?,
            NameState::Deleted { .. } => None,
        };
        let past = field::read_all(&mut reader, 16, |reader| Ok(DatabaseId::from_bytes(reader.array()?)))?;
        let record = Self { put_id, version, name, state, base, past };
        reader.end()?;
        field::at_most(record.past.len(), limits::PAST_DATABASES_MAX, "earlier databases")?;
        Ok(record)
    }

    fn put_id(&self) -> PutId {
        self.put_id
    }
}

impl NameRecord {
    fn encode_body(&self) -> Vec<u8> {
        assert!(self.past.len() <= limits::PAST_DATABASES_MAX, "BUG: {} has too long a past", self.name);
        let mut body = Writer::new();
        body.raw(self.put_id.as_bytes());
        body.u64(self.version);
        field::write_name(&mut body, &self.name);
        write_state(&mut body, &self.state);
        match self.state {
            NameState::Live { .. } => field::write_optional(&mut body, self.base.as_ref(), |body, base| body.blob(&base.0)),
            NameState::Deleted { .. } => assert!(self.base.is_none(), "BUG: {} leads nowhere", self.name),
        }
        field::write_all(&mut body, &self.past, |body, database| body.raw(database.as_bytes()));
        body.finish()
    }
}

fn write_state(body: &mut Writer, state: &NameState) {
    match state {
        NameState::Live { database, origin, incarnation, is_made } => {
            body.u8(1);
            body.raw(database.as_bytes());
            body.raw(incarnation.as_bytes());
            write_origin(body, origin);
            body.u8(u8::from(*is_made));
        }
        NameState::Deleted { database, at_micros } => {
            body.u8(2);
            body.raw(database.as_bytes());
            body.u64(*at_micros);
        }
    }
}

fn write_origin(body: &mut Writer, origin: &Origin) {
    match origin {
        Origin::Empty(settings) => {
            body.u8(1);
            settings.write(body);
        }
        Origin::Fork(point) => {
            body.u8(2);
            point.write(body);
        }
        Origin::Import => body.u8(3),
    }
}

fn read_state(reader: &mut Reader<'_>) -> Result<NameState, Corrupt> {
    let state = reader.u8()?;
    let database = DatabaseId::from_bytes(reader.array()?);
    match state {
        1 => {
            let incarnation = IncarnationId::from_bytes(reader.array()?);
            let origin = read_origin(reader)?;
            let is_made = field::read_flag(reader)?;
            Ok(NameState::Live { database, origin, incarnation, is_made })
        }
        2 => Ok(NameState::Deleted { database, at_micros: reader.u64()? }),
        state => Err(Corrupt::new(format!("unknown state {state} of a name"))),
    }
}

fn read_origin(reader: &mut Reader<'_>) -> Result<Origin, Corrupt> {
    match reader.u8()? {
        1 => Ok(Origin::Empty(Settings::read(reader)?)),
        2 => Ok(Origin::Fork(ForkPoint::read(reader)?)),
        3 => Ok(Origin::Import),
        origin => Err(Corrupt::new(format!("unknown origin {origin} of a database"))),
    }
}

fn read_base(reader: &mut Reader<'_>) -> Result<ChunkRef, Corrupt> {
    let base = reader.blob()?;
    field::at_most(base.len(), limits::CHUNK_REFERENCE_BYTES_MAX, "bytes of a reference")?;
    Ok(ChunkRef(Bytes::copy_from_slice(base)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use walstore::id::Lsn;

    fn database(byte: u8) -> DatabaseId {
        DatabaseId::from_bytes([byte; 16])
    }

    fn live(origin: Origin) -> NameRecord {
        NameRecord {
            put_id: PutId::from_bytes([1; 16]),
            version: 3,
            name: Name::parse("app.prod").unwrap(),
            state: leads_to(2, origin),
            base: Some(ChunkRef(Bytes::from_static(b"base"))),
            past: vec![database(4), database(5)],
        }
    }

    fn leads_to(byte: u8, origin: Origin) -> NameState {
        NameState::Live { database: database(byte), origin, incarnation: IncarnationId::from_bytes([3; 16]), is_made: true }
    }

    fn settings() -> Settings {
        Settings {
            window_millis: 25,
            retention_secs: 86_400,
            size_pages_max: 1000,
            key_id: 0,
            created_micros: 77,
            expires_micros: 99,
        }
    }

    #[test]
    fn golden_record() {
        let object = live(Origin::Empty(settings())).encode();
        assert_eq!(blake3::hash(&object).to_hex()[..16], *include_str!("../golden/name_record.b3").trim());
    }

    #[test]
    fn every_state_round_trips() {
        let parent = ForkPoint { parent: database(9), lsn: Lsn::new(12) };
        let lives = [Origin::Empty(settings()), Origin::Fork(parent), Origin::Import].map(live);
        for record in lives.iter().flat_map(|r| [r.clone(), r.deleted(5, PutId::from_bytes([6; 16]))]) {
            assert_eq!(NameRecord::decode(&record.encode()), Ok(record));
        }
    }

    #[test]
    fn a_name_remembers_its_last_databases_and_no_more() {
        let mut record = NameRecord { past: Vec::new(), ..live(Origin::Import) };
        for byte in 10..40 {
            record = record.deleted(1, record.put_id).led_to(leads_to(byte, Origin::Import), record.put_id);
        }
        assert_eq!(record.past, (23..39).map(database).collect::<Vec<_>>());
        assert!(record.mentions(database(39)) && record.mentions(database(23)) && !record.mentions(database(22)));
        assert_eq!(NameRecord::decode(&record.encode()), Ok(record));
    }

    proptest! {
        #[test]
        fn bytes_with_a_right_checksum_never_panic(
            at in any::<prop::sample::Index>(),
            byte: u8,
            cut in any::<prop::sample::Index>(),
        ) {
            let mut body = live(Origin::Empty(settings())).encode_body();
            let at = at.index(body.len());
            body[at] = byte;
            for body in [&body[..], &body[..cut.index(body.len())]] {
                let object = envelope::seal(Kind::NameRecord, VERSION, body);
                if let Ok(record) = NameRecord::decode(&object) {
                    prop_assert_eq!(record.encode(), object);
                }
            }
        }
    }
}
