//! What changes in an index: with folds, with forks, and with time.

use std::collections::BTreeMap;

use bytes::Bytes;
use walstore::id::Lsn;

use super::{Entry, HistoryChunk, HistoryChunkRef, Run};
use crate::base::BaseRef;
use crate::id::MapChunkId;
use crate::limits;
use crate::page::PAGE_BYTES;

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryIndex {
    /// The commit after which it starts; none before the first.
    pub(super) start: Option<Lsn>,
    /// Oldest first, each from the end of the one before.
    pub(super) chunks: Vec<HistoryChunkRef>,
    /// The newest entries.
    pub(super) entries: Vec<Entry>,
    pub(super) pinned: BTreeMap<Lsn, BaseRef>,
    /// Of the runs after the last base: their weight, and the pages that their folds have changed.
    pub(super) since_base_bytes: u64,
    pub(super) since_base_pages: u64,
}

impl HistoryIndex {
    /// The commit up to which it leads.
    pub fn end(&self) -> Option<Lsn> {
        let in_chunks = || self.chunks.last().map_or(self.start, |chunk| Some(chunk.end));
        self.entries.last().map_or_else(in_chunks, |entry| Some(entry.end()))
    }

    /// The commit after which it starts; none before the first.
    pub fn start_of_kept(&self) -> Option<Lsn> {
        self.start
    }

    /// Whether it has neither runs nor bases, but maybe pinned ones.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.entries.is_empty()
    }

    /// Forgets all history: there is none to be kept. Pinned bases stay.
    pub fn clear(&mut self) {
        *self = Self { pinned: std::mem::take(&mut self.pinned), ..Self::default() };
    }

    /// Makes it lead to `folded`. One that does not, since nothing was kept for a while, begins anew there.
    pub fn begin_at(&mut self, folded: Option<Lsn>) {
        if self.end() != folded {
            self.begin_anew(folded);
        }
    }

    /// Makes it lead to `folded` and no further back.
    pub fn begin_anew(&mut self, folded: Option<Lsn>) {
        self.clear();
        self.start = folded;
    }

    /// Whether the point that it leads to should become a base: there is none to start from yet, or too much has to be
    /// replayed since the last, with the next run. `page_count` is the size of the database, `next_pages` how many pages the
    /// fold of the next run changes.
    pub fn wants_base(&self, page_count: u32, next_pages: u64) -> bool {
        if self.end().is_none() || matches!(self.entries.last(), Some(Entry::Base { .. })) {
            return false;
        }
        let has_base = self.entries.iter().any(|entry| entry.base().is_some())
            || self.chunks.iter().any(|chunk| chunk.last_base.is_some());
        let quarter = u64::from(page_count) * PAGE_BYTES as u64 / 4;
        let is_far = self.since_base_bytes > quarter.max(limits::HISTORY_BASE_BYTES_MIN);
        let pages = self.since_base_pages;
        let is_large = pages > 0 && pages.saturating_add(next_pages) > limits::HISTORY_BASE_PAGES_MAX;
        is_far || is_large || (self.start.is_some() && !has_base)
    }

    /// A stored base of `lsn`, if this index refers to one in the head.
    pub fn base_at(&self, lsn: Lsn) -> Option<BaseRef> {
        let in_entries = self.entries.iter().filter_map(Entry::base).find(|(at, _)| *at == lsn);
        in_entries.map(|(_, base)| base).or_else(|| self.pinned.get(&lsn).copied())
    }

    /// Adds a base of the point that it leads to.
    ///
    /// # Panics
    /// If `lsn` is another point.
    pub fn add_base(&mut self, lsn: Lsn, base: BaseRef) {
        assert_eq!(self.end(), Some(lsn), "BUG: a base beside its history");
        if !matches!(self.entries.last(), Some(Entry::Base { .. })) {
            self.entries.push(Entry::Base { lsn, base });
            (self.since_base_bytes, self.since_base_pages) = (0, 0);
        }
    }

    /// Adds the commits of a fold, which has changed so many pages.
    ///
    /// # Panics
    /// If they are not the next ones.
    pub fn add_run(&mut self, run: Run, pages: u64) {
        assert_eq!(run.first, Lsn::after(self.end()), "BUG: a gap in a history");
        assert!(run.last >= run.first, "BUG: a run without commits");
        self.since_base_bytes += u64::from(run.section.bytes);
        self.since_base_pages += pages;
        self.entries.push(Entry::Run(run));
    }

    /// Keeps a base for forks. `false`: forks begin at too many points already.
    #[must_use]
    pub fn pin(&mut self, lsn: Lsn, base: BaseRef) -> bool {
        let has_room = self.pinned.len() < limits::PINNED_BASES_MAX || self.pinned.contains_key(&lsn);
        if has_room {
            self.pinned.entry(lsn).or_insert(base);
        }
        has_room
    }

    /// Lets go of pinned bases at which no fork begins any more.
    pub fn retain_pinned(&mut self, is_pinned: impl Fn(Lsn) -> bool) {
        self.pinned.retain(|lsn, _| is_pinned(*lsn));
    }

    pub fn pinned(&self) -> impl ExactSizeIterator<Item = (Lsn, BaseRef)> {
        self.pinned.iter().map(|(lsn, base)| (*lsn, *base))
    }

    /// The bases in the head, pinned ones included.
    pub fn bases(&self) -> impl Iterator<Item = (Lsn, BaseRef)> {
        self.entries.iter().filter_map(Entry::base).chain(self.pinned())
    }

    /// The newest entries, which stand in the head.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Where the older ones are, oldest first.
    pub fn chunks(&self) -> &[HistoryChunkRef] {
        &self.chunks
    }

    /// Whether so many entries stand in the head that the older ones should go to a chunk.
    pub fn spill_is_due(&self) -> bool {
        self.entries.len() > limits::HISTORY_ENTRIES_TARGET
    }

    /// The chunk that a spill adds to: to be read before.
    pub fn chunk_to_extend(&self) -> Option<&HistoryChunkRef> {
        let spilled = self.spilled().len();
        self.chunks.last().filter(|last| last.entry_count as usize + spilled <= limits::HISTORY_CHUNK_ENTRIES_MAX)
    }

    fn spilled(&self) -> &[Entry] {
        &self.entries[..self.entries.len().saturating_sub(limits::HISTORY_ENTRIES_KEPT)]
    }

    /// Moves older entries to a chunk, to be stored under the key of `id`. `extended` is the chunk that
    /// [`chunk_to_extend`](Self::chunk_to_extend) names, which the new one replaces.
    pub fn spill(&mut self, extended: Option<HistoryChunk>, id: MapChunkId) -> Bytes {
        let before = self.chunks.len() - usize::from(extended.is_some());
        let spilled = self.spilled().to_vec();
        let start = self.chunks.last().map_or(self.start, |chunk| Some(chunk.end));
        let mut chunk = extended.unwrap_or(HistoryChunk { start, entries: Vec::new() });
        chunk.entries.extend(&spilled);
        let (reference, object) = chunk.seal(id);
        self.entries.drain(..spilled.len());
        self.chunks.truncate(before);
        self.chunks.push(reference);
        object
    }

    /// The horizon that keeps the index within its bounds, whatever was promised.
    pub fn horizon_forced(&self) -> Option<Lsn> {
        let is_full = self.chunks.len() >= limits::HISTORY_CHUNKS_MAX - 1;
        is_full.then(|| self.chunks[limits::HISTORY_CHUNKS_MAX / 4].end)
    }

    /// The newest commit at the end of a run up to which everything is at least as old as `micros`.
    pub fn horizon_at(&self, micros: u64) -> Option<Lsn> {
        let in_entries = self.entries.iter().filter_map(Entry::run).rfind(|run| run.last_micros <= micros);
        let in_chunks = || self.chunks.iter().rfind(|chunk| chunk.last_micros <= micros);
        in_entries.map(|run| run.last).or_else(|| in_chunks().map(|chunk| chunk.end))
    }

    /// Forgets what no state from `horizon` on needs: all before the newest base at or before it. A chunk stays whole as
    /// long as that base may be in it.
    pub fn trim(&mut self, horizon: Lsn) {
        let is_start = |entry: &Entry| entry.base().is_some_and(|(lsn, _)| lsn <= horizon);
        if let Some(at) = self.entries.iter().rposition(is_start) {
            self.start = Some(self.entries[at].end());
            self.chunks.clear();
            self.entries.drain(..at);
        } else if let Some(at) = self.chunks.iter().rposition(|chunk| chunk.last_base.is_some_and(|lsn| lsn <= horizon)) {
            self.start = self.chunks[at].start;
            self.chunks.drain(..at);
        }
    }
}
