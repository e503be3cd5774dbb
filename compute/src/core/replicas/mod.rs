//! Read replicas: databases that another, live node owns, opened here for reading.
//!
//! ```text
//!   request that only reads ─▶ replica open? ──yes──▶ its newest state (after `shoal-min-lsn`, if asked for)
//!                                   │ no
//!                                   ▼
//!            name, head, owner's record ─▶ owner lives elsewhere ──▶ open: what is folded, sealed logs of former owners
//!                                   └─▶ nobody, we, or dead: as without replicas (this node acquires it)
//! ```
//!
//! A replica is an [`OpenDatabase`] that is in none of the owner's lists: it is never folded, its writers are refused
//! ([`Replica::refusal`](crate::database::replica::Replica::refusal)), and its state moves only when its [`follower`] applies commits that are durable. It never
//! writes to the bucket. One that nobody uses is closed like any database, and its follower ends with it.
//!
//! | file | idea |
//! |---|---|
//! | [`asks`] | which requests only read |
//! | [`opening`] | from a name to a replica |
//! | [`follower`] | the task that keeps it up to date: the owner's stream, or the bucket |

mod asks;
mod follower;
mod opening;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tenant::name::Name;
use tokio::sync::OnceCell;
use tracing::info;

pub(super) use self::asks::{Asks, only_reads};

use super::databases::OpenError;
use super::open_database::OpenDatabase;
use super::Core;
use crate::error::{Fault, ServerError};
use crate::hrana::baton::Baton;
use crate::limits;

type Opening = Rc<OnceCell<Rc<OpenDatabase>>>;

/// The replicas of one core.
#[derive(Default)]
pub struct Replicas {
    by_name: RefCell<BTreeMap<Name, Opening>>,
}

impl Replicas {
    fn opening(&self, name: &Name) -> Opening {
        let mut by_name = self.by_name.borrow_mut();
        let opening = by_name.entry(name.clone()).or_default();
        if opening.get().is_some_and(|open| open.is_closed.get()) {
            // It was closed in the moment in which it became open.
            *opening = Opening::default();
        }
        opening.clone()
    }

    fn get(&self, name: &Name) -> Option<Rc<OpenDatabase>> {
        self.by_name.borrow().get(name).and_then(|opening| opening.get().cloned()).filter(|open| !open.is_closed.get())
    }

    fn all(&self) -> Vec<Rc<OpenDatabase>> {
        self.by_name.borrow().values().filter_map(|opening| opening.get().cloned()).collect()
    }

    fn remove(&self, open: &OpenDatabase) {
        self.by_name.borrow_mut().retain(|_, opening| !opening.get().is_some_and(|it| std::ptr::eq(&**it, open)));
    }

    /// Nothing is remembered of a try that came to nothing.
    fn forget(&self, name: &Name, opening: &Opening) {
        let mut by_name = self.by_name.borrow_mut();
        if !opening.initialized() && by_name.get(name).is_some_and(|now| Rc::ptr_eq(now, opening)) {
            by_name.remove(name);
        }
    }
}

impl Core {
    /// The replica that a request is to be answered by; `None`: this node owns the database, or has to.
    pub(super) async fn replica_for(
        self: &Rc<Self>,
        name: &Name,
        baton: Option<&Baton>,
        asks: Asks,
    ) -> Result<Option<Rc<OpenDatabase>>, OpenError> {
        if !self.node.settings.read_replicas || self.fenced.borrow().is_some() {
            return Ok(None);
        }
        if let Some(baton) = baton {
            // Whatever it asks for: the stream's snapshot, and its rows, are the replica's.
            let open = self.replicas.get(name).filter(|open| self.streams.is_of(baton, &open.database));
            if let Some(open) = &open {
                self.check_it_lives(open).await?;
            }
            return Ok(open);
        }
        if !asks.only_reads || self.databases.is_open(name) {
            return Ok(None);
        }
        let open = match self.replicas.get(name) {
            Some(open) => open,
            None => match self.open_replica(name).await? {
                Some(open) => open,
                None => return Ok(None),
            },
        };
        self.check_it_lives(&open).await?;
        open.used_micros.set(self.node.seam.boot_micros());
        self.wait_for(&open, asks.min_lsn).await?;
        Ok(Some(open))
    }

    /// Refuses a database whose time is up. Its owner may have given it more.
    async fn check_it_lives(&self, open: &OpenDatabase) -> Result<(), OpenError> {
        if !self.has_expired(open) {
            return Ok(());
        }
        self.look_at_head(open).await?;
        match self.has_expired(open) {
            true => Err(OpenError::NoSuchDatabase(open.database.name.clone())),
            false => Ok(()),
        }
    }

    async fn open_replica(self: &Rc<Self>, name: &Name) -> Result<Option<Rc<OpenDatabase>>, OpenError> {
        let opening = self.replicas.opening(name);
        let opened = opening.get_or_try_init(|| async {
            let open = self.load_replica(name).await.map_err(Some)?;
            let open = open.ok_or(None)?;
            info!(database = %name, lsn = open.database.gate.durable(), "open as a replica");
            Ok::<_, Option<OpenError>>(open)
        });
        match opened.await.cloned() {
            Ok(open) => Ok(Some(open)),
            Err(error) => {
                self.replicas.forget(name, &opening);
                error.map_or(Ok(None), Err)
            }
        }
    }

    /// A client that has seen a commit waits for it, but not for ever.
    pub(super) async fn wait_for(&self, open: &OpenDatabase, min_lsn: u64) -> Result<(), ServerError> {
        let database = &open.database;
        if min_lsn <= database.gate.durable() {
            return Ok(());
        }
        tokio::select! {
            biased;
            passed = database.gate.pass(min_lsn) => passed.map_err(|lost| ServerError::new(Fault::Retry, lost.0)),
            () = self.node.seam.sleep(limits::REPLICA_WAIT) => {
                let (name, has) = (&database.name, database.gate.durable());
                let text = format!("this node's copy of `{name}` has got to LSN {has}, not yet to {min_lsn}; try again, or ask its owner");
                Err(ServerError::new(Fault::Retry, text))
            }
        }
    }

    /// Closes replicas that nobody has used for `idle`.
    pub(super) fn evict_replicas(self: &Rc<Self>, idle: Duration) {
        let now = self.node.seam.boot_micros();
        for open in self.replicas.all() {
            let unused = Duration::from_micros(now.saturating_sub(open.used_micros.get()));
            // The list, its follower, and this loop.
            if unused >= idle && Rc::strong_count(&open) <= 3 && !self.streams.has_of(&open.database) {
                self.shut_replica(&open, "nobody used it");
            }
        }
    }

    /// Takes a replica out of use: its follower ends, and its next user opens another.
    fn shut_replica(&self, open: &Rc<OpenDatabase>, reason: &str) {
        info!(database = %open.database.name, reason, "the replica is closed");
        self.replicas.remove(open);
        open.is_closed.set(true);
        open.pool.clear();
        // Who waits for a commit need not wait any longer.
        open.database.gate.lose(&format!("the replica was closed ({reason}); try again"));
        if let Some(replica) = &open.database.replica {
            replica.nudge.notify_one();
            replica.changed.notify_waiters();
        }
    }

    /// The same, with the streams that are parked at it.
    async fn end_replica(self: &Rc<Self>, open: &Rc<OpenDatabase>, reason: &str) {
        self.shut_replica(open, reason);
        self.end_streams_of(open).await;
    }

    /// No history is shown beside the one that this node is about to write.
    pub(super) async fn close_replica_of(self: &Rc<Self>, name: &Name, reason: &str) {
        if let Some(open) = self.replicas.get(name) {
            self.end_replica(&open, reason).await;
        }
    }

    /// The node is going down.
    pub(super) fn close_replicas(&self, reason: &str) {
        for open in self.replicas.all() {
            self.shut_replica(&open, reason);
        }
    }
}
