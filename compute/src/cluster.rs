//! What a bucket must be before a node serves from it: of a format that this build knows, and with a store
//! behind it that keeps its promises.
//!
//! `meta/cluster` is written once, if absent: cluster id (16 bytes) and format version (`u32`).
//! `meta/probed` records for which kind of store the full conformance probe has passed (its text form), so
//! that later starts need not run it again. Damage of it costs another probe.
//!
//! A bucket without the former is new only if no node has left a record there either.

use std::time::Duration;

use bytes::Bytes;
use tracing::{info, warn};
use walstore::envelope::{self, Corrupt, Kind, Reader, Writer};
use walstore::keys;
use walstore::register::{self, Patience, RecordError};
use walstore::seam::Seam;
use walstore::store::probe::{self, ProbeError};
use walstore::store::{Condition, Key, Store, StoreError};

/// The layout of keys and objects. A bucket with another version is refused.
pub const FORMAT_VERSION: u32 = 3;
const OBJECT_VERSION: u8 = 1;
const BODY_BYTES_MAX: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error(transparent)]
    Store(StoreError),
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error(
        "the bucket has objects of Shoal's ({found}), but not `{}`, which says in what format they are: it was deleted. \
         Nothing was changed. Bring it back from an earlier version or a copy of the bucket; if there is none, start this \
         build of Shoal once on an empty bucket, and copy the object from there",
        keys::cluster()
    )]
    NoRecord { found: Key },
    #[error("the bucket has format version {found}; this build of Shoal reads and writes version {FORMAT_VERSION}")]
    Format { found: u32 },
}

impl From<StoreError> for PrepareError {
    fn from(error: StoreError) -> Self {
        match RecordError::from(error) {
            RecordError::Store(error) => Self::Store(error),
            RecordError::Corrupt(corrupt) => Self::Corrupt(corrupt),
        }
    }
}

/// Checks format and store, creating what a new bucket lacks.
pub async fn prepare(store: &dyn Store, seam: &Seam) -> Result<(), PrepareError> {
    let patience = Patience::for_duration(seam, PATIENCE);
    let is_new = is_new(store, seam, patience).await?;
    let subject = probe::subject(store, FORMAT_VERSION);
    if !is_recorded(store, seam, &subject, patience).await? {
        info!("probing whether the store keeps its promises; this happens once for a bucket");
        probe::probe(store, seam).await?;
        let record = envelope::seal(Kind::Cluster, OBJECT_VERSION, subject.as_bytes());
        store.put(&keys::probed(), record, &Condition::None).await?;
    }
    if is_new {
        let mut body = Writer::new();
        body.raw(&seam.random_id());
        body.u32(FORMAT_VERSION);
        let object = envelope::seal(Kind::Cluster, OBJECT_VERSION, &body.finish());
        // Losing to another node that starts at the same time is fine: it writes the same version.
        store.put(&keys::cluster(), object, &Condition::Absent).await?;
        found_format(store, seam, patience).await?;
    }
    Ok(())
}

/// Refuses a bucket of a format that this build does not know. Damage of the record is not its matter.
pub async fn refuse_other_format(store: &dyn Store, seam: &Seam) -> Result<(), PrepareError> {
    let patience = Patience::for_duration(seam, PATIENCE);
    match found_format(store, seam, patience).await {
        Err(PrepareError::Corrupt(_)) => Ok(()),
        found => found.map(drop),
    }
}

/// Whether no node has ever been here. Each writes a record of itself, which stays, after the one of the bucket is
/// there: who finds the former has to find the latter, if not at the first look.
async fn is_new(store: &dyn Store, seam: &Seam, patience: Patience) -> Result<bool, PrepareError> {
    if found_format(store, seam, patience).await? {
        return Ok(false);
    }
    let nodes = register::list(store, seam, keys::INCARNATION_PREFIX, 1, patience).await?;
    match nodes.into_iter().next() {
        Some(found) if !found_format(store, seam, patience).await? => Err(PrepareError::NoRecord { found }),
        found => Ok(found.is_none()),
    }
}

/// Whether the bucket says what format it has; an error if it is another one.
async fn found_format(store: &dyn Store, seam: &Seam, patience: Patience) -> Result<bool, PrepareError> {
    let found = register::get(store, seam, &keys::cluster(), patience).await?;
    found.map_or(Ok(false), |(object, _)| check_format(&object).map(|()| true))
}

fn check_format(object: &Bytes) -> Result<(), PrepareError> {
    let body = envelope::open_as(object, Kind::Cluster, OBJECT_VERSION, BODY_BYTES_MAX);
    let body = body.map_err(|corrupt| corrupt.at(keys::cluster()))?;
    let mut reader = Reader::new(&body);
    let read = reader.raw(16).and_then(|_| reader.u32());
    let found = read.map_err(|corrupt| corrupt.at(keys::cluster()))?;
    if found == FORMAT_VERSION { Ok(()) } else { Err(PrepareError::Format { found }) }
}

/// Whether the probe has passed. A damaged record says nothing about that, and is written anew.
async fn is_recorded(store: &dyn Store, seam: &Seam, subject: &str, patience: Patience) -> Result<bool, StoreError> {
    let damaged = |corrupt: Corrupt| {
        let corrupt = corrupt.at(keys::probed());
        warn!(%corrupt, "the record of the store's probe is damaged; probing again");
        false
    };
    match register::get(store, seam, &keys::probed(), patience).await.map_err(RecordError::from) {
        Ok(None) => Ok(false),
        Ok(Some((object, _))) => {
            let body = envelope::open_as(&object, Kind::Cluster, OBJECT_VERSION, BODY_BYTES_MAX);
            Ok(body.map_or_else(damaged, |body| body == subject.as_bytes()))
        }
        Err(RecordError::Corrupt(corrupt)) => Ok(damaged(corrupt)),
        Err(RecordError::Store(error)) => Err(error),
    }
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
