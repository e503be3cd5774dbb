//! What followers of one database are sent: its commits, once they are durable.
//!
//! ```text
//!   publish ─▶ pending ──durable──▶ queue of each follower ─▶ its task ─▶ Publisher
//! ```
//!
//! Pending commits cost nothing: the log holds the same bytes until then. A queue is bounded; a follower whose queue is
//! full is cut off, so that it neither takes memory nor holds anybody up.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use pageserver::service::follow::{Ending, Notice};
use tokio::sync::Notify;
use walstore::id::Lsn;
use walstore::recovery::LoggedCommit;

use crate::limits;

#[derive(Default)]
pub struct Feed {
    /// Published and not durable yet.
    pending: RefCell<VecDeque<(Lsn, Bytes)>>,
    followers: RefCell<Vec<Weak<Follower>>>,
    ending: RefCell<Option<Ending>>,
}

/// What one follower is still to be sent.
#[derive(Default)]
pub struct Follower {
    queue: RefCell<Queue>,
    changed: Notify,
}

#[derive(Default)]
struct Queue {
    notices: VecDeque<Notice>,
    bytes: usize,
    ending: Option<Ending>,
}

impl Feed {
    /// From here on, everything that becomes durable.
    pub fn follow(&self) -> Rc<Follower> {
        let follower = Rc::<Follower>::default();
        match &*self.ending.borrow() {
            Some(ending) => follower.end(ending.clone()),
            None => self.followers.borrow_mut().push(Rc::downgrade(&follower)),
        }
        follower
    }

    pub fn published(&self, lsn: Lsn, bytes: Bytes) {
        self.pending.borrow_mut().push_back((lsn, bytes));
    }

    /// Commits up to `lsn`, of this epoch, are durable.
    pub fn durable(&self, epoch: u64, up_to: Lsn) {
        let mut pending = self.pending.borrow_mut();
        while pending.front().is_some_and(|(lsn, _)| *lsn <= up_to) {
            let Some((lsn, bytes)) = pending.pop_front() else { return };
            self.each(|| Notice::Commit(LoggedCommit { epoch, lsn, bytes: bytes.clone() }));
        }
    }

    /// Everything up to `lsn` is in packs that the head links.
    pub fn folded(&self, lsn: Lsn) {
        self.each(|| Notice::Folded(lsn));
    }

    fn each(&self, notice: impl Fn() -> Notice) {
        self.followers.borrow_mut().retain(|follower| {
            let Some(follower) = follower.upgrade() else { return false };
            follower.push(notice());
            true
        });
    }

    /// No more will come of this history from here.
    pub fn end(&self, ending: Ending) {
        self.pending.borrow_mut().clear();
        for follower in std::mem::take(&mut *self.followers.borrow_mut()).iter().filter_map(Weak::upgrade) {
            follower.end(ending.clone());
        }
        self.ending.borrow_mut().get_or_insert(ending);
    }

    /// Ends those who follow now; others may come.
    pub fn send_away(&self, ending: &Ending) {
        for follower in std::mem::take(&mut *self.followers.borrow_mut()).iter().filter_map(Weak::upgrade) {
            follower.end(ending.clone());
        }
    }
}

impl Follower {
    /// Queues the answer to a tick behind all that is durable by now.
    pub fn heartbeat(&self, tick: u64, durable: u64) {
        self.push(Notice::Heartbeat { tick, durable });
    }

    fn push(&self, notice: Notice) {
        let mut queue = self.queue.borrow_mut();
        if queue.ending.is_some() {
            return;
        }
        // One commit may be larger than a queue may be.
        let is_full = queue.bytes > limits::FOLLOWER_BYTES_MAX || queue.notices.len() >= limits::FOLLOWER_NOTICES_MAX;
        if is_full {
            *queue = Queue::default();
            queue.ending = Some(Ending::Slow("it reads more slowly than this database is written; begin again".into()));
        } else {
            queue.bytes += bytes_of(&notice);
            queue.notices.push_back(notice);
        }
        self.changed.notify_one();
    }

    fn end(&self, ending: Ending) {
        self.queue.borrow_mut().ending.get_or_insert(ending);
        self.changed.notify_one();
    }

    /// What is to be sent next.
    pub async fn next(&self) -> Result<Notice, Ending> {
        loop {
            {
                let mut queue = self.queue.borrow_mut();
                if let Some(notice) = queue.notices.pop_front() {
                    queue.bytes -= bytes_of(&notice);
                    return Ok(notice);
                }
                if let Some(ending) = &queue.ending {
                    return Err(ending.clone());
                }
            }
            self.changed.notified().await;
        }
    }

    /// Returns when this follower was cut off because its queue was full.
    pub async fn cut_off(&self) -> Ending {
        loop {
            if let Some(ending @ Ending::Slow(_)) = &self.queue.borrow().ending {
                return ending.clone();
            }
            self.changed.notified().await;
        }
    }
}

fn bytes_of(notice: &Notice) -> usize {
    match notice {
        Notice::Commit(commit) => commit.bytes.len(),
        Notice::Folded(_) | Notice::Heartbeat { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsn(lsn: u64) -> Lsn {
        Lsn::new(lsn).expect("not 0")
    }

    fn publish(feed: &Feed, numbers: std::ops::RangeInclusive<u64>, bytes: usize) {
        for number in numbers {
            feed.published(lsn(number), vec![0; bytes].into());
        }
    }

    async fn lsns(follower: &Follower, count: usize) -> Vec<u64> {
        let mut lsns = Vec::new();
        for _ in 0..count {
            match follower.next().await {
                Ok(Notice::Commit(commit)) => lsns.push(commit.lsn.get()),
                other => panic!("{other:?}"),
            }
        }
        lsns
    }

    #[tokio::test]
    async fn only_what_is_durable_leaves_and_in_order() {
        let feed = Feed::default();
        publish(&feed, 1..=2, 1);
        feed.durable(1, lsn(1));
        let follower = feed.follow();
        publish(&feed, 3..=5, 1);
        follower.heartbeat(7, 1);
        assert_eq!(follower.next().await, Ok(Notice::Heartbeat { tick: 7, durable: 1 }), "nothing is durable yet");
        feed.durable(1, lsn(4));
        feed.folded(lsn(4));
        assert_eq!(lsns(&follower, 3).await, [2, 3, 4]);
        assert_eq!(follower.next().await, Ok(Notice::Folded(lsn(4))));
        feed.end(Ending::Over("test".into()));
        feed.durable(1, lsn(5));
        assert_eq!(follower.next().await, Err(Ending::Over("test".into())), "the fifth is nobody's business");
        assert_eq!(feed.follow().next().await, Err(Ending::Over("test".into())));
    }

    #[tokio::test]
    async fn a_slow_follower_is_cut_off_and_others_are_not() {
        let feed = Feed::default();
        let (slow, fast) = (feed.follow(), feed.follow());
        for number in 1..=4 {
            publish(&feed, number..=number, limits::FOLLOWER_BYTES_MAX / 2 + 1);
            feed.durable(1, lsn(number));
            assert_eq!(lsns(&fast, 1).await, [number]);
        }
        assert!(matches!(slow.next().await, Err(Ending::Slow(_))));
        assert!(matches!(slow.cut_off().await, Ending::Slow(_)));
    }
}
