//! What SQLite asks of the file: each call of the VFS, by what a [`Connection`] has.

use std::ffi::c_int;
use std::rc::Rc;

use rusqlite::ffi;
use segments::page::{PAGE_BYTES, Page, PageNo};
use walstore::mutant::{self, Mutant};

use super::{Connection, Reads};
use crate::error::{Fault, ServerError};
use crate::sqlite::Code;
use crate::sqlite::vfs::VfsFile;

/// The VFS's half of a [`Connection`].
pub struct DatabaseFile(pub Rc<Connection>);

fn page_at(offset: u64) -> Result<(PageNo, usize), Code> {
    let index = u32::try_from(offset / PAGE_BYTES as u64).map_err(|_| Code::IO)?;
    let page_no = PageNo::new(index.checked_add(1).ok_or(Code::IO)?).ok_or(Code::IO)?;
    Ok((page_no, (offset % PAGE_BYTES as u64) as usize))
}

impl VfsFile for DatabaseFile {
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Code> {
        let size = u64::from(self.0.page_count()) * PAGE_BYTES as u64;
        let inside = buffer.len().min(usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX));
        let mut done = 0;
        while done < inside {
            let (page_no, start) = page_at(offset + done as u64)?;
            let count = (PAGE_BYTES - start).min(inside - done);
            let page = self.0.page(page_no)?;
            buffer[done..done + count].copy_from_slice(&page.as_bytes()[start..start + count]);
            done += count;
        }
        Ok(inside)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<(), Code> {
        let connection = &self.0;
        let (page_no, start) = page_at(offset)?;
        if start != 0 || bytes.len() != PAGE_BYTES || connection.level.get() < ffi::SQLITE_LOCK_RESERVED {
            let text = format!("SQLite wrote {} bytes at {offset}: not a page of a transaction", bytes.len());
            return Err(connection.fail(Code::IO_WRITE, ServerError::new(Fault::Corrupt, text)));
        }
        let size = connection.page_count().max(page_no.get());
        let (count, is_new) = {
            let written = connection.written.borrow();
            (written.len() + 1, !written.contains_key(&page_no))
        };
        let max = connection.database.node.settings.transaction_bytes_max;
        // What is being taken back is looked at when it commits.
        if is_new && count * PAGE_BYTES > max && !connection.takes_back.get() {
            let text = format!("the transaction is over the limit of {max} bytes (--max-transaction-size); split it");
            return Err(connection.fail(Code::FULL, ServerError::new(Fault::Invalid, text)));
        }
        if is_new {
            connection.make_room(count * PAGE_BYTES)?;
        }
        let page = Page::copy_of(bytes.try_into().map_err(|_| Code::IO_WRITE)?);
        connection.written.borrow_mut().insert(page_no, page);
        connection.size.set(Some(size));
        Ok(())
    }

    fn truncate(&self, size: u64) -> Result<(), Code> {
        let page_count = u32::try_from(size.div_ceil(PAGE_BYTES as u64)).map_err(|_| Code::IO)?;
        self.0.written.borrow_mut().retain(|page_no, _| page_no.get() <= page_count);
        self.0.size.set(Some(page_count));
        Ok(())
    }

    fn size(&self) -> Result<u64, Code> {
        Ok(u64::from(self.0.page_count()) * PAGE_BYTES as u64)
    }

    fn lock(&self, level: c_int) -> Result<(), Code> {
        let connection = &self.0;
        if level <= connection.level.get() {
            return Ok(());
        }
        if level == ffi::SQLITE_LOCK_SHARED {
            if let Some(reason) = connection.database.lost() {
                return Err(connection.fail(Code::IO, ServerError::new(Fault::Fenced, reason)));
            }
            connection.pin();
        } else if connection.level.get() < ffi::SQLITE_LOCK_RESERVED {
            if let Some(replica) = &connection.database.replica {
                return Err(connection.fail(Code::READONLY, replica.refusal(&connection.database.name)));
            }
            if connection.database.past.is_some() {
                return Err(Code::READONLY);
            }
            let is_stale = || connection.snapshot.borrow().as_ref().is_none_or(|it| !connection.database.is_newest(it));
            if !connection.has_turn() && connection.database.is_overfull() && is_stale() {
                // Waiting for room would wait for this very reader.
                connection.reads.set(Reads::Newest);
                return Err(Code::BUSY_SNAPSHOT);
            }
            connection.take_turn().map_err(|error| connection.fail(Code::BUSY, error))?;
            let newest = connection.snapshot.borrow().as_ref().is_some_and(|it| connection.database.is_newest(it));
            if !newest {
                connection.reads.set(Reads::Newest);
                return Err(Code::BUSY_SNAPSHOT);
            }
        }
        connection.level.set(level);
        Ok(())
    }

    fn unlock(&self, level: c_int) -> Result<(), Code> {
        let connection = &self.0;
        let was_writing = connection.level.get() >= ffi::SQLITE_LOCK_RESERVED;
        connection.level.set(level.min(connection.level.get()));
        if was_writing && level < ffi::SQLITE_LOCK_RESERVED {
            connection.drop_written();
            connection.give_turn_back();
        }
        if level == ffi::SQLITE_LOCK_NONE {
            connection.unpin();
        }
        Ok(())
    }

    fn commit(&self) -> Result<(), Code> {
        if mutant::is_on(Mutant::PublishOnSync) { Ok(()) } else { self.0.publish() }
    }

    fn sync(&self) -> Result<(), Code> {
        if mutant::is_on(Mutant::PublishOnSync) { self.0.publish() } else { Ok(()) }
    }

    fn pragma(&self, name: &str, argument: Option<&str>) -> Option<Result<String, String>> {
        match (name.to_ascii_lowercase().as_str(), argument) {
            // What it comes to, whoever asks for another: only the running transaction has one, for itself, and what is
            // large of it is on the local disk (`sqlite/temp.rs`).
            ("journal_mode", _) => Some(Ok("memory".into())),
            ("locking_mode", _) => Some(Ok("normal".into())),
            // Writers take turns, for as long as the server says. SQLite's own way to wait would hold the core up.
            ("busy_timeout", _) => Some(Ok(self.0.database.node.settings.busy_timeout.as_millis().to_string())),
            // Pages are 4096 bytes for good; tools that ask for another size are not refused.
            ("page_size", Some(_)) => Some(Ok(PAGE_BYTES.to_string())),
            _ => None,
        }
    }
}
