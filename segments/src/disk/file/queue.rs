//! Requests on their way to the threads that carry them out. Bounded: what finds no place is refused.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Pending;
use crate::limits;

#[derive(Debug)]
pub(super) enum Request {
    Read { at: u64, bytes: usize, reply: oneshot::Sender<io::Result<Bytes>> },
    Write { at: u64, bytes: Bytes, reply: oneshot::Sender<io::Result<()>> },
}

impl Request {
    /// Whether nobody waits for it any more. Writes are carried out all the same.
    pub fn is_idle(&self) -> bool {
        matches!(self, Self::Read { reply, .. } if reply.is_closed())
    }
}

#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<Waiting>);

#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub requests: VecDeque<Request>,
    pub is_over: bool,
}

impl Queue {
    pub fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn read(&self, at: u64, bytes: usize) -> Pending<Bytes> {
        let (reply, answer) = oneshot::channel();
        self.push(Request::Read { at, bytes, reply });
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(behind())) })
    }

    pub fn write(&self, at: u64, bytes: Bytes) -> Pending<()> {
        let (reply, answer) = oneshot::channel();
        self.push(Request::Write { at, bytes, reply });
        Box::pin(async move { answer.await.unwrap_or_else(|_| Err(behind())) })
    }

    /// A request that finds no place is dropped, which answers it. There is one write at a time, so writes have one.
    fn push(&self, request: Request) {
        let mut waiting = self.lock();
        let has_place = waiting.requests.len() < limits::DISK_QUEUE_MAX || matches!(request, Request::Write { .. });
        if has_place && !waiting.is_over {
            waiting.requests.push_back(request);
        }
    }

    /// From now on everything is refused, what waits already too.
    pub fn end(&self) {
        let mut waiting = self.lock();
        waiting.is_over = true;
        waiting.requests.clear();
    }
}

/// What a request that was dropped is answered.
fn behind() -> io::Error {
    io::Error::new(io::ErrorKind::WouldBlock, "too many requests wait for the disk")
}
