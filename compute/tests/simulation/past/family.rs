//! What is known of a family of databases: for each of them, which transaction made which commit.
//!
//! A database has one line of history. A fork or a restore begins another one, which shares the commits up to some LSN
//! with the line that it was made from. The first commit of a family creates its tables, and each later one adds one
//! row with a value that nothing else has, and overwrites one of a few cells. So there is exactly one state for each
//! LSN, and what was acknowledged, and what has been shown once, says which. A family that begins with a file has that
//! file's rows before all others, in its first commit.

use std::collections::{BTreeMap, BTreeSet};

use super::ends::Ends;
use crate::client::Outcome;

/// Rows that are overwritten again and again.
pub const CELLS: u64 = 6;

/// The commit that creates the tables.
const FIRST: u64 = 1;

/// One line of history, and all that is known of it.
#[derive(Clone, Debug, Default)]
pub struct Line {
    pub name: String,
    /// The id of its database.
    pub id: Option<String>,
    /// Which line it was made from, and after which commit.
    pub from: Option<(usize, u64)>,
    /// What a restore in place has replaced with it: the line, its last commit, and the bookmark of that.
    pub undo: Option<(usize, u64, String)>,
    /// What a restore in place has put into its place, or brought it back.
    pub replaced_by: Option<usize>,
    /// When it ends.
    pub ends: Ends,
    /// When that was changed, in microseconds since the Unix epoch.
    pub end_set_micros: u64,
    /// The newest commit that is known to be there.
    pub newest: u64,
    /// The rows of the file that it began with, as they are shown.
    brought: Option<File>,
    /// Which value each of its own commits added.
    commits: BTreeMap<u64, String>,
    /// When they were made, in microseconds.
    times: BTreeMap<u64, u64>,
}

/// A file, as a database shows it.
#[derive(Clone, Debug)]
struct File {
    rows: Vec<Brought>,
    /// The commit that brought the last of it.
    lsn: u64,
}

/// A row of a file: its value, the cell that it wrote to, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brought {
    pub value: String,
    pub cell: u64,
    pub wrote: String,
}

/// A transaction that a client has sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub name: String,
    pub cell: u64,
    pub bytes: u64,
    pub outcome: Outcome,
    /// The line and the LSN that it got.
    place: Option<(usize, u64)>,
}

impl Sent {
    pub fn new(name: &str, cell: u64, bytes: u64) -> Self {
        Self { name: name.into(), cell, bytes, outcome: Outcome::Unknown, place: None }
    }
}

/// A state as it was shown, at the LSN that came with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub lsn: u64,
    /// Row number, value, and the end and length of what it wrote to its cell.
    pub log: Vec<[String; 3]>,
    /// Number, value, and the end and length of what it holds.
    pub cells: Vec<[String; 3]>,
}

#[derive(Default)]
pub struct Family {
    pub lines: Vec<Line>,
    sent: BTreeMap<String, Sent>,
}

impl Family {
    /// A line that begins a family, with the commit that creates the tables.
    pub fn found(&mut self, name: &str) -> usize {
        self.add(Line { name: name.into(), newest: FIRST, ..Line::default() })
    }

    /// A line that begins a family with a file.
    pub fn bring(&mut self, name: &str, rows: Vec<Brought>, lsn: u64) -> usize {
        self.add(Line { name: name.into(), newest: lsn, brought: Some(File { rows, lsn }), ..Line::default() })
    }

    /// The commit that made the tables of a line, and the rows that came with them.
    fn first(&self, mut line: usize) -> (u64, &[Brought]) {
        while let Some((from, _)) = self.lines[line].from {
            line = from;
        }
        self.lines[line].brought.as_ref().map_or((FIRST, &[]), |file| (file.lsn, &file.rows))
    }

    /// What a line was forked from, past restores in place.
    pub fn parent(&self, line: usize) -> Option<usize> {
        let mut parent = self.lines[line].from?.0;
        while self.lines[parent].name == self.lines[line].name {
            parent = self.lines[parent].from?.0;
        }
        Some(parent)
    }

    /// What has the place of a line after restores in place, or after it was brought back.
    pub fn successor(&self, mut line: usize) -> usize {
        while let Some(next) = self.lines[line].replaced_by {
            line = next;
        }
        line
    }

    /// Whether a line was made, by whatever steps, from one of the same name, or from what had its place.
    pub fn goes_back_to(&self, mut line: usize, former: usize) -> bool {
        let last = self.successor(former);
        while let Some((from, _)) = self.lines[line].from.filter(|(from, _)| self.lines[*from].name == self.lines[line].name) {
            if from == former || from == last {
                return true;
            }
            line = from;
        }
        false
    }

    /// What had the name of a line before it, one after the other, as far as restores in place are known.
    pub fn predecessors(&self, line: usize) -> Vec<usize> {
        let before = |line: &usize| self.lines.iter().position(|it| it.replaced_by == Some(*line));
        std::iter::successors(before(&line), before).collect()
    }

    /// A line that begins with the state of another one.
    pub fn branch(&mut self, name: &str, from: usize, lsn: u64) -> usize {
        self.add(Line { name: name.into(), from: Some((from, lsn)), newest: lsn, ..Line::default() })
    }

    fn add(&mut self, line: Line) -> usize {
        self.lines.push(line);
        self.lines.len() - 1
    }

    /// The LSN that a line begins with. Before a file there is nothing.
    pub fn begin(&self, line: usize) -> u64 {
        let Line { from, brought, .. } = &self.lines[line];
        from.map_or(brought.as_ref().map_or(0, |file| file.lsn), |(_, lsn)| lsn)
    }

    /// The line that made a commit.
    fn maker(&self, mut line: usize, lsn: u64) -> usize {
        while let Some((from, at)) = self.lines[line].from
            && lsn <= at
        {
            line = from;
        }
        line
    }

    pub fn send(&mut self, value: &str, sent: Sent) {
        self.sent.insert(value.into(), sent);
    }

    /// What its client was told of a transaction other than that it was carried out.
    pub fn learn_outcome(&mut self, value: &str, outcome: Outcome) {
        self.sent.get_mut(value).expect("it was sent").outcome = outcome;
    }

    /// A transaction of `line` was carried out.
    pub fn acknowledge(&mut self, line: usize, lsn: u64, value: &str) -> Result<(), String> {
        self.learn_outcome(value, Outcome::Acknowledged);
        if lsn <= self.begin(line) {
            return Err(format!("I2: {value} got LSN {lsn} of {}, which begins later", self.lines[line].name));
        }
        if self.sent[value].place.is_some_and(|place| place != (line, lsn)) {
            return Err(format!("I2: {value} is said to be commit {lsn}, and was shown as {:?}", self.sent[value].place));
        }
        self.place(line, lsn, value)
    }

    fn place(&mut self, line: usize, lsn: u64, value: &str) -> Result<(), String> {
        let made = &mut self.lines[line];
        if let Some(other) = made.commits.get(&lsn).filter(|other| *other != value) {
            return Err(format!("I2: commit {lsn} of {} is both {other} and {value}", made.name));
        }
        made.commits.insert(lsn, value.into());
        made.newest = made.newest.max(lsn);
        self.sent.get_mut(value).expect("it was sent").place = Some((line, lsn));
        Ok(())
    }

    /// When a commit was made.
    pub fn time(&self, line: usize, lsn: u64) -> Option<u64> {
        self.lines[self.maker(line, lsn)].times.get(&lsn).copied()
    }

    /// A commit's time never changes.
    pub fn learn_time(&mut self, line: usize, lsn: u64, micros: u64) -> Result<(), String> {
        let maker = self.maker(line, lsn);
        let known = *self.lines[maker].times.entry(lsn).or_insert(micros);
        if known == micros {
            return Ok(());
        }
        Err(format!("I9: commit {lsn} of {} was made at {known}, and at {micros}", self.lines[line].name))
    }

    /// Whether `line` can have looked like that after this commit; what nobody knew of it is known then.
    pub fn check(&mut self, line: usize, seen: &Seen) -> Result<(), String> {
        let found = self.check_log(line, seen)?;
        self.check_cells(line, seen)?;
        for (line, lsn, value) in found {
            self.place(line, lsn, &value)?;
        }
        let newest = &mut self.lines[line].newest;
        *newest = seen.lsn.max(*newest);
        Ok(())
    }

    /// Exactly one row for each commit but the first, in their order. Answers which commits were not known.
    fn check_log(&self, line: usize, seen: &Seen) -> Result<Vec<(usize, u64, String)>, String> {
        let (name, lsn, (first, brought)) = (&self.lines[line].name, seen.lsn, self.first(line));
        let expected = if lsn < first { 0 } else { brought.len() as u64 + lsn - first };
        if seen.log.len() as u64 != expected {
            return Err(format!("I9: {name} shows {} rows after commit {lsn}, not {expected}", seen.log.len()));
        }
        let (of_file, added) = seen.log.split_at(brought.len().min(seen.log.len()));
        for (number, ([row, value, wrote], expected)) in (1..).zip(of_file.iter().zip(brought)) {
            if *row != u64::to_string(&number) || *value != expected.value || *wrote != expected.wrote {
                return Err(format!("I9: {name} shows {value} ({wrote}) as row {row}, instead of {expected:?} of its file"));
            }
        }
        let (mut new, mut values) = (Vec::new(), BTreeSet::new());
        for (lsn, [row, value, _]) in (first + 1..).zip(added) {
            let maker = self.maker(line, lsn);
            let sent = self.sent.get(value).ok_or_else(|| format!("I12: {name} shows {value}, which was never sent"))?;
            if *row != (lsn - first + brought.len() as u64).to_string() || !values.insert(value) {
                return Err(format!("I9: {name} shows {value} as row {row}, at commit {lsn}"));
            }
            match self.lines[maker].commits.get(&lsn) {
                Some(known) if known == value => {}
                Some(known) => return Err(format!("I9: {name} shows {value} as commit {lsn}, which is {known}")),
                None if sent.name != self.lines[maker].name => {
                    return Err(format!("I2: {name} shows {value}, which was sent to {}", sent.name));
                }
                None if sent.outcome != Outcome::Unknown => {
                    return Err(format!("I11: {name} shows {value} as commit {lsn}: {:?}, {:?}", sent.outcome, sent.place));
                }
                None if sent.place.is_some() => {
                    return Err(format!("I2: {name} shows {value} as commit {lsn} of {maker}, but it is {:?}", sent.place));
                }
                None => new.push((maker, lsn, value.clone())),
            }
        }
        Ok(new)
    }

    /// Each cell holds what the last of these commits that changed it wrote.
    fn check_cells(&self, line: usize, seen: &Seen) -> Result<(), String> {
        let (first, brought) = self.first(line);
        if seen.lsn < first {
            return Ok(());
        }
        let mut cells: BTreeMap<u64, [String; 3]> =
            (0..CELLS).map(|cell| (cell, [cell.to_string(), String::new(), String::new()])).collect();
        for Brought { value, cell, wrote } in brought {
            cells.insert(*cell, [cell.to_string(), value.clone(), wrote.clone()]);
        }
        for [_, value, wrote] in &seen.log[brought.len()..] {
            let Sent { cell, bytes, .. } = self.sent[value];
            if !wrote.ends_with(&format!("/{bytes}")) {
                return Err(format!("I9: {value} wrote {bytes} bytes, not {wrote}"));
            }
            cells.insert(cell, [cell.to_string(), value.clone(), wrote.clone()]);
        }
        let expected: Vec<[String; 3]> = cells.into_values().collect();
        match seen.cells == expected {
            true => Ok(()),
            false => Err(format!(
                "I9: {} shows cells of another state after commit {}: {:?} instead of {expected:?}",
                self.lines[line].name, seen.lsn, seen.cells
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state after these values, each of which went to the first cell.
    fn seen(values: &[&str]) -> Seen {
        let wrote = |value: &str| format!("{value}/8");
        let log = (1..).zip(values).map(|(row, value): (u64, _)| [row.to_string(), (*value).into(), wrote(value)]);
        let last = values.last().map_or([String::new(), String::new()], |value| [(*value).into(), wrote(value)]);
        let cell = |number: u64| match number {
            0 => ["0".to_owned(), last[0].clone(), last[1].clone()],
            number => [number.to_string(), String::new(), String::new()],
        };
        Seen { lsn: values.len() as u64 + FIRST, log: log.collect(), cells: (0..CELLS).map(cell).collect() }
    }

    fn send(family: &mut Family, name: &str, value: &str) {
        family.send(value, Sent::new(name, 0, 8));
    }

    /// `app` with a, b and c, of which b's outcome is unknown, and `fork` of it after b, with d.
    fn family() -> Family {
        let mut family = Family::default();
        let app = family.found("app");
        ["a", "b", "c"].into_iter().for_each(|value| send(&mut family, "app", value));
        family.acknowledge(app, 2, "a").unwrap();
        family.acknowledge(app, 4, "c").unwrap();
        let fork = family.branch("fork", app, 3);
        send(&mut family, "fork", "d");
        family.acknowledge(fork, 4, "d").unwrap();
        family
    }

    #[test]
    fn states_that_were_are_known_from_those_that_never_were() {
        for (line, values) in [(0, "a"), (0, "ab"), (0, "abc"), (1, "a"), (1, "ab"), (1, "abd")] {
            let values: Vec<&str> = values.split("").filter(|value| !value.is_empty()).collect();
            assert_eq!(family().check(line, &seen(&values)), Ok(()), "{line} {values:?}");
        }
        let mut other_cell = seen(&["a", "b"]);
        other_cell.cells = seen(&["a"]).cells;
        let mut fewer = seen(&["a", "b", "c"]);
        fewer.lsn = 3;
        let mut refused = family();
        refused.learn_outcome("b", Outcome::Refused);
        let bad = [
            ("I9", family().check(0, &seen(&["b"]))),
            ("I9", family().check(0, &seen(&["a", "b", "d"]))),
            ("I9", family().check(1, &seen(&["a", "b", "c"]))),
            ("I11", family().check(0, &seen(&["a", "c"]))),
            ("I12", family().check(0, &seen(&["a", "x"]))),
            ("I9", family().check(0, &other_cell)),
            ("I9", family().check(0, &fewer)),
            ("I11", refused.check(0, &seen(&["a", "b"]))),
        ];
        for (invariant, verdict) in bad {
            let broken = verdict.expect_err(invariant);
            assert!(broken.starts_with(&format!("{invariant}:")), "{invariant} expected: {broken}");
        }
    }

    #[test]
    fn the_rows_of_a_file_come_first_and_all_of_them() {
        let mut family = Family::default();
        let row = |value: &str| Brought { value: value.into(), cell: 0, wrote: format!("{value}/8") };
        let line = family.bring("app", vec![row("x"), row("y")], 1);
        send(&mut family, "app", "a");
        let shown = |values: &[&str], lsn| Seen { lsn, ..seen(values) };
        assert_eq!(family.check(line, &shown(&["x", "y"], 1)), Ok(()));
        assert_eq!(family.check(line, &shown(&["x", "y", "a"], 2)), Ok(()));
        for (values, lsn) in [(&["x"][..], 1), (&["x", "a"], 1), (&["x", "y"], 2), (&["y", "x", "a"], 2), (&["x", "y", "b"], 2)] {
            assert!(family.check(line, &shown(values, lsn)).is_err(), "{values:?}");
        }
        assert_eq!((family.begin(line), family.parent(line)), (FIRST, None));
    }

    #[test]
    fn a_parent_is_found_past_restores_in_place() {
        let mut family = family();
        let again = family.branch("fork", 1, 3);
        let once_more = family.branch("fork", again, 3);
        let app = family.branch("app", 0, 2);
        family.lines[0].replaced_by = Some(app);
        assert_eq!([0, 1, again, once_more, app].map(|line| family.parent(line)), [None, Some(0), Some(0), Some(0), None]);
        assert_eq!((family.successor(0), family.predecessors(app), family.predecessors(1)), (app, vec![0], vec![]));
    }

    #[test]
    fn what_was_shown_once_is_known() {
        let mut family = family();
        send(&mut family, "app", "e");
        family.check(1, &seen(&["a", "b", "d"])).unwrap();
        family.check(0, &seen(&["a", "b"])).unwrap();
        assert!(family.check(0, &seen(&["a", "e"])).unwrap_err().starts_with("I9"));
        assert!(family.acknowledge(0, 5, "b").unwrap_err().starts_with("I2"));
    }
}
