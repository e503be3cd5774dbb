//! A database that is open on a node, and what its owner does with it: append, fold, release, delete.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tenant::head::{Head, MapField, PackRef};
use tenant::lifecycle;
use tenant::registry::{self, DeleteError};
use walstore::fragment::Entry as LogEntry;
use walstore::id::{DatabaseId, Lsn, PutId, Slot};
use walstore::keys::hash_prefix;
use walstore::log;
use walstore::register::{Backoff, Patience, Swap, Versioned};
use walstore::store::{Condition, Key};

use crate::ledger::{Entry, Outcome};
use crate::node::{Node, NotOpen};
use crate::toy::{self, CommitNo, Tip};

/// How long a planned move waits for the log.
const DRAIN_PATIENCE: Duration = Duration::from_millis(1500);
/// It waits at most so long for the head: often less than one request takes, so that releases stay unanswered.
const RELEASE_MICROS_MAX: u64 = 60_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Serving,
    /// A release was sent, or is about to be.
    Leaving,
    Deleting,
    Lost,
}

pub struct State {
    pub standing: Standing,
    pub history: Vec<CommitNo>,
    /// The tips after the folded point and after each commit since.
    tips: Vec<Tip>,
    pub durable: Option<Lsn>,
    /// Where this log holds what is durable and not folded.
    pub slots: Vec<(Lsn, Slot)>,
}

impl State {
    fn folded(&self) -> &Tip {
        &self.tips[0]
    }

    pub fn newest(&self) -> &Tip {
        self.tips.last().expect("there is always the folded point")
    }
}

pub struct Database {
    pub id: DatabaseId,
    pub name: tenant::name::Name,
    pub epoch: u64,
    own_after: Option<Lsn>,
    pub head: tokio::sync::Mutex<Versioned<Head>>,
    state: Mutex<State>,
    /// Entries of the head's dead list that are deleted already.
    deleted: Mutex<Vec<PackRef>>,
}

impl Database {
    /// `tips` are those of the folded point, before this owner's first commit, and the newest.
    pub fn new(head: Versioned<Head>, history: Vec<CommitNo>, tips: [Tip; 3], slots: Vec<(Lsn, Slot)>) -> Self {
        let (own_after, newest) = (tips[1].lsn, tips[2]);
        // What lies between is folded only together with what comes after it.
        let mut tips = tips.to_vec();
        tips.dedup();
        let state = State { standing: Standing::Serving, durable: newest.lsn, history, tips, slots };
        Self {
            id: head.value.database,
            name: head.value.name.clone(),
            epoch: head.value.epoch,
            own_after,
            head: tokio::sync::Mutex::new(head),
            state: Mutex::new(state),
            deleted: Mutex::default(),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn has_unfolded(&self) -> bool {
        let state = self.state();
        state.newest().lsn > state.folded().lsn
    }

    /// Appends a commit; `None` if it is refused.
    pub fn append(&self, node: &Node) -> Option<CommitNo> {
        let mut state = self.state();
        if state.standing != Standing::Serving || !node.may_serve() {
            return None;
        }
        let tip = *state.newest();
        let (number, next) = log_commit(node, (self.id, self.epoch), &tip, Outcome::Unknown);
        state.history.push(number);
        state.tips.push(next);
        Some(number)
    }

    /// What a fold of everything durable makes of `head`: the pack and the change.
    fn plan_fold(&self, node: &Node, head: &Head) -> (Option<(Key, Bytes)>, lifecycle::Fold, Tip) {
        let state = self.state();
        let tip = *state.tips.iter().rev().find(|tip| tip.lsn <= state.durable).expect("what is folded is durable");
        let mut dead = head.dead.clone();
        dead.retain(|it| !self.deleted.lock().unwrap().contains(it));
        let mut fold = lifecycle::Fold {
            folded: head.folded,
            own_after: self.own_after,
            map: head.map.clone(),
            image: None,
            horizon: tip.lsn,
            history: head.history.clone(),
            fold_seq: head.fold_seq,
            dead,
        };
        if tip.lsn == head.folded.lsn {
            return (None, fold, tip);
        }
        let pack = fold_to(node, head, &mut fold, &state.history, &tip);
        (Some(pack), fold, tip)
    }

    /// Folds what is durable: pack, then head.
    pub async fn fold(&self, node: &Arc<Node>) {
        let mut head = self.head.lock().await;
        if self.state().standing != Standing::Serving {
            return;
        }
        let (pack, fold, tip) = self.plan_fold(node, &head.value);
        if !put_pack(node, pack, node.patience()).await {
            return;
        }
        let next = lifecycle::fold(&head.value, fold, PutId::random(&node.seam));
        if !node.note_made(&head.value, &next, node.patience()).await {
            return;
        }
        // The outcome must be known before anything goes on.
        match node.swap(&head, next, Patience::endless()).await {
            Ok(Swap::Won(won)) => {
                *head = won;
                self.rebase(node, &tip);
                self.delete_dead(node, &head.value);
            }
            Ok(Swap::Lost(found)) => self.adopt(node, &mut head, found),
            Err(_) => {}
        }
    }

    /// Goes on from a head that changed under a write, if only a write of our own can have changed it.
    fn adopt(&self, node: &Node, head: &mut Versioned<Head>, found: Option<Versioned<Head>>) {
        let is_mine = |found: &Versioned<Head>| {
            let head = &found.value;
            head.owner == Some(node.id) && head.epoch == self.epoch && !head.state.is_final()
        };
        match found.filter(is_mine) {
            Some(found) => {
                let folded = Tip::of_folded(self.id, &found.value.folded);
                *head = found;
                self.rebase(node, &folded);
            }
            None => self.state().standing = Standing::Lost,
        }
    }

    fn rebase(&self, node: &Node, folded: &Tip) {
        let mut state = self.state();
        let kept = state.tips.iter().position(|tip| tip.lsn >= folded.lsn).unwrap_or(state.tips.len() - 1);
        state.tips.drain(..kept);
        state.slots.retain(|(lsn, _)| Some(*lsn) > folded.lsn);
        if let Some(lsn) = folded.lsn {
            node.log.folded(self.id, lsn);
        }
    }

    fn delete_dead(&self, node: &Arc<Node>, head: &Head) {
        if !node.may_serve() {
            return;
        }
        let mut deleted = self.deleted.lock().unwrap();
        for dead in head.dead.iter().filter(|it| !deleted.contains(it)).cloned().collect::<Vec<_>>() {
            let key = pack_key(self.id, std::str::from_utf8(&dead.0).expect("a part of a key"));
            let store = node.stores.main.clone();
            // Whether it succeeds or not: what stays is an orphan.
            node.seam.spawn(async move { drop(store.delete(&key).await) });
            deleted.push(dead);
        }
    }

    /// Gives the database up: stop writes, drain, fold everything, and let go in the same write.
    pub async fn release(&self, node: &Arc<Node>) -> Result<(), NotOpen> {
        let mut head = self.head.lock().await;
        {
            let mut state = self.state();
            if state.standing != Standing::Serving {
                return Ok(());
            }
            state.standing = Standing::Leaving;
        }
        tokio::select! {
            biased;
            () = node.log.drain() => {}
            () = node.seam.sleep(DRAIN_PATIENCE) => {}
        }
        let last = self.state().newest().lsn;
        if self.state().durable < last {
            return Ok(());
        }
        let (pack, fold, tip) = self.plan_fold(node, &head.value);
        if !put_pack(node, pack, node.patience()).await {
            return Ok(());
        }
        let next = lifecycle::drain(&head.value, fold, last, PutId::random(&node.seam));
        let next = next.map_err(|error| NotOpen(error.to_string()))?;
        if !node.note_made(&head.value, &next, node.patience()).await {
            return Ok(());
        }
        let waits = Duration::from_micros(node.seam.random_u64() % RELEASE_MICROS_MAX);
        let swap = tokio::select! {
            biased;
            swap = node.swap(&head, next, node.patience()) => swap?,
            () = node.seam.sleep(waits) => return Ok(()),
        };
        match swap {
            Swap::Won(_) => {
                self.rebase(node, &tip);
                node.past_terms.lock().unwrap().push((self.id, self.epoch, tip));
                self.state().standing = Standing::Lost;
            }
            Swap::Lost(found) => self.adopt(node, &mut head, found),
        }
        Ok(())
    }

    /// Deletes the database. Once begun it is carried through, however often the store fails.
    pub async fn delete(&self, node: &Arc<Node>) {
        let head = self.head.lock().await;
        {
            let mut state = self.state();
            if state.standing != Standing::Serving {
                return;
            }
            state.standing = Standing::Deleting;
        }
        let mut head = head.clone();
        let mut backoff = Backoff::default();
        loop {
            let (store, seam) = (&*node.stores.main, &node.seam);
            match registry::delete_database(store, seam, &head, node.id, Patience::endless()).await {
                Ok(_) => break,
                Err(DeleteError::Conflict { found }) if found.value.state.is_final() => break,
                Err(DeleteError::Conflict { found }) if found.value.owner == Some(node.id) => head = *found,
                Err(DeleteError::Conflict { .. } | DeleteError::NotOwner { .. }) => {
                    self.state().standing = Standing::Lost;
                    return;
                }
                Err(_) => backoff.pause(seam).await,
            }
        }
        let mut state = self.state();
        if let Some(last) = state.newest().lsn {
            node.log.folded(self.id, last);
        }
        state.standing = Standing::Lost;
    }
}

/// Makes `fold` one that ends at `tip`. Returns its pack.
pub fn fold_to(
    node: &Node,
    head: &Head,
    fold: &mut lifecycle::Fold,
    history: &[CommitNo],
    tip: &Tip,
) -> (Key, Bytes) {
    let part = format!("{:016x}-00000000-{:016x}", head.epoch, node.seam.random_u64());
    let key = pack_key(head.database, &part);
    if let MapField::Inline(old) = &head.map
        && !old.is_empty()
    {
        let (_, part) = std::str::from_utf8(old).expect("a key").rsplit_once('/').expect("a key of a pack");
        fold.dead.push(PackRef(Bytes::copy_from_slice(part.as_bytes())));
    }
    fold.folded = tip.to_folded();
    fold.horizon = tip.lsn;
    fold.map = MapField::Inline(Bytes::copy_from_slice(key.as_str().as_bytes()));
    (key, toy::encode_pack(&history[..Lsn::raw(tip.lsn) as usize]))
}

fn pack_key(database: DatabaseId, part: &str) -> Key {
    let id = database.to_string();
    Key::new(format!("t/{}/{id}/p/{part}", hash_prefix(&id)))
}

pub async fn put_pack(node: &Node, pack: Option<(Key, Bytes)>, patience: Patience) -> bool {
    let Some((key, bytes)) = pack else { return true };
    let mut backoff = Backoff::default();
    loop {
        match node.stores.main.put(&key, bytes.clone(), &Condition::None).await {
            Ok(_) => return true,
            Err(error) if error.is_permanent() || patience.has_ended(&node.seam) => return false,
            Err(_) => backoff.pause(&node.seam).await,
        }
    }
}

/// Puts a commit into the node's log and into the world's ledger.
pub fn log_commit(node: &Node, (database, epoch): (DatabaseId, u64), tip: &Tip, outcome: Outcome) -> (CommitNo, Tip) {
    let mut known = node.watch.known();
    let (bytes, next) = toy::commit(tip, node.seam.wall_micros(), known.ledger.next_number());
    let lsn = Lsn::after(tip.lsn);
    let number = known.ledger.enter(Entry { database, epoch, lsn, incarnation: node.id, outcome, slot: None });
    drop(known);
    let entry = LogEntry { database, epoch, lsn, bytes: bytes.into() };
    node.log.append(log::Commit { entry, window_micros: 0, home: 0, side: None });
    (number, next)
}

impl Node {
    /// A client appends some commits, one after the other.
    pub async fn write(self: Arc<Self>, name: tenant::name::Name, count: u64) {
        for _ in 0..count {
            let Ok(database) = self.open(&name, true).await else { return };
            database.append(&self);
        }
    }

    /// A thread that was slow appends to a database that this node has given up. Its client is refused.
    pub fn straggle(&self) {
        let term = self.past_terms.lock().unwrap().pop();
        if let Some((database, epoch, tip)) = term {
            log_commit(self, (database, epoch), &tip, Outcome::Refused);
        }
    }

    /// Stops writes, waits until everything is durable and seals the log; then the process is gone.
    pub async fn shut_down(self: Arc<Self>) {
        self.is_draining.store(true, Ordering::Relaxed);
        for database in self.all() {
            let mut state = database.state();
            if state.standing == Standing::Serving {
                state.standing = Standing::Lost;
            }
        }
        if let Some(incarnation) = self.incarnation.get() {
            let sealed = incarnation.shut_down(Duration::from_secs(5)).await;
            sealed.map(|_| ()).unwrap_or_else(|error| self.examine_seal(&error));
        }
        self.life.die();
    }
}
