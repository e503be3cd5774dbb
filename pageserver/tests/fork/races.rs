//! Between any two requests of a fork somebody else acts. It comes to be and lasts, or it is refused and nothing of it
//! stays.

use std::time::Duration;

use crate::forest::{Forest, RETENTION_SECS};
use crate::slow::Slow;

const ROOT: usize = 0;
const PAGES: u32 = 70;

/// What comes between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// The retention passes: a fold raises the horizon, and the owner collects what lies before it.
    Horizon,
    /// The owner writes everything anew, and collects.
    Commits,
    /// The owner is taken for dead. Others have the database, tidy up, and write everything anew.
    Takeover,
    /// The database was deleted, and its retention passes.
    Sweep,
}

const ALL: [Between; 4] = [Between::Horizon, Between::Commits, Between::Takeover, Between::Sweep];

/// What became of forks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcomes {
    pub made: u64,
    pub failed: u64,
}

/// Too large for a head, with six commits, and bases of the second and of the fourth.
async fn grown() -> Forest {
    let mut forest = Forest::new();
    assert_eq!(forest.create(RETENTION_SECS).await, ROOT);
    forest.commit(ROOT, &[1], PAGES).await;
    for first in 2..=3 {
        forest.commit(ROOT, &[first], PAGES).await;
        // A fork of the present leaves a base, which stays in the history when the fork is gone.
        let fork = forest.fork_now(ROOT, 0).await;
        forest.delete(fork).await;
        forest.commit(ROOT, &[first, 40], PAGES).await;
    }
    forest.commit(ROOT, &[4], PAGES).await;
    forest.fold(ROOT).await;
    forest.tidy(ROOT, forest.store()).await.expect("a store that works");
    assert!(!forest.head(ROOT).await.value.is_pinned());
    forest
}

async fn time_passes() {
    tokio::time::advance(Duration::from_secs(u64::from(RETENTION_SECS) + 1)).await;
}

impl Forest {
    /// Nothing of what was stays in the database, nor in its history.
    async fn write_anew(&mut self) {
        for _ in 0..2 {
            time_passes().await;
            self.commit(ROOT, &(1..=PAGES).collect::<Vec<_>>(), PAGES).await;
            self.fold(ROOT).await;
        }
    }
}

impl Between {
    async fn act(self, forest: &mut Forest) {
        match self {
            Self::Horizon => {
                time_passes().await;
                forest.fold(ROOT).await;
                forest.collect(ROOT).await;
            }
            Self::Commits => {
                forest.write_anew().await;
                forest.collect(ROOT).await;
            }
            Self::Takeover => {
                forest.bury().await;
                forest.sweep().await;
                forest.write_anew().await;
                forest.release(ROOT).await;
                forest.sweep().await;
            }
            Self::Sweep => {
                time_passes().await;
                forest.sweep().await;
            }
        }
    }

    /// A fork of the state after `lsn` that stops before its request `at`: whether it has stopped, and was made.
    async fn comes_before(self, lsn: u64, at: u64) -> (bool, bool) {
        let mut forest = grown().await;
        if self == Self::Sweep {
            forest.delete(ROOT).await;
        }
        let slow = Slow::begin(&forest, ROOT, lsn, at).await;
        let has_stopped = slow.has_stopped();
        if has_stopped {
            self.act(&mut forest).await;
        }
        let fork = slow.go_on(&mut forest).await;
        crate::check_bucket(&forest).await;
        if !forest.all[ROOT].is_over() {
            forest.check(ROOT).await;
            forest.write_anew().await;
            forest.release(ROOT).await;
        }
        time_passes().await;
        forest.sweep().await;
        if let Some(fork) = fork {
            forest.check(fork).await;
        }
        forest.assert_nothing_leaks().await;
        (has_stopped, fork.is_some())
    }

    /// At every request of forks of a stored base, of what is replayed on it, and of the newest state.
    pub async fn comes_anywhere(self) -> Outcomes {
        let mut outcomes = Outcomes::default();
        for lsn in [2, 3, 6] {
            for at in 0.. {
                let (has_stopped, was_made) = self.comes_before(lsn, at).await;
                if was_made { outcomes.made += 1 } else { outcomes.failed += 1 }
                if !has_stopped {
                    assert!(at >= 3, "{at} requests are too few to be all");
                    break;
                }
            }
        }
        outcomes
    }
}

#[tokio::test(start_paused = true)]
async fn a_fork_lasts_or_is_refused_whoever_acts_between_its_requests() {
    for between in ALL {
        let Outcomes { made, failed } = between.comes_anywhere().await;
        println!("forks: {between:?} before every request: {made} came to be, {failed} did not");
        assert!(made > 0 && failed > 0, "{between:?} comes too late, or too early: {made}, {failed}");
    }
}
