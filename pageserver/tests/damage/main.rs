//! R11: damage in the bucket, of every kind, to every kind of object.
//!
//! After each damage two things must hold. `verify` names the damaged object. And a node that opens the databases gets,
//! for each of them, what it holds, or an error that names an object; never other pages, never a panic.
//!
//! `SHOAL_DAMAGES=200000 cargo test --release -p pageserver --test damage -- --nocapture` tries so many;
//! `SHOAL_SEED=7` begins with another one.
//!
//! What cannot be noticed, because nothing that is left tells of it, is written down in [`is_silent`].

mod bucket;
mod files;
#[path = "../../../walstore/tests/support/mod.rs"]
mod held;
mod inflict;
mod reader;
mod witness;
#[path = "../drain/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};

use bucket::{Bucket, Kind};
use inflict::{Damage, Dice};
use pageserver::verify::Options;
use walstore::store::{Key, MemoryStore};
use witness::verify;

/// Damages of the fast tier.
const DAMAGES: u64 = 3_000;
/// So many of them are to the bucket with the side object, where each takes long.
const LARGE_ONE_IN: u64 = 16;

/// What was tried and what came of it, by kind of object and of damage.
#[derive(Default)]
struct Cell {
    tried: u64,
    /// A node refused to serve a database.
    refused: u64,
}

#[tokio::test(start_paused = true)]
async fn a_sound_bucket_is_sound() {
    let mut kinds = BTreeSet::new();
    for bucket in [Bucket::new().await, Bucket::large().await] {
        is_sound(&bucket).await;
        kinds.extend(bucket.kinds());
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), Kind::ALL);
}

async fn is_sound(bucket: &Bucket) {
    let store = bucket.store().await;
    let (found, summary) = verify(&store, &bucket.seam, &Options::default()).await;
    assert_eq!((found.damages, found.notes), (vec![], vec![]));
    assert_eq!((summary.databases, summary.unsettled), (bucket.databases.len() as u64, 0), "{summary:?}");
    assert_eq!((summary.dead.objects, summary.deleted.objects), (0, 0), "{:?}", found.orphans);
    for database in &bucket.databases {
        let read = reader::read(&store, &bucket.seam, &database.name).await;
        assert_eq!(read.as_ref().map(Option::as_ref), Ok(database.content.as_ref()), "{}", database.name);
    }
    assert!(found.pages > 0, "the databases are put together");
}

#[tokio::test(start_paused = true)]
async fn damage_is_named_and_never_served() {
    let buckets = [Bucket::new().await, Bucket::large().await];
    let first = number("SHOAL_SEED").unwrap_or(0);
    let count = number("SHOAL_DAMAGES").unwrap_or(DAMAGES);
    let mut cells: BTreeMap<(Kind, Damage), Cell> = BTreeMap::new();
    let mut broken = Vec::new();
    for seed in first..first + count {
        let bucket = &buckets[usize::from(seed % LARGE_ONE_IN == 0)];
        let mut dice = Dice::new(seed);
        let (store, damage, keys) = inflict::one(bucket, &mut dice).await;
        let cell = cells.entry((bucket.kind_of(&keys[0]), damage)).or_default();
        cell.tried += 1;
        let context = format!("seed {seed}: {damage:?} of {}", keys.iter().map(Key::as_str).collect::<Vec<_>>().join(" and "));
        if let Err(reason) = is_named(bucket, &store, damage, &keys).await {
            broken.push(format!("{context}: {reason}"));
        }
        for database in &bucket.databases {
            match reader::read(&store, &bucket.seam, &database.name).await {
                Ok(read) if read == database.content || is_gone(bucket, damage, &keys, read.is_none()) => {}
                Ok(_) => broken.push(format!("{context}: other pages of {} are served", database.name)),
                Err(_) => cell.refused += 1,
            }
        }
        assert!(broken.len() < 20, "{}", broken.join("\n"));
    }
    print(&cells);
    println!("damage: {count} damages of {} kinds of objects", Kind::ALL.len());
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(count < 1_000 || cells.len() >= 80, "only {} combinations were tried", cells.len());
}

/// `verify` says what is wrong, by the key of what is damaged.
async fn is_named(bucket: &Bucket, store: &MemoryStore, damage: Damage, keys: &[Key]) -> Result<(), String> {
    let (found, _) = verify(store, &bucket.seam, &Options::default()).await;
    // It is silent for a node that opens the database; `verify` sees the commits in the logs.
    if is_silent(bucket, damage, &keys[0]) && !bucket.is_logged(&keys[0]) {
        return Ok(());
    }
    // The body is other than it was, under a checksum that fits: it may mean something else that is whole.
    if damage == Damage::Resealed {
        return Ok(());
    }
    let named = found.damages.iter().any(|damage| keys.iter().any(|key| damage.key == key.as_str()));
    if named { Ok(()) } else { Err(format!("verify does not name it, but {:?}", found.damages)) }
}

/// Nothing else tells that these objects were ever there.
fn is_silent(bucket: &Bucket, damage: Damage, key: &Key) -> bool {
    let is_help = matches!(bucket.kind_of(key), Kind::Live | Kind::Due | Kind::Probed);
    // Of a database that has folded nothing the head is all that there is: its creation may not have been finished.
    let is_only_head = bucket.is_not_folded(key);
    // The last slots of a log that is still open, above its hint: a PUT that never came looks the same.
    damage == Damage::Deleted && (is_help || is_only_head || bucket.is_above_hint(key))
}

/// Without its name record a database cannot be found, which is no wrong answer about its rows.
fn is_gone(bucket: &Bucket, damage: Damage, keys: &[Key], is_none: bool) -> bool {
    damage == Damage::Resealed
        || (damage == Damage::Deleted && is_none && bucket.kind_of(&keys[0]) == Kind::Name)
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
