//! A subscription to the durable commits of one database, apart from what carries it: gRPC between processes,
//! plain channels in one.
//!
//! ```text
//!   follower                                     owner
//!   Subscription ── tick (its own clock) ──────▶ Publisher
//!                ◀── Commit, Commit, Folded, … ──    everything up to the durable commit …
//!                ◀── Heartbeat{tick, durable} ───    … before the answer to a tick
//!                ◀── Ending ─────────────────────
//! ```
//!
//! **Staleness without a common clock.** A tick is a reading of the *follower's* clock. Its answer says that what
//! was durable when the owner got the tick has come before. So whoever has applied that knows everything that was
//! acknowledged before the tick was sent, by his own clock. The owner needs no timer, and a follower that is gone costs nothing.
//!
//! Only durable commits ever enter a [`Publisher`] (invariant I5). Channels are short: a follower that does not
//! keep up is cut off with [`Ending::Slow`], and begins again from the bucket.

use async_trait::async_trait;
use tenant::name::Name;
use tokio::sync::{mpsc, oneshot};
use walstore::id::{DatabaseId, IncarnationId, Lsn};
use walstore::recovery::LoggedCommit;

use crate::limits;

/// What a follower asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub database: DatabaseId,
    pub name: Name,
    /// The owner that the head names. Another one refuses.
    pub incarnation: IncarnationId,
    /// The last commit that the follower has.
    pub after: Option<Lsn>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The next durable commit. One that the follower has already may come again.
    Commit(LoggedCommit),
    /// Everything up to this commit is in packs that the head links. What it replaced is deleted soon.
    Folded(Lsn),
    /// When the owner got this tick, this (raw) was its last durable commit.
    Heartbeat { tick: u64, durable: u64 },
}

/// Why a subscription is over, or never began.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ending {
    /// Read the head again: that incarnation does not own the database.
    #[error("not served there: {0}")]
    NotHere(String),
    /// Read the head again: what comes next is folded.
    #[error("the commits asked for are folded: {0}")]
    Folded(String),
    #[error("the follower did not keep up: {0}")]
    Slow(String),
    #[error("over: {0}")]
    Over(String),
    /// The connection, or the other end without a word.
    #[error("broken off: {0}")]
    Broken(String),
}

/// The follower's end.
pub struct Subscription {
    notices: mpsc::Receiver<Notice>,
    ending: oneshot::Receiver<Ending>,
    ticks: mpsc::Sender<u64>,
}

/// The owner's end.
pub struct Publisher {
    notices: mpsc::Sender<Notice>,
    ending: oneshot::Sender<Ending>,
    ticks: mpsc::Receiver<u64>,
}

/// Makes the two ends of a subscription.
pub fn channel() -> (Subscription, Publisher) {
    let (notice_sender, notices) = mpsc::channel(limits::FOLLOW_NOTICES_MAX);
    let (ending_sender, ending) = oneshot::channel();
    let (ticks, tick_receiver) = mpsc::channel(limits::FOLLOW_TICKS_MAX);
    let publisher = Publisher { notices: notice_sender, ending: ending_sender, ticks: tick_receiver };
    (Subscription { notices, ending, ticks }, publisher)
}

impl Subscription {
    /// The next notice. After an ending there is nothing more.
    pub async fn next(&mut self) -> Result<Notice, Ending> {
        if let Some(notice) = self.notices.recv().await {
            return Ok(notice);
        }
        let ending = (&mut self.ending).await;
        Err(ending.unwrap_or_else(|_| Ending::Broken("the other end is gone".into())))
    }

    /// Asks for a heartbeat. One that finds no room is dropped: others are on their way.
    pub fn tick(&self, tick: u64) {
        let _ = self.ticks.try_send(tick);
    }

    /// The parts, for a transport: notices come in, ticks go out.
    pub(crate) fn into_parts(self) -> (mpsc::Receiver<Notice>, oneshot::Receiver<Ending>, mpsc::Sender<u64>) {
        (self.notices, self.ending, self.ticks)
    }
}

impl Publisher {
    /// Hands a notice on as soon as there is room. `false`: the follower is gone.
    pub async fn send(&self, notice: Notice) -> bool {
        self.notices.send(notice).await.is_ok()
    }

    /// The next tick; `None` once the follower is gone.
    pub async fn tick(&mut self) -> Option<u64> {
        self.ticks.recv().await
    }

    /// Ends the subscription, after the notices that are on their way.
    pub fn end(self, ending: Ending) {
        let _ = self.ending.send(ending);
    }
}

/// Whoever has databases that can be followed.
pub trait Publish: Send + Sync + 'static {
    /// Serves a follower until it is gone or the publisher is ended. Must not block.
    fn follow(&self, start: Start, publisher: Publisher);
}

/// Reaches other nodes.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// Subscribes at the node of this address.
    async fn follow(&self, address: &str, start: Start) -> Result<Subscription, Ending>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(lsn: u64) -> Notice {
        let lsn = Lsn::new(lsn).expect("not 0");
        Notice::Commit(LoggedCommit { epoch: 1, lsn, bytes: Vec::new().into() })
    }

    #[tokio::test]
    async fn what_was_sent_before_the_end_comes_before_the_end() {
        let (mut subscription, mut publisher) = channel();
        subscription.tick(7);
        assert_eq!(publisher.tick().await, Some(7));
        assert!(publisher.send(commit(1)).await);
        publisher.end(Ending::Slow("test".into()));
        assert_eq!(subscription.next().await, Ok(commit(1)));
        assert_eq!(subscription.next().await, Err(Ending::Slow("test".into())));
    }

    #[tokio::test]
    async fn either_end_notices_that_the_other_is_gone() {
        let (mut subscription, publisher) = channel();
        drop(publisher);
        assert!(matches!(subscription.next().await, Err(Ending::Broken(_))));
        let (subscription, mut publisher) = channel();
        drop(subscription);
        assert_eq!(publisher.tick().await, None);
        assert!(!publisher.send(commit(1)).await);
    }
}
