//! Reading what the page path needs out of the bucket, checked.
//!
//! An object that a head or a map names and that is not there is corruption that names the object
//! (invariant I10), never zeros.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use segments::keys;
use segments::map::{DeltaRef, MapChunkRef};
use segments::pack::{Frame, FrameAt, FrameIndex};
use walstore::envelope::Corrupt;
use walstore::register::{Backoff, Patience, RecordError};
use walstore::seam::Seam;
use walstore::store::{Key, Store, StoreErrorKind};

use crate::limits;

/// Reads one frame of a pack.
pub async fn frame(store: &dyn Store, seam: &Seam, at: &FrameAt) -> Result<Frame, RecordError> {
    let key = keys::pack(&at.pack);
    let stored = range(store, seam, &key, at.frame.range()).await?;
    Ok(Frame::decode(&stored, &at.frame).map_err(|corrupt| corrupt.at(&key))?)
}

/// Reads the index of a delta.
pub async fn index(store: &dyn Store, seam: &Seam, delta: &DeltaRef) -> Result<Arc<FrameIndex>, RecordError> {
    let key = keys::pack(&delta.pack);
    let stored = range(store, seam, &key, delta.index.range()).await?;
    Ok(Arc::new(delta.decode_index(&stored).map_err(|corrupt| corrupt.at(&key))?))
}

/// Reads a chunk of a page map, whole. [`segments::map::PageMap::with_chunk`] checks it.
pub async fn chunk(store: &dyn Store, seam: &Seam, chunk: &MapChunkRef) -> Result<Bytes, RecordError> {
    let key = keys::page_map(&chunk.id);
    range(store, seam, &key, 0..u64::from(chunk.bytes)).await
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
