//! The past of one database: its index, every run and base that this names, and where forks begin.

use std::collections::BTreeSet;

use segments::commit::UncheckedCommit;
use segments::history::{Entry, HistoryIndex, Run};
use segments::id::PackId;
use segments::keys;
use segments::pack::read_pack;
use segments::tip::Tip;
use tenant::head::Head;
use tenant::registry::{self, Pins};
use walstore::envelope::Corrupt;
use walstore::id::Lsn;

use super::{VerifyError, object_at};
use super::database::Look;
use super::pages::check_history;
use super::walk::Walk;
use crate::base::{stored_base, tip_of};
use crate::collect;
use crate::heavy::heavy;
use crate::history::{index_of, path_to, read_chunk, read_run};

impl Walk<'_> {
    /// Checks all that a head keeps of the past, and notes what it leads to.
    pub(super) async fn check_past(&mut self, head: &Head, look: &mut Look) -> Result<(), VerifyError> {
        let key = tenant::keys::head(head.database);
        let reached = collect::reach(&self.fetcher, head, None).await;
        match look.take(reached)? {
            Some(reached) => look.referenced.extend(reached.keys),
            None => look.is_partial = true,
        }
        let Some(index) = look.take(index_of(head).map_err(Into::into))? else { return Ok(()) };
        for pin in self.pins_of(head, look).await?.all().filter_map(|pin| pin.lsn) {
            if !index.pinned().any(|(kept, _)| kept == pin) {
                look.damage(Corrupt::new(format!("a fork begins at {pin}, but no base of it is kept")).at(&key));
            }
        }
        if let Some(horizon) = head.horizon.filter(|horizon| Some(*horizon) < head.folded.lsn) {
            let path = path_to(&self.fetcher, head, &index, horizon).await;
            look.take(path)?;
        }
        let mut seen = BTreeSet::new();
        for (lsn, base) in index.pinned() {
            self.check_base(head, lsn, &base, &mut seen, look).await?;
        }
        self.check_chain(head, &index, &mut seen, look).await
    }

    /// Where forks begin, as far as that can be read.
    async fn pins_of(&mut self, head: &Head, look: &mut Look) -> Result<Pins, VerifyError> {
        look.referenced.extend(head.pin_chunks.iter().cloned());
        let read = registry::read_pins(&*self.stores.main, self.seam, head, self.access().patience).await;
        Ok(look.take(read)?.unwrap_or_default())
    }

    /// Follows the commits from the start of the index to the folded point.
    async fn check_chain(
        &mut self,
        head: &Head,
        index: &HistoryIndex,
        seen: &mut BTreeSet<PackId>,
        look: &mut Look,
    ) -> Result<(), VerifyError> {
        let mut entries = Vec::new();
        for reference in index.chunks() {
            let read = read_chunk(&self.fetcher, head.database, reference).await;
            // Told already, by the search for what it leads to.
            let Some(chunk) = look.take(read)? else { return Ok(()) };
            entries.extend(chunk.entries);
        }
        entries.extend(index.entries());
        // Without a start the first base says where the history is.
        let mut tip = index.start_of_kept().is_none().then(|| Tip::before_first(head.database));
        for entry in entries {
            tip = match entry {
                Entry::Base { lsn, base } => {
                    let found = self.check_base(head, lsn, &base, seen, look).await?;
                    if found.is_some() && tip.is_some() && found != tip {
                        let reason = format!("a base as of {lsn} that the commits before it do not lead to");
                        look.damage(Corrupt::new(reason).at(keys::page_map(&base.id)));
                    }
                    found.or(tip)
                }
                Entry::Run(run) => self.check_run(tip, &run, seen, look).await?,
            };
        }
        if !index.is_empty() && index.end() == head.folded.lsn && tip.is_some_and(|tip| tip != tip_of(head)) {
            let reason = "its history leads to another state than the one that is folded";
            look.damage(Corrupt::new(reason).at(tenant::keys::head(head.database)));
        }
        Ok(())
    }

    /// The history after the run, if it is known and goes on as it should. Its pack is read whole: maybe no page map leads
    /// there any more.
    async fn check_run(
        &mut self,
        tip: Option<Tip>,
        run: &Run,
        seen: &mut BTreeSet<PackId>,
        look: &mut Look,
    ) -> Result<Option<Tip>, VerifyError> {
        if seen.insert(run.pack) {
            self.check_old_pack(&run.pack, look).await?;
        }
        let read = read_run(&self.fetcher, run).await;
        let Some(history) = look.take(read)? else { return Ok(None) };
        let Some(mut tip) = tip else { return Ok(None) };
        for commit in &history.commits {
            match UncheckedCommit::decode(commit).and_then(|commit| commit.check(&tip)) {
                Ok(commit) => tip = commit.tip(),
                Err(corrupt) => {
                    look.damage(corrupt.at(keys::pack(&run.pack)));
                    return Ok(None);
                }
            }
            self.summary.commits += 1;
        }
        if tip.time_micros != run.last_micros {
            let reason = format!("its last commit is not of the time that the history's index has: {}", run.last_micros);
            look.damage(Corrupt::new(reason).at(keys::pack(&run.pack)));
        }
        Ok(Some(tip))
    }

    /// The history up to a base, if it can be read. Each pack that it names is read whole.
    async fn check_base(
        &mut self,
        head: &Head,
        lsn: Lsn,
        reference: &segments::base::BaseRef,
        seen: &mut BTreeSet<PackId>,
        look: &mut Look,
    ) -> Result<Option<Tip>, VerifyError> {
        let read = stored_base(&self.fetcher, head.database, reference).await;
        let Some(base) = look.take(read)? else { return Ok(None) };
        let key = keys::page_map(&reference.id);
        if base.tip.lsn != Some(lsn) {
            look.damage(Corrupt::new(format!("a base as of {:?}, where {lsn} is wanted", base.tip.lsn)).at(&key));
            return Ok(None);
        }
        let parts = match base.parts() {
            Ok(parts) => parts,
            Err(corrupt) => {
                look.damage(corrupt.at(&key));
                return Ok(None);
            }
        };
        let mut map = parts.map;
        for reference in map.missing_chunks() {
            let read = self.fetcher.chunk(head.database, &reference).await;
            match look.take(read)?.map(|object| map.with_chunk(&reference, &object)) {
                Some(Ok(with)) => map = with,
                Some(Err(corrupt)) => look.damage(corrupt.at(keys::page_map(&reference.id))),
                None => {}
            }
        }
        for pack in map.packs().unwrap_or_default() {
            if !parts.image.as_ref().is_some_and(|image| image.is_pack(&pack)) && seen.insert(pack) {
                self.check_old_pack(&pack, look).await?;
            }
        }
        Ok(Some(base.tip))
    }

    async fn check_old_pack(&mut self, id: &PackId, look: &mut Look) -> Result<(), VerifyError> {
        let key = keys::pack(id);
        let found = object_at(&*self.stores.main, self.access(), &key).await?;
        let checked = match found {
            Err(corrupt) => Err(corrupt),
            Ok(None) => Err(Corrupt::new("a state of the past refers to it, but it is not there")),
            Ok(Some(object)) => heavy(|| read_pack(&object, id).and_then(|contents| check_history(&contents))).await,
        };
        if let Err(corrupt) = checked {
            look.damage(corrupt.at(&key));
        }
        Ok(())
    }
}
