//! A log as a check reads it: object by object, so that one that is damaged hides no other.
//!
//! Of a sealed log that is every slot from `low` to the end, the tombstone there, every bundle whole, and every side
//! object. Of an open one it is what its owner may have acknowledged: every slot from `low` to the hint, and from there
//! on the run without a gap.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use tenant::head::TailEntry;
use walstore::envelope::Corrupt;
use walstore::fragment::{self, Fragment, SlotObject};
use walstore::id::{DatabaseId, IncarnationId, Lsn, Slot};
use walstore::incarnation::{IncarnationRecord, State};
use walstore::keys;
use walstore::recovery::{Access, LoggedCommit};
use walstore::register::{self, Backoff, Versioned};
use walstore::run::{Content, Run};
use walstore::side::{self, SideId};
use walstore::store::Key;

use super::walk::Walk;
use super::{VerifyError, damage_of, object_at};
use crate::limits;

/// What could be read of a log.
pub(super) struct LogView {
    pub id: IncarnationId,
    pub record: IncarnationRecord,
    /// In the log's order.
    runs: BTreeMap<DatabaseId, Vec<Run>>,
    /// Its bundles and side objects.
    pub referenced: BTreeSet<Key>,
    /// Nothing that it consists of is damaged or missing.
    pub is_whole: bool,
    weight_bytes: usize,
}

/// Damage of a log, and the slot that it was met in: once `low` has passed that, nobody needs it.
struct Trouble {
    slot: Slot,
    corrupt: Corrupt,
}

/// Logs that were read, the latest first.
#[derive(Default)]
pub(super) struct Logs(VecDeque<Arc<LogView>>);

impl Logs {
    fn get(&self, id: IncarnationId) -> Option<Arc<LogView>> {
        self.0.iter().find(|view| view.id == id).cloned()
    }

    fn keep(&mut self, view: &Arc<LogView>) {
        self.0.retain(|other| other.id != view.id);
        self.0.push_front(view.clone());
        let mut bytes = 0;
        self.0.retain(|view| {
            bytes += view.weight_bytes;
            bytes <= limits::VERIFY_LOGS_BYTES_MAX
        });
    }
}

impl Walk<'_> {
    /// The log of `id`, whose damage is told; `None` if it has no record, or one that cannot be read. `fresh`: not
    /// one that was read earlier.
    pub async fn log_view(&mut self, id: IncarnationId, fresh: bool) -> Result<Option<Arc<LogView>>, VerifyError> {
        if let Some(view) = self.logs.get(id).filter(|_| !fresh) {
            return Ok(Some(view));
        }
        for _ in 0..limits::VERIFY_ROUNDS_MAX {
            let Some(before) = self.record(id).await? else { return Ok(None) };
            let (mut view, mut troubles) = LogView::read(self.access(), id, before.value).await?;
            if !troubles.is_empty() {
                let Some(after) = self.record(id).await? else { return Ok(None) };
                if (&after.value.state, &after.value.bundles) != (&view.record.state, &view.record.bundles) {
                    continue;
                }
                troubles.retain(|trouble| trouble.slot >= after.value.low);
            }
            view.is_whole = troubles.is_empty();
            for Trouble { corrupt, .. } in troubles {
                self.damage(corrupt, None);
            }
            self.logged.extend(view.runs.keys());
            let view = Arc::new(view);
            self.logs.keep(&view);
            return Ok(Some(view));
        }
        self.summary.unsettled += 1;
        self.witness.note(keys::incarnation(id).as_str(), "its log changed under every look; not checked");
        Ok(None)
    }

    async fn record(&mut self, id: IncarnationId) -> Result<Option<Versioned<IncarnationRecord>>, VerifyError> {
        let Access { stores, seam, patience } = self.access();
        match register::read(&*stores.main, seam, &keys::incarnation(id), patience).await {
            Ok(record) => Ok(record),
            Err(error) => {
                let corrupt = damage_of(error)?;
                self.damage(corrupt, None);
                Ok(None)
            }
        }
    }
}

impl LogView {
    async fn read(
        access: Access<'_>,
        id: IncarnationId,
        record: IncarnationRecord,
    ) -> Result<(Self, Vec<Trouble>), VerifyError> {
        let mut view = Self {
            id,
            record,
            runs: BTreeMap::new(),
            referenced: BTreeSet::new(),
            is_whole: true,
            weight_bytes: 0,
        };
        let mut troubles = Vec::new();
        view.read_bundles(access, &mut troubles).await?;
        match view.record.state {
            State::Sealed { end } => {
                view.read_slots(access, view.record.low, end, &mut troubles).await?;
                view.check_end(access, end, &mut troubles).await?;
            }
            State::Open | State::Recovering => {
                let after = view.read_slots(access, view.record.low, view.record.hint, &mut troubles).await?;
                view.read_run(access, after, &mut troubles).await?;
            }
        }
        Ok((view, troubles))
    }

    async fn read_bundles(&mut self, access: Access<'_>, troubles: &mut Vec<Trouble>) -> Result<(), VerifyError> {
        for reference in self.record.bundles.clone() {
            let key = reference.key(self.id);
            self.referenced.insert(key.clone());
            // Bundles go with the record that refers to them, not with `low`.
            let slot = Slot(u64::MAX);
            let opened = object_at(&*access.stores.main, access, &key).await?.and_then(|found| match found {
                None => Err(Corrupt::new("the log's record refers to it, but it is not there")),
                Some(object) => {
                    self.weight_bytes += object.len();
                    reference.open(&object, self.id)
                }
            });
            match opened {
                Ok((_, runs)) => self.take(access, slot, runs, troubles).await?,
                Err(corrupt) => troubles.push(Trouble { slot, corrupt: corrupt.at(&key) }),
            }
        }
        Ok(())
    }

    /// The slots `from..end`, all of which must be there. Returns the one after.
    async fn read_slots(
        &mut self,
        access: Access<'_>,
        from: Slot,
        end: Slot,
        troubles: &mut Vec<Trouble>,
    ) -> Result<Slot, VerifyError> {
        let (mut next, mut missing_in_a_row) = (from, 0);
        while next < end {
            let upto = Slot(end.0.min(next.0 + limits::VERIFY_SLOTS_AT_ONCE as u64));
            for (slot, object) in read_some(access, self.id, next, upto).await? {
                missing_in_a_row = if matches!(object, Ok(None)) { missing_in_a_row + 1 } else { 0 };
                self.take_slot(access, slot, object, true, troubles).await?;
            }
            next = upto;
            // A damaged record can name more slots than there are atoms.
            if missing_in_a_row >= limits::VERIFY_SLOTS_MISSING_MAX && next < end {
                let reason = format!("names slots up to {end}, but from {next} on there is nothing for long");
                let corrupt = Corrupt::new(reason).at(keys::incarnation(self.id));
                troubles.push(Trouble { slot: next, corrupt });
                break;
            }
        }
        Ok(next)
    }

    /// From the hint of an open log on, as far as there is no gap.
    async fn read_run(
        &mut self,
        access: Access<'_>,
        from: Slot,
        troubles: &mut Vec<Trouble>,
    ) -> Result<(), VerifyError> {
        let mut next = from;
        loop {
            let upto = Slot(next.0 + limits::VERIFY_SLOTS_AT_ONCE as u64);
            for (slot, object) in read_some(access, self.id, next, upto).await? {
                if !self.take_slot(access, slot, object, false, troubles).await? {
                    return Ok(());
                }
            }
            next = upto;
        }
    }

    /// `false`: the log goes no further.
    async fn take_slot(
        &mut self,
        access: Access<'_>,
        slot: Slot,
        object: Result<Option<Bytes>, Corrupt>,
        is_needed: bool,
        troubles: &mut Vec<Trouble>,
    ) -> Result<bool, VerifyError> {
        let key = keys::fragment(self.id, slot);
        let mut trouble = |corrupt: Corrupt| troubles.push(Trouble { slot, corrupt: corrupt.at(&key) });
        let object = match object {
            Ok(Some(object)) => object,
            Ok(None) => {
                if is_needed {
                    trouble(Corrupt::new("the log needs this slot, but it is not there"));
                }
                return Ok(false);
            }
            Err(corrupt) => {
                trouble(corrupt);
                return Ok(true);
            }
        };
        match fragment::decode(&object, self.id, slot) {
            Ok(SlotObject::Fragment(Fragment { runs, .. })) => {
                self.weight_bytes += object.len();
                self.take(access, slot, runs, troubles).await?;
            }
            Ok(SlotObject::Tombstone { .. }) => {
                if is_needed {
                    trouble(Corrupt::new("a tombstone before the end of the log"));
                }
                return Ok(false);
            }
            Err(corrupt) => trouble(corrupt),
        }
        Ok(true)
    }

    /// A log that ended has a tombstone there, unless it was occupied before it began.
    async fn check_end(
        &mut self,
        access: Access<'_>,
        end: Slot,
        troubles: &mut Vec<Trouble>,
    ) -> Result<(), VerifyError> {
        let never_began = self.record.version == 1 && end == Slot::ZERO;
        let key = keys::fragment(self.id, end);
        let found = object_at(&*access.stores.log, access, &key).await?;
        let checked = found.and_then(|found| match found {
            None if never_began => Ok(()),
            None => Err(Corrupt::new("the log ended here, but its tombstone is not there")),
            Some(object) => fragment::decode(&object, self.id, end).and_then(|found| match found {
                SlotObject::Tombstone { .. } => Ok(()),
                SlotObject::Fragment(_) => Err(Corrupt::new("a fragment where the log has its end")),
            }),
        });
        if let Err(corrupt) = checked {
            troubles.push(Trouble { slot: end, corrupt: corrupt.at(key) });
        }
        Ok(())
    }

    /// Adds runs, and checks the side objects that they refer to.
    async fn take(
        &mut self,
        access: Access<'_>,
        slot: Slot,
        runs: Vec<Run>,
        troubles: &mut Vec<Trouble>,
    ) -> Result<(), VerifyError> {
        for run in runs {
            for (lsn, content) in run.commits() {
                let Content::Side(reference) = content else { continue };
                self.referenced.insert(keys::side(self.id, reference.nonce));
                let id = SideId { incarnation: self.id, database: run.database, epoch: run.epoch, lsn };
                if let Err(corrupt) = read_side(access, id, content).await? {
                    troubles.push(Trouble { slot, corrupt });
                }
            }
            self.runs.entry(run.database).or_default().push(run);
        }
        Ok(())
    }

    /// Nothing is left of it but its end.
    pub fn is_drained(&self) -> bool {
        let State::Sealed { end } = self.record.state else { return false };
        self.record.low == end && self.record.bundles.is_empty()
    }

    /// The commits of a database after `last` that belong to its history through `entry`.
    pub async fn commits(
        &self,
        access: Access<'_>,
        database: DatabaseId,
        entry: &TailEntry,
        mut last: Option<Lsn>,
    ) -> Result<Result<Vec<LoggedCommit>, Corrupt>, VerifyError> {
        let mut commits = Vec::new();
        for run in self.runs.get(&database).into_iter().flatten() {
            for (lsn, content) in run.commits() {
                if Some(lsn) <= last || !entry.holds(self.id, run.epoch, lsn) {
                    continue;
                }
                let id = SideId { incarnation: self.id, database, epoch: run.epoch, lsn };
                match read_side(access, id, content).await? {
                    Ok(bytes) => commits.push(LoggedCommit { epoch: run.epoch, lsn, bytes }),
                    Err(corrupt) => return Ok(Err(corrupt)),
                }
                last = Some(lsn);
            }
        }
        Ok(Ok(commits))
    }
}

/// A commit, wherever it is.
async fn read_side(
    access: Access<'_>,
    id: SideId,
    content: &Content,
) -> Result<Result<Bytes, Corrupt>, VerifyError> {
    let reference = match content {
        Content::Inline(bytes) => return Ok(Ok(bytes.clone())),
        Content::Side(reference) => reference,
    };
    match side::read(&*access.stores.main, access.seam, id, reference, access.patience).await {
        Ok(Some(bytes)) => Ok(Ok(bytes)),
        Ok(None) => {
            let key = keys::side(id.incarnation, reference.nonce);
            Ok(Err(Corrupt::new("the log refers to it, but it is not there").at(key)))
        }
        Err(error) => damage_of(error).map(Err),
    }
}

async fn read_some(
    access: Access<'_>,
    id: IncarnationId,
    from: Slot,
    upto: Slot,
) -> Result<Vec<(Slot, Result<Option<Bytes>, Corrupt>)>, VerifyError> {
    let reads = (from.0..upto.0).map(Slot).map(|slot| async move {
        let object = object_at(&*access.stores.log, access, &keys::fragment(id, slot)).await?;
        Ok((slot, object))
    });
    join_all(reads).await.into_iter().collect()
}

/// Waits a little, so that what changes may come to rest.
pub(super) async fn pause(walk: &Walk<'_>, backoff: &mut Backoff) {
    backoff.pause(walk.seam).await;
}
