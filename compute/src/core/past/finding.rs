//! From a name and a moment to a head and a commit of its history.

use std::rc::Rc;

use pageserver::fold::FoldFailure;
use pageserver::tail::keeps_commits;
use tenant::head::Head;
use tenant::name::Name;
use walstore::id::{DatabaseId, Lsn};
use walstore::register::Versioned;

use super::history::{self, Found, Known, NotThere};
use super::lineage::{Lineage, is_gone};
use crate::core::Core;
use crate::core::databases::OpenError;
use crate::core::open_database::OpenDatabase;
use crate::error::{Fault, ServerError};
use crate::failure::fold_words;
use crate::moment::Moment;

/// Times that a database is folded, or opened, for one request before its client is told to come back.
const ROUNDS_MAX: usize = 4;

/// A commit that can be shown.
pub struct FoundCommit {
    pub name: Name,
    pub head: Versioned<Head>,
    /// Raw: 0 is before the first commit.
    pub lsn: u64,
}

/// A database that has ended here is another's, or nobody's, from some moment on of which this node need not know yet. What
/// was committed there since then counts.
fn check_is_ours(open: &OpenDatabase) -> Result<(), ServerError> {
    match open.database.lost() {
        Some(reason) => Err(ServerError::new(Fault::Retry, format!("{reason}; nothing was done; ask again"))),
        None => Ok(()),
    }
}

/// Of a database that has ended, anything may be gone.
pub(in crate::core) fn check_is_kept(head: &Head) -> Result<(), ServerError> {
    // Also if its horizon says that the last commit is there.
    if is_gone(head) {
        let Head { database, name, .. } = head;
        let text = format!("the bookmark is one of {database}, a former `{name}` of which nothing is kept any more");
        return Err(ServerError::new(Fault::Invalid, text));
    }
    Ok(())
}

impl Core {
    /// Which commit of which history is meant. What this node has not folded yet is folded first.
    pub(in crate::core) async fn find(self: &Rc<Self>, name: &Name, moment: Moment) -> Result<FoundCommit, OpenError> {
        for _ in 0..ROUNDS_MAX {
            // Before anything is looked at: of a later time, what is known then could be too little.
            let now = self.node.now_micros();
            let open = self.databases.opened(name);
            let head = match &open {
                Some(_) if !self.node.lease_is_valid() => return Err(self.out_of_touch().into()),
                Some(open) => {
                    let head = self.folded_up_to(open, moment).await?;
                    check_is_ours(open)?;
                    head
                }
                None => match self.resolve(name).await? {
                    Some(head) => head,
                    None => return Err(OpenError::NoSuchDatabase(name.clone())),
                },
            };
            if self.is_over(&head.value) {
                open.iter().for_each(|open| self.clone().expire(open));
                return Err(OpenError::NoSuchDatabase(name.clone()));
            }
            let present = head.value.clone();
            let head = match moment {
                Moment::Bookmark { database, .. } if database != head.value.database => self.former(name, database).await?,
                _ => {
                    let patience = self.patience();
                    let head_at = self.node.io(move |node| async move {
                        Lineage::new(&node, patience).head_at(head, moment).await
                    });
                    head_at.await??
                }
            };
            let (id, folded) = (head.value.database, Lsn::raw(head.value.folded.lsn));
            if let Some(lsn) = self.pasts.at_time(id, moment).filter(|lsn| *lsn >= Lsn::raw(head.value.horizon)) {
                return Ok(FoundCommit { name: name.clone(), head, lsn });
            }
            let found = {
                let head = head.value.clone();
                self.node.io(move |node| async move { history::find(&node, &head, moment, now).await }).await?
            };
            let found = match found {
                Ok(found) => found,
                Err(error) => return Err(self.why_past_is_gone(&head.value, error).await.into()),
            };
            match found {
                Found::At(lsn) => {
                    if lsn < folded {
                        self.pasts.remember_time(id, moment, lsn);
                    }
                    return Ok(FoundCommit { name: name.clone(), head, lsn });
                }
                Found::Not(why) => return Err(self.not_there(present, moment, why).await?.into()),
                // Nobody has committed after that, or only this node would know it.
                Found::Beyond if head.value.owner.is_none() || open.is_some() => match moment {
                    Moment::Time(_) => return Ok(FoundCommit { name: name.clone(), lsn: Lsn::raw(head.value.folded.lsn), head }),
                    Moment::Lsn(_) | Moment::Bookmark { .. } => {
                        let known = self.known(&head.value).await?;
                        return Err(self.not_there(present, moment, NotThere::Future(known)).await?.into());
                    }
                },
                // Only its owner knows: this node, if nobody else is.
                Found::Beyond => drop(self.open(name, false).await?),
            }
        }
        let text = format!("`{name}` changes too quickly to find {} in its history; try again", moment.told());
        Err(ServerError::new(Fault::Retry, text).into())
    }

    /// The commit that a moment means, if this node owns the database and it is not folded yet, or the last one that is.
    /// Nothing is folded for it: who asks for the state of now again and again makes no folds.
    pub(super) async fn find_unfolded(
        self: &Rc<Self>,
        name: &Name,
        moment: Moment,
    ) -> Result<Option<FoundCommit>, ServerError> {
        let Some(open) = self.databases.opened(name).filter(|_| self.node.lease_is_valid()) else { return Ok(None) };
        open.claim.settled().await.map_err(|why| why.error)?;
        check_is_ours(&open)?;
        let (folded, newest) = (open.database.base().tip, open.database.newest());
        let is_unfolded = |lsn: u64| lsn > Lsn::raw(folded.lsn) && lsn <= Lsn::raw(newest.lsn);
        let wanted = match moment {
            Moment::Lsn(lsn) if is_unfolded(lsn) => lsn,
            Moment::Bookmark { database, lsn } if database == open.database.id && is_unfolded(lsn) => lsn,
            // All that was begun before this request counts, or the same question would get another answer later.
            Moment::Time(micros) if (folded.time_micros..=self.node.now_micros()).contains(&micros) => {
                Lsn::raw(newest.lsn)
            }
            _ => return Ok(None),
        };
        // Without a history nothing but the present can be shown, and only as long as it is that. And what was before its
        // creation is no state of a database.
        let settings = open.head.borrow().value.settings;
        let is_before_all = matches!(moment, Moment::Time(micros) if micros < settings.created_micros);
        if is_before_all || self.has_expired(&open) || !keeps_commits(&open.head.borrow().value) {
            return Ok(None);
        }
        self.until_durable(&open, wanted).await?;
        check_is_ours(&open)?;
        let head = open.head.borrow().clone();
        let lsn = match moment {
            // A later commit may have such a time too, if the clock was set back, but is not known to be durable.
            Moment::Time(micros) => open.database.last_at(micros).map(|lsn| lsn.min(wanted)),
            Moment::Lsn(_) | Moment::Bookmark { .. } => Some(wanted),
        };
        Ok(lsn.map(|lsn| FoundCommit { name: name.clone(), head, lsn }))
    }

    /// The head of a database, with all folded that was committed before: whatever the clocks say, for the times of
    /// commits may be ahead of this node's.
    pub(in crate::core) async fn folded_head(self: &Rc<Self>, name: &Name) -> Result<Versioned<Head>, OpenError> {
        if self.databases.opened(name).is_none() {
            match self.resolve(name).await? {
                None => return Err(OpenError::NoSuchDatabase(name.clone())),
                // Then all of it is folded.
                Some(head) if head.value.owner.is_none() && !self.is_over(&head.value) => return Ok(head),
                Some(_) => {}
            }
        }
        if !self.node.lease_is_valid() {
            return Err(self.out_of_touch().into());
        }
        let open = self.open_living(name).await?;
        self.fold_up_to(&open, Lsn::raw(open.database.newest().lsn)).await?;
        Ok(open.head.borrow().clone())
    }

    /// The head of a database that had this name, and ended.
    async fn former(&self, name: &Name, database: DatabaseId) -> Result<Versioned<Head>, ServerError> {
        let head = self.read_head(database).await?;
        let had_it = |head: &Versioned<Head>| head.value.name == *name && head.value.state.is_final();
        let Some(head) = head.filter(had_it) else {
            let text = format!("the bookmark is one of {database}, which is no former database of the name `{name}`");
            return Err(ServerError::new(Fault::Invalid, text));
        };
        check_is_kept(&head.value)?;
        Ok(head)
    }

    /// What a client is told of a moment that is none of what has the name now, nor of what had it before.
    async fn not_there(&self, present: Head, moment: Moment, mut why: NotThere) -> Result<ServerError, ServerError> {
        let patience = self.patience();
        let told = self.node.io(move |node| async move {
            Lineage::new(&node, patience).widen(why.known_mut(), &present, moment).await?;
            Ok(why.into_error(&present.name, moment))
        });
        told.await?
    }

    /// From when to when the history of a head reaches.
    pub(super) async fn known(&self, head: &Head) -> Result<Known, ServerError> {
        let head = head.clone();
        self.node.io(move |node| async move { Known::read(&node, &head).await }).await?
    }

    /// The head of a database that this node owns, with everything folded that a moment may want.
    async fn folded_up_to(self: &Rc<Self>, open: &Rc<OpenDatabase>, moment: Moment) -> Result<Versioned<Head>, ServerError> {
        open.claim.settled().await.map_err(|why| why.error)?;
        let (folded, newest) = (open.database.base().tip, open.database.newest());
        let created = open.head.borrow().value.settings.created_micros;
        let wanted = match moment {
            Moment::Lsn(lsn) | Moment::Bookmark { lsn, .. } => lsn.min(Lsn::raw(newest.lsn)),
            // All that was begun before this request counts, or the same question would get another answer later.
            Moment::Time(micros) if micros >= folded.time_micros.max(created) => Lsn::raw(newest.lsn),
            Moment::Time(_) => 0,
        };
        if wanted > Lsn::raw(folded.lsn) {
            self.fold_up_to(open, wanted).await?;
        }
        Ok(open.head.borrow().clone())
    }

    /// Folds until `lsn` (raw) is folded, once it is durable.
    pub(in crate::core) async fn fold_up_to(self: &Rc<Self>, open: &Rc<OpenDatabase>, lsn: u64) -> Result<(), ServerError> {
        self.until_durable(open, lsn).await?;
        let _folding = open.folding.lock().await;
        while Lsn::raw(open.database.base().tip.lsn) < lsn {
            self.fold_or_adopt(open).await?;
        }
        Ok(())
    }

    /// Waits until `lsn` (raw) is durable.
    pub(in crate::core) async fn until_durable(&self, open: &OpenDatabase, lsn: u64) -> Result<(), ServerError> {
        let (database, settings) = (&open.database, &self.node.settings);
        tokio::select! {
            biased;
            passed = database.gate.pass(lsn) => passed.map_err(|lost| ServerError::new(Fault::Fenced, lost.0)),
            () = self.node.seam.sleep(settings.commit_timeout) => {
                let text = format!("the bucket has not taken the last commits of `{}`; try again later", database.name);
                Err(ServerError::new(Fault::Retry, text))
            }
        }
    }

    /// One fold, of which something else depends. The caller holds the lock on folding.
    pub(in crate::core) async fn fold_or_adopt(self: &Rc<Self>, open: &Rc<OpenDatabase>) -> Result<(), ServerError> {
        if let Some(reason) = open.database.lost() {
            return Err(ServerError::new(Fault::Fenced, reason));
        }
        match self.fold(open, false).await {
            Ok(_) => Ok(()),
            Err(failure) => self.adopt_or_explain(open, failure),
        }
    }

    /// Goes on from a fold whose answer was an error, if it took place; else says that it failed.
    pub(in crate::core) fn adopt_or_explain(&self, open: &OpenDatabase, failure: FoldFailure) -> Result<(), ServerError> {
        match failure {
            FoldFailure::Lost(found) if self.adopt(open, &found) => Ok(()),
            failure => {
                let name = &open.database.name;
                let words = fold_words(name, &failure);
                let text = format!("the last commits of `{name}` cannot be folded at the moment: {words}");
                Err(ServerError::new(Fault::Retry, text))
            }
        }
    }
}
