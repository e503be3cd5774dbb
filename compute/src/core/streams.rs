//! Streams between two requests: parked here under the id that their baton carries.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use tenant::name::Name;

use super::open_database::OpenDatabase;
use super::deadlines::Deadlines;
use crate::database::Database;
use crate::hrana::baton::Baton;
use crate::hrana::error::ProtocolError;
use crate::session::stream::Stream;

/// Ids of expired streams that are remembered, to tell "expired" from "never was".
const EXPIRED_MAX: usize = 10_000;

struct Slot {
    sequence: u64,
    database: Name,
    /// Absent while a request uses it.
    parked: Option<Stream>,
}

/// What happens to a parked stream that nobody comes back for.
pub struct Idle {
    pub open: Rc<OpenDatabase>,
    /// Of the request that it has been idle since.
    pub sequence: u64,
    /// First its transaction is rolled back, so that others get the turn; later it is forgotten.
    pub in_transaction: bool,
}

#[derive(Default)]
pub struct Streams {
    slots: RefCell<BTreeMap<u64, Slot>>,
    /// Of parked streams only.
    pub deadlines: Deadlines<Idle>,
    expired: RefCell<VecDeque<u64>>,
}

impl Streams {
    /// Takes the stream of a baton for the one request that may use it.
    pub fn take(&self, baton: &Baton, database: &Name) -> Result<Stream, ProtocolError> {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(&baton.stream_id) else {
            let expired = self.expired.borrow().contains(&baton.stream_id);
            return Err(if expired { ProtocolError::StreamExpired } else { ProtocolError::BatonInvalid });
        };
        if slot.database != *database {
            return Err(ProtocolError::BatonInvalid);
        }
        if slot.sequence != baton.sequence {
            return Err(ProtocolError::BatonReused);
        }
        let stream = slot.parked.take().ok_or(ProtocolError::BatonReused)?;
        self.deadlines.forget(baton.stream_id);
        Ok(stream)
    }

    /// Whether the stream of a baton is parked and reads this database.
    pub fn is_of(&self, baton: &Baton, database: &Rc<Database>) -> bool {
        let slots = self.slots.borrow();
        let parked = slots.get(&baton.stream_id).and_then(|slot| slot.parked.as_ref());
        parked.is_some_and(|stream| Rc::ptr_eq(&stream.database, database))
    }

    /// Parks a stream and names the sequence number of its next baton.
    pub fn park(&self, id: u64, database: &Name, stream: Stream) -> u64 {
        stream.rest();
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(id).or_insert_with(|| Slot { sequence: 0, database: database.clone(), parked: None });
        slot.sequence += 1;
        slot.parked = Some(stream);
        slot.sequence
    }

    /// Reserves an id whose stream is still in use, as a cursor's baton is sent before it has run.
    pub fn reserve(&self, id: u64, database: &Name) -> u64 {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(id).or_insert_with(|| Slot { sequence: 0, database: database.clone(), parked: None });
        slot.sequence += 1;
        slot.sequence
    }

    /// Parks a stream whose baton is out already.
    pub fn return_reserved(&self, id: u64, stream: Stream) {
        stream.rest();
        if let Some(slot) = self.slots.borrow_mut().get_mut(&id) {
            slot.parked = Some(stream);
        }
    }

    /// Forgets a stream.
    pub fn remove(&self, id: u64) {
        self.deadlines.forget(id);
        self.slots.borrow_mut().remove(&id);
    }

    /// Takes the stream that has been idle since the request of `sequence`, if it still is.
    pub fn take_idle(&self, id: u64, sequence: u64) -> Option<Stream> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(&id).filter(|slot| slot.sequence == sequence)?;
        let stream = slot.parked.take()?;
        self.deadlines.forget(id);
        Some(stream)
    }

    /// Puts back what [`Streams::take_idle`] took; its baton stays valid.
    pub fn put_back(&self, id: u64, stream: Stream) {
        self.return_reserved(id, stream);
    }

    /// Forgets a stream that nobody came back for.
    pub fn expire(&self, id: u64) {
        self.remove(id);
        let mut expired = self.expired.borrow_mut();
        expired.push_back(id);
        if expired.len() > EXPIRED_MAX {
            expired.pop_front();
        }
    }

    /// Takes the parked streams of one open database.
    pub fn drain_of(&self, database: &Rc<Database>) -> Vec<(u64, Stream)> {
        let mut drained = Vec::new();
        for (id, slot) in self.slots.borrow_mut().iter_mut() {
            if slot.parked.as_ref().is_some_and(|stream| Rc::ptr_eq(&stream.database, database)) {
                drained.extend(slot.parked.take().map(|stream| (*id, stream)));
                self.deadlines.forget(*id);
            }
        }
        drained
    }

    /// Whether a stream of this database is parked.
    pub fn has_of(&self, database: &Rc<Database>) -> bool {
        let slots = self.slots.borrow();
        slots.values().filter_map(|slot| slot.parked.as_ref()).any(|stream| Rc::ptr_eq(&stream.database, database))
    }

    /// Ends every parked stream.
    pub fn drain(&self) -> Vec<Stream> {
        let (mut parked, mut ids) = (Vec::new(), Vec::new());
        self.slots.borrow_mut().retain(|id, slot| match slot.parked.take() {
            Some(stream) => {
                parked.push(stream);
                ids.push(*id);
                false
            }
            None => true,
        });
        ids.into_iter().for_each(|id| self.expire(id));
        parked
    }

    pub fn len(&self) -> usize {
        self.slots.borrow().len()
    }
}
