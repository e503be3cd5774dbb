//! Walking the keys of the bucket, page by page.
//!
//! LIST is never on a hot path: only sweeps, scrubs and `shoal verify` walk everything.

use std::collections::VecDeque;
use std::time::Duration;

use tenant::keys;
use walstore::id::DatabaseId;
use walstore::register::{Backoff, Patience};
use walstore::seam::Seam;
use walstore::store::limits::LIST_MAX;
use walstore::store::{Key, Store, StoreError};

use crate::limits;

/// The keys under a prefix, in ascending order, a page of them in memory.
pub struct Listing<'a> {
    store: &'a dyn Store,
    seam: &'a Seam,
    prefix: &'a str,
    /// Before each page but the first: what bounds the rate of a walk.
    pause: Duration,
    page: VecDeque<Key>,
    last: Option<Key>,
    is_at_end: bool,
}

/// What lies where one database's objects do.
#[derive(Debug, PartialEq, Eq)]
pub enum Group {
    Database(DatabaseId, Vec<Key>),
    /// No database has such a key.
    Stray(Key),
}

impl<'a> Listing<'a> {
    pub fn new(store: &'a dyn Store, seam: &'a Seam, prefix: &'a str) -> Self {
        let pause = Duration::ZERO;
        Self { store, seam, prefix, pause, page: VecDeque::new(), last: None, is_at_end: false }
    }

    pub fn with_pause(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// Only of keys that follow this one.
    pub fn after(self, key: Key) -> Self {
        Self { last: Some(key), ..self }
    }

    pub async fn next(&mut self) -> Result<Option<Key>, StoreError> {
        self.fill().await?;
        Ok(self.page.pop_front())
    }

    async fn peek(&mut self) -> Result<Option<&Key>, StoreError> {
        self.fill().await?;
        Ok(self.page.front())
    }

    async fn fill(&mut self) -> Result<(), StoreError> {
        if !self.page.is_empty() || self.is_at_end {
            return Ok(());
        }
        if self.last.is_some() && !self.pause.is_zero() {
            self.seam.sleep(self.pause).await;
        }
        let patience = Patience::for_duration(self.seam, limits::WALK_PATIENCE);
        let mut backoff = Backoff::default();
        let keys = loop {
            match self.store.list(self.prefix, self.last.as_ref().map(Key::as_str), LIST_MAX).await {
                Ok(keys) => break keys,
                Err(error) if error.is_permanent() || patience.has_ended(self.seam) => return Err(error),
                Err(_) => backoff.pause(self.seam).await,
            }
        };
        self.is_at_end = keys.len() < LIST_MAX;
        if let Some(last) = keys.last() {
            self.last = Some(last.clone());
        }
        self.page = keys.into();
        Ok(())
    }

    /// All keys of the next database; only for a listing of [`keys::DATABASES_PREFIX`] or of something in it.
    pub async fn next_group(&mut self) -> Result<Option<Group>, StoreError> {
        let Some(first) = self.next().await? else { return Ok(None) };
        let Some(database) = keys::parse_database(&first) else { return Ok(Some(Group::Stray(first))) };
        let mut group = vec![first];
        while let Some(key) = self.peek().await?.filter(|key| keys::parse_database(key) == Some(database)) {
            group.push(key.clone());
            self.page.pop_front();
        }
        Ok(Some(Group::Database(database, group)))
    }
}
