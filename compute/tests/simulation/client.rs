//! A client: it talks to one node and turns to the next when refused, as behind a load balancer. It outlives the
//! nodes and remembers what it was told.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bulk::Bulk;
use crate::bank::Bank;
use crate::cluster::{Answer, Cluster, says_unknown, sleep};
use crate::list::List;
use crate::machine::true_micros;
use crate::past::files::SqliteFile;
use crate::past::{Clocks, Past};
use crate::rng::Rng;
use crate::scratch::Scratch;

/// Databases that clients share: two of accounts, one with a list, one with large transactions.
pub const BANKS: [&str; 2] = ["checking", "savings"];
pub const LIST: &str = "ledger";
pub const BULK: &str = "bulk";

/// How often a request that was refused is sent again, to one node after the other.
const TRIES: u64 = 8;
/// Things that a client does.
const ACTIONS: u64 = 26;

/// What became of a write, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Sent, and no answer so far, or one that says that nobody knows.
    Unknown,
    Acknowledged,
    /// An answer said that nothing was done.
    Refused,
}

/// What all clients were told. They write an entry before they ask, so that it is there when an answer isn't.
#[derive(Default)]
pub struct Story {
    pub bank: RefCell<Bank>,
    pub list: RefCell<List>,
    pub bulk: RefCell<Bulk>,
    pub scratch: RefCell<Scratch>,
    pub past: RefCell<Past>,
    /// What a client saw that must never be seen.
    pub broken: RefCell<Vec<String>>,
    /// The virtual time, in microseconds.
    now: Cell<u64>,
    started: Cell<Option<tokio::time::Instant>>,
}

impl Story {
    pub fn new(started: tokio::time::Instant) -> Self {
        Self { started: Cell::new(Some(started)), ..Self::default() }
    }

    pub fn now(&self) -> u64 {
        let started = self.started.get().expect("made by new");
        // Two events never happen at the same time, so that "before" is clear.
        let now = (started.elapsed().as_nanos() as u64).max(self.now.get() + 1);
        self.now.set(now);
        now
    }

    /// What time it is.
    pub fn true_micros(&self) -> u64 {
        true_micros(self.started.get().expect("made by new"))
    }

    pub fn breaks(&self, broken: String) {
        self.broken.borrow_mut().push(broken);
    }
}

pub struct Client {
    pub number: u64,
    pub rng: Rng,
    pub story: Rc<Story>,
    cluster: Rc<Cluster>,
    /// The node it talks to.
    at: usize,
    notes: Rc<dyn Fn(String)>,
    counter: u64,
    /// The list as this client has seen it last: LSN and length.
    pub seen: (u64, usize),
    /// What the clock of the node said that it has asked last.
    pub clocks: Cell<Option<Clocks>>,
}

impl Client {
    pub fn new(number: u64, mut rng: Rng, cluster: Rc<Cluster>, story: Rc<Story>, notes: Rc<dyn Fn(String)>) -> Self {
        let at = rng.below(cluster.size() as u64) as usize;
        Self { number, rng, story, cluster, at, notes, counter: 0, seen: (0, 0), clocks: Cell::new(None) }
    }

    pub async fn run(mut self) {
        for database in BANKS.into_iter().chain([LIST, BULK]) {
            self.create(database).await;
        }
        self.prepare_banks().await;
        self.prepare_list().await;
        self.prepare_bulk().await;
        for _ in 0..ACTIONS {
            let pause = self.rng.below(1_200);
            sleep(Duration::from_millis(pause)).await;
            match self.rng.below(21) {
                20 => self.release().await,
                0..9 if self.number == 0 => self.change_scratch().await,
                0..7 => self.transfer().await,
                7..9 => self.audit().await,
                9..13 => self.append().await,
                13..15 => self.read_list().await,
                15..18 => self.change_bulk().await,
                _ => self.transfer().await,
            }
        }
    }

    pub fn note(&self, line: String) {
        (self.notes)(format!("client {}: {line}", self.number));
    }

    /// An id that nothing else has.
    pub fn next_id(&mut self) -> String {
        self.counter += 1;
        format!("{}-{}", self.number, self.counter)
    }

    pub async fn refused(&mut self) {
        self.at = (self.at + 1) % self.cluster.size();
        let pause = self.rng.between(20, 900);
        sleep(Duration::from_millis(pause)).await;
    }

    /// What time it is.
    pub fn now_micros(&self) -> u64 {
        self.story.true_micros()
    }

    /// Turns to any node.
    pub fn turn_to_any(&mut self) {
        self.at = self.rng.below(self.cluster.size() as u64) as usize;
    }

    /// Asks its node, once.
    pub async fn pipeline(&self, database: &str, requests: &Value) -> Answer {
        self.clocked(self.cluster.pipeline(self.at, database, None, requests)).await
    }

    /// Makes a file a database, by its node, which may die after a while.
    pub async fn import_file(&self, name: &str, file: &Arc<SqliteFile>, dies_after: Option<Duration>) -> Answer {
        let crash = self.cluster.server(self.at).and_then(|server| server.crash).zip(dies_after);
        let mut import = pin!(self.cluster.import(self.at, name, file.clone()));
        let Some((crash, after)) = crash else { return import.await };
        tokio::select! {
            biased;
            answer = &mut import => return answer,
            () = sleep(after) => drop(crash.send(())),
        }
        import.await
    }

    /// Looks at the clock of its node while that is asked.
    async fn clocked(&self, asked: impl Future<Output = Answer>) -> Answer {
        let clock = self.cluster.server(self.at).map(|server| server.clock);
        let began = clock.as_ref().map(|clock| clock.read());
        let answer = asked.await;
        let ended = clock.map(|clock| clock.read());
        self.clocks.set(began.zip(ended).map(|(began, ended)| Clocks { began, ended }));
        answer
    }

    /// The same for the administration. Without a body it says nothing.
    pub async fn admin(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.clocked(self.cluster.admin_with(self.at, method, path.to_owned(), body)).await
    }

    /// Asks nodes until one of them does not refuse.
    pub async fn ask(&mut self, database: &str, requests: &Value) -> Answer {
        self.ask_at_least(database, requests, 0).await
    }

    /// The same, for at least this LSN.
    pub async fn ask_at_least(&mut self, database: &str, requests: &Value, lsn: u64) -> Answer {
        let mut answer = Answer::Refused(String::new());
        for _ in 0..TRIES {
            answer = self.cluster.pipeline_at_least(self.at, database, None, requests, lsn).await;
            if !matches!(answer, Answer::Refused(_)) {
                break;
            }
            self.refused().await;
        }
        answer
    }

    /// One request of a stream, to the node that has it.
    pub async fn go_on(&mut self, database: &str, baton: &str, sql: &str) -> Answer {
        let requests = json!([{"type": "execute", "stmt": {"sql": sql}}]);
        self.cluster.pipeline(self.at, database, Some(baton), &requests).await
    }

    /// The same to every node until one answers, for the administration.
    pub async fn administer(&mut self, method: &str, path: &str) -> Answer {
        let mut answer = Answer::Refused(String::new());
        for _ in 0..TRIES {
            answer = self.cluster.admin(self.at, method, path.to_owned()).await;
            match &answer {
                Answer::Refused(text) if !is_final(text) => self.refused().await,
                _ => break,
            }
        }
        answer
    }

    /// Creates a database that may exist.
    async fn create(&mut self, database: &str) {
        let path = format!("/v1/namespaces/{database}/create");
        for _ in 0..TRIES {
            match self.administer("POST", &path).await {
                Answer::Done(_) => return,
                Answer::Refused(text) if is_final(&text) => return,
                _ => self.refused().await,
            }
        }
    }

    /// Has the node give a database up, as before a planned move.
    async fn release(&mut self) {
        let database = *self.rng.pick(&[BANKS[0], BANKS[1], LIST, BULK]);
        let answer = self.cluster.admin(self.at, "POST", format!("/v1/namespaces/{database}/release")).await;
        self.note(format!("release {database}: {answer:?}"));
    }

    /// Statements that may be repeated, until they were carried out. `false` if it is not known that they were.
    pub async fn insist(&mut self, database: &str, sql: &str) -> bool {
        let requests = json!([{"type": "sequence", "sql": sql}, {"type": "close"}]);
        for _ in 0..TRIES {
            if matches!(self.ask(database, &requests).await, Answer::Done(body) if is_ok(&body, 0)) {
                return true;
            }
            self.refused().await;
        }
        false
    }

    /// A transaction in one batch whose steps depend on each other. Rolled back on purpose if `commits` is false.
    pub async fn in_one_batch(&mut self, database: &str, statements: &[String], commits: bool) -> Outcome {
        let mut sql = vec!["BEGIN IMMEDIATE".to_owned()];
        sql.extend_from_slice(statements);
        sql.push(if commits { "COMMIT".into() } else { "ROLLBACK".into() });
        let mut steps: Vec<Value> = Vec::new();
        for (at, sql) in sql.iter().enumerate() {
            let condition = if at == 0 { Value::Null } else { json!({"type": "ok", "step": at - 1}) };
            steps.push(json!({"stmt": {"sql": sql}, "condition": condition}));
        }
        let last = steps.len() - 1;
        steps.push(json!({"stmt": {"sql": "ROLLBACK"}, "condition": {"type": "and", "conds": [
            {"type": "ok", "step": 0}, {"type": "not", "cond": {"type": "ok", "step": last}}]}}));
        let requests = json!([{"type": "batch", "batch": {"steps": steps}}, {"type": "close"}]);
        match self.ask(database, &requests).await {
            // Whatever became of it, it must not be there.
            _ if !commits => Outcome::Refused,
            Answer::Done(body) => {
                let done = body.pointer(&format!("/results/0/response/result/step_results/{last}"));
                match done {
                    Some(result) if !result.is_null() => Outcome::Acknowledged,
                    _ => refused_or_unknown(&body),
                }
            }
            Answer::Refused(_) => Outcome::Refused,
            Answer::Unknown(_) => Outcome::Unknown,
        }
    }

    /// One statement that is its own transaction.
    pub async fn alone(&mut self, database: &str, sql: &str) -> Outcome {
        let requests = json!([{"type": "execute", "stmt": {"sql": sql}}]);
        match self.ask(database, &requests).await {
            Answer::Done(body) if is_ok(&body, 0) => Outcome::Acknowledged,
            Answer::Done(body) => refused_or_unknown(&body),
            Answer::Refused(_) => Outcome::Refused,
            Answer::Unknown(_) => Outcome::Unknown,
        }
    }

    /// A query. `None` if no node answered it.
    pub async fn query(&mut self, database: &str, sql: &str) -> Option<Vec<Vec<String>>> {
        let requests = json!([{"type": "execute", "stmt": {"sql": sql}}]);
        match self.ask(database, &requests).await {
            Answer::Done(body) => rows(&body, 0),
            _ => None,
        }
    }

    /// A transaction over several requests, held together by batons. `each` sees the rows of each statement.
    pub async fn interactively(
        &mut self,
        database: &str,
        begin: &str,
        statements: &[String],
        mut each: impl FnMut(usize, Vec<Vec<String>>),
    ) -> Outcome {
        let Answer::Done(body) = self.ask(database, &json!([{"type": "execute", "stmt": {"sql": begin}}])).await else {
            return Outcome::Refused;
        };
        let Some(mut baton) = body["baton"].as_str().map(str::to_owned) else { return Outcome::Refused };
        for (number, sql) in statements.iter().enumerate() {
            // Before COMMIT was sent, whatever went wrong, nothing is committed.
            let Answer::Done(body) = self.go_on(database, &baton, sql).await else { return Outcome::Refused };
            match (is_ok(&body, 0), body["baton"].as_str()) {
                (true, Some(next)) => baton = next.to_owned(),
                _ => return Outcome::Refused,
            }
            each(number, rows(&body, 0).unwrap_or_default());
        }
        let mut answer = self.go_on(database, &baton, "COMMIT").await;
        // As some applications do. Unless the transaction is still open, there is nothing to commit then.
        for _ in 0..2 {
            let Some(again) = may_try_again(&answer) else { break };
            answer = self.go_on(database, &again, "COMMIT").await;
        }
        match answer {
            Answer::Done(body) if is_ok(&body, 0) => Outcome::Acknowledged,
            Answer::Done(body) => refused_or_unknown(&body),
            Answer::Refused(_) => Outcome::Refused,
            Answer::Unknown(_) => Outcome::Unknown,
        }
    }
}

/// The stream's baton, if a statement failed and the stream goes on.
fn may_try_again(answer: &Answer) -> Option<String> {
    let Answer::Done(body) = answer else { return None };
    let has_failed = !is_ok(body, 0) && !says_unknown(body);
    has_failed.then(|| body["baton"].as_str().map(str::to_owned)).flatten()
}

/// Whether a refusal of the administration is about the database and not about the node.
pub fn is_final(refusal: &str) -> bool {
    refusal.contains("exists") || refusal.contains("SHOAL_NO_SUCH_DATABASE") || refusal.contains("no database")
}

pub fn is_ok(answer: &Value, at: usize) -> bool {
    answer.pointer(&format!("/results/{at}/type")).and_then(Value::as_str) == Some("ok")
}

/// Whether an answer leaves the outcome open.
fn refused_or_unknown(body: &Value) -> Outcome {
    if says_unknown(body) { Outcome::Unknown } else { Outcome::Refused }
}

/// The rows of a result, as text.
pub fn rows(body: &Value, at: usize) -> Option<Vec<Vec<String>>> {
    let rows = body.pointer(&format!("/results/{at}/response/result/rows"))?.as_array()?;
    let text = |value: &Value| match &value["value"] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    Some(rows.iter().map(|row| row.as_array().into_iter().flatten().map(text).collect()).collect())
}
