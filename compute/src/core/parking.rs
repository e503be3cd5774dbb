//! Streams that are parked until their client comes back with its baton, or does not; [`super::streams`] keeps them.

use std::rc::Rc;
use std::time::Duration;

use super::open_database::OpenDatabase;
use super::running::Client;
use super::streams::Idle;
use super::{Core, spawn_local};
use crate::hrana::baton::Baton;
use crate::limits;
use crate::session::stream::Stream;

impl Core {
    /// Keeps a stream that holds state for its next request, or lets it go.
    pub(super) fn park(self: &Rc<Self>, open: &Rc<OpenDatabase>, id: u64, stream: Stream) -> Option<Baton> {
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
    pub(super) async fn end_unreachable(self: &Rc<Self>, open: &Rc<OpenDatabase>, baton: &Baton) {
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
    pub(super) fn watch_idle(&self, open: &Rc<OpenDatabase>, id: u64, sequence: u64, in_transaction: bool) {
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
