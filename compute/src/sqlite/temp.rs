//! Temporary files: sorters, statement journals, the copy that VACUUM makes. In memory up to a cap, then
//! in a nameless local file up to a quota.

use std::cell::RefCell;
use std::ffi::c_int;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::Code;
use super::vfs::VfsFile;
use crate::limits;

thread_local! {
    static DIRECTORY: RefCell<PathBuf> = RefCell::new(std::env::temp_dir());
}

/// Where this thread's temporary files overflow to.
pub fn set_thread_directory(directory: PathBuf) {
    DIRECTORY.with_borrow_mut(|slot| *slot = directory);
}

enum Content {
    Memory(Vec<u8>),
    Disk { file: File, size: u64 },
}

/// One temporary file. Gone when it is closed.
pub struct TempFile(RefCell<Content>);

impl Default for TempFile {
    fn default() -> Self {
        Self(RefCell::new(Content::Memory(Vec::new())))
    }
}

impl VfsFile for TempFile {
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Code> {
        match &*self.0.borrow() {
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
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= limits::TEMP_FILE_BYTES_MAX);
        let end = end.ok_or(Code::FULL)?;
        let mut content = self.0.borrow_mut();
        if end > limits::TEMP_MEMORY_BYTES_MAX as u64 {
            spill(&mut content)?;
        }
        match &mut *content {
            Content::Memory(memory) => {
                let (start, end) = (offset as usize, end as usize);
                memory.resize(memory.len().max(end), 0);
                memory[start..end].copy_from_slice(bytes);
            }
            Content::Disk { file, size } => {
                file.write_all_at(bytes, offset).map_err(|_| Code::FULL)?;
                *size = end.max(*size);
            }
        }
        Ok(())
    }

    fn truncate(&self, size: u64) -> Result<(), Code> {
        match &mut *self.0.borrow_mut() {
            Content::Memory(bytes) => bytes.truncate(usize::try_from(size).unwrap_or(usize::MAX)),
            Content::Disk { file, size: known } => {
                file.set_len(size).map_err(|_| Code::IO)?;
                *known = size;
            }
        }
        Ok(())
    }

    fn size(&self) -> Result<u64, Code> {
        Ok(match &*self.0.borrow() {
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

fn spill(content: &mut Content) -> Result<(), Code> {
    let Content::Memory(bytes) = content else { return Ok(()) };
    let directory = DIRECTORY.with_borrow(PathBuf::clone);
    let file = tempfile::tempfile_in(directory).map_err(|_| Code::CANTOPEN)?;
    file.write_all_at(bytes, 0).map_err(|_| Code::FULL)?;
    *content = Content::Disk { size: bytes.len() as u64, file };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_reads_the_same_before_and_after_it_overflows_to_disk() {
        let file = TempFile::default();
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
    fn the_quota_is_full_not_an_io_error() {
        assert_eq!(TempFile::default().write(b"x", limits::TEMP_FILE_BYTES_MAX), Err(Code::FULL));
    }
}
