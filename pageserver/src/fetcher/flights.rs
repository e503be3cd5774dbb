//! Single flight: what is being fetched, and who waits for it.
//!
//! A **flight** is one thing on its way, however many want it. Whoever comes later joins it. One that goes away
//! cancels nothing for the others; only what nobody waits for any more, and has not been sent, is left out. An error
//! reaches all who wait.
//!
//! What comes is put into the caches of all who wait before the flight ends, so nobody finds neither.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use segments::cache::PageCache;
use tokio::sync::oneshot;
use walstore::envelope::Corrupt;
use walstore::id::DatabaseId;
use walstore::register::RecordError;
use walstore::store::{StoreError, StoreErrorKind};

use super::get::Source;
use super::queue::{Batch, Queue, Urgency};
use super::wanted::{Fetched, Wanted};

pub type Answer = Result<Fetched, RecordError>;

/// Somebody who wants it.
pub struct Interest {
    /// None: it is read ahead.
    pub answer: Option<oneshot::Sender<Answer>>,
    /// Where it shall be kept.
    pub cache: Option<PageCache>,
    /// Whether it shall be kept on disk.
    pub keeps: bool,
}

impl Interest {
    /// What is in memory already, for somebody who waits for it.
    fn cached(&self, wanted: &Wanted) -> Option<Fetched> {
        let cache = self.cache.as_ref().filter(|_| self.answer.is_some())?;
        wanted.cached(cache)
    }
}

struct Flight {
    /// Whose turn it takes.
    of: DatabaseId,
    /// It began by being read ahead.
    is_ahead: bool,
    interests: Vec<Interest>,
}

impl Flight {
    /// Puts what has come where those who want it look for it.
    fn keep(&self, wanted: &Wanted, fetched: &Fetched) {
        for Interest { answer, cache, .. } in &self.interests {
            match (answer, cache) {
                (_, None) => {}
                (Some(_), Some(cache)) => wanted.keep(fetched, cache),
                (None, Some(cache)) => wanted.keep_ahead(fetched, cache),
            }
        }
    }

    fn is_waited_for(&self) -> bool {
        self.interests.iter().any(|it| it.answer.is_some())
    }

    /// Whether anybody wants it still.
    fn is_wanted(&self) -> bool {
        self.interests.iter().any(|it| it.answer.as_ref().is_none_or(|answer| !answer.is_closed()))
    }
}

/// Everything on its way on a node.
pub struct Flights {
    source: Source,
    state: Mutex<State>,
}

struct State {
    queue: Queue,
    flights: BTreeMap<Wanted, Flight>,
    /// Stored bytes of those that began by being read ahead.
    ahead_bytes: usize,
}

impl Flights {
    pub fn new(source: Source, bytes_max: usize) -> Self {
        Self { source, state: Mutex::new(State { queue: Queue::new(bytes_max), flights: BTreeMap::new(), ahead_bytes: 0 }) }
    }

    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Bytes of memory that requests on their way take at most.
    pub fn bytes(&self) -> usize {
        self.state().queue.bytes()
    }

    /// Stored bytes of flights that began by being read ahead.
    pub fn ahead_bytes(&self) -> usize {
        self.state().ahead_bytes
    }

    /// Joins flights or starts them. What is requested in one call can go in one request.
    pub fn request(self: &Arc<Self>, of: DatabaseId, urgency: Urgency, all: impl Iterator<Item = (Wanted, Interest)>) {
        let mut state = self.state();
        for (wanted, interest) in all {
            state.request(of, urgency, wanted, interest);
        }
        drop(state);
        self.start();
    }

    /// Sends all requests for which there is room.
    fn start(self: &Arc<Self>) {
        while let Some(batch) = self.next() {
            let flying = Flying { flights: self.clone(), batch, landed: 0 };
            self.source.seam.spawn(flying.run());
        }
    }

    fn next(&self) -> Option<Batch> {
        let mut state = self.state();
        loop {
            let mut batch = state.queue.next()?;
            batch.wanted.retain(|wanted| {
                let is_wanted = state.flights.get(wanted).is_some_and(Flight::is_wanted);
                if !is_wanted {
                    state.remove(wanted);
                }
                is_wanted
            });
            if !batch.wanted.is_empty() {
                return Some(batch);
            }
            state.queue.done(&batch);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in it is left half-way by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether anybody who waits wants it kept on disk.
    fn keeps(&self, wanted: &Wanted) -> bool {
        self.flights.get(wanted).is_some_and(|flight| flight.interests.iter().any(|it| it.keeps))
    }

    /// A cache that it is read ahead for, if nobody waits for it.
    fn ahead_for(&self, wanted: &Wanted) -> Option<PageCache> {
        let flight = self.flights.get(wanted).filter(|flight| !flight.is_waited_for())?;
        flight.interests.iter().find_map(|it| it.cache.clone())
    }

    fn request(&mut self, of: DatabaseId, urgency: Urgency, wanted: Wanted, interest: Interest) {
        if let Some(flight) = self.flights.get_mut(&wanted) {
            flight.interests.push(interest);
            if urgency == Urgency::Now && self.queue.take_ahead(flight.of, &wanted) {
                flight.of = of;
                self.queue.push(of, wanted, urgency);
            }
            return;
        }
        // It may have come between the question and the request.
        if let Some(fetched) = interest.cached(&wanted) {
            if let Some(answer) = interest.answer {
                let _ = answer.send(Ok(fetched));
            }
            return;
        }
        let is_ahead = urgency == Urgency::Ahead;
        self.ahead_bytes += if is_ahead { wanted.stored_bytes() } else { 0 };
        self.flights.insert(wanted, Flight { of, is_ahead, interests: vec![interest] });
        self.queue.push(of, wanted, urgency);
    }

    fn remove(&mut self, wanted: &Wanted) -> Option<Flight> {
        let flight = self.flights.remove(wanted)?;
        self.ahead_bytes -= if flight.is_ahead { wanted.stored_bytes() } else { 0 };
        Some(flight)
    }
}

/// A request on its way. If its task ends before it has, because the node goes down or something panics, those who
/// wait are told so.
struct Flying {
    flights: Arc<Flights>,
    batch: Batch,
    /// How many of the batch are done with.
    landed: usize,
}

impl Flying {
    async fn run(mut self) {
        self.land_from_disk().await;
        if self.landed < self.batch.wanted.len() {
            self.land_from_store().await;
        }
        let flights = self.flights.clone();
        drop(self);
        flights.start();
    }

    /// What the disk has lands first, whatever its place in the batch; the rest stays in order. If something can't be
    /// decoded after all, the store has the last word.
    async fn land_from_disk(&mut self) {
        let on_disk = self.flights.source.on_disk(&self.batch.wanted).await;
        let all = std::mem::take(&mut self.batch.wanted);
        let (found, missing): (Vec<_>, Vec<_>) = all.into_iter().zip(on_disk).partition(|(_, stored)| stored.is_some());
        self.batch.wanted = found.iter().chain(&missing).map(|(wanted, _)| *wanted).collect();
        for (wanted, stored) in found {
            match stored.map(|stored| self.decode(&wanted, stored)) {
                Some(Ok(fetched)) => {
                    self.land(&wanted, Ok(fetched));
                    self.landed += 1;
                }
                _ => self.batch.wanted[self.landed..].rotate_left(1),
            }
            tokio::task::yield_now().await;
        }
    }

    /// Checks what came. It is decoded if somebody waits for it, or there is room for that.
    fn decode(&self, wanted: &Wanted, stored: Bytes) -> Result<Fetched, Corrupt> {
        let ahead_for = self.flights.state().ahead_for(wanted);
        match ahead_for {
            Some(cache) => wanted.decode_ahead(stored, &cache),
            None => wanted.decode(stored),
        }
    }

    async fn land_from_store(&mut self) {
        let (key, range) = (self.batch.wanted[self.landed].key(), self.batch.range(self.landed));
        let got = self.flights.source.get(&key, range.clone()).await;
        while let Some(wanted) = self.batch.wanted.get(self.landed) {
            let answer = got.clone().and_then(|bytes| {
                let within = |offset: u64| usize::try_from(offset - range.start).unwrap_or(usize::MAX).min(bytes.len());
                let stored = bytes.slice(within(wanted.range().start)..within(wanted.range().end));
                let fetched = self.decode(wanted, stored.clone())?;
                if self.flights.state().keeps(wanted) {
                    wanted.keep_on_disk(&fetched, &stored, &self.flights.source.disk);
                }
                Ok(fetched)
            });
            self.land(wanted, answer);
            self.landed += 1;
            // Decoding takes a while; other requests of this thread go on in between.
            tokio::task::yield_now().await;
        }
    }

    /// It is here, or it never will be: everybody who waits is told.
    fn land(&self, wanted: &Wanted, mut answer: Answer) {
        let mut state = self.flights.state();
        // Somebody may have begun to wait while it was checked.
        if matches!(answer, Ok(Fetched::Stored(_))) && state.flights.get(wanted).is_some_and(Flight::is_waited_for) {
            drop(state);
            answer = answer.and_then(|fetched| wanted.decoded(fetched).map_err(RecordError::from));
            state = self.flights.state();
        }
        if let (Ok(fetched), Some(flight)) = (&answer, state.flights.get(wanted)) {
            flight.keep(wanted, fetched);
        }
        let interests = state.remove(wanted).map_or_else(Vec::new, |flight| flight.interests);
        drop(state);
        for interest in interests {
            if let Some(waiting) = interest.answer {
                let _ = waiting.send(answer.clone());
            }
        }
    }
}

impl Drop for Flying {
    fn drop(&mut self) {
        let mut state = self.flights.state();
        for wanted in &self.batch.wanted[self.landed..] {
            state.remove(wanted);
        }
        state.queue.done(&self.batch);
    }
}

/// Why a flight has ended without an answer.
pub fn cut_off(wanted: &Wanted) -> RecordError {
    StoreError::new(StoreErrorKind::Retry, wanted.key(), "the request was cut off: the node is shutting down").into()
}
