//! What is dead among the objects of logs.

use std::collections::BTreeMap;

use tracing::warn;
use walstore::id::{IncarnationId, Slot};
use walstore::incarnation::{self, IncarnationRecord, State};
use walstore::keys::{self, Object};
use walstore::register;
use walstore::store::{Condition, Key};

use super::{Collected, SweepError, Sweeper};
use crate::listing::Listing;
use crate::orphan;

/// The objects of one log.
#[derive(Default)]
struct LogKeys {
    slots: Vec<Slot>,
    sides: Vec<Key>,
    bundles: Vec<Key>,
    has_marker: bool,
}

impl Sweeper {
    pub(super) async fn sweep_logs(&self, collected: &mut Collected) -> Result<(), SweepError> {
        // Markers last: a log that was drained meanwhile has lost its objects before.
        let mut all: BTreeMap<IncarnationId, LogKeys> = BTreeMap::new();
        for prefix in [keys::FRAGMENT_PREFIX, keys::SIDE_PREFIX, keys::BUNDLE_PREFIX, keys::LIVE_PREFIX] {
            let store = if prefix == keys::FRAGMENT_PREFIX { &self.stores.log } else { &self.stores.main };
            let mut listing = Listing::new(&**store, &self.seam, prefix).with_pause(self.pause);
            while let Some(key) = listing.next().await? {
                match keys::parse(&key) {
                    Some(Object::Fragment(id, slot)) => all.entry(id).or_default().slots.push(slot),
                    Some(Object::Side(id, _)) => all.entry(id).or_default().sides.push(key),
                    Some(Object::Bundle { incarnation, .. }) => all.entry(incarnation).or_default().bundles.push(key),
                    Some(Object::Live(id)) => all.entry(id).or_default().has_marker = true,
                    Some(Object::Incarnation(_)) | None => {}
                }
            }
        }
        for (id, keys) in all {
            let swept = self.sweep_log(id, keys, collected).await;
            self.or_skip(swept, collected)?;
        }
        Ok(())
    }

    async fn sweep_log(&self, id: IncarnationId, keys: LogKeys, collected: &mut Collected) -> Result<(), SweepError> {
        let LogKeys { slots, sides, bundles, has_marker } = keys;
        if slots.is_empty() && sides.is_empty() && bundles.is_empty() {
            return Ok(());
        }
        let key = keys::incarnation(id);
        let patience = self.access().patience;
        let found = register::read::<IncarnationRecord>(&*self.stores.main, &self.seam, &key, patience).await?;
        let Some(record) = found.map(|found| found.value) else {
            warn!(incarnation = %id, "its log has objects, but its record is not there; left alone");
            return Ok(());
        };
        let is_dead = |slot: &Slot| orphan::of_slot(&record, *slot).is_some_and(|standing| standing.is_dead());
        let slots = slots.into_iter().filter(is_dead).map(|slot| keys::fragment(id, slot)).collect();
        collected.log_objects += self.delete(&*self.stores.log, slots).await?;
        let mut dead = Vec::new();
        if orphan::of_log(&record).is_dead() {
            let linked: Vec<Key> = record.bundles.iter().map(|bundle| bundle.key(id)).collect();
            dead.extend(bundles.into_iter().filter(|key| !linked.contains(key)));
            // Bundles refer to side objects, so as long as there are any, they are left to draining.
            if linked.is_empty() {
                dead.extend(sides);
            }
        }
        collected.log_objects += self.delete(&*self.stores.main, dead).await?;
        if !has_marker && !is_drained(&record) {
            self.mark_again(id).await?;
        }
        Ok(())
    }

    /// A log that is not drained, and of which nobody would know.
    async fn mark_again(&self, id: IncarnationId) -> Result<(), SweepError> {
        warn!(incarnation = %id, "the marker of a log that is not drained is gone; putting it again");
        self.stores.main.put(&keys::live(id), incarnation::encode_live(id), &Condition::None).await?;
        Ok(())
    }
}

fn is_drained(record: &IncarnationRecord) -> bool {
    matches!(record.state, State::Sealed { end } if record.low == end && record.bundles.is_empty())
}
