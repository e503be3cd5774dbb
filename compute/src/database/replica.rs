//! What makes an open database a replica: it shows what another node made durable, and says how new that is.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tenant::name::Name;
use tokio::sync::Notify;
use walstore::id::IncarnationId;

use crate::error::{Fault, ServerError};

/// The default is one of which it is not known yet how new it is.
#[derive(Default)]
pub struct Replica {
    /// By this node's boot clock: everything that was acknowledged before is here. 0 until that is known.
    as_of_micros: Cell<u64>,
    /// Who takes writes, as far as is known.
    owner: RefCell<Option<(IncarnationId, String)>>,
    /// Signalled to have the follower look into the bucket now, or end.
    pub nudge: Notify,
    /// Signalled when its state is known to be complete as of a later time, or it is closed.
    pub changed: Notify,
}

impl Replica {
    /// Everything that was acknowledged before `micros` is here.
    pub fn is_complete_as_of(&self, micros: u64) {
        self.as_of_micros.set(self.as_of_micros.get().max(micros));
        self.changed.notify_waiters();
    }

    pub fn as_of_micros(&self) -> u64 {
        self.as_of_micros.get()
    }

    /// How old its state may be at most, at `now`.
    pub fn staleness(as_of_micros: u64, now: u64) -> Duration {
        Duration::from_micros(now.saturating_sub(as_of_micros))
    }

    pub fn set_owner(&self, owner: Option<(IncarnationId, String)>) {
        *self.owner.borrow_mut() = owner;
    }

    /// What a writer is told.
    pub fn refusal(&self, name: &Name) -> ServerError {
        let place = match &*self.owner.borrow() {
            Some((incarnation, address)) if address.is_empty() => format!("by another node ({incarnation})"),
            Some((incarnation, address)) => format!("by another node ({incarnation} at {address})"),
            None => "by nobody at the moment".into(),
        };
        let text = format!("`{name}` is served {place}; this node only reads it; nothing was done; write there");
        ServerError::new(Fault::Retry, text)
    }
}
