//! Compares what clients were told with what the databases hold, asked from a node without faults.

use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{BANKS, BULK, LIST, Story, rows};
use crate::cluster::{Answer, Cluster, sleep};

/// How often the last node is asked before it counts as not serving.
const TRIES: usize = 60;

/// Asks the last node.
pub struct Examiner<'a> {
    pub cluster: &'a Cluster,
}

impl Examiner<'_> {
    pub async fn rows(&self, database: &str, sql: &str) -> Result<Vec<Vec<String>>, String> {
        let requests = json!([{"type": "execute", "stmt": {"sql": sql}}]);
        let mut last = Value::Null;
        // A dead node's late renewal may look like life: a database is served once its lease is over (I16).
        for _ in 0..TRIES {
            match self.cluster.pipeline(0, database, None, &requests).await {
                Answer::Done(body) => return rows(&body, 0).ok_or_else(|| format!("I9: {sql}: {body}")),
                Answer::Refused(text) | Answer::Unknown(text) => last = text.into(),
            }
            sleep(Duration::from_secs(1)).await;
        }
        // Nothing damages the bucket here: what cannot be read was lost or mixed up by the protocol.
        let invariant = if last.to_string().contains("SHOAL_CORRUPT") { "I2" } else { "I16" };
        Err(format!("{invariant}: nobody serves {database}: {last}"))
    }

    pub async fn has_table(&self, database: &str, table: &str) -> Result<bool, String> {
        let sql = format!("SELECT count(*) FROM sqlite_schema WHERE name = '{table}'");
        Ok(self.rows(database, &sql).await? == [["1"]])
    }

    async fn is_sound(&self, database: &str) -> Result<(), String> {
        let check = self.rows(database, "PRAGMA integrity_check").await?;
        if check == [["ok"]] { Ok(()) } else { Err(format!("I9: integrity_check: {check:?}")) }
    }
}

/// Everything that is wrong, each named by its invariant.
#[expect(clippy::await_holding_refcell_ref, reason = "the clients are done: nobody writes any more")]
pub async fn examine(cluster: &Cluster, story: &Rc<Story>) -> Vec<String> {
    let examiner = Examiner { cluster };
    let mut broken = story.broken.borrow().clone();
    let mut learn = |database: &str, verdict: Result<(), String>| {
        if let Err(text) = verdict {
            // The invariant comes first, for whoever counts them.
            let (invariant, rest) = text.split_once(": ").unwrap_or(("?", &text));
            broken.push(format!("{invariant}: {database}: {rest}"));
        }
    };
    for database in BANKS.into_iter().chain([LIST, BULK]) {
        learn(database, examiner.is_sound(database).await);
    }
    for database in BANKS {
        learn(database, story.bank.borrow().examine(&examiner, database).await);
    }
    learn(LIST, story.list.borrow().examine(&examiner).await);
    learn(BULK, story.bulk.borrow().examine(&examiner).await);
    learn("scratch", story.scratch.borrow().examine(&examiner).await);
    broken
}
