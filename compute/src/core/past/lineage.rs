//! Which database a moment of a name is one of.
//!
//! A restore in place gives a name to a new database, and so does whoever brings a deleted one back:
//!
//! ```text
//!   name   ──── first ────┬──── second ────┬──── third ─────▶          second: made from a commit of first
//!                      restore           undo                          third: made from the last commit of first
//! ```
//!
//! A time means what the name led to then. Times rise from one database of a name to the next: nothing is committed to a
//! database before its creation, and it is created after the last commit of what it replaces. An LSN means a commit of
//! the present database, or of what that was made from: they share all commits up to the one that it began with.
//!
//! What a former database had is kept as long as a retention after its end.

use tenant::head::{Head, HeadState};
use tenant::record::NameRecord;
use tenant::registry;
use walstore::id::{DatabaseId, Lsn};
use walstore::register::{Patience, Versioned};

use super::history::Known;
use crate::context::NodeContext;
use crate::error::{Fault, ServerError};
use crate::limits;
use crate::moment::{Moment, time_text};

/// Looks up which databases a name had.
#[derive(Clone, Copy)]
pub struct Lineage<'n> {
    node: &'n NodeContext,
    patience: Patience,
}

impl<'n> Lineage<'n> {
    pub fn new(node: &'n NodeContext, patience: Patience) -> Self {
        Self { node, patience }
    }

    /// The head of the database that a moment is one of: the present one, or one that had the name before.
    pub async fn head_at(&self, present: Versioned<Head>, moment: Moment) -> Result<Versioned<Head>, ServerError> {
        let mut head = present;
        for _ in 0..limits::FORMER_DATABASES_MAX {
            head = match moment {
                Moment::Time(micros) if micros < head.value.settings.created_micros => {
                    let Some(older) = self.predecessor(&head.value).await? else { break };
                    check_is_there(&older.value, &head.value, micros)?;
                    older
                }
                Moment::Lsn(lsn) if begins_after(&head.value, lsn) => match self.origin_of_this_name(&head.value).await? {
                    Some(older) if !is_gone(&older.value) => older,
                    _ => break,
                },
                _ => break,
            };
        }
        Ok(head)
    }

    /// Adds what moments lead to beyond the database that has the name now to what is told of one that was not found: LSNs
    /// to what it was made from, times to what had the name before. A bookmark is of one database, whatever had its name.
    pub async fn widen(&self, known: &mut Known, present: &Head, asked: Moment) -> Result<(), ServerError> {
        if let Moment::Lsn(_) = asked {
            *known = Known::read(self.node, present).await?;
            self.widen_for_lsns(known, present).await?;
        }
        if !matches!(asked, Moment::Bookmark { .. }) {
            let mut newer = present.clone();
            for _ in 0..limits::FORMER_DATABASES_MAX {
                let older = self.predecessor(&newer).await?.filter(|older| !is_gone(&older.value));
                let Some(Versioned { value: older, .. }) = older else { break };
                known.formerly_micros = Some(Known::read(self.node, &older).await?.window.oldest.time_micros);
                newer = older;
            }
        }
        Ok(())
    }

    /// As far as no LSN between is gone.
    async fn widen_for_lsns(&self, known: &mut Known, present: &Head) -> Result<(), ServerError> {
        let mut newer = present.clone();
        for _ in 0..limits::FORMER_DATABASES_MAX {
            let Some(begins) = newer.parent.filter(|point| point.lsn == newer.horizon) else { break };
            let older = self.origin_of_this_name(&newer).await?.filter(|older| !is_gone(&older.value));
            let Some(Versioned { value: older, .. }) = older.filter(|older| older.value.horizon <= begins.lsn) else { break };
            known.window.oldest = Known::read(self.node, &older).await?.window.oldest;
            newer = older;
        }
        Ok(())
    }

    /// Whether a database that ended goes on as what has its name now: by restores in place, or because it was brought
    /// back.
    pub async fn goes_on(&self, ended: &Head) -> Result<bool, ServerError> {
        let Self { node, patience } = *self;
        let head = registry::resolve_head(&*node.stores.main, &node.seam, &ended.name, node.id, patience).await;
        let mut head = head?;
        for _ in 0..limits::FORMER_DATABASES_MAX {
            let Some(newer) = head else { break };
            head = self.predecessor(&newer.value).await?;
            if head.as_ref().is_some_and(|head| head.value.database == ended.database) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What a restore in place has replaced with this database, of those that its name has led to.
    pub async fn replaced_by(&self, name: &NameRecord, new: DatabaseId) -> Result<Option<Versioned<Head>>, ServerError> {
        // The name may not have been led on yet.
        for database in std::iter::once(name.database()).chain(name.past.iter().rev().copied()) {
            let head = if database == new { None } else { self.head(database).await? };
            if let Some(head) = head.filter(|head| head.value.state == HeadState::Moved { new }) {
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    /// What had the name before it led to this database, if that is the same one to whoever uses the name.
    async fn predecessor(&self, head: &Head) -> Result<Option<Versioned<Head>>, ServerError> {
        let origin = self.origin_of_this_name(head).await?;
        if origin.as_ref().is_some_and(|origin| origin.value.state == HeadState::Moved { new: head.database }) {
            return Ok(origin);
        }
        let Self { node, patience } = *self;
        let record = registry::read_name(&*node.stores.main, &node.seam, &head.name, patience).await?;
        if let Some(record) = record
            && let Some(replaced) = self.replaced_by(&record.value, head.database).await?
        {
            return Ok(Some(replaced));
        }
        // It was brought back.
        Ok(origin.filter(|origin| matches!(origin.value.state, HeadState::Deleted { .. })))
    }

    /// What this database was made from, if that is a former one of the same name.
    async fn origin_of_this_name(&self, head: &Head) -> Result<Option<Versioned<Head>>, ServerError> {
        let Some(parent) = head.parent else { return Ok(None) };
        let origin = self.head(parent.parent).await?;
        Ok(origin.filter(|origin| origin.value.name == head.name && origin.value.state.is_final()))
    }

    async fn head(&self, database: DatabaseId) -> Result<Option<Versioned<Head>>, ServerError> {
        let Self { node, patience } = *self;
        Ok(registry::read_head(&*node.stores.main, &node.seam, database, patience).await?)
    }
}

/// Whether nothing is kept of it any more.
pub fn is_gone(head: &Head) -> bool {
    head.is_emptied() && head.folded.lsn.is_some()
}

/// The last time at which it is known to have been there.
fn was_there_until(head: &Head) -> u64 {
    head.folded.time_micros.max(head.settings.created_micros)
}

/// Whether only what this database was made from can have this commit (raw).
fn begins_after(head: &Head, lsn: u64) -> bool {
    lsn < Lsn::raw(head.horizon) && head.parent.is_some_and(|parent| lsn <= Lsn::raw(parent.lsn))
}

/// Whether `older`, which had the name before `newer`, can say what it was at a time.
fn check_is_there(older: &Head, newer: &Head, micros: u64) -> Result<(), ServerError> {
    let (name, at, since) = (&newer.name, time_text(micros), time_text(newer.settings.created_micros));
    let text = match older.state {
        // The clock that it was deleted by may have been behind the one of its last commit, or of its creation.
        HeadState::Deleted { at_micros } if micros >= at_micros.max(was_there_until(older) + 1) => {
            format!("there was no `{name}` at {at}: it was deleted at {}, and brought back at {since}", time_text(at_micros))
        }
        _ if is_gone(older) => format!(
            "another database has had the name `{name}` since {since}, when it was restored or brought back, and what it was \
             before, at {at}, is not kept any more"
        ),
        _ => return Ok(()),
    };
    Err(ServerError::new(Fault::Invalid, text))
}
