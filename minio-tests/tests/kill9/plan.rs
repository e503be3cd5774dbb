//! When a round's process is killed, and what becomes of its cache directory.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use minio_tests::clock;
use minio_tests::dice::Dice;
use minio_tests::log::ProcessLog;

/// How long traffic runs before a kill at a random moment, in milliseconds.
const MOMENTS: Range<u64> = 100..900;
/// How long a kill waits for a fold to begin before it strikes anyway.
const FOLD_WITHIN: Duration = Duration::from_secs(10);

/// What the server logs, at level debug, when a fold begins and when it has ended. The name follows.
const FOLD_BEGINS: &str = "folding database=";
const FOLD_ENDS: &str = "folded database=";

pub struct Plan {
    moment: Duration,
    awaits_fold: bool,
    pub deletes_cache: bool,
}

impl Plan {
    /// A kill waits for a fold when less than half of the kills so far have hit one. A third has to, but a
    /// fold may end in the moment of the kill. Two rounds of four delete the cache.
    pub fn of(round: u64, kills_in_a_fold: u64, mut dice: Dice) -> Self {
        let moment = Duration::from_millis(dice.between(MOMENTS));
        let deletes_cache = matches!(round % 4, 1 | 2);
        Self { moment, awaits_fold: kills_in_a_fold * 2 <= round, deletes_cache }
    }

    /// Returns when it is time to kill.
    pub fn wait(&self, log: &ProcessLog) {
        clock::sleep(self.moment);
        if self.awaits_fold {
            // Whether one was hit is counted afterwards, from the whole log.
            let _ = log.wait_for(log.len(), FOLD_WITHIN, |line| line.contains(FOLD_BEGINS));
        }
    }
}

/// Whether these are enough kills during a fold.
pub fn is_a_third(kills_in_a_fold: u64, kills: u64) -> bool {
    kills_in_a_fold >= kills / 3
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
    let (begin, end) =
        ("DEBUG core::folding: folding database=a lsn=7", "DEBUG core::folding: folded database=a lsn=7");
    assert_eq!(log(&[begin]), ["a".to_owned()].into());
    assert_eq!(log(&[begin, end]), BTreeSet::new());
    assert_eq!(log(&[begin, end, "folding database=b", begin]).len(), 2);
}

#[test]
fn ten_rounds_have_every_pair_of_choices_and_delete_half_of_the_caches() {
    let plan = |round: u64| Plan::of(round, round.div_ceil(2), Dice::new(1));
    let pairs: BTreeSet<_> = (0..10).map(plan).map(|plan| (plan.awaits_fold, plan.deletes_cache)).collect();
    assert_eq!(pairs.len(), 4);
    assert_eq!((0..10).filter(|round| plan(*round).deletes_cache).count(), 5);
    assert!(!is_a_third(2, 10) && is_a_third(3, 10));
}
