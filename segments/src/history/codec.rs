//! History index ↔ bytes. They stand in the head, whose checksum covers them; an index of nothing is no bytes at all.
//!
//! | bytes | what (`v` = variable-length integer) |
//! |---|---|
//! | 1 | version, 2; 1 is read, too, and lacks the number of pages |
//! | v | LSN after which it starts, 0 for the first commit |
//! | v | weight of the runs after the last base, in bytes |
//! | v | pages that their folds have changed |
//! | v | number of chunks, then each (module `chunk`) |
//! | v | number of entries, then each: |
//! | 1 + 44 | 1: a base of the point that the entries before lead to: its [`BaseRef`] |
//! | 1 + … | 2: a run: pack (36), offset, length and CRC-32C of the section (4 each), v number of commits, v microseconds from the end of the run before in the same list, or else since the Unix epoch, to its last commit |
//! | v | number of pinned bases, then each, in ascending order: |
//! | v, 44 | LSN − that of the one before (at first 0), its [`BaseRef`] |

use std::collections::BTreeMap;

use bytes::Bytes;
use walstore::envelope::{Corrupt, Reader, Writer};
use walstore::id::Lsn;
use walstore::limits::COUNTER_MAX;

use super::{Entry, HistoryChunkRef, HistoryIndex, Run};
use crate::base::BaseRef;
use crate::id::PackId;
use crate::limits;
use crate::pack::Section;
use crate::varint;

const VERSION: u8 = 2;
/// It counted no pages.
const VERSION_WITHOUT_PAGES: u8 = 1;
const BASE: u8 = 1;
const RUN: u8 = 2;
const ENTRY_BYTES_MIN: usize = 1 + BaseRef::ENCODED_BYTES;

impl HistoryIndex {
    /// For the head.
    pub fn encode(&self) -> Bytes {
        if *self == Self::default() {
            return Bytes::new();
        }
        let mut out = Writer::new();
        out.u8(VERSION);
        varint::put(&mut out, Lsn::raw(self.start));
        varint::put(&mut out, self.since_base_bytes);
        varint::put(&mut out, self.since_base_pages);
        varint::put_len(&mut out, self.chunks.len());
        let mut end = self.start;
        for chunk in &self.chunks {
            chunk.encode(end, &mut out);
            end = Some(chunk.end);
        }
        encode_entries(end, &self.entries, &mut out);
        varint::put_len(&mut out, self.pinned.len());
        let mut last = 0;
        for (lsn, base) in &self.pinned {
            varint::put(&mut out, lsn.get() - last);
            base.encode(&mut out);
            last = lsn.get();
        }
        out.finish().into()
    }

    /// Reads what a head holds.
    pub fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION && version != VERSION_WITHOUT_PAGES {
            return Err(Corrupt::new(format!("history index version {version}; this build reads {VERSION}")));
        }
        let start = Lsn::new(bounded(varint::take(&mut reader)?)?);
        let since_base_bytes = varint::take(&mut reader)?;
        let since_base_pages = if version == VERSION { varint::take(&mut reader)? } else { 0 };
        let chunks = decode_chunks(&mut reader, start)?;
        let end = chunks.last().map_or(start, |chunk| Some(chunk.end));
        let entries = decode_entries(&mut reader, end, limits::HISTORY_ENTRIES_MAX)?;
        let pinned = decode_pinned(&mut reader)?;
        reader.end()?;
        let index = Self { start, chunks, entries, pinned, since_base_bytes, since_base_pages };
        let chunk_times = index.chunks.iter().map(|chunk| chunk.last_micros);
        let times: Vec<u64> = chunk_times.chain(index.entries.iter().find_map(Entry::run).map(|run| run.last_micros)).collect();
        if !times.is_sorted_by(|earlier, later| earlier < later) {
            return Err(Corrupt::new("a history index whose times go back"));
        }
        Ok(index)
    }
}

fn decode_chunks(reader: &mut Reader<'_>, start: Option<Lsn>) -> Result<Vec<HistoryChunkRef>, Corrupt> {
    let count = varint::take_count(reader, HistoryChunkRef::ENCODED_BYTES_MIN)?;
    if count > limits::HISTORY_CHUNKS_MAX {
        return Err(Corrupt::new(format!("a history index with {count} chunks")));
    }
    let (mut chunks, mut end) = (Vec::with_capacity(count), start);
    for _ in 0..count {
        let chunk = HistoryChunkRef::decode(reader, end)?;
        end = Some(chunk.end);
        chunks.push(chunk);
    }
    Ok(chunks)
}

fn decode_pinned(reader: &mut Reader<'_>) -> Result<BTreeMap<Lsn, BaseRef>, Corrupt> {
    let count = varint::take_count(reader, ENTRY_BYTES_MIN)?;
    if count > limits::PINNED_BASES_MAX {
        return Err(Corrupt::new(format!("a history index with {count} pinned bases")));
    }
    let (mut pinned, mut last) = (BTreeMap::new(), None);
    for _ in 0..count {
        let lsn = advance(last, varint::take(reader)?)?;
        pinned.insert(lsn, BaseRef::decode(reader)?);
        last = Some(lsn);
    }
    Ok(pinned)
}

fn bounded(counter: u64) -> Result<u64, Corrupt> {
    match counter <= COUNTER_MAX {
        true => Ok(counter),
        false => Err(Corrupt::new(format!("LSN or time {counter} is further than any history gets"))),
    }
}

/// The commit that is `commits` after `end`, at least one.
pub(super) fn advance(end: Option<Lsn>, commits: u64) -> Result<Lsn, Corrupt> {
    let lsn = bounded(Lsn::raw(end).saturating_add(commits))?;
    Lsn::new(lsn).filter(|_| commits > 0).ok_or_else(|| Corrupt::new("an entry of a history without commits"))
}

/// Entries that go on from `start`, with their number.
pub(super) fn encode_entries(start: Option<Lsn>, entries: &[Entry], out: &mut Writer) {
    varint::put_len(out, entries.len());
    let (mut end, mut micros) = (start, 0);
    for entry in entries {
        match entry {
            Entry::Base { lsn, base } => {
                assert_eq!(Some(*lsn), end, "BUG: a base beside its history");
                out.u8(BASE);
                base.encode(out);
            }
            Entry::Run(run) => {
                assert_eq!(run.first, Lsn::after(end), "BUG: a gap in a history");
                out.u8(RUN);
                run.pack.encode(out);
                for field in [run.section.offset, run.section.bytes, run.section.crc] {
                    out.u32(field);
                }
                varint::put(out, run.last.get() - Lsn::raw(end));
                varint::put(out, run.last_micros - micros);
                (end, micros) = (Some(run.last), run.last_micros);
            }
        }
    }
}

pub(super) fn decode_entries(
    reader: &mut Reader<'_>,
    start: Option<Lsn>,
    count_max: usize,
) -> Result<Vec<Entry>, Corrupt> {
    let count = varint::take_count(reader, ENTRY_BYTES_MIN)?;
    if count > count_max {
        return Err(Corrupt::new(format!("{count} entries of a history in one place")));
    }
    let (mut entries, mut end, mut micros) = (Vec::with_capacity(count), start, 0);
    for _ in 0..count {
        let entry = match reader.u8()? {
            BASE => {
                let is_repeated = matches!(entries.last(), Some(Entry::Base { .. }));
                let lsn = end.filter(|_| !is_repeated);
                let lsn = lsn.ok_or_else(|| Corrupt::new("a base where a history cannot have one"))?;
                Entry::Base { lsn, base: BaseRef::decode(reader)? }
            }
            RUN => {
                let run = decode_run(reader, end, micros)?;
                (end, micros) = (Some(run.last), run.last_micros);
                Entry::Run(run)
            }
            kind => return Err(Corrupt::new(format!("unknown kind {kind} of an entry of a history"))),
        };
        entries.push(entry);
    }
    Ok(entries)
}

fn decode_run(reader: &mut Reader<'_>, end: Option<Lsn>, micros: u64) -> Result<Run, Corrupt> {
    let pack = PackId::decode(reader)?;
    let section = Section { offset: reader.u32()?, bytes: reader.u32()?, crc: reader.u32()? };
    let last = advance(end, varint::take(reader)?)?;
    let later = varint::take(reader)?;
    let last_micros = bounded(micros.saturating_add(later))?;
    if later == 0 {
        return Err(Corrupt::new("a run of commits that takes no time"));
    }
    Ok(Run { pack, section, first: Lsn::after(end), last, last_micros })
}
