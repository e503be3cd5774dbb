//! Moments of the past, by commit and by time: which there are, and which are refused, as the model has it.

use pageserver::fork::ForkFailure;
use pageserver::history::{self, Located, Mark, Moment, PastError, Window};
use tenant::head::{Head, HeadState};
use tenant::lifecycle::ForkRefused;
use walstore::id::Lsn;

use crate::forest::{Forest, Known};

impl Known {
    /// A commit and its time.
    fn mark(&self, lsn: Option<Lsn>) -> Mark {
        let lsn = Lsn::raw(lsn);
        Mark { lsn, time_micros: self.states[&lsn].0 }
    }
}

impl Forest {
    /// The commit whose state a database had at a time.
    pub async fn locate(&self, at: usize, micros: u64) -> Result<Located, PastError> {
        let store = self.store();
        let head = self.head(at).await.value;
        // Times of commits rise, whatever the clocks do.
        let now_micros = self.seam.wall_micros().max(head.folded.time_micros);
        history::locate(&self.fetcher(&store), &head, Moment::Time(micros), now_micros).await
    }

    /// What can be gone back to. It holds all that the retention promises.
    pub async fn window(&self, at: usize) -> Window {
        let Head { settings, horizon, folded, .. } = self.head(at).await.value;
        let known = &self.all[at];
        if settings.retention_secs > 0 {
            let since = self.seam.wall_micros() - u64::from(settings.retention_secs) * 1_000_000;
            let promised = known.at_time(since).max(known.begins);
            let oldest = Lsn::raw(horizon);
            assert!(oldest <= promised, "R19: database {at} shows what was since {oldest}, and promises {promised}");
        }
        Window { oldest: known.mark(horizon), newest: known.mark(folded.lsn) }
    }

    /// The commit that a time means, found as an owner does: what may be as old is folded before it is looked up.
    /// `None`: it is refused. Both as the model has it.
    pub async fn commit_at(&mut self, at: usize, micros: u64) -> Option<u64> {
        let head = self.head(at).await.value;
        if !head.state.is_final() && micros >= head.folded.time_micros {
            self.fold(at).await;
        }
        let window = self.window(at).await;
        let found = self.locate(at, micros).await;
        let expected = self.all[at].at_time(micros);
        match found {
            Ok(Located::At(lsn)) if lsn == expected && lsn >= window.oldest.lsn && lsn < window.newest.lsn => Some(lsn),
            Ok(Located::AfterFolded) if expected == window.newest.lsn => Some(expected),
            Err(PastError::TooOld(told)) if told == window && expected < window.oldest.lsn => None,
            Err(PastError::Future(told)) if told == window && micros > self.seam.wall_micros() => None,
            found => panic!("R19: database {at} was at commit {expected} of {window} at {micros}; it is {found:?}"),
        }
    }

    /// A fork of a commit beyond the window is refused, with what the window is.
    pub async fn assert_refused(&mut self, at: usize, lsn: u64) {
        let Window { oldest, newest } = self.window(at).await;
        let name = format!("beyond-{}-{lsn}", self.all.len());
        let found = self.try_fork(self.store(), at, lsn, &name).await;
        let expected = ForkRefused::Outside { asked: lsn, oldest: oldest.lsn, newest: newest.lsn };
        match found {
            Err(ForkFailure::Refused(refused)) if refused == expected => {}
            found => panic!("R19: a fork of database {at} at {lsn} is {found:?}, where it had to be refused: {expected}"),
        }
    }

    /// A fork of a database of which nothing is kept any more is refused.
    pub async fn assert_gone(&mut self, at: usize) {
        let name = format!("gone-{}", self.all.len());
        let found = self.try_fork(self.store(), at, self.all[at].last(), &name).await;
        match found {
            Err(ForkFailure::Refused(ForkRefused::Gone { database })) if database == self.all[at].id => {}
            found => panic!("R19: a fork of database {at}, which is gone, is {found:?}"),
        }
    }

    /// Whether a database that has ended is there still. It is for as long as its retention promises.
    pub async fn is_kept(&self, at: usize) -> bool {
        let head = self.head(at).await.value;
        let ended = self.all[at].ended_micros.expect("one that has ended");
        let retention_micros = u64::from(head.settings.retention_secs) * 1_000_000;
        let kept_micros = match head.state {
            HeadState::Moved { .. } => retention_micros.max(pageserver::limits::MOVED_KEPT_MICROS),
            _ => retention_micros,
        };
        let is_gone = head.is_emptied() && head.folded.lsn.is_some();
        let is_promised = self.seam.wall_micros() < ended + kept_micros;
        assert!(!is_gone || !is_promised, "R19: database {at} is gone, which ended at {ended}");
        !is_gone
    }
}
