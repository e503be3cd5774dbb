//! Bytes → commit, in three steps: [`UncheckedCommit::decode`] (well-formed, and its hash is right),
//! [`UncheckedCommit::check`] (follows the history), [`CheckedCommit::apply`] (patches become pages).

use bytes::Bytes;
use walstore::envelope::{Corrupt, Reader, decompress_exact};
use walstore::id::Lsn;

use super::patch::{self, Run};
use super::{CODEC_RAW, CODEC_ZSTD, Commit, HEADER_BYTES, KIND_PATCH, KIND_WHOLE, KIND_ZERO, VERSION};
use super::{chain_hash, objection};
use crate::limits;
use crate::page::{PAGE_BYTES, Page, PageNo};
use crate::tip::{ChainHash, Tip};
use crate::varint;

/// A well-formed commit that may belong to any history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UncheckedCommit {
    lsn: Lsn,
    time_micros: u64,
    page_count: u32,
    pages_total: u64,
    previous: ChainHash,
    chain: ChainHash,
    pages: Vec<(PageNo, Content)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Whole(Page),
    Patch { base_lsn: Lsn, base_crc: u32, result_crc: u32, runs: Vec<Run> },
}

/// A commit that follows a known history. Its patches still want their bases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedCommit(UncheckedCommit);

/// Why a commit's pages cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError<E> {
    /// A base or a result differs from what was committed.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// A base could not be read.
    #[error("cannot read the base of a patch: {0}")]
    Base(E),
}

impl UncheckedCommit {
    pub fn decode(encoded: &Bytes) -> Result<Self, Corrupt> {
        let mut reader = Reader::new(encoded);
        let (version, codec) = (reader.u8()?, reader.u8()?);
        if version != VERSION {
            return Err(Corrupt::new(format!("commit format version {version}; this build reads {VERSION}")));
        }
        let lsn = Lsn::new(reader.u64()?).ok_or_else(|| Corrupt::new("a commit with LSN 0"))?;
        let (time_micros, page_count, pages_total) = (reader.u64()?, reader.u32()?, reader.u64()?);
        let (previous, chain) = (ChainHash::from_bytes(reader.array()?), ChainHash::from_bytes(reader.array()?));
        let body_bytes = reader.u32()? as usize;
        if chain_hash(encoded) != chain {
            return Err(Corrupt::new(format!("commit {lsn} does not have the hash that it claims")));
        }
        let body = decode_body(codec, encoded.slice(HEADER_BYTES..), body_bytes)?;
        let pages = decode_pages(&body, lsn, page_count)?;
        Ok(Self { lsn, time_micros, page_count, pages_total, previous, chain, pages })
    }

    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// When it was made, in microseconds since the Unix epoch.
    pub fn time_micros(&self) -> u64 {
        self.time_micros
    }

    /// Checks that this is the commit after `tip`, and a lawful one.
    pub fn check(self, tip: &Tip) -> Result<CheckedCommit, Corrupt> {
        let numbers = self.pages.iter().map(|(page, _)| *page);
        let objection = objection(tip, self.lsn, self.time_micros, self.page_count, self.pages_total, numbers);
        if let Some(objection) = objection {
            return Err(Corrupt::new(format!("commit {}: {objection}", self.lsn)));
        }
        if self.previous != tip.chain {
            let (previous, known) = (self.previous, tip.chain);
            return Err(Corrupt::new(format!("commit {} follows {previous:?}, not {known:?}", self.lsn)));
        }
        let is_patch = |content: &Content| matches!(content, Content::Patch { .. });
        if let Some((page, _)) = self.pages.iter().find(|(page, c)| page.get() > tip.page_count && is_patch(c)) {
            return Err(Corrupt::new(format!("commit {} patches page {page}, which is new", self.lsn)));
        }
        Ok(CheckedCommit(self))
    }
}

fn decode_body(codec: u8, stored: Bytes, body_bytes: usize) -> Result<Bytes, Corrupt> {
    match codec {
        CODEC_RAW if stored.len() == body_bytes => Ok(stored),
        CODEC_RAW => Err(Corrupt::new(format!("{} bytes in a body of {body_bytes}", stored.len()))),
        CODEC_ZSTD => decompress_exact(&stored, body_bytes, limits::COMMIT_BODY_BYTES_MAX).map(Bytes::from),
        _ => Err(Corrupt::new(format!("unknown codec {codec}"))),
    }
}

fn decode_pages(body: &Bytes, lsn: Lsn, page_count: u32) -> Result<Vec<(PageNo, Content)>, Corrupt> {
    let mut reader = Reader::new(body);
    let count = varint::take_count(&mut reader, 2)?;
    if count > limits::COMMIT_PAGES_MAX {
        return Err(Corrupt::new(format!("{count} pages in one commit")));
    }
    let mut pages = Vec::with_capacity(count);
    let mut last = 0;
    for _ in 0..count {
        let number = decode_number(&mut reader, last, page_count)?;
        last = number.get();
        pages.push((number, decode_content(body, &mut reader, lsn)?));
    }
    reader.end()?;
    Ok(pages)
}

fn decode_number(reader: &mut Reader<'_>, last: u32, page_count: u32) -> Result<PageNo, Corrupt> {
    let number = last.checked_add(varint::take_u32(reader)?).filter(|number| *number > last);
    let page = number.and_then(PageNo::new).ok_or_else(|| Corrupt::new("page numbers that do not ascend"))?;
    if page.get() > page_count || page == PageNo::LOCK_PAGE {
        return Err(Corrupt::new(format!("page {page} in a commit that leaves {page_count} pages")));
    }
    Ok(page)
}

fn decode_content(body: &Bytes, reader: &mut Reader<'_>, lsn: Lsn) -> Result<Content, Corrupt> {
    match reader.u8()? {
        KIND_WHOLE => Ok(Content::Whole(Page::copy_of(&reader.array::<PAGE_BYTES>()?))),
        KIND_ZERO => Ok(Content::Whole(Page::zeroed())),
        KIND_PATCH => {
            let age = varint::take(reader)?;
            let base_lsn = lsn.get().checked_sub(age).filter(|_| age > 0).and_then(Lsn::new);
            let base_lsn = base_lsn.ok_or_else(|| Corrupt::new(format!("a patch on {age} commits ago")))?;
            let (base_crc, result_crc) = (reader.u32()?, reader.u32()?);
            Ok(Content::Patch { base_lsn, base_crc, result_crc, runs: patch::decode(body, reader)? })
        }
        kind => Err(Corrupt::new(format!("unknown kind of page {kind}"))),
    }
}

impl CheckedCommit {
    pub fn lsn(&self) -> Lsn {
        self.0.lsn
    }

    /// The history after this commit.
    pub fn tip(&self) -> Tip {
        let UncheckedCommit { lsn, time_micros, page_count, pages_total, chain, .. } = self.0;
        Tip { lsn: Some(lsn), time_micros, page_count, pages_total, chain }
    }

    /// The page versions that [`apply`](Self::apply) will ask for, so that they can be fetched before.
    pub fn bases(&self) -> impl Iterator<Item = (PageNo, Lsn)> {
        self.0.pages.iter().filter_map(|(page, content)| match content {
            Content::Whole(_) => None,
            Content::Patch { base_lsn, .. } => Some((*page, *base_lsn)),
        })
    }

    /// Makes all pages whole. `base` gives a page as the commit of that LSN left it, which is also how it was
    /// just before this commit.
    pub fn apply<E>(self, mut base: impl FnMut(PageNo, Lsn) -> Result<Page, E>) -> Result<Commit, ApplyError<E>> {
        let UncheckedCommit { lsn, time_micros, page_count, pages_total, .. } = self.0;
        let mut pages = Vec::with_capacity(self.0.pages.len());
        for (number, content) in self.0.pages {
            let page = match content {
                Content::Whole(page) => page,
                Content::Patch { base_lsn, base_crc, result_crc, runs } => {
                    let base = base(number, base_lsn).map_err(ApplyError::Base)?;
                    let name = |what| format!("commit {lsn}, page {number}: {what}");
                    check_crc(&base, base_crc, || name(format!("its base of commit {base_lsn}")))?;
                    let page = patch::apply(&base, &runs);
                    check_crc(&page, result_crc, || name("the patched page".into()))?;
                    page
                }
            };
            pages.push((number, page));
        }
        Ok(Commit { lsn, time_micros, page_count, pages_total, pages })
    }
}

fn check_crc(page: &Page, expected: u32, name: impl Fn() -> String) -> Result<(), Corrupt> {
    match page.crc32c() {
        found if found == expected => Ok(()),
        found => Err(Corrupt::new(format!("{} has checksum {found:08x}, not {expected:08x}", name()))),
    }
}
