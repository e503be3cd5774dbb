//! Listing names.

use futures_util::{StreamExt, TryStreamExt, stream};
use tracing::warn;
use walstore::envelope::Corrupt;
use walstore::register::{Backoff, Patience, RecordError};
use walstore::seam::Seam;
use walstore::store::{Key, Store, StoreError};

use super::names::read_name;
use crate::keys;
use crate::limits;
use crate::name::{self, Name};
use crate::record::NameState;

#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot list the databases: {0}")]
pub struct ListError(#[from] pub RecordError);

impl From<StoreError> for ListError {
    fn from(error: StoreError) -> Self {
        Self(error.into())
    }
}

/// Some of the names that were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePage {
    /// In ascending order.
    pub names: Vec<Name>,
    /// What to ask for the next page with; `None` when there is no more. May be a name that is not listed.
    pub next: Option<Name>,
}

/// Live names that start with `prefix` and come after `after`, from at most `limit` records (at most
/// [`LIST_NAMES_MAX`](limits::LIST_NAMES_MAX)).
///
/// A page costs one LIST and one GET per record, 32 at a time. It may hold fewer names than `limit`, even
/// none, and still have a next one: a deleted name keeps its record for ever, and only reading tells. So
/// what one call costs is bounded, however many names were deleted.
///
/// A name is listed by its record alone; a create or delete that stopped half-way may be shown wrong until
/// somebody meets the name.
pub async fn list(
    store: &dyn Store,
    seam: &Seam,
    prefix: &str,
    after: Option<&Name>,
    limit: usize,
    patience: Patience,
) -> Result<NamePage, ListError> {
    let limit = limit.clamp(1, limits::LIST_NAMES_MAX);
    if !prefix.chars().all(is_possible) || prefix.len() > name::NAME_BYTES_MAX {
        return Ok(NamePage { names: Vec::new(), next: None });
    }
    let keys = list_keys(store, seam, prefix, after, limit, patience).await?;
    let is_full = keys.len() == limit;
    let scanned = names_of(&keys);
    if is_full && scanned.is_empty() {
        // Without a name there is no way to ask for what follows.
        return Err(RecordError::from(Corrupt::new("not the key of a name").at(&keys[0])).into());
    }
    let next = if is_full { scanned.last().cloned() } else { None };
    let reads = stream::iter(scanned).map(|name| async move {
        let is_live = is_live(store, seam, &name, patience).await?;
        Ok::<_, ListError>(is_live.then_some(name))
    });
    let names: Vec<Option<Name>> = reads.buffered(limits::LIST_GETS_MAX).try_collect().await?;
    Ok(NamePage { names: names.into_iter().flatten().collect(), next })
}

/// Characters of the grammar of names: nothing else starts one, and nothing else may get into a key.
fn is_possible(c: char) -> bool {
    matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-')
}

/// A stray object among the records is told in the log and hides nothing else.
fn names_of(keys: &[Key]) -> Vec<Name> {
    let name = |key: &Key| {
        let name = keys::parse_name(key);
        if name.is_none() {
            warn!(%key, "an object that is no name record");
        }
        name
    };
    keys.iter().filter_map(name).collect()
}

async fn list_keys(
    store: &dyn Store,
    seam: &Seam,
    prefix: &str,
    after: Option<&Name>,
    limit: usize,
    patience: Patience,
) -> Result<Vec<Key>, StoreError> {
    let prefix = format!("{}{prefix}", keys::NAME_PREFIX);
    let after = after.map(keys::name);
    let mut backoff = Backoff::default();
    loop {
        match store.list(&prefix, after.as_ref().map(Key::as_str), limit).await {
            Ok(keys) => return Ok(keys),
            Err(error) if error.is_permanent() || patience.has_ended(seam) => return Err(error),
            Err(_) => backoff.pause(seam).await,
        }
    }
}

/// One damaged record does not hide all the others: it is named in the log, and the name is listed, since
/// it is not free.
async fn is_live(store: &dyn Store, seam: &Seam, name: &Name, patience: Patience) -> Result<bool, RecordError> {
    match read_name(store, seam, name, patience).await {
        Ok(record) => Ok(record.is_some_and(|record| matches!(record.value.state, NameState::Live { .. }))),
        Err(RecordError::Corrupt(corrupt)) => {
            warn!(%corrupt, "a listed name has a damaged record");
            Ok(true)
        }
        Err(error) => Err(error),
    }
}
