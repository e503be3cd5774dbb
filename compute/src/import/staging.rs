//! Files on their way in. A file is known by its database's name, its length and its hash, and stands in the cache
//! directory under `tmp/imports/<name>-<hash>`. How much of it is there is its length on disk, so an upload goes on
//! after the client, the connection or this process has ended. What a crash has left in it that was not sent so is
//! found by the hash, at the end.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use segments::page::PAGE_BYTES;
use tenant::name::Name;

use super::Imports;
use crate::error::{Fault, ServerError};
use crate::limits;

/// A file that is to become a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    pub name: Name,
    pub bytes: u64,
    pub hash: [u8; 32],
}

impl Upload {
    /// Of what a client says. `hash` is hexadecimal.
    pub fn new(name: Name, bytes: u64, hash: &str) -> Result<Self, ServerError> {
        let refuse = |text: String| Err(ServerError::new(Fault::Invalid, text));
        let Ok(hash) = blake3::Hash::from_hex(hash) else {
            return refuse("`blake3` is not a hash: 64 hexadecimal digits".into());
        };
        if bytes == 0 || !bytes.is_multiple_of(PAGE_BYTES as u64) {
            return refuse(format!("a file of {bytes} bytes is not made of pages of {PAGE_BYTES}: convert it (`shoal db import` does)"));
        }
        if bytes > limits::IMPORT_BYTES_MAX {
            return refuse(format!("a file of {bytes} bytes is larger than {}, the limit for imports", limits::IMPORT_BYTES_MAX));
        }
        Ok(Self { name, bytes, hash: *hash.as_bytes() })
    }

    /// Where it waits.
    pub fn path(&self, temp_directory: &Path) -> PathBuf {
        let hash = blake3::Hash::from_bytes(self.hash).to_hex();
        directory(temp_directory).join(format!("{}-{}", self.name, &hash[..32]))
    }
}

fn directory(temp_directory: &Path) -> PathBuf {
    temp_directory.join("imports")
}

/// Says how much of the file is there, and promises room for the rest. Other files for this name go, for the caller has
/// the name to himself; and those of which nothing has been heard for long, if nobody is at work on them.
pub fn begin(imports: &Imports, upload: &Upload, temp_directory: &Path, now_micros: u64) -> Result<u64, ServerError> {
    fs::create_dir_all(directory(temp_directory)).map_err(|error| broken(&error))?;
    let path = upload.path(temp_directory);
    for other in fs::read_dir(directory(temp_directory)).map_err(|error| broken(&error))?.flatten() {
        let file_name = other.file_name();
        let name = file_name.to_str().and_then(|it| Name::parse(it.rsplit_once('-')?.0).ok());
        if name.as_ref() == Some(&upload.name) {
            if other.path() != path {
                let _ = fs::remove_file(other.path());
            }
        } else if is_forgotten(&other, now_micros) {
            // Held while the file goes, so that no request begins to use it. A slow job has its name for itself.
            let held = name.as_ref().map(|name| imports.take(name)).transpose();
            if held.is_ok() {
                let _ = fs::remove_file(other.path());
            }
        }
    }
    let mut received = received(upload, temp_directory)?;
    if received > upload.bytes {
        delete(upload, temp_directory);
        received = 0;
    }
    promise(imports, upload, received, temp_directory, now_micros)?;
    Ok(received)
}

/// Keeps room for what is still to come, or says why that cannot be.
pub fn promise(
    imports: &Imports,
    upload: &Upload,
    received: u64,
    temp_directory: &Path,
    now_micros: u64,
) -> Result<(), ServerError> {
    let free = rustix::fs::statvfs(temp_directory).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    let rest = upload.bytes.saturating_sub(received);
    imports.promises().ask(&upload.name, rest, free, now_micros).map_err(|room| {
        let text = format!(
            "this node's disk (--cache-dir) has room for {room} bytes more beside what other uploads were promised, too \
             little for {rest} of a file; try again later"
        );
        ServerError::new(Fault::Retry, text)
    })
}

fn is_forgotten(file: &fs::DirEntry, now_micros: u64) -> bool {
    let written = file.metadata().and_then(|it| it.modified()).ok();
    let written = written.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map(|since| since.as_micros() as u64);
    written.is_some_and(|written| now_micros.saturating_sub(written) > limits::UPLOAD_KEPT.as_micros() as u64)
}

/// How much of the file is there.
pub fn received(upload: &Upload, temp_directory: &Path) -> Result<u64, ServerError> {
    match fs::metadata(upload.path(temp_directory)) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(broken(&error)),
    }
}

/// Adds a part at its place, the end, and says how much there is now.
pub fn append(upload: &Upload, temp_directory: &Path, offset: u64, part: &[u8]) -> Result<u64, ServerError> {
    let there = received(upload, temp_directory)?;
    if offset != there || part.len() as u64 > upload.bytes.saturating_sub(there) {
        let text = format!("{there} of {} bytes are here; the next part begins there and ends within", upload.bytes);
        return Err(ServerError::new(Fault::Conflict, text));
    }
    let write = || {
        let mut file = File::options().create(true).truncate(false).write(true).open(upload.path(temp_directory))?;
        file.seek(SeekFrom::Start(offset))?;
        let written = file.write_all(part);
        if written.is_err() {
            // A part is there or it is not.
            file.set_len(offset)?;
        }
        written
    };
    write().map_err(|error: io::Error| broken(&error))?;
    Ok(offset + part.len() as u64)
}

/// Forgets the file.
pub fn delete(upload: &Upload, temp_directory: &Path) {
    let _ = fs::remove_file(upload.path(temp_directory));
}

fn broken(error: &io::Error) -> ServerError {
    ServerError::new(Fault::Retry, format!("this node cannot keep the file on its disk (--cache-dir): {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Long before any file here was written: none is forgotten.
    const NOW: u64 = 0;

    fn upload(name: &str, bytes: u64, hash: &str) -> Result<Upload, ServerError> {
        Upload::new(Name::parse(name).expect("a name"), bytes, hash)
    }

    #[test]
    fn a_file_arrives_in_parts_and_goes_on_where_it_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let (temp, imports) = (directory.path(), Imports::default());
        let app = upload("app", 8192, &"a".repeat(64)).unwrap();
        assert_eq!(begin(&imports, &app, temp, NOW), Ok(0));
        assert_eq!(append(&app, temp, 0, &[1; 5000]), Ok(5000));
        assert!(append(&app, temp, 0, &[1; 5000]).is_err_and(|error| error.fault == Fault::Conflict));
        assert!(append(&app, temp, 5000, &[2; 5000]).is_err(), "more than was announced");
        assert_eq!(begin(&imports, &app, temp, NOW), Ok(5000));
        assert_eq!(append(&app, temp, 5000, &[2; 3192]), Ok(8192));
        let all = fs::read(app.path(temp)).unwrap();
        assert_eq!((all.len(), all[4999], all[5000]), (8192, 1, 2));
    }

    #[test]
    fn another_file_for_a_name_takes_the_place_of_the_first_and_leaves_other_names_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (temp, imports) = (directory.path(), Imports::default());
        let files = [("app", "a"), ("app-2", "a"), ("app", "b")];
        let [first, other, second] = files.map(|(name, digit)| upload(name, 4096, &digit.repeat(64)).unwrap());
        for file in [&first, &other] {
            begin(&imports, file, temp, NOW).unwrap();
            append(file, temp, 0, b"x").unwrap();
        }
        assert_eq!(begin(&imports, &second, temp, NOW), Ok(0));
        assert_eq!((received(&first, temp), received(&other, temp)), (Ok(0), Ok(1)));
        // Somebody is at work on it: a check that takes long.
        let slow = imports.take(&other.name).ok();
        begin(&imports, &second, temp, u64::MAX).unwrap();
        assert_eq!(received(&other, temp), Ok(1));
        drop(slow);
        begin(&imports, &second, temp, u64::MAX).unwrap();
        assert_eq!(received(&other, temp), Ok(0), "nothing was heard of it for long");
    }

    #[test]
    fn what_cannot_be_a_database_is_refused_before_it_comes() {
        let hash = "0".repeat(64);
        for (bytes, hash, phrase) in [
            (0, hash.as_str(), "pages of 4096"),
            (4097, &hash, "pages of 4096"),
            (1 << 60, &hash, "the limit"),
            (4096, "12", "64 hexadecimal digits"),
        ] {
            let error = upload("app", bytes, hash).expect_err(phrase);
            assert!(error.fault == Fault::Invalid && error.message.contains(phrase), "{error}");
        }
    }
}
