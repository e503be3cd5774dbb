//! Compares what clients were told with what the databases hold.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use serde_json::{Value, json};
use walstore::seam::Seam;

use crate::client::{ACCOUNTS, BALANCE, Outcome, Transfer, whole_answer};
use crate::world::DATABASES;

/// How often the last node is asked before it counts as not serving.
const TRIES: usize = 60;

#[derive(Default)]
pub struct Oracle {
    transfers: Vec<Transfer>,
    broken: Vec<String>,
    examined: bool,
}

impl Oracle {
    pub fn add(&mut self, story: Vec<Transfer>) {
        self.transfers.extend(story);
    }

    pub fn acknowledged(&self) -> u64 {
        self.count(Outcome::Acknowledged)
    }

    pub fn unknown(&self) -> u64 {
        self.count(Outcome::Unknown)
    }

    fn count(&self, outcome: Outcome) -> u64 {
        self.transfers.iter().filter(|transfer| transfer.outcome == outcome).count() as u64
    }

    pub fn verdict(&self) -> Result<(), String> {
        match self.broken.as_slice() {
            [] if self.examined => Ok(()),
            [] => Err("the last node could not be asked".into()),
            broken => Err(broken.join("; ")),
        }
    }

    /// Asks a node without faults for everything.
    pub async fn examine(&mut self, seam: &Seam, router: &Router) {
        for database in DATABASES {
            match self.examine_database(seam, router, database).await {
                Ok(()) => self.examined = true,
                Err(broken) => self.broken.push(format!("{database}: {broken}")),
            }
        }
    }

    async fn examine_database(&self, seam: &Seam, router: &Router, database: &str) -> Result<(), String> {
        let check = rows(seam, router, database, "PRAGMA integrity_check").await?;
        if check != [["ok"]] {
            return Err(format!("integrity_check: {check:?}"));
        }
        let tables = rows(seam, router, database, "SELECT count(*) FROM sqlite_schema WHERE name IN ('account', 'transfer')").await?;
        let mine = || self.transfers.iter().filter(|transfer| transfer.database == database);
        if tables == [["0"]] {
            let acknowledged = mine().any(|transfer| transfer.outcome == Outcome::Acknowledged);
            return if acknowledged { Err("acknowledged transfers, but no tables".into()) } else { Ok(()) };
        }
        let sent: BTreeMap<&str, &Transfer> = mine().map(|transfer| (transfer.id.as_str(), transfer)).collect();
        let found = rows(seam, router, database, "SELECT id, origin, target, amount FROM transfer ORDER BY id").await?;
        let mut balances = vec![BALANCE; ACCOUNTS as usize];
        for row in &found {
            let transfer = sent.get(row[0].as_str()).ok_or_else(|| format!("{} was never sent", row[0]))?;
            if transfer.outcome == Outcome::Refused {
                return Err(format!("{} is there, but its client was told that nothing was done", row[0]));
            }
            let number = |at: usize| row[at].parse::<i64>().map_err(|_| format!("{} is damaged", row[0]));
            if number(3)? != transfer.amount {
                return Err(format!("{} has another amount", row[0]));
            }
            balances[number(1)? as usize] -= transfer.amount;
            balances[number(2)? as usize] += transfer.amount;
        }
        let present: Vec<&str> = found.iter().map(|row| row[0].as_str()).collect();
        for transfer in mine().filter(|transfer| transfer.outcome == Outcome::Acknowledged) {
            if present.binary_search(&transfer.id.as_str()).is_err() {
                return Err(format!("{} was acknowledged and is gone", transfer.id));
            }
        }
        let accounts = rows(seam, router, database, "SELECT balance FROM account ORDER BY id").await?;
        let expected: Vec<Vec<String>> = balances.iter().map(|balance| vec![balance.to_string()]).collect();
        if accounts != expected {
            return Err(format!("balances {accounts:?} do not follow from the transfers: {expected:?}"));
        }
        Ok(())
    }
}

async fn rows(seam: &Seam, router: &Router, database: &str, sql: &str) -> Result<Vec<Vec<String>>, String> {
    let requests = json!([{"type": "execute", "stmt": {"sql": sql}}]);
    let mut answer = Value::Null;
    // A dead node's late renewal may look like life: the database is served once its lease is over (I16).
    for _ in 0..TRIES {
        let (is_ok, body) = whole_answer(router, database, None, &requests).await;
        answer = body;
        if is_ok {
            break;
        }
        seam.sleep(Duration::from_secs(1)).await;
    }
    let rows = answer.pointer("/results/0/response/result/rows").and_then(Value::as_array);
    let rows = rows.ok_or_else(|| format!("{sql}: {answer}"))?;
    let text = |value: &Value| value["value"].as_str().unwrap_or_default().to_owned();
    Ok(rows.iter().map(|row| row.as_array().into_iter().flatten().map(text).collect()).collect())
}
