//! Closing databases that nobody uses, and opening them again.
//!
//! A closed database costs nothing, except that commits which are only in this node's own log have to be found
//! again: their slots are remembered here, with the history's last state as a check. "The head says that the owner
//! is me" and no entry here means that this log holds nothing of the database that is not folded.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use segments::tip::Tip;
use tenant::name::Name;
use tracing::{debug, warn};
use walstore::id::{DatabaseId, Lsn, Slot};
use walstore::mutant::{self, Mutant};
use walstore::recovery::{self, Access};

use super::databases::OpenError;
use super::open_database::OpenDatabase;
use super::opening::{borrow_for, recover};
use super::{Core, spawn_local};
use crate::database::Database;
use crate::error::{Fault, ServerError};
use crate::limits;
use crate::context::LoggedCommit;
use crate::sqlite::memory;

/// What is remembered of a database that was closed with commits that are not folded.
pub struct Asleep {
    name: Name,
    epoch: u64,
    /// The history's end.
    tip: Tip,
    /// Where this log holds what is not folded, oldest first.
    pub unfolded: VecDeque<(Lsn, Slot)>,
}

/// A database that was closed before its dead space was given back.
pub struct Wasteful {
    name: Name,
    /// It is to be opened again when there is room. Else it waits for whoever opens it next.
    reopens: bool,
}

/// By database.
pub type Sleepers = BTreeMap<DatabaseId, Asleep>;

impl Core {
    /// Once in a while: closes what is idle, and folds what keeps the log's old slots alive.
    pub(super) fn sweep(self: &Rc<Self>) {
        self.look_at_folds();
        self.end_expired();
        self.wake_sleepers();
        self.open_wasteful();
        self.close_idle_connections();
        let idle = self.node.settings.idle_database_timeout;
        self.evict(0, idle);
        self.evict_replicas(idle);
        self.evict_pasts(0, idle);
    }

    /// A database that nobody uses at the moment needs no connections: opening one takes less than a millisecond.
    fn close_idle_connections(&self) {
        let now = self.node.seam.boot_micros();
        let longest = if self.node.sql.is_full() { Duration::ZERO } else { limits::IDLE_CONNECTIONS };
        let is_idle = |open: &&Rc<OpenDatabase>| {
            Duration::from_micros(now.saturating_sub(open.used_micros.get())) >= longest
        };
        let close = |open: &Rc<OpenDatabase>| {
            let closed = open.pool.clear();
            open.database.meter.report();
            closed
        };
        let open = [self.databases.all(), self.pasts.all()].concat();
        let closed: usize = open.iter().filter(is_idle).map(close).sum();
        if closed >= limits::CLOSED_CONNECTIONS_MANY {
            memory::give_back();
        }
    }

    /// Closes databases that nobody uses, the longest unused first, as long as more than `keep` are open and they
    /// have been idle for `idle`.
    pub(super) fn evict(self: &Rc<Self>, keep: usize, idle: Duration) {
        if self.databases.len() <= keep {
            return;
        }
        let now = self.node.seam.boot_micros();
        let mut open = self.databases.all();
        open.sort_by_key(|open| open.used_micros.get());
        let mut left = open.len();
        for open in open {
            let unused = Duration::from_micros(now.saturating_sub(open.used_micros.get()));
            if left <= keep || unused < idle {
                return;
            }
            if !self.is_unused(&open) {
                continue;
            }
            // Its tail goes through the logs of others, which nobody can drain as long as it is only remembered.
            // And what its folds have left of dead space is given back, before nobody is there to do it.
            let may_be_put_off = keep > 0 && open.is_new_here();
            let is_wasteful = !open.is_compact.get() && !may_be_put_off;
            let has_work = open.head.borrow().value.tail.len() > 1 || is_wasteful || self.has_forks(&open);
            // On a busy machine that takes a while; only if too many are open it has to be quick.
            let may_take_time = keep == 0 && unused < idle + limits::IDLE_WORK_MAX;
            if has_work && (!open.is_idle.replace(true) || may_take_time) {
                open.database.changed.notify_one();
                continue;
            }
            self.close(&open, keep > 0);
            left -= 1;
        }
    }

    /// Whether nobody can tell whether the database is open. `open` is the caller's own reference.
    fn is_unused(&self, open: &Rc<OpenDatabase>) -> bool {
        let database = &open.database;
        // The maps by name and by id, the folder's task, and the caller.
        Rc::strong_count(open) <= 4
            && self.databases.nobody_waits_for(open)
            && open.claim.is_won()
            && open.folding.try_lock().is_ok()
            && database.lost().is_none()
            && database.gate.durable() == Lsn::raw(database.newest().lsn)
            && !self.streams.has_of(database)
    }

    /// `for_room`: it could not be left open until it had nothing to do.
    fn close(&self, open: &Rc<OpenDatabase>, for_room: bool) {
        let database = &open.database;
        let tip = database.newest();
        let unfolded = open.unfolded_slots();
        debug!(database = %database.name, unfolded = unfolded.len(), "nobody uses it; closed");
        if !unfolded.is_empty() && !mutant::is_on(Mutant::EvictAndForget) {
            let asleep = Asleep { name: database.name.clone(), epoch: database.epoch, tip, unfolded };
            self.databases.sleepers.borrow_mut().insert(database.id, asleep);
        }
        if !open.is_compact.get() {
            let mut wasteful = self.databases.wasteful.borrow_mut();
            wasteful.insert(database.id, Wasteful { name: database.name.clone(), reopens: for_room });
            if wasteful.len() > limits::WASTEFUL_MAX {
                // A sweep finds it, once nobody owns it.
                wasteful.pop_first();
            }
        }
        self.node.hot.remember(database.id, database.hot.get());
        self.databases.close(open);
        open.pool.clear();
        // The folder's task ends.
        open.is_closed.set(true);
        database.changed.notify_one();
    }

    /// Opens what is asleep with commits in slots that the log wants to be rid of; the folder does the rest.
    fn wake_sleepers(self: &Rc<Self>) {
        // What is only old can wait for room.
        let has_room = self.databases.len() <= limits::OPEN_DATABASES_MAX / 2;
        let below = if has_room { self.node.fold_below() } else { self.node.too_many_below() };
        let now = self.node.seam.boot_micros();
        let again_micros = u64::try_from(limits::WAKE_AGAIN.as_micros()).expect("BUG: minutes");
        let mut woken = self.databases.woken.borrow_mut();
        woken.retain(|_, at| now.saturating_sub(*at) < again_micros);
        let sleepers = self.databases.sleepers.borrow();
        let is_due = |(id, asleep): &(&DatabaseId, &Asleep)| {
            // One that is being opened already needs nobody else who waits for it. One that came to nothing a moment ago,
            // because something of it is damaged perhaps, must not keep the others asleep.
            asleep.unfolded.front().is_some_and(|(_, slot)| *slot < below)
                && !woken.contains_key(id)
                && !self.databases.is_being_opened(&asleep.name)
        };
        let due: Vec<_> = sleepers.iter().filter(is_due).take(limits::WOKEN_AT_ONCE_MAX).collect();
        for (id, asleep) in due {
            woken.insert(*id, now);
            let (core, name) = (self.clone(), asleep.name.clone());
            spawn_local(async move {
                if let Err(error) = core.open(&name, false).await {
                    warn!(database = %name, ?error, "cannot open it to fold its tail");
                }
            });
        }
    }

    /// Opens a few of those that were closed for want of room before their dead space was given back, now that there is room.
    /// The folder does the rest once they are idle.
    fn open_wasteful(self: &Rc<Self>) {
        if self.databases.len() > limits::OPEN_DATABASES_MAX / 2 {
            return;
        }
        let mut wasteful = self.databases.wasteful.borrow_mut();
        let closed = wasteful.values_mut().filter(|it| it.reopens && !self.databases.is_being_opened(&it.name));
        for it in closed.take(limits::WASTEFUL_AT_ONCE_MAX) {
            // Once: what cannot be opened waits like the others.
            it.reopens = false;
            let (core, name) = (self.clone(), it.name.clone());
            spawn_local(async move {
                match core.open(&name, false).await {
                    Ok(_) => {}
                    Err(OpenError::NoSuchDatabase(_)) => {
                        core.databases.wasteful.borrow_mut().retain(|_, closed| closed.name != name);
                    }
                    Err(error) => debug!(database = %name, ?error, "cannot open it to give its dead space back"),
                }
            });
        }
    }

    /// Reads the commits back that this node logged before it closed the database.
    pub(super) async fn wake(&self, database: &Rc<Database>) -> Result<VecDeque<(Lsn, Slot)>, ServerError> {
        let found = {
            let sleepers = self.databases.sleepers.borrow();
            sleepers.get(&database.id).map(|asleep| (asleep.epoch, asleep.tip, asleep.unfolded.clone()))
        };
        let Some((epoch, tip, mut unfolded)) = found else { return Ok(VecDeque::new()) };
        if epoch != database.epoch {
            // Another term: what was logged in the one before is in the tail of others, or folded.
            return Ok(VecDeque::new());
        }
        let folded = database.base().tip.lsn;
        unfolded.retain(|(lsn, _)| Some(*lsn) > folded);
        if let Some(folded) = folded {
            // A fold whose answer was lost may have landed after all.
            self.node.log.folded(database.id, folded);
        }
        let commits = self.own_commits(database, &unfolded).await?;
        let _loan = borrow_for(&commits, &self.node.cache);
        for commit in commits {
            if Some(commit.lsn) > database.newest().lsn {
                recover(database, &commit, self.node.id).await?;
            }
        }
        if database.newest() != tip {
            let (is, was) = (database.newest().lsn, tip.lsn);
            let text = format!("{}: the log of {} ends at {is:?} instead of {was:?}", database.id, self.node.id);
            return Err(ServerError::new(Fault::Corrupt, text));
        }
        Ok(unfolded)
    }

    pub(super) async fn own_commits(
        &self,
        database: &Rc<Database>,
        unfolded: &VecDeque<(Lsn, Slot)>,
    ) -> Result<Vec<LoggedCommit>, ServerError> {
        let mut slots: Vec<Slot> = unfolded.iter().map(|(_, slot)| *slot).collect();
        slots.dedup();
        let (id, epoch, patience) = (database.id, database.epoch, self.patience());
        let read = self.node.io(move |node| async move {
            let access = Access { stores: &node.stores, seam: &node.seam, patience };
            recovery::read_own(access, node.id, slots, id, epoch).await
        });
        read.await?.map_err(ServerError::from)
    }
}
