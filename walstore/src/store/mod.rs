//! The store seam: an object store with two conditional writes.
//!
//! Shoal needs little of a store, but it needs that exactly: reading an object or a part of it, writing
//! one *if absent* and *if it still has this ETag*, deleting, and a paged listing that is never on a hot
//! path. [`conformance`] states the whole contract as tests that run over every implementation.

mod check;
pub mod conformance;
mod counted;
mod directory;
mod faulty;
pub mod limits;
mod memory;
mod operation;
pub mod probe;
mod s3;
mod shared;
mod url;

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

pub use conformance::conformance;
pub use counted::{CountedStore, Counter, Counters};
pub use directory::DirectoryStore;
pub use faulty::{Effect, Fault, Faults, FaultyStore, Latency, Trace, TraceLine};
pub use memory::{MemoryStore, StoreClock};
pub use operation::{Op, key_class};
pub use probe::{ProbeError, probe};
pub use s3::{S3Credentials, S3Location, S3Options, S3Store};
pub use url::{StoreUrl, StoreUrlError, open, open_existing};

/// An object's key: non-empty, ASCII, `/`-separated, without `.` or `..` parts, at most 512 bytes.
///
/// Each crate builds and parses its own keys in one module called `keys`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// # Panics
    /// If the key breaks the grammar above: keys are built from checked ids, never from client input.
    pub fn new(key: impl Into<String>) -> Self {
        let key = key.into();
        assert!(Self::is_valid(&key), "BUG: {key:?} is not an object key");
        Self(key)
    }

    /// Whether `key` fits the grammar.
    pub fn is_valid(key: &str) -> bool {
        let byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let part = |p: &str| !p.is_empty() && p != "." && p != ".." && p.bytes().all(byte);
        key.len() <= 512 && key.split('/').all(part)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A store's opaque name for one version of an object's bytes, as the store wrote it (quotes included).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ETag(pub String);

/// What a read returns: the bytes asked for and the version that they belong to.
#[derive(Clone, Debug)]
pub struct Object {
    pub bytes: Bytes,
    pub etag: ETag,
}

/// What a write demands of the key's present state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing: for keys that carry a nonce and so are written by one writer only.
    None,
    /// No object is there (`If-None-Match: *`).
    Absent,
    /// The object there has this ETag (`If-Match`). No object counts as a mismatch.
    Match(ETag),
}

/// What became of a conditional write that the store answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// The bytes are durable under this ETag.
    Done(ETag),
    /// The condition did not hold (412), and this request wrote nothing. A *former* try of the same write
    /// may have: the caller compares put ids.
    Refused,
}

/// An object store. Implementations do not retry writes; retries belong to the protocol above.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The whole object, or `None` if there is none.
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError>;

    /// The bytes `range` of the object, clamped to its end as HTTP does; `None` if there is no object.
    /// A range that starts at or after the end is [`StoreErrorKind::Corrupt`]: whoever asks was told by another object
    /// that it goes further. Fewer bytes than the range holds, when the object has them, is an error, never a short
    /// answer.
    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Object>, StoreError>;

    /// Writes the whole object in one part.
    async fn put(&self, key: &Key, bytes: Bytes, condition: &Condition) -> Result<Put, StoreError>;

    /// Deletes the object; deleting nothing is no error.
    async fn delete(&self, key: &Key) -> Result<(), StoreError>;

    /// Up to `limit` keys (at most 1000) that start with `prefix` and are greater than `after`, in
    /// ascending byte order.
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize)
    -> Result<Vec<Key>, StoreError>;

    /// The store's own clock, in microseconds since the Unix epoch: as the latest answer told it, so it may be old, but
    /// never new. `None`: it has told none yet, or has none.
    fn date_micros(&self) -> Option<u64> {
        None
    }

    /// What to call this store in messages, without credentials: `s3://bucket/prefix`, `file:///dir`.
    fn describe(&self) -> String;
}

/// Why a request has no answer that the protocol can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// A read, delete or listing failed for now (429, 5xx, reset): ask again.
    Retry,
    /// A write was sent and its outcome is unknown (time-out, reset, 409, 429, 5xx): it may have
    /// happened, may still happen, or may never.
    Indefinite,
    /// The credentials are missing, wrong or not allowed this (401, 403).
    Denied,
    /// There is no such bucket or directory.
    Missing,
    /// The store has no room (disk full, quota).
    Full,
    /// The store cannot do this, or answered against its own rules.
    Invalid,
    /// The object there is not as it was written: its file is damaged, or it ends before the range that was asked
    /// for. Only this object: the store itself is well.
    Corrupt,
}

/// A failed request, with the object that it was about.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{key}: {message}")]
pub struct StoreError {
    pub kind: StoreErrorKind,
    /// The key, or the prefix of a listing.
    pub key: String,
    pub message: String,
}

impl StoreError {
    pub fn new(kind: StoreErrorKind, key: impl fmt::Display, message: impl fmt::Display) -> Self {
        Self { kind, key: key.to_string(), message: message.to_string() }
    }

    /// Whether asking again is useless. Permanent are wrong credentials, a missing bucket, a broken store, damage.
    pub fn is_permanent(&self) -> bool {
        use StoreErrorKind::{Corrupt, Denied, Invalid, Missing};
        matches!(self.kind, Denied | Missing | Invalid | Corrupt)
    }
}
