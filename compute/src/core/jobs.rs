//! Serving one request: find the database and the stream, have it run ([`super::running`]), hold the reply at the gate,
//! and park the stream for the next one ([`super::parking`]).

use std::cell::RefCell;
use std::rc::Rc;

use tokio::sync::{mpsc, oneshot};
use tracing::warn;
use walstore::id::Lsn;

use super::open_database::OpenDatabase;
use super::replicas::{self, Asks};
use super::running::Client;
use super::{Core, CursorReply, Job, JobError, LocalWork, PipelineReply, Role, Shown, Work, spawn_local};
use crate::database::replica::Replica;
use crate::error::{Fault, ServerError};
use crate::hrana::HranaVersion;
use crate::hrana::baton::Baton;
use crate::hrana::condition;
use crate::hrana::error::{HranaError, ProtocolError};
use crate::hrana::request::{Batch, StreamRequest};
use crate::limits;
use crate::session::stream::Stream;

/// Pieces of a cursor that may wait for a slow client.
const CURSOR_PIECES_MAX: usize = 4;

type PipelineSender = Rc<RefCell<Option<oneshot::Sender<Result<PipelineReply, JobError>>>>>;

/// What a pipeline was asked with, to ask again.
#[derive(Clone, Copy)]
struct PipelineJob<'a> {
    name: &'a tenant::name::Name,
    create: bool,
    baton: Option<&'a Baton>,
    asks: Asks,
    version: HranaVersion,
}

impl Core {
    /// Starts a request. Its task runs to the end even if the client goes away: then it is told to stop.
    pub(super) fn start(self: Rc<Self>, job: Job) {
        spawn_local(async move {
            let Job { database, at, create, baton, version, min_lsn, work, loan } = job;
            let asks = Asks { at, only_reads: replicas::only_reads(&work), min_lsn };
            // A pipeline is answered as a whole, so it may run before this node owns the database.
            let may_claim = matches!(work, Work::Pipeline { .. });
            let opened = self.begin(&database, create, baton.as_ref(), asks, may_claim).await;
            match work {
                Work::Pipeline { requests, reply } => match opened {
                    Ok((open, id, stream)) => {
                        let reply = Rc::new(RefCell::new(Some(reply)));
                        let job = PipelineJob { name: &database, create, baton: baton.as_ref(), asks, version };
                        let requests = Rc::new(requests);
                        let (open, answer) = self.pipeline_until_good((open, id, stream), job, requests, &reply).await;
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
            drop(loan);
        });
    }

    /// The database as it is now. With `may_claim` it may be that this node does not own it yet.
    async fn present(
        self: &Rc<Self>,
        name: &tenant::name::Name,
        create: bool,
        baton: Option<&Baton>,
        asks: Asks,
        may_claim: bool,
    ) -> Result<Rc<OpenDatabase>, JobError> {
        if let Some(replica) = self.replica_for(name, baton, asks).await? {
            return Ok(replica);
        }
        if !self.node.lease_is_valid() {
            return Err(self.out_of_touch().into());
        }
        let open = match may_claim {
            true => self.open_to_read(name, create).await?,
            false => self.open(name, create).await?,
        };
        if self.has_expired(&open) {
            open.claim.settled().await.map_err(|why| why.error)?;
            self.clone().expire(&open);
            return Err(JobError::NoSuchDatabase(name.clone()));
        }
        // A replica that read the bucket may have shown what this node does not know to be durable yet.
        let newest = Lsn::raw(open.database.newest().lsn);
        self.wait_for(&open, asks.min_lsn.min(newest)).await?;
        Ok(open)
    }

    /// The database, and the stream that the baton names or a new one.
    async fn begin(
        self: &Rc<Self>,
        name: &tenant::name::Name,
        create: bool,
        baton: Option<&Baton>,
        asks: Asks,
        may_claim: bool,
    ) -> Result<(Rc<OpenDatabase>, u64, Stream), JobError> {
        let open = match asks.at {
            Some(moment) => self.past_for(name, baton, moment, asks.min_lsn).await?,
            None => self.present(name, create, baton, asks, may_claim).await?,
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
        let role = match (&open.database.replica, &open.database.past) {
            (_, Some(_)) => Role::Past,
            (Some(_), None) => Role::Replica,
            (None, None) => Role::Owner,
        };
        Shown { lsn, staleness: as_of.map(|as_of| Replica::staleness(as_of, now)), role }
    }

    pub(super) fn out_of_touch(&self) -> ServerError {
        let text = "this node has not heard from the bucket for longer than its lease; nothing was done; try again later";
        ServerError::new(Fault::Retry, text)
    }

    /// Runs a pipeline, and once more from the start if it has seen what it must not show, or what it read at a replica has
    /// gone meanwhile. Nothing of the answer has been sent by then, and in both cases nothing was written.
    async fn pipeline_until_good(
        self: &Rc<Self>,
        (mut open, mut id, mut stream): (Rc<OpenDatabase>, u64, Stream),
        job: PipelineJob<'_>,
        requests: Rc<Vec<StreamRequest>>,
        reply: &PipelineSender,
    ) -> (Rc<OpenDatabase>, Result<PipelineReply, JobError>) {
        let mut tries = 1;
        loop {
            let was_won = open.claim.is_won();
            let client = Client::of_reply(reply);
            let (answer, is_outdated) = self.pipeline(&open, (id, stream), requests.clone(), job.version, client).await;
            // It had no turn to write.
            let is_overtaken = !was_won && open.claim.is_overtaken();
            // What a former request has left in its stream is bound to its snapshot.
            let is_outdated = is_outdated && job.baton.is_none();
            if !(is_overtaken || is_outdated) || tries == limits::PIPELINE_TRIES_MAX {
                return (open, answer);
            }
            if let Ok(PipelineReply { baton: Some(baton), .. }) = &answer {
                self.end_unreachable(&open, baton).await;
            }
            (open, id, stream) = match self.begin(job.name, job.create, None, job.asks, false).await {
                Ok(begun) => begun,
                Err(error) => return (open, Err(error)),
            };
            tries += 1;
        }
    }

    /// Also whether it failed because a replica's snapshot was too old.
    async fn pipeline(
        self: &Rc<Self>,
        open: &Rc<OpenDatabase>,
        (id, mut stream): (u64, Stream),
        requests: Rc<Vec<StreamRequest>>,
        version: HranaVersion,
        client: Client,
    ) -> (Result<PipelineReply, JobError>, bool) {
        let commits_before = stream.commits();
        let as_of = as_of(open, &stream);
        let count = requests.len();
        let running = stream.running.clone();
        let body = move || {
            let results = stream.pipeline(&requests, version);
            let is_outdated = stream.is_outdated();
            if !stream.has_state() {
                stream.release();
            }
            (results, stream, is_outdated)
        };
        let ran = self.run(open, running, body, client).await;
        let (results, stream, is_outdated) = match ran {
            Ok(ran) => ran,
            Err(error) => {
                self.streams.remove(id);
                return (Err(error.into()), false);
            }
        };
        let wrote = stream.commits() > commits_before;
        let gate = self.gate(open, stream.seen(), wrote).await;
        let results = match (results, gate) {
            (Err(error), _) => {
                self.end(open, id, stream).await;
                return (Err(error.into()), false);
            }
            (Ok(_), Err(error)) => {
                // What these results say must not be shown; each request is told why.
                self.end(open, id, stream).await;
                let told = HranaError::from(error);
                let reply = PipelineReply { baton: None, results: vec![Err(told); count], shown: Shown::default() };
                return (Ok(reply), is_outdated);
            }
            (Ok(results), Ok(())) => results,
        };
        let shown = self.shown(open, stream.seen(), as_of);
        let baton = self.park(open, id, stream);
        (Ok(PipelineReply { baton, results, shown }), is_outdated)
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
}

/// As of when what a request at a replica is going to see was known to be complete: now, or when its open
/// transaction began.
pub(super) fn as_of(open: &OpenDatabase, stream: &Stream) -> Option<u64> {
    let replica = open.database.replica.as_ref()?;
    let began = stream.file().filter(|_| stream.is_in_transaction()).map(|file| file.as_of_micros());
    Some(began.unwrap_or_else(|| replica.as_of_micros()))
}
