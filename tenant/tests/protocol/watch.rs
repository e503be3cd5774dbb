//! What is checked with every single change of the bucket, and with every acknowledgement.

mod bundles;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use tenant::head::{Head, HeadState, MapField};
use tenant::record::{NameRecord, NameState};
use walstore::run::Content;
use walstore::fragment::{self, Fragment, SlotObject};
use walstore::id::{DatabaseId, IncarnationId, Lsn, PutId, Slot};
use walstore::incarnation::{IncarnationRecord, State};
use walstore::log::Acknowledged;
use walstore::register::Record;
use walstore::store::{Condition, Key, MemoryStore, Object, Put, Store, StoreError, key_class};

use crate::ledger::{Entry, Ledger};
use crate::node::Node;
use crate::toy;

/// One incarnation as the bucket shows it.
#[derive(Default)]
struct Logged {
    record: Option<IncarnationRecord>,
    /// Slots that hold data now, or did before they were deleted.
    data: BTreeSet<u64>,
    tombstones: BTreeSet<u64>,
    /// Those in slots from `low` on.
    commits: Vec<Stored>,
    /// Those that only bundles have.
    bundled: Vec<Stored>,
    /// Slots that bundles have taken the place of, and that are not deleted yet.
    replaced: BTreeSet<u64>,
    /// Slots below have been found to be data.
    verified: u64,
    /// The highest slot that was acknowledged, and one more.
    acknowledged: u64,
}

/// A commit in a slot.
#[derive(Clone)]
struct Stored {
    slot: Slot,
    database: DatabaseId,
    epoch: u64,
    lsn: Lsn,
    bytes: Bytes,
}

/// Everything that is known of one world, and the first thing that was wrong with it.
#[derive(Default)]
pub struct Known {
    pub ledger: Ledger,
    pub broken: Option<String>,
    /// Acquires that took a database from a dead owner.
    pub takeovers: u64,
    pub changes: u64,
    pub heads: BTreeMap<DatabaseId, Head>,
    owners: BTreeMap<(DatabaseId, u64), Option<IncarnationId>>,
    logs: BTreeMap<IncarnationId, Logged>,
    packs: BTreeSet<String>,
    /// Databases that their names know to have had a head.
    made: BTreeSet<DatabaseId>,
    bundles: BTreeMap<String, Bytes>,
    /// Databases that were drained, logs that bundles took the place of, and logs that were forgotten.
    pub drained: u64,
    pub bundled: u64,
    pub forgotten: u64,
    /// Nodes that gave their logs up because the store refused them, and those that sealed them then.
    pub given_up: u64,
    pub sealed_given_up: u64,
    /// No clock lies and nobody seals rashly here: then a lease bounds stale reads.
    pub is_honest: bool,
    pub nodes: BTreeMap<IncarnationId, Weak<Node>>,
    /// Head writes of which their writer knows that they never take place.
    lost: BTreeSet<PutId>,
}

#[derive(Clone, Default)]
pub struct Watch(Arc<Mutex<Known>>);

impl Watch {
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap()
    }

    pub fn check(&self, check: impl FnOnce(&mut Known) -> Result<(), String>) {
        let mut known = self.known();
        if let Err(broken) = check(&mut known) {
            known.broken.get_or_insert(broken);
        }
    }

    pub fn broken(&self, what: String) {
        self.known().broken.get_or_insert(what);
    }

    pub fn is_broken(&self) -> bool {
        self.known().broken.is_some()
    }
}

fn demand(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

impl Known {
    fn written(&mut self, key: &Key, bytes: &Bytes) -> Result<(), String> {
        self.changes += 1;
        let parts: Vec<&str> = key.as_str().split('/').collect();
        let incarnation = |text: &str| IncarnationId::parse(text).expect("an incarnation's id in a key");
        match key_class(key.as_str()) {
            "inc" => self.record_written(incarnation(parts[1]), bytes),
            "w" => self.slot_written(incarnation(parts[2]), slot_of(parts[3]), bytes),
            "n" => self.name_written(key, bytes),
            "head" => self.head_written(DatabaseId::parse(parts[2]).expect("a database's id in a key"), bytes),
            "pack" => {
                self.packs.insert(key.to_string());
                Ok(())
            }
            "b" => {
                self.bundles.insert(key.to_string(), bytes.clone());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn record_written(&mut self, id: IncarnationId, bytes: &Bytes) -> Result<(), String> {
        let record = IncarnationRecord::decode(bytes).map_err(|corrupt| format!("I7: inc/{id}: {corrupt}"))?;
        let log = self.logs.entry(id).or_default();
        if let Some(before) = &log.record {
            bundles::may_follow(id, before, &record)?;
            demand(record.version == before.version + 1, || format!("I6: version of {id} after {}", before.version))?;
            demand(before.state == State::Open || record.state != State::Open, || format!("I7: {id} is open again"))?;
            demand(record.low >= before.low && record.hint >= before.hint, || {
                format!("I8: low or hint of {id} falls")
            })?;
        }
        if let State::Sealed { end } = record.state {
            let hole = (record.low.0..end.0).find(|slot| !log.data.contains(slot));
            demand(hole.is_none(), || format!("I3: {id} is sealed at {end} with nothing in slot {hole:?}"))?;
            demand(log.acknowledged <= end.0, || {
                format!("I3: {id} is sealed at {end}, but slot {} is acknowledged", log.acknowledged - 1)
            })?;
        }
        let below: Vec<Stored> = log.commits.extract_if(.., |commit| commit.slot < record.low).collect();
        log.record = Some(record.clone());
        if !record.bundles.is_empty() {
            return self.linked(id, &record, below);
        }
        let (low, bundled) = (record.low, std::mem::take(&mut log.bundled));
        let is_unfolded = |commit: &&Stored| {
            let head = self.heads.get(&commit.database);
            head.is_none_or(|head| !head.state.is_final() && head.folded.lsn < Some(commit.lsn))
        };
        if let Some(Stored { slot, database, lsn, .. }) = below.iter().find(is_unfolded) {
            return Err(format!("I8: low of {id} is {low}, but LSN {lsn} of {database} in slot {slot} is not folded"));
        }
        let is_held = |commit: &&Stored| {
            let tail = self.heads.get(&commit.database).map(|head| &head.tail);
            tail.is_none_or(|tail| tail.iter().any(|entry| entry.holds(id, commit.epoch, commit.lsn)))
        };
        match bundled.iter().filter(is_unfolded).find(is_held) {
            Some(Stored { database, lsn, .. }) => {
                Err(format!("I8: the log of {id} is forgotten, but LSN {lsn} of {database} is not folded"))
            }
            None => Ok(()),
        }
    }

    fn slot_written(&mut self, id: IncarnationId, slot: Slot, bytes: &Bytes) -> Result<(), String> {
        let object = fragment::decode(bytes, id, slot).map_err(|corrupt| format!("I3: {id}/{slot}: {corrupt}"))?;
        let log = self.logs.entry(id).or_default();
        demand(!log.tombstones.contains(&slot.0), || {
            format!("I7: something takes the place of the tombstone {id}/{slot}")
        })?;
        match object {
            SlotObject::Tombstone { .. } => {
                log.tombstones.insert(slot.0);
                // A sealer that comes late may find a slot empty whose commits are in a bundle: junk, like the rest there.
                let is_below = log.is_sealed() && slot < log.low();
                demand(is_below || !log.data.contains(&slot.0), || {
                    format!("I3: {id} is ended at {slot}, which held commits")
                })
            }
            SlotObject::Fragment(fragment) => {
                // A late duplicate below `low` is junk that nobody reads.
                if log.data.insert(slot.0) { self.fragment_written(fragment) } else { Ok(()) }
            }
        }
    }

    fn fragment_written(&mut self, fragment: Fragment) -> Result<(), String> {
        let Fragment { incarnation, slot, runs, .. } = fragment;
        for run in runs {
            let mut lsn = run.first;
            for commit in &run.commits {
                let Content::Inline(bytes) = commit else { return Err("I9: a commit of a few bytes in a side object".into()) };
                self.ledger.stored(toy::number(bytes), incarnation, slot)?;
                let stored = Stored { slot, database: run.database, epoch: run.epoch, lsn, bytes: bytes.clone() };
                self.logs.entry(incarnation).or_default().commits.push(stored);
                lsn = Lsn::after(Some(lsn));
            }
        }
        Ok(())
    }

    fn name_written(&mut self, key: &Key, bytes: &Bytes) -> Result<(), String> {
        let record = NameRecord::decode(bytes).map_err(|corrupt| format!("I7: {key}: {corrupt}"))?;
        let NameState::Live { database, is_made: true, .. } = record.state else { return Ok(()) };
        self.made.insert(database);
        let has_head = self.heads.get(&database).is_some_and(|head| head.state != HeadState::Aborted);
        demand(has_head, || format!("I7: {key} says that {database} was made, and it has no head"))
    }

    fn head_written(&mut self, id: DatabaseId, bytes: &Bytes) -> Result<(), String> {
        let head = Head::decode(bytes).map_err(|corrupt| format!("I6: head of {id}: {corrupt}"))?;
        demand(!self.lost.contains(&head.put_id), || {
            format!("I12: a write of the head of {id} that was lost takes place")
        })?;
        if let Some(before) = self.heads.get(&id) {
            demand(!before.state.is_final(), || format!("I7: the final head of {id} is overwritten"))?;
            demand(head.version > before.version, || {
                format!("I6: version {} of {id} after {}", head.version, before.version)
            })?;
            let is_new_owner = head.owner != before.owner;
            demand(head.epoch == before.epoch + u64::from(is_new_owner), || {
                let (now, then) = (head.owner, before.owner);
                format!("I6: epoch {} of {id} after {}, owner {now:?} after {then:?}", head.epoch, before.epoch)
            })?;
            demand(head.folded.lsn >= before.folded.lsn, || format!("I6: the folded point of {id} falls"))?;
            let former = before.owner.filter(|_| is_new_owner).and_then(|owner| self.nodes.get(&owner)?.upgrade());
            let may_serve = former.is_some_and(|node| !node.life.is_dead() && node.may_serve());
            demand(!may_serve || head.owner.is_none() || !self.is_honest, || {
                format!("I4: {:?} may still serve reads of {id} when {:?} takes it over", before.owner, head.owner)
            })?;
            self.takeovers += u64::from(before.owner.is_some() && head.owner.is_some() && is_new_owner);
        }
        let owner = *self.owners.entry((id, head.epoch)).or_insert(head.owner);
        demand(owner == head.owner, || format!("I2: epoch {} of {id} has two owners", head.epoch))?;
        let holds = |incarnation, epoch, lsn| head.tail.iter().any(|entry| entry.holds(incarnation, epoch, lsn));
        let lost = self.ledger.acknowledged_after(id, head.folded.lsn).find(|entry| {
            !head.state.is_final() && !holds(entry.incarnation, entry.epoch, entry.lsn)
        });
        if let Some(Entry { lsn, epoch, incarnation, .. }) = lost {
            let of = format!("LSN {lsn} of epoch {epoch} in the log of {incarnation}");
            return Err(format!("I1: the head of {id} lets go of {of}, which is acknowledged"));
        }
        // One that another name leads to, or none, is over, or nobody writes its name any more.
        let is_noted = head.folded.lsn.is_none() || self.made.contains(&id) || head.state.is_final();
        demand(is_noted, || format!("I7: {id} is folded, and its name does not say that it was made"))?;
        if let Some(pack) = pack_of(&head) {
            demand(self.packs.contains(&pack), || format!("I6: the head of {id} references {pack}, which is missing"))?;
        }
        self.heads.insert(id, head);
        Ok(())
    }

    fn deleted(&mut self, key: &Key) -> Result<(), String> {
        self.changes += 1;
        let parts: Vec<&str> = key.as_str().split('/').collect();
        match key_class(key.as_str()) {
            "w" => {
                let (id, slot) = (IncarnationId::parse(parts[2]).expect("an id"), slot_of(parts[3]));
                self.logs.entry(id).or_default().slot_deleted(id, slot)
            }
            "b" => self.bundle_deleted(IncarnationId::parse(parts[2]).expect("an id"), key),
            "live" => self.marker_deleted(IncarnationId::parse(parts[1]).expect("an id")),
            "pack" => {
                let id = DatabaseId::parse(parts[2]).expect("an id");
                let is_linked = self.heads.get(&id).and_then(pack_of).as_deref() == Some(key.as_str());
                self.packs.remove(key.as_str());
                demand(!is_linked, || format!("I8: {key} is deleted while the head references it"))
            }
            "inc" | "head" | "n" => Err(format!("I7: {key} is deleted")),
            _ => Ok(()),
        }
    }

    /// The log of `id` reports commits as durable.
    pub fn acknowledged(&mut self, id: IncarnationId, commits: &[Acknowledged]) -> Result<(), String> {
        for commit in commits {
            let log = self.logs.entry(id).or_default();
            let slot = commit.slot;
            while log.verified <= slot.0 {
                let (data, missing) = (log.data.contains(&log.verified), log.verified);
                demand(data, || {
                    format!("I3: slot {slot} of {id} is acknowledged, slot {missing} is not in the bucket")
                })?;
                log.verified += 1;
            }
            log.acknowledged = log.acknowledged.max(slot.0 + 1);
            if let Some(State::Sealed { end }) = log.record.as_ref().map(|record| record.state) {
                demand(slot < end, || format!("I4: slot {slot} of {id} is acknowledged, which is sealed at {end}"))?;
            }
            self.ledger.acknowledge(id, (commit.database, commit.epoch, commit.lsn))?;
        }
        Ok(())
    }

    /// The history of a database was read, by its owner or by a drainer. If the head has moved on meanwhile, what was
    /// read is not the whole, and nobody uses it: the owner is over, and the drainer loses his CAS.
    pub fn loaded(&mut self, id: DatabaseId, epoch: u64, read: &[toy::CommitNo]) -> Result<(), String> {
        match self.heads.get(&id).is_some_and(|head| head.epoch > epoch) {
            true => Ok(()),
            false => self.ledger.loaded(id, epoch, read),
        }
    }

    /// The writer of a head was told that another one stands there.
    pub fn head_lost(&mut self, put_id: PutId) {
        self.lost.insert(put_id);
    }

    /// The log of `id` says that it was fenced.
    pub fn fenced(&self, id: IncarnationId, reason: &str) -> Result<(), String> {
        let state = self.logs.get(&id).and_then(|log| log.record.as_ref()).map(|record| record.state);
        // Shutting down with a store that takes nothing, it gives up what is not durable before it seals.
        let is_own = reason.contains("shutting down") || reason.contains("the store has refused");
        demand(state != Some(State::Open) || is_own, || {
            format!("I12: {id} takes itself for fenced, though nobody did that: {reason}")
        })
    }
}

fn slot_of(text: &str) -> Slot {
    Slot(u64::from_str_radix(text, 16).expect("a slot in a key"))
}

/// The pack that a head needs. The toy's page map is its key.
pub fn pack_of(head: &Head) -> Option<String> {
    match &head.map {
        MapField::Inline(map) if !map.is_empty() => Some(String::from_utf8(map.to_vec()).expect("a key")),
        _ => None,
    }
}

/// The bucket itself, where each request that arrives has taken effect.
#[derive(Clone)]
pub struct Tap {
    pub bucket: MemoryStore,
    pub watch: Watch,
}

#[async_trait]
impl Store for Tap {
    async fn get(&self, key: &Key) -> Result<Option<Object>, StoreError> {
        self.bucket.get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Object>, StoreError> {
        self.bucket.get_range(key, range).await
    }

    async fn put(&self, key: &Key, bytes: Bytes, condition: &Condition) -> Result<Put, StoreError> {
        let put = self.bucket.put(key, bytes.clone(), condition).await?;
        if let Put::Done(_) = put {
            self.watch.check(|known| known.written(key, &bytes));
        }
        Ok(put)
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.watch.check(|known| known.deleted(key));
        self.bucket.delete(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Key>, StoreError> {
        self.bucket.list(prefix, after, limit).await
    }

    fn describe(&self) -> String {
        self.bucket.describe()
    }
}
