//! Cursors: a batch whose answer leaves while it runs, in pieces, each behind the output gate.

use super::Stream;
use crate::hrana::condition::{self, StepOutcome};
use crate::hrana::cursor::{self, CursorEntry};
use crate::hrana::error::{HranaError, ProtocolError};
use crate::hrana::request::{Batch, BatchStep};
use crate::hrana::result::Col;
use crate::hrana::value::ValueRef;
use crate::session::execute::{Effect, Failure};
use crate::session::output::{Output, row_bytes};
use crate::sqlite::coroutine::{Wait, Wake, suspend};

/// Pieces of a cursor's answer are sent at about this size.
const PIECE_BYTES: usize = 32 << 10;

impl Stream {
    /// Runs a batch, sending its entries while it runs. The caller has sent the first line.
    pub fn cursor(&mut self, batch: &Batch) -> Result<(), ProtocolError> {
        let mut pieces = Pieces { row_bytes_max: self.response_bytes_max, ..Pieces::default() };
        self.begin_call();
        let result = self.cursor_steps(batch, &mut pieces);
        pieces.entry(&match &result {
            Ok(true) => CursorEntry::ReplicationIndex { replication_index: Some(self.seen()) },
            Ok(false) => CursorEntry::Error { error: HranaError::transaction_timeout() },
            // It is too late for a status of 400: the answer has begun.
            Err(error) => CursorEntry::Error { error: HranaError::new(error.code(), error.to_string()) },
        });
        if !pieces.broken {
            pieces.flush();
        }
        result.map(|_| ())
    }

    /// Runs the steps; false if the transaction that they were meant for has timed out.
    fn cursor_steps(&mut self, batch: &Batch, pieces: &mut Pieces) -> Result<bool, ProtocolError> {
        if std::mem::take(&mut self.timed_out) {
            return Ok(false);
        }
        let mut outcomes = Vec::with_capacity(batch.steps.len());
        for (index, step) in batch.steps.iter().enumerate() {
            let autocommit = || !self.is_in_transaction();
            let runs = step.condition.as_ref().map_or(Ok(true), |it| condition::evaluate(it, &outcomes, &autocommit))?;
            outcomes.push(if runs { self.cursor_step(index, step, pieces)? } else { StepOutcome::Skipped });
            self.breathe();
            if pieces.broken || self.stopped.is_some() {
                break;
            }
        }
        Ok(true)
    }

    fn cursor_step(
        &mut self,
        index: usize,
        step: &BatchStep,
        pieces: &mut Pieces,
    ) -> Result<StepOutcome, ProtocolError> {
        pieces.step = u32::try_from(index).unwrap_or(u32::MAX);
        if self.aborted {
            pieces.entry(&CursorEntry::StepError { step: pieces.step, error: HranaError::transaction_aborted() });
            return Ok(StepOutcome::Error);
        }
        let was_in_transaction = self.is_in_transaction();
        let role = self.role_for(&step.stmt.sql);
        let opened = self.connection(role).map(|_| ());
        let result = opened.map_err(Failure::from).and_then(|()| {
            let (_, connection) = self.connection.as_ref().expect("BUG: just opened");
            connection.execute(&step.stmt, &self.stored, pieces)
        });
        self.aborted |= result.is_err() && was_in_transaction && !self.is_in_transaction();
        match result {
            Ok(effect) => {
                let Effect { affected_row_count, last_insert_rowid, .. } = effect;
                pieces.entry(&CursorEntry::StepEnd { affected_row_count, last_insert_rowid });
                Ok(StepOutcome::Ok)
            }
            Err(Failure::Statement(error)) => {
                pieces.entry(&CursorEntry::StepError { step: pieces.step, error });
                Ok(StepOutcome::Error)
            }
            Err(Failure::Protocol(error)) => Err(error),
        }
    }
}

/// A cursor's answer on its way to the client.
#[derive(Default)]
struct Pieces {
    step: u32,
    bytes: Vec<u8>,
    broken: bool,
    /// What a row may be.
    row_bytes_max: usize,
}

impl Pieces {
    fn entry(&mut self, entry: &CursorEntry) {
        cursor::write_line(&mut self.bytes, entry);
        if self.bytes.len() >= PIECE_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let piece = std::mem::take(&mut self.bytes);
        self.broken |= !piece.is_empty() && !matches!(suspend(Wait::Send(piece.into())), Wake::Ready);
    }
}

impl Output for Pieces {
    fn begin(&mut self, cols: Vec<Col>) -> Result<(), HranaError> {
        self.entry(&CursorEntry::StepBegin { step: self.step, cols });
        Ok(())
    }

    fn row(&mut self, values: &[ValueRef<'_>]) -> Result<(), HranaError> {
        if row_bytes(values) > self.row_bytes_max {
            return Err(HranaError::response_too_large(self.row_bytes_max as u64));
        }
        cursor::write_row_line(&mut self.bytes, values.iter().copied());
        if self.bytes.len() >= PIECE_BYTES {
            self.flush();
        }
        if self.broken { Err(HranaError::new("SQLITE_INTERRUPT", "the client has gone")) } else { Ok(()) }
    }
}
