//! Objects that a head no longer needs: how its dead list names them, and their deletion.
//!
//! An object gets onto the list in the very CAS that unlinks it. It is deleted only after that CAS, and
//! only when no reader of this node uses an older page map; the next fold takes it off the list. A crash
//! in between leaves it on the list for the next owner.
//!
//! An entry is a kind byte (1 pack, 2 chunk of a page map) and the encoded id.

use futures_util::{StreamExt, stream};
use segments::id::{MapChunkId, PackId};
use segments::keys;
use tenant::head::PackRef;
use tracing::warn;
use walstore::envelope::{Corrupt, Reader, Writer};
use walstore::store::{Key, Store};

const PACK: u8 = 1;
const CHUNK: u8 = 2;
const DELETES_AT_ONCE: usize = 8;

pub fn dead_pack(id: &PackId) -> PackRef {
    entry(PACK, |out| id.encode(out))
}

pub fn dead_chunk(id: &MapChunkId) -> PackRef {
    entry(CHUNK, |out| id.encode(out))
}

fn entry(kind: u8, encode: impl FnOnce(&mut Writer)) -> PackRef {
    let mut out = Writer::new();
    out.u8(kind);
    encode(&mut out);
    PackRef(out.finish().into())
}

/// The object that an entry names.
pub fn key_of(dead: &PackRef) -> Result<Key, Corrupt> {
    let mut reader = Reader::new(&dead.0);
    let key = match reader.u8()? {
        PACK => keys::pack(&PackId::decode(&mut reader)?),
        CHUNK => keys::page_map(&MapChunkId::decode(&mut reader)?),
        kind => return Err(Corrupt::new(format!("unknown kind {kind} in a dead list"))),
    };
    reader.end()?;
    Ok(key)
}

/// Deletes what is on the list and answers what is gone. What could not be deleted stays listed.
pub async fn delete(store: &dyn Store, dead: Vec<PackRef>) -> Vec<PackRef> {
    let deletes = stream::iter(dead).map(|entry| async move {
        let key = match key_of(&entry) {
            Ok(key) => key,
            Err(corrupt) => {
                warn!(%corrupt, "an entry of a dead list is damaged; leaving it");
                return None;
            }
        };
        match store.delete(&key).await {
            Ok(()) => Some(entry),
            Err(error) => {
                warn!(%error, "cannot delete a dead object yet");
                None
            }
        }
    });
    deletes.buffer_unordered(DELETES_AT_ONCE).filter_map(|gone| async move { gone }).collect().await
}
