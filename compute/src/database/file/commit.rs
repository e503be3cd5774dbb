//! A transaction takes effect, or is refused.
//!
//! A refused commit answers only `SQLITE_IOERR_*` or `SQLITE_FULL`: only these make the pager drop its
//! cache, so that the connection never reads its own refused rows. The real cause stays in
//! [`Connection::take_cause`].
//!
//! # Memory
//! What a transaction has written is lent by the node, and before it takes effect as much again, for what comes after:
//! encoding it, and the pack of its fold. So whatever is acknowledged can be stored and folded. A small transaction
//! gets that at once. A large one that does not fit beside others waits until they are stored, as it would wait for its
//! turn.

use std::time::Duration;

use segments::page::PAGE_BYTES;
use walstore::mutant::{self, Mutant};

use super::Connection;
use crate::error::{Fault, ServerError};
use crate::limits;
use crate::sqlite::Code;
use crate::sqlite::coroutine::Wait;

impl Connection {
    fn refusal(&self) -> Option<(Code, ServerError)> {
        let node = &self.database.node;
        let refuse = |code, fault, text: String| Some((code, ServerError::new(fault, text)));
        if let Some(reason) = self.database.lost() {
            return refuse(Code::IO_WRITE, Fault::Fenced, reason);
        }
        if !node.lease_is_valid() {
            let text = "this node has lost touch with the bucket; nothing was written; try again later";
            return refuse(Code::IO_WRITE, Fault::Retry, text.into());
        }
        let bytes = self.written.borrow().len() * PAGE_BYTES;
        if bytes > node.settings.transaction_bytes_max {
            let max = node.settings.transaction_bytes_max;
            let text = format!("a transaction of {bytes} bytes is over the limit of {max}; split it");
            return refuse(Code::FULL, Fault::Invalid, text);
        }
        let stalled = node.log.waiting_since_of(self.database.id).is_some_and(|since| {
            Duration::from_micros(node.seam.boot_micros().saturating_sub(since)) > node.settings.stall_timeout
        });
        if stalled || node.log.backlog_bytes() > limits::BACKLOG_BYTES_MAX {
            let text = "the bucket does not take writes at the moment; nothing was written; try again later";
            return refuse(Code::IO_WRITE, Fault::Retry, text.into());
        }
        None
    }

    /// Waits until the node lends so much for the running transaction. After it was refused once, or was stopped, whatever
    /// SQLite writes is to take back what the statement did: that neither waits nor fails, and is little, as SQLite has
    /// in its cache what it has not written before.
    pub(super) fn make_room(&self, bytes: usize) -> Result<(), Code> {
        // Most come to an end before they are counted.
        if bytes <= limits::UNCOUNTED_TRANSACTION_BYTES.max(self.loan.borrow().bytes()) {
            return Ok(());
        }
        let bytes = bytes.next_multiple_of(limits::TRANSACTION_STEP_BYTES);
        let takes_back = self.takes_back.get() || self.cancelled.borrow().is_some();
        if bytes <= self.database.node.settings.small_transaction_bytes || takes_back {
            self.loan.borrow_mut().set(bytes);
            return Ok(());
        }
        self.wait_for_room(bytes).map_err(|error| {
            self.takes_back.set(true);
            self.fail(Code::FULL, error)
        })
    }

    fn wait_for_room(&self, bytes: usize) -> Result<(), ServerError> {
        let node = &self.database.node;
        let until = node.seam.boot_micros().saturating_add(node.settings.busy_timeout.as_micros() as u64);
        while !self.loan.borrow_mut().try_set_large(bytes) {
            if node.seam.boot_micros() >= until {
                // As large as it is, and not what it takes to store it.
                let written = self.written.borrow().len() * PAGE_BYTES;
                let text = format!(
                    "this node has no memory left (--memory) for a transaction of {written} bytes and more, beside \
                     others that are being stored; nothing was written; try again later"
                );
                return Err(ServerError::new(Fault::Retry, text));
            }
            self.wait(Wait::Memory)?;
        }
        Ok(())
    }

    /// The running transaction takes effect, or is refused.
    pub(super) fn publish(&self) -> Result<(), Code> {
        let before = self.pinned().page_count;
        let nothing = self.written.borrow().is_empty() && self.size.get().is_none_or(|size| size == before);
        if nothing {
            self.drop_written();
            return Ok(());
        }
        let bytes = self.written.borrow().len() * PAGE_BYTES;
        let is_large = bytes > self.database.node.settings.small_transaction_bytes;
        let room = if is_large { self.make_room(2 * bytes) } else { Ok(()) };
        if let Err(code) = room {
            self.drop_written();
            return Err(code);
        }
        if let Some((code, error)) = self.refusal() {
            self.drop_written();
            let code = if mutant::is_on(Mutant::RefuseWithBusy) { Code::BUSY } else { code };
            return Err(self.fail(code, error));
        }
        assert!(self.has_turn(), "BUG: a commit without the turn");
        let page_count = self.page_count();
        let pages = std::mem::take(&mut *self.written.borrow_mut());
        // Most have borrowed nothing.
        let mut loan = self.database.node.cache.lend();
        if self.loan.borrow().bytes() > 0 {
            std::mem::swap(&mut *self.loan.borrow_mut(), &mut loan);
        }
        self.drop_written();
        let published = self.database.publish(pages, page_count, loan);
        let lsn = published.map_err(|error| {
            self.fail(Code::FULL, ServerError::new(Fault::Invalid, format!("{error}; split it")))
        })?;
        self.saw(Some(lsn));
        self.commits.set(self.commits.get() + 1);
        *self.snapshot.borrow_mut() = Some(self.database.newest_snapshot());
        self.last_segment.forget();
        Ok(())
    }
}
