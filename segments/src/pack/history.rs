//! The folded commits that a pack keeps, for databases with a retention window: LSN of the first (8), number
//! of commits (variable-length), then each as its length (variable-length) and its bytes, as the log had
//! them. LSNs are dense.

use bytes::Bytes;
use walstore::envelope::{Corrupt, Reader, Writer};
use walstore::id::Lsn;

use crate::varint;

/// Commits in order, encoded as [`crate::commit::encode`] made them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    pub first: Lsn,
    pub commits: Vec<Bytes>,
}

impl History {
    /// The commits of a fold, of which `last` is the last one; `None` without any.
    pub fn of_fold(commits: &[Bytes], last: Lsn) -> Option<Self> {
        let before = commits.len().checked_sub(1)? as u64;
        let first = last.get().checked_sub(before).and_then(Lsn::new).expect("BUG: more commits than LSNs");
        Some(Self { first, commits: commits.to_vec() })
    }

    /// Calls `write` with its encoding, in parts, so that no commit is copied for it.
    pub(super) fn with_parts<T>(&self, write: impl FnOnce(&[&[u8]]) -> T) -> T {
        let mut start = Writer::new();
        start.u64(self.first.get());
        varint::put_len(&mut start, self.commits.len());
        let start = start.finish();
        let length = |commit: &Bytes| {
            let mut out = Writer::new();
            varint::put_len(&mut out, commit.len());
            out.finish()
        };
        let lengths: Vec<Vec<u8>> = self.commits.iter().map(length).collect();
        let commits = lengths.iter().zip(&self.commits).flat_map(|(length, commit)| [&length[..], &commit[..]]);
        write(&std::iter::once(&start[..]).chain(commits).collect::<Vec<_>>())
    }

    /// Reads a section whose checksum holds.
    pub fn decode(section: &Bytes) -> Result<Self, Corrupt> {
        let mut reader = Reader::new(section);
        let first = Lsn::new(reader.u64()?).ok_or_else(|| Corrupt::new("a history from LSN 0"))?;
        let count = varint::take_count(&mut reader, 1)?;
        let mut commits = Vec::new();
        for _ in 0..count {
            let length = varint::take_count(&mut reader, 1)?;
            commits.push(section.slice_ref(reader.raw(length)?));
        }
        reader.end()?;
        Ok(Self { first, commits })
    }
}
