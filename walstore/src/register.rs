//! Compare-and-swap on small records: the one place where an ambiguous CAS is resolved.
//!
//! Every record carries the put id of the write that made it. A CAS whose answer was lost is sent again
//! with the same bytes and the same condition until the store answers: if the first try had landed, the
//! second is refused, and the re-read record carries our own put id.

use std::time::Duration;

use bytes::Bytes;

use crate::envelope::Corrupt;
use crate::id::PutId;
use crate::seam::Seam;
use crate::store::{Condition, ETag, Key, Put, Store, StoreError, StoreErrorKind};

/// A record that is replaced as a whole.
pub trait Record: Sized {
    fn encode(&self) -> Bytes;
    fn decode(object: &Bytes) -> Result<Self, Corrupt>;
    /// Of the write that produced this value: fresh for every write.
    fn put_id(&self) -> PutId;
    /// Whether this is the record that belongs at `key`, and not another one in its place.
    fn check_place(&self, _key: &Key) -> Result<(), Corrupt> {
        Ok(())
    }
}

/// A record as read or written, with the version to swap against.
#[derive(Clone, Debug)]
pub struct Versioned<T> {
    pub value: T,
    pub etag: ETag,
}

/// How a swap ended.
#[derive(Debug)]
pub enum Swap<T> {
    Won(Versioned<T>),
    /// Somebody else's record is there (or none at all). Our write will not take place any more; if its answer was
    /// lost, it may have taken place and been replaced since.
    Lost(Option<Versioned<T>>),
}

impl<T> Swap<T> {
    /// What is there now, whoever wrote it.
    pub fn found(self) -> Option<Versioned<T>> {
        match self {
            Self::Won(won) => Some(won),
            Self::Lost(found) => found,
        }
    }
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum RecordError {
    /// Never of the kind [`Corrupt`](StoreErrorKind::Corrupt).
    #[error(transparent)]
    Store(StoreError),
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

impl From<StoreError> for RecordError {
    /// Damage is the same whether the store notices it or whoever decodes what it gave.
    fn from(error: StoreError) -> Self {
        match error.kind {
            StoreErrorKind::Corrupt => Self::Corrupt(Corrupt::new(error.message).at(error.key)),
            _ => Self::Store(error),
        }
    }
}

/// How long a record operation keeps asking an unwilling store.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    deadline_boot_micros: u64,
}

impl Patience {
    pub fn for_duration(seam: &Seam, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self { deadline_boot_micros: seam.boot_micros().saturating_add(micros) }
    }

    pub fn endless() -> Self {
        Self { deadline_boot_micros: u64::MAX }
    }

    pub fn has_ended(self, seam: &Seam) -> bool {
        seam.boot_micros() >= self.deadline_boot_micros
    }
}

/// Exponential pauses between tries: 20 ms doubling to 1 s, each with up to half of it at random, so that
/// many waiters do not return at once.
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: Duration::from_millis(20) }
    }
}

impl Backoff {
    pub async fn pause(&mut self, seam: &Seam) {
        let half = self.next / 2;
        let jitter = seam.random_u64() % u64::try_from(half.as_micros()).unwrap_or(1).max(1);
        seam.sleep(half + Duration::from_micros(jitter)).await;
        self.next = (self.next * 2).min(Duration::from_secs(1));
    }
}

/// Reads a record, waiting out what passes.
pub async fn read<T: Record>(
    store: &dyn Store,
    seam: &Seam,
    key: &Key,
    patience: Patience,
) -> Result<Option<Versioned<T>>, RecordError> {
    match get(store, seam, key, patience).await? {
        None => Ok(None),
        Some((bytes, etag)) => {
            let checked = T::decode(&bytes).and_then(|value| value.check_place(key).map(|()| value));
            let value = checked.map_err(|corrupt| corrupt.at(key))?;
            Ok(Some(Versioned { value, etag }))
        }
    }
}

/// Writes an object under a key that nothing else is written to, so that sending it again is harmless, waiting out what
/// passes.
pub async fn put(
    store: &dyn Store,
    seam: &Seam,
    key: &Key,
    object: Bytes,
    patience: Patience,
) -> Result<(), StoreError> {
    let mut backoff = Backoff::default();
    loop {
        match store.put(key, object.clone(), &Condition::None).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_permanent() || patience.has_ended(seam) => return Err(error),
            Err(_) => backoff.pause(seam).await,
        }
    }
}

/// Deletes an object, waiting out what passes.
pub async fn delete(store: &dyn Store, seam: &Seam, key: &Key, patience: Patience) -> Result<(), StoreError> {
    let mut backoff = Backoff::default();
    loop {
        match store.delete(key).await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_permanent() || patience.has_ended(seam) => return Err(error),
            Err(_) => backoff.pause(seam).await,
        }
    }
}

/// Reads an object whole, waiting out what passes.
pub async fn get(
    store: &dyn Store,
    seam: &Seam,
    key: &Key,
    patience: Patience,
) -> Result<Option<(Bytes, ETag)>, StoreError> {
    let mut backoff = Backoff::default();
    loop {
        match store.get(key).await {
            Ok(object) => return Ok(object.map(|object| (object.bytes, object.etag))),
            Err(error) if error.is_permanent() || patience.has_ended(seam) => return Err(error),
            Err(_) => backoff.pause(seam).await,
        }
    }
}

/// The first keys under a prefix, at most [`LIST_MAX`](crate::store::limits::LIST_MAX), waiting out what passes.
pub async fn list(
    store: &dyn Store,
    seam: &Seam,
    prefix: &str,
    limit: usize,
    patience: Patience,
) -> Result<Vec<Key>, StoreError> {
    let mut backoff = Backoff::default();
    loop {
        match store.list(prefix, None, limit).await {
            Ok(keys) => return Ok(keys),
            Err(error) if error.is_permanent() || patience.has_ended(seam) => return Err(error),
            Err(_) => backoff.pause(seam).await,
        }
    }
}

/// Creates a record where none is, or loses to the one that is there.
pub async fn create<T: Record>(
    store: &dyn Store,
    seam: &Seam,
    key: &Key,
    value: T,
    patience: Patience,
) -> Result<Swap<T>, RecordError> {
    swap(store, seam, key, value, Condition::Absent, patience).await
}

/// Replaces the version `etag`, or loses to whatever is there instead.
pub async fn replace<T: Record>(
    store: &dyn Store,
    seam: &Seam,
    key: &Key,
    etag: &ETag,
    value: T,
    patience: Patience,
) -> Result<Swap<T>, RecordError> {
    swap(store, seam, key, value, Condition::Match(etag.clone()), patience).await
}

async fn swap<T: Record>(
    store: &dyn Store,
    seam: &Seam,
    key: &Key,
    value: T,
    condition: Condition,
    patience: Patience,
) -> Result<Swap<T>, RecordError> {
    let bytes = value.encode();
    let mut backoff = Backoff::default();
    let mut is_unknown = false;
    // A later refusal of the store proves nothing about what was sent before.
    let failed = |error: StoreError, is_unknown: bool| match is_unknown {
        true => StoreError { kind: StoreErrorKind::Indefinite, ..error },
        false => error,
    };
    loop {
        match store.put(key, bytes.clone(), &condition).await {
            Ok(Put::Done(etag)) => return Ok(Swap::Won(Versioned { value, etag })),
            Ok(Put::Refused) => {
                let found = read::<T>(store, seam, key, patience).await.map_err(|error| match error {
                    RecordError::Store(error) => failed(error, is_unknown).into(),
                    error => error,
                })?;
                return Ok(match found {
                    Some(found) if found.value.put_id() == value.put_id() => Swap::Won(found),
                    found => Swap::Lost(found),
                });
            }
            Err(error) if error.is_permanent() || patience.has_ended(seam) => return Err(failed(error, is_unknown).into()),
            Err(error) => {
                is_unknown |= error.kind == StoreErrorKind::Indefinite;
                backoff.pause(seam).await;
            }
        }
    }
}
