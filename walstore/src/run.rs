//! Runs: the commits of one (database, epoch), as a fragment and a block of a bundle hold them.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | number of runs, then for each run, in order of database, epoch and first LSN: |
//! | 16, 8 | database, epoch |
//! | 8, 8 | first and last LSN (dense in between) |
//! | 4, 4, 4 | offset and length in the run area, CRC-32C of the run |
//! | … | the run area: the runs in the same order, with nothing between them or behind the last |
//!
//! A run is its commits one after the other. Each begins with its kind: 0 inline, then `u32` length and the
//! bytes; 1 a reference to a [side object](crate::side), then its nonce (16), the commit's length (4) and the
//! first 16 bytes of BLAKE3 of the commit. Other kinds are refused.

use bytes::Bytes;

use crate::envelope::{Corrupt, Reader, Writer};
use crate::id::{DatabaseId, Lsn};
use crate::limits;

const RUN_ENTRY_BYTES: usize = 52;
const KIND_INLINE: u8 = 0;
const KIND_SIDE: u8 = 1;
/// Kind, nonce, length, hash.
const SIDE_ENTRY_BYTES: usize = 1 + 16 + 4 + 16;

/// Where a large commit is, and what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideRef {
    pub nonce: [u8; 16],
    /// Length of the commit.
    pub commit_bytes: u32,
    /// The first 16 bytes of BLAKE3 of the commit.
    pub hash: [u8; 16],
}

/// A commit as a run carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Inline(Bytes),
    Side(SideRef),
}

impl Content {
    /// Bytes that it takes in the log, near enough for batching. Never 0: a reference has bytes too.
    #[expect(clippy::len_without_is_empty, reason = "a length on the wire, not of a collection")]
    pub fn len(&self) -> usize {
        match self {
            Self::Inline(commit) => commit.len(),
            Self::Side(_) => SIDE_ENTRY_BYTES,
        }
    }
}

impl From<Bytes> for Content {
    fn from(commit: Bytes) -> Self {
        Self::Inline(commit)
    }
}

/// The commits of one (database, epoch) in one fragment or bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub database: DatabaseId,
    pub epoch: u64,
    pub first: Lsn,
    /// Never empty.
    pub commits: Vec<Content>,
}

impl Run {
    /// The commits with their LSNs.
    pub fn commits(&self) -> impl Iterator<Item = (Lsn, &Content)> {
        let lsns = (self.first.get()..).map_while(Lsn::new);
        lsns.zip(&self.commits)
    }

    /// The last LSN.
    pub fn last(&self) -> u64 {
        // In this order, so that not even the last LSN of all overflows.
        (self.first.get() - 1) + self.commits.len() as u64
    }

    /// The LSN that would go on from here.
    pub fn next_lsn(&self) -> Option<Lsn> {
        self.last().checked_add(1).and_then(Lsn::new)
    }

    fn place(&self) -> (DatabaseId, u64, u64) {
        (self.database, self.epoch, self.first.get())
    }

    /// Bytes that it takes, directory included.
    pub fn encoded_bytes(&self) -> usize {
        RUN_ENTRY_BYTES + self.commits.iter().map(|commit| commit.len() + 5).sum::<usize>()
    }
}

/// Appends runs that are in order.
pub fn encode(runs: &[Run], out: &mut Writer) {
    let mut area = Writer::new();
    out.count(runs.len());
    for run in runs {
        let bytes = encode_run(run);
        out.raw(run.database.as_bytes());
        out.u64(run.epoch);
        out.u64(run.first.get());
        out.u64(run.last());
        out.count(area.len());
        out.count(bytes.len());
        out.u32(crc32c::crc32c(&bytes));
        area.raw(&bytes);
    }
    out.raw(&area.finish());
}

fn encode_run(run: &Run) -> Vec<u8> {
    let mut out = Writer::new();
    for commit in &run.commits {
        match commit {
            Content::Inline(bytes) => {
                out.u8(KIND_INLINE);
                out.blob(bytes);
            }
            Content::Side(side) => {
                out.u8(KIND_SIDE);
                out.raw(&side.nonce);
                out.u32(side.commit_bytes);
                out.raw(&side.hash);
            }
        }
    }
    out.finish()
}

/// Reads runs up to the end of `bytes`. What it returns shares their memory.
pub fn decode(bytes: &Bytes) -> Result<Vec<Run>, Corrupt> {
    let mut reader = Reader::new(bytes);
    let count = reader.count(RUN_ENTRY_BYTES)?;
    let area_start = bytes.len() - reader.remaining() + count * RUN_ENTRY_BYTES;
    let mut runs: Vec<Run> = Vec::with_capacity(count);
    // If runs could overlap, a few bytes would stand for many commits.
    let mut area_end = 0;
    for _ in 0..count {
        let database = DatabaseId::from_bytes(reader.array()?);
        let epoch = reader.u64()?;
        let (first, last) = (reader.u64()?, reader.u64()?);
        let (offset, length, checksum) = (reader.u32()? as usize, reader.u32()? as usize, reader.u32()?);
        if offset != area_end {
            return Err(Corrupt::new(format!("the run of {database} begins at {offset}, not at {area_end}")));
        }
        area_end += length;
        let start = area_start + offset;
        let run = (start + length <= bytes.len()).then(|| bytes.slice(start..start + length));
        let run = run.ok_or_else(|| Corrupt::new("a run reaches past the end"))?;
        if crc32c::crc32c(&run) != checksum {
            return Err(Corrupt::new(format!("checksum mismatch in the run of {database}")));
        }
        if runs.last().is_some_and(|before| before.place() >= (database, epoch, first)) {
            return Err(Corrupt::new(format!("the run of {database} at epoch {epoch} is out of order")));
        }
        let first = Lsn::new(first).ok_or_else(|| Corrupt::new("a run starts at LSN 0"))?;
        if last > limits::COUNTER_MAX {
            return Err(Corrupt::new(format!("the run of {database} ends at LSN {last}, further than any gets")));
        }
        let commits = decode_run(&run)?;
        if commits.is_empty() || first.get().checked_add(commits.len() as u64 - 1) != Some(last) {
            return Err(Corrupt::new(format!("the run of {database} has {} commits", commits.len())));
        }
        runs.push(Run { database, epoch, first, commits });
    }
    if area_start + area_end != bytes.len() {
        return Err(Corrupt::new("bytes behind the last run"));
    }
    Ok(runs)
}

fn decode_run(run: &Bytes) -> Result<Vec<Content>, Corrupt> {
    let mut reader = Reader::new(run);
    let mut commits = Vec::new();
    while reader.remaining() > 0 {
        commits.push(match reader.u8()? {
            KIND_INLINE => Content::Inline(run.slice_ref(reader.blob()?)),
            KIND_SIDE => {
                let (nonce, commit_bytes, hash) = (reader.array()?, reader.u32()?, reader.array()?);
                Content::Side(SideRef { nonce, commit_bytes, hash })
            }
            kind => return Err(Corrupt::new(format!("unknown kind {kind} of commit"))),
        });
    }
    Ok(commits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content() -> impl Strategy<Value = Content> {
        let inline = proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Content::Inline(bytes.into()));
        let side = (any::<[u8; 16]>(), any::<u32>(), any::<[u8; 16]>());
        let side = side.prop_map(|(nonce, commit_bytes, hash)| Content::Side(SideRef { nonce, commit_bytes, hash }));
        prop_oneof![inline, side]
    }

    fn encoded(runs: &[Run]) -> Bytes {
        let mut out = Writer::new();
        encode(runs, &mut out);
        out.finish().into()
    }

    fn run(commits: Vec<Content>) -> Run {
        Run { database: DatabaseId::from_bytes([9; 16]), epoch: 2, first: Lsn::FIRST, commits }
    }

    #[test]
    fn an_unknown_kind_of_commit_is_refused() {
        let mut bytes = encoded(&[run(vec![Content::Inline("abc".into())])]).to_vec();
        let area = 4 + RUN_ENTRY_BYTES;
        bytes[area] = 2;
        let checksum = crc32c::crc32c(&bytes[area..]).to_le_bytes();
        bytes[area - 4..area].copy_from_slice(&checksum);
        let error = decode(&bytes.into()).unwrap_err();
        assert!(error.reason.contains("unknown kind 2"), "{error}");
    }

    /// Bug: a run that ended at the last LSN of all was accepted. Damage: whoever counted on from there, as bundling
    /// does, panicked. Fix: a limit far below.
    #[test]
    fn a_run_that_ends_further_than_any_gets_is_refused() {
        let ending_at = |last| Run { first: Lsn::new(last).unwrap(), ..run(vec![Content::Inline("a".into())]) };
        for last in [limits::COUNTER_MAX + 1, u64::MAX - 1, u64::MAX] {
            let error = decode(&encoded(&[ending_at(last)])).unwrap_err();
            assert!(error.reason.contains("further than any gets"), "{error}");
        }
        let furthest = ending_at(limits::COUNTER_MAX);
        assert_eq!(furthest.commits().count(), 1);
        assert_eq!(decode(&encoded(std::slice::from_ref(&furthest))), Ok(vec![furthest]));
    }

    /// Bug: runs could share bytes of the area. Damage: a fragment of 121 KB took 314 MB once it was decoded. Fix: each
    /// run begins where the one before ends.
    #[test]
    fn runs_that_share_bytes_or_leave_some_out_are_refused() {
        let one = run(vec![Content::Inline("abc".into())]);
        let two = Run { epoch: 3, ..one.clone() };
        let good = encoded(&[one, two]).to_vec();
        let offset_of_second = 4 + RUN_ENTRY_BYTES + 40;
        // The same commits, so the checksum of the second fits the bytes of the first as well.
        let mut shared = good.clone();
        shared[offset_of_second..offset_of_second + 4].copy_from_slice(&0u32.to_le_bytes());
        let error = decode(&shared.into()).unwrap_err();
        assert!(error.reason.contains("begins at 0, not at 8"), "{error}");
        let mut more = good.clone();
        more.push(0);
        let error = decode(&more.into()).unwrap_err();
        assert!(error.reason.contains("behind the last run"), "{error}");
        assert_eq!(decode(&good.into()).map(|runs| runs.len()), Ok(2));
        assert_eq!(decode(&encoded(&[])), Ok(Vec::new()));
    }

    #[test]
    fn runs_out_of_order_are_refused() {
        let one = run(vec![Content::Inline("a".into())]);
        let runs = [one.clone(), one];
        assert!(decode(&encoded(&runs)).unwrap_err().reason.contains("out of order"));
    }

    proptest! {
        #[test]
        fn runs_round_trip(all in proptest::collection::vec((1u64..1000, proptest::collection::vec(content(), 1..5)), 0..8)) {
            let runs: Vec<Run> = all.into_iter().zip(0u64..).map(|((first, commits), epoch)| Run {
                database: DatabaseId::from_bytes([epoch as u8 / 2; 16]), epoch, first: Lsn::new(first).unwrap(), commits,
            }).collect();
            prop_assert_eq!(decode(&encoded(&runs)), Ok(runs));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes.into());
        }

        #[test]
        fn commits_of_any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode_run(&bytes.into());
        }
    }
}
