//! Reading what the page path needs, checked: from the disk cache, or else out of the bucket and into it.
//!
//! An object that a head or a map names and that is not there is corruption that names the object
//! (invariant I10), never zeros.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use segments::disk::{CacheKey, DiskCache};
use segments::keys::{self, Object};
use segments::map::{DeltaRef, MapChunkRef};
use segments::pack::{Frame, FrameAt, FrameIndex};
use walstore::envelope::Corrupt;
use walstore::register::{Backoff, Patience, RecordError};
use walstore::seam::Seam;
use walstore::store::{Key, Store, StoreErrorKind};

use crate::limits;

/// Reads one frame of a pack.
pub async fn frame(store: &dyn Store, seam: &Seam, disk: &DiskCache, at: &FrameAt) -> Result<Frame, RecordError> {
    checked(store, seam, disk, CacheKey::frame(at), |stored| Frame::decode(stored, &at.frame)).await
}

/// Reads the index of a delta.
pub async fn index(
    store: &dyn Store,
    seam: &Seam,
    disk: &DiskCache,
    delta: &DeltaRef,
) -> Result<Arc<FrameIndex>, RecordError> {
    checked(store, seam, disk, CacheKey::index(delta), |stored| delta.decode_index(stored)).await.map(Arc::new)
}

/// Reads a chunk of a page map, whole. [`segments::map::PageMap::with_chunk`] decodes it.
pub async fn chunk(
    store: &dyn Store,
    seam: &Seam,
    disk: &DiskCache,
    chunk: &MapChunkRef,
) -> Result<Bytes, RecordError> {
    let key = CacheKey::chunk(chunk);
    let whole = |stored: &Bytes| match key.fits(stored) {
        true => Ok(stored.clone()),
        false => Err(Corrupt::new("not the page map chunk that the head refers to")),
    };
    checked(store, seam, disk, key, whole).await
}

/// What the disk has is only a copy: if it can't be decoded after all, the bucket has the last word.
async fn checked<T>(
    store: &dyn Store,
    seam: &Seam,
    disk: &DiskCache,
    cached: CacheKey,
    decode: impl Fn(&Bytes) -> Result<T, Corrupt>,
) -> Result<T, RecordError> {
    if let Some(stored) = disk.get(&cached).await
        && let Ok(decoded) = decode(&stored)
    {
        return Ok(decoded);
    }
    let key = match &cached.object {
        Object::Pack(id) => keys::pack(id),
        Object::MapChunk(id) => keys::page_map(id),
    };
    let start = u64::from(cached.offset);
    let stored = range(store, seam, &key, start..start + u64::from(cached.bytes)).await?;
    let decoded = decode(&stored).map_err(|corrupt| corrupt.at(&key))?;
    disk.put(&cached, &stored);
    Ok(decoded)
}

async fn range(store: &dyn Store, seam: &Seam, key: &Key, range: Range<u64>) -> Result<Bytes, RecordError> {
    let patience = Patience::for_duration(seam, limits::FETCH_PATIENCE);
    let mut backoff = Backoff::default();
    loop {
        match store.get_range(key, range.clone()).await {
            Ok(Some(object)) => return Ok(object.bytes),
            Ok(None) => return Err(Corrupt::new("referenced, but not in the bucket").at(key).into()),
            // The object is there and shorter than what refers to it says.
            Err(error) if error.kind == StoreErrorKind::Invalid => return Err(Corrupt::new(error.message).at(key).into()),
            Err(error) if error.is_permanent() || patience.has_ended(seam) => return Err(error.into()),
            Err(_) => backoff.pause(seam).await,
        }
    }
}
