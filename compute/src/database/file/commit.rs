//! A transaction takes effect, or is refused.
//!
//! A refused commit answers only `SQLITE_IOERR_*` or `SQLITE_FULL`: only these make the pager drop its
//! cache, so that the connection never reads its own refused rows. The real cause stays in
//! [`Connection::take_cause`].

use std::time::Duration;

use segments::page::PAGE_BYTES;
use walstore::mutant::{self, Mutant};

use super::Connection;
use crate::error::{Fault, ServerError};
use crate::limits;
use crate::sqlite::Code;

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

    /// The running transaction takes effect, or is refused.
    pub(super) fn publish(&self) -> Result<(), Code> {
        let before = self.pinned().page_count;
        let nothing = self.written.borrow().is_empty() && self.size.get().is_none_or(|size| size == before);
        if nothing {
            self.drop_written();
            return Ok(());
        }
        if let Some((code, error)) = self.refusal() {
            self.drop_written();
            let code = if mutant::is_on(Mutant::RefuseWithBusy) { Code::BUSY } else { code };
            return Err(self.fail(code, error));
        }
        assert!(self.has_turn(), "BUG: a commit without the turn");
        let page_count = self.page_count();
        let pages = std::mem::take(&mut *self.written.borrow_mut());
        self.drop_written();
        let published = self.database.publish(pages, page_count);
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
