//! What is dead among the objects of one database.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use bytes::Bytes;
use tenant::head::{Head, HeadState};
use tenant::{lifecycle, registry};
use tracing::{debug, warn};
use walstore::id::{DatabaseId, PutId};
use walstore::incarnation::{IncarnationRecord, State};
use walstore::register::{self, RecordError, Swap, Versioned};
use walstore::store::Key;

use super::{Collected, SweepError, Sweeper};
use crate::history::index_of;
use crate::{collect, garbage, limits, orphan};

impl Sweeper {
    /// `keys` is all that lay under the database's prefix, listed before.
    pub(super) async fn sweep_database(
        &self,
        database: DatabaseId,
        keys: Vec<Key>,
        collected: &mut Collected,
    ) -> Result<(), SweepError> {
        let (objects, others): (Vec<Key>, Vec<Key>) = keys.into_iter().partition(|key| orphan::object_of(key).is_some());
        let pins: Vec<Key> = others.into_iter().filter(|key| tenant::keys::parse_pins(key).is_some()).collect();
        if objects.is_empty() && pins.is_empty() {
            return Ok(());
        }
        let mut is_compacted = false;
        for _ in 0..limits::DRAIN_ROUNDS_MAX {
            let Some(head) = self.head(database).await? else { return Ok(()) };
            self.tell_owner(&head.value);
            let head = self.lift_pins(head, collected).await?;
            self.collect_pins(&head.value, &pins, collected).await?;
            if matches!(head.value.state, HeadState::Moved { .. }) {
                self.finish_move(&head.value).await;
            }
            if head.value.state.is_final() {
                return self.collect_ended(head, objects, collected).await;
            }
            // Its marker may never have been written.
            if self.has_expired(&head.value) && self.is_owner_over(&head.value).await? {
                self.expire(head, collected).await?;
                continue;
            }
            let is_to_compact = head.value.owner.is_none() && !std::mem::replace(&mut is_compacted, true);
            if is_to_compact && self.compact(&head, &objects, collected).await {
                continue;
            }
            let reached = collect::reach(&self.fetcher, &head.value, Some(&objects)).await?;
            let orphans = objects.iter().filter(|key| !reached.keys.contains(*key));
            let orphans: Vec<Key> = orphans.cloned().collect();
            let is_over = self.is_owner_over(&head.value).await?;
            let has_dead_owner = is_over && head.value.owner.is_some();
            if orphans.is_empty() && !(has_dead_owner && self.has_dead_space(&head, collected).await) {
                return Ok(());
            }
            // A dead owner's last fold might still arrive, as long as the head is the one that it was made for. So
            // the head moves on first, and then the owner's orphans are those of a term that is over.
            if has_dead_owner && self.take_from_dead(database, collected).await {
                continue;
            }
            let unlinked: BTreeSet<Key> =
                head.value.dead.iter().filter_map(|dead| garbage::key_of(dead).ok()).collect();
            let is_dead = |key: &Key| {
                let object = orphan::object_of(key).expect("BUG: it was looked at before");
                orphan::of_database(&head.value, object, unlinked.contains(key), is_over).is_dead()
            };
            let dead = orphans.into_iter().filter(is_dead).collect();
            collected.packs += self.delete(&*self.stores.main, dead).await?;
            return Ok(());
        }
        debug!(%database, "its head changes under every look; left to the next sweep");
        Ok(())
    }

    pub(super) async fn head(&self, database: DatabaseId) -> Result<Option<Versioned<Head>>, SweepError> {
        Ok(registry::read_head(&*self.stores.main, &self.seam, database, self.access().patience).await?)
    }

    /// Whether it is nobody's now that was a dead owner's.
    pub(super) async fn take_from_dead(&self, database: DatabaseId, collected: &mut Collected) -> bool {
        let is_released = self.drainer.release_if_over(database).await.unwrap_or_else(|error| {
            warn!(%database, %error, "cannot take it from its dead owner yet");
            false
        });
        collected.released += u64::from(is_released);
        is_released
    }

    pub(super) async fn is_owner_over(&self, head: &Head) -> Result<bool, SweepError> {
        let Some(owner) = head.owner else { return Ok(true) };
        let known = self.owners.lock().unwrap_or_else(PoisonError::into_inner).get(&owner).copied();
        if let Some(is_over) = known {
            return Ok(is_over);
        }
        let key = walstore::keys::incarnation(owner);
        let patience = self.access().patience;
        let record = register::read::<IncarnationRecord>(&*self.stores.main, &self.seam, &key, patience).await?;
        let is_over = record.is_some_and(|record| matches!(record.value.state, State::Sealed { .. }));
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).insert(owner, is_over);
        Ok(is_over)
    }

    /// A database that has ended: its head shrinks to a tombstone, which unlinks everything, and then all of it goes.
    pub(super) async fn collect_ended(
        &self,
        head: Versioned<Head>,
        objects: Vec<Key>,
        collected: &mut Collected,
    ) -> Result<(), SweepError> {
        if !self.may_be_collected(&head.value).await? {
            return Ok(());
        }
        let head = if head.value.is_emptied() && (head.value.is_pinned() || head.value.is_shrunk()) {
            head
        } else {
            let next = lifecycle::shrink(&head.value, pinned_of(&head.value)?, PutId::random(&self.seam));
            let patience = self.access().patience;
            match registry::swap_head(&*self.stores.main, &self.seam, &head, next, patience).await {
                Ok(Swap::Won(head)) => {
                    collected.databases += 1;
                    head
                }
                // A fork of it, perhaps: the next sweep sees.
                Ok(Swap::Lost(_)) => return Ok(()),
                Err(error) => return Err(swap_failed(error)),
            }
        };
        // What forks read is found from the pins.
        let dead = collect::dead_of(&self.fetcher, &head.value, objects, true).await?;
        collected.packs += self.delete(&*self.stores.main, dead).await?;
        Ok(())
    }

    /// Whether nobody can want it back. What forks read of it stays all the same.
    async fn may_be_collected(&self, head: &Head) -> Result<bool, SweepError> {
        let retention_micros = u64::from(head.settings.retention_secs) * 1_000_000;
        let kept_until = match head.state {
            HeadState::Deleted { .. } if retention_micros == 0 => return Ok(true),
            HeadState::Deleted { at_micros } => at_micros.saturating_add(retention_micros),
            // The new database was made when this one ended.
            HeadState::Moved { new } => match self.head(new).await? {
                None => return Ok(false),
                Some(new) => {
                    let kept_micros = retention_micros.max(limits::MOVED_KEPT_MICROS);
                    new.value.settings.created_micros.saturating_add(kept_micros)
                }
            },
            HeadState::Aborted => return Ok(true),
            // They stay until they are dropped.
            HeadState::Live | HeadState::Renamed { .. } => return Ok(false),
        };
        Ok(self.agreed_micros().is_some_and(|now| now >= kept_until))
    }
}

/// What the pins of a head that has ended need of its history.
fn pinned_of(head: &Head) -> Result<Bytes, SweepError> {
    let mut history = index_of(head)?;
    history.clear();
    Ok(if head.is_pinned() { history.encode() } else { Bytes::new() })
}

pub(super) fn swap_failed(error: registry::SwapHeadError) -> SweepError {
    match error {
        registry::SwapHeadError::Record(error) => error.into(),
        error @ (registry::SwapHeadError::Invariant { .. } | registry::SwapHeadError::Gone { .. }) => {
            RecordError::from(walstore::envelope::Corrupt::new(error.to_string())).into()
        }
    }
}
