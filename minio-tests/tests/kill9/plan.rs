//! When a round's process is killed, and what becomes of its cache directory.

use std::collections::BTreeSet;
use std::time::Duration;

use minio_tests::clock;
use minio_tests::dice::Dice;
use minio_tests::log::ProcessLog;

/// How long traffic runs before a kill at a random moment, in milliseconds.
const MOMENTS: std::ops::Range<u64> = 100..900;
/// How long a kill waits for a fold to begin before it strikes anyway.
const FOLD_WITHIN: Duration = Duration::from_secs(5);

/// What the server logs, at level debug, when a fold begins and when it has ended. The name follows.
const FOLD_BEGINS: &str = "folding database=";
const FOLD_ENDS: &str = "folded database=";

pub struct Plan {
    moment: Duration,
    awaits_fold: bool,
    pub deletes_cache: bool,
}

impl Plan {
    /// Every third kill waits for a fold, every second one deletes the cache; six rounds have all pairs.
    pub fn of(round: u64, mut dice: Dice) -> Self {
        let moment = Duration::from_millis(dice.between(MOMENTS));
        Self { moment, awaits_fold: round.is_multiple_of(3), deletes_cache: round.is_multiple_of(2) }
    }

    /// Returns when it is time to kill.
    pub fn wait(&self, log: &ProcessLog) {
        clock::sleep(self.moment);
        if self.awaits_fold {
            // Whether one was hit is counted afterwards: it may just have ended.
            let _ = log.wait_for(log.len(), FOLD_WITHIN, |line| line.contains(FOLD_BEGINS));
        }
    }
}

/// The databases whose fold had begun and not ended when the log broke off.
pub fn folds_under_way(log: &[String]) -> BTreeSet<String> {
    let database = |line: &str, mark: &str| {
        let (_, rest) = line.split_once(mark)?;
        rest.split_whitespace().next().map(str::to_owned)
    };
    let mut under_way = BTreeSet::new();
    for line in log {
        if let Some(begun) = database(line, FOLD_BEGINS) {
            under_way.insert(begun);
        } else if let Some(ended) = database(line, FOLD_ENDS) {
            under_way.remove(&ended);
        }
    }
    under_way
}

#[test]
fn a_fold_is_under_way_from_its_first_line_to_its_last() {
    let log = |lines: &[&str]| folds_under_way(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>());
    let (begin, end) = ("DEBUG compute::fold: folding database=a lsn=7", "DEBUG compute::fold: folded database=a");
    assert_eq!(log(&[begin]), ["a".to_owned()].into());
    assert_eq!(log(&[begin, end]), BTreeSet::new());
    assert_eq!(log(&[begin, end, "folding database=b", begin]).len(), 2);
}

#[test]
fn six_rounds_have_every_pair_of_choices() {
    let plans: BTreeSet<_> =
        (0..6).map(|round| Plan::of(round, Dice::new(1))).map(|plan| (plan.awaits_fold, plan.deletes_cache)).collect();
    assert_eq!(plans.len(), 4);
}
