//! Memory that is lent: a node has one bound for all that it keeps, and the page cache is what can give way.
//!
//! ```text
//!   0 ─────────────────── free ─────────────────────────────── max
//!     the cache has all      it gives way, byte for byte,       who can wait waits,
//!     of its capacity        down to an eighth of it            who can be refused is
//! ```
//!
//! Who needs memory for a while has a [`Loan`] of so many bytes. Some can't be put off, because what they are for has
//! been acknowledged or is small ([`Loan::set`]). Others ask ([`Loan::try_set`]).
//!
//! A large one asks as it grows, and nobody knows how large it will be ([`Loan::try_set_large`]). If several grew until
//! there is nothing left, none could come to its end and all would wait for each other. So there is a **first** one,
//! for which as much is kept as the largest may need; the others have what is left beside that and all smaller ones, and
//! wait until they are first. A large one goes on being large when it does not grow any more, until it is given back: what
//! is acknowledged and not folded yet counts beside what is being written.
//!
//! One that only rests ([`Loan::rest`]) is not first meanwhile, and keeps nothing from others but what it has. It will
//! grow again: so another one is first only if what it may need still fits beside all that have not come to their end.
//! Else those that rest could fill up what each of them needs to get there.
//!
//! If the largest may need more than there is, whoever runs the node wants it so: then one that is alone gets it,
//! whatever the bound.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Inner;

/// How much may be lent.
#[derive(Clone, Copy, Debug)]
pub struct Lending {
    /// So much beside the cache's own capacity.
    pub free_bytes: usize,
    /// In all.
    pub bytes_max: usize,
    /// The most that a large loan comes to.
    pub largest_bytes: usize,
    /// What whoever has a large loan may take beside it without asking, as long as it grows.
    pub beside_each_bytes: usize,
    /// Has the allocator give what is free back to the system. Called when much was freed, by whoever has freed it: so it
    /// is not to take long.
    pub give_back: fn(),
}

impl Lending {
    /// As much as anybody wants, and the cache never gives way.
    pub const UNBOUNDED: Self = Self {
        free_bytes: usize::MAX,
        bytes_max: usize::MAX,
        largest_bytes: 0,
        beside_each_bytes: 0,
        give_back: || {},
    };
}

/// When so much was freed since the last time, it is given back to the system: an allocator keeps what was freed in
/// small pieces.
const GIVE_BACK_BYTES: usize = 16 << 20;
/// Less of a loan at a time does not count. It is taken again soon.
const FREED_BYTES_MIN: usize = 8 << 20;

/// What is lent at the moment.
#[derive(Debug)]
pub(super) struct Lent {
    terms: Lending,
    bytes: AtomicUsize,
    large: Mutex<Large>,
    freed: AtomicUsize,
}

/// Of this, what large ones have.
#[derive(Debug, Default)]
struct Large {
    bytes: usize,
    /// What the first one has, if there is one.
    first: Option<usize>,
    /// How many may go on growing.
    growing: usize,
    /// What those have that grow, or rest.
    unfinished: usize,
}

impl Lent {
    pub fn new(terms: Lending) -> Self {
        Self { terms, bytes: AtomicUsize::new(0), large: Mutex::default(), freed: AtomicUsize::new(0) }
    }

    pub fn terms(&self) -> &Lending {
        &self.terms
    }

    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn large(&self) -> MutexGuard<'_, Large> {
        self.large.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One loan was `before` and is `now`, unless all would be more than `bytes_max` for that.
    fn try_change(&self, before: usize, now: usize, bytes_max: usize) -> bool {
        let changed = |all: usize| {
            let all = (all - before).saturating_add(now);
            (now <= before || all <= bytes_max).then_some(all)
        };
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, changed).is_ok()
    }

    /// Of so many bytes, what is not lent. An eighth always.
    pub fn left_of(&self, capacity: u64) -> u64 {
        let over = self.bytes().saturating_sub(self.terms.free_bytes) as u64;
        capacity.saturating_sub(over).max(capacity / 8)
    }

    /// Whether the cache has given way.
    pub fn is_pressed(&self) -> bool {
        self.bytes() > self.terms.free_bytes
    }

    /// So much was freed. The last bytes of two at a time may be forgotten: it is only about when to give back.
    pub fn freed(&self, bytes: usize) {
        if self.freed.fetch_add(bytes, Ordering::Relaxed) + bytes >= GIVE_BACK_BYTES {
            self.freed.store(0, Ordering::Relaxed);
            (self.terms.give_back)();
        }
    }
}

/// Some memory of the node's. Given back when it is dropped.
pub struct Loan {
    cache: Arc<Inner>,
    bytes: usize,
    is_large: bool,
    is_first: bool,
    is_growing: bool,
    /// It grows, or rests.
    is_unfinished: bool,
}

impl Loan {
    pub(super) fn new(cache: Arc<Inner>) -> Self {
        Self { cache, bytes: 0, is_large: false, is_first: false, is_growing: false, is_unfinished: false }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// From now on it is so many bytes, whatever others have. It does not go on growing, so another one may be first; if
    /// it was large, it is that as long as it has anything.
    pub fn set(&mut self, bytes: usize) {
        if bytes == 0 && self.bytes == 0 && !self.is_first {
            return;
        }
        self.rest();
        let lent = &self.cache.lent;
        if bytes >= self.bytes {
            lent.bytes.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            lent.bytes.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        if self.is_large || self.is_unfinished {
            let mut large = lent.large();
            if self.is_large {
                large.bytes = large.bytes - self.bytes + bytes;
            }
            if self.is_unfinished {
                large.unfinished -= self.bytes;
            }
            drop(large);
            (self.is_large, self.is_unfinished) = (self.is_large && bytes > 0, false);
        }
        self.has_changed(bytes);
    }

    /// The same, unless there is no room for it: then nothing changes, and it is `false`.
    pub fn try_set(&mut self, bytes: usize) -> bool {
        if self.is_large {
            return self.try_set_large(bytes);
        }
        let lent = &self.cache.lent;
        let has_room = lent.try_change(self.bytes, bytes, lent.terms.bytes_max);
        if has_room {
            self.has_changed(bytes);
        }
        has_room
    }

    /// The same for something large, which may go on growing.
    pub fn try_set_large(&mut self, bytes: usize) -> bool {
        let lent = &self.cache.lent;
        let mut large = lent.large();
        let mine = if self.is_large { self.bytes } else { 0 };
        let others = large.bytes - mine;
        let Lending { bytes_max, largest_bytes, beside_each_bytes, .. } = lent.terms;
        let unfinished_others = large.unfinished - if self.is_unfinished { self.bytes } else { 0 };
        let may_be_first = unfinished_others.saturating_add(largest_bytes.min(bytes_max)) <= bytes_max;
        let is_first = self.is_first || large.first.is_none() && may_be_first;
        let first = if is_first { *large.first.get_or_insert(mine) } else { large.first.unwrap_or(0) };
        let growing = large.growing + usize::from(!self.is_growing);
        let bytes_max = match is_first {
            true if others == 0 && largest_bytes > bytes_max => usize::MAX,
            true => bytes_max,
            // Beside what the first one may still come to, and what each may take without asking.
            false => {
                let kept = largest_bytes.saturating_sub(first).saturating_add(growing.saturating_mul(beside_each_bytes));
                bytes_max.saturating_sub(kept)
            }
        };
        let has_room = lent.try_change(self.bytes, bytes, bytes_max);
        if has_room {
            large.bytes = others + bytes;
            large.first = if is_first { Some(bytes) } else { large.first };
            large.growing = growing;
            large.unfinished = unfinished_others + bytes;
        }
        drop(large);
        self.is_first = is_first;
        if has_room {
            (self.is_large, self.is_growing, self.is_unfinished) = (bytes > 0, true, true);
            self.has_changed(bytes);
        }
        has_room
    }

    /// It does not grow for now, so another one may be first. Later it may ask again.
    pub fn rest(&mut self) {
        if self.is_first || self.is_growing {
            let mut large = self.cache.lent.large();
            if self.is_first {
                large.first = None;
            }
            large.growing -= usize::from(self.is_growing);
            drop(large);
            (self.is_first, self.is_growing) = (false, false);
        }
    }

    /// The sums are right already.
    fn has_changed(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        let lent = &self.cache.lent;
        if bytes > before && lent.is_pressed() {
            self.cache.give_way();
        }
        if bytes < before {
            self.cache.limit_recent();
            if before - bytes >= FREED_BYTES_MIN {
                lent.freed(before - bytes);
            }
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl std::fmt::Debug for Loan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Loan({}{})", self.bytes, if self.is_large { ", large" } else { "" })
    }
}
