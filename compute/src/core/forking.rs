//! Forks of databases that this node owns: what has to be folded first, and what else must not write the head meanwhile.
//!
//! | request | writers | what is folded first | then |
//! |---|---|---|---|
//! | fork of the present state | go on | up to now, in the write that pins | [`Forker::fork_folding`] |
//! | fork, or restore under a new name | go on | up to the moment | name, pin, child: [`Forker::fork`] |
//! | restore in place, undo, reset | stopped for good ([`super::replacing`]) | all of it | [`Forker::restore`] |
//! | undelete | there are none | it was, when it was deleted | a fork of the final head, under its own name |

use std::rc::Rc;

use pageserver::fold::{FoldFailure, FoldJob, Linked};
use pageserver::fork::{ForkFailure, Forked, Forker};
use tenant::head::{Head, HeadState};
use tenant::lifecycle;
use tenant::limits::CREATED_MICROS_MAX;
use tenant::name::Name;
use tenant::registry::{self, CreateError, ResolveError};
use tenant::settings::Settings;
use tokio::sync::SemaphorePermit;
use tracing::info;
use walstore::id::{DatabaseId, Lsn};
use walstore::register::{Patience, Versioned};

use super::Core;
use super::databases::OpenError;
use super::open_database::OpenDatabase;
use super::past::is_gone;
use crate::cli::units::Span;
use crate::context::NodeContext;
use crate::database::past_room::PastRoom;
use crate::error::{Fault, ServerError};
use crate::moment::{Moment, time_text};

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

/// Why there is no fork.
enum Stopped {
    Failed(OpenError),
    /// Its name leads to what somebody else began, and has maybe no mind to finish.
    Unfinished(ResolveError),
}

impl From<OpenError> for Stopped {
    fn from(error: OpenError) -> Self {
        Self::Failed(error)
    }
}

impl From<ServerError> for Stopped {
    fn from(error: ServerError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<ForkFailure> for Stopped {
    fn from(failure: ForkFailure) -> Self {
        match failure {
            ForkFailure::Name(CreateError::Resolve(error @ ResolveError::Unfinished { .. })) => Self::Unfinished(error),
            failure => ServerError::from(failure).into(),
        }
    }
}

impl From<Stopped> for OpenError {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Failed(error) => error,
            Stopped::Unfinished(error) => ServerError::from(error).into(),
        }
    }
}

/// Whether a deleted database kept what an undelete needs, and still does.
fn check_can_be_brought_back(head: &Head) -> Result<(), ServerError> {
    let (name, retention_secs) = (&head.name, head.settings.retention_secs);
    let text = match head.state {
        // Its last commits were given up with it.
        _ if retention_secs == 0 => format!("`{name}` kept no history when it was deleted, so it cannot be brought back"),
        HeadState::Deleted { at_micros } if is_gone(head) => format!(
            "`{name}` was deleted at {}, and with its retention of {} it can be brought back no more: nothing of it is kept",
            time_text(at_micros),
            Span::secs(retention_secs.into()).in_large_units()
        ),
        _ => return Ok(()),
    };
    Err(ServerError::new(Fault::Invalid, text))
}

pub(super) fn forker<'a>(node: &'a NodeContext, patience: Patience, room: &'a PastRoom) -> Forker<'a> {
    let NodeContext { stores, seam, fetcher, given_up, id, .. } = node;
    Forker { store: &*stores.main, seam, fetcher, given_up, me: *id, patience, room }
}

impl Core {
    pub(super) async fn change(self: &Rc<Self>, name: Name, change: Change) -> Result<Changed, OpenError> {
        let done = match change {
            Change::Fork { to, at, expires_micros } => self.fork_to(&name, to, at, expires_micros).await,
            Change::Restore { at } => self.restore_in_place(&name, at).await,
            Change::Undo { bookmark: Some(bookmark) } => self.restore_in_place(&name, bookmark).await,
            Change::Undo { bookmark: None } => self.undo(&name).await,
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
        let error = match self.try_fork(name, to.clone(), at, expires_micros).await {
            Ok(changed) => return Ok(changed),
            Err(Stopped::Failed(error)) => return Err(error),
            Err(Stopped::Unfinished(error)) => error,
        };
        let ended = self.node.io(move |node| async move {
            match node.end_unfinished(&error).await? {
                true => Ok(()),
                false => Err(ServerError::from(error)),
            }
        });
        ended.await??;
        Ok(self.try_fork(name, to, at, expires_micros).await?)
    }

    async fn try_fork(
        self: &Rc<Self>,
        name: &Name,
        to: Name,
        at: Option<Moment>,
        expires_micros: u64,
    ) -> Result<Changed, Stopped> {
        let open = self.open_living(name).await?;
        let Some(moment) = at else {
            return self.fork_newest(&open, to, expires_micros).await;
        };
        let origin = self.origin(&open, moment).await?;
        let _turn = self.turn_to_fork().await?;
        let _folding = open.folding.lock().await;
        if let Some(reason) = open.database.lost() {
            return Err(ServerError::new(Fault::Fenced, reason).into());
        }
        let forked = loop {
            let (head, at) = match &origin {
                Origin::Own(at) => (open.head.borrow().clone(), *at),
                Origin::Former(head, at) => ((**head).clone(), *at),
            };
            let is_own = head.value.database == open.database.id;
            let settings = Settings { expires_micros, ..self.settings_like(&head.value) };
            match self.fork_on_io(head, at, to.clone(), settings).await? {
                Err(ForkFailure::Lost(found)) if is_own => self.adopt_or_explain(&open, FoldFailure::Lost(found))?,
                forked => {
                    let forked = forked?;
                    if is_own {
                        *open.head.borrow_mut() = forked.parent.clone();
                    }
                    break forked;
                }
            }
        };
        self.announce_end(&forked.child.value).await;
        Ok(Changed::of(&forked.child.value, None))
    }

    /// A fork of all that was committed before.
    async fn fork_newest(
        self: &Rc<Self>,
        open: &Rc<OpenDatabase>,
        to: Name,
        expires_micros: u64,
    ) -> Result<Changed, Stopped> {
        let database = &open.database;
        let newest = Lsn::raw(database.newest().lsn);
        self.until_durable(open, newest).await?;
        // No fold of this node comes between; what is folded by then is the present state.
        let _folding = open.folding.lock().await;
        loop {
            if let Some(reason) = database.lost() {
                return Err(ServerError::new(Fault::Fenced, reason).into());
            }
            let settings = self.settings_like(&open.head.borrow().value);
            let settings = Settings { expires_micros, ..settings };
            if Lsn::raw(database.base().tip.lsn) >= newest {
                let (head, at) = (open.head.borrow().clone(), database.base().tip.lsn);
                let forked = match self.fork_on_io(head, at, to.clone(), settings).await? {
                    Err(ForkFailure::Lost(found)) => {
                        self.adopt_or_explain(open, FoldFailure::Lost(found))?;
                        continue;
                    }
                    forked => forked?,
                };
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
            let created_micros = settings.created_micros.max(tip.time_micros + 1).min(CREATED_MICROS_MAX);
            match self.fork_folding_on_io(job, to.clone(), Settings { created_micros, ..settings }).await? {
                Ok((linked, child)) => {
                    self.has_folded(open, tip, linked);
                    let child = child?;
                    self.announce_end(&child.value).await;
                    return Ok(Changed::of(&child.value, None));
                }
                Err(ForkFailure::Fold(failure)) if !failure.is_refusal() => self.adopt_or_explain(open, failure)?,
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    /// Those of past states are made one or two at a time, for the memory that they take.
    pub(super) async fn turn_to_fork(&self) -> Result<SemaphorePermit<'_>, ServerError> {
        tokio::select! {
            biased;
            turn = self.node.past_forks.acquire() => Ok(turn.expect("BUG: nobody closes it")),
            () = self.node.seam.sleep(self.node.settings.commit_timeout) => {
                let text = "this node is busy with other forks and restores; nothing was done; try again";
                Err(ServerError::new(Fault::Retry, text))
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
        let forked = self.node.io_that_writes(move |node| async move {
            let room = PastRoom::to_fork(&node);
            forker(&node, patience, &room).fork_folding(job, &to, settings).await
        });
        forked.await
    }

    async fn fork_on_io(
        &self,
        head: Versioned<Head>,
        at: Option<Lsn>,
        to: Name,
        settings: Settings,
    ) -> Result<Result<Forked, ForkFailure>, ServerError> {
        let patience = self.patience();
        let forked = self.node.io_that_writes(move |node| async move {
            let room = PastRoom::to_fork(&node);
            forker(&node, patience, &room).fork(head, at, &to, settings).await
        });
        forked.await
    }

    /// What a new database is promised that begins with a state of `source`: the same, from now on, and without an end.
    pub(super) fn settings_like(&self, source: &Head) -> Settings {
        Settings { created_micros: self.created_after(&[source]), expires_micros: 0, ..source.settings }
    }

    /// When a database was created that goes on from these, whatever this node's clock says: times rise from one database
    /// of a name to the next, also where none was committed to, and from what a database begins with to itself.
    pub(super) fn created_after(&self, older: &[&Head]) -> u64 {
        let ended = |head: &&Head| head.folded.time_micros.max(head.settings.created_micros) + 1;
        older.iter().map(ended).fold(self.node.now_micros(), u64::max).min(CREATED_MICROS_MAX)
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
        // What was cut off before is finished first, and what is over is deleted.
        self.free_if_over(name).await?;
        let (of, patience) = (name.clone(), self.patience());
        let record = self.node.io(move |node| async move {
            registry::read_name(&*node.stores.main, &node.seam, &of, patience).await
        });
        let record = record.await?.map_err(ServerError::from)?;
        let Some(record) = record else { return Err(OpenError::NoSuchDatabase(name.clone())) };
        let databases = lifecycle::undelete_of(&record.value);
        let databases = databases.map_err(|refused| {
            let error = ServerError::from(ForkFailure::from(refused));
            let text = format!(
                "{error}. If a former database of this name is meant, restore the bookmark that its deletion answered: \
                 `shoal db restore {name} --bookmark <bookmark>`, and `--to <new name>` to leave this one as it is"
            );
            ServerError { message: text, ..error }
        })?;
        let mut last = None;
        for database in databases {
            last = self.read_head(database).await?.filter(|head| head.value.state != HeadState::Aborted);
            if last.is_some() {
                break;
            }
        }
        let head = last.filter(|head| head.value.state.is_final());
        let head = head.ok_or_else(|| OpenError::NoSuchDatabase(name.clone()))?;
        check_can_be_brought_back(&head.value)?;
        let (at, settings) = (head.value.folded.lsn, self.settings_like(&head.value));
        let forked = self.fork_on_io(head, at, name.clone(), settings).await?.map_err(ServerError::from)?;
        Ok(Changed::of(&forked.child.value, None))
    }
}
