//! A list that only grows, and a check that its history is linearizable.
//!
//! With unique elements that are only appended, a history is linearizable if and only if
//! - every read is a prefix of the final list;
//! - an append that was acknowledged before another operation began comes before it: it is in every later read,
//!   and in front of every later append;
//! - reads that follow each other do not shrink;
//! - what was refused is never seen, and what was acknowledged is in the final list, once.
//!
//! An append whose outcome is unknown may come at any time after it began, or never.

use std::collections::BTreeMap;

use serde_json::json;

use crate::client::{Client, LIST, Outcome, rows};
use crate::cluster::Answer;
use crate::oracle::Examiner;

#[derive(Clone, Debug)]
pub struct Append {
    pub value: String,
    pub began: u64,
    pub ended: u64,
    pub outcome: Outcome,
    /// What the appending transaction itself read before: how long the list was.
    pub position: Option<usize>,
}

#[derive(Clone, Debug)]
pub struct Read {
    pub began: u64,
    pub ended: u64,
    pub values: Vec<String>,
    /// Of a replica: how old what it showed may have been, in the story's time.
    pub staleness: Option<u64>,
    /// How much its client had seen already, and asked for.
    pub at_least: usize,
}

#[derive(Default)]
pub struct List {
    pub appends: Vec<Append>,
    pub reads: Vec<Read>,
    /// A clock stood still, so that a lease could seem to last longer than it did: a read may be stale (and
    /// nothing else may be wrong).
    pub may_be_stale: bool,
}

impl Client {
    pub async fn prepare_list(&mut self) {
        self.insist(LIST, "CREATE TABLE IF NOT EXISTS list(value TEXT NOT NULL)").await;
    }

    pub async fn append(&mut self) {
        let value = self.next_id();
        let began = self.story.now();
        let at = {
            let mut list = self.story.list.borrow_mut();
            let outcome = Outcome::Unknown;
            list.appends.push(Append { value: value.clone(), began, ended: u64::MAX, outcome, position: None });
            list.appends.len() - 1
        };
        let insert = format!("INSERT INTO list VALUES ('{value}')");
        let mut position = None;
        let outcome = match self.rng.below(4) {
            0 => self.in_one_batch(LIST, &[insert], true).await,
            1 => self.in_one_batch(LIST, &[insert], false).await,
            2 => {
                let statements = ["SELECT count(*) FROM list".to_owned(), insert];
                let see = |number, rows: Vec<Vec<String>>| {
                    if number == 0 {
                        position = rows.first().and_then(|row| row[0].parse().ok());
                    }
                };
                self.interactively(LIST, "BEGIN", &statements, see).await
            }
            _ => self.alone(LIST, &insert).await,
        };
        self.note(format!("append {value}: {outcome:?} {position:?}"));
        let ended = self.story.now();
        let append = &mut self.story.list.borrow_mut().appends[at];
        (append.outcome, append.position) = (outcome, position);
        if outcome != Outcome::Unknown {
            append.ended = ended;
        }
    }

    pub async fn read_list(&mut self) {
        let (lsn, at_least) = if self.rng.clone().is_one_in(2) { self.seen } else { (0, 0) };
        let began = self.story.now();
        let requests = json!([{"type": "execute", "stmt": {"sql": "SELECT value FROM list ORDER BY rowid"}}]);
        let Answer::Done(body) = self.ask_at_least(LIST, &requests, lsn).await else { return };
        let ended = self.story.now();
        let Some(rows) = rows(&body, 0) else { return };
        let values: Vec<String> = rows.into_iter().map(|mut row| row.remove(0)).collect();
        let staleness = body["staleness_millis"].as_u64().map(|millis| millis * 1_000_000);
        let shown = body["lsn"].as_u64().unwrap_or_default();
        self.note(format!("read {} elements at LSN {shown}, of a replica: {staleness:?}", values.len()));
        self.seen = self.seen.max((shown, values.len()));
        self.story.list.borrow_mut().reads.push(Read { began, ended, values, staleness, at_least });
    }
}

impl List {
    pub async fn examine(&self, examiner: &Examiner<'_>) -> Result<(), String> {
        let mut list = Vec::new();
        if examiner.has_table(LIST, "list").await? {
            list = examiner.rows(LIST, "SELECT value FROM list ORDER BY rowid").await?.concat();
        }
        self.check(&list)
    }

    /// Whether the history, with `list` as its last read, is linearizable.
    pub fn check(&self, list: &[String]) -> Result<(), String> {
        let places: BTreeMap<&str, usize> = list.iter().enumerate().map(|(at, value)| (value.as_str(), at)).collect();
        if places.len() != list.len() {
            return Err(format!("I12: an element is there twice: {list:?}"));
        }
        let appends: BTreeMap<&str, &Append> = self.appends.iter().map(|it| (it.value.as_str(), it)).collect();
        for (place, value) in list.iter().enumerate() {
            let append = appends.get(value.as_str()).ok_or_else(|| format!("I12: {value} was never sent"))?;
            if append.outcome == Outcome::Refused {
                return Err(format!("I11: {value} is there, but its client was told that nothing was done"));
            }
            let is_known = append.outcome == Outcome::Acknowledged;
            if is_known && append.position.is_some_and(|position| position != place) {
                return Err(format!("I9: {value} read {:?} elements and is at {place}", append.position));
            }
        }
        let acknowledged: Vec<&Append> = self.appends.iter().filter(|it| it.outcome == Outcome::Acknowledged).collect();
        for append in &acknowledged {
            let Some(place) = places.get(append.value.as_str()) else {
                return Err(format!("I1: {} was acknowledged and is gone", append.value));
            };
            for other in acknowledged.iter().filter(|other| append.ended < other.began) {
                if places.get(other.value.as_str()).is_some_and(|later| later < place) {
                    return Err(format!("I2: {} came after {}, which began later", append.value, other.value));
                }
            }
        }
        self.check_reads(list, &acknowledged)
    }

    fn check_reads(&self, list: &[String], acknowledged: &[&Append]) -> Result<(), String> {
        for read in &self.reads {
            if let Some(value) = read.values.iter().find(|value| !list.contains(value)) {
                return Err(format!("I5: a read showed {value}, which is not in the history"));
            }
            if !list.starts_with(&read.values) {
                return Err(format!("I2: a read showed another order: {:?} of {list:?}", read.values));
            }
            if read.values.len() < read.at_least {
                return Err(format!("I4: a read showed {} elements to who had seen {}", read.values.len(), read.at_least));
            }
            if self.may_be_stale {
                continue;
            }
            // By what is acknowledged before this a read is bound.
            let as_of = read.began.saturating_sub(read.staleness.unwrap_or(0));
            let missing = acknowledged.iter().find(|it| it.ended < as_of && !read.values.contains(&it.value));
            if let Some(missing) = missing {
                return Err(format!("I4: a read did not show {}, which had been acknowledged before", missing.value));
            }
            // A replica that reads the bucket may show a commit a moment before its owner knows that it is durable.
            let mut owners = self.reads.iter().filter(|it| it.staleness.is_none());
            let longer = owners.find(|it| it.ended < as_of && it.values.len() > read.values.len());
            if longer.is_some() {
                return Err("I4: a read showed less than one that had ended before".into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(value: &str, began: u64, ended: u64, outcome: Outcome) -> Append {
        Append { value: value.into(), began, ended, outcome, position: None }
    }

    fn read(began: u64, ended: u64, values: &str) -> Read {
        Read { began, ended, values: letters(values), staleness: None, at_least: 0 }
    }

    fn replica(read: Read, staleness: u64) -> Read {
        Read { staleness: Some(staleness), ..read }
    }

    fn letters(text: &str) -> Vec<String> {
        text.chars().map(String::from).collect()
    }

    fn check(appends: Vec<Append>, reads: Vec<Read>, list: &str) -> Result<(), String> {
        List { appends, reads, may_be_stale: false }.check(&letters(list))
    }

    #[test]
    fn the_check_knows_good_histories_from_bad_ones() {
        use Outcome::{Acknowledged, Refused, Unknown};
        let two = || vec![append("a", 0, 10, Acknowledged), append("b", 20, 30, Acknowledged)];
        assert_eq!(check(two(), vec![read(12, 14, "a"), read(22, 24, "ab")], "ab"), Ok(()));
        assert_eq!(check(two(), vec![replica(read(12, 14, ""), 5)], "ab"), Ok(()));
        assert_eq!(check(two(), vec![read(22, 24, "ab"), replica(read(25, 26, "a"), 3)], "ab"), Ok(()));
        let overlapping = || vec![append("a", 0, 10, Acknowledged), append("b", 5, 15, Acknowledged)];
        assert_eq!(check(overlapping(), vec![], "ba"), Ok(()));
        let with_unknown = || vec![append("a", 0, u64::MAX, Unknown), append("b", 20, 30, Acknowledged)];
        assert_eq!(check(with_unknown(), vec![], "ba"), Ok(()));
        assert_eq!(check(with_unknown(), vec![], "b"), Ok(()));
        let bad = [
            ("I1", check(two(), vec![], "a")),
            ("I2", check(two(), vec![], "ba")),
            ("I2", check(overlapping(), vec![read(6, 7, "b")], "ab")),
            ("I4", check(two(), vec![read(12, 14, "")], "ab")),
            ("I4", check(two(), vec![read(22, 24, "ab"), read(25, 26, "a")], "ab")),
            ("I4", check(two(), vec![replica(read(14, 15, ""), 3)], "ab")),
            ("I4", check(two(), vec![Read { at_least: 2, ..replica(read(32, 33, "a"), 30) }], "ab")),
            ("I5", check(with_unknown(), vec![read(1, 2, "a")], "b")),
            ("I11", check(vec![append("a", 0, 10, Refused)], vec![], "a")),
            ("I12", check(two(), vec![], "aba")),
            ("I12", check(vec![], vec![], "x")),
        ];
        for (invariant, verdict) in bad {
            let broken = verdict.expect_err(invariant);
            assert!(broken.starts_with(&format!("{invariant}:")), "{invariant} expected: {broken}");
        }
    }
}
