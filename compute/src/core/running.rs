//! Running SQL for a client: the coroutine, what it waits for, and when it is told to stop; and the gate that holds
//! whatever leaves for that client.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tracing::error;
use walstore::mutant::{self, Mutant};

use super::Core;
use super::open_database::OpenDatabase;
use crate::database::file;
use crate::error::{Fault, ServerError};
use crate::hrana::cursor::{self, CursorEntry};
use crate::hrana::error::HranaError;
use crate::limits;
use crate::session::stream::{Running, Stream};
use crate::sqlite::coroutine::{self, Wait, Wake};

/// The other end of a running request.
pub(super) struct Client {
    pub(super) gone: Box<dyn Fn() -> bool>,
    pub(super) sends: Option<mpsc::Sender<Bytes>>,
    /// See [`Stream::floor`](crate::session::stream::Stream::floor).
    pub(super) floor: Rc<Cell<u64>>,
    /// It reads entries of a cursor, of which one can say why the answer ends.
    pub(super) is_cursor: bool,
}

impl Client {
    /// Waits for a single reply.
    pub(super) fn of_reply<T: 'static>(reply: &Rc<RefCell<Option<oneshot::Sender<T>>>>) -> Self {
        let reply = reply.clone();
        let gone = move || reply.borrow().as_ref().is_some_and(oneshot::Sender::is_closed);
        Self { gone: Box::new(gone), ..Self::none() }
    }

    /// Takes what the stream sends.
    pub(super) fn of_pieces(sender: mpsc::Sender<Bytes>, stream: &Stream) -> Self {
        let gone = sender.clone();
        Self {
            gone: Box::new(move || gone.is_closed()),
            sends: Some(sender),
            floor: stream.floor.clone(),
            is_cursor: false,
        }
    }

    /// Nobody waits for it.
    pub(super) fn none() -> Self {
        Self { gone: Box::new(|| false), sends: None, floor: Rc::default(), is_cursor: false }
    }
}

impl Core {
    /// Runs `body` as a coroutine with everything that it may wait for.
    pub(super) async fn run<T: 'static>(
        self: &Rc<Self>,
        open: &Rc<OpenDatabase>,
        running: Running,
        body: impl FnOnce() -> T + 'static,
        client: Client,
    ) -> Result<T, ServerError> {
        let stack = coroutine::take_stack(&self.stacks);
        let stack = stack.map_err(|error| ServerError::new(Fault::Retry, format!("no room for another request: {error}")))?;
        let client = Rc::new(client);
        let serve = |wait: Wait| {
            let file = running.borrow().clone();
            self.clone().serve(open.clone(), client.clone(), wait, file)
        };
        let (result, stack) = coroutine::run(stack, &open.database.meter, body, serve).await;
        self.stacks.borrow_mut().give_back(stack);
        result.map_err(|panicked| {
            error!(database = %open.database.name, panic = panicked.0, "a request panicked");
            let text = "the server failed at this request: its open transaction was rolled back, and whether \
                        statements before it took effect is unknown. Read before you write again";
            ServerError::new(Fault::Indefinite, text)
        })
    }

    async fn serve(
        self: Rc<Self>,
        open: Rc<OpenDatabase>,
        client: Rc<Client>,
        wait: Wait,
        file: Option<Rc<file::Connection>>,
    ) -> Wake {
        if let Some(file) = &file
            && let Some(error) = self.interruption(file, &client)
        {
            file.cancelled.borrow_mut().get_or_insert(error);
            // Whatever asks again and again must not keep others from running.
            tokio::task::yield_now().await;
            return Wake::Abandon;
        }
        match wait {
            Wait::Yield => {
                tokio::task::yield_now().await;
                Wake::Ready
            }
            Wait::Fetch(fetch) => match (fetch.base().clone(), open.fetch(fetch).await) {
                (_, Ok(())) => Wake::Ready,
                // What it reads may be gone because this node has no say in it any more: that is no damage.
                (base, Err(error)) => Wake::Failed(match open.database.lost() {
                    Some(reason) => ServerError::new(Fault::Fenced, reason),
                    None if open.database.replica.is_some() => {
                        let is_gone = error.fault == Fault::Corrupt;
                        let error = self.look_why(&open, &base, error).await;
                        if let Some(file) = file.filter(|_| is_gone && error.fault == Fault::Retry) {
                            file.note_outdated();
                        }
                        error
                    }
                    None if open.database.past.is_some() => self.look_why_past(&open, error).await,
                    None => error,
                }),
            },
            Wait::Memory => {
                self.node.seam.sleep(limits::OVERLAY_ROUND).await;
                Wake::Ready
            }
            Wait::Turn => match file {
                Some(file) => self.wait_for_turn(&open, &file).await,
                None => Wake::Abandon,
            },
            Wait::Send(piece) => self.send(&open, &client, file.as_deref(), piece).await,
        }
    }

    fn interruption(&self, file: &file::Connection, client: &Client) -> Option<ServerError> {
        if let Some(error) = file.cancelled.borrow().clone() {
            return Some(error);
        }
        if (client.gone)() {
            return Some(ServerError::new(Fault::Closed, "the client has gone"));
        }
        let limit = self.node.settings.statement_timeout;
        let ran = self.node.seam.boot_micros().saturating_sub(file.statement_started());
        (file.statement_started() > 0 && Duration::from_micros(ran) > limit).then(|| {
            let text = format!("the statement ran for longer than {limit:?}, the limit of this server, and was stopped");
            ServerError::new(Fault::Invalid, text)
        })
    }

    async fn wait_for_turn(&self, open: &OpenDatabase, file: &file::Connection) -> Wake {
        let database = &open.database;
        let limit = self.node.settings.busy_timeout;
        let turn = async {
            loop {
                let (folded, room) = (database.folded.notified(), database.node.overlays.room());
                if let Some(reason) = database.lost() {
                    return Wake::Failed(ServerError::new(Fault::Fenced, reason));
                }
                // If all is folded, what is kept may be kept for this very reader.
                if database.is_overfull() && !(file.is_pinned() && database.is_folded()) {
                    tokio::select! {
                        biased;
                        () = folded => {}
                        () = room => {}
                    }
                    continue;
                }
                file.give_turn(database.turn.take().await);
                return Wake::Ready;
            }
        };
        tokio::select! {
            biased;
            wake = turn => wake,
            () = self.node.seam.sleep(limit) => {
                let text = format!("no turn to write within {limit:?}: other writers hold this database; nothing was done");
                Wake::Failed(ServerError::new(Fault::Retry, text))
            }
        }
    }

    /// Sends a piece of a cursor once all that it shows is durable.
    async fn send(&self, open: &Rc<OpenDatabase>, client: &Client, file: Option<&file::Connection>, piece: Bytes) -> Wake {
        let Some(sender) = &client.sends else { return Wake::Abandon };
        let (seen, wrote) = file.map_or((0, false), |file| (file.seen.get(), file.commits() > 0));
        let seen = seen.max(client.floor.get());
        let piece = match self.gate(open, seen, wrote).await {
            Ok(()) => piece,
            Err(_) if !client.is_cursor => return Wake::Abandon,
            Err(error) => {
                // The pieces that the gate held are dropped; an entry tells why and the body ends here.
                let mut last = Vec::new();
                let error = HranaError::from(error);
                cursor::write_line(&mut last, &CursorEntry::Error { error });
                let _ = sender.send(last.into()).await;
                return Wake::Abandon;
            }
        };
        let limit = self.node.settings.idle_transaction_timeout;
        tokio::select! {
            biased;
            sent = sender.send(piece) => if sent.is_ok() { Wake::Ready } else { Wake::Abandon },
            () = self.node.seam.sleep(limit) => {
                // Its snapshot, and perhaps its turn, are in others' way.
                if let Some(file) = file {
                    let text = format!("the client has not read its results for {limit:?}");
                    *file.cancelled.borrow_mut() = Some(ServerError::new(Fault::Closed, text));
                }
                Wake::Abandon
            }
        }
    }

    /// The output gate: returns when everything up to `seen` is durable. An error says what the client may
    /// conclude; which depends on whether it wrote.
    pub(super) async fn gate(&self, open: &OpenDatabase, seen: u64, wrote: bool) -> Result<(), ServerError> {
        if mutant::is_on(Mutant::ReplyBeforeGate) {
            return Ok(());
        }
        open.claim.settled().await.map_err(|why| why.error)?;
        let limit = self.node.settings.commit_timeout;
        let passed = tokio::select! {
            biased;
            passed = open.database.gate.pass(seen) => passed.map_err(|lost| lost.0),
            () = self.node.seam.sleep(limit), if seen > open.database.gate.durable() =>
                Err(format!("the bucket has not confirmed it within {limit:?}")),
        };
        match passed {
            Ok(()) if wrote || open.database.only_reads() || self.node.lease_is_valid() => Ok(()),
            Ok(()) => Err(self.out_of_touch()),
            Err(reason) if wrote => Err(ServerError::new(
                Fault::Indefinite,
                format!("the outcome of this write is unknown: {reason}. Read before you write it again"),
            )),
            Err(reason) => Err(ServerError::new(Fault::Retry, format!("what this request read is not durable yet: {reason}"))),
        }
    }
}
