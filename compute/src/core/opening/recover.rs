//! Commits that are only in logs become part of a database again.

use std::collections::BTreeMap;
use std::rc::Rc;

use futures_util::{StreamExt, TryStreamExt, stream};
use segments::cache::{Loan, PageCache};
use segments::commit::UncheckedCommit;
use segments::page::Page;
use walstore::id::IncarnationId;

use crate::context::LoggedCommit;
use crate::database::Database;
use crate::error::{Fault, ServerError};
use crate::limits;

/// Commits of a log are in memory until all of them are applied, large ones with their side objects.
pub fn borrow_for(commits: &[LoggedCommit], cache: &PageCache) -> Loan {
    let mut loan = cache.lend();
    loan.set(commits.iter().map(|commit| commit.bytes.len()).sum());
    loan
}

/// Applies one commit of a sealed log. Patches want the page as it was just before.
pub async fn recover(
    database: &Rc<Database>,
    logged: &LoggedCommit,
    incarnation: IncarnationId,
) -> Result<(), ServerError> {
    let corrupt = |what: &dyn std::fmt::Display| {
        let text = format!("a commit of {} in the log of {incarnation}: {what}", database.id);
        ServerError::new(Fault::Corrupt, text)
    };
    let unchecked = UncheckedCommit::decode(&logged.bytes).map_err(|error| corrupt(&error))?;
    let commit = unchecked.check(&database.newest()).map_err(|error| corrupt(&error))?;
    let wanted: Vec<_> = commit.bases().map(|(page_no, _)| page_no).collect();
    let reads = stream::iter(wanted).map(|page_no| async move {
        Ok::<_, ServerError>((page_no, database.page_for_recovery(page_no).await?))
    });
    let mut bases: BTreeMap<_, Page> = reads.buffer_unordered(limits::BASES_AT_ONCE).try_collect().await?;
    let tip = commit.tip();
    let commit = commit.apply(|page_no, _| bases.remove(&page_no).ok_or("the page was not read"));
    database.recover(commit.map_err(|error| corrupt(&error))?, tip, &logged.bytes);
    Ok(())
}
