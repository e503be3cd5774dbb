//! A store in a local directory: the embedded default.
//!
//! ```text
//! <root>/objects/<key>@        the objects; the `@`, which no key has, lets `a` and `a/b` live side by side
//! <root>/tmp/<n>/              files being written by one process, which holds a lock on its directory
//! <root>/locks/<00..3f>        locks (flock) of the keys that hash to them
//! ```
//!
//! **Writing.** The bytes go to a file in `tmp/`, which is synced. *Put if absent* then makes a second link to
//! it under the object's name, which fails if the name is taken: the kernel picks the one winner. All other
//! writes and deletes hold the key's lock, so that between the comparison of an ETag and the rename nothing
//! can replace or remove the object. The answer leaves when the object's directory is synced too, and so is
//! every directory above it. Directories below `objects/` are never removed, so one that was made durable
//! stays so.
//!
//! **Reading what is not durable yet.** Until its directory is synced, a new object has a second link in
//! `tmp/`. A reader that sees two links syncs the directory itself before it answers, and so does a refused
//! writer. So nobody acts on an object that a power failure could still take back.
//!
//! **A crash** leaves files in `tmp/`. Whoever opens the store next sweeps the directories whose lock nobody
//! holds, after one sync of the file system, since objects may hang on the same files.
//!
//! **When a sync fails**, what is on the disk is unknown, and a second sync would report success. So the
//! store then refuses every further write until it is opened again.
//!
//! Network file systems are refused: on them `link` and `flock` do not hold what this needs.

mod failure;
mod object;
mod root;
mod walk;
mod write;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Condition, Key, Object, Put, Store, StoreError, StoreErrorKind, check};
use root::Root;
use crate::seam;

/// The objects of one directory. Any number of processes may have it open.
#[derive(Clone)]
pub struct DirectoryStore {
    root: Arc<Root>,
}

impl DirectoryStore {
    /// Opens the store in an existing directory: one that this store has used before, or an empty one.
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        let label = root.display().to_string();
        let root = on_disk(label, StoreErrorKind::Retry, move || Root::open(&root)).await?;
        Ok(Self { root: Arc::new(root) })
    }

    /// Opens a store that has been used before.
    pub async fn open_existing(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        let label = root.display().to_string();
        let root = on_disk(label, StoreErrorKind::Retry, move || Root::open_existing(&root)).await?;
        Ok(Self { root: Arc::new(root) })
    }

    /// Makes the directory, and those above it, if it does not exist, then opens it.
    pub async fn create(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        let label = root.display().to_string();
        let root = on_disk(label, StoreErrorKind::Retry, move || {
            Root::make(&root)?;
            Root::open(&root)
        });
        Ok(Self { root: Arc::new(root.await?) })
    }

    async fn read<T: Send + 'static>(
        &self,
        key: &Key,
        work: impl FnOnce(&Root, &Key) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (root, key) = (Arc::clone(&self.root), key.clone());
        on_disk(key.to_string(), StoreErrorKind::Retry, move || work(&root, &key)).await
    }
}

#[async_trait]
impl Store for DirectoryStore {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.read(key, |root, key| root.read(key, None)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Object>, StoreError> {
        check::range(key, &range)?;
        self.read(key, move |root, key| root.read(key, Some(range))).await
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: &Condition) -> Result<Put, StoreError> {
        check::put(key, &bytes, condition)?;
        let (root, key, condition) = (Arc::clone(&self.root), key.clone(), condition.clone());
        on_disk(key.to_string(), StoreErrorKind::Indefinite, move || {
            root.put(&key, &bytes, &condition)
        })
        .await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.read(key, |root, key| root.delete(key)).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        check::limit(prefix, limit)?;
        let root = Arc::clone(&self.root);
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        on_disk(prefix.clone(), StoreErrorKind::Retry, move || {
            root.list(&prefix, after.as_deref(), limit)
        })
        .await
    }

    fn date_micros(&self) -> Option<u64> {
        self.root.date.date_micros(seam::system_micros(), seam::boot_micros())
    }

    fn describe(&self) -> String {
        self.root.describe()
    }
}

/// Runs `work` on a thread that may block. A caller that goes away does not stop it.
async fn on_disk<T: Send + 'static>(
    label: String,
    kind_if_stopped: StoreErrorKind,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(StoreError::new(kind_if_stopped, label, "the process is stopping")),
    }
}

#[cfg(test)]
mod tests;
