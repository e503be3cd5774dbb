//! Identities of the objects that hold pages.
//!
//! Each carries the database that *owns* it, the one under whose keys it lies, because a fork goes on
//! reading its parent's objects. Epoch and sequence number say who wrote it when; the nonce makes the
//! key unique, so that it is written once, unconditionally, and never overwritten.
//!
//! Encoded: owner (16), epoch (8), sequence (4), nonce (8).

use std::fmt;

use walstore::envelope::{Corrupt, Reader, Writer};
use walstore::id::DatabaseId;

/// Length of an encoded id.
pub(crate) const ID_BYTES: usize = 36;

macro_rules! object_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            pub owner: DatabaseId,
            pub epoch: u64,
            /// The fold that wrote it: counts up within the epoch.
            pub seq: u32,
            /// Random.
            pub nonce: u64,
        }

        impl $name {
            pub fn encode(&self, out: &mut Writer) {
                out.raw(self.owner.as_bytes());
                out.u64(self.epoch);
                out.u32(self.seq);
                out.u64(self.nonce);
            }

            pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
                Ok(Self {
                    owner: DatabaseId::from_bytes(reader.array()?),
                    epoch: reader.u64()?,
                    seq: reader.u32()?,
                    nonce: reader.u64()?,
                })
            }

            /// The last part of the object's key.
            pub(crate) fn key_part(&self) -> String {
                format!("{:016x}-{:08x}-{:016x}", self.epoch, self.seq, self.nonce)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.owner, self.key_part())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

object_id! {
    /// A pack: what one fold produced.
    PackId
}
object_id! {
    /// What is too large for the head, or must outlive what it says now: a chunk of a page map or of the history's
    /// index, or a stored base.
    MapChunkId
}
