//! From a moment to the objects that its state is made of.

use walstore::id::Lsn;

use super::{Entry, HistoryChunk, HistoryChunkRef, HistoryIndex, Run};
use crate::base::BaseRef;

/// The state that commits are replayed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Before the first commit.
    Empty,
    Stored { lsn: Lsn, base: BaseRef },
}

/// What the state after one commit is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    pub start: Start,
    /// The commits after it, up to the one asked for and maybe beyond.
    pub runs: Vec<Run>,
}

/// Where the newest commit at or before some time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtTime<'a> {
    /// In this chunk: read it, and ask [`HistoryChunk::at_time`].
    In(&'a HistoryChunkRef),
    /// In this run, or the commit before it.
    Run(&'a Run),
    /// All commits of the index are that old.
    AtEnd,
}

impl HistoryIndex {
    /// The chunks that must be read to find the [`path`](Self::path) to `lsn`, in their order.
    pub fn chunks_towards(&self, lsn: Lsn) -> &[HistoryChunkRef] {
        let is_near = self.bases().any(|(base, _)| base <= lsn && self.is_among_entries(base));
        let to = self.chunks.iter().position(|chunk| chunk.end >= lsn).map_or(self.chunks.len(), |at| at + 1);
        if is_near {
            return &[];
        }
        let from = self.chunks.iter().rposition(|chunk| chunk.last_base.is_some_and(|base| base <= lsn));
        &self.chunks[from.unwrap_or(0).min(to)..to]
    }

    /// Whether all commits after `lsn` stand in the head.
    fn is_among_entries(&self, lsn: Lsn) -> bool {
        self.chunks.last().map_or(self.start, |chunk| Some(chunk.end)) <= Some(lsn)
    }

    /// How to make the state after `lsn`, with [the chunks](Self::chunks_towards) that it takes. `None`: this history does
    /// not have it.
    pub fn path(&self, lsn: Lsn, chunks: &[HistoryChunk]) -> Option<Path> {
        let in_chunks = chunks.iter().flat_map(|chunk| &chunk.entries);
        let entries: Vec<&Entry> = in_chunks.chain(&self.entries).collect();
        // What was not read counts as not there.
        let from = chunks.first().map_or_else(|| self.chunks.last().map_or(self.start, |chunk| Some(chunk.end)), |it| it.start);
        let bases = entries.iter().filter_map(|entry| entry.base()).chain(self.pinned());
        let nearest = bases.filter(|(at, _)| *at <= lsn && Some(*at) >= from).max_by_key(|(at, _)| *at);
        let (start, after) = match nearest {
            Some((at, base)) => (Start::Stored { lsn: at, base }, Some(at)),
            None if from.is_none() => (Start::Empty, None),
            None => return None,
        };
        let runs = entries.iter().filter_map(|entry| entry.run());
        let runs: Vec<Run> = runs.filter(|run| Some(run.last) > after && run.first <= lsn).copied().collect();
        let (mut end, mut dense) = (after, true);
        for run in &runs {
            // A pinned base may lie within a run.
            dense &= run.first <= Lsn::after(end);
            end = Some(run.last);
        }
        (dense && end >= Some(lsn)).then_some(Path { start, runs })
    }

    /// Where the newest commit with a time up to `micros` is.
    pub fn at_time(&self, micros: u64) -> AtTime<'_> {
        if let Some(chunk) = self.chunks.iter().find(|chunk| chunk.last_micros > micros) {
            return AtTime::In(chunk);
        }
        self.entries.iter().filter_map(Entry::run).find(|run| run.last_micros > micros).map_or(AtTime::AtEnd, AtTime::Run)
    }
}

impl HistoryChunk {
    /// The run that has the newest commit with a time up to `micros`, or begins right after it; `None` if all commits here
    /// are that old.
    pub fn at_time(&self, micros: u64) -> Option<&Run> {
        self.entries.iter().filter_map(Entry::run).find(|run| run.last_micros > micros)
    }
}
