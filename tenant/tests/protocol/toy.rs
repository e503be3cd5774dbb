//! The database in place of SQLite: its content is the list of its commits' numbers.
//!
//! A commit is LSN (8), time (8), the commit's number (8), chain hash before it (16) and after it (16), which
//! is BLAKE3 over everything else. A pack is the list of all numbers up to the folded point.

use bytes::Bytes;
use tenant::head::Folded;
use walstore::id::{DatabaseId, Lsn};
use walstore::mutant::{self, Mutant};

/// A commit of the whole world, as an index into its ledger.
pub type CommitNo = u64;

const COMMIT_BYTES: usize = 56;
const CHAIN_AT: usize = 40;

/// Where a history stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    pub lsn: Option<Lsn>,
    pub time_micros: u64,
    pub chain: [u8; 16],
}

impl Tip {
    pub fn before_first(database: DatabaseId) -> Self {
        Self { lsn: None, time_micros: 0, chain: *database.as_bytes() }
    }

    /// The history after the folded point of a head.
    pub fn of_folded(database: DatabaseId, folded: &Folded) -> Self {
        match folded.lsn {
            None => Self::before_first(database),
            lsn => Self { lsn, time_micros: folded.time_micros, chain: folded.chain },
        }
    }

    pub fn to_folded(self) -> Folded {
        match self.lsn {
            None => Folded::default(),
            lsn => Folded {
                lsn,
                chain: self.chain,
                time_micros: self.time_micros,
                page_count: 1,
                pages_total: Lsn::raw(lsn),
            },
        }
    }
}

/// The commit that follows `tip`.
pub fn commit(tip: &Tip, now_micros: u64, number: CommitNo) -> (Bytes, Tip) {
    let lsn = Lsn::after(tip.lsn);
    let time_micros = now_micros.max(tip.time_micros + 1);
    let mut bytes = Vec::with_capacity(COMMIT_BYTES);
    for field in [lsn.get(), time_micros, number] {
        bytes.extend_from_slice(&field.to_le_bytes());
    }
    bytes.extend_from_slice(&tip.chain);
    let chain = hash(&bytes);
    bytes.extend_from_slice(&chain);
    (bytes.into(), Tip { lsn: Some(lsn), time_micros, chain })
}

/// Reads the number of a commit, whatever history it belongs to.
pub fn number(bytes: &[u8]) -> CommitNo {
    field(bytes, 2)
}

/// Reads a commit and checks that it follows `tip`.
pub fn follow(tip: &Tip, bytes: &Bytes) -> Result<(CommitNo, Tip), String> {
    if bytes.len() != COMMIT_BYTES {
        return Err(format!("a commit of {} bytes", bytes.len()));
    }
    let (lsn, time_micros) = (Lsn::new(field(bytes, 0)), field(bytes, 1));
    let chain = *bytes[CHAIN_AT..].first_chunk().expect("the length was checked");
    if chain != hash(&bytes[..CHAIN_AT]) {
        return Err("a commit that does not have the hash that it claims".into());
    }
    let is_next = lsn == Some(Lsn::after(tip.lsn)) && bytes[24..CHAIN_AT] == tip.chain;
    if !is_next && !mutant::is_on(Mutant::SkipChainCheck) {
        return Err(format!("commit {lsn:?} does not follow {:?}", tip.lsn));
    }
    Ok((number(bytes), Tip { lsn, time_micros, chain }))
}

fn field(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes.get(at * 8..at * 8 + 8).and_then(|bytes| bytes.first_chunk());
    u64::from_le_bytes(*bytes.expect("a commit of the toy database"))
}

fn hash(bytes: &[u8]) -> [u8; 16] {
    *blake3::hash(bytes).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

pub fn encode_pack(history: &[CommitNo]) -> Bytes {
    history.iter().flat_map(|number| number.to_le_bytes()).collect()
}

pub fn decode_pack(pack: &Bytes) -> Vec<CommitNo> {
    (0..pack.len() / 8).map(|at| field(pack, at)).collect()
}
