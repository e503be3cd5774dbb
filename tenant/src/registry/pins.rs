//! Pins that do not fit the head: reading their chunks, and lifting pins wherever they are.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use walstore::envelope::Corrupt;
use walstore::id::{DatabaseId, PutId};
use walstore::register::{self, Patience, RecordError};
use walstore::seam::Seam;
use walstore::store::{Key, Store, StoreError};

use crate::head::{Head, Pin};
use crate::keys::{self, Written};
use crate::lifecycle;
use crate::limits;
use crate::pins::PinChunk;

/// All pins of one version of a head.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    in_head: Vec<Pin>,
    chunks: BTreeMap<Key, PinChunk>,
}

impl Pins {
    /// Every pin.
    pub fn all(&self) -> impl Iterator<Item = &Pin> {
        self.in_head.iter().chain(self.chunks.values().flat_map(|chunk| &chunk.pins))
    }
}

/// All pins of `head`: no request if they fit it.
pub async fn read_pins(store: &dyn Store, seam: &Seam, head: &Head, patience: Patience) -> Result<Pins, RecordError> {
    let reads = stream::iter(head.pin_chunks.clone()).map(|key| async move {
        let found = register::get(store, seam, &key, patience).await?;
        let (object, _) = found.ok_or_else(|| Corrupt::new("a chunk of pins is gone").at(&key))?;
        let chunk = PinChunk::decode(&object).map_err(|corrupt| corrupt.at(&key))?;
        if chunk.database != head.database {
            return Err(Corrupt::new(format!("holds pins of {}", chunk.database)).at(&key).into());
        }
        Ok::<_, RecordError>((key, chunk))
    });
    let chunks = reads.buffer_unordered(limits::LIST_GETS_MAX).try_collect().await?;
    Ok(Pins { in_head: head.pins.clone(), chunks })
}

/// The successor of `head` without the pins of `gone`, after writing the chunks that it refers to. `pins` are those of
/// `head`, `history` what the rest of them and the retention need.
pub async fn unpinned(
    store: &dyn Store,
    seam: &Seam,
    head: &Head,
    pins: &Pins,
    gone: &BTreeSet<DatabaseId>,
    history: Bytes,
    patience: Patience,
) -> Result<Head, StoreError> {
    let (mut chunks, mut fold_seq) = (BTreeMap::new(), head.fold_seq);
    for (key, chunk) in &pins.chunks {
        let rest: Vec<Pin> = chunk.pins.iter().filter(|pin| !gone.contains(&pin.child)).copied().collect();
        if rest.len() == chunk.pins.len() {
            continue;
        }
        let mut replacement = None;
        if !rest.is_empty() {
            fold_seq = head.fold_seq + 1;
            let written = Written { epoch: head.epoch, seq: fold_seq, nonce: seam.random_u64() };
            let new_key = keys::pins(head.database, written);
            let chunk = PinChunk { database: head.database, pins: rest };
            register::put(store, seam, &new_key, chunk.encode(), patience).await?;
            replacement = Some(new_key);
        }
        chunks.insert(key.clone(), replacement);
    }
    Ok(lifecycle::unpin(head, gone, &chunks, history, fold_seq, PutId::random(seam)))
}
