//! The object keys of names, heads and due markers. No other module of this crate builds or parses one.

use walstore::id::DatabaseId;
use walstore::keys::hash_prefix;
use walstore::store::Key;

use crate::calendar::Day;
use crate::due::DueKind;
use crate::name::Name;

pub const NAME_PREFIX: &str = "n/";
pub const DUE_PREFIX: &str = "due/";
/// Within a database: what its forks need.
const PINS: &str = "f/";
/// Everything of every database but its name.
pub const DATABASES_PREFIX: &str = "t/";

/// The name record. The keys sort as names do, so that a listing by prefix is one range of keys.
pub fn name(name: &Name) -> Key {
    Key::new(format!("{NAME_PREFIX}{name}"))
}

/// The name whose record is at `key`; `None` if no name has that key.
pub fn parse_name(key: &Key) -> Option<Name> {
    Name::parse(key.as_str().strip_prefix(NAME_PREFIX)?).ok()
}

/// Where everything of one database lies: `t/<h>/<dbid>/`. The hash spreads databases over the store's
/// partitions even if their ids should ever stop being random.
pub fn database_prefix(database: DatabaseId) -> String {
    let id = database.to_string();
    format!("t/{}/{id}/", hash_prefix(&id))
}

/// Whose `key` is, if it lies where something of a database does.
pub fn parse_database(key: &Key) -> Option<DatabaseId> {
    let mut parts = key.as_str().split('/').skip(2);
    let (id, rest) = (DatabaseId::parse(parts.next()?)?, parts.next()?);
    let is_there = !rest.is_empty() && key.as_str().starts_with(&database_prefix(id));
    is_there.then_some(id)
}

/// The head.
pub fn head(database: DatabaseId) -> Key {
    Key::new(format!("{}head", database_prefix(database)))
}

/// A chunk of pins that do not fit the head. It carries the number of the write that links it, as all objects of a
/// database do.
pub fn pins(database: DatabaseId, written: Written) -> Key {
    let Written { epoch, seq, nonce } = written;
    Key::new(format!("{}{PINS}{epoch:016x}-{seq:08x}-{nonce:016x}", database_prefix(database)))
}

/// Which write of the head an object was made for: what decides whether anybody can still link it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub epoch: u64,
    pub seq: u32,
    /// Random.
    pub nonce: u64,
}

/// Whose chunk of pins is at `key`, and for which write it was made.
pub fn parse_pins(key: &Key) -> Option<(DatabaseId, Written)> {
    let database = parse_database(key)?;
    let rest = key.as_str().strip_prefix(&database_prefix(database))?.strip_prefix(PINS)?;
    let mut numbers = rest.split('-').map(|hex| u64::from_str_radix(hex, 16).ok());
    let (epoch, seq, nonce) = (numbers.next()??, u32::try_from(numbers.next()??).ok()?, numbers.next()??);
    let written = Written { epoch, seq, nonce };
    (pins(database, written) == *key).then_some((database, written))
}

/// The marker of something to finish or forget at `due_micros`. Two markers for the same thing on the same
/// day are one.
pub fn due(due_micros: u64, database: DatabaseId, kind: DueKind) -> Key {
    Key::new(format!("{DUE_PREFIX}{}/{database}-{kind}", Day::of_micros(due_micros)))
}

/// Day, database and kind of a marker; `None` if no marker has that key.
pub fn parse_due(key: &Key) -> Option<(Day, DatabaseId, DueKind)> {
    let (day, rest) = key.as_str().strip_prefix(DUE_PREFIX)?.split_once('/')?;
    let (database, kind) = rest.split_once('-')?;
    Some((Day::parse(day)?, DatabaseId::parse(database)?, DueKind::parse(kind)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATABASE: DatabaseId = DatabaseId::from_bytes([0xab; 16]);
    /// 2024-02-29 12:00 UTC.
    const NOON: u64 = 1_709_208_000_000_000;

    #[test]
    fn golden_keys() {
        let id = "abababababababababababababababab";
        assert_eq!(name(&Name::parse("my-app.prod_2").unwrap()).as_str(), "n/my-app.prod_2");
        let hash = &blake3::hash(id.as_bytes()).to_hex()[..4];
        assert_eq!(head(DATABASE).as_str(), format!("t/{hash}/{id}/head"));
        assert_eq!(hash, "4e55");
        assert_eq!(parse_database(&head(DATABASE)), Some(DATABASE));
        assert_eq!(parse_database(&Key::new(format!("t/0000/{id}/head"))), None);
        assert_eq!(parse_database(&Key::new(format!("t/4e55/{id}"))), None);
        assert_eq!(due(NOON, DATABASE, DueKind::Delete).as_str(), format!("due/20240229/{id}-delete"));
    }

    #[test]
    fn keys_of_names_sort_as_names_and_read_back() {
        let names = ["0", "a", "a-1", "a.1", "a0", "a_1", "b"].map(|text| Name::parse(text).unwrap());
        assert!(names.is_sorted());
        assert!(names.iter().map(name).is_sorted());
        assert!(names.iter().all(|n| parse_name(&name(n)).as_ref() == Some(n)));
    }

    #[test]
    fn keys_of_pins_read_back() {
        let written = Written { epoch: 3, seq: 18, nonce: u64::MAX };
        let key = pins(DATABASE, written);
        let id = "abababababababababababababababab";
        assert_eq!(key.as_str(), format!("t/4e55/{id}/f/0000000000000003-00000012-ffffffffffffffff"));
        assert_eq!(parse_pins(&key), Some((DATABASE, written)));
        assert_eq!(parse_pins(&head(DATABASE)), None);
        assert_eq!(parse_pins(&Key::new(format!("t/4e55/{id}/f/3-12-ff"))), None);
    }

    #[test]
    fn foreign_keys_are_nobodys() {
        for key in ["n", "n/A", "n/db", "m/a", "n/a/b", "t/a"] {
            assert_eq!(parse_name(&Key::new(key)), None, "{key}");
        }
        for key in ["due/20240229", "due/20240230/abababababababababababababababab-delete", "due/20240229/x-delete"] {
            assert_eq!(parse_due(&Key::new(key)), None, "{key}");
        }
    }

    #[test]
    fn due_keys_read_back() {
        for kind in DueKind::ALL {
            let read = parse_due(&due(NOON, DATABASE, kind));
            assert_eq!(read, Some((Day::of_micros(NOON), DATABASE, kind)));
        }
    }
}
