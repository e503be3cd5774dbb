//! What is left of forks: pins for which there is no fork any more, forks and restores that were not finished, and
//! forks whose time is up.

use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt, stream};
use tenant::due::{DueKind, DueMarker};
use tenant::head::{Head, HeadState, MapField, Pin};
use tenant::keys::{self, Written};
use tenant::lifecycle::{self, ChildLook, LeftoverPlan, NameLook, OwnerState, PinPlan};
use tenant::registry::{self, Followed};
use tracing::{info, warn};
use walstore::clock;
use walstore::envelope::Corrupt;
use walstore::id::{DatabaseId, Lsn, PutId};
use walstore::register::{Swap, Versioned};
use walstore::store::Key;

use super::database::swap_failed;
use super::{Collected, SweepError, Sweeper};
use crate::history::index_of;
use crate::{collect, limits};

/// What became of the pins of a database.
enum Lifted {
    Nothing,
    /// Some went: the head without them.
    Some(Versioned<Head>),
    /// Somebody else wrote the head before: what is there.
    Lost(Versioned<Head>),
}

fn never_deleted(database: DatabaseId) -> SweepError {
    Corrupt::new("a head was deleted; they never are").at(keys::head(database)).into()
}

impl Sweeper {
    /// Lifts the pins of a database that nobody owns, as far as nobody needs them. Answers the head as it is then.
    pub(super) async fn lift_pins(
        &self,
        head: Versioned<Head>,
        collected: &mut Collected,
    ) -> Result<Versioned<Head>, SweepError> {
        match self.lift_pins_at(&head, &OwnerState::None, None, 0, collected).await? {
            Lifted::Nothing => Ok(head),
            Lifted::Some(head) | Lifted::Lost(head) => Ok(head),
        }
    }

    /// The forks of a database of this node whose pins [`Sweeper::lift_own_pins`] may lift, by a look at each one's head.
    /// At most so many of all are looked at, from a place that is drawn, so that in the end it is everyone's turn.
    pub async fn forks_to_look_at(&self, head: &Head, count_max: usize) -> Result<Vec<DatabaseId>, SweepError> {
        let patience = self.access().patience;
        let pins = registry::read_pins(&*self.stores.main, &self.seam, head, patience).await?;
        let mut children: Vec<DatabaseId> = pins.all().map(|pin| pin.child).collect();
        if children.len() > count_max {
            let first = self.seam.random_u64() % children.len() as u64;
            children.rotate_left(usize::try_from(first).expect("BUG: less than a length"));
            children.truncate(count_max);
        }
        let looks = stream::iter(children).map(|child| async move {
            let is_kept = match self.head(child).await? {
                None => false,
                // It is used, or it stands on what its parent has and is not to end yet.
                Some(found) => {
                    let Head { state, owner, map, .. } = &found.value;
                    let stands_on_it = *state == HeadState::Live && matches!(map, MapField::Shared(_));
                    owner.is_some() || (stands_on_it && !self.has_expired(&found.value))
                }
            };
            Ok::<_, SweepError>((!is_kept).then_some(child))
        });
        let found: Vec<Option<DatabaseId>> = looks.buffered(limits::SWEEP_READS_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Lifts the pins of these forks of a database that this node owns, as far as nobody needs them. The caller makes no
    /// fork of it meanwhile, and writes its head in no other way. `None`: the head is as it was, or somebody else's write
    /// has come before, which the next fold meets.
    pub async fn lift_own_pins(
        &self,
        head: &Versioned<Head>,
        forks: &[DatabaseId],
    ) -> Result<Option<Versioned<Head>>, SweepError> {
        assert_eq!(head.value.owner, Some(self.me), "BUG: the pins of somebody else's database");
        let mut collected = Collected::default();
        match self.lift_pins_at(head, &OwnerState::Me, Some(forks), 0, &mut collected).await? {
            Lifted::Some(head) => Ok(Some(head)),
            Lifted::Nothing | Lifted::Lost(_) => Ok(None),
        }
    }

    /// `of`: the pins of these forks only. `depth`: of so many ancestors, one the child of the other, the pins are being
    /// looked at.
    async fn lift_pins_at(
        &self,
        head: &Versioned<Head>,
        owner: &OwnerState,
        of: Option<&[DatabaseId]>,
        depth: usize,
        collected: &mut Collected,
    ) -> Result<Lifted, SweepError> {
        let is_ours = head.value.owner.is_none() || *owner == OwnerState::Me;
        if !head.value.is_pinned() || !is_ours {
            return Ok(Lifted::Nothing);
        }
        let (main, patience) = (&*self.stores.main, self.access().patience);
        let pins = registry::read_pins(main, &self.seam, &head.value, patience).await?;
        let mut gone = BTreeSet::new();
        for pin in pins.all().filter(|pin| of.is_none_or(|of| of.contains(&pin.child))) {
            if self.is_over((&head.value, owner), pin, depth, collected).await? {
                gone.insert(pin.child);
            }
        }
        if gone.is_empty() {
            return Ok(Lifted::Nothing);
        }
        let kept: BTreeSet<Lsn> = pins.all().filter(|pin| !gone.contains(&pin.child)).filter_map(|pin| pin.lsn).collect();
        let mut history = index_of(&head.value)?;
        history.retain_pinned(|lsn| kept.contains(&lsn));
        let next = registry::unpinned(main, &self.seam, &head.value, &pins, &gone, history.encode(), patience).await?;
        match registry::swap_head(main, &self.seam, head, next, patience).await.map_err(swap_failed)? {
            Swap::Won(won) => {
                info!(database = %won.value.database, forks = gone.len(), "lifted the pins of forks that need them no more");
                collected.pins += gone.len() as u64;
                Ok(Lifted::Some(won))
            }
            // Somebody has taken it, or forked it: the next sweep sees.
            Swap::Lost(Some(found)) => Ok(Lifted::Lost(found)),
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
        let lifted = match depth < limits::SWEEP_DESCENT_MAX {
            true => Box::pin(self.lift_pins_at(&child, &OwnerState::None, None, depth + 1, collected)).await?,
            false => Lifted::Nothing,
        };
        let child = match lifted {
            Lifted::Nothing => child,
            Lifted::Some(head) | Lifted::Lost(head) => head,
        };
        self.collect_ended(child, Vec::new(), collected).await?;
        match self.head(database).await? {
            Some(child) => Ok(child),
            None => Err(never_deleted(database)),
        }
    }

    /// Whether nobody will ever need `pin` of a parent with such an owner.
    async fn is_over(
        &self,
        (parent, owner): (&Head, &OwnerState),
        pin: &Pin,
        depth: usize,
        collected: &mut Collected,
    ) -> Result<bool, SweepError> {
        let mut child = self.head(pin.child).await?;
        if child.is_none() {
            match lifecycle::plan_pin(parent, owner, ChildLook::Missing, false) {
                PinPlan::Occupy => {}
                PinPlan::Keep => return Ok(false),
                PinPlan::Unpin => return Ok(true),
            }
            info!(parent = %parent.database, child = %pin.child, "a fork was not finished; occupying its place");
            let (main, patience) = (&*self.stores.main, self.access().patience);
            child = Some(registry::occupy(main, &self.seam, &parent.name, pin.child, None, patience).await?);
        }
        let mut child = child.expect("BUG: it was read or written");
        self.delete_leftover(&child, collected).await?;
        // A marker leads to it, too, unless that could not be written. An owner does not fold its parent meanwhile: it
        // leaves to a sweep what is to be taken from a dead node first.
        let may_take_long = *owner == OwnerState::Me && child.value.owner.is_some();
        if !child.value.state.is_final() && self.has_expired(&child.value) && !may_take_long {
            Box::pin(self.expire(child, collected)).await?;
            child = self.head(pin.child).await?.ok_or_else(|| never_deleted(pin.child))?;
        }
        let child = self.collect_child(child, depth, collected).await?;
        let reach = collect::reach(&self.fetcher, &child.value, None).await?;
        let reaches = reach.owners.iter().any(|owner| *owner != child.value.database);
        let look = ChildLook::Head { head: &child.value, reaches };
        Ok(lifecycle::plan_pin(parent, owner, look, false) == PinPlan::Unpin)
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

    /// Whether its time is up.
    pub(super) fn has_expired(&self, head: &Head) -> bool {
        self.agreed_micros().is_some_and(|now| head.settings.is_expired(now))
    }

    /// Deletes a living database whose time is up, unless somebody lives who owns it: he is told.
    pub(super) async fn expire(&self, mut head: Versioned<Head>, collected: &mut Collected) -> Result<(), SweepError> {
        let database = head.value.database;
        if head.value.owner.is_some() {
            self.tell_owner(&head.value);
            if !self.is_owner_over(&head.value).await? || !self.take_from_dead(database, collected).await {
                return Ok(());
            }
            let released = self.head(database).await?.filter(|head| head.value.owner.is_none());
            // Its owner may have given it more time at the last moment.
            let is_to_end = |head: &Versioned<Head>| !head.value.state.is_final() && self.has_expired(&head.value);
            let Some(released) = released.filter(is_to_end) else { return Ok(()) };
            head = released;
        }
        info!(%database, name = %head.value.name, "deleting a database whose time is up");
        self.end(&head, collected).await
    }

    /// Deletes a living database that nobody owns. If somebody takes it meanwhile, it stays.
    async fn end(&self, head: &Versioned<Head>, collected: &mut Collected) -> Result<(), SweepError> {
        let (main, patience) = (&*self.stores.main, self.access().patience);
        let at_micros = clock::now_micros(&self.seam, main);
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
        if let Err(error) = registry::swing_name(main, &self.seam, (head, None), None, self.me, patience).await {
            warn!(%error, name = %head.name, "cannot swing the name of a restored database yet");
        }
    }
}
