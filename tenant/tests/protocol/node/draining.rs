//! Bundling and draining what incarnations that are over have left, as `pageserver::drain` does it, with the toy's
//! packs in place of pages.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tenant::draining;
use tenant::head::Head;
use tenant::lifecycle::{self, OwnerState};
use tenant::registry;
use walstore::id::{DatabaseId, IncarnationId, Lsn, PutId};
use walstore::incarnation::{IncarnationRecord, State};
use walstore::keys;
use walstore::recovery::{Access, SealedLog};
use walstore::register::{self, Patience, Swap, Versioned};
use walstore::run::Run;
use walstore::seal::SealError;
use walstore::{bundling, drained};

use super::opening::Read;
use super::{Node, NotOpen, not_open};
use crate::database;

/// Heads and logs that change under a drain more often than this are left to the next sweep.
const ROUNDS_MAX: usize = 8;
/// Some drains give up early, with requests of unknown outcome.
const HURRIED: Duration = Duration::from_millis(40);
/// Looks at one record while it is renewed.
const LOOKS_MAX: usize = 8;

impl Node {
    /// Looks at everything that is not drained. Returns how many incarnations are left, itself not counted.
    pub async fn sweep(self: Arc<Self>) -> usize {
        if !self.has_started() {
            return usize::MAX;
        }
        let Ok(mut found) = drained::list_live(self.access()).await else { return usize::MAX };
        found.retain(|id| *id != self.id);
        let first = self.seam.random_u64() as usize % found.len().max(1);
        found.rotate_left(first);
        let mut left = 0;
        for id in found {
            let is_drained = self.drain(id).await.unwrap_or(false);
            left += usize::from(!is_drained);
        }
        left
    }

    fn access(&self) -> Access<'_> {
        let is_hurried = self.seam.random_u64().is_multiple_of(4);
        let patience = if is_hurried { Patience::for_duration(&self.seam, HURRIED) } else { self.patience() };
        Access { stores: &self.stores, seam: &self.seam, patience }
    }

    /// Drains one incarnation. `false`: it lives, or a head needs some of its commits still.
    async fn drain(self: &Arc<Self>, id: IncarnationId) -> Result<bool, NotOpen> {
        if !self.is_over(id).await? {
            return Ok(false);
        }
        let examined = |result: Result<_, SealError>| result.inspect_err(|error| self.examine_seal(error)).map_err(not_open);
        examined(self.others.seal(id).await)?;
        // Renewed in the last moment, it lives.
        if !self.is_sealed(id).await? {
            return Ok(false);
        }
        let bundled = bundling::bundle(self.access(), id).await;
        bundled.inspect_err(|error| self.examine_seal(error)).map_err(not_open)?;
        let log = SealedLog::open(self.access(), id).await;
        let log = log.inspect_err(|error| self.examine_seal(error)).map_err(not_open)?;
        let mut is_needed = false;
        for block in log.blocks() {
            let runs = log.block(self.access(), block).await;
            let runs = runs.inspect_err(|error| self.examine_seal(error)).map_err(not_open)?;
            for (database, last) in by_database(&runs) {
                is_needed |= !self.drain_database(id, database, &last).await.unwrap_or(false);
            }
        }
        if is_needed {
            return Ok(false);
        }
        examined(drained::forget(self.access(), id).await)?;
        self.watch.known().forgotten += 1;
        Ok(true)
    }

    /// Whether the log of `id` has an end or may get one: its record stays as it is for a lease.
    async fn is_over(&self, id: IncarnationId) -> Result<bool, NotOpen> {
        let mut renewed = None;
        for _ in 0..LOOKS_MAX {
            let probe = self.others.probe(id).await;
            let probe = probe.inspect_err(|error| self.examine(error)).map_err(not_open)?;
            if !matches!(probe.state, OwnerState::Alive { .. }) {
                return Ok(true);
            }
            if *renewed.get_or_insert(probe.renewed) != probe.renewed {
                return Ok(false);
            }
            self.seam.sleep(probe.ask_again).await;
        }
        Ok(false)
    }

    async fn is_sealed(&self, id: IncarnationId) -> Result<bool, NotOpen> {
        let (store, seam) = (&*self.stores.main, &self.seam);
        let record = register::read::<IncarnationRecord>(store, seam, &keys::incarnation(id), self.patience()).await;
        let record = record.inspect_err(|error| self.examine(error)).map_err(not_open)?;
        Ok(record.is_some_and(|record| matches!(record.value.state, State::Sealed { .. })))
    }

    /// `false`: somebody who may live has it.
    async fn drain_database(
        self: &Arc<Self>,
        id: IncarnationId,
        database: DatabaseId,
        last: &[(u64, Lsn)],
    ) -> Result<bool, NotOpen> {
        'again: for _ in 0..ROUNDS_MAX {
            let head = registry::read_head(&*self.stores.main, &self.seam, database, self.patience()).await;
            let head = head.inspect_err(|error| self.examine(error)).map_err(not_open)?;
            let Some(head) = head else {
                self.watch.broken(format!("I7: {id} has commits of {database}, whose head is not there"));
                return Ok(false);
            };
            if let Some(lsn) = draining::unknown_to(&head.value, id, last) {
                self.watch.broken(format!("I1: the head of {database} knows nothing of commit {lsn} of {id}"));
            }
            if !draining::needs(&head.value, id, last) {
                return Ok(true);
            }
            for entry in &head.value.tail {
                if !self.is_sealed(entry.incarnation).await? {
                    return Ok(false);
                }
            }
            let Ok(read) = self.read_history(&head, None).await else { continue 'again };
            self.watch.check(|known| known.loaded(database, head.value.epoch, &read.history));
            if self.fold_tail(head, &read).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// One fold takes the tail and gives the database up, in one CAS; sometimes another goes before it, as if the tail
    /// were too large for one. `false`: somebody was faster.
    async fn fold_tail(&self, mut head: Versioned<Head>, read: &Read) -> Result<bool, NotOpen> {
        let own_after = draining::own_after(&head.value, read.epochs.iter().copied());
        let last = read.tips.len() - 1;
        let dice = self.seam.random_u64();
        let first = if dice.is_multiple_of(3) { 1 + (dice >> 8) as usize % last.max(1) } else { last };
        let ends = if first < last { vec![first, last] } else { vec![last] };
        for end in ends {
            let tip = &read.tips[end];
            let mut fold = lifecycle::Fold {
                folded: head.value.folded,
                own_after,
                map: head.value.map.clone(),
                image: None,
                horizon: tip.lsn,
                history: head.value.history.clone(),
                fold_seq: head.value.fold_seq,
                // It stays for the next owner: he knows his readers.
                dead: head.value.dead.clone(),
            };
            if tip.lsn > head.value.folded.lsn {
                let pack = database::fold_to(self, &head.value, &mut fold, &read.history, tip);
                if !database::put_pack(self, Some(pack), self.patience()).await {
                    return Err(not_open("the store does not take the pack"));
                }
            }
            let put_id = PutId::random(&self.seam);
            let next = match end == last {
                true => lifecycle::drain(&head.value, fold, tip.lsn, put_id).map_err(not_open)?,
                false => lifecycle::fold(&head.value, fold, put_id),
            };
            if !self.note_made(&head.value, &next, self.patience()).await {
                return Err(not_open("its name does not say that it was made"));
            }
            match self.swap(&head, next, self.patience()).await? {
                Swap::Won(won) => head = won,
                Swap::Lost(_) => return Ok(false),
            }
        }
        self.watch.check(|known| {
            known.drained += 1;
            known.loaded(head.value.database, head.value.epoch, &read.history)
        });
        Ok(true)
    }
}

/// The last LSN of each database in these runs, for each epoch.
fn by_database(runs: &[Run]) -> BTreeMap<DatabaseId, Vec<(u64, Lsn)>> {
    let mut all: BTreeMap<DatabaseId, Vec<(u64, Lsn)>> = BTreeMap::new();
    for run in runs {
        let last = Lsn::new(run.last()).unwrap_or(run.first);
        all.entry(run.database).or_default().push((run.epoch, last));
    }
    all
}
