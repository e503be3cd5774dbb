//! A client's stream: the requests of one pipeline after the other on the same connection. ([`cursor`]: or one batch, whose
//! answer is sent while it runs.)

mod cursor;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::connection::SqlConnection;
use super::execute::{Effect, Failure};
use super::output::{Gathered, RESULT_BYTES};
use super::pool::{Pool, Role};
use crate::database::{Database, file};
use crate::hrana::condition::{self, StepOutcome};
use crate::hrana::error::{HranaError, ProtocolError};
use crate::hrana::request::{Batch, SqlSource, StreamRequest};
use crate::hrana::response::StreamResponse;
use crate::hrana::result::{BatchResult, StmtResult};
use crate::hrana::HranaVersion;
use crate::limits;

/// The connection whose statement is running: the executor looks here when a call suspends.
pub type Running = Rc<RefCell<Option<Rc<file::Connection>>>>;

/// The state that a baton stands for. Moves into the coroutine that serves it and back.
pub struct Stream {
    pub database: Rc<Database>,
    pub running: Running,
    /// The highest LSN (raw) shown by connections that were given back: a floor under what the present one
    /// has seen. Shared with the executor, which holds pieces of an answer at the gate.
    pub floor: Rc<Cell<u64>>,
    pool: Rc<Pool>,
    connection: Option<(Role, SqlConnection)>,
    stored: BTreeMap<i32, String>,
    closed: bool,
    /// A statement's failure ended the open transaction: what follows in the same call was meant for it.
    aborted: bool,
    /// The open transaction was rolled back because it was idle for too long; the next request is told.
    pub timed_out: bool,
    response_bytes_max: usize,
    /// What is gathered for the answer to the running pipeline, in bytes.
    response_bytes: usize,
    /// Why the running pipeline or cursor goes no further: its client has gone.
    stopped: Option<HranaError>,
    /// The highest LSN (raw) that any connection of this stream has shown.
    seen: u64,
    commits: u64,
    /// See [`Stream::is_outdated`].
    is_outdated: bool,
}

impl Stream {
    pub fn new(database: Rc<Database>, pool: Rc<Pool>, response_bytes_max: usize) -> Self {
        Self {
            database,
            running: Running::default(),
            floor: Rc::default(),
            pool,
            connection: None,
            stored: BTreeMap::new(),
            closed: false,
            aborted: false,
            timed_out: false,
            response_bytes_max,
            response_bytes: 0,
            stopped: None,
            seen: 0,
            commits: 0,
            is_outdated: false,
        }
    }

    /// The highest LSN (raw) that a reply of this stream may show.
    pub fn seen(&self) -> u64 {
        self.connection.as_ref().map_or(0, |(_, connection)| connection.file.seen.get()).max(self.seen)
    }

    /// A reply of this stream may show commits up to `lsn` (raw).
    pub fn saw(&mut self, lsn: u64) {
        self.seen = self.seen.max(lsn);
        self.floor.set(self.seen);
    }

    /// How many commits this stream has made on its present connections.
    pub fn commits(&self) -> u64 {
        self.connection.as_ref().map_or(0, |(_, connection)| connection.file.commits()) + self.commits
    }

    /// Whether a statement at a replica has failed because its snapshot was too old: begun anew, it would succeed.
    pub fn is_outdated(&self) -> bool {
        self.is_outdated || self.connection.as_ref().is_some_and(|(_, connection)| connection.file.is_outdated())
    }

    /// The VFS's side of the present connection.
    pub fn file(&self) -> Option<Rc<file::Connection>> {
        self.connection.as_ref().map(|(_, connection)| connection.file.clone())
    }

    /// Whether something is lost if the client does not come back with a baton.
    pub fn has_state(&self) -> bool {
        let in_connection = self.connection.as_ref().is_some_and(|(_, connection)| connection.has_state());
        !self.closed && (in_connection || !self.stored.is_empty() || self.timed_out)
    }

    pub fn is_in_transaction(&self) -> bool {
        self.connection.as_ref().is_some_and(|(_, connection)| !connection.sql.is_autocommit())
    }

    /// It waits for its client's next request. Memory that is kept for what the transaction may still write is for
    /// others meanwhile.
    pub fn rest(&self) {
        if let Some((_, connection)) = &self.connection {
            connection.file.rest();
        }
    }

    /// Gives the connection back, or closes it if it holds state. Runs inside a coroutine: a rollback may
    /// read pages.
    pub fn release(&mut self) {
        if let Some((role, connection)) = self.connection.take() {
            self.seen = self.seen.max(connection.file.seen.get());
            self.floor.set(self.seen);
            self.commits += connection.file.commits();
            self.is_outdated |= connection.file.is_outdated();
            self.running.borrow_mut().take();
            self.pool.give_back(role, connection);
        }
    }

    /// Rolls the open transaction back, keeping the stream for the client that may come back.
    pub fn time_out(&mut self) {
        if let Some((_, connection)) = &self.connection {
            connection.file.start_rollback();
            let _ = connection.sql.execute_batch("ROLLBACK");
            self.timed_out = true;
        }
    }

    /// Opens or takes the connection for a statement: plain reads go to a reader until something else
    /// comes.
    pub fn connection(&mut self, role: Role) -> Result<&SqlConnection, HranaError> {
        let switches = matches!(&self.connection, Some((Role::Reader, _)) if role == Role::Writer);
        if switches {
            self.release();
        }
        if self.connection.is_none() {
            let connection = match self.pool.take(role) {
                Some(connection) => connection,
                None => SqlConnection::open(&self.database)?,
            };
            *self.running.borrow_mut() = Some(connection.file.clone());
            connection.file.seen.set(connection.file.seen.get().max(self.seen));
            self.connection = Some((role, connection));
        }
        let (_, connection) = self.connection.as_ref().expect("BUG: just set");
        Ok(connection)
    }

    fn role_for(&self, source: &SqlSource) -> Role {
        let text = source.text(&self.stored).unwrap_or_default();
        if reads_only(text) { Role::Reader } else { Role::Writer }
    }

    /// Runs the requests of a pipeline in order. An error of one does not stop the next; but if the
    /// transaction that they were meant for has timed out, none of them runs, as each would commit by itself.
    pub fn pipeline(
        &mut self,
        requests: &[StreamRequest],
        version: HranaVersion,
    ) -> Result<Vec<Result<StreamResponse, HranaError>>, ProtocolError> {
        let mut results = Vec::with_capacity(requests.len());
        let timed_out = !requests.is_empty() && std::mem::take(&mut self.timed_out);
        self.response_bytes = 0;
        self.begin_call();
        for request in requests {
            if self.closed {
                return Err(ProtocolError::StreamClosed);
            }
            self.breathe();
            let result = if let Some(error) = &self.stopped {
                Err(Failure::Statement(error.clone()))
            } else if timed_out && !matches!(request, StreamRequest::Close) {
                Err(Failure::Statement(HranaError::transaction_timeout()))
            } else if self.aborted && runs_sql(request) {
                Err(Failure::Statement(HranaError::transaction_aborted()))
            } else {
                let was_in_transaction = self.is_in_transaction();
                let result = self.request(request, version);
                self.aborted |= result.is_err() && was_in_transaction && !self.is_in_transaction();
                result
            };
            match result {
                Ok(response) => {
                    let is_counted = matches!(response, StreamResponse::Execute { .. });
                    self.response_bytes += if is_counted { 0 } else { RESULT_BYTES };
                    results.push(Ok(response));
                }
                Err(Failure::Statement(error)) => results.push(Err(self.counted(error))),
                Err(Failure::Protocol(error)) => return Err(error),
            }
        }
        Ok(results)
    }

    fn begin_call(&mut self) {
        self.aborted = false;
        self.stopped = None;
    }

    /// See [`SqlConnection::breathe`].
    fn breathe(&mut self) {
        if let (None, Some((_, connection))) = (&self.stopped, &self.connection) {
            self.stopped = connection.breathe().err();
        }
    }

    /// An error counts towards the size of the answer too; where there is no room for it, it says only that.
    fn counted(&mut self, error: HranaError) -> HranaError {
        let error = if self.response_bytes > self.response_bytes_max {
            HranaError::response_too_large(self.response_bytes_max as u64)
        } else {
            error
        };
        self.response_bytes += RESULT_BYTES + error.message.len();
        error
    }

    fn request(&mut self, request: &StreamRequest, version: HranaVersion) -> Result<StreamResponse, Failure> {
        Ok(match request {
            StreamRequest::Execute { stmt } => {
                let mut gathered = self.gather();
                let role = self.role_for(&stmt.sql);
                self.connection(role)?;
                let (_, connection) = self.connection.as_ref().expect("BUG: just opened");
                let effect = connection.execute(stmt, &self.stored, &mut gathered)?;
                StreamResponse::Execute { result: self.finish(gathered, effect) }
            }
            StreamRequest::Batch { batch } => {
                condition::check_batch(batch, version)?;
                StreamResponse::Batch { result: self.batch(batch)? }
            }
            StreamRequest::Sequence { sql } => {
                self.connection(Role::Writer)?;
                let (_, connection) = self.connection.as_ref().expect("BUG: just opened");
                connection.sequence(sql, &self.stored)?;
                StreamResponse::Sequence
            }
            StreamRequest::Describe { sql } => {
                let role = self.role_for(sql);
                self.connection(role)?;
                let (_, connection) = self.connection.as_ref().expect("BUG: just opened");
                let result = connection.describe(sql, &self.stored)?;
                self.response_bytes = self.response_bytes.saturating_add(result.bytes());
                if self.response_bytes > self.response_bytes_max {
                    return Err(HranaError::response_too_large(self.response_bytes_max as u64).into());
                }
                StreamResponse::Describe { result }
            }
            StreamRequest::StoreSql { sql_id, sql } => {
                self.store_sql(*sql_id, sql)?;
                StreamResponse::StoreSql
            }
            StreamRequest::CloseSql { sql_id } => {
                self.stored.remove(sql_id);
                StreamResponse::CloseSql
            }
            StreamRequest::GetAutocommit => {
                if version < HranaVersion::Hrana3 {
                    let what = "get_autocommit";
                    return Err(ProtocolError::Version { what, minimum: HranaVersion::Hrana3 }.into());
                }
                StreamResponse::GetAutocommit { is_autocommit: !self.is_in_transaction() }
            }
            StreamRequest::Close => {
                self.closed = true;
                StreamResponse::Close
            }
        })
    }

    /// Room for what the limit leaves to this statement after those before it in the pipeline.
    fn gather(&self) -> Gathered {
        Gathered::within(self.response_bytes_max, self.response_bytes)
    }

    fn finish(&mut self, gathered: Gathered, effect: Effect) -> StmtResult {
        self.response_bytes += gathered.bytes();
        let replication_index = Some(self.seen());
        let Effect { affected_row_count, last_insert_rowid, rows_read, rows_written } = effect;
        let result = gathered.result;
        StmtResult { affected_row_count, last_insert_rowid, rows_read, rows_written, replication_index, ..result }
    }

    fn store_sql(&mut self, sql_id: i32, sql: &str) -> Result<(), Failure> {
        if self.stored.contains_key(&sql_id) {
            return Err(ProtocolError::SqlTextExists { sql_id }.into());
        }
        if sql.len() > limits::STORED_SQL_BYTES_MAX {
            return Err(HranaError::sql_store_too_large(sql.len(), limits::STORED_SQL_BYTES_MAX).into());
        }
        if self.stored.len() >= limits::STORED_SQL_MAX {
            return Err(HranaError::sql_store_too_many(self.stored.len()).into());
        }
        self.stored.insert(sql_id, sql.to_owned());
        Ok(())
    }

    fn batch(&mut self, batch: &Batch) -> Result<BatchResult, Failure> {
        let mut result = BatchResult {
            step_results: Vec::with_capacity(batch.steps.len()),
            step_errors: Vec::with_capacity(batch.steps.len()),
            replication_index: None,
        };
        let mut outcomes = Vec::with_capacity(batch.steps.len());
        for step in &batch.steps {
            let autocommit = || !self.is_in_transaction();
            let runs = step.condition.as_ref().map_or(Ok(true), |it| condition::evaluate(it, &outcomes, &autocommit))?;
            let (ok, error) = if runs { self.batch_step(step)? } else { (None, None) };
            outcomes.push(match (&ok, &error) {
                (Some(_), _) => StepOutcome::Ok,
                (None, Some(_)) => StepOutcome::Error,
                (None, None) => StepOutcome::Skipped,
            });
            result.step_results.push(ok);
            result.step_errors.push(error);
        }
        result.replication_index = Some(self.seen());
        Ok(result)
    }

    fn batch_step(
        &mut self,
        step: &crate::hrana::request::BatchStep,
    ) -> Result<(Option<StmtResult>, Option<HranaError>), Failure> {
        self.breathe();
        if let Some(error) = self.stopped.clone() {
            return self.failed_step(error);
        }
        if self.aborted {
            return self.failed_step(HranaError::transaction_aborted());
        }
        let was_in_transaction = self.is_in_transaction();
        let mut gathered = self.gather();
        let role = self.role_for(&step.stmt.sql);
        if let Err(error) = self.connection(role) {
            return self.failed_step(error);
        }
        let (_, connection) = self.connection.as_ref().expect("BUG: just opened");
        let result = connection.execute(&step.stmt, &self.stored, &mut gathered);
        self.aborted |= result.is_err() && was_in_transaction && !self.is_in_transaction();
        match result {
            Ok(effect) => Ok((Some(self.finish(gathered, effect)), None)),
            Err(Failure::Statement(error)) => self.failed_step(error),
            Err(protocol) => Err(protocol),
        }
    }

    /// Too large is the whole batch's failure, as what follows could not be told either.
    fn failed_step(&mut self, error: HranaError) -> Result<(Option<StmtResult>, Option<HranaError>), Failure> {
        if error.code == "RESPONSE_TOO_LARGE" || self.response_bytes > self.response_bytes_max {
            return Err(HranaError::response_too_large(self.response_bytes_max as u64).into());
        }
        Ok((None, Some(self.counted(error))))
    }
}

/// Whether a request would run a statement.
fn runs_sql(request: &StreamRequest) -> bool {
    matches!(
        request,
        StreamRequest::Execute { .. } | StreamRequest::Batch { .. } | StreamRequest::Sequence { .. }
    )
}

/// A guess from the first word, to pick the warmer connection. Being wrong costs a cold cache.
fn reads_only(sql: &str) -> bool {
    let word: String = sql.trim_start().chars().take(8).collect::<String>().to_ascii_uppercase();
    word.starts_with("SELECT") || word.starts_with("VALUES") || word.starts_with("EXPLAIN")
}
