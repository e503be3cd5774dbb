//! Large transactions, tables that come and go, and a database that shrinks and grows again.
//!
//! A *batch* is written by one transaction: many pieces, or a table of its own, and one row that says how many
//! there are. Large ones spill out of SQLite's cache before they commit or roll back.

use std::collections::BTreeMap;

use crate::client::{BULK, Client, Outcome};
use crate::oracle::Examiner;

/// Pieces of the largest batch: about 3 MB, more than SQLite caches.
const PIECES_MAX: u64 = 1_400;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pieces,
    Table,
}

#[derive(Clone, Debug)]
struct Batch {
    id: String,
    client: u64,
    kind: Kind,
    may_be_present: bool,
    may_be_absent: bool,
}

impl Batch {
    /// What the outcome of a write, which makes it present or absent, says of it.
    fn learn(&mut self, outcome: Outcome, present: bool) {
        match outcome {
            Outcome::Acknowledged => (self.may_be_present, self.may_be_absent) = (present, !present),
            // It may still be carried out later.
            Outcome::Unknown => (self.may_be_present, self.may_be_absent) = (true, true),
            Outcome::Refused => {}
        }
    }

    fn is_certain(&self) -> bool {
        self.may_be_present != self.may_be_absent
    }
}

#[derive(Default)]
pub struct Bulk {
    batches: Vec<Batch>,
}

impl Client {
    pub async fn prepare_bulk(&mut self) {
        let sql = "BEGIN IMMEDIATE; CREATE TABLE IF NOT EXISTS batch(id TEXT PRIMARY KEY, pieces INTEGER, bytes INTEGER);
                   CREATE TABLE IF NOT EXISTS piece(batch TEXT, number INTEGER, data BLOB, PRIMARY KEY (batch, number));
                   COMMIT";
        self.insist(BULK, sql).await;
    }

    pub async fn change_bulk(&mut self) {
        match self.rng.below(6) {
            0..3 => self.add_batch().await,
            3..5 => self.remove_batch().await,
            _ => self.vacuum().await,
        }
    }

    async fn add_batch(&mut self) {
        let id = self.next_id();
        let kind = if self.rng.is_one_in(3) { Kind::Table } else { Kind::Pieces };
        let at = {
            let mut bulk = self.story.bulk.borrow_mut();
            let client = self.number;
            bulk.batches.push(Batch { id: id.clone(), client, kind, may_be_present: true, may_be_absent: true });
            bulk.batches.len() - 1
        };
        let is_large = self.rng.is_one_in(4);
        let pieces = 1 + self.rng.below(if is_large { PIECES_MAX } else { 40 });
        let numbers = format!("WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {pieces})");
        let statements = match kind {
            Kind::Pieces => vec![
                format!("{numbers} INSERT INTO piece SELECT '{id}', n, randomblob(n * 37 % 4000) FROM n"),
                format!("INSERT INTO batch SELECT '{id}', count(*), total(length(data)) FROM piece WHERE batch = '{id}'"),
            ],
            Kind::Table => vec![
                format!("CREATE TABLE \"t{id}\"(number INTEGER PRIMARY KEY, data BLOB)"),
                format!("CREATE INDEX \"i{id}\" ON \"t{id}\"(data)"),
                format!("{numbers} INSERT INTO \"t{id}\" SELECT n, randomblob(n % 200) FROM n"),
                format!("INSERT INTO batch SELECT '{id}', count(*), total(length(data)) FROM \"t{id}\""),
            ],
        };
        let commits = !self.rng.is_one_in(4);
        let outcome = match self.rng.below(3) {
            0 if commits => self.interactively(BULK, "BEGIN IMMEDIATE", &statements, |_, _| ()).await,
            _ => self.in_one_batch(BULK, &statements, commits).await,
        };
        self.note(format!("batch {id} of {pieces} ({kind:?}): {outcome:?}"));
        let batch = &mut self.story.bulk.borrow_mut().batches[at];
        (batch.may_be_present, batch.may_be_absent) = (false, true);
        batch.learn(outcome, true);
    }

    async fn remove_batch(&mut self) {
        let mine: Vec<usize> = {
            let bulk = self.story.bulk.borrow();
            let is_mine = |batch: &Batch| batch.client == self.number && batch.is_certain() && batch.may_be_present;
            bulk.batches.iter().enumerate().filter(|(_, batch)| is_mine(batch)).map(|(at, _)| at).collect()
        };
        if mine.is_empty() {
            return;
        }
        let at = *self.rng.pick(&mine);
        let Batch { id, kind, .. } = self.story.bulk.borrow().batches[at].clone();
        self.story.bulk.borrow_mut().batches[at].may_be_absent = true;
        let first = match kind {
            Kind::Pieces => format!("DELETE FROM piece WHERE batch = '{id}'"),
            Kind::Table => format!("DROP TABLE \"t{id}\""),
        };
        let statements = [first, format!("DELETE FROM batch WHERE id = '{id}'")];
        let outcome = self.in_one_batch(BULK, &statements, true).await;
        self.note(format!("remove batch {id}: {outcome:?}"));
        let batch = &mut self.story.bulk.borrow_mut().batches[at];
        (batch.may_be_present, batch.may_be_absent) = (true, false);
        batch.learn(outcome, false);
    }

    /// Gives free pages back: the file shrinks.
    async fn vacuum(&mut self) {
        let outcome = self.alone(BULK, "VACUUM").await;
        self.note(format!("vacuum: {outcome:?}"));
    }
}

impl Bulk {
    pub async fn examine(&self, examiner: &Examiner<'_>) -> Result<(), String> {
        let mut found = BTreeMap::new();
        if examiner.has_table(BULK, "batch").await? {
            for row in examiner.rows(BULK, "SELECT id, pieces, bytes FROM batch").await? {
                found.insert(row[0].clone(), (row[1].clone(), row[2].clone()));
            }
        }
        for batch in &self.batches {
            let id = &batch.id;
            match found.remove(id) {
                Some(_) if !batch.may_be_present => {
                    return Err(format!("I11: batch {id} is there, but its client was told that it isn't"));
                }
                None if !batch.may_be_absent => return Err(format!("I1: batch {id} was acknowledged and is gone")),
                None => {}
                Some((pieces, bytes)) => self.examine_batch(examiner, batch, [pieces, bytes]).await?,
            }
        }
        match found.first_key_value() {
            Some((id, _)) => Err(format!("I12: batch {id} was never sent")),
            None => Ok(()),
        }
    }

    async fn examine_batch(&self, examiner: &Examiner<'_>, batch: &Batch, says: [String; 2]) -> Result<(), String> {
        let id = &batch.id;
        let from = match batch.kind {
            Kind::Pieces => format!("piece WHERE batch = '{id}'"),
            Kind::Table => format!("\"t{id}\""),
        };
        let sql = format!("SELECT count(*), total(length(data)) FROM {from}");
        let holds = examiner.rows(BULK, &sql).await?;
        let numbers = |texts: &[String]| texts.iter().map(|text| text.parse::<f64>().ok()).collect::<Vec<_>>();
        if holds.len() == 1 && numbers(&holds[0]) == numbers(&says) {
            return Ok(());
        }
        Err(format!("I11: batch {id} says {says:?} and holds {holds:?}"))
    }
}
