//! The order of a walk, and what is told of it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tenant::due::DueMarker;
use tenant::head::HeadState;
use tenant::name::Name;
use tenant::record::{NameRecord, NameState, Origin};
use tenant::{keys, registry};
use walstore::envelope::{self, Corrupt, Kind};
use walstore::id::{DatabaseId, IncarnationId, Slot};
use walstore::incarnation::State;
use walstore::life::Stores;
use walstore::recovery::Access;
use walstore::register::{self, Patience, Versioned};
use walstore::seam::Seam;
use walstore::store::{Key, Store};

use super::logs::Logs;
use super::{Damage, Orphan, Summary, VerifyError, Witness, damage_of, object_at};
use crate::fetcher::Fetcher;
use crate::limits;
use crate::listing::{Group, Listing};
use crate::orphan::{self, Standing};
use crate::sweep::SweepRecord;

pub(super) struct Walk<'a> {
    pub stores: &'a Stores,
    pub seam: &'a Seam,
    pub witness: &'a mut dyn Witness,
    pub summary: Summary,
    pub fetcher: Fetcher,
    pub logs: Logs,
    deletes_dead: bool,
    /// Else a database is checked up to its folded point.
    pub reads_logs: bool,
    /// What was told already: several databases may meet the same damage.
    told: BTreeSet<(String, String)>,
    /// Databases with a live head.
    pub live: BTreeSet<DatabaseId>,
    /// Databases with objects, but without a head.
    pub headless: BTreeSet<DatabaseId>,
    /// Databases with commits in some log.
    pub logged: BTreeSet<DatabaseId>,
}

/// The keys of one incarnation's log.
#[derive(Default)]
struct LogKeys {
    slots: BTreeSet<Slot>,
    /// Side objects and bundles.
    others: BTreeSet<Key>,
    has_marker: bool,
}

impl<'a> Walk<'a> {
    pub fn new(
        stores: &'a Stores,
        seam: &'a Seam,
        fetcher: Fetcher,
        deletes_dead: bool,
        witness: &'a mut dyn Witness,
    ) -> Self {
        Self {
            stores,
            seam,
            witness,
            summary: Summary::default(),
            fetcher,
            logs: Logs::default(),
            deletes_dead,
            reads_logs: true,
            told: BTreeSet::new(),
            live: BTreeSet::new(),
            headless: BTreeSet::new(),
            logged: BTreeSet::new(),
        }
    }

    pub fn access(&self) -> Access<'a> {
        let patience = Patience::for_duration(self.seam, limits::WALK_PATIENCE);
        Access { stores: self.stores, seam: self.seam, patience }
    }

    pub async fn everything(&mut self) -> Result<(), VerifyError> {
        self.cluster().await?;
        self.sweep_record().await?;
        self.all_logs().await?;
        let main = self.stores.main.clone();
        let mut groups = Listing::new(&*main, self.seam, keys::DATABASES_PREFIX);
        while let Some(group) = groups.next_group().await? {
            match group {
                Group::Database(database, keys) => self.database(database, keys).await?,
                Group::Stray(key) => self.stray(key).await?,
            }
        }
        self.names().await?;
        self.markers().await?;
        let mut probes = Listing::new(&*main, self.seam, walstore::keys::PROBE_PREFIX);
        while let Some(key) = probes.next().await? {
            self.orphan(key, Standing::Waiting("of a probe of the store, which may be running")).await?;
        }
        Ok(())
    }

    /// One database, and the logs of its tail.
    pub async fn named(&mut self, name: &Name) -> Result<(), VerifyError> {
        let (database, state) = match registry::read_name(&*self.stores.main, self.seam, name, self.access().patience).await {
            Ok(Some(Versioned { value: NameRecord { state: state @ NameState::Live { database, .. }, .. }, .. })) => (database, state),
            Ok(_) => return Err(VerifyError::NoSuchDatabase(name.clone())),
            Err(error) => {
                let corrupt = damage_of(error)?;
                self.damage(corrupt, Some(name));
                return Ok(());
            }
        };
        let main = self.stores.main.clone();
        let prefix = keys::database_prefix(database);
        let group = Listing::new(&*main, self.seam, &prefix).next_group().await?;
        match group {
            Some(Group::Database(_, keys)) => {
                self.database(database, keys).await?;
                if !self.live.contains(&database) { self.name_without_head(name, state).await } else { Ok(()) }
            }
            _ => {
                self.damage(Corrupt::new("its name leads to it, but it is not there").at(keys::head(database)), Some(name));
                Ok(())
            }
        }
    }

    pub fn damage(&mut self, corrupt: Corrupt, name: Option<&Name>) {
        let Corrupt { key, reason } = corrupt;
        if self.told.insert((key.clone(), reason.clone())) {
            self.summary.damages += 1;
            self.witness.damage(&Damage { key, what: reason, name: name.cloned() });
        }
    }

    /// Says what an orphan is, and deletes it if that is wanted and right.
    pub async fn orphan(&mut self, key: Key, standing: Standing) -> Result<(), VerifyError> {
        let Some(bytes) = self.bytes_of(&key).await? else { return Ok(()) };
        let is_deleted = self.deletes_dead && standing.is_dead();
        if is_deleted {
            self.store_of(&key).delete(&key).await?;
            self.summary.deleted.add(bytes);
        }
        match standing {
            Standing::Dead(_) => self.summary.dead.add(bytes),
            Standing::Waiting(_) => self.summary.waiting.add(bytes),
        }
        self.witness.orphan(&Orphan { key, bytes, standing, is_deleted });
        Ok(())
    }

    /// Its length, by its own header or else by reading it; `None` if it is gone.
    async fn bytes_of(&self, key: &Key) -> Result<Option<u64>, VerifyError> {
        let store = self.store_of(key);
        if let Ok(Some(start)) = store.get_range(key, 0..envelope::HEADER_BYTES as u64).await
            && let Ok(bytes) = envelope::claimed_bytes(&start.bytes)
        {
            return Ok(Some(bytes));
        }
        // Of one that is damaged nothing needs it, and nobody knows how long it was.
        let object = object_at(store, self.access(), key).await?.unwrap_or(Some(Bytes::new()));
        Ok(object.map(|bytes| bytes.len() as u64))
    }

    fn store_of(&self, key: &Key) -> &'a dyn Store {
        let is_slot = key.as_str().starts_with(walstore::keys::FRAGMENT_PREFIX);
        if is_slot { &*self.stores.log } else { &*self.stores.main }
    }

    async fn stray(&mut self, key: Key) -> Result<(), VerifyError> {
        self.orphan(key, Standing::Waiting("no object of Shoal has such a key")).await
    }

    /// The bucket's own records.
    async fn cluster(&mut self) -> Result<(), VerifyError> {
        let store = &*self.stores.main;
        for (key, is_needed) in [(walstore::keys::cluster(), true), (walstore::keys::probed(), false)] {
            let found = object_at(store, self.access(), &key).await?;
            let checked = found.and_then(|found| match found {
                None if is_needed => Err(Corrupt::new("the record of the bucket's format is not there")),
                None => Ok(()),
                Some(object) => envelope::open_as(&object, Kind::Cluster, 1, 4096).and_then(|body| {
                    let is_right = if is_needed { body.len() == 20 } else { std::str::from_utf8(&body).is_ok() };
                    if is_right { Ok(()) } else { Err(Corrupt::new("not the record that belongs here")) }
                }),
            });
            if let Err(corrupt) = checked {
                self.damage(corrupt.at(key), None);
            }
        }
        Ok(())
    }

    async fn sweep_record(&mut self) -> Result<(), VerifyError> {
        let (key, patience) = (walstore::keys::sweep(), self.access().patience);
        if let Err(error) = register::read::<SweepRecord>(&*self.stores.main, self.seam, &key, patience).await {
            let corrupt = damage_of(error)?;
            self.damage(corrupt, None);
        }
        Ok(())
    }

    async fn all_logs(&mut self) -> Result<(), VerifyError> {
        let mut all: BTreeMap<IncarnationId, LogKeys> = BTreeMap::new();
        use walstore::keys::{BUNDLE_PREFIX, FRAGMENT_PREFIX, INCARNATION_PREFIX, LIVE_PREFIX, Object, SIDE_PREFIX};
        for prefix in [INCARNATION_PREFIX, LIVE_PREFIX, FRAGMENT_PREFIX, SIDE_PREFIX, BUNDLE_PREFIX] {
            let store = if prefix == FRAGMENT_PREFIX { self.stores.log.clone() } else { self.stores.main.clone() };
            let mut listing = Listing::new(&*store, self.seam, prefix);
            while let Some(key) = listing.next().await? {
                let Some(object) = walstore::keys::parse(&key) else {
                    self.stray(key).await?;
                    continue;
                };
                let of_log = all.entry(orphan::log_of(&key).expect("BUG: it was parsed")).or_default();
                match object {
                    Object::Incarnation(_) => {}
                    Object::Live(_) => of_log.has_marker = true,
                    Object::Fragment(_, slot) => drop(of_log.slots.insert(slot)),
                    Object::Side(..) | Object::Bundle { .. } => drop(of_log.others.insert(key)),
                }
            }
        }
        for (id, keys) in all {
            self.log(id, keys).await?;
        }
        Ok(())
    }

    async fn log(&mut self, id: IncarnationId, keys: LogKeys) -> Result<(), VerifyError> {
        if keys.has_marker {
            self.live_marker(id).await?;
        }
        let Some(view) = self.log_view(id, false).await? else {
            let key = walstore::keys::incarnation(id);
            if !keys.slots.is_empty() || !keys.others.is_empty() {
                self.damage(Corrupt::new("its log has objects, but the record is not there").at(key), None);
            }
            return Ok(());
        };
        self.summary.logs += 1;
        if !keys.has_marker && !view.is_drained() {
            let what = "its log is not drained, and no marker says so: nobody will look for it";
            self.witness.note(walstore::keys::live(id).as_str(), what);
        }
        for slot in keys.slots {
            if let Some(standing) = orphan::of_slot(&view.record, slot) {
                self.orphan(walstore::keys::fragment(id, slot), standing).await?;
            }
        }
        for key in keys.others {
            if !view.referenced.contains(&key) {
                let unknown = Standing::Waiting("its log is damaged, and may refer to it");
                let standing = if view.is_whole { orphan::of_log(&view.record) } else { unknown };
                self.orphan(key, standing).await?;
            }
        }
        self.witness.progress(&self.summary);
        Ok(())
    }

    async fn live_marker(&mut self, id: IncarnationId) -> Result<(), VerifyError> {
        let key = walstore::keys::live(id);
        let found = object_at(&*self.stores.main, self.access(), &key).await?;
        let checked = found.and_then(|object| object.map_or(Ok(()), |object| walstore::incarnation::check_live(&object, id)));
        if let Err(corrupt) = checked {
            self.damage(corrupt.at(key), None);
        }
        Ok(())
    }

    /// Names whose heads were not met.
    async fn names(&mut self) -> Result<(), VerifyError> {
        let main = self.stores.main.clone();
        let mut listing = Listing::new(&*main, self.seam, keys::NAME_PREFIX);
        while let Some(key) = listing.next().await? {
            let Some(name) = keys::parse_name(&key) else {
                self.stray(key).await?;
                continue;
            };
            let record = match registry::read_name(&*main, self.seam, &name, self.access().patience).await {
                Ok(record) => record,
                Err(error) => {
                    let corrupt = damage_of(error)?;
                    self.damage(corrupt, Some(&name));
                    continue;
                }
            };
            match record.map(|record| record.value.state) {
                Some(state @ NameState::Live { database, .. }) if !self.live.contains(&database) => {
                    self.name_without_head(&name, state).await?;
                }
                Some(state @ NameState::Deleted { .. }) => self.name_without_head(&name, state).await?,
                Some(NameState::Live { .. }) | None => {}
            }
        }
        Ok(())
    }

    /// A name whose database was not met alive.
    async fn name_without_head(
        &mut self,
        name: &Name,
        state: NameState,
    ) -> Result<(), VerifyError> {
        let (database, is_deleted, is_made, maker) = match state {
            NameState::Live { database, is_made, incarnation, origin } => {
                // What a fork or an import uploads comes before its head.
                let maker = (!is_made && !matches!(origin, Origin::Empty(_))).then_some(incarnation);
                (database, false, is_made, maker)
            }
            NameState::Deleted { database, .. } => (database, true, false, None),
        };
        let key = keys::head(database);
        match registry::read_head(&*self.stores.main, self.seam, database, self.access().patience).await {
            Ok(Some(head)) if is_made && head.value.state == HeadState::Aborted => {
                self.damage(Corrupt::new("the database was there, but its head says that it never was").at(key), Some(name));
            }
            // Created since, or over: whoever meets the name frees it. A live one was looked at with its own name.
            Ok(Some(_)) => {}
            Ok(None) if is_deleted => {
                self.damage(Corrupt::new("a deleted database's head is not there; final heads stay").at(key), Some(name));
            }
            Ok(None) if is_made => {
                self.damage(Corrupt::new("a name leads to it, and it was there, but it is gone").at(key), Some(name));
            }
            Ok(None) if !self.logged.contains(&database) && self.is_at_work(maker).await? => {
                self.witness.note(key.as_str(), "a name leads to it: it is being made");
            }
            Ok(None) if self.logged.contains(&database) || self.headless.contains(&database) => {
                self.damage(Corrupt::new("the database has objects and a name, but no head").at(key), Some(name));
            }
            Ok(None) => self.witness.note(key.as_str(), "a name leads to it: its creation was not finished"),
            Err(error) => {
                let corrupt = damage_of(error)?;
                self.damage(corrupt, Some(name));
            }
        }
        Ok(())
    }

    /// Whether who began to make a database may go on.
    async fn is_at_work(&mut self, maker: Option<IncarnationId>) -> Result<bool, VerifyError> {
        let Some(maker) = maker else { return Ok(false) };
        Ok(self.log_view(maker, true).await?.is_some_and(|view| view.record.state == State::Open))
    }

    async fn markers(&mut self) -> Result<(), VerifyError> {
        let main = self.stores.main.clone();
        let mut listing = Listing::new(&*main, self.seam, keys::DUE_PREFIX);
        while let Some(key) = listing.next().await? {
            if keys::parse_due(&key).is_none() {
                self.stray(key).await?;
                continue;
            }
            let found = object_at(&*main, self.access(), &key).await?;
            let checked = found.and_then(|object| object.map(|object| DueMarker::decode(&object)).transpose());
            match checked {
                Ok(Some(marker)) if keys::due(marker.due_micros, marker.database, marker.kind) != key => {
                    self.damage(Corrupt::new(format!("holds a marker of {}", marker.database)).at(key), None);
                }
                Err(corrupt) => self.damage(corrupt.at(key), None),
                Ok(_) => {}
            }
        }
        Ok(())
    }
}
