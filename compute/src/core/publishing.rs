//! The owner's side of replicas: one task for each follower of a database, which sends it what is durable.
//!
//! It begins with what the follower lacks and the log still has, read back from the bucket; then come the commits as
//! they become durable, fresh from memory. Heartbeats are answers: a follower that wants to know how new its state is
//! asks, and one that asks for nothing is forgotten.

use std::rc::Rc;

use pageserver::service::follow::{Ending, Notice, Publisher, Start};
use tenant::name::Name;
use tenant::registry;
use tracing::{debug, info};
use walstore::id::{DatabaseId, IncarnationId, Lsn};

use super::databases::OpenError;
use super::open_database::OpenDatabase;
use super::{Core, spawn_local};
use crate::limits;

impl Core {
    pub(super) fn publish(self: &Rc<Self>, start: Start, publisher: Publisher) {
        let core = self.clone();
        spawn_local(async move {
            let mut publisher = publisher;
            let ending = match core.owned(start.database, &start.name, start.incarnation).await {
                Ok(open) => {
                    info!(database = %start.name, after = Lsn::raw(start.after), "followed");
                    core.send_commits(&open, start.after, &mut publisher).await
                }
                Err(ending) => ending,
            };
            debug!(database = %start.name, %ending, "no longer followed");
            publisher.end(ending);
        });
    }

    /// The database, if it is this node's. Following it, or asking for its pages, is no reason to take it.
    pub(super) async fn owned(
        self: &Rc<Self>,
        database: DatabaseId,
        name: &Name,
        incarnation: IncarnationId,
    ) -> Result<Rc<OpenDatabase>, Ending> {
        let elsewhere = || Ending::NotHere(format!("`{name}` is not owned by this node"));
        if incarnation != self.node.id || self.is_stopping.get() {
            return Err(elsewhere());
        }
        // One that is only claimed yet may be another node's.
        if let Some(open) = self.databases.by_id(database).filter(|open| open.claim.is_won()) {
            return Ok(open);
        }
        let patience = self.patience();
        let head = self.node.io(move |node| async move {
            registry::read_head(&*node.stores.main, &node.seam, database, patience).await
        });
        let broken = |error: &dyn std::fmt::Display| Ending::Over(error.to_string());
        let head = head.await.map_err(|error| broken(&error))?.map_err(|error| broken(&error))?;
        let is_mine = head.is_some_and(|head| head.value.owner == Some(self.node.id) && !head.value.state.is_final());
        if !is_mine {
            return Err(elsewhere());
        }
        match self.open(name, false).await {
            Ok(open) if open.database.id == database => Ok(open),
            Ok(_) | Err(OpenError::NoSuchDatabase(_)) => Err(elsewhere()),
            Err(OpenError::Server(error)) => Err(broken(&error)),
        }
    }

    async fn send_commits(self: &Rc<Self>, open: &Rc<OpenDatabase>, after: Option<Lsn>, publisher: &mut Publisher) -> Ending {
        let feed = &open.database.feed;
        let follower = feed.follow();
        // No commit becomes durable between these two lines.
        let live_after = Lsn::new(open.database.gate.durable());
        let early = match self.logged_between(open, after, live_after).await {
            Ok(early) => early,
            Err(ending) => return ending,
        };
        for commit in early {
            tokio::select! {
                biased;
                sent = publisher.send(Notice::Commit(commit)) => if !sent { return gone() },
                ending = follower.cut_off() => return ending,
                () = self.node.seam.sleep(limits::FOLLOWER_SILENCE) => return silent(),
            }
        }
        loop {
            let notice = tokio::select! {
                biased;
                tick = publisher.tick() => {
                    let Some(tick) = tick else { return gone() };
                    // Another may own it once the lease is over: nothing is said then about what is newest.
                    if self.node.lease_is_valid() {
                        follower.heartbeat(tick, open.database.gate.durable());
                    }
                    continue;
                }
                notice = follower.next() => notice,
                () = self.node.seam.sleep(limits::FOLLOWER_SILENCE) => return silent(),
            };
            let notice = match notice {
                Ok(notice) => notice,
                Err(ending) => return ending,
            };
            tokio::select! {
                biased;
                sent = publisher.send(notice) => if !sent { return gone() },
                ending = follower.cut_off() => return ending,
                () = self.node.seam.sleep(limits::FOLLOWER_SILENCE) => return silent(),
            }
        }
    }

    /// Commits of this epoch after `after` up to `up_to`, all durable, read back from the log.
    async fn logged_between(
        self: &Rc<Self>,
        open: &Rc<OpenDatabase>,
        after: Option<Lsn>,
        up_to: Option<Lsn>,
    ) -> Result<Vec<walstore::recovery::LoggedCommit>, Ending> {
        if after >= up_to {
            return Ok(Vec::new());
        }
        let folded = || Ending::Folded(format!("commits after {} are not in this log", Lsn::raw(after)));
        let mut slots = open.unfolded_slots();
        slots.retain(|(lsn, _)| Some(*lsn) > after && Some(*lsn) <= up_to);
        if slots.len() as u64 != Lsn::raw(up_to) - Lsn::raw(after) {
            return Err(folded());
        }
        // A slot that is gone was folded meanwhile.
        let mut commits = self.own_commits(&open.database, &slots).await.map_err(|_| folded())?;
        commits.retain(|commit| Some(commit.lsn) > after && Some(commit.lsn) <= up_to);
        Ok(commits)
    }

    /// This node goes down: followers look elsewhere.
    pub(super) fn send_followers_away(&self) {
        for open in self.databases.all() {
            open.database.feed.send_away(&Ending::Over("this node is stopping".into()));
        }
    }
}

fn silent() -> Ending {
    Ending::Slow(format!("nothing was heard or taken for {:?}", limits::FOLLOWER_SILENCE))
}

fn gone() -> Ending {
    Ending::Over("the follower has left".into())
}
