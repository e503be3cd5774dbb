//! Databases that are created, filled, deleted and created again under the same name, by one client.

use serde_json::json;

use crate::client::{Client, Outcome, is_final, is_ok, rows};
use crate::cluster::Answer;
use crate::oracle::Examiner;

/// The present database of this kind. Once an outcome is unknown its name is left alone, and the next one used.
#[derive(Default)]
pub struct Scratch {
    number: u64,
    /// How often it was created; 0 if it does not exist.
    is_there: bool,
    generation: u64,
    values: Vec<String>,
    pub deletions: u64,
}

impl Scratch {
    fn name(&self) -> String {
        format!("scratch-{}", self.number)
    }

    fn leave(&mut self) {
        *self = Self { number: self.number + 1, deletions: self.deletions, ..Self::default() };
    }
}

impl Client {
    pub async fn change_scratch(&mut self) {
        let is_there = self.story.scratch.borrow().is_there;
        match self.rng.below(4) {
            _ if !is_there => self.create_scratch().await,
            0 => self.delete_scratch().await,
            1 => self.read_scratch().await,
            _ => self.fill_scratch().await,
        }
    }

    async fn create_scratch(&mut self) {
        let name = self.story.scratch.borrow().name();
        let answer = self.administer("POST", &format!("/v1/namespaces/{name}/create")).await;
        self.note(format!("create {name}: {answer:?}"));
        let mut scratch = self.story.scratch.borrow_mut();
        match answer {
            Answer::Done(_) => {
                scratch.is_there = true;
                scratch.generation += 1;
                scratch.values.clear();
            }
            // An earlier try of this very request, whose answer was lost, may have made it.
            Answer::Refused(_) | Answer::Unknown(_) => scratch.leave(),
        }
    }

    async fn fill_scratch(&mut self) {
        let (name, generation) = {
            let scratch = self.story.scratch.borrow();
            (scratch.name(), scratch.generation)
        };
        let value = format!("{generation}/{}", self.next_id());
        // The largest spill out of SQLite's cache before they are rolled back.
        let commits = !self.rng.is_one_in(3);
        let bytes = self.rng.below(if commits { 30_000 } else { 6_000_000 });
        let statements = [
            "CREATE TABLE IF NOT EXISTS scratch(value TEXT, filler BLOB)".to_owned(),
            format!("INSERT INTO scratch VALUES ('{value}', randomblob({bytes}))"),
        ];
        let outcome = self.in_one_batch(&name, &statements, commits).await;
        self.note(format!("fill {name} with {value}: {outcome:?}"));
        let mut scratch = self.story.scratch.borrow_mut();
        match outcome {
            Outcome::Acknowledged => scratch.values.push(value),
            Outcome::Refused => {}
            Outcome::Unknown => scratch.leave(),
        }
    }

    async fn read_scratch(&mut self) {
        let name = self.story.scratch.borrow().name();
        let sql = "SELECT value FROM scratch ORDER BY rowid";
        let transactions = self.story.scratch.borrow().values.len() as u64;
        let requests = json!([{"type": "execute", "stmt": {"sql": sql}}]);
        let Answer::Done(body) = self.ask_at_least(&name, &requests, transactions).await else { return };
        if self.story.scratch.borrow().generation > 1 && !body["staleness_millis"].is_null() {
            // A replica may show the deleted one for a moment.
            return;
        }
        let found = if is_ok(&body, 0) { rows(&body, 0).unwrap_or_default().concat() } else { Vec::new() };
        let expected = self.story.scratch.borrow().values.clone();
        let has_no_table = body.to_string().contains("no such table");
        // Every change was one transaction.
        let lsn = body.pointer("/results/0/response/result/replication_index").map(ToString::to_string);
        let lsn = lsn.map(|lsn| lsn.trim_matches('"').to_owned());
        if is_ok(&body, 0) && lsn != Some(expected.len().to_string()) {
            self.story.breaks(format!("I11: {name} is at LSN {lsn:?} after {} transactions", expected.len()));
        }
        if found != expected && (is_ok(&body, 0) || has_no_table) {
            self.story.breaks(format!("I1: {name} holds {found:?} instead of {expected:?}"));
        }
    }

    async fn delete_scratch(&mut self) {
        let name = self.story.scratch.borrow().name();
        let answer = self.administer("DELETE", &format!("/v1/namespaces/{name}")).await;
        self.note(format!("delete {name}: {answer:?}"));
        let mut scratch = self.story.scratch.borrow_mut();
        match answer {
            Answer::Done(_) => {
                scratch.is_there = false;
                scratch.deletions += 1;
            }
            Answer::Refused(text) if !is_final(&text) => {
                // Once begun it is carried through, with or without this client.
                scratch.leave();
            }
            Answer::Refused(_) | Answer::Unknown(_) => scratch.leave(),
        }
    }
}

impl Scratch {
    pub async fn examine(&self, examiner: &Examiner<'_>) -> Result<(), String> {
        let name = self.name();
        if !self.is_there {
            return Ok(());
        }
        let mut found = Vec::new();
        if examiner.has_table(&name, "scratch").await? {
            found = examiner.rows(&name, "SELECT value FROM scratch ORDER BY rowid").await?.concat();
        }
        if found == self.values { Ok(()) } else { Err(format!("I1: {name} holds {found:?} instead of {:?}", self.values)) }
    }
}
