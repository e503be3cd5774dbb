//! Temporary files: journals, sorters, the copy that VACUUM makes. In memory up to a cap, if there is room for it, then
//! in a nameless local file, which counts against the [space](super::temp_space) of its database and its node.

use std::cell::RefCell;
use std::ffi::c_int;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::Code;
use super::memory::{self, Meter};
use super::temp_space::{TempShare, Use};
use super::vfs::VfsFile;
use crate::limits;

thread_local! {
    static DIRECTORY: RefCell<PathBuf> = RefCell::new(std::env::temp_dir());
}

/// Where this thread's temporary files overflow to.
pub fn set_thread_directory(directory: PathBuf) {
    DIRECTORY.with_borrow_mut(|slot| *slot = directory);
}

/// What a file in memory has room for at once: the journal of a usual transaction.
const FIRST_BYTES: usize = 16 << 10;

enum Content {
    /// The payer is charged for each byte.
    Memory(Vec<u8>),
    Disk { file: File, size: u64 },
}

impl Content {
    fn disk_bytes(&self) -> u64 {
        match self {
            Self::Memory(_) => 0,
            Self::Disk { size, .. } => *size,
        }
    }
}

/// One temporary file. Gone when it is closed.
pub struct TempFile {
    content: RefCell<Content>,
    of: Use,
    /// The meter of the database that pays for it: whose coroutine opened it.
    payer: Option<Arc<Meter>>,
}

impl TempFile {
    /// An empty file, at the cost of the database whose coroutine runs on this thread.
    pub fn open(of: Use) -> Self {
        Self { content: RefCell::new(Content::Memory(Vec::new())), of, payer: memory::charged() }
    }

    fn share(&self) -> Option<&TempShare> {
        self.payer.as_ref().map(|meter| &meter.temp)
    }

    /// Counts `bytes` more on disk. They are given back with the file's size.
    fn charge(&self, bytes: u64) -> Result<(), Code> {
        if self.share().is_none_or(|share| share.charge(self.of, bytes)) { Ok(()) } else { Err(Code::FULL) }
    }

    fn credit(&self, bytes: u64) {
        if let Some(share) = self.share() {
            share.credit(self.of, bytes);
        }
    }

    /// Counts memory beyond what it has, if there is room for that.
    fn charge_memory(&self, bytes: usize) -> bool {
        self.payer.as_ref().is_none_or(|meter| meter.charge_file(bytes))
    }

    fn credit_memory(&self, bytes: usize) {
        if let Some(meter) = &self.payer {
            meter.credit_file(bytes);
        }
    }

    /// Moves it to the disk, or leaves it as it is. What fails is an I/O error, as SQLite takes the whole transaction back
    /// for one: after some others, such as a file that cannot be opened, it would go on with half of what a statement did.
    fn spill(&self, content: &mut Content) -> Result<(), Code> {
        let Content::Memory(bytes) = content else { return Ok(()) };
        let size = bytes.len() as u64;
        let directory = DIRECTORY.with_borrow(PathBuf::clone);
        let file = tempfile::tempfile_in(directory).map_err(|error| self.failed(&error))?;
        self.charge(size)?;
        if let Err(error) = file.write_all_at(bytes, 0) {
            self.credit(size);
            return Err(self.failed(&error));
        }
        self.credit_memory(bytes.len());
        *content = Content::Disk { size, file };
        Ok(())
    }

    fn failed(&self, error: &std::io::Error) -> Code {
        if let Some(share) = self.share() {
            share.has_failed(error);
        }
        if error.kind() == std::io::ErrorKind::StorageFull { Code::FULL } else { Code::IO_WRITE }
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let content = self.content.borrow();
        self.credit(content.disk_bytes());
        if let Content::Memory(bytes) = &*content {
            self.credit_memory(bytes.len());
        }
    }
}

impl VfsFile for TempFile {
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Code> {
        match &*self.content.borrow() {
            Content::Memory(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                let count = buffer.len().min(bytes.len() - start);
                buffer[..count].copy_from_slice(&bytes[start..start + count]);
                Ok(count)
            }
            Content::Disk { file, size } => {
                let inside = size.saturating_sub(offset);
                let count = buffer.len().min(usize::try_from(inside).unwrap_or(usize::MAX));
                file.read_exact_at(&mut buffer[..count], offset).map_err(|_| Code::IO_READ)?;
                Ok(count)
            }
        }
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<(), Code> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(Code::FULL)?;
        let mut content = self.content.borrow_mut();
        let growth = match &*content {
            Content::Memory(memory) => usize::try_from(end).unwrap_or(usize::MAX).saturating_sub(memory.len()),
            Content::Disk { .. } => 0,
        };
        if end > limits::TEMP_MEMORY_BYTES_MAX as u64 || !self.charge_memory(growth) {
            self.spill(&mut content)?;
        }
        match &mut *content {
            Content::Memory(memory) => {
                let (start, end) = (offset as usize, end as usize);
                if memory.capacity() == 0 {
                    memory.reserve(FIRST_BYTES);
                }
                memory.resize(memory.len().max(end), 0);
                memory[start..end].copy_from_slice(bytes);
            }
            Content::Disk { file, size } => {
                let growth = end.saturating_sub(*size);
                self.charge(growth)?;
                if let Err(error) = file.write_all_at(bytes, offset) {
                    self.credit(growth);
                    return Err(self.failed(&error));
                }
                *size += growth;
            }
        }
        Ok(())
    }

    fn truncate(&self, size: u64) -> Result<(), Code> {
        match &mut *self.content.borrow_mut() {
            Content::Memory(bytes) => {
                let kept = usize::try_from(size).unwrap_or(usize::MAX).min(bytes.len());
                self.credit_memory(bytes.len() - kept);
                bytes.truncate(kept);
                bytes.shrink_to_fit();
            }
            // As in memory, it never grows so.
            Content::Disk { file, size: known } if size < *known => {
                file.set_len(size).map_err(|_| Code::IO)?;
                self.credit(*known - size);
                *known = size;
            }
            Content::Disk { .. } => {}
        }
        Ok(())
    }

    fn size(&self) -> Result<u64, Code> {
        Ok(match &*self.content.borrow() {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::Disk { size, .. } => *size,
        })
    }

    fn lock(&self, _level: c_int) -> Result<(), Code> {
        Ok(())
    }

    fn unlock(&self, _level: c_int) -> Result<(), Code> {
        Ok(())
    }

    fn commit(&self) -> Result<(), Code> {
        Ok(())
    }

    fn pragma(&self, _name: &str, _argument: Option<&str>) -> Option<Result<String, String>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::sql_space::SqlSpace;
    use crate::sqlite::memory::Charging;
    use crate::sqlite::temp_space::TempSpace;

    #[test]
    fn a_file_reads_the_same_before_and_after_it_overflows_to_disk() {
        let file = TempFile::open(Use::Statement);
        let far = limits::TEMP_MEMORY_BYTES_MAX as u64 - 2;
        for (bytes, offset) in [(&b"begin"[..], 0), (b"edge", far), (b"x", 1 << 22)] {
            file.write(bytes, offset).unwrap();
            let mut buffer = [9; 5];
            assert_eq!(file.read(&mut buffer, 0), Ok(5));
            assert_eq!(&buffer, b"begin");
        }
        let mut buffer = [9; 4];
        assert_eq!(file.read(&mut buffer, far), Ok(4));
        assert_eq!(&buffer, b"edge");
        assert_eq!(file.read(&mut buffer, 1 << 22), Ok(1), "a short read at the end");
        file.truncate(3).unwrap();
        assert_eq!(file.size(), Ok(3));
    }

    #[test]
    fn what_is_on_disk_is_counted_and_given_back_on_truncate_and_close() {
        let space = TempSpace::new(20 << 20);
        let meter = Meter::new(1 << 20, space.share(), SqlSpace::new(0, None));
        let file = {
            let _charging = Charging::to(&meter);
            TempFile::open(Use::Statement)
        };
        let cap = limits::TEMP_MEMORY_BYTES_MAX as u64;
        file.write(&[1; 4096], cap - 4096).unwrap();
        assert_eq!((space.bytes(), meter.bytes()), (0, cap as usize), "memory is not disk");
        file.write(&[1; 4096], cap).unwrap();
        file.write(&[2; 4096], 0).unwrap();
        assert_eq!(meter.bytes(), 0);
        assert_eq!(space.bytes(), cap + 4096, "what is written over counts once");
        assert_eq!(file.write(&[1; 4096], 10 << 20), Err(Code::FULL), "over its share of the space");
        assert_eq!(file.size(), Ok(cap + 4096), "a refused write changes nothing");
        assert!(meter.temp.take_refusal().expect("a reason").contains("--cache-size"));
        file.truncate(4096).unwrap();
        assert_eq!(space.bytes(), 4096);
        file.write(&[1; 4096], (10 << 20) - 4096).expect("up to the very end of the share");
        drop(file);
        assert_eq!(space.bytes(), 0);
    }

    #[test]
    fn without_memory_a_small_one_is_on_disk_too() {
        let space = TempSpace::new(1 << 20);
        let meter = Meter::new(10_000, space.share(), SqlSpace::new(0, None));
        let files: Vec<TempFile> = {
            let _charging = Charging::to(&meter);
            (0..2).map(|_| TempFile::open(Use::Statement)).collect()
        };
        files[0].write(&[1; 8000], 0).unwrap();
        files[1].write(&[2; 8000], 0).unwrap();
        assert_eq!((meter.bytes(), space.bytes()), (8000, 8000));
        assert_eq!(meter.take_refusal(), None, "no statement has failed of it");
        files[0].truncate(100).unwrap();
        assert_eq!(meter.bytes(), 100);
        let mut buffer = [0; 9];
        assert_eq!((files[1].read(&mut buffer, 7999), buffer[0]), (Ok(1), 2));
        drop(files);
        assert_eq!((meter.bytes(), space.bytes()), (0, 0));
    }

    #[test]
    fn what_cannot_be_made_on_disk_is_an_io_error_that_is_told_and_changes_nothing() {
        let space = TempSpace::new(20 << 20);
        let meter = Meter::new(1 << 20, space.share(), SqlSpace::new(0, None));
        let gone = tempfile::tempdir().unwrap();
        set_thread_directory(gone.path().join("missing"));
        for of in [Use::Statement, Use::Journal] {
            let file = {
                let _charging = Charging::to(&meter);
                TempFile::open(of)
            };
            file.write(b"kept", 0).unwrap();
            let cap = limits::TEMP_MEMORY_BYTES_MAX as u64;
            assert_eq!(file.write(b"over", cap), Err(Code::IO_WRITE));
            assert!(meter.temp.take_refusal().expect("a reason").contains("cannot write a temporary file"));
            let mut buffer = [0; 4];
            assert_eq!((file.size(), file.read(&mut buffer, 0), &buffer), (Ok(4), Ok(4), b"kept"));
            assert_eq!((meter.bytes(), space.bytes()), (4, 0));
        }
        set_thread_directory(std::env::temp_dir());
        assert_eq!(meter.bytes(), 0);
    }

    #[test]
    fn the_end_of_all_offsets_is_full_not_a_panic() {
        assert_eq!(TempFile::open(Use::Statement).write(b"xy", u64::MAX - 1), Err(Code::FULL));
    }
}
