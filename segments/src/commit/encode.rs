//! Commit → bytes.

use std::cell::RefCell;
use std::io::Write;

use bytes::{Buf, Bytes};
use walstore::envelope::Writer;
use walstore::id::Lsn;
use zstd::bulk::Compressor;

use super::{CHAIN, CODEC_RAW, CODEC_ZSTD, Commit, HEADER_BYTES, KIND_PATCH, KIND_WHOLE, KIND_ZERO, VERSION};
use super::{chain_hash, objection, patch};
use crate::limits;
use crate::page::{PAGE_BYTES, Page, PageNo};
use crate::tip::Tip;
use crate::varint;

/// Commits wait for it, so it is the fastest level that is worth it.
const ZSTD_LEVEL: i32 = 1;
/// Shorter bodies do not get smaller.
const COMPRESS_BYTES_MIN: usize = 64;
/// So much of a large body is written at a time.
const LARGE_PIECE_BYTES: usize = 128 << 10;

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
    /// A large commit behind its [`Front`]: the same memory.
    pub behind_front: Option<Bytes>,
    /// For each page of a large commit, where it stands in `bytes` as it is. Empty if none does.
    places: Vec<Option<usize>>,
}

/// What is to stand before a large commit, in one piece of memory with it, so that nobody has to copy it to store it in
/// an object of its own.
#[derive(Clone, Copy)]
pub struct Front<'a> {
    pub bytes: usize,
    /// Writes it, when the commit is there.
    pub write: &'a dyn Fn(&mut [u8], &[u8]),
}

impl Encoded {
    /// Has the pages of `commit`, of which this is the encoding, be parts of it as far as they stand in it as they are:
    /// then a large commit that does not compress is in memory once. Answers how many are.
    pub fn share_pages(&self, commit: &mut Commit) -> usize {
        let mut shared = 0;
        for ((_, page), place) in commit.pages.iter_mut().zip(&self.places) {
            let Some(start) = *place else { continue };
            *page = Page::new(self.bytes.slice(start..start + PAGE_BYTES)).expect("BUG: a page has PAGE_BYTES");
            shared += 1;
        }
        shared
    }
}

/// Encodes the commit that follows `tip`. `base` gives the last committed version of a page where that is
/// in memory; it is asked only for pages that the database had at `tip`, and twice if the commit is large.
///
/// # Panics
/// If the commit does not follow `tip` (see [`Commit::new`]).
pub fn encode(commit: &Commit, tip: &Tip, base: &dyn Fn(PageNo) -> Option<Base>) -> Encoded {
    encode_behind(commit, tip, base, Front { bytes: 0, write: &|_, _| {} })
}

/// The same, with something before it if it is large: longer than [`walstore::limits::INLINE_COMMIT_BYTES_MAX`], and of
/// more than [`limits::LARGE_COMMIT_PAGES`] pages.
pub fn encode_behind(
    commit: &Commit,
    tip: &Tip,
    base: &dyn Fn(PageNo) -> Option<Base>,
    front: Front<'_>,
) -> Encoded {
    check(commit, tip);
    let is_large = commit.pages.len() > limits::LARGE_COMMIT_PAGES;
    let before = if is_large { front.bytes } else { 0 };
    let mut out = vec![0; before + HEADER_BYTES];
    let body = Body { commit, tip, base };
    let (codec, laid) = if is_large { body.append_large(&mut out) } else { body.append(&mut out) };
    let mut header = Writer::new();
    header.u8(VERSION);
    header.u8(codec);
    header.u64(commit.lsn.get());
    header.u64(commit.time_micros);
    header.u32(commit.page_count);
    header.u64(commit.pages_total);
    header.raw(tip.chain.as_bytes());
    header.raw(&[0; CHAIN.end - CHAIN.start]);
    header.count(laid.body_bytes);
    let (ahead, encoded) = out.split_at_mut(before);
    encoded[..HEADER_BYTES].copy_from_slice(&header.finish());
    let chain = chain_hash(encoded);
    encoded[CHAIN].copy_from_slice(chain.as_bytes());
    let is_behind = before > 0 && encoded.len() > walstore::limits::INLINE_COMMIT_BYTES_MAX;
    if is_behind {
        (front.write)(ahead, encoded);
    }
    let mut bytes = Bytes::from(out);
    let behind_front = is_behind.then(|| bytes.clone());
    bytes.advance(before);
    let places = if is_large && codec == CODEC_RAW { laid.places } else { Vec::new() };
    Encoded { bytes, tip: commit.tip(chain), patched: laid.patched, behind_front, places }
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

/// What is to be written behind the header.
struct Body<'a> {
    commit: &'a Commit,
    tip: &'a Tip,
    base: &'a dyn Fn(PageNo) -> Option<Base>,
}

/// How it was written.
struct Laid {
    body_bytes: usize,
    patched: Vec<bool>,
    /// Where in the encoding each page stands as it is, if the body is not compressed.
    places: Vec<Option<usize>>,
}

impl Body<'_> {
    fn append(&self, out: &mut Vec<u8>) -> (u8, Laid) {
        let mut body = Vec::new();
        let laid = self.lay(&mut |piece| body = piece, usize::MAX);
        let (codec, stored) = compress(&body);
        out.extend_from_slice(stored.as_deref().unwrap_or(&body));
        (codec, laid)
    }

    /// Piece by piece, so that the body is in memory once and no more. It is compressed if that halves it: else its
    /// pages can be [shared](Encoded::share_pages), and that saves more.
    fn append_large(&self, out: &mut Vec<u8>) -> (u8, Laid) {
        let start = out.len();
        let compressor = zstd::stream::write::Encoder::new(std::mem::take(out), ZSTD_LEVEL);
        let mut compressor = compressor.expect("BUG: the compression level exists");
        let mut write = |piece: Vec<u8>| compressor.write_all(&piece).expect("BUG: memory takes everything");
        let laid = self.lay(&mut write, LARGE_PIECE_BYTES);
        *out = compressor.finish().expect("BUG: memory takes everything");
        if out.len() - start <= laid.body_bytes / 2 {
            return (CODEC_ZSTD, laid);
        }
        out.truncate(start);
        out.reserve_exact(laid.body_bytes);
        (CODEC_RAW, self.lay(&mut |piece| out.extend_from_slice(&piece), LARGE_PIECE_BYTES))
    }

    /// Hands the body out in pieces of about so many bytes.
    fn lay(&self, write: &mut dyn FnMut(Vec<u8>), piece_bytes: usize) -> Laid {
        let Self { commit, tip, base } = self;
        let (mut out, mut done) = (Writer::new(), 0);
        let count = commit.pages.len();
        let (mut patched, mut places) = (Vec::with_capacity(count), Vec::new());
        varint::put_len(&mut out, count);
        let mut last = 0;
        for (number, page) in &commit.pages {
            varint::put(&mut out, u64::from(number.get() - last));
            last = number.get();
            let base = (last <= tip.page_count).then(|| base(*number)).flatten();
            let kind = encode_page(&mut out, commit.lsn, page, base);
            patched.push(kind == KIND_PATCH);
            if piece_bytes < usize::MAX {
                places.push((kind == KIND_WHOLE).then(|| HEADER_BYTES + done + out.len() - PAGE_BYTES));
            }
            if out.len() >= piece_bytes {
                done += out.len();
                write(std::mem::take(&mut out).finish());
            }
        }
        let body_bytes = done + out.len();
        write(out.finish());
        Laid { body_bytes, patched, places }
    }
}

/// Returns how: one of the kinds.
fn encode_page(out: &mut Writer, lsn: Lsn, page: &Page, base: Option<Base>) -> u8 {
    if page.is_zero() {
        out.u8(KIND_ZERO);
        return KIND_ZERO;
    }
    let base = base.filter(|base| base.patches_in_a_row < limits::PATCHES_IN_A_ROW_MAX);
    let runs = base.as_ref().and_then(|base| patch::encode(&base.page, page));
    let Some((base, runs)) = base.zip(runs) else {
        out.u8(KIND_WHOLE);
        out.raw(page.as_ref());
        return KIND_WHOLE;
    };
    assert!(base.lsn < lsn, "BUG: commit {lsn} patches a page of commit {}", base.lsn);
    out.u8(KIND_PATCH);
    varint::put(out, lsn.get() - base.lsn.get());
    out.u32(base.page.crc32c());
    out.u32(page.crc32c());
    out.raw(&runs);
    KIND_PATCH
}
