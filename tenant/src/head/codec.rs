//! The bytes of a head: see the table in the parent's documentation.

use bytes::Bytes;
use walstore::envelope::{self, Corrupt, Kind, Reader, Writer};
use walstore::id::{DatabaseId, IncarnationId, Lsn, PutId};
use walstore::register::Record;
use walstore::store::Key;

use super::{ChunkRef, Folded, ForkPoint, Head, HeadState, MapField, PackRef, Pin, TailEntry};
use crate::field;
use crate::limits;
use crate::settings::Settings;

pub(super) const VERSION: u8 = 3;

impl Record for Head {
    /// # Panics
    /// If the head breaks its own rules. Whoever made it from parts [checks](Head::check) it first.
    fn encode(&self) -> Bytes {
        if let Err(broken) = self.check() {
            panic!("BUG: head of {}: {}", self.database, broken.reason);
        }
        envelope::seal_compressed(Kind::Head, VERSION, &self.encode_body())
    }

    fn decode(object: &Bytes) -> Result<Self, Corrupt> {
        let body = envelope::open_as(object, Kind::Head, VERSION, limits::HEAD_BYTES_MAX)?;
        let head = Self::decode_body(&body)?;
        head.check()?;
        head.check_far()?;
        Ok(head)
    }

    fn put_id(&self) -> PutId {
        self.put_id
    }
}

impl Head {
    pub(super) fn encode_body(&self) -> Vec<u8> {
        let mut body = Writer::new();
        body.raw(self.put_id.as_bytes());
        body.u64(self.version);
        body.u64(self.epoch);
        body.raw(self.database.as_bytes());
        write_state(&mut body, &self.state);
        field::write_name(&mut body, &self.name);
        self.settings.write(&mut body);
        field::write_optional(&mut body, self.parent.as_ref(), |body, parent| parent.write(body));
        field::write_optional(&mut body, self.owner.as_ref(), |body, owner| body.raw(owner.as_bytes()));
        write_folded(&mut body, &self.folded);
        field::write_all(&mut body, &self.tail, write_tail_entry);
        write_map(&mut body, &self.map);
        body.u64(Lsn::raw(self.horizon));
        body.blob(&self.history);
        body.u32(self.fold_seq);
        field::write_all(&mut body, &self.pins, |body, pin| pin.write(body));
        field::write_all(&mut body, &self.pin_chunks, |body, key| body.blob(key.as_str().as_bytes()));
        field::write_all(&mut body, &self.dead, |body, pack| body.blob(&pack.0));
        field::write_optional(&mut body, self.inline_image.as_ref(), |body, image| body.blob(image));
        body.finish()
    }

    fn decode_body(body: &Bytes) -> Result<Self, Corrupt> {
        let mut reader = Reader::new(body);
        let head = Self {
            put_id: PutId::from_bytes(reader.array()?),
            version: reader.u64()?,
            epoch: reader.u64()?,
            database: DatabaseId::from_bytes(reader.array()?),
            state: read_state(&mut reader)?,
            name: field::read_name(&mut reader)?,
            settings: Settings::read(&mut reader)?,
            parent: field::read_optional(&mut reader, ForkPoint::read)?,
            owner: field::read_optional(&mut reader, |r| Ok(IncarnationId::from_bytes(r.array()?)))?,
            folded: read_folded(&mut reader)?,
            tail: field::read_all(&mut reader, 32, read_tail_entry)?,
            map: read_map(&mut reader, body)?,
            horizon: field::read_lsn(&mut reader)?,
            history: body.slice_ref(reader.blob()?),
            fold_seq: reader.u32()?,
            pins: field::read_all(&mut reader, 24, Pin::read)?,
            pin_chunks: field::read_all(&mut reader, 4, read_key)?,
            dead: field::read_all(&mut reader, 4, |r| Ok(PackRef(Bytes::copy_from_slice(r.blob()?))))?,
            inline_image: field::read_optional(&mut reader, |r| Ok(body.slice_ref(r.blob()?)))?,
        };
        reader.end()?;
        Ok(head)
    }
}

impl ForkPoint {
    pub(crate) fn write(&self, body: &mut Writer) {
        body.raw(self.parent.as_bytes());
        body.u64(Lsn::raw(self.lsn));
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        Ok(Self { parent: DatabaseId::from_bytes(reader.array()?), lsn: field::read_lsn(reader)? })
    }
}

fn write_state(body: &mut Writer, state: &HeadState) {
    match state {
        HeadState::Live => body.u8(1),
        HeadState::Moved { new } => {
            body.u8(2);
            body.raw(new.as_bytes());
        }
        HeadState::Renamed { name } => {
            body.u8(3);
            field::write_name(body, name);
        }
        HeadState::Deleted { at_micros } => {
            body.u8(4);
            body.u64(*at_micros);
        }
        HeadState::Aborted => body.u8(5),
    }
}

fn read_state(reader: &mut Reader<'_>) -> Result<HeadState, Corrupt> {
    Ok(match reader.u8()? {
        1 => HeadState::Live,
        2 => HeadState::Moved { new: DatabaseId::from_bytes(reader.array()?) },
        3 => HeadState::Renamed { name: field::read_name(reader)? },
        4 => HeadState::Deleted { at_micros: reader.u64()? },
        5 => HeadState::Aborted,
        state => return Err(Corrupt::new(format!("unknown state {state} of a head"))),
    })
}

fn write_folded(body: &mut Writer, folded: &Folded) {
    body.u64(Lsn::raw(folded.lsn));
    body.raw(&folded.chain);
    body.u64(folded.time_micros);
    body.u32(folded.page_count);
    body.u64(folded.pages_total);
}

fn read_folded(reader: &mut Reader<'_>) -> Result<Folded, Corrupt> {
    Ok(Folded {
        lsn: field::read_lsn(reader)?,
        chain: reader.array()?,
        time_micros: reader.u64()?,
        page_count: reader.u32()?,
        pages_total: reader.u64()?,
    })
}

fn write_tail_entry(body: &mut Writer, entry: &TailEntry) {
    body.raw(entry.incarnation.as_bytes());
    body.u64(entry.epoch);
    body.u64(Lsn::raw(entry.after));
}

fn read_tail_entry(reader: &mut Reader<'_>) -> Result<TailEntry, Corrupt> {
    Ok(TailEntry {
        incarnation: IncarnationId::from_bytes(reader.array()?),
        epoch: reader.u64()?,
        after: field::read_lsn(reader)?,
    })
}

fn write_map(body: &mut Writer, map: &MapField) {
    match map {
        MapField::Inline(map) => {
            body.u8(1);
            body.blob(map);
        }
        MapField::Shared(chunk) => {
            body.u8(2);
            body.blob(&chunk.0);
        }
    }
}

/// An inline map shares the memory of `body`, which it mostly is.
fn read_map(reader: &mut Reader<'_>, body: &Bytes) -> Result<MapField, Corrupt> {
    match reader.u8()? {
        1 => Ok(MapField::Inline(body.slice_ref(reader.blob()?))),
        2 => Ok(MapField::Shared(ChunkRef(Bytes::copy_from_slice(reader.blob()?)))),
        form => Err(Corrupt::new(format!("unknown form {form} of a page map"))),
    }
}

fn read_key(reader: &mut Reader<'_>) -> Result<Key, Corrupt> {
    match std::str::from_utf8(reader.blob()?) {
        Ok(key) if Key::is_valid(key) => Ok(Key::new(key)),
        _ => Err(Corrupt::new("a reference to a key that is none")),
    }
}
