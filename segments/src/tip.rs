//! Where a database's history stands: what the next commit must follow.
//!
//! Encoded: LSN (8, 0 for none), time (8), page count (4), cumulative pages (8), chain hash (16).

use std::fmt;

use walstore::envelope::{Corrupt, Reader, Writer};
use walstore::id::{DatabaseId, Lsn};

/// Hash over a database's whole history up to some commit: the first 16 bytes of BLAKE3 over that
/// commit, which contains the hash before it. Two histories that agree in it agree in everything.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainHash([u8; 16]);

impl ChainHash {
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The hash before a database's first commit. It differs between databases, so that one's commits
    /// never pass for another's.
    pub fn before_first(database: DatabaseId) -> Self {
        Self::over(&[b"shoal history", database.as_bytes()])
    }

    /// The hash of a history that begins with a file from outside, by the file's own hash.
    pub fn of_import(database: DatabaseId, file: &[u8; 32]) -> Self {
        Self::over(&[b"shoal import", database.as_bytes(), file])
    }

    pub(crate) fn over(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes().first_chunk().expect("BUG: BLAKE3 gives 32 bytes"))
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The state of a history after some commit, or before the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// The last commit, if any.
    pub lsn: Option<Lsn>,
    /// Its time, in microseconds since the Unix epoch.
    pub time_micros: u64,
    /// Size of the database after it.
    pub page_count: u32,
    /// Pages in all commits so far, repeated ones counted each time.
    pub pages_total: u64,
    pub chain: ChainHash,
}

impl Tip {
    /// Before the first commit of a new database.
    pub fn before_first(database: DatabaseId) -> Self {
        Self { lsn: None, time_micros: 0, page_count: 0, pages_total: 0, chain: ChainHash::before_first(database) }
    }

    pub fn encode(&self, out: &mut Writer) {
        out.u64(Lsn::raw(self.lsn));
        out.u64(self.time_micros);
        out.u32(self.page_count);
        out.u64(self.pages_total);
        out.raw(self.chain.as_bytes());
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        Ok(Self {
            lsn: Lsn::new(reader.u64()?),
            time_micros: reader.u64()?,
            page_count: reader.u32()?,
            pages_total: reader.u64()?,
            chain: ChainHash::from_bytes(reader.array()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tips_round_trip_and_histories_start_apart() {
        let tip = Tip {
            lsn: Lsn::new(7),
            time_micros: 8,
            page_count: 9,
            pages_total: 10,
            chain: ChainHash::from_bytes([11; 16]),
        };
        for tip in [tip, Tip::before_first(DatabaseId::from_bytes([1; 16]))] {
            let mut out = Writer::new();
            tip.encode(&mut out);
            let bytes = out.finish();
            let mut reader = Reader::new(&bytes);
            assert_eq!(Tip::decode(&mut reader), Ok(tip));
            reader.end().unwrap();
        }
        let [one, two] = [1, 2].map(|id| ChainHash::before_first(DatabaseId::from_bytes([id; 16])));
        assert_ne!(one, two);
    }
}
