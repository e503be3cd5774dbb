//! R11: damage in the bucket, of every kind, to every kind of object.
//!
//! After each damage two things must hold. `verify` names the damaged object. And a node that opens the databases, or goes
//! back to moments of their past, gets what they hold or held, or an error that names the damaged object; never other
//! pages, never a panic.
//!
//! Damage to an orphan, which nothing refers to, is none: `verify` tells of the orphan, and everything is served as before.
//! That these really are needed by nobody is not left to `verify` to say: all is there without them.
//!
//! `SHOAL_DAMAGES=200000 cargo test --release -p pageserver --test damage -- --nocapture` tries so many;
//! `SHOAL_SEED=7` begins with another one.
//!
//! What cannot be noticed, because nothing that is left tells of it, is written down in [`is_silent`].

mod bucket;
mod files;
#[allow(dead_code, reason = "of a test that uses more of it")]
#[path = "../fork/forest.rs"]
mod forest;
#[path = "../../../walstore/tests/support/mod.rs"]
mod held;
mod inflict;
#[cfg(feature = "mutants")]
mod mutants;
mod past;
mod reader;
mod witness;
#[path = "../drain/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};

use bucket::{Bucket, Database, Kind, Moment};
use inflict::{Damage, Dice};
use pageserver::verify::Options;
use tenant::head::{Head, HeadState};
use walstore::register::Record;
use walstore::store::{Key, MemoryStore};
use witness::verify;

/// Damages of the fast tier.
const DAMAGES: u64 = 5_000;
/// So many databases are opened after each damage, and so many moments gone back to, beside those that it concerns.
const OTHERS: usize = 8;
const MOMENTS: usize = 2;
/// Damages of each sort to each orphan.
const ORPHAN_SEEDS: u64 = 4;

/// What was tried and what came of it, by kind of object and of damage.
#[derive(Default)]
struct Cell {
    tried: u64,
    /// A node refused to serve a database.
    refused: u64,
}

/// What one damage came to.
struct Outcome {
    kind: Kind,
    damage: Damage,
    /// Something refers to it.
    is_needed: bool,
    /// An error must name the object. A body that is other than it was, under a checksum that fits, may lead to any object.
    must_name: bool,
    /// Databases that a node refused to serve, now or as they were.
    refused: u64,
    broken: Vec<String>,
}

async fn buckets() -> [Bucket; 4] {
    [Bucket::new().await, Bucket::large().await, Bucket::past().await, Bucket::family().await]
}

/// Most damages are to the first bucket, where each takes the least.
fn bucket_of(buckets: &[Bucket; 4], seed: u64) -> &Bucket {
    match seed % 32 {
        0 | 16 => &buckets[1],
        1 | 9 | 17 | 25 => &buckets[2],
        2 => &buckets[3],
        _ => &buckets[0],
    }
}

#[tokio::test(start_paused = true)]
async fn a_sound_bucket_is_sound() {
    let mut kinds = BTreeSet::new();
    for bucket in buckets().await {
        is_sound(&bucket, &bucket.store().await).await;
        kinds.extend(bucket.kinds());
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), Kind::ALL);
}

/// What later folds have replaced stays until it is collected, which of a database that has ended is after its retention.
#[tokio::test(start_paused = true)]
async fn a_sound_bucket_is_sound_without_its_orphans() {
    let mut orphans = Vec::new();
    for bucket in buckets().await {
        is_sound(&bucket, &bucket.store_without_orphans().await).await;
        orphans.extend(bucket.orphans.iter().map(|key| (bucket.kind_of(key), bucket.kind_of(&bucket.head_of(key)))));
    }
    assert_eq!(orphans, [(Kind::Pack, Kind::Ended); 2], "of one that was deleted, and of one that was replaced");
}

async fn is_sound(bucket: &Bucket, store: &MemoryStore) {
    let (found, summary) = verify(store, &bucket.seam, &Options::default()).await;
    assert_eq!((found.damages, found.notes), (vec![], vec![]));
    assert_eq!((summary.databases, summary.unsettled), (bucket.heads() as u64, 0), "{summary:?}");
    assert_eq!((summary.dead.objects, summary.deleted.objects), (0, 0), "{:?}", found.orphans);
    for database in &bucket.databases {
        let read = reader::read(store, &bucket.seam, &database.name).await;
        assert_eq!(read.as_ref().map(Option::as_ref), Ok(database.content.as_ref()), "{}", database.name);
    }
    for Moment { database, lsn, content } in &bucket.moments {
        let read = reader::read_past(store, &bucket.seam, *database, *lsn).await;
        assert_eq!(read.as_ref().map(Option::as_ref), Ok(Some(content)), "{database} after commit {lsn}");
    }
    assert!(found.pages > 0, "the databases are put together");
}

/// What can be brought back is put together and looked at as a whole: as many pages as what lives has, and these.
#[tokio::test(start_paused = true)]
async fn databases_that_have_ended_are_put_together_until_they_are_shrunk() {
    let bucket = Bucket::past().await;
    let (found, _) = verify(&bucket.store().await, &bucket.seam, &Options::default()).await;
    let living: usize = bucket.databases.iter().filter_map(|it| it.content.as_ref()).map(|content| content.0.len()).sum();
    let ended = |kind: fn(&HeadState) -> bool| {
        let heads = bucket.objects.iter().filter(|(key, _)| bucket.kind_of(key) == Kind::Ended);
        let heads = heads.map(|(_, object)| Head::decode(object).unwrap()).filter(|head| kind(&head.state));
        heads.map(|head| head.folded.page_count as usize).sum::<usize>()
    };
    let deleted = ended(|state| matches!(state, HeadState::Deleted { .. }));
    let moved = ended(|state| matches!(state, HeadState::Moved { .. }));
    assert!(deleted > 0 && moved > 0, "the test itself");
    assert_eq!(found.pages as usize, living + deleted + moved);
}

#[tokio::test(start_paused = true)]
async fn damage_is_named_and_never_served() {
    let buckets = buckets().await;
    let first = number("SHOAL_SEED").unwrap_or(0);
    let count = number("SHOAL_DAMAGES").unwrap_or(DAMAGES);
    let mut cells: BTreeMap<(Kind, Damage), Cell> = BTreeMap::new();
    let mut broken = Vec::new();
    for seed in first..first + count {
        let outcome = damaged(bucket_of(&buckets, seed), seed).await;
        let cell = cells.entry((outcome.kind, outcome.damage)).or_default();
        cell.tried += 1;
        cell.refused += outcome.refused;
        broken.extend(outcome.broken);
        assert!(broken.len() < 20, "{}", broken.join("\n"));
    }
    print(&cells);
    println!("damage: {count} damages of {} kinds of objects", Kind::ALL.len());
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(count < 1_000 || cells.len() >= 130, "only {} combinations were tried", cells.len());
}

/// However few they are among all that damage can meet.
#[tokio::test(start_paused = true)]
async fn damage_to_an_orphan_is_told_as_an_orphan_and_changes_nothing() {
    let bucket = Bucket::past().await;
    let mut tried = 0;
    for key in &bucket.orphans {
        for damage in Damage::ALL {
            for seed in 0..ORPHAN_SEEDS {
                let outcome = damaged_by(&bucket, key.clone(), damage, seed, Dice::new(seed)).await;
                assert!(outcome.broken.is_empty(), "{}", outcome.broken.join("\n"));
                tried += u64::from(!outcome.is_needed);
            }
        }
    }
    // Each but those that change places with what is needed.
    let least = bucket.orphans.len() as u64 * (Damage::ALL.len() as u64 - 1) * ORPHAN_SEEDS;
    assert!(least > 0 && tried >= least, "only {tried} were of orphans alone");
}

/// One damage, and what `verify` and nodes make of it.
async fn damaged(bucket: &Bucket, seed: u64) -> Outcome {
    let mut dice = Dice::new(seed);
    let (key, damage) = inflict::pick(bucket, &mut dice);
    damaged_by(bucket, key, damage, seed, dice).await
}

async fn damaged_by(bucket: &Bucket, key: Key, damage: Damage, seed: u64, mut dice: Dice) -> Outcome {
    let (store, keys) = inflict::inflict(bucket, key, damage, &mut dice).await;
    let is_needed = keys.iter().any(|key| !bucket.orphans.contains(key));
    // The body is other than it was, under a checksum that fits: it may mean something else that is whole.
    let may_differ = damage == Damage::Resealed && is_needed;
    let must_name = damage != Damage::Resealed && !is_silent(bucket, damage, &keys[0]);
    let kind = bucket.kind_of(&keys[0]);
    let mut outcome = Outcome { kind, damage, is_needed, must_name, refused: 0, broken: Vec::new() };
    let names = keys.iter().map(Key::as_str).collect::<Vec<_>>().join(" and ");
    let context = format!("seed {seed}: {damage:?} of {names}");
    if let Err(reason) = is_named(bucket, &store, damage, &keys).await {
        outcome.broken.push(format!("{context}: {reason}"));
    }
    // The past first: who opens a database may write to the store.
    for moment in moments_for(bucket, &keys, &mut dice) {
        let read = reader::read_past(&store, &bucket.seam, moment.database, moment.lsn).await;
        let what = format!("{context}: {} after commit {}", moment.database, moment.lsn);
        match read {
            Ok(Some(read)) if read == moment.content || may_differ => {}
            // There is no head, and nobody would ask for it.
            Ok(None) if keys.contains(&tenant::keys::head(moment.database)) => outcome.refused += 1,
            Ok(_) => outcome.broken.push(format!("{what}: other pages are served")),
            Err(error) => outcome.refuse(&what, &error, &keys),
        }
    }
    for database in databases_for(bucket, &keys, &mut dice) {
        let what = format!("{context}: {}", database.name);
        match reader::read(&store, &bucket.seam, &database.name).await {
            Ok(read) if read == database.content || may_differ || is_gone(bucket, damage, &keys, read.is_none()) => {}
            Ok(_) => outcome.broken.push(format!("{what}: other pages are served")),
            Err(error) => outcome.refuse(&what, &error, &keys),
        }
    }
    outcome
}

impl Outcome {
    /// Whoever cannot read a database is told which object is to blame.
    fn refuse(&mut self, what: &str, error: &str, keys: &[Key]) {
        self.refused += 1;
        if !self.is_needed {
            self.broken.push(format!("{what}: refused, though nothing needs what is damaged: {error}"));
        } else if self.must_name && !keys.iter().any(|key| error.contains(key.as_str())) {
            self.broken.push(format!("{what}: the error does not name it, but says: {error}"));
        }
    }
}

/// Those that the damage is to, and some more.
fn databases_for<'a>(bucket: &'a Bucket, keys: &[Key], dice: &mut Dice) -> Vec<&'a Database> {
    if bucket.databases.len() <= 2 * OTHERS {
        return bucket.databases.iter().collect();
    }
    let is_concerned = |it: &&Database| keys.iter().any(|key| Bucket::concerns(key, it.id, Some(&it.name)));
    let concerned = bucket.databases.iter().filter(is_concerned);
    concerned.chain((0..OTHERS).map(|_| dice.pick(&bucket.databases))).collect()
}

fn moments_for<'a>(bucket: &'a Bucket, keys: &[Key], dice: &mut Dice) -> Vec<&'a Moment> {
    let is_concerned = |it: &&Moment| keys.iter().any(|key| Bucket::concerns(key, it.database, None));
    let concerned: Vec<&Moment> = bucket.moments.iter().filter(is_concerned).collect();
    let mut picked = Vec::new();
    for _ in 0..MOMENTS {
        if !concerned.is_empty() {
            picked.push(*dice.pick(&concerned));
        }
        if !bucket.moments.is_empty() {
            picked.push(dice.pick(&bucket.moments));
        }
    }
    picked
}

/// `verify` says what is wrong, by the key of what is damaged; or that it is an orphan, which is not read.
async fn is_named(bucket: &Bucket, store: &MemoryStore, damage: Damage, keys: &[Key]) -> Result<(), String> {
    let (found, _) = verify(store, &bucket.seam, &Options::default()).await;
    let (orphans, needed): (Vec<&Key>, Vec<&Key>) = keys.iter().partition(|key| bucket.orphans.contains(*key));
    if needed.is_empty() {
        let is_told = |key: &&Key| found.orphans.iter().any(|orphan| orphan.key == **key);
        let is_right = orphans.iter().all(|key| is_told(key) != (damage == Damage::Deleted));
        let is_right = is_right && found.damages.is_empty();
        return if is_right { Ok(()) } else { Err(format!("it is an orphan, but verify says {found:?}")) };
    }
    // It is silent for a node that opens the database; `verify` sees the commits in the logs.
    if is_silent(bucket, damage, &keys[0]) && !bucket.is_logged(&keys[0]) {
        return Ok(());
    }
    // What it says now may be whole, too.
    if damage == Damage::Resealed {
        return Ok(());
    }
    let named = found.damages.iter().any(|damage| needed.iter().any(|key| damage.key == key.as_str()));
    if named { Ok(()) } else { Err(format!("verify does not name it, but {:?}", found.damages)) }
}

/// Nothing else tells that these objects were ever there.
fn is_silent(bucket: &Bucket, damage: Damage, key: &Key) -> bool {
    let is_help = matches!(bucket.kind_of(key), Kind::Live | Kind::Due | Kind::Probed | Kind::Sweep);
    // Of a database that has folded nothing the head is all that there is: its creation may not have been finished.
    let is_only_head = bucket.is_not_folded(key);
    // The last slots of a log that is still open, above its hint: a PUT that never came looks the same.
    // What is left of a fork that was not finished.
    let is_unfinished = bucket.is_aborted(key) || bucket.is_nobodys_name(key);
    let is_nothing = is_help || is_only_head || bucket.is_above_hint(key) || is_unfinished;
    damage == Damage::Deleted && is_nothing
}

/// Without its name record a database cannot be found, which is no wrong answer about its rows.
fn is_gone(bucket: &Bucket, damage: Damage, keys: &[Key], is_none: bool) -> bool {
    (damage == Damage::Deleted && is_none && bucket.kind_of(&keys[0]) == Kind::Name)
        || is_silent(bucket, damage, &keys[0])
}

fn print(cells: &BTreeMap<(Kind, Damage), Cell>) {
    let mut kind = None;
    for ((of, damage), Cell { tried, refused }) in cells {
        if kind.replace(*of) != Some(*of) {
            println!("{of:?}");
        }
        println!("    {damage:<12?} {tried:>7} tried, {refused:>7} refusals to serve a database");
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a number")))
}
