//! Runs a [`LogCore`] against a store.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::core::{Action, LogCore, PutOutcome};
use super::side::{self, Advance, SideQueue};
use super::slot_put::SlotPut;
use super::{Command, LogInbox, LogSink, Shared};
use crate::id::{DatabaseId, IncarnationId, Slot};
use crate::keys;
use crate::life::Stores;
use crate::limits;
use crate::run::SideRef;
use crate::seam::Seam;
use crate::store::Store;

struct Driver {
    core: LogCore,
    side: SideQueue,
    incarnation: IncarnationId,
    store: Arc<dyn Store>,
    /// Where side objects go.
    main_store: Arc<dyn Store>,
    seam: Seam,
    sink: Arc<dyn LogSink>,
    shared: Arc<Shared>,
    answers: mpsc::UnboundedSender<(Slot, PutOutcome)>,
    uploads: mpsc::UnboundedSender<(DatabaseId, SideRef)>,
    drains: Vec<oneshot::Sender<()>>,
    fence_reason: String,
}

/// Runs the log of `incarnation` until every handle is gone. No client can cancel it.
pub async fn run(
    incarnation: IncarnationId,
    inbox: LogInbox,
    stores: Stores,
    seam: Seam,
    sink: Arc<dyn LogSink>,
) {
    let LogInbox { mut commands, shared } = inbox;
    let (answers, mut answered) = mpsc::unbounded_channel();
    let (uploads, mut uploaded) = mpsc::unbounded_channel();
    let core = LogCore::new(incarnation, seam.random_id());
    let mut driver = Driver {
        core,
        side: SideQueue::new(incarnation),
        incarnation,
        store: stores.log,
        main_store: stores.main,
        seam,
        sink,
        shared,
        answers,
        uploads,
        drains: Vec::new(),
        fence_reason: String::from("its log was sealed by another node"),
    };
    loop {
        let now = driver.seam.boot_micros();
        let wake = driver.core.wake_at(now).map(|at| Duration::from_micros(at.saturating_sub(now)));
        let (timer, shared) = (driver.seam.clone(), driver.shared.clone());
        tokio::select! {
            biased;
            Some((slot, outcome)) = answered.recv() => driver.on_answer(slot, outcome),
            Some((database, stored)) = uploaded.recv() => driver.on_uploaded(database, stored),
            command = commands.recv() => match command {
                Some(command) => driver.on_command(command),
                None => return,
            },
            reason = shared.refusals.over() => driver.on_command(Command::Fence(reason)),
            () = timer.sleep(wake.unwrap_or_default()), if wake.is_some() => driver.on_tick(),
        }
        driver.publish();
    }
}

impl Driver {
    fn on_command(&mut self, command: Command) {
        match command {
            Command::Append(commit) => {
                let advance = self.side.on_append(commit, || self.seam.random_id());
                self.advance(advance);
            }
            Command::Folded(database, lsn) => {
                self.core.on_folded(database, lsn);
                let advance = self.side.on_folded(database, lsn, || self.seam.random_id());
                self.advance(advance);
            }
            Command::Fence(reason) => {
                if self.core.is_fenced() {
                    return;
                }
                self.fence_reason = reason;
                let actions = self.core.on_fenced();
                self.perform(actions);
            }
            Command::Drain(done) => self.drains.push(done),
        }
    }

    fn on_uploaded(&mut self, database: DatabaseId, stored: SideRef) {
        let advance = self.side.on_uploaded(database, stored, || self.seam.random_id());
        self.advance(advance);
    }

    /// Hands on what a large commit held back, and begins the next upload.
    fn advance(&mut self, Advance { commits, upload }: Advance) {
        for commit in commits {
            let actions = self.core.on_append(commit, self.seam.boot_micros());
            self.perform(actions);
        }
        if let Some(upload) = upload {
            let (store, seam, stop) = (self.main_store.clone(), self.seam.clone(), self.side.stop());
            let (uploads, shared) = (self.uploads.clone(), self.shared.clone());
            self.seam.spawn(async move {
                let database = upload.id.database;
                if let Some(stored) = side::upload(&*store, &seam, upload, &stop, &shared.failing).await {
                    let _ = uploads.send((database, stored));
                }
            });
        }
    }

    fn on_tick(&mut self) {
        let actions = self.core.on_tick(self.seam.boot_micros());
        self.perform(actions);
    }

    fn on_answer(&mut self, slot: Slot, outcome: PutOutcome) {
        let actions = self.core.on_put(slot, outcome, self.seam.boot_micros());
        self.perform(actions);
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Put { slot, object } => self.put(slot, object),
                Action::Durable(commits) => {
                    self.shared.place_sides(self.side.on_durable(&commits));
                    self.sink.durable(commits);
                }
                Action::Fenced => {
                    self.side.on_fenced();
                    error!(incarnation = %self.incarnation, reason = self.fence_reason, "the log is fenced");
                    self.sink.fenced(&self.fence_reason);
                }
            }
        }
    }

    fn put(&self, slot: Slot, object: Bytes) {
        let key = keys::fragment(self.incarnation, slot);
        let (store, seam, shared) = (self.store.clone(), self.seam.clone(), self.shared.clone());
        let put = SlotPut { store, seam, shared, key, object };
        let answers = self.answers.clone();
        self.seam.spawn(async move {
            put.run(|outcome| {
                let _ = answers.send((slot, outcome));
            })
            .await;
        });
    }

    fn publish(&mut self) {
        let durable_end = self.core.durable_end();
        self.shared.backlog_bytes.store(self.core.backlog_bytes() + self.side.bytes(), Ordering::Relaxed);
        self.shared.waiting_since.store(self.core.waiting_since().unwrap_or(0), Ordering::Relaxed);
        self.shared.durable_end.store(durable_end.0, Ordering::Release);
        self.shared.low.store(self.core.low().0, Ordering::Release);
        let hint = self.shared.hint_written.load(Ordering::Relaxed);
        if durable_end.0.saturating_sub(hint) >= limits::HINT_LAG_SLOTS_MAX {
            self.shared.hint_lags.notify_one();
        }
        if (self.core.is_drained() && self.side.is_empty()) || self.core.is_fenced() {
            for done in self.drains.drain(..) {
                let _ = done.send(());
            }
        }
    }
}
