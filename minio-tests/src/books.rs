//! All that the clients of one run know, for each database, and its comparison with what is there.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::hrana::Database;
use crate::ledger::{Ledger, Tally, TransactionId};
use crate::rows;

#[derive(Default)]
pub struct Books {
    ledgers: BTreeMap<String, Ledger>,
    pub tally: Tally,
}

impl Books {
    /// Begins a ledger for a new database.
    pub fn open(&mut self, name: &str) {
        self.ledgers.insert(name.to_owned(), Ledger::default());
    }

    /// The databases, in the order of their names.
    pub fn names(&self) -> Vec<String> {
        self.ledgers.keys().cloned().collect()
    }

    /// Adds what a round's clients of one database know.
    pub fn note(&mut self, name: &str, ledger: Ledger) {
        let tally = ledger.tally();
        self.tally.acknowledged += tally.acknowledged;
        self.tally.refused += tally.refused;
        self.tally.unknown += tally.unknown;
        self.tally.unsent += tally.unsent;
        self.ledgers.get_mut(name).expect("a database with a ledger").absorb(ledger);
    }

    /// Compares a database with what its clients know: all transactions, and every byte of those whose id is in
    /// `ids`. What is wrong, in sentences. From now on what was found is the truth: no outcome may still be
    /// open.
    pub fn check(&mut self, name: &str, database: &Database, ids: Range<TransactionId>) -> Vec<String> {
        let ledger = self.ledgers.get_mut(name).expect("a database with a ledger");
        let found = rows::found(database);
        let mut wrong = ledger.violations(&found);
        wrong.extend(rows::damage(database, ids));
        ledger.settle(&found);
        wrong.into_iter().map(|what| format!("{name}: {what}")).collect()
    }
}
