//! The past of databases: read-only databases at exactly one commit, for URLs that name a moment.
//!
//! ```text
//!   name, moment ─▶ [finding]: is it this node's, and the moment beyond what is folded? memory has the commits
//!                              else: head ─▶ the history says which commit it is
//!                ─▶ [opening]: the base before it, and the commits from there, replayed ─▶ kept by (database, LSN)
//! ```
//!
//! Like a replica, a past is an [`OpenDatabase`] that is in none of the owner's lists. It never changes, nothing of it
//! goes to the bucket, and it needs no owner: any node can show what is folded. What is not folded yet only the owner
//! has, so a request for that is answered where requests for the present are. One that nobody uses is closed.
//!
//! | file | idea |
//! |---|---|
//! | [`finding`] | from a name and a moment to a head and a commit of its history |
//! | [`history`] | what the history in the bucket says |
//! | [`lineage`] | which of a name's databases a moment is one of |
//! | [`opening`] | from a commit to an open database |
//! | [`ending`] | when the database is over |

mod ending;
mod finding;
mod history;
pub mod lineage;
mod opening;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tenant::head::Head;
use tenant::name::Name;
use tokio::sync::OnceCell;
use tracing::debug;
use walstore::id::{DatabaseId, Lsn};

pub(super) use self::finding::check_is_kept;
pub(super) use self::lineage::is_gone;
use self::history::NotThere;
use super::{Core, JobError};
use super::open_database::OpenDatabase;
use crate::error::{Fault, ServerError};
use crate::hrana::baton::Baton;
use crate::limits;
use crate::moment::Moment;

/// A database and the commit (raw) that is shown of it.
type Key = (DatabaseId, u64);
type Opening = Rc<OnceCell<Rc<OpenDatabase>>>;

/// The pasts of one core.
#[derive(Default)]
pub struct Pasts {
    by_key: RefCell<BTreeMap<Key, Opening>>,
    /// Which commits (raw) times led to, where later ones were known: that is so for good.
    at_times: RefCell<BTreeMap<(DatabaseId, u64), u64>>,
}

impl Pasts {
    fn opening(&self, key: Key) -> Opening {
        let mut by_key = self.by_key.borrow_mut();
        let opening = by_key.entry(key).or_default();
        if opening.get().is_some_and(|open| open.is_closed.get()) {
            *opening = Opening::default();
        }
        opening.clone()
    }

    /// The commit (raw) that a time led to before.
    fn at_time(&self, database: DatabaseId, moment: Moment) -> Option<u64> {
        let Moment::Time(micros) = moment else { return None };
        self.at_times.borrow().get(&(database, micros)).copied()
    }

    fn remember_time(&self, database: DatabaseId, moment: Moment, lsn: u64) {
        let Moment::Time(micros) = moment else { return };
        let mut at_times = self.at_times.borrow_mut();
        if at_times.len() >= limits::KNOWN_TIMES_MAX {
            at_times.clear();
        }
        at_times.insert((database, micros), lsn);
    }

    pub fn all(&self) -> Vec<Rc<OpenDatabase>> {
        self.by_key.borrow().values().filter_map(|opening| opening.get().cloned()).collect()
    }

    fn remove(&self, open: &OpenDatabase) {
        self.by_key.borrow_mut().retain(|_, opening| !opening.get().is_some_and(|it| std::ptr::eq(&**it, open)));
    }

    /// Nothing is remembered of a try that came to nothing.
    fn forget(&self, key: Key, opening: &Opening) {
        let mut by_key = self.by_key.borrow_mut();
        if !opening.initialized() && by_key.get(&key).is_some_and(|now| Rc::ptr_eq(now, opening)) {
            by_key.remove(&key);
        }
    }
}

impl Core {
    /// The database as it was at a moment.
    pub(super) async fn past_for(
        self: &Rc<Self>,
        name: &Name,
        baton: Option<&Baton>,
        moment: Moment,
        min_lsn: u64,
    ) -> Result<Rc<OpenDatabase>, JobError> {
        if let Some(baton) = baton
            && let Some(open) = self.pasts.all().into_iter().find(|open| self.streams.is_of(baton, &open.database))
        {
            // Whatever the name leads to by now, as long as it leads to something.
            self.check_it_goes_on(&open).await?;
            return Ok(open);
        }
        if self.fenced.borrow().is_some() {
            return Err(ServerError::new(Fault::Closed, "this node is over; nothing was done; ask another one").into());
        }
        let found = match self.find_unfolded(name, moment).await? {
            Some(found) => found,
            None => self.find(name, moment).await?,
        };
        if min_lsn > found.lsn {
            let text = format!(
                "this URL shows `{name}` after commit {}, and the request wants to see commit {min_lsn} (shoal-min-lsn); \
                 ask the database's own URL for that",
                found.lsn
            );
            return Err(ServerError::new(Fault::Invalid, text).into());
        }
        let key = (found.head.value.database, found.lsn);
        let opening = self.pasts.opening(key);
        let opened = opening.get_or_try_init(|| self.load_past(&found)).await.cloned();
        let open = opened.inspect_err(|_| self.pasts.forget(key, &opening))?;
        open.used_micros.set(self.node.seam.boot_micros());
        self.evict_pasts(limits::PASTS_MAX, Duration::ZERO);
        Ok(open)
    }

    /// Closes pasts that nobody has used for `idle`, the longest unused first, as long as there are more than `keep`.
    pub(super) fn evict_pasts(self: &Rc<Self>, keep: usize, idle: Duration) {
        let mut all = self.pasts.all();
        if all.len() <= keep {
            return;
        }
        let now = self.node.seam.boot_micros();
        all.sort_by_key(|open| open.used_micros.get());
        let mut left = all.len();
        for open in all {
            let unused = Duration::from_micros(now.saturating_sub(open.used_micros.get()));
            if left <= keep || unused < idle {
                return;
            }
            // The list, and this loop.
            if Rc::strong_count(&open) <= 2 && !self.streams.has_of(&open.database) {
                self.shut_past(&open, "nobody used it");
                left -= 1;
            }
        }
    }

    fn shut_past(&self, open: &Rc<OpenDatabase>, reason: &str) {
        debug!(database = %open.database.name, past = ?open.database.past, reason, "a past is closed");
        self.pasts.remove(open);
        open.is_closed.set(true);
        open.pool.clear();
    }

    /// The node is going down.
    pub(super) fn close_pasts(&self, reason: &str) {
        for open in self.pasts.all() {
            self.shut_past(&open, reason);
        }
    }

    /// What a past read is not there: its moment may have left the retention window since it was opened, or the base that it
    /// was opened from was only kept by a fork that has ended since. Then another one leads there.
    pub(super) async fn look_why_past(&self, open: &Rc<OpenDatabase>, error: ServerError) -> ServerError {
        let Some(past) = open.database.past.filter(|_| error.fault == Fault::Corrupt) else { return error };
        match self.read_head(open.database.id).await {
            Ok(Some(head)) if Lsn::raw(head.value.horizon) > past.lsn => match self.known(&head.value).await {
                Ok(known) => NotThere::TooOld(known).into_error(&open.database.name, Moment::Lsn(past.lsn)),
                Err(error) => error,
            },
            Ok(Some(head)) if head.value.version > open.head.borrow().value.version => {
                self.shut_past(open, "its base is gone");
                let text = format!("the past of `{}` was rearranged meanwhile; ask again", open.database.name);
                ServerError::new(Fault::Retry, text)
            }
            _ => error,
        }
    }

    /// What `head` leads to is not there: because the database has a later head by now, or because it is damaged.
    async fn why_past_is_gone(&self, head: &Head, error: ServerError) -> ServerError {
        if error.fault != Fault::Corrupt {
            return error;
        }
        match self.read_head(head.database).await {
            Ok(Some(now)) if now.value.version > head.version => {
                let text = format!("the past of `{}` was rearranged meanwhile; ask again", head.name);
                ServerError::new(Fault::Retry, text)
            }
            _ => error,
        }
    }
}
