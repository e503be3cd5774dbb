//! Running statements on a connection.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::{Batch, Rows, Statement, ffi};

use super::arguments::{self, BindError};
use super::connection::SqlConnection;
use super::output::{Gathered, Output};
use super::prepared::{Known, Prepared};
use super::text::{hidden_behind_nul, is_begin, is_begin_read_only, is_rollback, is_vacuum};
use crate::database::file::Reads;
use crate::error::{Fault, ServerError};
use crate::hrana::error::{HranaError, ProtocolError};
use crate::hrana::request::{SqlSource, Stmt};
use crate::hrana::result::{Col, DescribeCol, DescribeParam, DescribeResult};
use crate::hrana::value::ValueRef;
use crate::limits;
use crate::sqlite::coroutine::{Wait, Wake, suspend};
use crate::sqlite::functions::total_changes;

/// A statement's failure, or a request that no correct client sends.
#[derive(Debug)]
pub enum Failure {
    Statement(HranaError),
    Protocol(ProtocolError),
}

impl From<HranaError> for Failure {
    fn from(error: HranaError) -> Self {
        Self::Statement(error)
    }
}

impl From<ProtocolError> for Failure {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

/// What a statement came to, besides its rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Effect {
    pub affected_row_count: u64,
    pub last_insert_rowid: Option<i64>,
    pub rows_read: u64,
    pub rows_written: u64,
}

impl SqlConnection {
    /// Runs the one statement of `stmt`.
    pub fn execute(
        &self,
        stmt: &Stmt,
        stored: &BTreeMap<i32, String>,
        output: &mut dyn Output,
    ) -> Result<Effect, Failure> {
        let sql = stmt.sql.text(stored)?;
        let mut statement = self.prepare(sql)?;
        arguments::bind(&mut statement, stmt).map_err(|error| match error {
            BindError::Arguments(error) => error,
            BindError::Sqlite(error) => self.explain(&error),
        })?;
        let effect = self.run(&mut statement, sql, stmt.want_rows, output)?;
        if is_begin_read_only(sql) {
            self.read_only.set(true);
        }
        Ok(effect)
    }

    /// Runs all statements of a text, without arguments and rows, up to the first that fails.
    pub fn sequence(&self, source: &SqlSource, stored: &BTreeMap<i32, String>) -> Result<(), Failure> {
        let sql = source.text(stored)?;
        refuse_hidden(sql)?;
        // SQLite copies a text whose last byte isn't NUL, the whole rest of it for each statement.
        let sql = format!("{sql}\0");
        let mut batch = Batch::new(&self.sql, &sql);
        let mut nowhere = Gathered::within(usize::MAX, 0);
        loop {
            self.breathe()?;
            self.before_prepare();
            match batch.next() {
                Ok(Some(mut statement)) => {
                    let text = statement.expanded_sql().unwrap_or_default();
                    self.run(&mut statement, &text, false, &mut nowhere)?;
                }
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.explain(&error).into()),
            }
        }
    }

    /// What a statement's parameters and columns are.
    pub fn describe(&self, source: &SqlSource, stored: &BTreeMap<i32, String>) -> Result<DescribeResult, Failure> {
        let sql = source.text(stored)?;
        let statement = match self.prepare_one(sql) {
            Err(error) if error.code == "SQL_NO_STATEMENT" => return Ok(DescribeResult::default()),
            statement => statement?,
        };
        let params = (1..=statement.parameter_count())
            .map(|index| DescribeParam { name: statement.parameter_name(index).map(str::to_owned) });
        let cols = columns(&statement).into_iter();
        Ok(DescribeResult {
            params: params.collect(),
            cols: cols.map(|col| DescribeCol { name: col.name.unwrap_or_default(), decltype: col.decltype }).collect(),
            is_explain: statement.is_explain() != 0,
            is_readonly: statement.readonly(),
        })
    }

    /// A statement out of those that are kept, or prepares it.
    fn prepare(&self, sql: &str) -> Result<Prepared<'_>, HranaError> {
        if let Some(Known { inserts, changes_rows }) = self.known.get(sql) {
            self.before_prepare();
            self.observed.inserts.store(inserts, Ordering::Relaxed);
            self.observed.changes_rows.store(changes_rows, Ordering::Relaxed);
            self.changes.began.fetch_or(changes_rows, Ordering::Relaxed);
            let statement = self.sql.prepare_cached(sql).map_err(|error| self.explain(&error))?;
            return Ok(Prepared::Kept(statement));
        }
        let statement = self.prepare_one(sql)?;
        // What writes must not begin before its columns are known to fit into an answer, and those of a kept statement
        // are known only once it has begun.
        let is_keepable = statement.readonly() || statement.column_count() == 0;
        if is_keepable && !self.observed.does_more.load(Ordering::Relaxed) {
            let inserts = self.observed.inserts.load(Ordering::Relaxed);
            let changes_rows = self.observed.changes_rows.load(Ordering::Relaxed);
            self.known.add(&self.sql, sql, Known { inserts, changes_rows });
        }
        Ok(Prepared::Fresh(statement))
    }

    /// Prepares a text that must hold exactly one statement.
    fn prepare_one(&self, sql: &str) -> Result<Statement<'_>, HranaError> {
        refuse_hidden(sql)?;
        self.before_prepare();
        let sql = if is_begin_read_only(sql) { "BEGIN" } else { sql };
        let mut batch = Batch::new(&self.sql, sql);
        let first = batch.next().map_err(|error| self.explain(&error))?;
        let statement = first.ok_or_else(HranaError::no_statement)?;
        match batch.next() {
            Ok(None) => Ok(statement),
            // A second statement that does not even parse is still a second statement.
            Ok(Some(_)) | Err(_) => Err(HranaError::many_statements()),
        }
    }

    /// Lets others run now and then. Many short statements are as long as a long one, and SQLite counts the steps
    /// between two calls of the progress handler anew for each. An error says why not to go on.
    pub fn breathe(&self) -> Result<(), HranaError> {
        let statements = self.statements.get().wrapping_add(1);
        self.statements.set(statements);
        if !statements.is_multiple_of(limits::STATEMENTS_BETWEEN_YIELDS) {
            return Ok(());
        }
        match suspend(Wait::Yield) {
            Wake::Ready => Ok(()),
            Wake::Failed(error) => Err(error.into()),
            Wake::Abandon => Err(self.file.abandoned().into()),
        }
    }

    fn before_prepare(&self) {
        // What stopped the statement before this one is no reason to stop this one, and explains none of its errors: of
        // what fails in a rollback, SQLite says nothing.
        self.file.cancelled.borrow_mut().take();
        self.file.take_cause();
        let _ = self.file.database.meter.take_refusal();
        self.observed.inserts.store(false, Ordering::Relaxed);
        self.observed.changes_rows.store(false, Ordering::Relaxed);
        self.observed.does_more.store(false, Ordering::Relaxed);
        // Also the schema is read from a snapshot: outside of a transaction the durable one, so that
        // preparing never waits for the gate.
        if self.sql.is_autocommit() {
            self.file.reads.set(Reads::Durable);
        }
    }

    fn run(
        &self,
        statement: &mut Statement<'_>,
        sql: &str,
        want_rows: bool,
        output: &mut dyn Output,
    ) -> Result<Effect, HranaError> {
        let writes = !statement.readonly();
        if self.sql.is_autocommit() {
            self.read_only.set(false);
        } else if writes && self.read_only.get() {
            return Err(HranaError::sqlite(ffi::SQLITE_READONLY, "attempt to write a readonly database (the transaction was begun as READONLY)", None));
        }
        let inserts = self.observed.inserts.load(Ordering::Relaxed);
        let changes_rows = self.observed.changes_rows.load(Ordering::Relaxed);
        self.observed.vacuuming.store(is_vacuum(sql), Ordering::Relaxed);
        if writes || !self.sql.is_autocommit() || is_begin(sql) {
            self.file.reads.set(Reads::Newest);
        }
        let before = total_changes(&self.sql);
        let turn = if writes && self.sql.is_autocommit() { self.file.take_turn() } else { Ok(()) };
        let result = match turn {
            Ok(()) => {
                self.file.start_statement();
                // SQLite calls it one that does not write.
                if !writes && self.file.has_turn() && is_rollback(sql) {
                    self.file.start_rollback();
                }
                self.step_to_end(statement, want_rows, output)
            }
            Err(error) => Err(error.into()),
        };
        self.observed.vacuuming.store(false, Ordering::Relaxed);
        self.file.end_statement();
        self.file.release_idle_turn();
        let rows_read = result?;
        let changed = total_changes(&self.sql) - before;
        Ok(Effect {
            affected_row_count: if changes_rows && changed > 0 { self.sql.changes() } else { 0 },
            last_insert_rowid: (writes && inserts).then(|| self.sql.last_insert_rowid()),
            rows_read,
            rows_written: u64::try_from(changed).unwrap_or(0),
        })
    }

    fn step_to_end(
        &self,
        statement: &mut Statement<'_>,
        want_rows: bool,
        output: &mut dyn Output,
    ) -> Result<u64, HranaError> {
        let writes = !statement.readonly();
        let (mut count, mut width, mut has_begun) = (0, statement.column_count(), writes);
        if writes {
            output.begin(columns(statement))?;
        }
        let mut rows: Rows<'_> = statement.raw_query();
        loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => break,
                Err(error) => return Err(self.explain(&error)),
            };
            count += 1;
            let begun = if std::mem::replace(&mut has_begun, true) {
                Ok(())
            } else {
                // Only now: the first step may have prepared it anew, for another schema.
                width = row.as_ref().column_count();
                output.begin(columns(row.as_ref()))
            };
            let taken = begun.and_then(|()| {
                if !want_rows || width == 0 {
                    return Ok(());
                }
                let values: Vec<ValueRef<'_>> = (0..width).map(|index| value(row.get_ref(index))).collect();
                output.row(&values)
            });
            if let Err(error) = taken {
                self.give_up(rows, writes);
                return Err(error);
            }
        }
        drop(rows);
        if !has_begun {
            output.begin(columns(statement))?;
        }
        Ok(count)
    }

    /// Ends a statement whose rows nobody takes. One that writes (`INSERT … RETURNING`) would commit what it
    /// has done if it were merely reset; its error must mean that nothing was done.
    fn give_up(&self, mut rows: Rows<'_>, writes: bool) {
        if writes {
            self.sql.get_interrupt_handle().interrupt();
            while let Ok(Some(_)) = rows.next() {}
        }
    }

    /// SQLite's error, or what really happened where SQLite knows only a code.
    pub fn explain(&self, error: &rusqlite::Error) -> HranaError {
        let cause = self.file.take_cause();
        let refusal = self.observed.take_refusal();
        let meter = &self.file.database.meter;
        let (temp_refusal, memory_refusal) = (meter.temp.take_refusal(), meter.take_refusal());
        let (failure, message, offset) = match error {
            rusqlite::Error::SqliteFailure(failure, message) => (failure, message.clone(), None),
            rusqlite::Error::SqlInputError { error, msg, offset, .. } => {
                (error, Some(msg.clone()), usize::try_from(*offset).ok())
            }
            other => return HranaError::fault(Fault::Invalid, other.to_string()),
        };
        use rusqlite::ErrorCode::{AuthorizationForStatementDenied, CannotOpen, DatabaseBusy, DiskFull};
        use rusqlite::ErrorCode::{OperationInterrupted, OutOfMemory, ReadOnly, SystemIoFailure};
        match failure.code {
            OperationInterrupted => self.file.abandoned().into(),
            SystemIoFailure | DiskFull | DatabaseBusy | CannotOpen | ReadOnly if cause.is_some() => {
                cause.expect("BUG: just seen").into()
            }
            ReadOnly if self.file.database.past.is_some() => {
                let refusal = self.file.database.past.expect("BUG: just seen").refusal(&self.file.database.name);
                HranaError::sqlite(failure.extended_code, &refusal, None)
            }
            // Without a cause of the file's, it is a temporary file that found no room, or cannot be written.
            DiskFull | SystemIoFailure if temp_refusal.is_some() => {
                HranaError::sqlite(failure.extended_code, &temp_refusal.expect("BUG: just seen"), None)
            }
            // Also of a journal's memory, which SQLite calls an I/O error.
            OutOfMemory | SystemIoFailure if memory_refusal.is_some() => {
                let refusal = memory_refusal.expect("BUG: just seen").to_string();
                HranaError::sqlite(failure.extended_code, &refusal, None)
            }
            AuthorizationForStatementDenied if refusal.is_some() => {
                let why = refusal.expect("BUG: just seen");
                HranaError::sqlite(failure.extended_code, &format!("not authorized: {why}"), None)
            }
            _ => {
                let message = message.unwrap_or_else(|| failure.to_string());
                HranaError::sqlite(failure.extended_code, &message, offset)
            }
        }
    }
}

impl From<ServerError> for HranaError {
    fn from(error: ServerError) -> Self {
        error.into_hrana()
    }
}

fn refuse_hidden(sql: &str) -> Result<(), HranaError> {
    let place = hidden_behind_nul(sql);
    place.map_or(Ok(()), |(byte, line)| {
        Err(HranaError::sql_parse(&format!("there is a NUL at byte {byte}, in line {line}, and text behind it")))
    })
}

fn columns(statement: &Statement<'_>) -> Vec<Col> {
    let columns = statement.columns();
    let column = |column: &rusqlite::Column<'_>| Col {
        name: Some(column.name().to_owned()),
        decltype: column.decl_type().map(str::to_owned),
    };
    columns.map(|it| column(&it)).collect()
}

/// A column of the present row.
pub fn value(value: rusqlite::Result<rusqlite::types::ValueRef<'_>>) -> ValueRef<'_> {
    match value {
        Ok(rusqlite::types::ValueRef::Integer(integer)) => ValueRef::Integer(integer),
        Ok(rusqlite::types::ValueRef::Real(float)) => ValueRef::Float(float),
        Ok(rusqlite::types::ValueRef::Text(text)) => ValueRef::Text(text),
        Ok(rusqlite::types::ValueRef::Blob(blob)) => ValueRef::Blob(blob),
        Ok(rusqlite::types::ValueRef::Null) | Err(_) => ValueRef::Null,
    }
}
