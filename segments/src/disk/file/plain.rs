//! A few threads that read and write.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, PoisonError};

use bytes::Bytes;

use super::queue::{Queue, Request};
use super::{CacheFile, Pending};
use crate::limits;

/// See the module documentation. Its threads end with it.
#[derive(Debug)]
pub struct PlainFile(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: File,
    queue: Queue,
    more: Condvar,
}

impl PlainFile {
    pub fn start(file: File) -> io::Result<Self> {
        let shared = Arc::new(Shared { file, queue: Queue::default(), more: Condvar::new() });
        let this = Self(shared.clone());
        for number in 0..limits::DISK_THREADS {
            let shared = shared.clone();
            std::thread::Builder::new().name(format!("disk-{number}")).spawn(move || shared.serve())?;
        }
        Ok(this)
    }
}

impl Drop for PlainFile {
    fn drop(&mut self) {
        self.0.queue.end();
        self.0.more.notify_all();
    }
}

impl CacheFile for PlainFile {
    fn read(&self, at: u64, bytes: usize) -> Pending<Bytes> {
        let pending = self.0.queue.read(at, bytes);
        self.0.more.notify_one();
        pending
    }

    fn write(&self, at: u64, bytes: Bytes) -> Pending<()> {
        let pending = self.0.queue.write(at, bytes);
        self.0.more.notify_one();
        pending
    }

    fn bytes(&self) -> u64 {
        self.0.file.metadata().map_or(0, |metadata| metadata.len())
    }
}

impl Shared {
    fn serve(&self) {
        while let Some(request) = self.next() {
            if request.is_idle() {
                continue;
            }
            match request {
                Request::Read { at, bytes, reply } => drop(reply.send(read_upto(&self.file, at, bytes))),
                Request::Write { at, bytes, reply } => drop(reply.send(self.file.write_all_at(&bytes, at))),
            }
        }
    }

    /// Waits for a request; `None` at the end.
    fn next(&self) -> Option<Request> {
        let mut waiting = self.queue.lock();
        loop {
            if waiting.is_over {
                return None;
            }
            match waiting.requests.pop_front() {
                Some(request) => return Some(request),
                None => waiting = self.more.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

fn read_upto(file: &File, at: u64, bytes: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; bytes];
    let mut filled = 0;
    while filled < bytes {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer.into())
}
