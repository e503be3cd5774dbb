//! What a node began to make under a name and will never finish.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use walstore::id::DatabaseId;

use super::create::CreateError;

/// Forks and imports of this node of which the store did not say whether their name was claimed, or given back. A name
/// may lead to them from any moment on; nothing else of them will ever be sent.
#[derive(Debug, Default)]
pub struct GivenUp(Mutex<BTreeSet<DatabaseId>>);

impl GivenUp {
    /// Notes it, if by this error its name may yet come to lead to it.
    pub fn add_if_unknown(&self, database: DatabaseId, error: &CreateError) {
        if matches!(error, CreateError::Record { .. }) {
            self.add(database);
        }
    }

    pub fn add(&self, database: DatabaseId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(database);
    }

    pub fn has(&self, database: DatabaseId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&database)
    }
}
