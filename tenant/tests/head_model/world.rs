//! One state of the model, and what can happen next.

use std::fmt::Write;

use bytes::Bytes;
use tenant::head::{Folded, Head, MapField, invariant};
use tenant::lifecycle::{self, Fold, OpenPlan, OwnerState};
use tenant::name::Name;
use tenant::naming::{NamePlan, plan_name};
use tenant::record::{NameRecord, NameState, Origin};
use tenant::settings::Settings;
use walstore::id::{DatabaseId, IncarnationId, Lsn, PutId};

const NODES: [IncarnationId; 2] = [IncarnationId::from_bytes([0xa; 16]), IncarnationId::from_bytes([0xb; 16])];
const COMMITS_MAX: u8 = 3;
const VERSION_MAX: u64 = 5;
const FLIGHTS_MAX: usize = 2;

/// A bug that the model must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Acquires from an owner whose log is still open.
    TakeOverBeforeSeal,
    /// A fold that lost is made again on whatever head is found, whoever owns it.
    BlindRetry,
    /// Commits are logged while the acquire is still travelling.
    LogBeforeAcquired,
    /// Releases without having folded everything.
    ReleaseUnfolded,
    /// Goes on with a database although its own release was never answered.
    ServeWhileLeaving,
    /// Folds as if the tail before the own commits had been empty.
    FoldForgetsOwnStart,
    /// Takes the head over without a new epoch.
    AcquireKeepsEpoch,
    /// Takes a database back that others had meanwhile, although its own log, which it cannot read, has commits of it.
    ForgetOwnTerm,
    /// Folds without noting in the name record that there is a head.
    ForgetMade,
}

/// One commit in a node's log. `on` is the commit on whose result it was executed.
#[derive(Clone, Debug)]
struct Logged {
    epoch: u64,
    lsn: u64,
    value: u8,
    on: Option<u8>,
}

/// What a node believes of a database that it owns, or is about to.
#[derive(Clone, Debug)]
struct Term {
    head: Head,
    /// Commits by LSN, from 1.
    history: Vec<u8>,
    own_after: u64,
    won: bool,
    /// This write of the head travels, and the node waits for its answer.
    waits: Option<PutId>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    log: Vec<Logged>,
    sealed: bool,
    term: Option<Term>,
    /// This release travels.
    leaving: Option<PutId>,
}

/// A head on its way to the bucket.
#[derive(Clone, Debug)]
struct Flight {
    node: usize,
    head: Head,
}

#[derive(Clone, Debug)]
pub struct World {
    mutant: Option<Mutant>,
    /// What the name leads to.
    record: NameRecord,
    head: Head,
    nodes: [Node; 2],
    flights: Vec<Flight>,
    commits: u8,
    acknowledged: Vec<u8>,
}

type Next = Result<World, String>;

impl World {
    pub fn new(mutant: Option<Mutant>) -> Self {
        let (name, database) = (Name::parse("app").unwrap(), DatabaseId::from_bytes([1; 16]));
        let head = lifecycle::first_head(&name, database, NODES[0], Settings::new(1), put_id(1, 0, 0));
        let (nodes, origin) = (Default::default(), Origin::Empty(Settings::new(1)));
        let state = NameState::Live { database, origin, incarnation: NODES[0], is_made: false };
        let record = NameRecord::new(put_id(0, 0, 5), name, state);
        Self { mutant, record, head, nodes, flights: Vec::new(), commits: 0, acknowledged: Vec::new() }
    }

    /// What tells this state from others: of each head only what differs between heads of this model.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut text = String::new();
        let mut add = |what: &dyn std::fmt::Debug| write!(text, "{what:?};").expect("text takes all");
        add(&(digest(&self.head), self.is_made(), self.commits, &self.acknowledged));
        for Node { log, sealed, term, leaving } in &self.nodes {
            let log: Vec<_> = log.iter().map(|c| (c.epoch, c.lsn, c.value, c.on)).collect();
            add(&(log, sealed, leaving));
            let term = term.as_ref().map(|t| (digest(&t.head), &t.history, t.own_after, t.won, t.waits));
            add(&term);
        }
        // In which order they were sent makes no difference: any of them may land next.
        let mut flights: Vec<_> = self.flights.iter().collect();
        flights.sort_by_key(|flight| flight.head.put_id);
        for flight in flights {
            add(&(flight.node, digest(&flight.head)));
        }
        blake3::hash(text.as_bytes()).into()
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub fn check(&self) -> Result<(), String> {
        let readable = self.readable(None)?;
        for value in &self.acknowledged {
            if readable.iter().filter(|read| *read == value).count() != 1 {
                return Err(format!("acknowledged {:?}, readable {readable:?}: {self:#?}", self.acknowledged));
            }
        }
        let plan = plan_name(Some(&self.record), None);
        if self.head.has_folded() && !matches!(plan, NamePlan::Lost { .. }) {
            return Err(format!("commits are folded, and if the head were lost, an empty database would be made: {self:#?}"));
        }
        Ok(())
    }

    /// The history as a recoverer reads it: what is folded, then what the tail's entries hold. A node does not read its
    /// own log, which it takes for open: that one is left out.
    fn readable(&self, left_out: Option<usize>) -> Result<Vec<u8>, String> {
        let MapField::Inline(folded) = &self.head.map else { panic!("only inline maps here") };
        let mut history = folded.to_vec();
        for entry in self.head.tail.iter().filter(|entry| left_out != Some(number(entry.incarnation))) {
            let node = &self.nodes[number(entry.incarnation)];
            let lsn = |commit: &Logged| Lsn::new(commit.lsn).expect("LSNs count from 1");
            for commit in node.log.iter().filter(|c| entry.holds(entry.incarnation, c.epoch, lsn(c))) {
                if commit.lsn <= Lsn::raw(self.head.folded.lsn) {
                    continue;
                }
                if commit.lsn != history.len() as u64 + 1 {
                    return Err(format!("LSN {} after {} commits: {self:#?}", commit.lsn, history.len()));
                }
                if commit.on != history.last().copied() {
                    return Err(format!("{} follows what it was not executed on: {self:#?}", commit.value));
                }
                history.push(commit.value);
            }
        }
        Ok(history)
    }

    pub fn successors(&self) -> Vec<Next> {
        let mut next = Vec::new();
        for node in 0..NODES.len() {
            next.extend(self.open(node).transpose());
            next.extend(self.commit(node).map(Ok));
            next.extend(self.folds(node));
            next.extend(self.release(node).transpose());
            next.extend(self.give_up(node).map(Ok));
            next.extend(self.seal(node).map(Ok));
        }
        next.extend(self.compact().transpose());
        next.extend((0..self.flights.len()).map(|flight| self.land(flight)));
        next
    }

    /// A node that doesn't have the database reads the head and does what the plan says.
    fn open(&self, node: usize) -> Result<Option<World>, String> {
        if self.nodes[node].term.is_some() {
            return Ok(None);
        }
        let mut plan = lifecycle::plan_open(&self.head, NODES[node], self.owner_state(node));
        if self.is(Mutant::TakeOverBeforeSeal) && matches!(plan, OpenPlan::OwnedElsewhere { .. }) {
            plan = OpenPlan::Acquire;
        }
        let mut history = self.readable(None)?;
        if self.is(Mutant::ForgetOwnTerm) && plan == OpenPlan::Fenced && self.owner_state(node) == OwnerState::Sealed {
            // With a gap it would notice.
            let Ok(without_own) = self.readable(Some(node)) else { return Ok(None) };
            (plan, history) = (OpenPlan::Acquire, without_own);
        }
        let mut world = self.clone();
        let own_after = self.own_after(node, &history);
        let head = self.head.clone();
        match plan {
            OpenPlan::Serve => {
                world.nodes[node].term = Some(Term { head, history, own_after, won: true, waits: None });
                Ok(Some(world))
            }
            OpenPlan::Confirm => {
                let next = lifecycle::confirm(&head, put_id(head.version + 1, node, 4));
                world.nodes[node].term = Some(Term { head, history, own_after, won: false, waits: Some(next.put_id) });
                world.send(node, next)
            }
            OpenPlan::Acquire => {
                let mut next = lifecycle::acquire(&head, NODES[node], put_id(head.version + 1, node, 1));
                if self.is(Mutant::AcquireKeepsEpoch) {
                    next.epoch = head.epoch;
                    next.tail = vec![tenant::head::TailEntry { epoch: head.epoch, ..next.tail[next.tail.len() - 1] }];
                }
                let waits = Some(next.put_id);
                world.nodes[node].term = Some(Term { head: next.clone(), history, own_after, won: false, waits });
                world.send(node, next)
            }
            _ => Ok(None),
        }
    }

    fn owner_state(&self, node: usize) -> OwnerState {
        match self.head.owner {
            None => OwnerState::None,
            Some(owner) if owner == NODES[node] => {
                let is_leaving = self.nodes[node].leaving.is_some() && !self.is(Mutant::ServeWhileLeaving);
                if is_leaving { OwnerState::MeLeaving } else { OwnerState::Me }
            }
            Some(owner) if self.nodes[number(owner)].sealed => OwnerState::Sealed,
            Some(_) => OwnerState::Alive { address: String::new() },
        }
    }

    /// Where the commits of the node's present term begin: after everything that others logged before.
    fn own_after(&self, node: usize, history: &[u8]) -> u64 {
        let owned = self.head.owner == Some(NODES[node]);
        let own = self.nodes[node].log.iter().filter(|c| owned && c.epoch == self.head.epoch).map(|c| c.lsn);
        own.min().map_or(history.len() as u64, |first| first - 1)
    }

    /// A commit that reaches an open log is durable, and is acknowledged if the node has won the database.
    fn commit(&self, node: usize) -> Option<World> {
        let term = self.nodes[node].term.as_ref()?;
        let may = term.won || self.is(Mutant::LogBeforeAcquired);
        if !may || self.nodes[node].sealed || self.commits >= COMMITS_MAX {
            return None;
        }
        let mut world = self.clone();
        world.commits += 1;
        let value = world.commits;
        let Node { log, term, .. } = &mut world.nodes[node];
        let term = term.as_mut()?;
        let lsn = term.history.len() as u64 + 1;
        log.push(Logged { epoch: term.head.epoch, lsn, value, on: term.history.last().copied() });
        term.history.push(value);
        if term.won {
            world.acknowledged.push(value);
        }
        Some(world)
    }

    /// The owner sends a fold up to any of its commits.
    fn folds(&self, node: usize) -> Vec<Next> {
        let Some(term) = self.idle_owner(node) else { return Vec::new() };
        if !term.history.is_empty() && !term.head.has_folded() && !self.is_made() && !self.is(Mutant::ForgetMade) {
            return vec![Ok(self.noted(&term.head))];
        }
        let folded = Lsn::raw(term.head.folded.lsn);
        let fold = |to| {
            let mut world = self.clone();
            let next = self.folded(term, &term.head, to, put_id(term.head.version + 1, node, 2));
            world.nodes[node].term.as_mut().expect("a term").waits = Some(next.put_id);
            world.send(node, next).transpose()
        };
        (folded + 1..=term.history.len() as u64).filter_map(fold).collect()
    }

    fn is_made(&self) -> bool {
        matches!(self.record.state, NameState::Live { is_made: true, .. })
    }

    /// The name says from here on that there was a head. Its writer asks until it is known to, and then goes on, so it is
    /// one step; he may die right after it.
    fn noted(&self, head: &Head) -> World {
        let mut world = self.clone();
        world.record = self.record.made(head, put_id(0, 0, 6)).expect("nobody else changes the record");
        world
    }

    fn folded(&self, term: &Term, onto: &Head, to: u64, put_id: PutId) -> Head {
        let own_after = if self.is(Mutant::FoldForgetsOwnStart) { 0 } else { term.own_after };
        let history = &term.history[..to as usize];
        let folded = Folded {
            lsn: Lsn::new(to),
            chain: [history.last().copied().unwrap_or(0); 16],
            time_micros: to,
            page_count: 1,
            pages_total: to,
        };
        let map = MapField::Inline(Bytes::copy_from_slice(history));
        let fold = Fold {
            folded,
            own_after: Lsn::new(own_after),
            map,
            image: None,
            horizon: None,
            history: Bytes::new(),
            fold_seq: onto.fold_seq,
            dead: Vec::new(),
        };
        lifecycle::fold(onto, fold, put_id)
    }

    /// The owner gives the database up. It has stopped writing, so its term ends here.
    fn release(&self, node: usize) -> Result<Option<World>, String> {
        let Some(term) = self.idle_owner(node) else { return Ok(None) };
        let last = match self.mutant {
            Some(Mutant::ReleaseUnfolded) => term.head.folded.lsn,
            _ => Lsn::new(term.history.len() as u64),
        };
        let Ok(next) = lifecycle::release(&term.head, last, put_id(term.head.version + 1, node, 3)) else {
            return Ok(None);
        };
        let mut world = self.clone();
        world.nodes[node].term = None;
        world.nodes[node].leaving = Some(next.put_id);
        world.send(node, next)
    }

    /// One of the nodes does not have the database and finds that nobody has it. It sends the same pages in another place.
    fn compact(&self) -> Result<Option<World>, String> {
        let is_free = self.head.owner.is_none() && self.head.has_folded();
        if !is_free || self.nodes[1].term.is_some() {
            return Ok(None);
        }
        let fold = Fold {
            folded: self.head.folded,
            own_after: self.head.folded.lsn,
            map: self.head.map.clone(),
            image: None,
            horizon: None,
            history: Bytes::new(),
            fold_seq: self.head.fold_seq + 1,
            dead: Vec::new(),
        };
        self.clone().send(1, lifecycle::fold(&self.head, fold, put_id(self.head.version + 1, 1, 7)))
    }

    fn idle_owner(&self, node: usize) -> Option<&Term> {
        self.nodes[node].term.as_ref().filter(|term| term.won && term.waits.is_none())
    }

    /// The node drops the database, whatever it waits for.
    fn give_up(&self, node: usize) -> Option<World> {
        self.nodes[node].term.as_ref().filter(|term| term.waits.is_some())?;
        let mut world = self.clone();
        world.nodes[node].term = None;
        Some(world)
    }

    fn seal(&self, node: usize) -> Option<World> {
        let mut world = self.clone();
        (!std::mem::replace(&mut world.nodes[node].sealed, true)).then_some(world)
    }

    fn send(mut self, node: usize, head: Head) -> Result<Option<World>, String> {
        if self.flights.len() >= FLIGHTS_MAX || head.version > VERSION_MAX {
            return Ok(None);
        }
        self.flights.push(Flight { node, head });
        Ok(Some(self))
    }

    /// A head arrives: it replaces the version that it was made from, or loses.
    fn land(&self, flight: usize) -> Next {
        let mut world = self.clone();
        let Flight { node, head } = world.flights.remove(flight);
        if world.nodes[node].leaving == Some(head.put_id) {
            world.nodes[node].leaving = None;
        }
        if world.head.version + 1 != head.version {
            return world.lost(node, head);
        }
        invariant(&world.head, &head).map_err(|broken| format!("{broken}: {self:#?}"))?;
        world.head = head.clone();
        if let Some(term) = world.nodes[node].term.as_mut().filter(|term| term.waits == Some(head.put_id)) {
            *term = Term { head, won: true, waits: None, ..term.clone() };
            world.nodes[node].leaving = None;
        }
        Ok(world)
    }

    /// The loser reads the head. It goes on only if the database is still its own, in the same term.
    fn lost(mut self, node: usize, head: Head) -> Next {
        let found = self.head.clone();
        let term = self.nodes[node].term.as_ref().filter(|term| term.waits == Some(head.put_id));
        let Some(term) = term.cloned() else { return Ok(self) };
        let to = Lsn::raw(head.folded.lsn);
        if self.is(Mutant::BlindRetry) && term.won && to > Lsn::raw(found.folded.lsn) {
            let next = self.folded(&term, &found, to, put_id(found.version + 1, node, 2));
            self.nodes[node].term = Some(Term { waits: Some(next.put_id), ..term });
            return Ok(self.clone().send(node, next)?.unwrap_or(self));
        }
        let is_mine = term.won && found.owner == Some(NODES[node]) && found.epoch == term.head.epoch;
        self.nodes[node].term = is_mine.then_some(Term { head: found, waits: None, ..term });
        Ok(self)
    }
}

fn digest(head: &Head) -> impl std::fmt::Debug + '_ {
    let tail: Vec<_> = head.tail.iter().map(|e| (number(e.incarnation), e.epoch, Lsn::raw(e.after))).collect();
    (head.put_id, head.epoch, head.owner.map(number), Lsn::raw(head.folded.lsn), &head.map, tail)
}

fn number(incarnation: IncarnationId) -> usize {
    NODES.iter().position(|id| *id == incarnation).expect("one of the two nodes")
}

/// Distinct for every version, node and kind of write; equal for two tries of one write from one version,
/// which only ever differ in time.
fn put_id(version: u64, node: usize, kind: u8) -> PutId {
    let mut bytes = [kind; 16];
    bytes[..8].copy_from_slice(&version.to_le_bytes());
    bytes[8] = node as u8;
    PutId::from_bytes(bytes)
}
