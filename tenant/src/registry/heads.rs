//! Reading and replacing heads.

use walstore::envelope::Corrupt;
use walstore::id::DatabaseId;
use walstore::mutant::{self, Mutant};
use walstore::register::{self, Patience, Record, RecordError, Swap, Versioned};
use walstore::seam::Seam;
use walstore::store::{Condition, Put, Store};

use crate::head::{Head, invariant};
use crate::keys;

#[derive(Clone, Debug, thiserror::Error)]
pub enum SwapHeadError {
    /// Nothing was sent.
    #[error("{key}: refused to write a head that breaks an invariant: {broken}")]
    Invariant { key: String, broken: String },
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Heads are never deleted: with one gone, nothing fences its database any more.
    #[error("{key}: the head is gone from the bucket")]
    Gone { key: String },
}

/// The head of `database`, if it has one.
pub async fn read_head(
    store: &dyn Store,
    seam: &Seam,
    database: DatabaseId,
    patience: Patience,
) -> Result<Option<Versioned<Head>>, RecordError> {
    let key = keys::head(database);
    let head = register::read::<Head>(store, seam, &key, patience).await?;
    match head {
        Some(head) if head.value.database != database => {
            let reason = format!("holds the head of {}", head.value.database);
            Err(Corrupt::new(reason).at(key).into())
        }
        head => Ok(head),
    }
}

/// Replaces `before` with `after`, or loses to the head that is there instead.
///
/// Who loses goes on only if the found head still has its owner and epoch, and makes a new successor from
/// what was found; else the database is no longer its own.
pub async fn swap_head(
    store: &dyn Store,
    seam: &Seam,
    before: &Versioned<Head>,
    after: Head,
    patience: Patience,
) -> Result<Swap<Head>, SwapHeadError> {
    let key = keys::head(before.value.database);
    if let Err(broken) = invariant(&before.value, &after) {
        return Err(SwapHeadError::Invariant { key: key.to_string(), broken });
    }
    match register::replace(store, seam, &key, &before.etag, after.clone(), patience).await? {
        Swap::Lost(Some(_)) if mutant::is_on(Mutant::BlindHeadRetry) => {
            match store.put(&key, after.encode(), &Condition::None).await.map_err(RecordError::from)? {
                Put::Done(etag) => Ok(Swap::Won(Versioned { value: after, etag })),
                Put::Refused => unreachable!("BUG: a write without a condition was refused"),
            }
        }
        Swap::Lost(None) => Err(SwapHeadError::Gone { key: key.to_string() }),
        swap => Ok(swap),
    }
}
