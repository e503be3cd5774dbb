//! Serving one request: find the database and the stream, run the coroutine, hold the reply at the gate.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};
use walstore::id::Lsn;
use walstore::mutant::{self, Mutant};

use super::databases::OpenDatabase;
use super::streams::Idle;
use super::replicas::{self, Asks};
use super::{Core, CursorReply, Job, JobError, LocalWork, PipelineReply, Shown, Work, spawn_local};
use crate::database::file;
use crate::database::replica::Replica;
use crate::error::{Fault, ServerError};
use crate::hrana::HranaVersion;
use crate::hrana::baton::Baton;
use crate::hrana::condition;
use crate::hrana::error::{HranaError, ProtocolError};
use crate::hrana::request::{Batch, StreamRequest};
use crate::limits;
use crate::session::stream::{Running, Stream};
use crate::sqlite::coroutine::{self, Wait, Wake};

/// Pieces of a cursor that may wait for a slow client.
const CURSOR_PIECES_MAX: usize = 4;

impl Core {
    /// Starts a request. Its task runs to the end even if the client goes away: then it is told to stop.
    pub(super) fn start(self: Rc<Self>, job: Job) {
        spawn_local(async move {
            let Job { database, create, baton, version, min_lsn, work } = job;
            let asks = Asks { only_reads: replicas::only_reads(&work), min_lsn };
            // A pipeline is answered as a whole, so it may run before this node owns the database.
            let may_claim = matches!(work, Work::Pipeline { .. });
            let opened = self.begin(&database, create, baton.as_ref(), asks, may_claim).await;
            match work {
                Work::Pipeline { requests, reply } => match opened {
                    Ok((mut open, id, stream)) => {
                        let reply = Rc::new(RefCell::new(Some(reply)));
                        let again = (!open.claim.is_won()).then(|| requests.clone());
                        let client = Client::of_reply(&reply);
                        let mut answer = self.pipeline(&open, (id, stream), requests, version, client).await;
                        if let Some(requests) = again.filter(|_| open.claim.is_overtaken()) {
                            // It has seen what it must not show, and had no turn to write.
                            answer = match self.begin(&database, create, None, asks, false).await {
                                Ok((opened, id, stream)) => {
                                    open = opened;
                                    let client = Client::of_reply(&reply);
                                    self.pipeline(&open, (id, stream), requests, version, client).await
                                }
                                Err(error) => Err(error),
                            };
                        }
                        let reply = reply.borrow_mut().take().expect("BUG: a pipeline is answered once");
                        if let Err(Ok(PipelineReply { baton: Some(baton), .. })) = reply.send(answer) {
                            self.end_unreachable(&open, &baton).await;
                        }
                    }
                    Err(error) => drop(reply.send(Err(error))),
                },
                Work::Cursor { batch, head } => match opened {
                    Ok((open, id, stream)) => self.cursor(&open, id, stream, batch, version, head).await,
                    Err(error) => drop(head.send(Err(error))),
                },
                Work::Download { download, head } => match opened {
                    Ok((open, id, stream)) => self.download(&open, (id, stream), download, head).await,
                    Err(error) => drop(head.send(Err(error))),
                },
                Work::Local { body, done } => {
                    let ran = match opened {
                        Ok((open, _, stream)) => self.local(&open, stream, body).await,
                        Err(error) => Err(error),
                    };
                    drop(done.send(ran));
                }
            }
        });
    }

    /// The database, and the stream that the baton names or a new one. With `may_claim` it may be that this node does
    /// not own it yet.
    async fn begin(
        self: &Rc<Self>,
        name: &tenant::name::Name,
        create: bool,
        baton: Option<&Baton>,
        asks: Asks,
        may_claim: bool,
    ) -> Result<(Rc<OpenDatabase>, u64, Stream), JobError> {
        let open = match self.replica_for(name, baton, asks).await? {
            Some(replica) => replica,
            None if !self.node.lease_is_valid() => return Err(self.out_of_touch().into()),
            None => {
                let open = match may_claim {
                    true => self.open_to_read(name, create).await?,
                    false => self.open(name, create).await?,
                };
                // A replica that read the bucket may have shown what this node does not know to be durable yet.
                let newest = Lsn::raw(open.database.newest().lsn);
                self.wait_for(&open, asks.min_lsn.min(newest)).await?;
                open
            }
        };
        open.used_micros.set(self.node.seam.boot_micros());
        open.is_idle.set(false);
        let (id, stream) = match baton {
            Some(baton) => {
                let stream = self.streams.take(baton, name)?;
                if !Rc::ptr_eq(&stream.database, &open.database) {
                    // The database was deleted, or changed hands, since; another has its name.
                    self.end(&open, baton.stream_id, stream).await;
                    return Err(ProtocolError::StreamExpired.into());
                }
                (baton.stream_id, stream)
            }
            None if self.streams.len() >= limits::STREAMS_MAX => {
                let text = "too many open streams on this node; close some, or try again later";
                return Err(ServerError::new(Fault::Retry, text).into());
            }
            None => {
                let response_bytes_max = self.node.settings.response_bytes_max;
                let stream = Stream::new(open.database.clone(), open.pool.clone(), response_bytes_max);
                (self.node.seam.random_u64(), stream)
            }
        };
        Ok((open, id, stream))
    }

    /// What state an answer shows that has seen `seen`.
    pub(super) fn shown(&self, open: &OpenDatabase, seen: u64, as_of: Option<u64>) -> Shown {
        let lsn = if seen > 0 { seen } else { open.database.gate.durable() };
        let now = self.node.seam.boot_micros();
        Shown { lsn, staleness: as_of.map(|as_of| Replica::staleness(as_of, now)) }
    }

    fn out_of_touch(&self) -> ServerError {
        let text = "this node has not heard from the bucket for longer than its lease; nothing was done; try again later";
        ServerError::new(Fault::Retry, text)
    }

    async fn pipeline(
        self: &Rc<Self>,
        open: &Rc<OpenDatabase>,
        (id, mut stream): (u64, Stream),
        requests: Vec<StreamRequest>,
        version: HranaVersion,
        client: Client,
    ) -> Result<PipelineReply, JobError> {
        let commits_before = stream.commits();
        let as_of = as_of(open, &stream);
        let count = requests.len();
        let running = stream.running.clone();
        let body = move || {
            let results = stream.pipeline(&requests, version);
            if !stream.has_state() {
                stream.release();
            }
            (results, stream)
        };
        let ran = self.run(open, running, body, client).await;
        let (results, stream) = match ran {
            Ok(ran) => ran,
            Err(error) => {
                self.streams.remove(id);
                return Err(error.into());
            }
        };
        let wrote = stream.commits() > commits_before;
        let gate = self.gate(open, stream.seen(), wrote).await;
        let results = match (results, gate) {
            (Err(error), _) => {
                self.end(open, id, stream).await;
                return Err(error.into());
            }
            (Ok(_), Err(error)) => {
                // What these results say must not be shown; each request is told why.
                self.end(open, id, stream).await;
                let told = HranaError::from(error);
                return Ok(PipelineReply { baton: None, results: vec![Err(told); count], shown: Shown::default() });
            }
            (Ok(results), Ok(())) => results,
        };
        let shown = self.shown(open, stream.seen(), as_of);
        let baton = self.park(open, id, stream);
        Ok(PipelineReply { baton, results, shown })
    }

    /// Code of this process: its stream ends with it, and it has no client who could go away.
    async fn local(self: &Rc<Self>, open: &Rc<OpenDatabase>, mut stream: Stream, body: LocalWork) -> Result<(), JobError> {
        let running = stream.running.clone();
        let body = move || {
            body(&mut stream);
            stream.release();
            stream
        };
        let stream = self.run(open, running, body, Client::none()).await?;
        Ok(self.gate(open, stream.seen(), stream.commits() > 0).await?)
    }

    async fn cursor(
        self: &Rc<Self>,
        open: &Rc<OpenDatabase>,
        id: u64,
        mut stream: Stream,
        batch: Batch,
        version: HranaVersion,
        head: oneshot::Sender<Result<CursorReply, JobError>>,
    ) {
        if let Err(error) = condition::check_batch(&batch, version) {
            let _ = head.send(Err(error.into()));
            return self.end(open, id, stream).await;
        }
        let (sender, pieces) = mpsc::channel(CURSOR_PIECES_MAX);
        // The baton leaves before the batch has run, so it is given to every cursor; a stream that turns
        // out to hold no state ends when its client closes it or does not come back.
        let sequence = self.streams.reserve(id, &open.database.name);
        let baton = Baton { stream_id: id, sequence, core: self.number };
        let shown = self.shown(open, stream.seen(), as_of(open, &stream));
        if head.send(Ok(CursorReply { baton: Some(baton), pieces, shown })).is_err() {
            return self.end(open, id, stream).await;
        }
        let client = Client { is_cursor: true, ..Client::of_pieces(sender, &stream) };
        let running = stream.running.clone();
        let body = move || {
            let result = stream.cursor(&batch);
            // The baton is out already, but a stream without state need not keep a connection for it.
            if !stream.has_state() {
                stream.release();
            }
            (result, stream)
        };
        match self.run(open, running, body, client).await {
            Ok((Ok(()), stream)) if self.is_stopping.get() => self.end(open, id, stream).await,
            Ok((Ok(()), stream)) => {
                let in_transaction = stream.is_in_transaction();
                self.streams.return_reserved(id, stream);
                self.watch_idle(open, id, sequence, in_transaction);
            }
            Ok((Err(error), stream)) => {
                warn!(%error, "a cursor was cut off by a malformed step");
                self.end(open, id, stream).await;
            }
            Err(_) => self.streams.remove(id),
        }
    }

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
            Wait::Fetch(fetch) => match (fetch.base_lsn(), open.fetch(fetch).await) {
                (_, Ok(())) => Wake::Ready,
                // What it reads may be gone because this node has no say in it any more: that is no damage.
                (base, Err(error)) => Wake::Failed(match open.database.lost() {
                    Some(reason) => ServerError::new(Fault::Fenced, reason),
                    None if open.database.replica.is_some() => self.look_why(&open, base, error).await,
                    None => error,
                }),
            },
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
                crate::hrana::cursor::write_line(&mut last, &crate::hrana::cursor::CursorEntry::Error { error });
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
            Ok(()) if wrote || open.database.replica.is_some() || self.node.lease_is_valid() => Ok(()),
            Ok(()) => Err(self.out_of_touch()),
            Err(reason) if wrote => Err(ServerError::new(
                Fault::Indefinite,
                format!("the outcome of this write is unknown: {reason}. Read before you write it again"),
            )),
            Err(reason) => Err(ServerError::new(Fault::Retry, format!("what this request read is not durable yet: {reason}"))),
        }
    }

    /// Keeps a stream that holds state for its next request, or lets it go.
    fn park(self: &Rc<Self>, open: &Rc<OpenDatabase>, id: u64, stream: Stream) -> Option<Baton> {
        if !stream.has_state() || self.is_stopping.get() || self.streams.len() >= limits::STREAMS_MAX {
            self.streams.remove(id);
            let core = self.clone();
            let open = open.clone();
            if stream.file().is_some() {
                spawn_local(async move { core.end(&open, id, stream).await });
            }
            return None;
        }
        let in_transaction = stream.is_in_transaction();
        let sequence = self.streams.park(id, &open.database.name, stream);
        self.watch_idle(open, id, sequence, in_transaction);
        Some(Baton { stream_id: id, sequence, core: self.number })
    }

    /// Ends a stream whose baton reached nobody: nobody else can.
    async fn end_unreachable(self: &Rc<Self>, open: &Rc<OpenDatabase>, baton: &Baton) {
        if let Some(stream) = self.streams.take_idle(baton.stream_id, baton.sequence) {
            self.end(open, baton.stream_id, stream).await;
        }
    }

    /// Ends a stream: what is open in it is rolled back.
    pub(super) async fn end(self: &Rc<Self>, open: &Rc<OpenDatabase>, id: u64, mut stream: Stream) {
        self.streams.remove(id);
        let running = stream.running.clone();
        let _ = self.run(open, running, move || stream.release(), Client::none()).await;
    }

    /// Sets the time by which a parked stream is to be back.
    fn watch_idle(&self, open: &Rc<OpenDatabase>, id: u64, sequence: u64, in_transaction: bool) {
        let settings = &self.node.settings;
        let limit = if in_transaction { settings.idle_transaction_timeout } else { settings.idle_stream_timeout };
        let limit = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        let at = self.node.seam.boot_micros().saturating_add(limit);
        self.streams.deadlines.set(id, at, Idle { open: open.clone(), sequence, in_transaction });
    }

    /// The core's one watcher of parked streams. No timer runs while there are none.
    pub(super) async fn watch_idle_streams(self: Rc<Self>) {
        let deadlines = &self.streams.deadlines;
        loop {
            let changed = deadlines.changed.notified();
            let Some(at) = deadlines.earliest() else {
                changed.await;
                continue;
            };
            let now = self.node.seam.boot_micros();
            if at > now {
                tokio::select! {
                    biased;
                    () = changed => {}
                    () = self.node.seam.sleep(Duration::from_micros(at - now)) => {}
                }
                continue;
            }
            while let Some((id, idle)) = deadlines.take_due(now) {
                spawn_local(self.clone().time_out(id, idle));
            }
        }
    }

    /// Rolls an idle transaction back so that others get the turn, and later forgets the stream.
    async fn time_out(self: Rc<Self>, id: u64, idle: Idle) {
        let Idle { open, sequence, in_transaction } = idle;
        let Some(mut stream) = self.streams.take_idle(id, sequence) else { return };
        if !in_transaction {
            self.streams.expire(id);
            return self.end(&open, id, stream).await;
        }
        let running = stream.running.clone();
        let body = move || {
            stream.time_out();
            stream
        };
        match self.run(&open, running, body, Client::none()).await {
            Ok(stream) => {
                self.streams.put_back(id, stream);
                self.watch_idle(&open, id, sequence, false);
            }
            Err(_) => self.streams.expire(id),
        }
    }

    /// Ends the streams of a database that has ended.
    pub(super) async fn end_streams_of(self: &Rc<Self>, open: &Rc<OpenDatabase>) {
        for (id, stream) in self.streams.drain_of(&open.database) {
            self.end(open, id, stream).await;
        }
    }

    /// Rolls back and closes every parked stream.
    pub(super) async fn close_streams(self: &Rc<Self>) {
        for mut stream in self.streams.drain() {
            let open = self.databases.by_id(stream.database.id);
            let running = stream.running.clone();
            match open {
                Some(open) => drop(self.run(&open, running, move || stream.release(), Client::none()).await),
                None => stream.release(),
            }
        }
    }
}

/// As of when what a request at a replica is going to see was known to be complete: now, or when its open
/// transaction began.
pub(super) fn as_of(open: &OpenDatabase, stream: &Stream) -> Option<u64> {
    let replica = open.database.replica.as_ref()?;
    let began = stream.file().filter(|_| stream.is_in_transaction()).map(|file| file.as_of_micros());
    Some(began.unwrap_or_else(|| replica.as_of_micros()))
}

/// The other end of a running request.
pub(super) struct Client {
    gone: Box<dyn Fn() -> bool>,
    sends: Option<mpsc::Sender<Bytes>>,
    /// See [`Stream::floor`].
    floor: Rc<Cell<u64>>,
    /// It reads entries of a cursor, of which one can say why the answer ends.
    is_cursor: bool,
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
