//! Idle connections of one database. Readers of durable state and writers have separate pools, because
//! each switch between snapshots costs a connection the pages that SQLite cached in it.

use std::cell::RefCell;

use super::connection::SqlConnection;
use crate::limits;

/// What a connection was last used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Reader,
    Writer,
}

#[derive(Default)]
pub struct Pool {
    readers: RefCell<Vec<SqlConnection>>,
    writers: RefCell<Vec<SqlConnection>>,
}

impl Pool {
    fn of(&self, role: Role) -> &RefCell<Vec<SqlConnection>> {
        match role {
            Role::Reader => &self.readers,
            Role::Writer => &self.writers,
        }
    }

    /// The connection that was given back last: its cache is the warmest.
    pub fn take(&self, role: Role) -> Option<SqlConnection> {
        self.of(role).borrow_mut().pop()
    }

    /// Keeps a connection without state for the next user; closes others, and those that are too many or take memory
    /// that others need.
    pub fn give_back(&self, role: Role, connection: SqlConnection) {
        let database = &connection.file.database;
        if connection.has_state() || database.lost().is_some() || database.node.sql.is_full() {
            // To close it rolls back what is open.
            connection.file.start_rollback();
            return;
        }
        connection.reset();
        // A reader whose schema is not durable yet would make plain reads wait.
        if role == Role::Reader && connection.file.seen.get() > 0 {
            return;
        }
        let mut pool = self.of(role).borrow_mut();
        if pool.len() < limits::POOLED_CONNECTIONS_MAX {
            pool.push(connection);
        }
    }

    /// Closes all idle connections, and tells how many there were.
    pub fn clear(&self) -> usize {
        let idle = (self.readers.take(), self.writers.take());
        idle.0.len() + idle.1.len()
    }
}
