//! A client: transfers money between accounts over the production HTTP code, and remembers what it was
//! told.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use walstore::id::IncarnationId;

use crate::world::{DATABASES, Rng};

pub const ACCOUNTS: u64 = 5;
pub const BALANCE: i64 = 1_000;
const TRANSFERS: u64 = 25;

/// What a client knows of one transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Sent, and no answer so far, or one that says that nobody knows.
    Unknown,
    Acknowledged,
    /// An answer said that nothing was done.
    Refused,
}

#[derive(Clone, Debug)]
pub struct Transfer {
    pub database: &'static str,
    pub id: String,
    pub amount: i64,
    pub outcome: Outcome,
}

/// All transfers of one client, in order. Survives the client's death.
pub type Story = Rc<RefCell<Vec<Transfer>>>;

pub struct Client {
    name: String,
    rng: Rng,
    router: Router,
    trace: Arc<Mutex<Vec<String>>>,
    pub story: Story,
}

impl Client {
    pub fn new(life: IncarnationId, number: u64, rng: Rng, router: Router, trace: Arc<Mutex<Vec<String>>>) -> Self {
        Self { name: format!("{}-{number}", &life.to_string()[..8]), rng, router, trace, story: Story::default() }
    }

    pub async fn run(mut self) {
        for database in DATABASES {
            let _ = pipeline(&self.router, database, None, &schema()).await;
        }
        for number in 0..TRANSFERS {
            let database = DATABASES[self.rng.below(DATABASES.len() as u64) as usize];
            let transfer = Transfer {
                database,
                id: format!("{}-{number}", self.name),
                amount: 1 + self.rng.below(50) as i64,
                outcome: Outcome::Unknown,
            };
            self.story.borrow_mut().push(transfer.clone());
            let outcome = match self.rng.below(4) {
                0 => self.in_one_batch(&transfer).await,
                1 => self.alone(&transfer).await,
                2 => self.rolled_back(&transfer).await,
                _ => self.interactively(&transfer).await,
            };
            self.trace.lock().unwrap().push(format!("{}: {outcome:?}", transfer.id));
            self.story.borrow_mut().last_mut().expect("just pushed").outcome = outcome;
        }
    }

    fn accounts(&mut self) -> (u64, u64) {
        let from = self.rng.below(ACCOUNTS);
        (from, (from + 1 + self.rng.below(ACCOUNTS - 1)) % ACCOUNTS)
    }

    fn steps(&mut self, transfer: &Transfer) -> Vec<String> {
        let (from, to) = self.accounts();
        let Transfer { id, amount, .. } = transfer;
        let bytes = self.rng.below(6_000);
        vec![
            format!("UPDATE account SET balance = balance - {amount} WHERE id = {from}"),
            format!("UPDATE account SET balance = balance + {amount} WHERE id = {to}"),
            format!("INSERT INTO transfer VALUES ('{id}', {from}, {to}, {amount}, randomblob({bytes}))"),
        ]
    }

    /// BEGIN, three statements and COMMIT in one batch with conditions.
    async fn in_one_batch(&mut self, transfer: &Transfer) -> Outcome {
        let mut sql = vec!["BEGIN IMMEDIATE".to_owned()];
        sql.extend(self.steps(transfer));
        sql.push("COMMIT".into());
        let mut steps: Vec<Value> = Vec::new();
        for (at, sql) in sql.iter().enumerate() {
            let condition = if at == 0 { Value::Null } else { json!({"type": "ok", "step": at - 1}) };
            steps.push(json!({"stmt": {"sql": sql}, "condition": condition}));
        }
        let last = steps.len() - 1;
        steps.push(json!({"stmt": {"sql": "ROLLBACK"}, "condition": {"type": "and", "conds": [
            {"type": "ok", "step": 0}, {"type": "not", "cond": {"type": "ok", "step": last}}]}}));
        let requests = json!([{"type": "batch", "batch": {"steps": steps}}, {"type": "close"}]);
        let Some(answer) = pipeline(&self.router, transfer.database, None, &requests).await else {
            return Outcome::Refused;
        };
        let committed = answer.pointer(&format!("/results/0/response/result/step_results/{last}"));
        match committed {
            Some(result) if !result.is_null() => Outcome::Acknowledged,
            _ => refused_or_unknown(&answer),
        }
    }

    /// One statement that is its own transaction: a transfer from an account to itself.
    async fn alone(&mut self, transfer: &Transfer) -> Outcome {
        let Transfer { id, amount, .. } = transfer;
        let sql = format!("INSERT INTO transfer VALUES ('{id}', 0, 0, {amount}, NULL)");
        let requests = json!([{"type": "execute", "stmt": {"sql": sql}}]);
        let Some(answer) = pipeline(&self.router, transfer.database, None, &requests).await else {
            return Outcome::Refused;
        };
        if is_ok(&answer, 0) { Outcome::Acknowledged } else { refused_or_unknown(&answer) }
    }

    /// Everything but the commit.
    async fn rolled_back(&mut self, transfer: &Transfer) -> Outcome {
        let mut requests = vec![json!({"type": "execute", "stmt": {"sql": "BEGIN"}})];
        requests.extend(self.steps(transfer).iter().map(|sql| json!({"type": "execute", "stmt": {"sql": sql}})));
        requests.push(json!({"type": "execute", "stmt": {"sql": "ROLLBACK"}}));
        let _ = pipeline(&self.router, transfer.database, None, &json!(requests)).await;
        Outcome::Refused
    }

    /// A transaction over several requests, held together by batons.
    async fn interactively(&mut self, transfer: &Transfer) -> Outcome {
        let mut baton: Option<String> = None;
        let mut sql = vec!["BEGIN IMMEDIATE".to_owned()];
        sql.extend(self.steps(transfer));
        for sql in sql {
            let requests = json!([{"type": "execute", "stmt": {"sql": sql}}]);
            let answer = pipeline(&self.router, transfer.database, baton.as_deref(), &requests).await;
            let Some(answer) = answer.filter(|answer| is_ok(answer, 0)) else { return Outcome::Refused };
            match answer["baton"].as_str() {
                Some(next) => baton = Some(next.to_owned()),
                None => return Outcome::Refused,
            }
        }
        let requests = json!([{"type": "execute", "stmt": {"sql": "COMMIT"}}, {"type": "close"}]);
        let Some(answer) = pipeline(&self.router, transfer.database, baton.as_deref(), &requests).await else {
            return Outcome::Unknown;
        };
        if is_ok(&answer, 0) { Outcome::Acknowledged } else { refused_or_unknown(&answer) }
    }
}

fn schema() -> Value {
    let accounts: Vec<String> = (0..ACCOUNTS).map(|id| format!("({id}, {BALANCE})")).collect();
    let sql = format!(
        "BEGIN IMMEDIATE; CREATE TABLE IF NOT EXISTS account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
         CREATE TABLE IF NOT EXISTS transfer(id TEXT PRIMARY KEY, origin, target, amount, filler);
         INSERT OR IGNORE INTO account VALUES {}; COMMIT",
        accounts.join(", ")
    );
    json!([{"type": "sequence", "sql": sql}, {"type": "close"}])
}

fn is_ok(answer: &Value, at: usize) -> bool {
    answer.pointer(&format!("/results/{at}/type")).and_then(Value::as_str) == Some("ok")
}

/// Whether an answer leaves the outcome open. Everything else promises that nothing was done.
fn refused_or_unknown(answer: &Value) -> Outcome {
    if answer.to_string().contains("SHOAL_OUTCOME_UNKNOWN") { Outcome::Unknown } else { Outcome::Refused }
}

/// One request. `None` is an answer other than 200, which says that nothing was done.
pub async fn pipeline(router: &Router, database: &str, baton: Option<&str>, requests: &Value) -> Option<Value> {
    let (is_ok, answer) = whole_answer(router, database, baton, requests).await;
    // An error for the whole request may leave the outcome open too; then the body says so.
    (is_ok || answer.to_string().contains("SHOAL_OUTCOME_UNKNOWN")).then_some(answer)
}

/// Whether the answer was 200, and its body.
pub async fn whole_answer(router: &Router, database: &str, baton: Option<&str>, requests: &Value) -> (bool, Value) {
    let body = json!({"baton": baton, "requests": requests}).to_string();
    let request = Request::post(format!("/db/{database}/v3/pipeline")).body(Body::from(body)).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let is_ok = response.status().is_success();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (is_ok, serde_json::from_slice(&body).unwrap())
}
