//! `changes()` and `total_changes()` as a pooled connection has to answer them: what former users of the
//! connection did is not shown. SQLite offers no way to reset its counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, ffi};

/// Where the present user of a connection begins to count.
#[derive(Debug, Default)]
pub struct ChangeCount {
    /// Whether the present user has prepared a statement that changes rows.
    pub began: AtomicBool,
    /// `total_changes()` of all former users.
    before: AtomicI64,
}

impl ChangeCount {
    /// A new user takes the connection over.
    pub fn reset(&self, connection: &Connection) {
        self.began.store(false, Ordering::Relaxed);
        self.before.store(total_changes(connection), Ordering::Relaxed);
        // SAFETY: the handle is valid as long as the connection is; the call takes SQLite's own lock.
        unsafe { ffi::sqlite3_set_last_insert_rowid(connection.handle(), 0) };
    }
}

/// Rows changed over the whole life of the connection, by statements and by their triggers.
pub fn total_changes(connection: &Connection) -> i64 {
    // SAFETY: the handle is valid as long as the connection is.
    unsafe { ffi::sqlite3_total_changes64(connection.handle()) }
}

/// Replaces the two built-in functions on `connection`.
pub fn install(connection: &Connection, count: &Arc<ChangeCount>) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
    let began = count.clone();
    connection.create_scalar_function("changes", 0, flags, move |context| {
        if !began.began.load(Ordering::Relaxed) {
            return Ok(0);
        }
        // SAFETY: the connection is the one that is running this function, on this thread.
        let changes = unsafe { ffi::sqlite3_changes64(context.get_connection()?.handle()) };
        Ok(changes)
    })?;
    let before = count.clone();
    connection.create_scalar_function("total_changes", 0, flags, move |context| {
        // SAFETY: as above.
        let total = unsafe { total_changes(&*context.get_connection()?) };
        Ok(total - before.before.load(Ordering::Relaxed))
    })
}
