//! One client, and the databases that it has made: what each shows, now and then.

use std::collections::BTreeMap;

use minio_tests::clock;
use minio_tests::dice::Dice;
use minio_tests::hrana::Failure;
use minio_tests::limits::RECOVERY;
use minio_tests::shoal::{Addresses, ShoalProcess};
use minio_tests::value::Value;
use serde_json::{Value as Json, json};

/// Of one family: beyond that, no forks are made.
const DATABASES_MAX: usize = 24;
/// Moments that are looked at in each database after a kill.
const LOOKS: u64 = 2;

const CREATE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY)";
const SELECT: &str = "SELECT id FROM t ORDER BY id";

/// A database, as its client knows it.
#[derive(Clone, Debug)]
struct State {
    /// Its rows, in the order of their commits.
    rows: Vec<i64>,
    /// The oldest LSN that it can show: what was before is the past of another database.
    from: u64,
    /// What the last restore in place has replaced.
    replaced: Option<Vec<i64>>,
    is_deleted: bool,
}

impl State {
    fn last(&self) -> u64 {
        self.rows.len() as u64 + 1
    }

    /// The state of another database after `lsn`.
    fn forked(&self, lsn: u64) -> Self {
        let rows = self.rows[..lsn as usize - 1].to_vec();
        Self { rows, from: lsn, replaced: None, is_deleted: false }
    }

    /// Its rows, if there is such a database.
    fn shows(&self) -> Option<Vec<i64>> {
        (!self.is_deleted).then(|| self.rows.clone())
    }

    fn restored(&self, lsn: u64) -> Self {
        Self { replaced: Some(self.rows.clone()), ..self.forked(lsn) }
    }
}

/// What was asked for and not answered: afterwards the database is in this state, or in that of before.
struct Unanswered {
    name: String,
    after: State,
}

/// What was done, and answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub commits: u64,
    pub forks: u64,
    pub restores: u64,
    pub undos: u64,
    pub deletions: u64,
    pub looks: u64,
    /// Answers that a kill has cut off, and of what these asked for, what was done.
    pub unanswered: u64,
    pub of_them_done: u64,
}

impl Counts {
    pub fn and(self, other: Self) -> Self {
        Self {
            commits: self.commits + other.commits,
            forks: self.forks + other.forks,
            restores: self.restores + other.restores,
            undos: self.undos + other.undos,
            deletions: self.deletions + other.deletions,
            looks: self.looks + other.looks,
            unanswered: self.unanswered + other.unanswered,
            of_them_done: self.of_them_done + other.of_them_done,
        }
    }
}

pub struct Family {
    number: u64,
    dice: Dice,
    databases: BTreeMap<String, State>,
    unanswered: Option<Unanswered>,
    /// No row is inserted twice, and no name is used twice.
    next: i64,
    pub counts: Counts,
}

impl Family {
    pub fn begin(process: &ShoalProcess, number: u64, dice: Dice) -> Self {
        let name = format!("family-{number}");
        process.create_database(&name);
        process.database(&name).execute(CREATE, &[]).expect("a table");
        let root = State { rows: Vec::new(), from: 1, replaced: None, is_deleted: false };
        let databases = BTreeMap::from([(name, root)]);
        Self { number, dice, databases, unanswered: None, next: 1, counts: Counts::default() }
    }

    /// Works until a request fails, and says why it did.
    pub fn work_until_it_fails(&mut self, server: &Addresses, mut sending: impl FnMut()) -> String {
        loop {
            sending();
            if let Err(why) = self.step(server) {
                return why;
            }
        }
    }

    fn step(&mut self, server: &Addresses) -> Result<(), String> {
        let at = self.dice.between(0..self.databases.len() as u64) as usize;
        let (name, state) = self.databases.iter().nth(at).map(|(name, state)| (name.clone(), state.clone())).expect("one");
        if state.is_deleted {
            self.change(server, &name, &format!("{name}/undelete"), &json!({}), state.forked(state.last()))?;
            self.counts.deletions += 1;
            return Ok(());
        }
        let lsn = self.dice.between(state.from..state.last() + 1);
        match self.dice.between(0..20) {
            0 | 1 if self.databases.len() < DATABASES_MAX => {
                let fork = format!("family-{}-{}", self.number, self.next);
                self.next += 1;
                // Of the newest state without saying so, or of any that it can show.
                let (body, lsn) = if self.dice.one_in(2) { (json!({}), state.last()) } else { (json!({ "lsn": lsn }), lsn) };
                let made = self.change(server, &fork, &format!("{name}/fork/{fork}"), &body, state.forked(lsn));
                made.map(|()| self.counts.forks += 1)
            }
            2 => {
                let restored = self.change(
                    server,
                    &name,
                    &format!("{name}/restore"),
                    &json!({ "lsn": lsn }),
                    state.restored(lsn),
                );
                restored.map(|()| self.counts.restores += 1)
            }
            3 => {
                let Some(rows) = state.replaced.clone() else { return Ok(()) };
                let from = rows.len() as u64 + 1;
                let after = State { rows, from, replaced: Some(state.rows.clone()), is_deleted: false };
                let undone = self.change(server, &name, &format!("{name}/undo"), &json!({}), after);
                undone.map(|()| self.counts.undos += 1)
            }
            4 => {
                let gone = State { is_deleted: true, ..state };
                self.unanswered = Some(Unanswered { name: name.clone(), after: gone });
                server.delete(&name)?;
                self.answered();
                Ok(())
            }
            5..8 => {
                self.counts.looks += 1;
                look(server, &name, &state, lsn).map_err(|failure| failure.to_string())
            }
            _ => {
                let id = self.next;
                self.next += 1;
                let mut after = state;
                after.rows.push(id);
                self.unanswered = Some(Unanswered { name: name.clone(), after });
                let done = server.database(&name).execute("INSERT INTO t VALUES (?)", &[Value::Integer(id)]);
                done.map_err(|failure| failure.to_string())?;
                self.answered();
                self.counts.commits += 1;
                Ok(())
            }
        }
    }

    /// A change that leads to the state `after` of the database `name`.
    fn change(
        &mut self,
        server: &Addresses,
        name: &str,
        path: &str,
        body: &Json,
        after: State,
    ) -> Result<(), String> {
        self.unanswered = Some(Unanswered { name: name.to_owned(), after });
        server.change(path, body)?;
        self.answered();
        Ok(())
    }

    fn answered(&mut self) {
        let Unanswered { name, after } = self.unanswered.take().expect("asked before");
        self.databases.insert(name, after);
    }

    /// Compares every database, and some of its past, with what this client was told.
    pub fn check(&mut self, server: &Addresses) {
        if let Some(Unanswered { name, after }) = self.unanswered.take() {
            self.counts.unanswered += 1;
            self.settle(server, name, after);
        }
        for (name, state) in &self.databases {
            assert_eq!(shown(server, name), state.shows(), "{name}");
            for _ in 0..if state.is_deleted { 0 } else { LOOKS } {
                let lsn = self.dice.between(state.from..state.last() + 1);
                look(server, name, state, lsn).unwrap_or_else(|failure| panic!("{name}@{lsn}: {failure}"));
            }
        }
    }

    /// Finds out what became of a request without an answer: all of it, or nothing.
    fn settle(&mut self, server: &Addresses, name: String, after: State) {
        let before = self.databases.get(&name);
        let (shown, if_not_done) = (shown(server, &name), before.and_then(State::shows));
        if shown == after.shows() && shown == if_not_done {
            // As after a restore to the present. Both have this moment, and what an undo would bring is unknown.
            let state = State { from: after.last(), replaced: None, ..after };
            self.databases.insert(name, state);
        } else if shown == after.shows() {
            self.counts.of_them_done += 1;
            self.databases.insert(name, after);
        } else {
            assert_eq!(shown, if_not_done, "{name}, which is neither what it was nor {after:?}");
        }
    }
}

/// What a database shows now; `None`: there is none of this name.
fn shown(server: &Addresses, name: &str) -> Option<Vec<i64>> {
    let mut last = None;
    let rows = clock::poll(RECOVERY, || match server.database(name).execute(SELECT, &[]) {
        Err(failure) if failure.is_unavailable() => {
            last = Some(failure);
            None
        }
        Err(Failure::Status { status: 404, .. }) => Some(None),
        rows => Some(Some(rows.unwrap_or_else(|failure| panic!("{name}: {failure}")))),
    });
    rows.unwrap_or_else(|| panic!("{name} stays unavailable: {last:?}")).map(|rows| ids(&rows))
}

/// Compares what a database shows of a moment.
///
/// # Panics
/// If that is wrong.
fn look(server: &Addresses, name: &str, state: &State, lsn: u64) -> Result<(), Failure> {
    let rows = server.database(&format!("{name}@{lsn}")).execute(SELECT, &[])?;
    assert_eq!(ids(&rows), state.rows[..lsn as usize - 1], "{name}@{lsn}, of {state:?}");
    Ok(())
}

fn ids(rows: &[Vec<Value>]) -> Vec<i64> {
    let id = |row: &Vec<Value>| match row[..] {
        [Value::Integer(id)] => id,
        _ => panic!("not an id: {row:?}"),
    };
    rows.iter().map(id).collect()
}
