//! What a bucket must be before a node serves from it: of a format that this build knows, and with a store
//! behind it that keeps its promises.
//!
//! `meta/cluster` is written once, if absent: cluster id (16 bytes) and format version (`u32`).
//! `meta/probed` records for which kind of store the full conformance probe has passed (its text form), so
//! that later starts need not run it again.

use std::time::Duration;

use bytes::Bytes;
use tracing::info;
use walstore::envelope::{self, Corrupt, Kind, Reader, Writer};
use walstore::keys;
use walstore::register::{self, Patience};
use walstore::seam::Seam;
use walstore::store::probe::{self, ProbeError};
use walstore::store::{Condition, Store, StoreError};

/// The layout of keys and objects. A bucket with another version is refused.
pub const FORMAT_VERSION: u32 = 3;
const OBJECT_VERSION: u8 = 1;
const BODY_BYTES_MAX: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error("the bucket has format version {found}; this build of Shoal reads and writes version {FORMAT_VERSION}")]
    Format { found: u32 },
}

/// Checks format and store, creating what a new bucket lacks.
pub async fn prepare(store: &dyn Store, seam: &Seam) -> Result<(), PrepareError> {
    let patience = Patience::for_duration(seam, PATIENCE);
    let found = register::get(store, seam, &keys::cluster(), patience).await?;
    if let Some((object, _)) = &found {
        check_format(object)?;
    }
    let subject = probe::subject(store, FORMAT_VERSION);
    if !is_recorded(store, seam, &subject, patience).await? {
        info!("probing whether the store keeps its promises; this happens once for a bucket");
        probe::probe(store, seam).await?;
        let record = envelope::seal(Kind::Cluster, OBJECT_VERSION, subject.as_bytes());
        store.put(&keys::probed(), record, &Condition::None).await?;
    }
    if found.is_none() {
        let mut body = Writer::new();
        body.raw(&seam.random_id());
        body.u32(FORMAT_VERSION);
        let object = envelope::seal(Kind::Cluster, OBJECT_VERSION, &body.finish());
        // Losing to another node that starts at the same time is fine: it writes the same version.
        store.put(&keys::cluster(), object, &Condition::Absent).await?;
        let object = register::get(store, seam, &keys::cluster(), patience).await?;
        object.map(|(object, _)| check_format(&object)).transpose()?;
    }
    Ok(())
}

/// Refuses a bucket of a format that this build does not know. Damage of the record is not its matter.
pub async fn refuse_other_format(store: &dyn Store, seam: &Seam) -> Result<(), PrepareError> {
    let patience = Patience::for_duration(seam, PATIENCE);
    let found = register::get(store, seam, &keys::cluster(), patience).await?;
    match found.map(|(object, _)| check_format(&object)) {
        Some(Err(error @ PrepareError::Format { .. })) => Err(error),
        _ => Ok(()),
    }
}

fn check_format(object: &Bytes) -> Result<(), PrepareError> {
    let body = envelope::open_as(object, Kind::Cluster, OBJECT_VERSION, BODY_BYTES_MAX);
    let body = body.map_err(|corrupt| corrupt.at(keys::cluster()))?;
    let mut reader = Reader::new(&body);
    let read = reader.raw(16).and_then(|_| reader.u32());
    let found = read.map_err(|corrupt| corrupt.at(keys::cluster()))?;
    if found == FORMAT_VERSION { Ok(()) } else { Err(PrepareError::Format { found }) }
}

async fn is_recorded(store: &dyn Store, seam: &Seam, subject: &str, patience: Patience) -> Result<bool, PrepareError> {
    let Some((object, _)) = register::get(store, seam, &keys::probed(), patience).await? else { return Ok(false) };
    let body = envelope::open_as(&object, Kind::Cluster, OBJECT_VERSION, BODY_BYTES_MAX);
    let body = body.map_err(|corrupt| corrupt.at(keys::probed()))?;
    Ok(body == subject.as_bytes())
}
