//! Commit → bytes.

use std::cell::RefCell;

use bytes::Bytes;
use walstore::envelope::Writer;
use walstore::id::Lsn;
use zstd::bulk::Compressor;

use super::{CHAIN, CODEC_RAW, CODEC_ZSTD, Commit, HEADER_BYTES, KIND_PATCH, KIND_WHOLE, KIND_ZERO, VERSION};
use super::{chain_hash, objection, patch};
use crate::limits;
use crate::page::{Page, PageNo};
use crate::tip::Tip;
use crate::varint;

/// Commits wait for it, so it is the fastest level that is worth it.
const ZSTD_LEVEL: i32 = 1;
/// Shorter bodies do not get smaller.
const COMPRESS_BYTES_MIN: usize = 64;

/// The last committed version of a page, for a patch against it.
#[derive(Clone, Debug)]
pub struct Base {
    /// The commit that wrote it.
    pub lsn: Lsn,
    pub page: Page,
    /// How many versions up to this one were patches, without a whole one between.
    pub patches_in_a_row: u8,
}

/// An encoded commit.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub bytes: Bytes,
    /// The history after it, chain hash included.
    pub tip: Tip,
    /// For each page of the commit, whether it was written as a patch.
    pub patched: Vec<bool>,
}

/// Encodes the commit that follows `tip`. `base` gives the last committed version of a page where that is
/// in memory; it is asked only for pages that the database had at `tip`.
///
/// # Panics
/// If the commit does not follow `tip` (see [`Commit::new`]).
pub fn encode(commit: &Commit, tip: &Tip, base: &dyn Fn(PageNo) -> Option<Base>) -> Encoded {
    check(commit, tip);
    let (body, patched) = encode_body(commit, tip, base);
    let (codec, stored) = compress(&body);
    let mut out = Writer::new();
    out.u8(VERSION);
    out.u8(codec);
    out.u64(commit.lsn.get());
    out.u64(commit.time_micros);
    out.u32(commit.page_count);
    out.u64(commit.pages_total);
    out.raw(tip.chain.as_bytes());
    out.raw(&[0; CHAIN.end - CHAIN.start]);
    out.count(body.len());
    debug_assert_eq!(out.len(), HEADER_BYTES);
    out.raw(stored.as_deref().unwrap_or(&body));
    let mut bytes = out.finish();
    let chain = chain_hash(&bytes);
    bytes[CHAIN].copy_from_slice(chain.as_bytes());
    Encoded { bytes: bytes.into(), tip: commit.tip(chain), patched }
}

fn check(commit: &Commit, tip: &Tip) {
    let Commit { lsn, time_micros, page_count, pages_total, ref pages } = *commit;
    let numbers = pages.iter().map(|(page, _)| *page);
    let objection = objection(tip, lsn, time_micros, page_count, pages_total, numbers);
    assert_eq!(objection, None, "BUG: a commit that does not follow");
    assert!(pages.len() <= limits::COMMIT_PAGES_MAX, "BUG: {} pages in a commit", pages.len());
    let fits = |page: PageNo| page.get() <= page_count && page != PageNo::LOCK_PAGE;
    assert!(pages.is_sorted_by(|a, b| a.0 < b.0), "BUG: pages of a commit in disorder");
    assert!(pages.iter().all(|(page, _)| fits(*page)), "BUG: a commit with a page outside of the database");
}

thread_local! {
    /// Making one takes longer than most commits take to compress.
    static COMPRESSOR: RefCell<Compressor<'static>> =
        RefCell::new(Compressor::new(ZSTD_LEVEL).expect("BUG: the compression level exists"));
}

fn compress(body: &[u8]) -> (u8, Option<Vec<u8>>) {
    if body.len() < COMPRESS_BYTES_MIN {
        return (CODEC_RAW, None);
    }
    match COMPRESSOR.with_borrow_mut(|compressor| compressor.compress(body)) {
        Ok(packed) if packed.len() < body.len() => (CODEC_ZSTD, Some(packed)),
        _ => (CODEC_RAW, None),
    }
}

fn encode_body(commit: &Commit, tip: &Tip, base: &dyn Fn(PageNo) -> Option<Base>) -> (Vec<u8>, Vec<bool>) {
    let mut out = Writer::new();
    let mut patched = Vec::with_capacity(commit.pages.len());
    varint::put_len(&mut out, commit.pages.len());
    let mut last = 0;
    for (number, page) in &commit.pages {
        varint::put(&mut out, u64::from(number.get() - last));
        last = number.get();
        let base = (last <= tip.page_count).then(|| base(*number)).flatten();
        patched.push(encode_page(&mut out, commit.lsn, page, base));
    }
    (out.finish(), patched)
}

/// Returns whether the page became a patch.
fn encode_page(out: &mut Writer, lsn: Lsn, page: &Page, base: Option<Base>) -> bool {
    if page.is_zero() {
        out.u8(KIND_ZERO);
        return false;
    }
    let base = base.filter(|base| base.patches_in_a_row < limits::PATCHES_IN_A_ROW_MAX);
    let runs = base.as_ref().and_then(|base| patch::encode(&base.page, page));
    let Some((base, runs)) = base.zip(runs) else {
        out.u8(KIND_WHOLE);
        out.raw(page.as_ref());
        return false;
    };
    assert!(base.lsn < lsn, "BUG: commit {lsn} patches a page of commit {}", base.lsn);
    out.u8(KIND_PATCH);
    varint::put(out, lsn.get() - base.lsn.get());
    out.u32(base.page.crc32c());
    out.u32(page.crc32c());
    out.raw(&runs);
    true
}
