//! Due markers: what they announce is finished, and then they go.

use tenant::due::{DueKind, DueMarker};
use tenant::head::HeadState;
use tenant::{keys, registry};
use tracing::warn;
use walstore::store::Key;

use super::{Collected, SweepError, Sweeper};
use crate::listing::{Group, Listing};
use crate::{limits, orphan};

impl Sweeper {
    pub(super) async fn sweep_markers(&self, collected: &mut Collected) -> Result<(), SweepError> {
        let main = self.stores.main.clone();
        let mut listing = Listing::new(&*main, &self.seam, keys::DUE_PREFIX).with_pause(self.pause);
        while let Some(key) = listing.next().await? {
            let swept = self.sweep_marker(key, collected).await;
            self.or_skip(swept, collected)?;
        }
        Ok(())
    }

    async fn sweep_marker(&self, key: Key, collected: &mut Collected) -> Result<(), SweepError> {
        let Some(object) = self.get(&key).await? else { return Ok(()) };
        let marker = DueMarker::decode(&object).map_err(|corrupt| corrupt.at(&key))?;
        let is_done = match marker.kind {
            DueKind::Delete => self.finish_delete(&marker, collected).await?,
            DueKind::Expire if self.seam.wall_micros() < marker.due_micros => false,
            DueKind::Expire => self.finish_expiry(&marker, collected).await?,
            // Nothing writes these: the walk over the databases finds what they would lead to.
            DueKind::Move | DueKind::Fork => false,
        };
        if is_done {
            collected.markers += self.delete(&*self.stores.main, vec![key]).await?;
        }
        Ok(())
    }

    /// Ends a database whose time is up. `true`: nothing is left to be done.
    async fn finish_expiry(&self, marker: &DueMarker, collected: &mut Collected) -> Result<bool, SweepError> {
        let Some(head) = self.head(marker.database).await? else { return Ok(false) };
        // If it was given another time, there is another marker too.
        if head.value.state.is_final() || head.value.settings.expires_micros != marker.due_micros {
            return Ok(true);
        }
        // This node's clock may be the only one that says so.
        if self.has_expired(&head.value) {
            self.expire(head, collected).await?;
        }
        Ok(false)
    }

    /// Frees the name of a deleted database, and collects its objects. `true`: nothing is left to be done.
    async fn finish_delete(&self, marker: &DueMarker, collected: &mut Collected) -> Result<bool, SweepError> {
        let patience = self.access().patience;
        let main = &*self.stores.main;
        let Some(head) = registry::read_head(main, &self.seam, marker.database, patience).await? else {
            return Ok(false);
        };
        if !matches!(head.value.state, HeadState::Deleted { .. }) {
            // A delete that was given up, or is about to come: a day later it is not. If it comes all the same, the
            // walk over the databases finds its head.
            let late_micros = marker.due_micros.saturating_add(limits::MARKER_LATE_MICROS);
            return Ok(self.agreed_micros().is_some_and(|now| now >= late_micros));
        }
        if let Err(error) = registry::free_name(main, &self.seam, &head.value, patience).await {
            warn!(%error, database = %marker.database, "cannot free the name of a deleted database yet");
            return Ok(false);
        }
        let prefix = keys::database_prefix(marker.database);
        let group = Listing::new(main, &self.seam, &prefix).next_group().await?;
        let Some(Group::Database(_, keys)) = group else { return Ok(false) };
        let objects: Vec<Key> = keys.into_iter().filter(|key| orphan::object_of(key).is_some()).collect();
        let head = self.lift_pins(head, collected).await?;
        self.collect_ended(head, objects, collected).await?;
        let head = registry::read_head(main, &self.seam, marker.database, patience).await?;
        Ok(head.is_some_and(|head| head.value.is_shrunk()))
    }
}
