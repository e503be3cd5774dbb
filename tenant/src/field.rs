//! Fields that several records of this crate have, on top of the envelope's reader and writer.

use walstore::envelope::{Corrupt, Reader, Writer};
use walstore::id::Lsn;

use crate::name::Name;

/// A flag byte, 0 or 1, and the value if it is 1.
pub fn write_optional<T>(body: &mut Writer, value: Option<&T>, write: impl FnOnce(&mut Writer, &T)) {
    body.u8(u8::from(value.is_some()));
    if let Some(value) = value {
        write(body, value);
    }
}

pub fn read_optional<T>(
    reader: &mut Reader<'_>,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, Corrupt>,
) -> Result<Option<T>, Corrupt> {
    if read_flag(reader)? { read(reader).map(Some) } else { Ok(None) }
}

/// A flag byte, 0 or 1.
pub fn read_flag(reader: &mut Reader<'_>) -> Result<bool, Corrupt> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        flag => Err(Corrupt::new(format!("{flag} where 0 or 1 must be"))),
    }
}

/// A `u32` count and the entries.
pub fn write_all<T>(body: &mut Writer, entries: &[T], mut write: impl FnMut(&mut Writer, &T)) {
    body.count(entries.len());
    for entry in entries {
        write(body, entry);
    }
}

/// Entries of at least `entry_bytes_min` bytes each, so that a hostile count cannot allocate much.
pub fn read_all<T>(
    reader: &mut Reader<'_>,
    entry_bytes_min: usize,
    mut read: impl FnMut(&mut Reader<'_>) -> Result<T, Corrupt>,
) -> Result<Vec<T>, Corrupt> {
    let count = reader.count(entry_bytes_min)?;
    (0..count).map(|_| read(reader)).collect()
}

pub fn write_name(body: &mut Writer, name: &Name) {
    body.blob(name.as_str().as_bytes());
}

pub fn read_name(reader: &mut Reader<'_>) -> Result<Name, Corrupt> {
    let text = std::str::from_utf8(reader.blob()?).map_err(|_| Corrupt::new("a name that is not text"))?;
    Name::parse(text).map_err(|error| Corrupt::new(error.to_string()))
}

/// 0 is the state before the first commit.
pub fn read_lsn(reader: &mut Reader<'_>) -> Result<Option<Lsn>, Corrupt> {
    Ok(Lsn::new(reader.u64()?))
}

/// Refuses more than `max` of something.
pub fn at_most(count: usize, max: usize, what: &str) -> Result<(), Corrupt> {
    if count <= max { Ok(()) } else { Err(Corrupt::new(format!("{count} {what}; at most {max} are allowed"))) }
}
