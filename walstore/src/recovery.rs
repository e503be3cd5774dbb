//! Reading what a sealed log left, of one database or of all.
//!
//! ```text
//!  record ──low..end──▶ fragments, all of them, 128 at once       (before it was bundled)
//!     └────bundles───▶ index of each ─▶ one block of each          (after)
//!                                          └─▶ side objects of the large commits of this database
//! ```
//!
//! Bundling and draining go on under a reader. An object that is gone is corruption that names it, unless the
//! record has changed since it was read: then the reader begins again ([`SealError::Stale`]).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::bundle::{self, BlockRef, BundleRef, Section};
use crate::envelope::Corrupt;
use crate::fragment::{self, Fragment, SlotObject};
use crate::id::{DatabaseId, IncarnationId, Lsn, Slot};
use crate::incarnation::{IncarnationRecord, State};
use crate::keys;
use crate::life::Stores;
use crate::limits;
use crate::mutant::{self, Mutant};
use crate::register::{self, Backoff, Patience, RecordError};
use crate::run::{Content, Run};
use crate::seal::{self, SealError, Sealed};
use crate::seam::Seam;
use crate::side::{self, SideId};
use crate::store::{Key, Store};

/// One commit of a sealed log, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedCommit {
    pub epoch: u64,
    pub lsn: Lsn,
    pub bytes: Bytes,
}

/// Where a sealed log is read, and for how long the store is asked.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    pub stores: &'a Stores,
    pub seam: &'a Seam,
    pub patience: Patience,
}

/// A bundle with its index.
struct OpenBundle {
    reference: BundleRef,
    blocks: Vec<BlockRef>,
}

/// A block of one of the log's bundles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockAt {
    bundle: usize,
    block: usize,
}

/// A sealed log, as it was when its record was read.
pub struct SealedLog {
    id: IncarnationId,
    sealed: Sealed,
    bundles: Vec<OpenBundle>,
    /// Of the slots that are not bundled.
    runs: BTreeMap<DatabaseId, Vec<Run>>,
    held: Mutex<VecDeque<(BlockAt, Arc<Vec<Run>>)>>,
}

impl SealedLog {
    /// Reads the log of `id`, which some head names. It is sealed first if it is not yet: fragments whole, of bundles the indexes.
    pub async fn open(access: Access<'_>, id: IncarnationId) -> Result<Self, SealError> {
        Self::open_known(access, id, None).await
    }

    /// Like [`open`](Self::open), and saves a look at the record if `known` is what it said when it was read last.
    pub async fn open_known(
        access: Access<'_>,
        id: IncarnationId,
        mut known: Option<Sealed>,
    ) -> Result<Self, SealError> {
        let mut rounds = 0;
        loop {
            rounds += 1;
            let sealed = match known.take() {
                Some(sealed) => sealed,
                None => seal::seal_named(access.stores, access.seam, id, access.patience).await?,
            };
            match Self::open_sealed(access, id, sealed).await {
                Err(SealError::Stale(_)) if rounds < limits::RECOVERY_ROUNDS_MAX => {}
                result => return result,
            }
        }
    }

    async fn open_sealed(access: Access<'_>, id: IncarnationId, sealed: Sealed) -> Result<Self, SealError> {
        let indexes = stream::iter(sealed.bundles.clone()).map(|reference| async move {
            let bytes = read_section(access, id, &reference, &reference.index, sealed.version).await?;
            let blocks = reference.decode_index(&bytes).map_err(|corrupt| corrupt.at(reference.key(id)))?;
            Ok::<_, SealError>(OpenBundle { reference, blocks })
        });
        let bundles = indexes.buffered(limits::RECOVERY_GETS_MAX).try_collect().await?;
        let mut runs: BTreeMap<DatabaseId, Vec<Run>> = BTreeMap::new();
        let mut fragments = std::pin::pin!(fragments(access, id, &sealed));
        while let Some(fragment) = fragments.try_next().await? {
            for run in fragment.runs {
                runs.entry(run.database).or_default().push(run);
            }
        }
        Ok(Self { id, sealed: sealed.clone(), bundles, runs, held: Mutex::default() })
    }

    pub fn sealed(&self) -> &Sealed {
        &self.sealed
    }

    /// The commits of a database after `after`, whole, in the order of the log. Those before are not even looked at:
    /// they are folded, and may be large.
    pub async fn commits(
        &self,
        access: Access<'_>,
        database: DatabaseId,
        after: Option<Lsn>,
    ) -> Result<Vec<LoggedCommit>, SealError> {
        let mut runs = Vec::new();
        for (number, bundle) in self.bundles.iter().enumerate() {
            let Some(block) = bundle::block_of(&bundle.blocks, database) else { continue };
            let of_block = self.block(access, BlockAt { bundle: number, block }).await?;
            runs.extend(of_block.iter().filter(|run| run.database == database).cloned());
        }
        runs.extend(self.runs.get(&database).into_iter().flatten().cloned());
        let mut commits = Vec::new();
        for run in &runs {
            let later = run.commits().filter(|(lsn, _)| Some(*lsn) > after);
            commits.extend(later.map(|(lsn, content)| (run.epoch, lsn, content.clone())));
        }
        let reads = stream::iter(commits).map(|(epoch, lsn, content)| async move {
            let id = SideId { incarnation: self.id, database, epoch, lsn };
            match read_content(access, id, &content).await? {
                Ok(bytes) => Ok(LoggedCommit { epoch, lsn, bytes }),
                Err(missing) => Err(gone(access, self.id, self.sealed.version, missing).await),
            }
        });
        // A few at once: each may be as large as a commit may be.
        reads.buffered(limits::SIDE_GETS_MAX).try_collect().await
    }

    /// All blocks of all bundles.
    pub fn blocks(&self) -> Vec<BlockAt> {
        let blocks = |(bundle, open): (usize, &OpenBundle)| (0..open.blocks.len()).map(move |block| BlockAt { bundle, block });
        self.bundles.iter().enumerate().flat_map(blocks).collect()
    }

    /// The runs of one block.
    pub async fn block(&self, access: Access<'_>, at: BlockAt) -> Result<Arc<Vec<Run>>, SealError> {
        if let Some(runs) = self.held_block(at) {
            return Ok(runs);
        }
        let OpenBundle { reference, blocks } = &self.bundles[at.bundle];
        let block = &blocks[at.block];
        let bytes = read_section(access, self.id, reference, &block.section, self.sealed.version).await?;
        let runs = Arc::new(block.decode(&bytes).map_err(|corrupt| corrupt.at(reference.key(self.id)))?);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.push_back((at, runs.clone()));
        if held.len() > limits::BLOCKS_HELD_MAX {
            held.pop_front();
        }
        Ok(runs)
    }

    fn held_block(&self, at: BlockAt) -> Option<Arc<Vec<Run>>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter().find(|(other, _)| *other == at).map(|(_, runs)| runs.clone())
    }

    /// How many databases the slots that are not bundled have.
    pub fn unbundled_databases(&self) -> usize {
        self.runs.len()
    }
}

/// A commit, from wherever the log has it; or the key of the side object that is not there.
async fn read_content(access: Access<'_>, id: SideId, content: &Content) -> Result<Result<Bytes, Key>, SealError> {
    let reference = match content {
        Content::Inline(bytes) => return Ok(Ok(bytes.clone())),
        Content::Side(reference) => reference,
    };
    let read = side::read(&*access.stores.main, access.seam, id, reference, access.patience).await?;
    Ok(read.ok_or_else(|| keys::side(id.incarnation, reference.nonce)))
}

/// The commits of one (database, epoch) in these slots of a log, whose owner knows that they are there: a slot or a
/// side object that is missing is a hole, unless others have ended this log and bundled it without its owner's
/// noticing ([`SealError::Stale`]).
pub async fn read_own(
    access: Access<'_>,
    id: IncarnationId,
    slots: Vec<Slot>,
    database: DatabaseId,
    epoch: u64,
) -> Result<Vec<LoggedCommit>, SealError> {
    let reads = stream::iter(slots).map(|slot| async move {
        let key = keys::fragment(id, slot);
        let object = register::get(&*access.stores.log, access.seam, &key, access.patience).await?;
        let missing = match object {
            None => SealError::Hole(key.to_string()),
            Some((bytes, _)) => match fragment::decode(&bytes, id, slot).map_err(|corrupt| corrupt.at(&key))? {
                SlotObject::Fragment(fragment) => return Ok(fragment),
                SlotObject::Tombstone { .. } => tombstone_below_the_end(&key),
            },
        };
        Err(own_gone(access, id, key, missing).await)
    });
    let fragments: Vec<Fragment> = reads.buffered(limits::RECOVERY_GETS_MAX).try_collect().await?;
    let mut commits = Vec::new();
    let runs = fragments.iter().flat_map(|fragment| &fragment.runs);
    for run in runs.filter(|run| (run.database, run.epoch) == (database, epoch)) {
        for (lsn, content) in run.commits() {
            let bytes = match read_content(access, SideId { incarnation: id, database, epoch, lsn }, content).await? {
                Ok(bytes) => bytes,
                Err(key) => {
                    let missing = SealError::Hole(key.to_string());
                    return Err(own_gone(access, id, key, missing).await);
                }
            };
            commits.push(LoggedCommit { epoch, lsn, bytes });
        }
    }
    Ok(commits)
}

/// What a log that may still grow holds for certain.
#[derive(Debug)]
pub struct OpenRead {
    /// The first slot that was not there.
    pub next: Slot,
    pub commits: Vec<LoggedCommit>,
}

/// The commits of one (database, epoch) in a log without an end, from slot `from` on: those below the hint, and above
/// it the run without a gap. A sealer probes upward from the hint, so whatever it does, this run is part of what it
/// keeps.
///
/// Commits below `low` are not here: the caller has read the head *after* `record`, so it has them as folded. If
/// slots were deleted meanwhile, that is [`SealError::Stale`]; and so is a log that is over and in bundles, which hold
/// commits below `low` that nobody has folded.
pub async fn read_open(
    access: Access<'_>,
    id: IncarnationId,
    record: &IncarnationRecord,
    from: Slot,
    (database, epoch): (DatabaseId, u64),
) -> Result<OpenRead, SealError> {
    let stale = |slot: Slot| SealError::Stale(keys::fragment(id, slot).to_string());
    if !record.bundles.is_empty() {
        return Err(stale(from));
    }
    let mut next = from.max(record.low);
    let mut runs: Vec<Run> = Vec::new();
    let mut keep = |fragment: Fragment| {
        runs.extend(fragment.runs.into_iter().filter(|run| (run.database, run.epoch) == (database, epoch)));
    };
    let slots = |slots: std::ops::Range<u64>| stream::iter(slots.map(Slot)).map(|slot| probe_slot(access, id, slot));
    {
        let mut durable = std::pin::pin!(slots(next.0..record.hint.0).buffered(limits::RECOVERY_GETS_MAX));
        while let Some(found) = durable.try_next().await? {
            keep(found.ok_or_else(|| stale(next))?);
            next = next.next();
        }
    }
    'run: loop {
        let first = next.0;
        let mut found = std::pin::pin!(slots(first..first + limits::OPEN_PROBES).buffered(limits::RECOVERY_GETS_MAX));
        while let Some(fragment) = found.try_next().await? {
            let Some(fragment) = fragment else { break 'run };
            keep(fragment);
            next = next.next();
        }
    }
    let key = keys::incarnation(id);
    let now = register::read::<IncarnationRecord>(&*access.stores.main, access.seam, &key, access.patience).await?;
    // Slots are deleted only below a written `low`: what is not there now may have been, if that has passed it.
    if now.is_none_or(|now| now.value.low > next) {
        return Err(stale(next));
    }
    let mut commits = Vec::new();
    for run in &runs {
        for (lsn, content) in run.commits() {
            let content = read_content(access, SideId { incarnation: id, database, epoch, lsn }, content).await?;
            let bytes = content.map_err(|missing| SealError::Stale(missing.to_string()))?;
            commits.push(LoggedCommit { epoch, lsn, bytes });
        }
    }
    Ok(OpenRead { next, commits })
}

/// The fragment in a slot; `None` where nothing is, or the log's end.
async fn probe_slot(access: Access<'_>, id: IncarnationId, slot: Slot) -> Result<Option<Fragment>, SealError> {
    let key = keys::fragment(id, slot);
    let Some((bytes, _)) = register::get(&*access.stores.log, access.seam, &key, access.patience).await? else {
        return Ok(None);
    };
    match fragment::decode(&bytes, id, slot).map_err(|corrupt| corrupt.at(&key))? {
        SlotObject::Fragment(fragment) => Ok(Some(fragment)),
        SlotObject::Tombstone { .. } => Ok(None),
    }
}

/// The fragments in the slots `low..end`, in order, read many at once.
pub(crate) fn fragments<'a>(
    access: Access<'a>,
    id: IncarnationId,
    sealed: &Sealed,
) -> impl futures_util::Stream<Item = Result<Fragment, SealError>> + 'a {
    let version = sealed.version;
    let low = if mutant::is_on(Mutant::ReadBelowLow) { 0 } else { sealed.low.0 };
    let slots = stream::iter((low..sealed.end.0).map(Slot));
    slots.map(move |slot| read_slot(access, id, slot, version)).buffered(limits::RECOVERY_GETS_MAX)
}

/// A sealer that comes late to a slot whose log was bundled since finds it empty, and puts its tombstone there: for a
/// reader that is a slot that is gone, and the record says why.
async fn read_slot(access: Access<'_>, id: IncarnationId, slot: Slot, version: u64) -> Result<Fragment, SealError> {
    let key = keys::fragment(id, slot);
    let found = register::get(&*access.stores.log, access.seam, &key, access.patience).await?;
    let missing = match found {
        None => SealError::Hole(key.to_string()),
        Some((bytes, _)) => match fragment::decode(&bytes, id, slot).map_err(|corrupt| corrupt.at(&key))? {
            SlotObject::Fragment(fragment) => return Ok(fragment),
            SlotObject::Tombstone { .. } => tombstone_below_the_end(&key),
        },
    };
    Err(match gone(access, id, version, key).await {
        SealError::Record(RecordError::Corrupt(_)) => missing,
        other => other,
    })
}

/// Why an object of one's own log is not there: it is missing, unless the log is not one's own any more.
async fn own_gone(access: Access<'_>, id: IncarnationId, key: Key, missing: SealError) -> SealError {
    match register::read::<IncarnationRecord>(&*access.stores.main, access.seam, &keys::incarnation(id), access.patience).await {
        Ok(Some(found)) if found.value.state != State::Open => SealError::Stale(key.to_string()),
        Ok(_) => missing,
        Err(error) => error.into(),
    }
}

fn tombstone_below_the_end(key: &Key) -> SealError {
    Corrupt::new("a tombstone below the recorded end").at(key).into()
}

async fn read_section(
    access: Access<'_>,
    id: IncarnationId,
    reference: &BundleRef,
    section: &Section,
    version: u64,
) -> Result<Bytes, SealError> {
    let key = reference.key(id);
    let mut backoff = Backoff::default();
    loop {
        match access.stores.main.get_range(&key, section.range()).await {
            Ok(Some(object)) => return Ok(object.bytes),
            Ok(None) => return Err(gone(access, id, version, key).await),
            Err(error) if error.is_permanent() || access.patience.has_ended(access.seam) => return Err(error.into()),
            Err(_) => backoff.pause(access.seam).await,
        }
    }
}

/// Why an object that the record of `version` needs is not there.
async fn gone(access: Access<'_>, id: IncarnationId, version: u64, key: Key) -> SealError {
    let store: &dyn Store = &*access.stores.main;
    let record = keys::incarnation(id);
    match register::read::<IncarnationRecord>(store, access.seam, &record, access.patience).await {
        Ok(Some(found)) if found.value.version != version => SealError::Stale(key.to_string()),
        Ok(_) => Corrupt::new("referred to, but not in the bucket; commits are missing").at(&key).into(),
        Err(error) => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PutId;
    use crate::register::Record;
    use crate::store::{Condition, MemoryStore};

    /// Bug: a node that others had sealed without its noticing read its own log back, which was bundled by then, and
    /// called that missing commits. Damage: a client was told of corruption where trying again was right. Fix: the
    /// record is looked at first.
    #[tokio::test]
    async fn ones_own_log_that_others_have_bundled_is_stale_and_not_corrupt() {
        let (stores, seam) = (Stores::one(Arc::new(MemoryStore::new())), Seam::production());
        let id = IncarnationId::from_bytes([1; 16]);
        let access = Access { stores: &stores, seam: &seam, patience: Patience::endless() };
        let mut record = IncarnationRecord::new(id, PutId::from_bytes([2; 16]), 1, String::new());
        let read = async || read_own(access, id, vec![Slot(3)], DatabaseId::from_bytes([4; 16]), 1).await.unwrap_err();
        let put = async |record: &IncarnationRecord| {
            stores.main.put(&keys::incarnation(id), record.encode(), &Condition::None).await.unwrap()
        };
        put(&record).await;
        assert!(matches!(read().await, SealError::Hole(_)), "it is ours still, and a slot is missing");
        (record.state, record.hint, record.low) = (State::Sealed { end: Slot(5) }, Slot(5), Slot(5));
        put(&record).await;
        assert!(matches!(read().await, SealError::Stale(_)));
    }

    /// Bug: a tombstone below the end was corruption, whatever the record said meanwhile. Damage: a late sealer's, in a
    /// slot that bundling had emptied, made recovery fail for good instead of once more. Fix: it is a slot that is gone.
    #[tokio::test]
    async fn a_late_sealers_tombstone_sends_the_reader_to_the_record() {
        let (stores, seam) = (Stores::one(Arc::new(MemoryStore::new())), Seam::production());
        let (id, slot) = (IncarnationId::from_bytes([1; 16]), Slot(3));
        let put_id = PutId::from_bytes([2; 16]);
        let mut record = IncarnationRecord::new(id, put_id, 1, String::new());
        (record.state, record.hint) = (State::Sealed { end: Slot(5) }, Slot(5));
        let put = async |key: Key, object| stores.main.put(&key, object, &Condition::None).await.unwrap();
        put(keys::incarnation(id), record.encode()).await;
        put(keys::fragment(id, slot), fragment::encode_tombstone(id, slot, put_id)).await;
        let access = Access { stores: &stores, seam: &seam, patience: Patience::endless() };
        let before = read_slot(access, id, slot, record.version - 1).await.unwrap_err();
        assert!(matches!(before, SealError::Stale(_)), "{before}");
        let damaged = read_slot(access, id, slot, record.version).await.unwrap_err();
        assert!(damaged.to_string().contains("a tombstone below the recorded end"), "{damaged}");
        let missing = read_slot(access, id, Slot(4), record.version).await.unwrap_err();
        assert!(matches!(missing, SealError::Hole(_)), "{missing}");
    }
}
