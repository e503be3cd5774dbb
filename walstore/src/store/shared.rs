//! A shared store is a store: wrappers take `Arc<dyn Store>` as well as an implementation.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Condition, Key, Object, Put, Store, StoreError};

#[async_trait]
impl<S: Store + ?Sized> Store for Arc<S> {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        (**self).get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Object>, StoreError> {
        (**self).get_range(key, range).await
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: &Condition) -> Result<Put, StoreError> {
        (**self).put(key, bytes, condition).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        (**self).delete(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        (**self).list(prefix, after, limit).await
    }

    fn date_micros(&self) -> Option<u64> {
        (**self).date_micros()
    }

    fn describe(&self) -> String {
        (**self).describe()
    }
}
