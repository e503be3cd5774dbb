//! Forks of databases that this node owns: what has to be folded first, and what else must not write the head meanwhile.
//!
//! | request | writers | what is folded first | then |
//! |---|---|---|---|
//! | fork of the present state | go on | up to now, in the write that pins | [`Forker::fork_folding`] |
//! | fork, or restore under a new name | go on | up to the moment | name, pin, child: [`Forker::fork`] |
//! | restore in place, undo, reset | stopped for good ([`super::replacing`]) | all of it | [`Forker::restore`] |
//! | undelete | there are none | it was, when it was deleted | a fork of the final head, under its own name |

use std::rc::Rc;

use pageserver::fold::{FoldJob, Linked};
use pageserver::fork::{ForkFailure, Forked, Forker};
use tenant::head::Head;
use tenant::lifecycle;
use tenant::name::Name;
use tenant::registry;
use tenant::settings::Settings;
use tracing::info;
use walstore::id::{DatabaseId, Lsn};
use walstore::register::Versioned;

use super::Core;
use super::databases::OpenError;
use super::open_database::OpenDatabase;
use crate::error::{Fault, ServerError};
use crate::moment::Moment;

/// Another database, or another state of this one.
#[derive(Clone, Debug)]
pub enum Change {
    /// `at`: the present state, if none is given. `expires_micros`: 0 is never.
    Fork { to: Name, at: Option<Moment>, expires_micros: u64 },
    /// Restore in place.
    Restore { at: Moment },
    /// To a bookmark, or to what the last restore in place replaced.
    Undo { bookmark: Option<Moment> },
    Undelete,
}

/// What a change has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    pub name: Name,
    pub database: DatabaseId,
    /// The last commit (raw) that it begins with.
    pub lsn: u64,
    /// The bookmark of what the name led to before.
    pub undo: Option<(DatabaseId, u64)>,
}

impl Changed {
    pub(super) fn of(new: &Head, old: Option<&Head>) -> Self {
        let undo = old.map(|old| (old.database, Lsn::raw(old.folded.lsn)));
        Self { name: new.name.clone(), database: new.database, lsn: Lsn::raw(new.folded.lsn), undo }
    }
}

/// A state that a new database begins with.
pub(super) enum Origin {
    /// Of the database itself after this commit; `None` is before the first.
    Own(Option<Lsn>),
    /// Of one that its name led to before.
    Former(Box<Versioned<Head>>, Option<Lsn>),
}

impl Core {
    pub(super) async fn change(self: &Rc<Self>, name: Name, change: Change) -> Result<Changed, OpenError> {
        let done = match change {
            Change::Fork { to, at, expires_micros } => self.fork_to(&name, to, at, expires_micros).await,
            Change::Restore { at } => self.restore_in_place(&name, at).await,
            Change::Undo { bookmark: Some(bookmark) } => self.restore_in_place(&name, bookmark).await,
            Change::Undo { bookmark: None } => {
                let bookmark = self.what_was_replaced(&name).await?;
                self.restore_in_place(&name, bookmark).await
            }
            Change::Undelete => self.undelete(&name).await,
        };
        done.inspect(|done| info!(%name, new = %done.name, database = %done.database, lsn = done.lsn, "forked or restored"))
    }

    async fn fork_to(
        self: &Rc<Self>,
        name: &Name,
        to: Name,
        at: Option<Moment>,
        expires_micros: u64,
    ) -> Result<Changed, OpenError> {
        let open = self.open(name, false).await?;
        let Some(moment) = at else {
            return Ok(self.fork_newest(&open, to, expires_micros).await?);
        };
        let origin = self.origin(&open, moment).await?;
        let _folding = open.folding.lock().await;
        let (head, at) = match origin {
            Origin::Own(at) => (open.head.borrow().clone(), at),
            Origin::Former(head, at) => (*head, at),
        };
        let is_own = head.value.database == open.database.id;
        let settings = Settings { expires_micros, ..self.settings_like(&head.value) };
        let forked = self.fork_on_io(head, at, to, settings).await?;
        if is_own {
            *open.head.borrow_mut() = forked.parent;
        }
        self.announce_end(&forked.child.value).await;
        Ok(Changed::of(&forked.child.value, None))
    }

    /// A fork of all that was committed before.
    async fn fork_newest(
        self: &Rc<Self>,
        open: &Rc<OpenDatabase>,
        to: Name,
        expires_micros: u64,
    ) -> Result<Changed, ServerError> {
        let database = &open.database;
        let newest = Lsn::raw(database.newest().lsn);
        self.until_durable(open, newest).await?;
        // No fold of this node comes between; what is folded by then is the present state.
        let _folding = open.folding.lock().await;
        loop {
            if let Some(reason) = database.lost() {
                return Err(ServerError::new(Fault::Fenced, reason));
            }
            let settings = self.settings_like(&open.head.borrow().value);
            let settings = Settings { expires_micros, ..settings };
            if Lsn::raw(database.base().tip.lsn) >= newest {
                let (head, at) = (open.head.borrow().clone(), database.base().tip.lsn);
                let forked = self.fork_on_io(head, at, to, settings).await?;
                *open.head.borrow_mut() = forked.parent;
                self.announce_end(&forked.child.value).await;
                return Ok(Changed::of(&forked.child.value, None));
            }
            let job = self.fold_job(open).await;
            let tip = job.tip;
            if Lsn::raw(tip.lsn) < newest {
                // There is more than one fold can hold.
                self.fold_or_adopt(open).await?;
                continue;
            }
            match self.fork_folding_on_io(job, to.clone(), settings).await? {
                Ok((linked, child)) => {
                    self.has_folded(open, tip, linked);
                    let child = child?;
                    self.announce_end(&child.value).await;
                    return Ok(Changed::of(&child.value, None));
                }
                Err(ForkFailure::Fold(failure)) => self.adopt_or_explain(open, failure)?,
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    async fn fork_folding_on_io(
        &self,
        job: FoldJob,
        to: Name,
        settings: Settings,
    ) -> Result<Result<(Linked, Result<Versioned<Head>, ForkFailure>), ForkFailure>, ServerError> {
        let patience = self.patience();
        let forked = self.node.io(move |node| async move {
            let forker = Forker { store: &*node.stores.main, seam: &node.seam, fetcher: &node.fetcher, me: node.id, patience };
            forker.fork_folding(job, &to, settings).await
        });
        forked.await
    }

    async fn fork_on_io(
        &self,
        head: Versioned<Head>,
        at: Option<Lsn>,
        to: Name,
        settings: Settings,
    ) -> Result<Forked, ServerError> {
        let patience = self.patience();
        let forked = self.node.io(move |node| async move {
            let forker = Forker { store: &*node.stores.main, seam: &node.seam, fetcher: &node.fetcher, me: node.id, patience };
            forker.fork(head, at, &to, settings).await
        });
        forked.await?.map_err(ServerError::from)
    }

    /// What a child of `head` is promised: the same, from now on, and without an end.
    pub(super) fn settings_like(&self, head: &Head) -> Settings {
        Settings { created_micros: self.node.seam.wall_micros(), expires_micros: 0, ..head.settings }
    }

    /// The state that a moment means, folded.
    pub(super) async fn origin(self: &Rc<Self>, open: &OpenDatabase, at: Moment) -> Result<Origin, OpenError> {
        let found = self.find(&open.database.name, at).await?;
        let at = Lsn::new(found.lsn);
        Ok(match found.head.value.database == open.database.id {
            true => Origin::Own(at),
            false => Origin::Former(Box::new(found.head), at),
        })
    }

    /// Brings the last database of a freed name back, as a fork of what is left of it.
    async fn undelete(self: &Rc<Self>, name: &Name) -> Result<Changed, OpenError> {
        let (of, patience) = (name.clone(), self.patience());
        let record = self.node.io(move |node| async move {
            registry::read_name(&*node.stores.main, &node.seam, &of, patience).await
        });
        let record = record.await?.map_err(ServerError::from)?;
        if record.is_none() {
            return Err(OpenError::NoSuchDatabase(name.clone()));
        }
        let database = lifecycle::undelete_of(record.as_ref().map(|record| &record.value), name);
        let database = database.map_err(|refused| ServerError::from(ForkFailure::from(refused)))?;
        let head = self.read_head(database).await?.filter(|head| head.value.state.is_final());
        let head = head.ok_or_else(|| OpenError::NoSuchDatabase(name.clone()))?;
        if head.value.settings.retention_secs == 0 {
            // Its last commits were given up with it.
            let text = format!("`{name}` kept no history when it was deleted, so it cannot be brought back");
            return Err(ServerError::new(Fault::Invalid, text).into());
        }
        let (at, settings) = (head.value.folded.lsn, self.settings_like(&head.value));
        let forked = self.fork_on_io(head, at, name.clone(), settings).await?;
        Ok(Changed::of(&forked.child.value, None))
    }
}
