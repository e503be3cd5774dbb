//! io_uring: one thread, one ring, and as many requests at once as there are buffers.
//!
//! The kernel reads into buffers that are registered once, for as long as the ring lives. A request has one buffer until
//! it is done; a longer read goes piece by piece. A write has one too, so that there are no more of them at once, but
//! goes out of its own memory. What waits for a buffer waits in the [queue](super::queue); an eventfd wakes the thread when
//! something has come.
//!
//! The file goes through the system's page cache: what is read again soon after it was written, as after a restart, is
//! then in memory, and the system takes that memory back when it is needed elsewhere.

// The only place outside of the VFS: the kernel reads and writes memory by address.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use io_uring::{IoUring, opcode, squeue, types};
use rustix::event::{EventfdFlags, eventfd};
use tracing::error;

use super::queue::{Queue, Request};
use super::{CacheFile, Pending};
use crate::limits::{RING_BUFFER_BYTES, RING_BUFFERS};

/// See the module documentation. Its thread ends with it.
#[derive(Debug)]
pub struct RingFile {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    file: File,
    queue: Queue,
    /// Written when something has come.
    bell: OwnedFd,
}

/// Marks the completion of waiting for the bell. Others carry the number of their buffer.
const BELL: u64 = u64::MAX;

#[repr(C, align(4096))]
#[derive(Clone)]
struct Page([u8; 4096]);

/// What the thread has.
struct Server {
    shared: Arc<Shared>,
    // Before the buffers, so that the kernel has let go of them when they are freed.
    ring: IoUring,
    buffers: Box<[Page]>,
    running: Vec<Option<Running>>,
    free: Vec<u16>,
}

/// A request that has a buffer.
struct Running {
    request: Request,
    done: usize,
    /// What was read so far.
    read: Vec<u8>,
}

impl Running {
    fn at(&self) -> u64 {
        match &self.request {
            Request::Read { at, .. } | Request::Write { at, .. } => at + self.done as u64,
        }
    }

    fn rest(&self) -> usize {
        match &self.request {
            Request::Read { bytes, .. } => bytes - self.done,
            Request::Write { bytes, .. } => bytes.len() - self.done,
        }
    }

    fn finish(self, outcome: io::Result<()>) {
        match self.request {
            Request::Read { reply, .. } => drop(reply.send(outcome.map(|()| self.read.into()))),
            Request::Write { reply, .. } => drop(reply.send(outcome)),
        }
    }
}

impl RingFile {
    /// Fails where the kernel has no io_uring, or a profile forbids it, or too little memory may be locked.
    pub fn start(file: File) -> io::Result<Self> {
        let ring = IoUring::new(2 * u32::from(RING_BUFFERS)).map_err(told)?;
        let pages = usize::from(RING_BUFFERS) * RING_BUFFER_BYTES / size_of::<Page>();
        let mut buffers = vec![Page([0; 4096]); pages].into_boxed_slice();
        let start = buffers.as_mut_ptr().cast::<u8>();
        let vectors: Vec<libc::iovec> = (0..usize::from(RING_BUFFERS))
            .map(|number| libc::iovec {
                iov_base: start.wrapping_add(number * RING_BUFFER_BYTES).cast(),
                iov_len: RING_BUFFER_BYTES,
            })
            .collect();
        // SAFETY: the buffers are allocated as long as the ring is: both belong to the server, which drops the ring
        // first. Nobody else has their address.
        unsafe { ring.submitter().register_buffers(&vectors).map_err(told)? };
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared { file, queue: Queue::default(), bell });
        let free = (0..RING_BUFFERS).collect();
        let running = (0..RING_BUFFERS).map(|_| None).collect();
        let server = Server { shared: shared.clone(), ring, buffers, running, free };
        std::thread::Builder::new().name("disk-ring".into()).spawn(move || server.serve())?;
        Ok(Self { shared })
    }
}

/// The kernel calls it a lack of memory, too, when there is enough, but too little of it may be locked.
fn told(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::OutOfMemory {
        return error;
    }
    let buffers_mib = usize::from(RING_BUFFERS) * RING_BUFFER_BYTES / (1 << 20);
    io::Error::new(error.kind(), format!("{error}; it locks {buffers_mib} MiB and a little more (ulimit -l)"))
}

impl Drop for RingFile {
    fn drop(&mut self) {
        self.shared.queue.end();
        self.shared.ring_the_bell();
    }
}

impl CacheFile for RingFile {
    fn read(&self, at: u64, bytes: usize) -> Pending<Bytes> {
        let pending = self.shared.queue.read(at, bytes);
        self.shared.ring_the_bell();
        pending
    }

    fn write(&self, at: u64, bytes: Bytes) -> Pending<()> {
        let pending = self.shared.queue.write(at, bytes);
        self.shared.ring_the_bell();
        pending
    }

    fn bytes(&self) -> u64 {
        self.shared.file.metadata().map_or(0, |metadata| metadata.len())
    }
}

impl Shared {
    fn ring_the_bell(&self) {
        // It fails only when it has been rung 2^64 times and not been heard.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

impl Server {
    fn serve(mut self) {
        let ended = self.listen().and_then(|()| self.work());
        if let Err(error) = ended {
            error!(%error, "io_uring has failed; reads go to the bucket until the next start. Write --disk-io plain");
        }
        self.shared.queue.end();
        self.drain();
    }

    /// Until the file is dropped.
    fn work(&mut self) -> io::Result<()> {
        loop {
            while let Some(buffer) = self.free.pop() {
                match self.next() {
                    Some(running) => self.go_on(buffer, running)?,
                    None => {
                        self.free.push(buffer);
                        break;
                    }
                }
            }
            if self.shared.queue.lock().is_over {
                return Ok(());
            }
            self.wait()?;
            self.complete_all()?;
        }
    }

    fn next(&self) -> Option<Running> {
        let mut waiting = self.shared.queue.lock();
        loop {
            let request = waiting.requests.pop_front()?;
            if !request.is_idle() {
                return Some(Running { request, done: 0, read: Vec::new() });
            }
        }
    }

    fn wait(&self) -> io::Result<()> {
        match self.ring.submit_and_wait(1) {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Waits for what the kernel has in hand: it uses the buffers until then.
    fn drain(&mut self) {
        while self.running.iter().any(Option::is_some) {
            if self.wait().is_err() {
                // They must not be freed, nor what is written.
                std::mem::forget(std::mem::take(&mut self.buffers));
                std::mem::forget(std::mem::take(&mut self.running));
                return;
            }
            while let Some(completion) = self.ring.completion().next() {
                if let Some(slot) = self.running.get_mut(completion.user_data() as usize) {
                    *slot = None;
                }
            }
        }
    }

    fn complete_all(&mut self) -> io::Result<()> {
        let completions: Vec<(u64, i32)> =
            self.ring.completion().map(|completion| (completion.user_data(), completion.result())).collect();
        for (user_data, result) in completions {
            if user_data == BELL {
                let _ = rustix::io::read(&self.shared.bell, &mut [0; 8]);
                self.listen()?;
                continue;
            }
            let buffer = u16::try_from(user_data).expect("BUG: the number of a buffer");
            let running = self.running[usize::from(buffer)].take().expect("BUG: a completion of nothing");
            self.complete(buffer, running, result)?;
        }
        Ok(())
    }

    /// A piece is done, or not.
    fn complete(&mut self, buffer: u16, mut running: Running, result: i32) -> io::Result<()> {
        let count = match usize::try_from(result) {
            Ok(count) => count,
            Err(_) if matches!(-result, libc::EINTR | libc::EAGAIN) => return self.go_on(buffer, running),
            Err(_) => {
                self.free.push(buffer);
                running.finish(Err(io::Error::from_raw_os_error(-result)));
                return Ok(());
            }
        };
        running.done += count;
        let is_read = matches!(running.request, Request::Read { .. });
        if is_read {
            running.read.extend_from_slice(&self.content(buffer)[..count]);
        }
        if count > 0 && running.rest() > 0 {
            return self.go_on(buffer, running);
        }
        self.free.push(buffer);
        // A read ends where the file does.
        running.finish(if is_read || count > 0 { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) });
        Ok(())
    }

    /// Hands the next piece of a request to the kernel.
    fn go_on(&mut self, buffer: u16, running: Running) -> io::Result<()> {
        let at = running.at();
        let file = types::Fd(self.shared.file.as_raw_fd());
        let entry = match &running.request {
            Request::Read { .. } => {
                let length = running.rest().min(RING_BUFFER_BYTES) as u32;
                let address = self.content(buffer).as_mut_ptr();
                opcode::ReadFixed::new(file, address, length, buffer).offset(at).build()
            }
            // Out of the memory that the request has, until it is done: a batch is too large to be copied for nothing.
            Request::Write { bytes, .. } => {
                let rest = &bytes[running.done..];
                let length = u32::try_from(rest.len()).unwrap_or(1 << 30);
                opcode::Write::new(file, rest.as_ptr(), length).offset(at).build()
            }
        };
        self.running[usize::from(buffer)] = Some(running);
        self.push(entry.user_data(u64::from(buffer)))
    }

    /// Has the next ring of the bell complete.
    fn listen(&mut self) -> io::Result<()> {
        let bell = types::Fd(self.shared.bell.as_raw_fd());
        self.push(opcode::PollAdd::new(bell, libc::POLLIN as u32).build().user_data(BELL))
    }

    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        // SAFETY: the file and the bell are open as long as the server has them, and it waits for all that is
        // in flight before it ends. The memory is the buffer of this number, which is registered, and of which
        // nobody else makes use until its completion has been seen: `running` has it, `free` has not. Or it is that of
        // a write's request, which `running` has as long.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.map_err(|_| io::Error::other("BUG: the ring has less room than there are buffers"))
    }

    /// A buffer that the kernel is not using.
    fn content(&mut self, buffer: u16) -> &mut [u8] {
        assert!(self.running[usize::from(buffer)].is_none(), "BUG: a buffer in use");
        let start = usize::from(buffer) * RING_BUFFER_BYTES;
        let all = self.buffers.as_mut_ptr().cast::<u8>();
        // SAFETY: this stretch lies within the allocation, whose bytes are all initialised, and as checked no
        // request in flight uses it. The borrow of `self` keeps it so.
        unsafe { std::slice::from_raw_parts_mut(all.add(start), RING_BUFFER_BYTES) }
    }
}
