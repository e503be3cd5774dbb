//! The object keys that belong to the log. No other module of this crate builds or parses one.

use crate::id::{IncarnationId, PutId, Slot};
use crate::store::Key;

/// Cluster id and format version.
pub fn cluster() -> Key {
    Key::new("meta/cluster")
}

/// Result of the conformance probe for a format, recorded so that later starts skip it.
pub fn probed() -> Key {
    Key::new("meta/probed")
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
        assert_eq!(hash_prefix("x"), blake3::hash(b"x").to_hex()[..4]);
    }
}
