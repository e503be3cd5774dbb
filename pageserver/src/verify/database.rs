//! One database: head, name, page map, packs, tail, orphans.

use std::collections::BTreeSet;

use segments::keys;
use segments::tip::Tip;
use tenant::head::Head;
use tenant::record::NameState;
use tenant::registry;
use walstore::envelope::Corrupt;
use walstore::id::{DatabaseId, IncarnationId};
use walstore::incarnation::State;
use walstore::recovery::LoggedCommit;
use walstore::register::{Backoff, RecordError, Versioned};
use walstore::store::Key;

use super::logs::pause;
use super::walk::Walk;
use super::{VerifyError, damage_of};
use crate::tail::Tail;
use crate::{garbage, limits, orphan};

/// What one look at a database found.
#[derive(Default)]
pub(super) struct Look {
    pub damages: Vec<Corrupt>,
    /// Packs and chunks that the map consists of.
    pub referenced: BTreeSet<Key>,
    /// Something that may refer to more could not be read.
    pub is_partial: bool,
}

impl Look {
    pub fn damage(&mut self, corrupt: Corrupt) {
        self.damages.push(corrupt);
    }

    /// Takes what was read, or notes why it could not be.
    pub fn take<T>(&mut self, read: Result<T, RecordError>) -> Result<Option<T>, VerifyError> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                self.damage(damage_of(error)?);
                Ok(None)
            }
        }
    }
}

impl Walk<'_> {
    /// Checks a database. `keys` is what lay under its prefix, listed before.
    pub async fn database(&mut self, database: DatabaseId, keys: Vec<Key>) -> Result<(), VerifyError> {
        let mut backoff = Backoff::default();
        for round in 0..limits::VERIFY_ROUNDS_MAX {
            let head = match self.head(database).await? {
                Ok(Some(head)) => head.value,
                Ok(None) => return self.headless(database, keys).await,
                Err(corrupt) => {
                    self.damage(corrupt, None);
                    return Ok(());
                }
            };
            // Logs that were read before the head was may lack what it needs.
            let look = self.look_at(&head, round > 0).await?;
            if !look.damages.is_empty() {
                let again = self.head(database).await?;
                let is_same = matches!(&again, Ok(Some(again)) if again.value.version == head.version);
                if round == 0 || !is_same {
                    pause(self, &mut backoff).await;
                    continue;
                }
            }
            return self.conclude(&head, look, keys).await;
        }
        self.summary.unsettled += 1;
        let key = tenant::keys::head(database);
        self.witness.note(key.as_str(), "the database changed under every look; not checked to the end");
        Ok(())
    }

    async fn head(&self, database: DatabaseId) -> Result<Result<Option<Versioned<Head>>, Corrupt>, VerifyError> {
        match registry::read_head(&*self.stores.main, self.seam, database, self.access().patience).await {
            Ok(head) => Ok(Ok(head)),
            Err(error) => damage_of(error).map(Err),
        }
    }

    /// Objects of a database that has no head: of one that is being made, or of one whose head was lost.
    async fn headless(&mut self, database: DatabaseId, keys: Vec<Key>) -> Result<(), VerifyError> {
        self.headless.insert(database);
        for key in keys {
            self.orphan(key, orphan::Standing::Waiting("its database has no head")).await?;
        }
        Ok(())
    }

    async fn conclude(&mut self, head: &Head, look: Look, keys: Vec<Key>) -> Result<(), VerifyError> {
        self.summary.databases += 1;
        if !head.state.is_final() {
            self.live.insert(head.database);
        }
        for corrupt in look.damages {
            self.damage(corrupt, Some(&head.name));
        }
        let unlinked: BTreeSet<Key> = head.dead.iter().filter_map(|dead| garbage::key_of(dead).ok()).collect();
        let is_over = keys.is_empty() || self.is_owner_over(head).await?;
        for key in keys {
            if key == tenant::keys::head(head.database) || look.referenced.contains(&key) {
                continue;
            }
            let standing = match orphan::object_of(&key) {
                None if tenant::keys::parse_pins(&key).is_some() => {
                    orphan::Standing::Waiting("pins that are not linked; a sweep deletes them once nobody can link them")
                }
                None => orphan::Standing::Waiting("no object of Shoal has such a key"),
                Some(_) if look.is_partial => orphan::Standing::Waiting("the database is damaged, and may refer to it"),
                Some(object) => orphan::of_database(head, object, unlinked.contains(&key), is_over),
            };
            self.orphan(key, standing).await?;
        }
        self.witness.progress(&self.summary);
        Ok(())
    }

    async fn is_owner_over(&mut self, head: &Head) -> Result<bool, VerifyError> {
        let Some(owner) = head.owner else { return Ok(true) };
        let view = self.log_view(owner, false).await?;
        Ok(view.is_some_and(|view| matches!(view.record.state, State::Sealed { .. })))
    }

    async fn look_at(&mut self, head: &Head, fresh: bool) -> Result<Look, VerifyError> {
        let mut look = Look::default();
        self.check_dead_list(head, &mut look);
        self.check_parent(head, &mut look).await?;
        if head.state.is_final() {
            self.check_name_of_ended(head, &mut look).await?;
        } else {
            self.check_name(head, &mut look).await?;
        }
        // Until it is shrunk it keeps all that it had: an undelete, or undoing a restore, makes a fork of its last state.
        if head.is_shrunk() {
            return Ok(look);
        }
        self.check_past(head, &mut look).await?;
        // And then what its forks read.
        if head.is_emptied() {
            return Ok(look);
        }
        let read = Tail::of_head(&self.fetcher, head).await;
        let Some(mut tail) = look.take(read)? else {
            look.is_partial = true;
            return Ok(look);
        };
        self.read_chunks(&mut tail, &mut look).await?;
        let indexes = self.read_indexes(&tail, &mut look).await?;
        let is_replayed = self.reads_logs && self.replay(head, &mut tail, fresh, &mut look).await?;
        self.check_pages(&tail, &indexes, is_replayed, &mut look).await?;
        Ok(look)
    }

    fn check_dead_list(&self, head: &Head, look: &mut Look) {
        for dead in &head.dead {
            if let Err(corrupt) = garbage::key_of(dead) {
                look.damage(corrupt.at(tenant::keys::head(head.database)));
            }
        }
    }

    /// Heads stay, so that of a parent is there, even if no name leads to it any more. What is wrong with it, and with what
    /// its forks need of it, is told of the parent itself.
    async fn check_parent(&mut self, head: &Head, look: &mut Look) -> Result<(), VerifyError> {
        let Some(point) = head.parent else { return Ok(()) };
        if let Ok(None) = self.head(point.parent).await? {
            let reason = format!("{} was forked from it, but its head is not there; heads stay", head.database);
            look.damage(Corrupt::new(reason).at(tenant::keys::head(point.parent)));
        }
        Ok(())
    }

    /// The name of a database that has ended may belong to another one, but it has a record.
    async fn check_name_of_ended(&mut self, head: &Head, look: &mut Look) -> Result<(), VerifyError> {
        let patience = self.access().patience;
        let read = registry::read_name(&*self.stores.main, self.seam, &head.name, patience).await;
        if let Some(None) = look.take(read)? {
            let reason = format!("{} had this name, but the record is not there; name records stay", head.database);
            look.damage(Corrupt::new(reason).at(tenant::keys::name(&head.name)));
        }
        Ok(())
    }

    /// The name of a live database leads to it.
    async fn check_name(&mut self, head: &Head, look: &mut Look) -> Result<(), VerifyError> {
        let patience = self.access().patience;
        let read = registry::read_name(&*self.stores.main, self.seam, &head.name, patience).await;
        let Some(record) = look.take(read)? else { return Ok(()) };
        let reason = match record.as_ref().map(|record| &record.value.state) {
            Some(NameState::Live { database, .. }) if *database == head.database => return Ok(()),
            Some(NameState::Live { database, .. }) => format!("leads to {database}, not to {}", head.database),
            Some(NameState::Deleted { .. }) => format!("says deleted, but {} lives", head.database),
            None => format!("{} has this name, but the record is not there", head.database),
        };
        // A restore takes the place of a database whose name has a record.
        if record.is_some() && self.is_left_by_restore(head, look).await? {
            let what = "a restore in place was cut off: a sweep swings the name to it, or deletes it";
            self.witness.note(tenant::keys::head(head.database).as_str(), what);
            return Ok(());
        }
        look.damage(Corrupt::new(reason).at(tenant::keys::name(&head.name)));
        Ok(())
    }

    /// Whether it was made to take a place, and nobody has ever come to it: that of its parent, whose name it has, or that
    /// of another fork, which was to be reset to that parent.
    async fn is_left_by_restore(&mut self, head: &Head, look: &mut Look) -> Result<bool, VerifyError> {
        let Some(point) = head.parent.filter(|_| head.version == 1 && head.owner.is_none()) else { return Ok(false) };
        let patience = self.access().patience;
        let parent = registry::read_head(&*self.stores.main, self.seam, point.parent, patience).await;
        let Some(parent) = look.take(parent)?.flatten() else { return Ok(false) };
        // What begins before the first commit needs nothing, so it is not pinned.
        if parent.value.name == head.name || point.lsn.is_none() {
            return Ok(true);
        }
        let pins = registry::read_pins(&*self.stores.main, self.seam, &parent.value, patience).await;
        Ok(look.take(pins)?.is_some_and(|pins| pins.all().any(|pin| pin.child == head.database)))
    }

    async fn read_chunks(&mut self, tail: &mut Tail, look: &mut Look) -> Result<(), VerifyError> {
        look.referenced.extend(tail.map.chunk_ids().iter().map(keys::page_map));
        for reference in tail.map.missing_chunks() {
            let read = self.fetcher.chunk(tail.database(), &reference).await;
            let with = look.take(read)?.map(|object| tail.map.with_chunk(&reference, &object));
            match with {
                Some(Ok(map)) => {
                    self.summary.packs.add(u64::from(reference.bytes));
                    tail.map = map;
                }
                Some(Err(corrupt)) => look.damage(corrupt.at(keys::page_map(&reference.id))),
                None => {}
            }
        }
        match tail.map.packs() {
            Some(packs) => {
                let in_bucket = packs.iter().filter(|pack| !tail.image().is_some_and(|image| image.is_pack(pack)));
                look.referenced.extend(in_bucket.map(keys::pack));
            }
            None => look.is_partial = true,
        }
        Ok(())
    }

    /// Applies the commits of the tail in their order. `false`: not all of them could be.
    async fn replay(
        &mut self,
        head: &Head,
        tail: &mut Tail,
        fresh: bool,
        look: &mut Look,
    ) -> Result<bool, VerifyError> {
        let Some(commits) = self.tail_commits(head, tail.tip, fresh, look).await? else { return Ok(false) };
        for (incarnation, commit) in commits {
            let replayed = tail.replay(&self.fetcher, &commit, incarnation).await;
            if look.take(replayed)?.is_none() {
                return Ok(false);
            }
            self.summary.commits += 1;
        }
        Ok(true)
    }

    /// Every commit after the folded point; `None` if a log cannot be read.
    async fn tail_commits(
        &mut self,
        head: &Head,
        tip: Tip,
        fresh: bool,
        look: &mut Look,
    ) -> Result<Option<Vec<(IncarnationId, LoggedCommit)>>, VerifyError> {
        let (mut commits, mut last) = (Vec::new(), tip.lsn);
        for (at, entry) in head.tail.iter().enumerate() {
            let Some(view) = self.log_view(entry.incarnation, fresh).await? else {
                let key = walstore::keys::incarnation(entry.incarnation);
                look.damage(Corrupt::new("a database's history goes through this log, but it cannot be read").at(key));
                return Ok(None);
            };
            if !matches!(view.record.state, State::Sealed { .. }) && at + 1 < head.tail.len() {
                let reason = format!("the history goes on after {}, whose log has no end", entry.incarnation);
                look.damage(Corrupt::new(reason).at(tenant::keys::head(head.database)));
            }
            match view.commits(self.access(), head.database, entry, last).await? {
                Ok(found) => {
                    last = found.last().map_or(last, |commit| Some(commit.lsn));
                    commits.extend(found.into_iter().map(|commit| (entry.incarnation, commit)));
                }
                Err(corrupt) => {
                    look.damage(corrupt);
                    return Ok(None);
                }
            }
        }
        Ok(Some(commits))
    }
}
