//! What is left of forks: pins for which there is no fork any more, forks and restores that were not finished, and
//! forks whose time is up.

use std::collections::BTreeSet;

use tenant::due::{DueKind, DueMarker};
use tenant::head::{Head, HeadState, Pin};
use tenant::keys::{self, Written};
use tenant::lifecycle::{self, ChildLook, LeftoverPlan, NameLook, OwnerState, PinPlan};
use tenant::registry::{self, Followed};
use tracing::{info, warn};
use walstore::envelope::Corrupt;
use walstore::id::{DatabaseId, Lsn, PutId};
use walstore::register::{Swap, Versioned};
use walstore::store::Key;

use super::database::swap_failed;
use super::{Collected, SweepError, Sweeper};
use crate::history::index_of;
use crate::{collect, limits};

impl Sweeper {
    /// Lifts the pins of a database that nobody owns, as far as nobody needs them. Answers the head as it is then.
    pub(super) async fn lift_pins(
        &self,
        head: Versioned<Head>,
        collected: &mut Collected,
    ) -> Result<Versioned<Head>, SweepError> {
        self.lift_pins_at(head, 0, collected).await
    }

    /// `depth`: of so many ancestors, one the child of the other, the pins are being looked at.
    async fn lift_pins_at(
        &self,
        head: Versioned<Head>,
        depth: usize,
        collected: &mut Collected,
    ) -> Result<Versioned<Head>, SweepError> {
        if !head.value.is_pinned() || head.value.owner.is_some() {
            return Ok(head);
        }
        let (main, patience) = (&*self.stores.main, self.access().patience);
        let pins = registry::read_pins(main, &self.seam, &head.value, patience).await?;
        let mut gone = BTreeSet::new();
        for pin in pins.all() {
            if self.is_over(&head.value, pin, depth, collected).await? {
                gone.insert(pin.child);
            }
        }
        if gone.is_empty() {
            return Ok(head);
        }
        let kept: BTreeSet<Lsn> = pins.all().filter(|pin| !gone.contains(&pin.child)).filter_map(|pin| pin.lsn).collect();
        let mut history = index_of(&head.value)?;
        history.retain_pinned(|lsn| kept.contains(&lsn));
        let next = registry::unpinned(main, &self.seam, &head.value, &pins, &gone, history.encode(), patience).await?;
        match registry::swap_head(main, &self.seam, &head, next, patience).await.map_err(swap_failed)? {
            Swap::Won(won) => {
                info!(database = %won.value.database, forks = gone.len(), "lifted the pins of forks that need them no more");
                collected.pins += gone.len() as u64;
                Ok(won)
            }
            // Somebody has taken it, or forked it: the next sweep sees.
            Swap::Lost(Some(found)) => Ok(found),
            Swap::Lost(None) => unreachable!("BUG: swap_head reports a missing head as an error"),
        }
    }

    /// Deletes chunks of pins that the head does not refer to and nobody can link any more.
    pub(super) async fn collect_pins(
        &self,
        head: &Head,
        listed: &[Key],
        collected: &mut Collected,
    ) -> Result<(), SweepError> {
        let is_dead = |key: &Key| {
            let (_, Written { epoch, seq, .. }) = keys::parse_pins(key).expect("BUG: it was looked at before");
            let is_over = epoch < head.epoch || (epoch == head.epoch && seq <= head.fold_seq);
            is_over && !head.pin_chunks.contains(key)
        };
        let dead = listed.iter().filter(|key| is_dead(key)).cloned().collect();
        collected.packs += self.delete(&*self.stores.main, dead).await?;
        Ok(())
    }

    /// A child that has ended, and may lie under no key but that of its head: no listing leads to it but through its
    /// parent. Restores in place make long chains of them: what lies too deep is left to a later sweep.
    async fn collect_child(
        &self,
        child: Versioned<Head>,
        depth: usize,
        collected: &mut Collected,
    ) -> Result<Versioned<Head>, SweepError> {
        if !child.value.state.is_final() || child.value.is_shrunk() {
            return Ok(child);
        }
        let database = child.value.database;
        let child = match depth < limits::SWEEP_DESCENT_MAX {
            true => Box::pin(self.lift_pins_at(child, depth + 1, collected)).await?,
            false => child,
        };
        self.collect_ended(child, Vec::new(), collected).await?;
        match self.head(database).await? {
            Some(child) => Ok(child),
            None => Err(Corrupt::new("a head was deleted; they never are").at(keys::head(database)).into()),
        }
    }

    /// Whether nobody will ever need `pin`.
    async fn is_over(&self, parent: &Head, pin: &Pin, depth: usize, collected: &mut Collected) -> Result<bool, SweepError> {
        let mut child = self.head(pin.child).await?;
        if child.is_none() {
            match lifecycle::plan_pin(parent, &OwnerState::None, ChildLook::Missing, false) {
                PinPlan::Occupy => {}
                PinPlan::Keep | PinPlan::Unpin => return Ok(false),
            }
            info!(parent = %parent.database, child = %pin.child, "a fork was not finished; occupying its place");
            let (main, patience) = (&*self.stores.main, self.access().patience);
            child = Some(registry::occupy(main, &self.seam, &parent.name, pin.child, None, patience).await?);
        }
        let child = child.expect("BUG: it was read or written");
        self.delete_leftover(&child, collected).await?;
        let child = self.collect_child(child, depth, collected).await?;
        let reach = collect::reach(&self.fetcher, &child.value, None).await?;
        let reaches = reach.owners.iter().any(|owner| *owner != child.value.database);
        let look = ChildLook::Head { head: &child.value, reaches };
        Ok(lifecycle::plan_pin(parent, &OwnerState::None, look, false) == PinPlan::Unpin)
    }

    /// Deletes a fork that was to take the place of a database and never did: its name leads elsewhere.
    async fn delete_leftover(
        &self,
        child: &Versioned<Head>,
        collected: &mut Collected,
    ) -> Result<(), SweepError> {
        if child.value.state != HeadState::Live || child.value.owner.is_some() {
            return Ok(());
        }
        let (main, patience) = (&*self.stores.main, self.access().patience);
        let followed = registry::follow_name(main, &self.seam, &child.value.name, child.value.database, patience).await?;
        let name = match followed {
            Followed::There => NameLook::Itself,
            Followed::Nobody => NameLook::Nobody,
            Followed::InMaking => return Ok(()),
            Followed::Elsewhere(other) => {
                // Whoever owns it may be about to let the fork take its place, this node's other half too.
                let owner = match other.value.owner {
                    None => OwnerState::None,
                    Some(_) => OwnerState::Alive { address: String::new() },
                };
                NameLook::Other { database: other.value.database, owner }
            }
        };
        match lifecycle::plan_leftover(&child.value, &name, false) {
            LeftoverPlan::Keep => Ok(()),
            LeftoverPlan::Delete => {
                info!(database = %child.value.database, name = %child.value.name, "deleting what a restore left behind");
                self.end(child, collected).await
            }
        }
    }

    /// Deletes a database whose time is up. `true`: nothing is left to be done.
    pub(super) async fn expire(&self, database: DatabaseId, collected: &mut Collected) -> Result<bool, SweepError> {
        let Some(head) = self.head(database).await? else { return Ok(false) };
        if head.value.state.is_final() {
            return Ok(true);
        }
        if !self.agreed_micros().is_some_and(|now| head.value.settings.is_expired(now)) {
            // It was given more time, and another marker with it.
            return Ok(true);
        }
        if head.value.owner.is_some() {
            return Ok(false);
        }
        info!(%database, name = %head.value.name, "deleting a database whose time is up");
        self.end(&head, collected).await?;
        Ok(false)
    }

    /// Deletes a living database that nobody owns. If somebody takes it meanwhile, it stays.
    async fn end(&self, head: &Versioned<Head>, collected: &mut Collected) -> Result<(), SweepError> {
        let (main, patience) = (&*self.stores.main, self.access().patience);
        let at_micros = self.seam.wall_micros();
        let marker =
            DueMarker { database: head.value.database, kind: DueKind::Delete, due_micros: at_micros, other: None };
        registry::put_due(main, &self.seam, &marker, patience).await?;
        let next = lifecycle::delete(&head.value, at_micros, PutId::random(&self.seam));
        let swap = registry::swap_head(main, &self.seam, head, next, patience).await.map_err(swap_failed)?;
        if let Swap::Won(deleted) = swap {
            collected.ended += 1;
            if let Err(error) = registry::free_name(main, &self.seam, &deleted.value, patience).await {
                warn!(%error, name = %deleted.value.name, "deleted, but its name is not free yet; whoever meets it frees it");
            }
        }
        Ok(())
    }

    /// Finishes a restore in place whose name was not swung.
    pub(super) async fn finish_move(&self, head: &Head) {
        let (main, patience) = (&*self.stores.main, self.access().patience);
        if let Err(error) = registry::swing_name(main, &self.seam, head, self.me, patience).await {
            warn!(%error, name = %head.name, "cannot swing the name of a restored database yet");
        }
    }
}
