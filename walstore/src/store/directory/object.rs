//! One object's file.
//!
//! | bytes | what |
//! |---|---|
//! | n | the object's content |
//! | 16 | the first half of the content's BLAKE3 hash: its ETag, so that no read has to hash the whole |
//! | 8 | `SHOALOB1` |
//!
//! A file that is shorter, or ends in anything else, is damage of this one object
//! ([`Corrupt`](StoreErrorKind::Corrupt)), as if its content had failed a check. That the content fits its hash is not
//! checked here: every object carries checksums of its own.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::io::{Errno, retry_on_intr};

use super::failure::{Doing, Failure};
use super::root::Root;
use crate::store::limits::OBJECT_BYTES_MAX;
use crate::store::{ETag, Key, Object, StoreError, StoreErrorKind, check};

const HASH_BYTES: usize = 16;
const MAGIC: [u8; 8] = *b"SHOALOB1";
const TRAILER_BYTES: usize = HASH_BYTES + MAGIC.len();

/// The object's path below `objects/`.
pub(super) fn path(key: &Key) -> String {
    format!("{key}@")
}

/// The directory part of an object's path; empty for `objects/` itself.
pub(super) fn parent(key: &Key) -> &str {
    key.as_str().rsplit_once('/').map_or("", |(parent, _)| parent)
}

pub(super) fn trailer(content: &[u8]) -> [u8; TRAILER_BYTES] {
    let mut trailer = [0; TRAILER_BYTES];
    trailer[..HASH_BYTES].copy_from_slice(&blake3::hash(content).as_bytes()[..HASH_BYTES]);
    trailer[HASH_BYTES..].copy_from_slice(&MAGIC);
    trailer
}

/// An object's open file. A later write puts another file in its place and leaves this one as it is.
pub(super) struct ObjectFile {
    file: File,
    pub content_bytes: u64,
    pub etag: ETag,
    /// Whether the object's directory may not be durable yet.
    pub is_fresh: bool,
}

impl Root {
    /// The object, or the `range` of it.
    pub fn read(&self, key: &Key, range: Option<Range<u64>>) -> Result<Option<Object>, StoreError> {
        let fail = |failure: Failure| failure.into_store_error(key, StoreErrorKind::Retry);
        let Some(object) = self.open_object(key)? else {
            return Ok(None);
        };
        if object.is_fresh {
            self.sync_parent(key).map_err(fail)?;
        }
        let range = match range {
            Some(range) => check::clamp(key, &range, object.content_bytes)?,
            None => 0..object.content_bytes,
        };
        let length =
            usize::try_from(range.end - range.start).expect("an object fits the address space");
        let mut bytes = vec![0; length];
        object.file.read_exact_at(&mut bytes, range.start).doing("read the file").map_err(fail)?;
        Ok(Some(Object { bytes: Bytes::from(bytes), etag: object.etag }))
    }

    pub fn open_object(&self, key: &Key) -> Result<Option<ObjectFile>, StoreError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = retry_on_intr(|| openat(&self.objects, path(key), flags, Mode::empty()));
        match opened {
            Ok(file) => ObjectFile::check(key, file.into()).map(Some),
            Err(Errno::NOENT) => self.check_present(key).map(|()| None),
            Err(errno) => {
                let failure = Failure { errno, doing: "open the file" };
                Err(failure.into_store_error(key, StoreErrorKind::Retry))
            }
        }
    }
}

impl ObjectFile {
    fn check(key: &Key, file: File) -> Result<Self, StoreError> {
        let damaged = |what: &str| {
            let message =
                format!("its file {what}: it was not written by Shoal, or the disk is damaged");
            StoreError::new(StoreErrorKind::Corrupt, key, message)
        };
        let failed = |failure: Failure| failure.into_store_error(key, StoreErrorKind::Retry);
        let stat = fstat(&file).doing("look at the file").map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(damaged("is not a regular file"));
        }
        let file_bytes = u64::try_from(stat.st_size).unwrap_or(0);
        let content_bytes = file_bytes.checked_sub(TRAILER_BYTES as u64);
        let content_bytes = content_bytes.ok_or_else(|| damaged("is too short"))?;
        if content_bytes > OBJECT_BYTES_MAX {
            return Err(damaged("is too long"));
        }
        let mut trailer = [0; TRAILER_BYTES];
        let read = file.read_exact_at(&mut trailer, content_bytes);
        read.doing("read the file").map_err(failed)?;
        let (hash, magic) = trailer.split_at(HASH_BYTES);
        if magic != MAGIC {
            return Err(damaged("has no valid end"));
        }
        Ok(Self { file, content_bytes, etag: etag_of(hash), is_fresh: stat.st_nlink > 1 })
    }
}

fn etag_of(hash: &[u8]) -> ETag {
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    ETag(format!("\"{hex}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_hash_is_the_etag_of_the_content() {
        let stored = trailer(b"shoal");
        assert_eq!(etag_of(&stored[..HASH_BYTES]), ETag::of_content(b"shoal"));
        assert!(stored.ends_with(b"SHOALOB1"));
    }

    #[test]
    fn a_path_ends_in_what_no_key_has_and_its_parent_is_the_keys() {
        assert_eq!(path(&Key::new("a/b")), "a/b@");
        assert_eq!(parent(&Key::new("a/b/c")), "a/b");
        assert_eq!(parent(&Key::new("a")), "");
    }
}
