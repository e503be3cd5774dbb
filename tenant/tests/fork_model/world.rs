//! One state of the model, and what can happen next.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tenant::head::{ChunkRef, Folded, Head, HeadState, MapField, invariant};
use tenant::lifecycle::{self, Beginning, ChildLook, Fold, OwnerState, PinPlan};
use tenant::name::Name;
use tenant::settings::Settings;
use walstore::id::{DatabaseId, IncarnationId, Lsn, PutId};

const OWNER: IncarnationId = IncarnationId::from_bytes([0xa; 16]);
const OTHER: IncarnationId = IncarnationId::from_bytes([0xb; 16]);
const PARENT: DatabaseId = DatabaseId::from_bytes([1; 16]);
const CHILD: DatabaseId = DatabaseId::from_bytes([2; 16]);
const COMMITS_MAX: u64 = 3;
const VERSION_MAX: u64 = 6;

/// A bug that the model must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A pin without a child's head is lifted at once.
    UnpinMissing,
    /// A fork goes on with the state that it found before a fold moved the horizon.
    OldHorizon,
    /// A pin is lifted whatever the child still reads.
    UnpinReaching,
    /// The child's first head has the owner and the tail of its parent's.
    ForeignTail,
    /// The child's head is written before the CAS with the pin.
    ChildBeforePin,
    /// A fork takes whatever is folded when its write is made.
    ForkAtFolded,
}

/// A stored base: LSN, epoch, fold number, nonce.
type Base = [u8; 4];

/// What is opaque in the parent's head: the bases of its history, and those that are pinned.
#[derive(Clone, Debug, Default)]
struct History {
    bases: BTreeSet<Base>,
    pinned: BTreeSet<Base>,
}

impl History {
    fn of(head: &Head) -> Self {
        let mut rest = &head.history[..];
        let mut read = || {
            let Some((count, tail)) = rest.split_first() else { return BTreeSet::new() };
            let (bases, tail) = tail.split_at(4 * usize::from(*count));
            rest = tail;
            bases.chunks(4).map(|base| base.try_into().expect("four bytes")).collect()
        };
        Self { bases: read(), pinned: read() }
    }

    fn encode(&self) -> Bytes {
        let part = |bases: &BTreeSet<Base>| [vec![bases.len() as u8], bases.iter().flatten().copied().collect()].concat();
        [part(&self.bases), part(&self.pinned)].concat().into()
    }

    fn all(&self) -> impl Iterator<Item = &Base> {
        self.bases.iter().chain(&self.pinned)
    }

    /// The newest base at or before `lsn`.
    fn towards(&self, lsn: u64) -> Option<Base> {
        self.all().filter(|base| u64::from(base[0]) <= lsn).max().copied()
    }
}

/// How far the owner is with its fork of the state after `at`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fork {
    Not,
    Chosen { at: u64, base: Option<Base> },
    Sent { at: u64, base: Base, put: PutId },
    Pinned { at: u64, base: Base },
    Over,
}

#[derive(Clone, Debug)]
pub struct World {
    mutant: Option<Mutant>,
    parent: Head,
    child: Option<Head>,
    objects: BTreeSet<Base>,
    /// LSNs that the owner has logged.
    commits: u64,
    is_sealed: bool,
    /// The head as the owner knows it.
    known: Head,
    fork: Fork,
    /// Writes of the parent's head on their way, by the node that sent them.
    flights: Vec<(IncarnationId, Head)>,
    /// The child's first head on its way.
    child_flight: Option<Head>,
    bases_put: u8,
    is_merged: bool,
}

type Next = Result<World, String>;

impl World {
    pub fn new(mutant: Option<Mutant>) -> Self {
        let parent = lifecycle::first_head(&name(), PARENT, OWNER, Settings::new(1), put_id(0, 0));
        Self {
            mutant,
            known: parent.clone(),
            parent,
            child: None,
            objects: BTreeSet::new(),
            commits: 0,
            is_sealed: false,
            fork: Fork::Not,
            flights: Vec::new(),
            child_flight: None,
            bases_put: 0,
            is_merged: false,
        }
    }

    pub fn fingerprint(&self) -> [u8; 32] {
        let flights: Vec<_> = self.flights.iter().map(|(by, head)| (by, digest(head))).collect();
        let child = (self.child.as_ref().map(digest), self.child_flight.as_ref().map(digest));
        let own = (self.commits, self.is_sealed, &self.fork, self.bases_put, self.is_merged);
        let text = format!("{:?}{:?}{child:?}{flights:?}{own:?}{:?}", digest(&self.parent), digest(&self.known), self.objects);
        blake3::hash(text.as_bytes()).into()
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub fn is_forked(&self) -> bool {
        self.child.as_ref().is_some_and(|child| child.state == HeadState::Live)
    }

    pub fn check(&self) -> Result<(), String> {
        if let Some(gone) = History::of(&self.parent).all().find(|base| !self.objects.contains(*base)) {
            return Err(format!("I6: the parent refers to {gone:?}, which is gone: {self:#?}"));
        }
        let Some(child) = self.child.as_ref().filter(|child| child.state == HeadState::Live) else { return Ok(()) };
        if let MapField::Shared(ChunkRef(base)) = &child.map
            && !self.objects.contains(&base[..])
        {
            return Err(format!("I8: a fork begins with {base:?}, which is gone: {self:#?}"));
        }
        match child.folded == folded(Lsn::raw(child.folded.lsn)) && child.settings.expires_micros == Lsn::raw(child.folded.lsn) {
            true => Ok(()),
            false => Err(format!("R19: a fork is not its parent at {}: {self:#?}", child.settings.expires_micros)),
        }
    }

    pub fn successors(&self) -> Vec<Next> {
        let mut next = Vec::new();
        if !self.is_sealed {
            next.extend(self.commit().map(Ok));
            next.extend([false, true].into_iter().filter_map(|trims| self.fold(trims)));
            next.extend((0..=self.commits).filter_map(|at| self.choose(at)).map(Ok));
            next.extend(self.send_fork());
            next.extend(self.send_child());
            next.extend(self.give_up().map(Ok));
            next.push(Ok(World { is_sealed: true, ..self.clone() }));
        }
        next.extend(self.drain());
        next.extend(self.scavenge());
        next.extend(self.merge());
        next.extend(self.collect());
        next.extend((0..self.flights.len()).map(|flight| self.land(flight)));
        next.extend(self.land_child());
        next
    }

    fn commit(&self) -> Option<World> {
        (self.commits < COMMITS_MAX).then(|| World { commits: self.commits + 1, ..self.clone() })
    }

    /// Whether the owner waits for no answer and may write.
    fn is_idle_owner(&self) -> bool {
        let is_mine = self.known.owner == Some(OWNER);
        is_mine && self.known.version < VERSION_MAX && !self.flights.iter().any(|(by, _)| *by == OWNER)
    }

    /// A successor of `head` folded to everything that was logged, and the stored base of that.
    fn folded_all(&mut self, head: &Head, trims: bool) -> (Head, Option<Base>) {
        let mut history = History::of(head);
        let horizon = if trims { head.folded.lsn } else { head.horizon };
        let (seq, mut base) = (head.fold_seq + 1, None);
        let to = folded(self.commits);
        if to.lsn.is_some() {
            self.bases_put += 1;
            let made = [self.commits as u8, head.epoch as u8, seq as u8, self.bases_put];
            self.objects.insert(made);
            history.bases.insert(made);
            base = Some(made);
        }
        let start = history.bases.iter().rfind(|base| Lsn::new(base[0].into()) <= horizon).copied();
        history.bases.retain(|base| Some(*base) >= start);
        let fold = Fold {
            folded: to,
            own_after: None,
            map: MapField::Inline(Bytes::copy_from_slice(&[self.commits as u8])),
            image: None,
            horizon,
            history: history.encode(),
            fold_seq: seq,
            dead: Vec::new(),
        };
        (lifecycle::fold(head, fold, put_id(head.version + 1, 2)), base)
    }

    fn fold(&self, trims: bool) -> Option<Next> {
        let is_news = Lsn::new(self.commits) > self.known.folded.lsn || trims && self.known.horizon < self.known.folded.lsn;
        if !self.is_idle_owner() || !is_news {
            return None;
        }
        let mut world = self.clone();
        let (next, _) = world.folded_all(&self.known, trims);
        world.flights.push((OWNER, next));
        Some(Ok(world))
    }

    /// A fork at `at` is asked for, and the owner finds out what it would begin with.
    fn choose(&self, at: u64) -> Option<World> {
        if self.fork != Fork::Not || at == 0 {
            return None;
        }
        let base = History::of(&self.known).towards(at).filter(|_| Lsn::new(at) >= self.known.horizon);
        Some(World { fork: Fork::Chosen { at, base }, ..self.clone() })
    }

    fn send_fork(&self) -> Option<Next> {
        let Fork::Chosen { at, base } = self.fork else { return None };
        if !self.is_idle_owner() {
            return None;
        }
        let mut world = self.clone();
        let (mut next, newest) = world.folded_all(&self.known, false);
        let mut history = History::of(&next);
        let found = if self.is(Mutant::OldHorizon) && base.is_some() { base } else { history.towards(at).or(newest) };
        let Some(base) = found.filter(|base| u64::from(base[0]) <= at) else {
            return Some(Ok(World { fork: Fork::Over, ..self.clone() }));
        };
        history.pinned.insert(base);
        next.history = history.encode();
        let lsn = Lsn::new(base[0].into());
        if self.is(Mutant::OldHorizon) {
            next.pins.push(tenant::head::Pin { child: CHILD, lsn });
        } else if lifecycle::pin(&mut next, CHILD, lsn, Lsn::new(at)).is_err() {
            return Some(Ok(World { fork: Fork::Over, ..self.clone() }));
        }
        world.fork = Fork::Sent { at, base, put: next.put_id };
        world.flights.push((OWNER, next));
        Some(Ok(world))
    }

    fn send_child(&self) -> Option<Next> {
        let (at, base) = match self.fork {
            Fork::Pinned { at, base } => (at, base),
            Fork::Sent { at, base, .. } if self.is(Mutant::ChildBeforePin) => (at, base),
            _ => return None,
        };
        let to = if self.is(Mutant::ForkAtFolded) { self.known.folded } else { folded(at) };
        let map = MapField::Shared(ChunkRef(Bytes::copy_from_slice(&base)));
        let beginning = Beginning { parent: PARENT, folded: to, map, image: None, history: Bytes::new() };
        // The model keeps the LSN that was asked for where nothing else is kept.
        let settings = Settings { expires_micros: at, ..Settings::new(1) };
        let mut head = lifecycle::child_head(&name(), CHILD, beginning, settings, put_id(1, 7));
        if self.is(Mutant::ForeignTail) {
            head.owner = self.known.owner;
            head.epoch = self.known.epoch;
            head.tail = self.known.tail.clone();
        }
        if let Err(broken) = head.check_first() {
            return Some(Err(format!("I2: {broken}: {self:#?}")));
        }
        Some(Ok(World { fork: Fork::Over, child_flight: Some(head), ..self.clone() }))
    }

    /// The owner is told to stop, or fails to reach the store. What it sent stays on its way.
    fn give_up(&self) -> Option<World> {
        matches!(self.fork, Fork::Pinned { .. }).then(|| World { fork: Fork::Over, ..self.clone() })
    }

    /// The other node folds what a dead owner left, and takes the database from it.
    fn drain(&self) -> Option<Next> {
        if !self.is_sealed || self.parent.owner.is_none() || self.parent.version >= VERSION_MAX {
            return None;
        }
        let mut world = self.clone();
        let (next, _) = world.folded_all(&self.parent, false);
        let drained = lifecycle::release(&next, next.folded.lsn, put_id(next.version, 3)).expect("all is folded");
        let drained = Head { version: next.version, ..drained };
        Some(invariant(&self.parent, &drained).map_err(|broken| format!("I6: {broken}")).map(|()| {
            world.parent = drained;
            world
        }))
    }

    /// Whoever may looks after the pin.
    fn scavenge(&self) -> Vec<Next> {
        let mut next = Vec::new();
        for (node, owner) in [(OWNER, OwnerState::Me), (OTHER, OwnerState::None)] {
            let is_allowed = (self.parent.owner == Some(node) && self.is_idle_owner() && !self.is_sealed)
                || (node == OTHER && self.parent.owner.is_none());
            let waits = self.flights.iter().any(|(by, _)| *by == node);
            if is_allowed && !waits && self.parent.is_pinned() && self.parent.version < VERSION_MAX {
                next.extend(self.scavenged(node, &owner));
            }
        }
        next
    }

    fn scavenged(&self, node: IncarnationId, owner: &OwnerState) -> Option<Next> {
        let child = self.child.as_ref().map(|head| {
            let reaches = matches!(head.map, MapField::Shared(_)) && !self.is(Mutant::UnpinReaching);
            ChildLook::Head { head, reaches }
        });
        let is_in_making = node == OWNER && matches!(self.fork, Fork::Pinned { .. });
        let mut plan = lifecycle::plan_pin(&self.parent, owner, child.unwrap_or(ChildLook::Missing), is_in_making);
        if self.is(Mutant::UnpinMissing) && plan == PinPlan::Occupy {
            plan = PinPlan::Unpin;
        }
        let mut world = self.clone();
        match plan {
            PinPlan::Keep => return None,
            PinPlan::Occupy => world.child = Some(lifecycle::abort(&name(), CHILD, None, 1, put_id(1, 8))),
            PinPlan::Unpin => {
                let mut history = History::of(&self.parent);
                history.pinned.clear();
                let (gone, fold_seq) = (BTreeSet::from([CHILD]), self.parent.fold_seq);
                let put = put_id(self.parent.version + 1, 4);
                let next = lifecycle::unpin(&self.parent, &gone, &BTreeMap::new(), history.encode(), fold_seq, put);
                world.flights.push((node, next));
            }
        }
        Some(Ok(world))
    }

    /// Somebody opens the fork, and its folds leave nothing of its parent's behind.
    fn merge(&self) -> Option<Next> {
        let child = self.child.as_ref().filter(|child| child.state == HeadState::Live && !self.is_merged)?;
        let owned = lifecycle::acquire(child, OTHER, put_id(2, 9));
        let fold = Fold {
            folded: owned.folded,
            own_after: owned.folded.lsn,
            map: MapField::Inline(Bytes::from_static(b"own")),
            image: None,
            horizon: owned.horizon,
            history: Bytes::new(),
            fold_seq: 1,
            dead: Vec::new(),
        };
        let merged = lifecycle::fold(&owned, fold, put_id(3, 9));
        let free = lifecycle::release(&merged, merged.folded.lsn, put_id(4, 9)).expect("all is folded");
        let steps = [(child, &owned), (&owned, &merged), (&merged, &free)];
        let broken = steps.into_iter().find_map(|(before, after)| invariant(before, after).err());
        Some(match broken {
            Some(broken) => Err(format!("I6: {broken}")),
            None => Ok(World { child: Some(free), is_merged: true, ..self.clone() }),
        })
    }

    /// Deletes one object that is dead.
    fn collect(&self) -> Vec<Next> {
        let history = History::of(&self.parent);
        let reachable: BTreeSet<&Base> = history.all().collect();
        let is_over = |base: &Base| {
            let (epoch, seq) = (u64::from(base[1]), u32::from(base[2]));
            epoch < self.parent.epoch || seq <= self.parent.fold_seq
        };
        let dead = self.objects.iter().filter(|base| !reachable.contains(base) && is_over(base));
        let delete = |base: &Base| {
            let mut world = self.clone();
            world.objects.remove(base);
            Ok(world)
        };
        dead.map(delete).collect()
    }

    /// A head arrives: it replaces the version that it was made from, or loses.
    fn land(&self, flight: usize) -> Next {
        let mut world = self.clone();
        let (node, head) = world.flights.remove(flight);
        let wins = world.parent.version + 1 == head.version;
        if wins {
            invariant(&world.parent, &head).map_err(|broken| format!("I6: {broken}: {self:#?}"))?;
            world.parent = head.clone();
        }
        if node == OWNER {
            world.known = world.parent.clone();
            if let Fork::Sent { at, base, put } = world.fork
                && put == head.put_id
            {
                let again = Fork::Chosen { at, base: Some(base) };
                world.fork = if wins { Fork::Pinned { at, base } } else { again };
            }
        }
        Ok(world)
    }

    fn land_child(&self) -> Option<Next> {
        let mut world = self.clone();
        let head = world.child_flight.take()?;
        world.child.get_or_insert(head);
        Some(Ok(world))
    }
}

/// The state after `lsn`: of commits there is only one history.
fn folded(lsn: u64) -> Folded {
    match lsn {
        0 => Folded::default(),
        _ => Folded { lsn: Lsn::new(lsn), chain: [lsn as u8; 16], time_micros: lsn, page_count: 1, pages_total: lsn },
    }
}

fn name() -> Name {
    Name::parse("app").expect("a name")
}

fn digest(head: &Head) -> impl std::fmt::Debug + '_ {
    let counters = (head.put_id, head.epoch, head.fold_seq, head.version);
    (counters, &head.state, head.owner, head.folded.lsn, head.horizon, &head.history, &head.map, head.pins.len())
}

fn put_id(version: u64, kind: u8) -> PutId {
    let mut bytes = [kind; 16];
    bytes[..8].copy_from_slice(&version.to_le_bytes());
    PutId::from_bytes(bytes)
}
