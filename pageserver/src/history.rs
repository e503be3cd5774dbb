//! Going back: from a moment of a database to its state then.
//!
//! ```text
//!   Moment ──locate──▶ LSN ──materialise──▶ Tail: newest base at or before it, and the commits of runs up to it
//! ```
//!
//! Every commit is checked against the chain of hashes as it is replayed, so what comes out is exactly the state that
//! commit left, or an error that names the damaged object. Only what is folded can be gone back to here: whoever wants a
//! later moment has the tail folded first, or replays it on top himself.

use std::fmt;

use futures_util::future::BoxFuture;
use segments::history::{AtTime, HistoryChunk, HistoryChunkRef, HistoryIndex, Path, Run, Start};
use segments::keys;
use segments::pack::history::History;
use tenant::head::Head;
use walstore::envelope::Corrupt;
use walstore::id::{DatabaseId, Lsn};
use walstore::register::RecordError;

use crate::base::{base_of, parts, stored_base};
use crate::fetcher::Fetcher;
use crate::limits;
use crate::tail::Tail;

/// Memory for the pages that a state has beyond its base.
pub trait Room: Sync {
    /// Whether so many pages in all may be held from now on.
    fn take(&self, pages: usize) -> bool;
}

/// As much as it takes.
pub struct Unbounded;

impl Room for Unbounded {
    fn take(&self, _pages: usize) -> bool {
        true
    }
}

/// A point in the life of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// After this commit; 0 is before the first.
    Lsn(u64),
    /// After the newest commit that was not later, in microseconds since the Unix epoch.
    Time(u64),
}

/// A commit and when it was made. LSN 0 is before the first, and has no time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    pub lsn: u64,
    pub time_micros: u64,
}

/// Which moments a database can be restored to, as far as it is folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub oldest: Mark,
    pub newest: Mark,
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { oldest, newest } = self;
        write!(f, "commits {} to {}, ", oldest.lsn, newest.lsn)?;
        write!(f, "{} to {} microseconds since 1970", oldest.time_micros, newest.time_micros)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PastError {
    /// Before the horizon.
    #[error("that moment is not kept any more; what can be restored is {0}")]
    TooOld(Window),
    /// Nobody knows what will be then.
    #[error("that moment is still to come; what can be restored is {0}")]
    Future(Window),
    /// Behind the folded point: fold, or replay the tail.
    #[error("that moment is not folded yet; what can be restored is {0}")]
    NotFolded(Window),
    /// The caller has [no room](Room) for so many pages.
    #[error("the state differs from its base by {0} pages and more, for which there is no memory at the moment")]
    NoRoom(usize),
    /// The store fails, or an object is damaged, which is named.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl From<Corrupt> for PastError {
    fn from(corrupt: Corrupt) -> Self {
        Self::Record(corrupt.into())
    }
}

/// What [`locate`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Located {
    /// The state after this commit; 0 is before the first.
    At(u64),
    /// All that is folded was made before: it is the folded point, or a commit of the tail.
    AfterFolded,
}

/// The index of a head's history.
pub fn index_of(head: &Head) -> Result<HistoryIndex, Corrupt> {
    HistoryIndex::decode(&head.history).map_err(|corrupt| corrupt.at(tenant::keys::head(head.database)))
}

/// What can be restored of a database, as far as it is folded.
pub async fn window(fetcher: &Fetcher, head: &Head) -> Result<Window, RecordError> {
    let newest = Mark { lsn: Lsn::raw(head.folded.lsn), time_micros: head.folded.time_micros };
    let Some(horizon) = head.horizon else { return Ok(Window { oldest: Mark::default(), newest }) };
    if head.horizon == head.folded.lsn {
        return Ok(Window { oldest: newest, newest });
    }
    let index = index_of(head)?;
    let at_end_of_run = index.entries().iter().find_map(|entry| match entry {
        segments::history::Entry::Run(run) if run.last == horizon => Some(run.last_micros),
        _ => None,
    });
    let at_end_of_chunk = || index.chunks().iter().find(|chunk| chunk.end == horizon).map(|chunk| chunk.last_micros);
    let time_micros = match at_end_of_run.or_else(at_end_of_chunk) {
        Some(time_micros) => time_micros,
        // The state itself tells.
        None => match state(fetcher, head, &index, horizon, &Unbounded).await {
            Ok(state) => state.tip.time_micros,
            Err(PastError::Record(error)) => return Err(error),
            Err(other) => unreachable!("BUG: a commit of the window is not there: {other}"),
        },
    };
    Ok(Window { oldest: Mark { lsn: horizon.get(), time_micros }, newest })
}

/// The commit whose state a database had at some moment. `now_micros`: a time after it is still to come.
pub async fn locate(
    fetcher: &Fetcher,
    head: &Head,
    moment: Moment,
    now_micros: u64,
) -> Result<Located, PastError> {
    let (oldest, newest) = (Lsn::raw(head.horizon), Lsn::raw(head.folded.lsn));
    match moment {
        Moment::Lsn(lsn) if lsn < oldest => Err(PastError::TooOld(window(fetcher, head).await?)),
        Moment::Lsn(lsn) if lsn > newest => Err(PastError::NotFolded(window(fetcher, head).await?)),
        Moment::Lsn(lsn) => Ok(Located::At(lsn)),
        Moment::Time(micros) if micros > now_micros => Err(PastError::Future(window(fetcher, head).await?)),
        Moment::Time(micros) if micros >= head.folded.time_micros => Ok(Located::AfterFolded),
        Moment::Time(micros) => {
            let window = window(fetcher, head).await?;
            if micros < window.oldest.time_micros || oldest == newest {
                return Err(PastError::TooOld(window));
            }
            let lsn = newest_until(fetcher, head, micros).await?;
            if lsn < oldest { Err(PastError::TooOld(window)) } else { Ok(Located::At(lsn)) }
        }
    }
}

/// The newest commit with a time up to `micros`, which lies before the last folded one.
async fn newest_until(fetcher: &Fetcher, head: &Head, micros: u64) -> Result<u64, RecordError> {
    let index = index_of(head)?;
    let run = match index.at_time(micros) {
        AtTime::AtEnd => return Ok(Lsn::raw(index.end())),
        AtTime::Run(run) => *run,
        AtTime::In(reference) => {
            let chunk = read_chunk(fetcher, head.database, reference).await?;
            *chunk.at_time(micros).expect("BUG: a chunk was checked against its reference")
        }
    };
    let mut lsn = run.first.get() - 1;
    for commit in &read_run(fetcher, &run).await?.commits {
        let at = |corrupt: Corrupt| corrupt.at(keys::pack(&run.pack));
        if segments::commit::UncheckedCommit::decode(commit).map_err(at)?.time_micros() > micros {
            break;
        }
        lsn += 1;
    }
    Ok(lsn)
}

/// The state after commit `lsn` of the database, which is folded and not before the horizon. LSN 0 is the empty database.
/// The pages that commits after the base have changed are in memory, as far as there is room.
pub fn materialise<'a>(
    fetcher: &'a Fetcher,
    head: &'a Head,
    lsn: u64,
    room: &'a dyn Room,
) -> BoxFuture<'a, Result<Tail, PastError>> {
    Box::pin(state_after(fetcher, head, lsn, room))
}

async fn state_after(fetcher: &Fetcher, head: &Head, lsn: u64, room: &dyn Room) -> Result<Tail, PastError> {
    if lsn > Lsn::raw(head.folded.lsn) {
        return Err(PastError::NotFolded(window(fetcher, head).await?));
    }
    if lsn < Lsn::raw(head.horizon) {
        return Err(PastError::TooOld(window(fetcher, head).await?));
    }
    let Some(lsn) = Lsn::new(lsn) else { return Ok(empty(head.database)) };
    if head.folded.lsn == Some(lsn) {
        return Ok(Tail::of_base(head.database, base_of(fetcher, head).await?));
    }
    state(fetcher, head, &index_of(head)?, lsn, room).await
}

/// The path to a commit of the window.
pub async fn path_to(
    fetcher: &Fetcher,
    head: &Head,
    index: &HistoryIndex,
    lsn: Lsn,
) -> Result<Path, RecordError> {
    let mut chunks = Vec::new();
    for reference in index.chunks_towards(lsn) {
        chunks.push(read_chunk(fetcher, head.database, reference).await?);
    }
    let missing = || {
        let reason = format!("its history has no way to commit {lsn}, though its horizon is {:?}", head.horizon);
        Corrupt::new(reason).at(tenant::keys::head(head.database))
    };
    Ok(index.path(lsn, &chunks).ok_or_else(missing)?)
}

async fn state(
    fetcher: &Fetcher,
    head: &Head,
    index: &HistoryIndex,
    lsn: Lsn,
    room: &dyn Room,
) -> Result<Tail, PastError> {
    let Path { start, runs } = path_to(fetcher, head, index, lsn).await?;
    let mut tail = match start {
        Start::Empty => empty(head.database),
        Start::Stored { lsn, base } => {
            let stored = stored_base(fetcher, head.database, &base).await?;
            if stored.tip.lsn != Some(lsn) {
                let reason = format!("a base as of {:?}, where the history wants {lsn}", stored.tip.lsn);
                return Err(Corrupt::new(reason).at(keys::page_map(&base.id)).into());
            }
            Tail::of_base(head.database, parts(&stored, &base)?)
        }
    };
    for run in &runs {
        replay(fetcher, &mut tail, run, lsn, room).await?;
    }
    if tail.tip.lsn != Some(lsn) {
        let reason = format!("its history ends at {:?} on the way to {lsn}", tail.tip.lsn);
        return Err(Corrupt::new(reason).at(tenant::keys::head(head.database)).into());
    }
    Ok(tail)
}

fn empty(database: DatabaseId) -> Tail {
    let (tip, map) = (segments::tip::Tip::before_first(database), segments::map::PageMap::empty());
    Tail::of_base(database, segments::base::BaseParts { tip, map, image: None })
}

/// Replays what a run has after the tail's commit, up to `upto`.
async fn replay(
    fetcher: &Fetcher,
    tail: &mut Tail,
    run: &Run,
    upto: Lsn,
    room: &dyn Room,
) -> Result<(), PastError> {
    // The section, and then one commit of it with its pages.
    let bytes = run.section.bytes as usize;
    let _room = if bytes > limits::KEPT_WITH_PAGES_BYTES_MAX { Some(fetcher.room(2 * bytes).await) } else { None };
    let history = read_run(fetcher, run).await?;
    for (lsn, commit) in (run.first.get()..).zip(&history.commits) {
        if lsn > Lsn::raw(tail.tip.lsn) && lsn <= upto.get() {
            tail.replay_bytes(fetcher, commit, keys::pack(&run.pack).as_str()).await?;
            let pages = tail.input.pages.len();
            if !room.take(pages) {
                return Err(PastError::NoRoom(pages));
            }
        }
    }
    Ok(())
}

/// The commits of a run.
pub async fn read_run(fetcher: &Fetcher, run: &Run) -> Result<History, RecordError> {
    let section = fetcher.section(&run.pack, &run.section).await?;
    let checked = History::decode(&section).and_then(|history| {
        let count = run.last.get() - run.first.get() + 1;
        if history.first == run.first && history.commits.len() as u64 == count {
            return Ok(history);
        }
        Err(Corrupt::new(format!("not the commits {} to {} that are referred to", run.first, run.last)))
    });
    Ok(checked.map_err(|corrupt| corrupt.at(keys::pack(&run.pack)))?)
}

/// A chunk of the index.
pub async fn read_chunk(
    fetcher: &Fetcher,
    of: DatabaseId,
    reference: &HistoryChunkRef,
) -> Result<HistoryChunk, RecordError> {
    let object = fetcher.object(of, reference.id, reference.bytes, reference.crc).await?;
    let opened = HistoryChunk::open(&object, reference);
    Ok(opened.map_err(|corrupt| corrupt.at(keys::page_map(&reference.id)))?)
}
