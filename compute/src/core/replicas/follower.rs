//! The task that keeps one replica up to date, for as long as it is open.
//!
//! ```text
//!        ┌────────────────────────────────────────────────────────────────┐
//!        ▼                                                                │ it ended, or broke off
//!   read the head ── owner alive, has an address ─▶ follow its stream ────┘
//!    │  │  │ └────── owner alive, cannot be reached ─▶ its open log, the run without a gap ─▶ wait, look again
//!    │  │  └──────── owner dead and sealed ─▶ all that its log holds ─────────────────────▶ wait, look again
//!    │  └─────────── nobody's: everything is folded ──────────────────────────────────────▶ wait, look again
//!    └────────────── final, ours, or folded beyond what is here: the replica is closed
//! ```
//!
//! Each look begins at a time of this node's own clock. What was acknowledged before that is in the bucket, and so in
//! what the look finds: that time is what staleness is counted from. Commits come from wherever, but each is checked
//! against the chain (`recover`), so what is shown is always a prefix of the one history, and all of it is durable.

use std::rc::Rc;
use std::time::Duration;

use pageserver::service::follow::{Ending, Notice, Start, Subscription};
use tenant::head::{Head, TailEntry};
use tenant::lifecycle::OwnerState;
use tracing::{debug, info, warn};
use walstore::id::{IncarnationId, Lsn, Slot};
use walstore::incarnation::IncarnationRecord;
use walstore::recovery::{self, Access, LoggedCommit, OpenRead};
use walstore::register;
use walstore::seal::SealError;

use super::super::Core;
use super::super::open_database::OpenDatabase;
use super::super::opening::{borrow_for, recover};
use crate::database::pages::Base;
use crate::database::replica::Replica;
use crate::error::{Fault, ServerError};
use crate::limits;

/// How far an open log was read.
type Cursor = Option<(IncarnationId, u64, Slot)>;

/// What a look came to.
enum Look {
    /// Look again at once: something has changed.
    Again,
    /// Nothing to follow at the moment.
    Later,
    /// The replica is over.
    Over(String),
}

impl Core {
    pub(super) async fn keep_up(self: Rc<Self>, open: Rc<OpenDatabase>) {
        let mut cursor = Cursor::None;
        let mut pause = limits::REPLICA_LOOK_MIN;
        while !open.is_closed.get() {
            let began = self.node.seam.boot_micros();
            match self.look(&open, &mut cursor).await {
                Ok(Look::Over(reason)) => return self.end_replica(&open, &reason).await,
                // A stream that held for a while has ended: the next one is due at once.
                Ok(Look::Again) if self.since(began) > limits::REPLICA_LOOK_MIN => {
                    pause = limits::REPLICA_LOOK_MIN;
                    continue;
                }
                Ok(Look::Again | Look::Later) => {}
                Err(error) if error.fault == Fault::Corrupt => {
                    warn!(database = %open.database.name, %error, "the replica cannot go on");
                    return self.end_replica(&open, &error.message).await;
                }
                Err(error) => debug!(database = %open.database.name, %error, "the replica cannot look into the bucket"),
            }
            if open.is_closed.get() {
                return;
            }
            tokio::select! {
                biased;
                () = replica_of(&open).nudge.notified() => {}
                () = self.node.seam.sleep(pause) => {}
            }
            pause = (pause * 2).min(limits::REPLICA_LOOK_MAX);
        }
    }

    fn since(&self, micros: u64) -> Duration {
        Duration::from_micros(self.node.seam.boot_micros().saturating_sub(micros))
    }

    /// Reads the head and whatever follows from it.
    async fn look(self: &Rc<Self>, open: &Rc<OpenDatabase>, cursor: &mut Cursor) -> Result<Look, ServerError> {
        let began = self.node.seam.boot_micros();
        let head = match self.adopt_head(open).await? {
            Ok(head) => head,
            Err(over) => return Ok(over),
        };
        let replica = replica_of(open);
        let Some(owner) = head.owner else {
            replica.set_owner(None);
            replica.is_complete_as_of(began);
            return Ok(Look::Later);
        };
        let entry = head.tail.last().copied().filter(|entry| entry.incarnation == owner);
        let Some(entry) = entry else { return Ok(Look::Over("its owner is not in its tail".into())) };
        match self.probe(owner).await? {
            OwnerState::Sealed => {
                self.take_in_sealed(&open.database, &head, None).await?;
                // If a log was drained meanwhile, there is a later head that has what is missing.
                match self.adopt_head(open).await? {
                    Ok(now) if now.version == head.version => replica.is_complete_as_of(began),
                    Ok(_) => return Ok(Look::Again),
                    Err(over) => return Ok(over),
                }
                Ok(Look::Later)
            }
            OwnerState::Alive { address } => {
                self.take_in_sealed(&open.database, &head, Some(owner)).await?;
                replica.set_owner(Some((owner, address.clone())));
                match self.subscribe(open, owner, &address).await {
                    Ok(subscription) => Ok(self.listen(open, subscription).await?),
                    Err(ending) => {
                        debug!(database = %open.database.name, owner = %owner, %ending, "cannot follow the owner");
                        self.read_open_log(open, entry, cursor).await
                    }
                }
            }
            // Suspected only, and no business of a replica's.
            _ => {
                self.take_in_sealed(&open.database, &head, Some(owner)).await?;
                self.read_open_log(open, entry, cursor).await
            }
        }
    }

    /// Reads the head. If the replica is over, its follower finds the same.
    pub(super) async fn look_at_head(&self, open: &OpenDatabase) -> Result<(), ServerError> {
        self.adopt_head(open).await.map(drop)
    }

    /// Reads the head and moves the replica onto what is folded by now.
    async fn adopt_head(&self, open: &OpenDatabase) -> Result<Result<Head, Look>, ServerError> {
        let over = |reason: &str| Ok(Err(Look::Over(reason.to_owned())));
        let Some(head) = self.read_head(open.database.id).await? else {
            return over("its head is gone");
        };
        if head.value.state.is_final() {
            return over("the database has ended");
        }
        if head.value.owner == Some(self.node.id) {
            return over("this node owns the database by now");
        }
        let (database, base) = (&open.database, self.folded_base(&head.value).await?);
        if base.tip.lsn > database.newest().lsn {
            return over("it has fallen behind what is folded");
        }
        // A request looks as well, beside the follower, and may have read an older one.
        if head.value.version > open.head.borrow().value.version {
            let now = database.base().tip;
            let known = if base.tip.lsn > now.lsn { base.tip.lsn.and_then(|lsn| database.tip_at(lsn)) } else { Some(now) };
            if known != Some(base.tip) {
                let text = format!("{}: what is folded is not what the log says", tenant::keys::head(database.id));
                return Err(ServerError::new(Fault::Corrupt, text));
            }
            // A compaction folds nothing, and yet the packs of the former map are gone.
            if base.tip.lsn > now.lsn || head.value.map != open.head.borrow().value.map {
                database.rebase(base);
            }
            *open.head.borrow_mut() = head;
        }
        let head = open.head.borrow().value.clone();
        Ok(Ok(head))
    }

    async fn subscribe(&self, open: &OpenDatabase, owner: IncarnationId, address: &str) -> Result<Subscription, Ending> {
        let peers = self.node.peers().filter(|_| !address.is_empty());
        let peers = peers.ok_or_else(|| Ending::NotHere("it has no address, or this node asks nobody".into()))?;
        let database = &open.database;
        let after = database.newest().lsn;
        let start = Start { database: database.id, name: database.name.clone(), incarnation: owner, after };
        let address = address.to_owned();
        let asked = self.node.io(move |_| async move { peers.follow(&address, start).await });
        tokio::select! {
            biased;
            asked = asked => asked.map_err(|error| Ending::Broken(error.message))?,
            () = self.node.seam.sleep(limits::REPLICA_SILENCE) => Err(Ending::Broken("no answer".into())),
        }
    }

    /// Applies what the owner sends, until it ends.
    async fn listen(self: &Rc<Self>, open: &Rc<OpenDatabase>, mut subscription: Subscription) -> Result<Look, ServerError> {
        let (seam, replica) = (&self.node.seam, replica_of(open));
        let mut heard = seam.boot_micros();
        let mut ticked = heard;
        subscription.tick(ticked);
        info!(database = %open.database.name, after = Lsn::raw(open.database.newest().lsn), "follows its owner");
        loop {
            if self.since(ticked) >= limits::REPLICA_TICK {
                if self.since(heard) > limits::REPLICA_SILENCE {
                    return Ok(Look::Again);
                }
                ticked = seam.boot_micros();
                subscription.tick(ticked);
            }
            let notice = tokio::select! {
                biased;
                notice = subscription.next() => notice,
                () = replica.nudge.notified() => return Ok(Look::Again),
                () = seam.sleep(limits::REPLICA_TICK.saturating_sub(self.since(ticked))) => continue,
            };
            heard = seam.boot_micros();
            match notice {
                Ok(Notice::Commit(commit)) => {
                    if !self.apply(open, &commit).await? {
                        return Ok(Look::Again);
                    }
                    if open.database.overlay_bytes() > limits::REPLICA_OVERLAY_BYTES_MAX || self.node.replica_overlays.is_full() {
                        return Ok(Look::Over("its pages that are not folded take too much memory".into()));
                    }
                }
                Ok(Notice::Folded(lsn)) if Some(lsn) >= open.database.base().tip.lsn => {
                    if let Err(look) = self.adopt_head(open).await? {
                        return Ok(look);
                    }
                }
                Ok(Notice::Folded(_)) => {}
                Ok(Notice::Heartbeat { tick, durable }) => {
                    if Lsn::raw(open.database.newest().lsn) >= durable {
                        replica.is_complete_as_of(tick);
                    }
                }
                Err(ending) => {
                    info!(database = %open.database.name, %ending, "the owner's stream is over");
                    return Ok(Look::Again);
                }
            }
        }
    }

    /// Applies the next commit. `false`: it is a later one.
    async fn apply(&self, open: &OpenDatabase, commit: &LoggedCommit) -> Result<bool, ServerError> {
        let database = &open.database;
        let newest = database.newest().lsn;
        if Some(commit.lsn) <= newest {
            return Ok(true);
        }
        if commit.lsn != Lsn::after(newest) {
            return Ok(false);
        }
        let owner = open.head.borrow().value.owner;
        let incarnation = owner.unwrap_or(self.node.id);
        let base = database.base();
        match recover(database, commit, incarnation).await {
            // What a patch builds on may have been replaced, and deleted, by a fold that this replica has not heard of.
            Err(error) if error.fault == Fault::Corrupt => Err(self.look_why(open, &base, error).await),
            result => result.map(|()| true),
        }
    }

    /// What the log of an owner that cannot be asked holds for certain.
    async fn read_open_log(
        self: &Rc<Self>,
        open: &Rc<OpenDatabase>,
        entry: TailEntry,
        cursor: &mut Cursor,
    ) -> Result<Look, ServerError> {
        let began = self.node.seam.boot_micros();
        // The record before the head: what is below its `low` is folded in the head that is read after it.
        let (id, patience) = (entry.incarnation, self.patience());
        let record = self.node.io(move |node| async move {
            let key = walstore::keys::incarnation(id);
            register::read::<IncarnationRecord>(&*node.stores.main, &node.seam, &key, patience).await
        });
        let record = record.await?.map_err(ServerError::from)?;
        let Some(record) = record else { return Ok(Look::Later) };
        let head = match self.adopt_head(open).await? {
            Ok(head) => head,
            Err(over) => return Ok(over),
        };
        if head.tail.last().map(|last| (last.incarnation, last.epoch)) != Some((entry.incarnation, entry.epoch)) {
            return Ok(Look::Again);
        }
        let from = match *cursor {
            Some((incarnation, epoch, next)) if (incarnation, epoch) == (id, entry.epoch) => next,
            _ => Slot::ZERO,
        };
        let of = (open.database.id, entry.epoch);
        let read = self.node.io(move |node| async move {
            let access = Access { stores: &node.stores, seam: &node.seam, patience };
            recovery::read_open(access, id, &record.value, from, of).await
        });
        let OpenRead { next, commits } = match read.await? {
            Err(SealError::Stale(_)) => return Ok(Look::Again),
            read => read.map_err(ServerError::from)?,
        };
        let _loan = borrow_for(&commits, &self.node.cache);
        for commit in commits.iter().filter(|commit| entry.holds(id, commit.epoch, commit.lsn)) {
            if !self.apply(open, commit).await? {
                let text = format!("commit {} in the log of {id} follows none that is known", commit.lsn);
                return Err(ServerError::new(Fault::Corrupt, text));
            }
        }
        *cursor = Some((id, entry.epoch, next));
        replica_of(open).is_complete_as_of(began);
        Ok(Look::Later)
    }

    /// What a replica read is not there, by the map of `base`. Only its owner deletes, and only what its head no longer
    /// needs: if that has moved on, so does the replica, and what was read is read again from there if the snapshot is
    /// not too old for it; if it has not, the object is missing.
    pub(in crate::core) async fn look_why(&self, open: &OpenDatabase, base: &Rc<Base>, error: ServerError) -> ServerError {
        if error.fault != Fault::Corrupt {
            return error;
        }
        match self.adopt_head(open).await {
            Ok(Ok(_)) if Rc::ptr_eq(&open.database.base(), base) => return error,
            Ok(Ok(_)) => {}
            // The follower finds the same, and closes it.
            Ok(Err(_)) | Err(_) => replica_of(open).nudge.notify_one(),
        }
        let text = format!("snapshot too old: what it read was replaced by a fold of `{}` meanwhile; try again", open.database.name);
        ServerError::new(Fault::Retry, text)
    }
}

fn replica_of(open: &OpenDatabase) -> &Replica {
    open.database.replica.as_ref().expect("BUG: a follower of a database that is no replica")
}
