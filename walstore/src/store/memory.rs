//! A store in memory, for tests and simulation.
//!
//! It is stricter than S3: requests that S3 would let pass, or answer depending on the day, are errors
//! here (an ETag that cannot be one, an empty range, a listing that is too long). Every request takes
//! effect at once and in the order of the calls, so equal call sequences give equal answers. Faults and
//! delays come from [`FaultyStore`](super::FaultyStore) around it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Condition, ETag, Key, Object, Put, Store, StoreError, check};

type Objects = BTreeMap<Key, (Bytes, ETag)>;

/// The objects of one bucket. Clones share them.
#[derive(Clone, Default)]
pub struct MemoryStore {
    objects: Arc<Mutex<Objects>>,
    clock: Arc<Mutex<Option<StoreClock>>>,
}

/// Tells the time that a store in memory answers, in microseconds since the Unix epoch.
pub type StoreClock = Box<dyn Fn() -> u64 + Send + Sync>;

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives it a clock, or another one: that of a simulation, or one that is wrong.
    pub fn set_clock(&self, clock: impl Fn() -> u64 + Send + Sync + 'static) {
        *self.clock.lock().expect("BUG: a panic while the clock was locked") = Some(Box::new(clock));
    }

    /// Every key, in ascending order.
    pub fn keys(&self) -> Vec<Key> {
        self.objects().keys().cloned().collect()
    }

    /// Every object as it is now.
    pub fn snapshot(&self) -> BTreeMap<Key, Bytes> {
        self.objects().iter().map(|(key, (bytes, _))| (key.clone(), bytes.clone())).collect()
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().expect("BUG: a panic while the objects were locked")
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        let objects = self.objects();
        let object = objects.get(key);
        Ok(object.map(|(bytes, etag)| Object { bytes: bytes.clone(), etag: etag.clone() }))
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Object>, StoreError> {
        check::range(key, &range)?;
        let objects = self.objects();
        let Some((bytes, etag)) = objects.get(key) else {
            return Ok(None);
        };
        let part = check::clamp(key, &range, bytes.len() as u64)?;
        let bytes = bytes.slice(part.start as usize..part.end as usize);
        Ok(Some(Object { bytes, etag: etag.clone() }))
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: &Condition) -> Result<Put, StoreError> {
        check::put(key, &bytes, condition)?;
        let etag = ETag::of_content(&bytes);
        let mut objects = self.objects();
        let present = objects.get(key).map(|(_, etag)| etag);
        let holds = match condition {
            Condition::None => true,
            Condition::Absent => present.is_none(),
            Condition::Match(expected) => present == Some(expected),
        };
        if !holds {
            return Ok(Put::Refused);
        }
        objects.insert(key.clone(), (bytes, etag.clone()));
        Ok(Put::Done(etag))
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.objects().remove(key);
        Ok(())
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        check::limit(prefix, limit)?;
        let objects = self.objects();
        let wanted = |key: &&Key| {
            key.as_str().starts_with(prefix) && after.is_none_or(|after| key.as_str() > after)
        };
        Ok(objects.keys().filter(wanted).take(limit).cloned().collect())
    }

    fn date_micros(&self) -> Option<u64> {
        self.clock.lock().expect("BUG: a panic while the clock was locked").as_ref().map(|clock| clock())
    }

    fn describe(&self) -> String {
        "memory:".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreErrorKind;

    #[tokio::test]
    async fn a_snapshot_holds_what_was_written_and_clones_share_it() {
        let store = MemoryStore::new();
        let shared = store.clone();
        let key = Key::new("a/b");
        store.put(&key, Bytes::from_static(b"x"), &Condition::Absent).await.unwrap();
        assert_eq!(shared.keys(), std::slice::from_ref(&key));
        assert_eq!(shared.snapshot(), BTreeMap::from([(key, Bytes::from_static(b"x"))]));
    }

    #[tokio::test]
    async fn an_impossible_etag_is_a_bug_and_not_a_conflict() {
        let store = MemoryStore::new();
        let condition = Condition::Match(ETag("unquoted".into()));
        let error = store.put(&Key::new("a"), Bytes::new(), &condition).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Invalid);
    }
}
