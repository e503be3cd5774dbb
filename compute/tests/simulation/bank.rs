//! Transfers between accounts: every one is whole or absent, and the sum never changes.

use std::collections::BTreeMap;

use crate::client::{BANKS, Client, Outcome};
use crate::oracle::Examiner;

const ACCOUNTS: u64 = 5;
const BALANCE: i64 = 1_000;

#[derive(Clone, Debug)]
struct Transfer {
    database: &'static str,
    id: String,
    amount: i64,
    outcome: Outcome,
}

#[derive(Default)]
pub struct Bank {
    transfers: Vec<Transfer>,
}

impl Bank {
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.transfers.iter().filter(|transfer| transfer.outcome == outcome).count() as u64
    }
}

impl Client {
    pub async fn prepare_banks(&mut self) {
        let accounts: Vec<String> = (0..ACCOUNTS).map(|id| format!("({id}, {BALANCE})")).collect();
        let sql = format!(
            "BEGIN IMMEDIATE; CREATE TABLE IF NOT EXISTS account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
             CREATE TABLE IF NOT EXISTS transfer(id TEXT PRIMARY KEY, origin, target, amount, filler);
             INSERT OR IGNORE INTO account VALUES {}; COMMIT",
            accounts.join(", ")
        );
        for database in BANKS {
            self.insist(database, &sql).await;
        }
    }

    pub async fn transfer(&mut self) {
        let database = *self.rng.pick(&BANKS);
        let (id, amount) = (self.next_id(), 1 + self.rng.below(50) as i64);
        let at = {
            let mut bank = self.story.bank.borrow_mut();
            bank.transfers.push(Transfer { database, id: id.clone(), amount, outcome: Outcome::Unknown });
            bank.transfers.len() - 1
        };
        let steps = self.steps(&id, amount);
        let outcome = match self.rng.below(5) {
            0 => {
                let sql = format!("INSERT INTO transfer VALUES ('{id}', 0, 0, {amount}, NULL)");
                self.alone(database, &sql).await
            }
            1 => self.in_one_batch(database, &steps, false).await,
            2 => self.interactively(database, "BEGIN IMMEDIATE", &steps, |_, _| ()).await,
            3 => self.interactively(database, "BEGIN", &steps, |_, _| ()).await,
            _ => self.in_one_batch(database, &steps, true).await,
        };
        self.note(format!("transfer {id}: {outcome:?}"));
        self.story.bank.borrow_mut().transfers[at].outcome = outcome;
    }

    fn steps(&mut self, id: &str, amount: i64) -> Vec<String> {
        let from = self.rng.below(ACCOUNTS);
        let to = (from + 1 + self.rng.below(ACCOUNTS - 1)) % ACCOUNTS;
        let bytes = self.rng.below(6_000);
        vec![
            format!("UPDATE account SET balance = balance - {amount} WHERE id = {from}"),
            format!("UPDATE account SET balance = balance + {amount} WHERE id = {to}"),
            format!("INSERT INTO transfer VALUES ('{id}', {from}, {to}, {amount}, randomblob({bytes}))"),
        ]
    }

    /// Any state that is ever shown has all the money.
    pub async fn audit(&mut self) {
        let database = *self.rng.pick(&BANKS);
        let Some(rows) = self.query(database, "SELECT count(*), total(balance) FROM account").await else { return };
        let expected = [ACCOUNTS.to_string(), (ACCOUNTS as i64 * BALANCE).to_string()];
        let found = rows.first().map(|row| (row[0].clone(), row[1].parse::<f64>().unwrap_or(f64::NAN)));
        if found.as_ref().is_none_or(|(count, sum)| *count != expected[0] || *sum != ACCOUNTS as f64 * BALANCE as f64) {
            self.story.breaks(format!("I11: {database} showed accounts that never were: {found:?}"));
        }
    }
}

impl Bank {
    pub async fn examine(&self, examiner: &Examiner<'_>, database: &str) -> Result<(), String> {
        let mine = || self.transfers.iter().filter(|transfer| transfer.database == database);
        if !examiner.has_table(database, "transfer").await? {
            let acknowledged = mine().any(|transfer| transfer.outcome == Outcome::Acknowledged);
            return if acknowledged { Err("I1: acknowledged transfers, but no tables".into()) } else { Ok(()) };
        }
        let sent: BTreeMap<&str, &Transfer> = mine().map(|transfer| (transfer.id.as_str(), transfer)).collect();
        let found = examiner.rows(database, "SELECT id, origin, target, amount FROM transfer ORDER BY id").await?;
        let mut balances = vec![BALANCE; ACCOUNTS as usize];
        for row in &found {
            let transfer = sent.get(row[0].as_str()).ok_or_else(|| format!("I12: {} was never sent", row[0]))?;
            if transfer.outcome == Outcome::Refused {
                return Err(format!("I11: {} is there, but its client was told that nothing was done", row[0]));
            }
            let number = |at: usize| row[at].parse::<i64>().map_err(|_| format!("I9: {} is damaged", row[0]));
            if number(3)? != transfer.amount {
                return Err(format!("I9: {} has another amount", row[0]));
            }
            balances[number(1)? as usize] -= transfer.amount;
            balances[number(2)? as usize] += transfer.amount;
        }
        let present: Vec<&str> = found.iter().map(|row| row[0].as_str()).collect();
        for transfer in mine().filter(|transfer| transfer.outcome == Outcome::Acknowledged) {
            if present.binary_search(&transfer.id.as_str()).is_err() {
                return Err(format!("I1: {} was acknowledged and is gone", transfer.id));
            }
        }
        let accounts = examiner.rows(database, "SELECT balance FROM account ORDER BY id").await?;
        let expected: Vec<Vec<String>> = balances.iter().map(|balance| vec![balance.to_string()]).collect();
        if accounts != expected {
            return Err(format!("I11: balances {accounts:?} do not follow from the transfers: {expected:?}"));
        }
        Ok(())
    }
}
