//! Statements that a connection keeps prepared, because clients send the same texts again and again.
//!
//! Kept is what only reads and changes rows: its text says all that the authorizer found out when it was prepared, and
//! SQLite itself prepares it anew when the schema has changed. Whatever else there is (pragmas, transactions, changes of
//! the schema) is prepared each time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use rusqlite::{CachedStatement, Connection, Statement};

use crate::limits;

/// A statement to run.
pub enum Prepared<'c> {
    Fresh(Statement<'c>),
    /// Goes back to those that are kept.
    Kept(CachedStatement<'c>),
}

impl<'c> Deref for Prepared<'c> {
    type Target = Statement<'c>;

    fn deref(&self) -> &Statement<'c> {
        match self {
            Self::Fresh(statement) => statement,
            Self::Kept(statement) => statement,
        }
    }
}

impl<'c> DerefMut for Prepared<'c> {
    fn deref_mut(&mut self) -> &mut Statement<'c> {
        match self {
            Self::Fresh(statement) => statement,
            Self::Kept(statement) => statement,
        }
    }
}

/// What the authorizer found out about a statement that may be kept.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub inserts: bool,
    pub changes_rows: bool,
}

/// The texts of the statements that are kept, or will be when they come again: a text that comes once is not worth it.
#[derive(Default)]
pub struct KnownTexts(RefCell<BTreeMap<String, Known>>);

impl KnownTexts {
    pub fn get(&self, sql: &str) -> Option<Known> {
        self.0.borrow().get(sql).copied()
    }

    /// Remembers a text. When there are too many, all are forgotten: whoever uses more does not come back to each soon.
    pub fn add(&self, connection: &Connection, sql: &str, known: Known) {
        if sql.len() > limits::KEPT_STATEMENT_BYTES_MAX {
            return;
        }
        let mut texts = self.0.borrow_mut();
        if texts.len() >= limits::KEPT_STATEMENTS_MAX {
            texts.clear();
            connection.flush_prepared_statement_cache();
        }
        texts.insert(sql.to_owned(), known);
    }
}
