//! How much memory the overlays of all databases of a node take together.
//!
//! ```text
//!   0 ───────────── pressed ───────────────────── full
//!     as each one    databases fold although they    writers wait for room before
//!     is due         are not due, largest first      they take their turn
//! ```
//!
//! *Largest first*: under pressure databases fold whose overlay has at least [`OverlaySpace::fold_from`] bytes. That
//! begins high and is halved for as long as nothing comes of it, so small ones fold too where the large ones can't.
//!
//! It bounds when writers begin, not what they may bring: a transaction that has its turn is not stopped, so the sum
//! may be over the bound by one transaction for each database. What a database has beyond its own bound
//! ([`limits::OVERLAY_BYTES_MAX`]) does not count here: its own writers wait for that, nobody else's. But all of it is
//! lent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use segments::cache::Loan;
use segments::page::PAGE_BYTES;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::lent::LentBytes;
use crate::limits;

/// Counts the bytes of all overlays of a node.
#[derive(Debug)]
pub struct OverlaySpace {
    bytes: AtomicUsize,
    /// Also what does not count.
    all: LentBytes,
    highest: AtomicUsize,
    bytes_max: usize,
    fold_from: AtomicUsize,
    /// Signalled while there is pressure, with each commit.
    pressed: Notify,
    /// Signalled when it is no longer full.
    room: Notify,
    /// Signalled when somebody was refused room.
    refused: Notify,
}

impl OverlaySpace {
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Self::lent(bytes_max, None)
    }

    /// With a loan for all of it.
    pub fn lent(bytes_max: usize, loan: Option<Loan>) -> Arc<Self> {
        Arc::new(Self {
            bytes: AtomicUsize::new(0),
            all: LentBytes::new(loan),
            highest: AtomicUsize::new(0),
            bytes_max,
            fold_from: AtomicUsize::new(usize::MAX),
            pressed: Notify::new(),
            room: Notify::new(),
            refused: Notify::new(),
        })
    }

    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// With what does not count.
    pub fn all_bytes(&self) -> usize {
        self.all.bytes()
    }

    /// What is lent for it.
    pub fn lent_bytes(&self) -> usize {
        self.all.lent()
    }

    /// The most that they ever were.
    pub fn highest(&self) -> usize {
        self.highest.load(Ordering::Relaxed)
    }

    /// One overlay counted so much and counts so much now, and has in all.
    pub fn change(&self, (counted_before, counted): (usize, usize), (before, now): (usize, usize)) {
        if counted >= counted_before {
            self.count(counted - counted_before);
        } else {
            self.count_back(counted_before - counted);
        }
        if now >= before {
            self.all.add(now - before);
        } else {
            self.all.give_back(before - now);
        }
    }

    pub fn add(&self, bytes: usize) {
        self.change((0, bytes), (0, bytes));
    }

    fn count(&self, bytes: usize) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.highest.fetch_max(before + bytes, Ordering::Relaxed);
        if self.is_pressed() {
            self.pressed.notify_one();
        }
    }

    /// Grows one part from so many bytes to so many, if there is nothing else here, or all of it and what is `beside` it
    /// stay within the bound.
    pub fn try_grow(&self, from: usize, to: usize, beside: usize) -> bool {
        let grown = |bytes: usize| {
            let others = bytes - from;
            (others == 0 || others + to + beside <= self.bytes_max).then_some(others + to)
        };
        let grown = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown);
        match grown {
            Ok(before) => self.highest.fetch_max(before - from + to, Ordering::Relaxed),
            Err(_) => return false,
        };
        self.all.add(to - from);
        true
    }

    /// Has those let go of it who can.
    pub fn ask_for_room(&self) {
        self.refused.notify_one();
    }

    /// Waits until somebody asks for room.
    pub async fn room_is_asked_for(&self) {
        self.refused.notified().await;
    }

    pub fn give_back(&self, bytes: usize) {
        self.change((bytes, 0), (bytes, 0));
    }

    fn count_back(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if before > self.bytes_max && before - bytes <= self.bytes_max {
            self.room.notify_waiters();
        }
    }

    /// Whether writers have to wait.
    pub fn is_full(&self) -> bool {
        self.bytes() > self.bytes_max
    }

    /// Whether databases should fold that are not due by themselves.
    pub fn is_pressed(&self) -> bool {
        self.bytes() > self.bytes_max / 2
    }

    /// Becomes ready when there is room again. To be made before [`OverlaySpace::is_full`] is asked.
    pub fn room(&self) -> Notified<'_> {
        self.room.notified()
    }

    /// Waits until there is pressure.
    pub async fn pressed(&self) {
        while !self.is_pressed() {
            self.pressed.notified().await;
        }
    }

    /// The size from which on an overlay is to be folded now.
    pub fn fold_from(&self) -> usize {
        self.fold_from.load(Ordering::Relaxed)
    }

    /// One step of the search for who has to fold. `before` is what [`OverlaySpace::bytes`] was a step ago.
    pub fn lower_fold_from(&self, before: usize) {
        let present = self.fold_from();
        let next = match present {
            usize::MAX => limits::OVERLAY_BYTES_MAX / 8,
            _ if self.bytes() < before => present,
            _ => (present / 2).max(PAGE_BYTES),
        };
        self.fold_from.store(next, Ordering::Relaxed);
    }

    /// The pressure is gone.
    pub fn reset_fold_from(&self) {
        self.fold_from.store(usize::MAX, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn who_waits_for_room_is_woken_when_it_is_no_longer_full_and_not_before() {
        let space = OverlaySpace::new(100);
        space.add(150);
        let mut room = Box::pin(space.room());
        assert!(space.is_full());
        let mut context = Context::from_waker(Waker::noop());
        space.give_back(40);
        assert!(space.is_full() && room.as_mut().poll(&mut context).is_pending());
        space.give_back(20);
        assert!(!space.is_full());
        assert_eq!(room.as_mut().poll(&mut context), Poll::Ready(()));
        // Room that comes between the question and the wait is not missed.
        space.add(50);
        let mut room = Box::pin(space.room());
        space.give_back(50);
        assert_eq!(room.as_mut().poll(&mut context), Poll::Ready(()));
    }

    #[test]
    fn the_largest_fold_first_and_the_smaller_ones_only_if_that_does_not_help() {
        let space = OverlaySpace::new(100);
        space.add(60);
        assert!(space.is_pressed() && !space.is_full());
        assert_eq!(space.fold_from(), usize::MAX);
        space.lower_fold_from(usize::MAX);
        let first = space.fold_from();
        assert_eq!(first, limits::OVERLAY_BYTES_MAX / 8);
        space.give_back(1);
        space.lower_fold_from(60);
        assert_eq!(space.fold_from(), first, "it helps");
        space.lower_fold_from(59);
        assert_eq!(space.fold_from(), first / 2);
        (0..40).for_each(|_| space.lower_fold_from(59));
        assert_eq!(space.fold_from(), PAGE_BYTES, "everybody with a page");
        space.reset_fold_from();
        assert_eq!(space.fold_from(), usize::MAX);
    }
}
