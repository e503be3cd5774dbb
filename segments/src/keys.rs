//! The object keys that hold pages: `t/<h>/<dbid>/p/…` and `t/<h>/<dbid>/m/…`. No other module of this
//! crate builds or parses one.
//!
//! `<h>` is a hash of the database id, which spreads databases over the store's partitions. Epoch,
//! sequence number and nonce are hexadecimal of fixed width, so that one database's keys sort by age.

use walstore::id::DatabaseId;
use walstore::keys::hash_prefix;
use walstore::store::Key;

use crate::id::{MapChunkId, PackId};

/// What a key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    Pack(PackId),
    MapChunk(MapChunkId),
}

/// The pack of one fold.
pub fn pack(id: &PackId) -> Key {
    Key::new(format!("{}{}", packs_prefix(id.owner), id.key_part()))
}

/// One chunk of a page map.
pub fn page_map(id: &MapChunkId) -> Key {
    Key::new(format!("{}{}", page_maps_prefix(id.owner), id.key_part()))
}

/// What the keys of all packs that `owner` wrote begin with.
pub fn packs_prefix(owner: DatabaseId) -> String {
    format!("{}p/", database_prefix(owner))
}

/// What the keys of all page map chunks that `owner` wrote begin with.
pub fn page_maps_prefix(owner: DatabaseId) -> String {
    format!("{}m/", database_prefix(owner))
}

fn database_prefix(owner: DatabaseId) -> String {
    let text = owner.to_string();
    format!("t/{}/{text}/", hash_prefix(&text))
}

/// Reads a key back; `None` unless it is exactly what [`pack`] or [`page_map`] builds.
pub fn parse(key: &str) -> Option<Object> {
    let mut parts = key.split('/').skip(2);
    let (owner, kind, rest) = (DatabaseId::parse(parts.next()?)?, parts.next()?, parts.next()?);
    let mut numbers = rest.split('-').map(|hex| u64::from_str_radix(hex, 16).ok());
    let (epoch, seq, nonce) = (numbers.next()??, u32::try_from(numbers.next()??).ok()?, numbers.next()??);
    let (object, rebuilt) = match kind {
        "p" => {
            let id = PackId { owner, epoch, seq, nonce };
            (Object::Pack(id), pack(&id))
        }
        "m" => {
            let id = MapChunkId { owner, epoch, seq, nonce };
            (Object::MapChunk(id), page_map(&id))
        }
        _ => return None,
    };
    (rebuilt.as_str() == key).then_some(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWNER: DatabaseId = DatabaseId::from_bytes([0xcd; 16]);

    #[test]
    fn golden_keys() {
        let id = PackId { owner: OWNER, epoch: 3, seq: 18, nonce: u64::MAX };
        let h = hash_prefix(&OWNER.to_string());
        let key = format!("t/{h}/cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd/p/0000000000000003-00000012-ffffffffffffffff");
        assert_eq!(pack(&id).as_str(), key);
        assert_eq!(parse(&key), Some(Object::Pack(id)));
        let chunk = MapChunkId { owner: OWNER, epoch: 3, seq: 18, nonce: 1 };
        assert_eq!(parse(page_map(&chunk).as_str()), Some(Object::MapChunk(chunk)));
    }

    #[test]
    fn only_the_exact_form_parses() {
        let key = pack(&PackId { owner: OWNER, epoch: 3, seq: 18, nonce: 10 }).as_str().to_owned();
        let bad = [
            key.replace("t/", "u/"),
            key.replace("0000000a", "0000000A"),
            key.replace("/p/", "/q/"),
            key.replace("-00000012-", "-+0000012-"),
            format!("{key}/"),
            format!("{key}-0"),
            key[..key.len() - 1].to_owned(),
            String::new(),
        ];
        for bad in bad {
            assert_eq!(parse(&bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "[tpm0-9a-f/-]{0,120}") {
            let _ = parse(&text);
        }
    }
}
