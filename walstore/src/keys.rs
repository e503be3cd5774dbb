//! The object keys that belong to the log. No other module of this crate builds or parses one.

use crate::id::{IncarnationId, PutId, Slot};
use crate::store::Key;

/// What the keys of records about the bucket itself begin with.
pub const META_PREFIX: &str = "meta/";

/// Cluster id and format version.
pub fn cluster() -> Key {
    Key::new("meta/cluster")
}

/// Result of the conformance probe for a format, recorded so that later starts skip it.
pub fn probed() -> Key {
    Key::new("meta/probed")
}

/// Which walk through the whole bucket was the latest.
pub fn sweep() -> Key {
    Key::new("meta/sweep")
}

/// The record of one incarnation.
pub fn incarnation(id: IncarnationId) -> Key {
    Key::new(format!("inc/{id}"))
}

/// The marker of an incarnation that is not drained yet.
pub fn live(id: IncarnationId) -> Key {
    Key::new(format!("live/{id}"))
}

pub const LIVE_PREFIX: &str = "live/";
pub const INCARNATION_PREFIX: &str = "inc/";
pub const FRAGMENT_PREFIX: &str = "w/";
pub const SIDE_PREFIX: &str = "x/";
pub const BUNDLE_PREFIX: &str = "b/";
/// What a probe of the store leaves behind if it dies.
pub const PROBE_PREFIX: &str = "probe/";

/// What a key of the log names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    Incarnation(IncarnationId),
    Live(IncarnationId),
    Fragment(IncarnationId, Slot),
    Side(IncarnationId, [u8; 16]),
    Bundle { incarnation: IncarnationId, number: u32, nonce: [u8; 16] },
}

/// One slot of an incarnation's log.
///
/// Slots are fixed-width, so that keys sort as slots do. The hash spreads neighbouring slots over the
/// store's partitions.
pub fn fragment(incarnation: IncarnationId, slot: Slot) -> Key {
    let rest = format!("{incarnation}/{:016x}", slot.0);
    Key::new(format!("w/{}/{rest}", hash_prefix(&rest)))
}

/// One side object of an incarnation.
pub fn side(incarnation: IncarnationId, nonce: [u8; 16]) -> Key {
    Key::new(format!("{}{}", side_prefix(incarnation), PutId::from_bytes(nonce)))
}

/// All side objects of an incarnation, orphans included.
pub fn side_prefix(incarnation: IncarnationId) -> String {
    format!("x/{}/{incarnation}/", hash_prefix(&incarnation.to_string()))
}

/// One bundle of an incarnation's log.
pub fn bundle(incarnation: IncarnationId, number: u32, nonce: [u8; 16]) -> Key {
    Key::new(format!("{}{number:08x}-{}", bundle_prefix(incarnation), PutId::from_bytes(nonce)))
}

/// All bundles of an incarnation's log, those that lost their race included.
pub fn bundle_prefix(incarnation: IncarnationId) -> String {
    format!("b/{}/{incarnation}/", hash_prefix(&incarnation.to_string()))
}

/// Which incarnation a key under [`LIVE_PREFIX`] marks.
pub fn parse_live(key: &Key) -> Option<IncarnationId> {
    IncarnationId::parse(key.as_str().strip_prefix(LIVE_PREFIX)?)
}

/// Reads a key back; `None` unless it is exactly what one of the functions above builds.
pub fn parse(key: &Key) -> Option<Object> {
    let (kind, rest) = key.as_str().split_once('/')?;
    let mut parts = rest.rsplit('/');
    let (last, before) = (parts.next()?, parts.next());
    let of_log = || IncarnationId::parse(before?);
    let (object, rebuilt) = match kind {
        "inc" => IncarnationId::parse(last).map(|id| (Object::Incarnation(id), incarnation(id)))?,
        "live" => IncarnationId::parse(last).map(|id| (Object::Live(id), live(id)))?,
        "w" => {
            let (id, slot) = (of_log()?, Slot(u64::from_str_radix(last, 16).ok()?));
            (Object::Fragment(id, slot), fragment(id, slot))
        }
        "x" => {
            let (id, nonce) = (of_log()?, *PutId::parse(last)?.as_bytes());
            (Object::Side(id, nonce), side(id, nonce))
        }
        "b" => {
            let (number, nonce) = last.split_once('-')?;
            let (number, nonce) = (u32::from_str_radix(number, 16).ok()?, *PutId::parse(nonce)?.as_bytes());
            let incarnation = of_log()?;
            (Object::Bundle { incarnation, number, nonce }, bundle(incarnation, number, nonce))
        }
        _ => return None,
    };
    (rebuilt == *key).then_some(object)
}

/// The first four hexadecimal digits of BLAKE3 of `rest`: what stands early in keys that many nodes write.
pub fn hash_prefix(rest: &str) -> String {
    let hash = blake3::hash(rest.as_bytes());
    hash.to_hex()[..4].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_keys() {
        let id = IncarnationId::from_bytes([0xab; 16]);
        assert_eq!(incarnation(id).as_str(), "inc/abababababababababababababababab");
        let key = fragment(id, Slot(10));
        let (prefix, rest) = key.as_str().split_at(7);
        assert_eq!(rest, "abababababababababababababababab/000000000000000a");
        assert_eq!(prefix, format!("w/{}/", hash_prefix(rest)));
        let hash = hash_prefix("abababababababababababababababab");
        let nonce = "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd";
        assert_eq!(side(id, [0xcd; 16]).as_str(), format!("x/{hash}/{id}/{nonce}"));
        assert_eq!(bundle(id, 26, [0xcd; 16]).as_str(), format!("b/{hash}/{id}/0000001a-{nonce}"));
        assert_eq!((parse_live(&live(id)), parse_live(&key)), (Some(id), None));
        let bundle_id = Object::Bundle { incarnation: id, number: 26, nonce: [0xcd; 16] };
        for (key, object) in [
            (incarnation(id), Object::Incarnation(id)),
            (live(id), Object::Live(id)),
            (fragment(id, Slot(10)), Object::Fragment(id, Slot(10))),
            (side(id, [0xcd; 16]), Object::Side(id, [0xcd; 16])),
            (bundle(id, 26, [0xcd; 16]), bundle_id),
        ] {
            assert_eq!(parse(&key), Some(object), "{key}");
        }
        for foreign in ["w", "w/0000/abab/0", "inc/x", "meta/cluster", "b/0/1", "x/0000/y/z"] {
            assert_eq!(parse(&Key::new(foreign)), None, "{foreign}");
        }
        assert_eq!(hash_prefix("x"), blake3::hash(b"x").to_hex()[..4]);
    }
}
