//! Moments of databases that are over: from then on nothing of them is shown, not to streams that were there before
//! either, as it is with the present.
//!
//! What counts is the database that has the name now: it may be another one than that of the moment, if something was
//! restored in place, and it may have been given more time.

use std::rc::Rc;

use tenant::name::Name;
use tracing::warn;

use crate::core::databases::OpenError;
use crate::core::open_database::OpenDatabase;
use crate::core::{Core, spawn_local};

impl Core {
    /// Refuses a moment of a database whose time is up, and ends it.
    pub(super) async fn check_it_goes_on(self: &Rc<Self>, open: &OpenDatabase) -> Result<(), OpenError> {
        let name = &open.database.name;
        if !self.seems_over(open) {
            return Ok(());
        }
        if let Some(head) = self.resolve(name).await?.filter(|head| !self.is_over(&head.value)) {
            // Not asked for again until that is over.
            open.head.borrow_mut().value.settings.expires_micros = head.value.settings.expires_micros;
            return Ok(());
        }
        self.databases.opened(name).iter().for_each(|present| self.clone().expire(present));
        self.end_pasts_of(name, "the time of the database is up").await;
        Err(OpenError::NoSuchDatabase(name.clone()))
    }

    /// As far as this node knows.
    fn seems_over(&self, open: &OpenDatabase) -> bool {
        match self.databases.opened(&open.database.name) {
            Some(present) => self.has_expired(&present),
            None => self.has_expired(open),
        }
    }

    /// Those that nobody asks for.
    pub(in crate::core) fn end_expired_pasts(self: &Rc<Self>) {
        for open in self.pasts.all().into_iter().filter(|open| self.seems_over(open)) {
            let core = self.clone();
            spawn_local(async move {
                if let Err(OpenError::Server(error)) = core.check_it_goes_on(&open).await {
                    warn!(database = %open.database.name, %error, "cannot find out yet whether it goes on; its time seems to be up");
                }
            });
        }
    }

    /// Ends all moments of a name that has no database any more, and the streams at them.
    pub(in crate::core) async fn end_pasts_of(self: &Rc<Self>, name: &Name, reason: &str) {
        for open in self.pasts.all().into_iter().filter(|open| open.database.name == *name) {
            open.database.lose(reason);
            self.shut_past(&open, reason);
            self.end_streams_of(&open).await;
        }
    }
}
