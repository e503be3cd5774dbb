//! What bundling and draining may change, and in which order.

use std::collections::BTreeMap;

use walstore::id::{IncarnationId, Slot};
use walstore::incarnation::{IncarnationRecord, State};
use walstore::run::Content;
use walstore::store::Key;

use super::{Known, Logged, Stored, demand};

/// A sealed record has two successors: the one that links bundles in place of all slots, and the one that refers to
/// nothing any more. The end stays.
pub fn may_follow(id: IncarnationId, before: &IncarnationRecord, record: &IncarnationRecord) -> Result<(), String> {
    let State::Sealed { end } = before.state else { return Ok(()) };
    demand(record.state == before.state, || format!("I7: {id} was sealed at {end}, and its record says otherwise"))?;
    let links = before.bundles.is_empty() && before.low < end && record.low == end && !record.bundles.is_empty();
    let unlinks = !before.bundles.is_empty() && before.low == end && record.bundles.is_empty();
    demand(links || unlinks, || format!("I7: the sealed record of {id} is overwritten"))
}

impl Logged {
    pub(super) fn low(&self) -> Slot {
        self.record.as_ref().map_or(Slot::ZERO, |record| record.low)
    }

    fn end(&self) -> Option<Slot> {
        match self.record.as_ref()?.state {
            State::Sealed { end } => Some(end),
            State::Open | State::Recovering => None,
        }
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.end().is_some()
    }

    /// Below `low` everything may go, and behind the end what was in flight. The end itself never.
    pub(super) fn slot_deleted(&mut self, id: IncarnationId, slot: Slot) -> Result<(), String> {
        let (low, end) = (self.low(), self.end());
        let is_end = end.map_or(self.tombstones.contains(&slot.0), |end| slot == end);
        demand(!is_end, || format!("I7: the tombstone {id}/{slot} is deleted"))?;
        demand(slot < low || end.is_some_and(|end| slot > end), || {
            format!("I8: slot {slot} of {id} is deleted, but low is {low}")
        })?;
        self.replaced.remove(&slot.0);
        self.tombstones.remove(&slot.0);
        Ok(())
    }
}

impl Known {
    /// The record refers to bundles from now on: they hold, byte for byte, what the slots held.
    pub(super) fn linked(
        &mut self,
        id: IncarnationId,
        record: &IncarnationRecord,
        below: Vec<Stored>,
    ) -> Result<(), String> {
        let mut found = BTreeMap::new();
        for reference in &record.bundles {
            let key = reference.key(id);
            let object = self.bundles.get(key.as_str());
            let object = object.ok_or_else(|| format!("I6: inc/{id} refers to {key}, which is not there"))?;
            let part = |range: std::ops::Range<u64>| object.slice(range.start as usize..range.end as usize);
            let unreadable = |corrupt| format!("I1: {key}: {corrupt}");
            for block in reference.decode_index(&part(reference.index.range())).map_err(unreadable)? {
                for run in block.decode(&part(block.section.range())).map_err(unreadable)? {
                    for (lsn, content) in run.commits() {
                        let Content::Inline(bytes) = content else { return Err(format!("I9: {key} has side objects")) };
                        found.insert((run.database, run.epoch, lsn), bytes.clone());
                    }
                }
            }
        }
        for Stored { slot, database, epoch, lsn, bytes } in &below {
            demand(found.remove(&(*database, *epoch, *lsn)).as_ref() == Some(bytes), || {
                format!("I1: the bundles of {id} do not hold LSN {lsn} of {database} as slot {slot} did")
            })?;
        }
        demand(found.is_empty(), || format!("I2: the bundles of {id} hold {} commits that no slot held", found.len()))?;
        self.bundled += 1;
        let log = self.logs.entry(id).or_default();
        log.replaced = below.iter().map(|commit| commit.slot.0).collect();
        log.bundled = below;
        Ok(())
    }

    pub(super) fn bundle_deleted(&mut self, id: IncarnationId, key: &Key) -> Result<(), String> {
        self.bundles.remove(key.as_str());
        let record = self.logs.get(&id).and_then(|log| log.record.as_ref());
        let is_linked = record.is_some_and(|record| record.bundles.iter().any(|it| it.key(id) == *key));
        demand(!is_linked, || format!("I8: {key} is deleted while inc/{id} refers to it"))
    }

    /// Whoever finds no marker looks for nothing: so it goes last.
    pub(super) fn marker_deleted(&self, id: IncarnationId) -> Result<(), String> {
        let log = self.logs.get(&id).filter(|log| log.is_sealed());
        let log = log.ok_or_else(|| format!("I8: live/{id} is deleted before its log has an end"))?;
        let record = log.record.as_ref().expect("it is sealed");
        demand(log.end() == Some(log.low()) && record.bundles.is_empty(), || {
            format!("I8: live/{id} is deleted while its log is still referred to")
        })?;
        demand(log.replaced.is_empty(), || format!("I8: live/{id} is deleted before slots {:?} of its log", log.replaced))
    }
}
